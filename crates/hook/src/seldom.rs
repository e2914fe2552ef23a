//! Lines of the log that clients can cause as often as they like.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// The least time between two such lines, in milliseconds.
const EVERY_MS: u64 = 10_000;

/// One kind of line: the first at once, then at most one every ten seconds, each with how often
/// it happened since the one before.
#[derive(Debug, Default)]
pub struct Seldom {
    /// When the next may be written, in milliseconds since the first was asked for.
    next: AtomicU64,
    times: AtomicU64,
}

impl Seldom {
    /// It happened once more. `Some` where a line is due: how often since the last one.
    pub fn note(&self) -> Option<u64> {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.note_at(u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn note_at(&self, now: u64) -> Option<u64> {
        self.times.fetch_add(1, Relaxed);
        let next = self.next.load(Relaxed);
        let due = now >= next
            && self.next.compare_exchange(next, now + EVERY_MS, Relaxed, Relaxed).is_ok();
        due.then(|| self.times.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_in_ten_seconds_and_nothing_goes_uncounted() {
        let seldom = Seldom::default();
        assert_eq!(seldom.note_at(5), Some(1), "the first at once");
        for _ in 0..1000 {
            assert_eq!(seldom.note_at(5 + EVERY_MS - 1), None);
        }
        assert_eq!(seldom.note_at(5 + EVERY_MS), Some(1001));
        assert_eq!(seldom.note_at(5 + EVERY_MS), None);
    }
}
