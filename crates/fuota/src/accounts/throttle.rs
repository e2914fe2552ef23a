//! Addresses from which logins failed.
//!
//! The first [`FREE`] failures cost nothing. After each further one the address waits, twice as
//! long as before and at most [`LONGEST`]: until then no password of it is looked at, but for the
//! first one of each account that has not failed there for [`FORGOTTEN`]. Valid tokens, and passwords that are
//! remembered as verified, are let in as well. So one client with a wrong password does not shut out
//! its neighbours behind the same address, and whoever guesses has one guess for each name: after
//! [`ACCOUNTS`] names the address waits with all of them. Tokens and names that nobody has are
//! counted apart: a device that was removed and tries on makes no password wait.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::Duration,
};

use hook::network;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Failures before the first wait.
pub const FREE: u32 = 5;
const LONGEST: Duration = Duration::from_secs(60);
/// An address that failed no more for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Addresses that are remembered; one more forgets the one whose last failure is the oldest.
const ADDRESSES: usize = 4096;
/// Accounts of one address that are remembered as having failed there.
const ACCOUNTS: usize = 64;

/// See [the module](self).
#[derive(Default)]
pub struct Throttle {
    known: Mutex<HashMap<IpAddr, Failures>>,
    hasher: RandomState,
}

struct Failures {
    count: u32,
    last: Instant,
    until: Instant,
    /// Hashes of the names whose passwords were wrong, and since when.
    accounts: Vec<(u64, Instant)>,
}

/// What a failed login means for its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was counted.
    Noted,
    /// It was counted, and the address waits so long from now on; or it waits already, and this
    /// account with it from now on.
    Slowed(Duration),
    /// The address waits already; it was not counted, so that trying on does not prolong it.
    Waiting,
}

impl Failures {
    /// Whether logins with this name wait while the address does; without a name they do.
    fn concern(&self, account: Option<u64>, now: Instant) -> bool {
        let failed = || self.accounts.iter().filter(|(_, at)| now - *at < FORGOTTEN);
        let is_new = |account| failed().all(|(failed, _)| *failed != account);
        !(failed().count() < ACCOUNTS && account.is_some_and(is_new))
    }
}

impl Throttle {
    /// Whether this address waits with logins of this name, whether somebody has it or not.
    pub fn is_slowed(&self, address: IpAddr, account: Option<&str>, now: Instant) -> bool {
        let account = account.map(|name| self.hasher.hash_one(name));
        let known = self.known.lock();
        let failures = known.get(&network(address));
        failures.is_some_and(|failures| now < failures.until && failures.concern(account, now))
    }

    /// A login from this address failed, with this name.
    pub fn failed(&self, address: IpAddr, account: Option<&str>, now: Instant) -> Failure {
        let account = account.map(|name| self.hasher.hash_one(name));
        let network = network(address);
        let mut known = self.known.lock();
        if !known.contains_key(&network) && known.len() >= ADDRESSES {
            make_room(&mut known, now);
        }
        let failures = known.entry(network).or_insert(Failures {
            count: 0,
            last: now,
            until: now,
            accounts: Vec::new(),
        });
        let waits = now < failures.until;
        if waits && failures.concern(account, now) {
            return Failure::Waiting;
        }
        if now - failures.last >= FORGOTTEN {
            failures.count = 0;
        }
        failures.last = now;
        if !failures.concern(account, now) {
            failures.accounts.retain(|(_, at)| now - *at < FORGOTTEN);
            failures.accounts.extend(account.map(|account| (account, now)));
        }
        if waits {
            return Failure::Slowed(failures.until - now);
        }
        failures.count = failures.count.saturating_add(1);
        if failures.count <= FREE {
            return Failure::Noted;
        }
        let wait = Duration::from_secs(1 << (failures.count - FREE - 1).min(6)).min(LONGEST);
        failures.until = now + wait;
        Failure::Slowed(wait)
    }
}

