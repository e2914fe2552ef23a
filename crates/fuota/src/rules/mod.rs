//! The rules, each shown through the hook and a real store.

mod access;
mod accounts;
mod configure;
mod identity;
mod import;
mod outcome;
mod storm;
mod topics;
mod transfer;
