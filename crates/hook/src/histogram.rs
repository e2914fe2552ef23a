//! How long something took, counted where it happens and read where it is shown.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets, in microseconds, from a block out of the cache (tens of
/// microseconds) to a bucket far away (seconds). What took longer is in the last bucket, which has
/// no bound.
pub const BOUNDS_MICROS: [u64; 15] = [
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000,
    2_500_000, 10_000_000,
];

/// Counters by duration. Each observation is two additions without a lock; a reader may see one
/// without the other.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    micros: AtomicU64,
}

/// A histogram at the moment of asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Observations in each bucket alone; the last one holds what is above all bounds.
    pub buckets: [u64; BOUNDS_MICROS.len() + 1],
    /// All observations together, in microseconds.
    pub micros: u64,
}

impl Histogram {
    /// Counts something that took so long.
    pub fn observe(&self, took: Duration) {
        self.observe_each(took, 1);
    }

    /// Counts so many things each of which took so long.
    pub fn observe_each(&self, took: Duration, number: u32) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(number.into(), Relaxed);
        self.micros.fetch_add(micros.saturating_mul(number.into()), Relaxed);
    }

    /// What was counted until now.
    pub fn read(&self) -> Distribution {
        Distribution {
            buckets: std::array::from_fn(|bucket| self.buckets[bucket].load(Relaxed)),
            micros: self.micros.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_falls_into_the_bucket_that_bounds_it() {
        let histogram = Histogram::default();
        for micros in [0, 25, 26, 10_000_000, 10_000_001, 3_600_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let read = histogram.read();
        assert_eq!((read.buckets[0], read.buckets[1]), (2, 1), "a bound belongs to its bucket");
        assert_eq!(read.buckets[BOUNDS_MICROS.len() - 1], 1);
        assert_eq!(read.buckets[BOUNDS_MICROS.len()], 2);
        assert_eq!(read.micros, 25 + 26 + 10_000_000 + 10_000_001 + 3_600_000_000);
        assert!(BOUNDS_MICROS.is_sorted());
        let before = read.micros;
        histogram.observe_each(Duration::from_micros(30), 1000);
        let read = histogram.read();
        assert_eq!((read.buckets[1], read.micros - before), (1001, 30_000));
    }
}
