//! The keep alive of all connections [MQTT-3.1.2-22], in one queue of deadlines. A timer for each
//! would take more memory than all queues of an idle connection, and be looked at whenever it runs.

use hook::SessionEnd;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::Notify;

use crate::{
    inbox::Kick,
    packet::reason,
    registry::Registry,
    session::{Session, clock_ms},
};

/// So many deadlines are looked at before others run.
const AT_A_TIME: usize = 256;

/// Who has to be heard, and until when.
#[derive(Default)]
pub(crate) struct KeepAlives {
    /// Patience in milliseconds, by deadline in [`clock_ms`] and session key. A deadline is that
    /// of the last packet when it was looked at; packets do not move it.
    deadlines: Mutex<BTreeMap<(u64, u64), u32>>,
    /// There is a new first one.
    earlier: Notify,
}

/// What is to be done next.
enum Next {
    /// More are due.
    More,
    /// Nothing until then.
    After(Duration),
    /// Nobody is watched.
    Nothing,
}

impl KeepAlives {
    /// The connection that has just begun with this session has to be heard every `patience`
    /// milliseconds.
    pub fn watch(&self, session: &Session, patience: u32) {
        let deadline = clock_ms() + u64::from(patience);
        let mut deadlines = self.deadlines.lock();
        session.deadline.store(deadline, Ordering::Relaxed);
        deadlines.insert((deadline, session.key), patience);
        let is_first = deadlines.keys().next() == Some(&(deadline, session.key));
        drop(deadlines);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// The connection has ended.
    pub fn forget(&self, session: &Session) {
        let mut deadlines = self.deadlines.lock();
        deadlines.remove(&(session.deadline.load(Ordering::Relaxed), session.key));
    }

    /// Ends connections that were not heard in time, for as long as it is polled.
    pub async fn enforce(&self, registry: &Registry) {
        loop {
            match self.look(registry) {
                Next::More => tokio::task::yield_now().await,
                Next::After(wait) => {
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.earlier.notified() => {}
                    }
                }
                Next::Nothing => self.earlier.notified().await,
            }
        }
    }

    fn look(&self, registry: &Registry) -> Next {
        let now = clock_ms();
        let mut silent: Vec<Arc<Session>> = Vec::new();
        let mut next = Next::More;
        let mut deadlines = self.deadlines.lock();
        for _ in 0..AT_A_TIME {
            let Some((&(deadline, key), &patience)) = deadlines.first_key_value() else {
                next = Next::Nothing;
                break;
            };
            if deadline > now {
                next = Next::After(Duration::from_millis(deadline - now));
                break;
            }
            deadlines.pop_first();
            let Some(session) = registry.by_key(key) else { continue };
            let due = session.last_heard() + u64::from(patience);
            if due > now {
                session.deadline.store(due, Ordering::Relaxed);
                deadlines.insert((due, key), patience);
            } else {
                silent.push(session);
            }
        }
        drop(deadlines);
        for session in silent {
            session.inbox.kick(Kick {
                end: SessionEnd::KeepAliveTimeout,
                reason: reason::KEEP_ALIVE_TIMEOUT,
                text: "nothing was heard for 1.5 times the keep alive".into(),
            });
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_heard_stays_and_who_left_is_forgotten() {
        let (registry, alive) = (Registry::new(1, Arc::default()), KeepAlives::default());
        let mut sessions = Vec::new();
        for name in ["silent", "heard", "gone"] {
            let session = registry.claim(&name.into()).await.unwrap().session;
            assert!(session.inbox.attach(1, || true));
            alive.watch(&session, 0);
            sessions.push(session);
        }
        sessions[1].last_packet.store(clock_ms() + 1_000_000, Ordering::Relaxed);
        alive.forget(&sessions[2]);
        assert!(matches!(alive.look(&registry), Next::After(_)));
        let kicked: Vec<bool> = sessions
            .iter()
            .map(|session| session.inbox.take(&mut Default::default(), &mut Default::default()))
            .map(|taken| taken.is_err_and(|kick| kick.end == SessionEnd::KeepAliveTimeout))
            .collect();
        assert_eq!(kicked, [true, false, false]);
        alive.forget(&sessions[1]);
        assert!(matches!(alive.look(&registry), Next::Nothing));
    }

    #[tokio::test]
    async fn a_thousand_at_once_take_turns_with_others() {
        let (registry, alive) = (Registry::new(1, Arc::default()), KeepAlives::default());
        for n in 0..AT_A_TIME + 1 {
            let session = registry.claim(&n.to_string().into()).await.unwrap().session;
            alive.watch(&session, 0);
        }
        assert!(matches!(alive.look(&registry), Next::More));
        assert!(matches!(alive.look(&registry), Next::Nothing));
    }
}
