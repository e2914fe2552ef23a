//! The rules, each shown through the hook and a real store.

mod access;
mod accounts;
mod configure;
mod deployments;
mod identity;
mod import;
mod model;
mod outcome;
mod rollouts;
mod storm;
mod topics;
mod transfer;
