//! What the service shows and takes: plain data, as REST and the command line print it.

mod account;
mod device;
mod firmware;

pub use account::*;
pub use device::*;
pub use firmware::*;

use std::collections::BTreeMap;

use serde::Serialize;

/// Who asks for a change, for the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// The account.
    pub name: Option<String>,
    /// The address that the request came from.
    pub origin: Option<String>,
}

impl Actor {
    /// The name for sentences.
    pub(crate) fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or("an operator")
    }
}

/// The site at a glance. Counters since the start; none counts what was only delayed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SiteStatus {
    /// Whether the first full scan of the store was taken in; nothing is offered before.
    pub ready: bool,
    /// Why the store cannot be read now.
    pub store_problem: Option<String>,
    /// Why the database cannot be written now.
    pub database_problem: Option<String>,
    /// Why the site's maintenance window is closed now: nothing new is offered.
    pub window_closed: Option<String>,
    /// Why the wall clock cannot be right; maintenance windows are closed then.
    pub clock_problem: Option<String>,
    /// Devices by registration and presence.
    pub devices: DeviceCounts,
    /// Devices per state of their newest offer.
    pub states: BTreeMap<&'static str, usize>,
    /// Files per state.
    pub firmware: BTreeMap<&'static str, usize>,
    /// Blocks queued to devices.
    pub blocks: u64,
    /// Firmware bytes in those, before encoding.
    pub block_bytes: u64,
    /// Manifests queued to devices, repeated ones included.
    pub manifests: u64,
    /// Errors sent to devices.
    pub errors: u64,
    /// Changes of the store, as many files as settled together, that were taken in and acted on.
    pub batches: u64,
    /// Publishes and subscriptions refused as forged or not allowed.
    pub refused: u64,
    /// Logins refused because a password or token was wrong, or the address had failed too often.
    pub failed_logins: u64,
}

/// How many devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceCounts {
    /// Known.
    pub total: usize,
    /// Of those, registered.
    pub registered: usize,
    /// Of those known, connected.
    pub online: usize,
}

/// Why the service did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It exists already, or contradicts what exists.
    #[error("{0}")]
    Conflict(String),
    /// A field cannot be accepted.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// It could not be written now; trying again may help.
    #[error("{0}; try again")]
    Unavailable(String),
}
