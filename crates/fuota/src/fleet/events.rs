//! What changes, told as it changes to whoever listens.
//!
//! A bounded ring: a listener that falls behind by more than [`KEPT`] events loses the oldest
//! and is told how many, so that it can read the state anew. Nobody waits for a listener. What an
//! operator should hear of goes through a ring of its own, so that a thousand ordinary changes
//! push none of it out.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::{
    alerts::{Alert, Watch},
    ring::{Heard, Place, Ring},
};
use crate::{engine::Engine, transfer::unix_now};

/// Changes that a slow listener may be behind: a fleet of some thousand devices that comes back
/// at once makes no more.
const KEPT: usize = 16_384;
/// The same for what operators are to hear.
const KEPT_ALERTS: usize = 1024;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Change {
    /// The newest offer of a device moved.
    Device {
        /// When, in seconds since 1970.
        at: u64,
        /// The device.
        device: String,
        /// The state that it is in now.
        state: &'static str,
        /// Why it failed.
        reason: Option<String>,
        /// The deployment that this belongs to.
        deployment: Option<String>,
        /// The version that it was offered.
        version: String,
    },
    /// A deployment was made, moved on, or was stopped.
    Deployment {
        /// When, in seconds since 1970.
        at: u64,
        /// Its number.
        deployment: String,
        /// The state that it is in now.
        state: &'static str,
        /// Why it is held, paused or over.
        reason: Option<String>,
        /// The wave under way, from 1.
        wave: usize,
    },
    /// What lies in the store, or what is made of it, changed.
    Firmware {
        /// When, in seconds since 1970.
        at: u64,
        /// Its path.
        path: String,
        /// What became of it.
        state: crate::FirmwareState,
        /// Why.
        reason: Option<String>,
    },
    /// A device came or went, or was registered, changed or forgotten.
    Known {
        /// When, in seconds since 1970.
        at: u64,
        /// The device.
        device: String,
        /// `online`, `offline`, `registered`, `changed` or `removed`.
        what: &'static str,
    },
    /// A user was added, changed or removed.
    User {
        /// When, in seconds since 1970.
        at: u64,
        /// Its name.
        user: String,
        /// `added`, `changed` or `removed`.
        what: &'static str,
    },
    /// Devices and users were added all at once.
    Import {
        /// When, in seconds since 1970.
        at: u64,
        /// How many devices.
        devices: usize,
        /// How many users.
        users: usize,
    },
    /// Whether all offers of the site are stopped.
    Site {
        /// When, in seconds since 1970.
        at: u64,
        /// Whether they are.
        frozen: bool,
        /// Why the store cannot be read now.
        store_problem: Option<String>,
    },
    /// This listener was too slow: so many events are lost to it.
    Missed {
        /// How many; `None`: nobody knows, since the daemon was started anew.
        events: Option<u64>,
    },
}

impl Change {
    /// What [`Change::name`] may be, but for `missed`.
    pub const NAMES: [&'static str; 7] =
        ["device", "deployment", "firmware", "known", "user", "import", "site"];

    /// The value of `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Change::Device { .. } => "device",
            Change::Deployment { .. } => "deployment",
            Change::Firmware { .. } => "firmware",
            Change::Known { .. } => "known",
            Change::User { .. } => "user",
            Change::Import { .. } => "import",
            Change::Site { .. } => "site",
            Change::Missed { .. } => "missed",
        }
    }

    /// A deployment as it is now.
    pub fn of(deployment: &super::deployment::Deployment) -> Change {
        Change::Deployment {
            at: unix_now(),
            deployment: deployment.id.to_string(),
            state: deployment.state.name(),
            reason: deployment.reason.clone(),
            wave: deployment.wave + 1,
        }
    }
}

/// Where changes are told, and what follows from them for operators. Ends with the engine.
pub struct Events {
    changes: Ring<Change>,
    alerts: Ring<Alert>,
    watch: Mutex<Watch>,
}

impl Default for Events {
    fn default() -> Self {
        Events { changes: Ring::new(KEPT), alerts: Ring::new(KEPT_ALERTS), watch: Mutex::default() }
    }
}

impl Events {
    /// Tells a change.
    pub fn tell(&self, change: Change) {
        // Held while both are told, so that alerts come in the order of their changes.
        let mut watch = self.watch.lock();
        if let Some(alert) = watch.follow(&change) {
            self.alerts.tell(alert);
        }
        self.changes.tell(change);
    }

    /// Nothing is told any more: every listener comes to its end.
    pub fn close(&self) {
        self.changes.close();
        self.alerts.close();
    }
}

/// Where to begin listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From<'a> {
    /// With the oldest change that is kept.
    Start,
    /// With the next one.
    Now,
    /// Behind this place, which [`Listener::place`] named.
    Behind(&'a str),
}

/// One who listens to changes.
pub struct Listener {
    engine: Arc<Engine>,
    place: Place,
}

impl Listener {
    pub(crate) fn new(engine: Arc<Engine>, from: From<'_>) -> Listener {
        let changes = &engine.events.changes;
        let place = match from {
            From::Start => changes.start(),
            From::Now => changes.end(),
            From::Behind(name) => changes.behind(name),
        };
        Listener { engine, place }
    }

    /// The next change; `None` at the end. May be dropped at any moment.
    pub async fn next(&mut self) -> Option<Change> {
        self.engine.events.changes.next(&mut self.place).await.map(change)
    }

    /// The next change, where it is there already.
    pub fn look(&mut self) -> Option<Change> {
        self.engine.events.changes.look(&mut self.place).map(change)
    }

    /// The name of the place that it has come to.
    pub fn place(&self) -> String {
        self.engine.events.changes.name(&self.place)
    }
}

fn change(heard: Heard<Change>) -> Change {
    match heard {
        Heard::One(change) => change,
        Heard::Missed(events) => Change::Missed { events },
    }
}

/// One who listens to what operators are to hear.
pub struct Alerts {
    engine: Arc<Engine>,
    place: Place,
}

impl Alerts {
    /// From now on.
    pub(crate) fn new(engine: Arc<Engine>) -> Alerts {
        let place = engine.events.alerts.end();
        Alerts { engine, place }
    }

    /// The next one; `None` at the end. May be dropped at any moment.
    pub async fn next(&mut self) -> Option<Alert> {
        Some(match self.engine.events.alerts.next(&mut self.place).await? {
            Heard::One(alert) => alert,
            Heard::Missed(lost) => Alert::missed(unix_now(), lost),
        })
    }
}

impl Engine {
    /// Tells whoever listens what became of a device itself.
    pub fn tell_known(&self, device: &str, what: &'static str) {
        self.events.tell(Change::Known { at: unix_now(), device: device.into(), what });
    }

    /// The same of a user.
    pub fn tell_user(&self, user: &str, what: &'static str) {
        self.events.tell(Change::User { at: unix_now(), user: user.into(), what });
    }
}
