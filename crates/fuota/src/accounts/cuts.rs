//! Accounts whose connections are ended, and the logins under way in that moment.
//!
//! A CONNECT that was let in is not a session yet: its client id may still be another connection's,
//! which takes a second or more to end. Whatever ends the connections of an account in between, a
//! removal, a new password, a token that is cut off, does not find that one. So it is noted up to
//! which connection logins had been looked at by then, and a session that begins with one of those
//! ends at once; who can still prove the account comes back.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hook::Client;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long that is remembered: several times what a CONNECT may take.
const REMEMBERED: Duration = Duration::from_secs(60);

/// See [the module](self). Bounded by the changes of accounts in a minute.
#[derive(Default)]
pub struct Cuts {
    /// The highest number of a connection whose login was looked at.
    newest: AtomicU64,
    /// For each name the highest number that does not count any more.
    known: Mutex<HashMap<Arc<str>, (u64, Instant)>>,
}

impl Cuts {
    /// The login of this connection is about to be looked at.
    pub fn begins(&self, connection: u64) {
        self.newest.fetch_max(connection, Ordering::SeqCst);
    }

    /// The connections of these accounts are about to be ended: what a login finds from now on is
    /// what holds.
    pub fn cut<'a>(&self, names: impl Iterator<Item = &'a Arc<str>>) {
        let (newest, now) = (self.newest.load(Ordering::SeqCst), Instant::now());
        let mut known = self.known.lock();
        known.retain(|_, (_, at)| now - *at < REMEMBERED);
        known.extend(names.map(|name| (Arc::clone(name), (newest, now))));
    }

    /// Whether a session that begins now had its login before its account's connections were ended;
    /// `name` is what it is known as.
    pub fn concern(&self, client: &Client, name: Option<&str>) -> bool {
        let known = self.known.lock();
        let mut names = [Some(&*client.id), name].into_iter().flatten();
        names.any(|name| known.get(name).is_some_and(|(newest, _)| client.connection <= *newest))
    }
}