fn make_room(known: &mut HashMap<IpAddr, Failures>, now: Instant) {
    known.retain(|_, failures| now - failures.last < FORGOTTEN);
    if known.len() >= ADDRESSES {
        let oldest = known.iter().min_by_key(|(_, failures)| failures.last);
        if let Some(oldest) = oldest.map(|(address, _)| *address) {
            known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn an_address_waits_longer_after_each_failure_and_others_do_not() {
        let throttle = Throttle::default();
        let mut now = Instant::now();
        for _ in 0..FREE {
            assert_eq!(throttle.failed(HOME, None, now), Failure::Noted);
            assert!(!throttle.is_slowed(HOME, None, now));
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = Duration::from_secs(seconds);
            assert_eq!(throttle.failed(HOME, None, now), Failure::Slowed(wait));
            assert_eq!(throttle.failed(HOME, None, now), Failure::Waiting);
            assert!(throttle.is_slowed(HOME, None, now + wait - Duration::from_millis(1)));
            assert!(!throttle.is_slowed("192.0.2.2".parse().unwrap(), None, now));
            now += wait;
            assert!(!throttle.is_slowed(HOME, None, now));
        }
        assert_eq!(throttle.failed(HOME, None, now + FORGOTTEN), Failure::Noted, "forgotten");
    }

    /// Neighbours behind one address, one of whom has a wrong password.
    #[test]
    fn an_account_that_did_not_fail_is_looked_at() {
        let (throttle, mut now) = (Throttle::default(), Instant::now());
        for _ in 0..=FREE {
            throttle.failed(HOME, Some("old"), now);
        }
        let slowed = |account, now| throttle.is_slowed(HOME, account, now);
        assert!(slowed(Some("old"), now) && slowed(None, now) && !slowed(Some("good"), now));
        now += Duration::from_millis(300);
        let left = Failure::Slowed(Duration::from_millis(700));
        assert_eq!(throttle.failed(HOME, Some("other"), now), left, "no longer for that");
        assert_eq!(throttle.failed(HOME, Some("other"), now), Failure::Waiting);
        assert!(slowed(Some("other"), now) && !slowed(Some("good"), now));
        assert_eq!(throttle.failed(HOME, None, now), Failure::Waiting);
        now += Duration::from_millis(700);
        assert!(!slowed(Some("old"), now));
        throttle.failed(HOME, Some("old"), now);
        assert!(slowed(Some("other"), now), "it is remembered as having failed");
        // Whoever tries name after name has so many guesses.
        let names: Vec<_> = (0..ACCOUNTS).map(|n| n.to_string()).collect();
        let tried = names.iter().filter(|name| {
            let looked_at = !slowed(Some(name), now);
            throttle.failed(HOME, Some(name), now);
            looked_at
        });
        assert_eq!(tried.count(), ACCOUNTS - 2);
        assert!(slowed(Some("good"), now));
        assert!(!slowed(Some("good"), now + LONGEST));
        // Each for its own time, whatever the address does meanwhile.
        for minute in 1..=10 {
            now += LONGEST;
            throttle.failed(HOME, Some("old"), now);
            assert_eq!(slowed(Some("good"), now), minute < 10, "minute {minute}");
        }
        assert!(!slowed(Some("other"), now));
        throttle.failed(HOME, Some("other"), now);
        assert_eq!(throttle.known.lock()[&HOME].accounts.len(), 2, "old and other");
    }

    #[test]
    fn an_ipv6_network_and_a_mapped_address_are_one() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for host in 0..=FREE {
            throttle.failed(format!("2001:db8::{host}").parse().unwrap(), None, now);
            throttle.failed(format!("::ffff:192.0.2.{}", 1).parse().unwrap(), None, now);
        }
        assert!(throttle.is_slowed("2001:db8::ffff".parse().unwrap(), None, now));
        assert!(!throttle.is_slowed("2001:db8:0:1::1".parse().unwrap(), None, now));
        assert!(throttle.is_slowed(HOME, None, now));
    }

    #[test]
    fn the_map_is_bounded_and_forgets_the_oldest() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for number in 0..ADDRESSES as u32 + 10 {
            let now = start + Duration::from_millis(number.into());
            throttle.failed(IpAddr::from(number.to_be_bytes()), None, now);
        }
        let known = throttle.known.lock();
        assert_eq!(known.len(), ADDRESSES);
        assert!(!known.contains_key(&IpAddr::from(9u32.to_be_bytes())));
        assert!(known.contains_key(&IpAddr::from(10u32.to_be_bytes())));
    }
}
