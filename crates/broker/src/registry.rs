//! All sessions: who holds which, who takes over, and what happens when their time is up.

use dashmap::DashMap;
use hook::{Identity, SessionEnd};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::{
    inbox::Kick,
    index::Index,
    limits::LiveLimits,
    packet::reason,
    quota::{NoPlace, Place, Quota},
    session::{Session, State},
    topic::check_filter,
};

/// From a look at a session that is held to the next.
const HELD: Duration = Duration::from_millis(100);

/// What is to happen to a session that is away, unless it comes back before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Publish its delayed will.
    Will,
    /// Forget it.
    Expire,
}

struct Job {
    due: Due,
    session: Arc<Session>,
    /// The connections that had served it when the job was made.
    connections: u64,
}

/// The registry. See the module.
pub(crate) struct Registry {
    /// [MQTT-3.1.3-2]
    by_client_id: DashMap<Arc<str>, Arc<Session>>,
    by_key: DashMap<u64, Arc<Session>>,
    keys: AtomicU64,
    connections: AtomicU64,
    hasher: RandomState,
    lanes: usize,
    limits: Arc<LiveLimits>,
    quota: Arc<Quota>,
    jobs: Mutex<BTreeMap<(Instant, u64), Job>>,
    job_ids: AtomicU64,
    jobs_changed: Notify,
}

/// A session that a connection holds.
pub(crate) struct Claimed {
    pub session: Arc<Session>,
    pub state: OwnedMutexGuard<State>,
    pub claim: u64,
}

impl Registry {
    pub fn new(lanes: usize, limits: Arc<LiveLimits>) -> Self {
        Registry {
            by_client_id: DashMap::new(),
            by_key: DashMap::new(),
            keys: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            hasher: RandomState::new(),
            lanes: lanes.max(1),
            quota: Quota::new(limits.clone()),
            limits,
            jobs: Mutex::default(),
            job_ids: AtomicU64::new(0),
            jobs_changed: Notify::new(),
        }
    }

    /// A number for a new connection, never 0.
    pub fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The lane, and the ingress, of a client id; the same on every connection.
    pub fn lane_of(&self, client_id: &str) -> usize {
        // The remainder is below `lanes`, so it fits.
        (self.hasher.hash_one(client_id) % self.lanes as u64) as usize
    }

    /// The session of a client id, once nobody else holds it: whoever did is told that it was
    /// taken over and has ended when this returns [MQTT-3.1.4-3]. `None` where a still newer
    /// connection claimed it meanwhile.
    pub async fn claim(&self, client_id: &Arc<str>) -> Option<Claimed> {
        loop {
            let session = self
                .by_client_id
                .entry(client_id.clone())
                .or_insert_with(|| {
                    let key = self.keys.fetch_add(1, Ordering::Relaxed) + 1;
                    let lane = self.lane_of(client_id);
                    let session =
                        Arc::new(Session::new(key, client_id.clone(), lane, self.limits.clone()));
                    self.by_key.insert(key, session.clone());
                    session
                })
                .clone();
            let claim = session.claim();
            session.inbox.kick(Kick {
                end: SessionEnd::TakenOver,
                reason: reason::SESSION_TAKEN_OVER,
                text: "the same client id connected again".into(),
            });
            let state = session.state.clone().lock_owned().await;
            if state.ended {
                continue;
            }
            return session.is_last_claim(claim).then_some(Claimed { session, state, claim });
        }
    }

    /// A place for a session that is to last, where its client has none yet. Asked for before the
    /// session is claimed, so that who is refused has disturbed nobody.
    pub fn place(&self, client_id: &str, client: &Identity) -> Result<Option<Place>, NoPlace> {
        let is_own = |session: Arc<Session>| {
            session.place.lock().as_ref().is_some_and(|place| place.is_of(client))
        };
        if self.find(client_id).is_some_and(is_own) {
            return Ok(None);
        }
        self.quota.take(client).map(Some)
    }

    /// A session begins, or goes on, that lasts or does not; `place` is what was taken for it.
    pub fn settle(&self, session: &Session, lasts: bool, place: Option<Place>, client: &Identity) {
        let mut held = session.place.lock();
        let had = held.take();
        *held = lasts.then(|| {
            // Its old one may have ended since it was asked for.
            place.or(had).unwrap_or_else(|| self.quota.take_beyond(client))
        });
    }

    /// A session that the log describes, with its old key.
    pub fn restore(&self, key: u64, client_id: Arc<str>) -> Arc<Session> {
        let lane = self.lane_of(&client_id);
        let session = Arc::new(Session::new(key, client_id.clone(), lane, self.limits.clone()));
        self.by_key.insert(key, session.clone());
        self.by_client_id.insert(client_id, session.clone());
        session
    }

