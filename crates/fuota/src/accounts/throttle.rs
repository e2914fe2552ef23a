//! Addresses from which logins failed.
//!
//! The first [`FREE`] failures cost nothing. After each further one the address waits, twice as
//! long as before and at most [`LONGEST`]: until then no password of it is looked at. Valid
//! tokens, and passwords that are remembered as verified, are let in all the same, so that one
//! client with a wrong password does not shut out its neighbours behind the same address. Tokens
//! and names that nobody has are counted apart: a device that was removed and tries on makes no
//! password wait.

use std::{collections::HashMap, net::IpAddr, time::Duration};

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

/// See [the module](self).
#[derive(Default)]
pub struct Throttle(Mutex<HashMap<IpAddr, Failures>>);

struct Failures {
    count: u32,
    last: Instant,
    until: Instant,
}

/// What a failed login means for its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was counted.
    Noted,
    /// It was counted, and the address waits so long from now on.
    Slowed(Duration),
    /// The address waits already; it was not counted, so that trying on does not prolong it.
    Waiting,
}

impl Throttle {
    /// Whether this address waits.
    pub fn is_slowed(&self, address: IpAddr, now: Instant) -> bool {
        self.0.lock().get(&network(address)).is_some_and(|failures| now < failures.until)
    }

    /// A login from this address failed.
    pub fn failed(&self, address: IpAddr, now: Instant) -> Failure {
        let network = network(address);
        let mut known = self.0.lock();
        if !known.contains_key(&network) && known.len() >= ADDRESSES {
            make_room(&mut known, now);
        }
        let failures = known.entry(network).or_insert(Failures { count: 0, last: now, until: now });
        if now < failures.until {
            return Failure::Waiting;
        }
        if now - failures.last >= FORGOTTEN {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
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
            assert_eq!(throttle.failed(HOME, now), Failure::Noted);
            assert!(!throttle.is_slowed(HOME, now));
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = Duration::from_secs(seconds);
            assert_eq!(throttle.failed(HOME, now), Failure::Slowed(wait));
            assert_eq!(throttle.failed(HOME, now), Failure::Waiting);
            assert!(throttle.is_slowed(HOME, now + wait - Duration::from_millis(1)));
            assert!(!throttle.is_slowed("192.0.2.2".parse().unwrap(), now));
            now += wait;
            assert!(!throttle.is_slowed(HOME, now));
        }
        assert_eq!(throttle.failed(HOME, now + FORGOTTEN), Failure::Noted, "forgotten");
    }

    #[test]
    fn an_ipv6_network_and_a_mapped_address_are_one() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for host in 0..=FREE {
            throttle.failed(format!("2001:db8::{host}").parse().unwrap(), now);
            throttle.failed(format!("::ffff:192.0.2.{}", 1).parse().unwrap(), now);
        }
        assert!(throttle.is_slowed("2001:db8::ffff".parse().unwrap(), now));
        assert!(!throttle.is_slowed("2001:db8:0:1::1".parse().unwrap(), now));
        assert!(throttle.is_slowed(HOME, now));
    }

    #[test]
    fn the_map_is_bounded_and_forgets_the_oldest() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for number in 0..ADDRESSES as u32 + 10 {
            let now = start + Duration::from_millis(number.into());
            throttle.failed(IpAddr::from(number.to_be_bytes()), now);
        }
        let known = throttle.0.lock();
        assert_eq!(known.len(), ADDRESSES);
        assert!(!known.contains_key(&IpAddr::from(9u32.to_be_bytes())));
        assert!(known.contains_key(&IpAddr::from(10u32.to_be_bytes())));
    }
}
