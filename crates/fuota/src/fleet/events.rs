//! What changes, told as it changes to whoever listens.
//!
//! A bounded ring: a listener that falls behind by more than [`KEPT`] events loses the oldest
//! and is told how many, so that it can read the state anew. Nobody waits for a listener.

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::transfer::unix_now;

/// Events that a slow listener may be behind.
const KEPT: usize = 1024;

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
        /// How many.
        events: u64,
    },
}

impl Change {
    /// The value of `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Change::Device { .. } => "device",
            Change::Deployment { .. } => "deployment",
            Change::Firmware { .. } => "firmware",
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

/// Where changes are told. Ends with the engine.
pub struct Events(Mutex<Option<broadcast::Sender<Change>>>);

impl Default for Events {
    fn default() -> Self {
        Events(Mutex::new(Some(broadcast::Sender::new(KEPT))))
    }
}

impl Events {
    /// Tells a change.
    pub fn tell(&self, change: Change) {
        if let Some(sender) = self.0.lock().as_ref() {
            // That nobody listens is no error.
            let _ = sender.send(change);
        }
    }

    /// Listens from now on.
    pub fn listen(&self) -> Listener {
        Listener(self.0.lock().as_ref().map(broadcast::Sender::subscribe))
    }

    /// Nothing is told any more: every listener comes to its end.
    pub fn close(&self) {
        self.0.lock().take();
    }
}

/// One who listens.
pub struct Listener(Option<broadcast::Receiver<Change>>);

impl Listener {
    /// The next change; `None` at the end.
    pub async fn next(&mut self) -> Option<Change> {
        match self.0.as_mut()?.recv().await {
            Ok(change) => Some(change),
            Err(RecvError::Lagged(events)) => Some(Change::Missed { events }),
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frozen(at: u64) -> Change {
        Change::Site { at, frozen: true, store_problem: None }
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_what_it_lost_and_the_end_comes() {
        let events = Events::default();
        let mut listener = events.listen();
        for at in 0..KEPT as u64 + 5 {
            events.tell(frozen(at));
        }
        assert_eq!(listener.next().await, Some(Change::Missed { events: 5 }));
        assert_eq!(listener.next().await, Some(frozen(5)));
        events.close();
        events.tell(frozen(0));
        let mut rest = 0;
        while listener.next().await.is_some() {
            rest += 1;
        }
        assert_eq!(rest, KEPT - 1);
        assert_eq!(events.listen().next().await, None);
    }
}
