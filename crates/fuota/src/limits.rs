//! How much at once: transfers, new starts, firmware bytes a second (rule 20).

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};

/// What a bucket lets through at once after a pause, as time at its rate. Shorter, and the
/// coarseness of timers (1 ms) would cost throughput; a second's figure is above the rate by a
/// twentieth at most.
const BURST: Duration = Duration::from_millis(50);

/// The most bytes a second: up to here every JSON number is exact.
const MOST_BYTES: u64 = 1 << 53;

/// Caps of the site, of a group or of a deployment; `None`: there is none. They hold back, and
/// fail nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Transfers under way at once, at least 1. One that is under way goes on whatever becomes
    /// of its connection, so after a restart there may be more for a while.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::maybe")]
    pub transfers: Option<u32>,
    /// Firmware bytes a second, before encoding, at least 1.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::maybe")]
    pub bytes_per_second: Option<u64>,
    /// Transfers that begin in a minute, at least 1.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::maybe")]
    pub starts_per_minute: Option<u32>,
}

impl Limits {
    /// Whether nothing is capped.
    pub fn is_none(&self) -> bool {
        *self == Limits::default()
    }

    /// One sentence where a number makes no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.bytes_per_second.is_some_and(|bytes| bytes > MOST_BYTES) {
            return Err(format!(
                "bytes_per_second is more than {MOST_BYTES}; leave it out for no cap"
            ));
        }
        let zero = [
            ("transfers", self.transfers == Some(0)),
            ("bytes_per_second", self.bytes_per_second == Some(0)),
            ("starts_per_minute", self.starts_per_minute == Some(0)),
        ];
        match zero.iter().find(|(_, zero)| *zero) {
            Some((name, _)) => Err(format!(
                "{name} is 0, which would let nothing through; pause or freeze for that"
            )),
            None => Ok(()),
        }
    }
}

/// A rate that many connections share, without a lock: the generic cell rate algorithm, whose
/// one number is the time at which everything that was let through has been paid for.
///
/// Who wants to send reserves, and sends at the time that it is given. A connection reserves for
/// one block at a time, so that all that want to send take turns, and one that goes away leaves
/// the hole of one block.
#[derive(Debug)]
pub struct Bucket {
    epoch: Instant,
    /// Bytes a second; 0 lets everything through.
    rate: AtomicU64,
    /// Nanoseconds since the epoch.
    paid: AtomicU64,
}

impl Bucket {
    pub fn new(rate: u64) -> Bucket {
        Bucket { epoch: Instant::now(), rate: AtomicU64::new(rate), paid: AtomicU64::new(0) }
    }

    /// From now on, so many bytes a second; 0 lets everything through. What was reserved at
    /// another rate is not paid for.
    pub fn set(&self, rate: u64) {
        if self.rate.swap(rate, Ordering::Relaxed) != rate {
            self.paid.store(0, Ordering::Relaxed);
        }
    }

    /// When these bytes may be sent. They count as sent.
    pub fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return now;
        }
        let cost = (bytes as u128 * 1_000_000_000 / u128::from(rate)).min(u64::MAX as u128) as u64;
        let now_at = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        let before = self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| {
            Some(paid.max(now_at).saturating_add(cost))
        });
        // The update always has a value to give.
        let begins = before.unwrap_or_else(|paid| paid).max(now_at);
        let due = begins.saturating_sub(BURST.as_nanos() as u64);
        if due <= now_at { now } else { self.epoch + Duration::from_nanos(due) }
    }
}

/// A rate of events: the same algorithm, for one owner.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate(Option<Instant>);

impl Rate {
    /// When the next may happen; `None`: now.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.0.filter(|next| *next > now)
    }

    /// One happens.
    pub fn take(&mut self, per_minute: u32, now: Instant) {
        let from = self.0.map_or(now, |next| next.max(now));
        self.0 = Some(from + Duration::from_secs(60) / per_minute.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_20_a_bucket_lets_its_rate_through_and_a_small_burst() {
        let bucket = Bucket::new(1_000_000);
        let start = bucket.epoch;
        let mut now = start;
        // Ten senders of 4096 bytes that take turns for ten seconds.
        let (mut sent, mut first_second) = (0u64, 0u64);
        while now < start + Duration::from_secs(10) {
            sent += 4096;
            if now < start + Duration::from_secs(1) {
                first_second += 4096;
            }
            now = bucket.reserve(4096, now);
        }
        assert!((10_000_000..10_060_000).contains(&sent), "{sent}");
        assert!((1_000_000..1_060_000).contains(&first_second), "{first_second}");
        // A pause saves up no more than the burst.
        now += Duration::from_secs(3600);
        let resumed = now;
        let mut sent = 0;
        while now < resumed + Duration::from_secs(1) {
            sent += 4096;
            now = bucket.reserve(4096, now);
        }
        assert!((1_000_000..1_060_000).contains(&sent), "{sent}");
    }

    #[test]
    fn no_rate_and_a_changed_one() {
        let bucket = Bucket::new(0);
        let now = bucket.epoch;
        assert_eq!(bucket.reserve(usize::MAX, now), now);
        bucket.set(1000);
        assert_eq!(bucket.reserve(1000, now), now);
        assert_eq!(bucket.reserve(1, now), now + Duration::from_millis(950));
        bucket.set(10);
        assert_eq!(bucket.reserve(10, now), now, "who raises a cap need not wait for the old one");
    }

    #[test]
    fn starts_are_spread_over_the_minute() {
        let (mut rate, now) = (Rate::default(), Instant::now());
        assert_eq!(rate.next(now), None);
        rate.take(30, now);
        assert_eq!(rate.next(now), Some(now + Duration::from_secs(2)));
        assert_eq!(rate.next(now + Duration::from_secs(2)), None);
        // Late is late: nothing is made up for.
        rate.take(30, now + Duration::from_secs(60));
        assert_eq!(rate.next(now + Duration::from_secs(60)), Some(now + Duration::from_secs(62)));
    }
}
