//! The rules, each shown through the hook and a real store.

mod access;
mod accounts;
mod cancelled;
mod caps;
mod changes;
mod configure;
mod deployments;
mod identity;
mod import;
mod keeping;
mod links;
mod mixing;
mod model;
mod numbers;
mod orders;
mod outcome;
mod progress;
mod retries;
mod rollouts;
mod stalled;
mod storm;
mod topics;
mod transfer;
mod unbegun;
mod unwritten;
mod windows;
