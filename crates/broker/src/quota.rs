//! How many sessions may outlive their connections, in all and of one account.
//!
//! A session that lasts takes a place from the CONNECT that asks for it until it ends, whether its
//! client is there or away. Each costs memory, and a queue that publishes look at; and an account
//! may use as many client ids as it likes.

use dashmap::DashMap;
use hook::{Identity, Seldom};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::limits::LiveLimits;

/// The places.
#[derive(Default)]
pub(crate) struct Quota {
    limits: Arc<LiveLimits>,
    all: AtomicUsize,
    by_account: DashMap<Arc<str>, usize>,
    /// The log's line on clients that got none.
    refused: Seldom,
}

/// The place of one session, given back when it is dropped.
pub(crate) struct Place {
    quota: Arc<Quota>,
    account: Option<Arc<str>>,
}

/// No place is left; why, for the client and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    #[error("there are as many sessions as may last without a connection (limits.sessions)")]
    All,
    #[error(
        "the account has as many sessions as may last without a connection \
         (limits.sessions_per_account)"
    )]
    Account,
}

impl Quota {
    pub fn new(limits: Arc<LiveLimits>) -> Arc<Self> {
        Arc::new(Quota { limits, ..Quota::default() })
    }

    /// A place for a session of this client, where the limits leave one. Who has no account is
    /// counted among all alone.
    pub fn take(self: &Arc<Self>, client: &Identity) -> Result<Place, NoPlace> {
        let (place, all, of_account) = self.count(client);
        let why = if all > self.limits.sessions() {
            NoPlace::All
        } else if of_account > self.limits.sessions_per_account() {
            NoPlace::Account
        } else {
            return Ok(place);
        };
        if let Some(times) = self.refused.note() {
            tracing::warn!(
                account = client.name.as_deref().unwrap_or_default(),
                times,
                "a CONNECT was refused: {why}"
            );
        }
        Err(why)
    }

    /// The same whatever the limits are, for a session that is there.
    pub fn take_beyond(self: &Arc<Self>, client: &Identity) -> Place {
        self.count(client).0
    }

    /// With the place, how many there are now, in all and of the account.
    fn count(self: &Arc<Self>, client: &Identity) -> (Place, usize, usize) {
        let all = self.all.fetch_add(1, Relaxed) + 1;
        let of_account = client.name.as_ref().map_or(0, |name| {
            let mut count = self.by_account.entry(name.clone()).or_default();
            *count += 1;
            *count
        });
        (Place { quota: self.clone(), account: client.name.clone() }, all, of_account)
    }
}

impl Place {
    /// Whether it counts for this client.
    pub fn is_of(&self, client: &Identity) -> bool {
        self.account == client.name
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.quota.all.fetch_sub(1, Relaxed);
        if let Some(account) = &self.account {
            self.quota.by_account.remove_if_mut(account, |_, count| {
                *count -= 1;
                *count == 0
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Limits;

    #[test]
    fn places_are_counted_and_given_back() {
        let limits = Limits { sessions: 3, sessions_per_account: Some(2), ..Limits::default() };
        let quota = Quota::new(Arc::new(LiveLimits::new(&limits)));
        let (a, b) = (Identity::device("a"), Identity::device("b"));
        let one = quota.take(&a).unwrap();
        assert!(one.is_of(&a) && !one.is_of(&b));
        let two = quota.take(&a).unwrap();
        assert_eq!(quota.take(&a).err(), Some(NoPlace::Account));
        let three = quota.take(&b).unwrap();
        assert_eq!(quota.take(&Identity::ANONYMOUS).err(), Some(NoPlace::All));
        drop(quota.take_beyond(&Identity::ANONYMOUS));
        drop(two);
        let four = quota.take(&Identity::ANONYMOUS).unwrap();
        drop((one, three, four));
        assert!(quota.by_account.is_empty() && quota.all.load(Relaxed) == 0);
    }
}
