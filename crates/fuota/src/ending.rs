//! Accounts that are gone, and whose sessions the broker is still to end.
//!
//! That they are to be ended is in the database with the removal, in one commit; that they have
//! ended stands in the broker's log, a moment later, or much later where that cannot be written.
//! Whatever comes between the two, the end of the process or the moment of a backup, the next start
//! does it. Until then nobody gets the name: who did would find those sessions, or lose its own.

use std::{collections::HashSet, sync::Arc, time::Duration};

use hook::{BoxFuture, Identity, Reason, ReasonKind, Role};
use tokio::sync::watch;

use crate::{ServiceError, db::Op, engine::Engine};

/// How long somebody who wants the name waits for that. Usually it takes as long as a write does.
const PATIENCE: Duration = Duration::from_secs(5);
/// After what a database that does not take it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// See [the module](self). Bounded by the accounts that were removed and are not done.
pub struct Endings(watch::Sender<HashSet<String>>);

impl Endings {
    /// Those that the run before did not bring to an end.
    pub fn load(names: Vec<String>) -> Endings {
        Endings(watch::Sender::new(names.into_iter().collect()))
    }

    /// Waits until the sessions of earlier accounts of these names are ended.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`]: it takes longer than [`PATIENCE`].
    pub async fn over(&self, names: &[&str]) -> Result<(), ServiceError> {
        let mut endings = self.0.subscribe();
        let is_over = |endings: &HashSet<String>| !names.iter().any(|it| endings.contains(*it));
        let waiting = async { drop(endings.wait_for(is_over).await) };
        tokio::time::timeout(PATIENCE, waiting).await.map_err(|_| {
            ServiceError::Unavailable(
                "an account of this name was removed, and its sessions are still to be ended in \
                 the broker's log: try again, and see /readyz"
                    .into(),
            )
        })
    }

    fn begin(&self, name: &str) {
        self.0.send_modify(|endings| {
            endings.insert(name.into());
        });
    }

    fn done(&self, name: &str) {
        self.0.send_modify(|endings| {
            endings.remove(name);
        });
    }
}

impl Engine {
    /// Ends the sessions of an account that is gone, connected or away: nobody can prove it any
    /// more. The commit that removed it held [`Op::Ending`] of its name.
    pub fn end_sessions(self: &Arc<Self>, name: &str, text: &'static str) {
        self.endings.begin(name);
        self.bring_to_an_end(name.to_owned(), text);
    }

    /// What the run before has left of that. Before anybody connects.
    pub fn end_what_was_left(self: &Arc<Self>) {
        let names: Vec<_> = self.endings.0.borrow().iter().cloned().collect();
        for name in names {
            tracing::info!(account = name, "the sessions of a removed account are ended");
            self.bring_to_an_end(name, "the account was removed");
        }
    }

    fn bring_to_an_end(self: &Arc<Self>, name: String, text: &'static str) {
        // Without them it is for the next start.
        let (Some(broker), Some(runtime)) = (self.broker.get(), self.runtime()) else { return };
        let theirs = |identity: &Identity| {
            identity.role != Role::Anonymous && identity.name.as_deref() == Some(&*name)
        };
        let reason = Reason::new(ReasonKind::AdministrativeAction, text);
        let ended = broker.end_sessions(&theirs, &reason);
        let engine = Arc::clone(self);
        runtime.spawn(async move {
            tokio::select! {
                () = engine.note_the_end(&name, ended) => {}
                () = engine.stopping.cancelled() => {}
            }
        });
    }

    async fn note_the_end(&self, name: &str, ended: BoxFuture<'static, bool>) {
        if !ended.await {
            return; // the broker stops
        }
        while self.db.commit(vec![Op::Ended(name.into())]).await.is_err() {
            tokio::time::sleep(TRY_AGAIN).await;
        }
        self.endings.done(name);
    }
}