    /// No new session gets a key below this one.
    pub fn restore_keys(&self, next: u64) {
        self.keys.fetch_max(next.saturating_sub(1), Ordering::Relaxed);
    }

    /// The session of a key, as a lane's blob names it.
    pub fn by_key(&self, key: u64) -> Option<Arc<Session>> {
        self.by_key.get(&key).map(|s| s.clone())
    }

    /// The session of a client id.
    pub fn find(&self, client_id: &str) -> Option<Arc<Session>> {
        self.by_client_id.get(client_id).map(|s| s.clone())
    }

    /// All sessions, at the moment of asking.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.by_client_id.iter().map(|s| s.clone()).collect()
    }

    /// The first of those that fit, by client id: at most `limit`.
    pub fn first(&self, limit: usize, fits: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let mut found: Vec<Arc<Session>> = Vec::new();
        for session in self.by_client_id.iter() {
            if !fits(&session) {
                continue;
            }
            // Sorted only now and then, and never more than twice the page is held.
            if found.len() >= 2 * limit.max(64) {
                found.sort_unstable_by(|a, b| a.client_id.cmp(&b.client_id));
                found.truncate(limit);
            }
            found.push(session.clone());
        }
        found.sort_unstable_by(|a, b| a.client_id.cmp(&b.client_id));
        found.truncate(limit);
        found
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Forgets a session that the caller holds: its subscriptions, its queues, its name.
    pub fn remove(&self, session: &Arc<Session>, state: &mut State, index: &Index) {
        state.ended = true;
        self.unschedule(session);
        drop_subscriptions(session, index);
        session.inbox.close();
        *session.place.lock() = None;
        self.by_key.remove(&session.key);
        self.by_client_id.remove_if(&session.client_id, |_, s| s.key == session.key);
    }

    /// Something is to happen to a session that the caller holds, unless another connection serves
    /// it before.
    pub fn schedule(&self, session: &Arc<Session>, due: Due, after: Duration) {
        let connections = session.connections.load(Ordering::Acquire);
        self.plan(Job { due, session: session.clone(), connections }, after);
    }

    fn plan(&self, job: Job, after: Duration) {
        let Some(at) = Instant::now().checked_add(after) else { return };
        let key = (at, self.job_ids.fetch_add(1, Ordering::Relaxed));
        job.session.jobs.lock().push(key);
        self.jobs.lock().insert(key, job);
        self.jobs_changed.notify_one();
    }

    /// A connection serves a session that it holds: what was to happen meanwhile is void, and
    /// takes no room until its time would have come.
    pub fn serve(&self, session: &Session) {
        session.connections.fetch_add(1, Ordering::AcqRel);
        self.unschedule(session);
    }

    fn unschedule(&self, session: &Session) {
        let keys = std::mem::take(&mut *session.jobs.lock());
        if !keys.is_empty() {
            let mut jobs = self.jobs.lock();
            keys.iter().for_each(|key| drop(jobs.remove(key)));
        }
    }

    /// Waits for the next job whose session nobody has served since, and returns it with the
    /// session's state.
    pub async fn next_due(&self) -> (Due, Arc<Session>, OwnedMutexGuard<State>) {
        loop {
            let next = self.jobs.lock().keys().next().map(|(at, _)| *at);
            match next {
                None => self.jobs_changed.notified().await,
                Some(at) if at > Instant::now() => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at.into()) => {}
                        () = self.jobs_changed.notified() => {}
                    }
                }
                Some(_) => {
                    let Some((key, job)) = self.jobs.lock().pop_first() else { continue };
                    job.session.jobs.lock().retain(|other| *other != key);
                    let state = job.session.state.clone().try_lock_owned();
                    if job.session.connections.load(Ordering::Acquire) != job.connections {
                        continue;
                    }
                    match state {
                        Ok(state) if !state.ended => return (job.due, job.session, state),
                        Ok(_) => {}
                        // By somebody who comes in this instant, and may yet be overtaken.
                        Err(_) => self.plan(job, HELD),
                    }
                }
            }
        }
    }
}

/// Takes all of a session's filters out of the index and forgets them.
pub(crate) fn drop_subscriptions(session: &Session, index: &Index) {
    for (filter, held) in std::mem::take(&mut *session.subscriptions.lock()) {
        if !held.consumed
            && let Ok(parsed) = check_filter(&filter)
        {
            index.remove(parsed, session.key);
        }
    }
}

#[cfg(test)]
mod tests;
