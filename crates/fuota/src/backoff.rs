//! How long a device is left alone between two attempts at one image (rule 13): longer after
//! each, and not every device equally long, so that what broke for many at once is not asked for
//! by many at once again.
//!
//! The jitter is no random number but a function of device, image and attempt. So it is the same
//! after a restart, and a test knows it.

use std::time::Duration;

use hook::clock;
use store::Digest;
use tokio::time::Instant;

/// By what each wait is longer than the one before.
const FACTOR: u32 = 4;
/// No wait grows beyond this; the first one may be longer, if it is so configured.
const LONGEST: Duration = Duration::from_secs(3600);

/// Until when a device is offered an image no more. Its end is measured on the monotonic clock;
/// the wall clock's time is for people, and for the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Seconds since 1970.
    pub until: u64,
    ends: Instant,
}

impl Wait {
    /// Of this length, from `now` on, which the wall clock calls `unix`.
    pub fn new(length: Duration, unix: u64, now: Instant) -> Wait {
        // The next whole second: a restart must not make it shorter.
        let seconds = length.as_secs() + u64::from(length.subsec_nanos() > 0);
        Wait { until: unix.saturating_add(seconds), ends: now + length }
    }

    /// As the database has it. No longer than it was to be, whatever the clock did since.
    pub fn stored(until: u64, length: Duration, unix: u64, now: Instant) -> Wait {
        let most = Wait::new(length, 0, now).until;
        let left = Duration::from_secs(clock::left(until, unix, most));
        Wait { until, ends: now + left }
    }

    /// How much of it is left; `None`: it is over.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.ends.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// When it is over.
    pub fn ends(&self) -> Instant {
        self.ends
    }
}

/// How long a device waits after this attempt, counted from 1: `first` after the first one, then
/// four times as long each, an hour at most; and up to half as long again.
pub fn length(attempt: u32, first: Duration, device: &str, digest: &Digest) -> Duration {
    let grown = first.saturating_mul(FACTOR.saturating_pow(attempt.saturating_sub(1)));
    let grown = grown.min(LONGEST.max(first));
    let drawn = Digest::of(format!("{device}\0{digest}\0{attempt}").as_bytes());
    let share =
        drawn.as_bytes().iter().take(4).fold(0, |share, byte| share << 8 | u32::from(*byte));
    grown + (grown / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(30);

    fn digest() -> Digest {
        Digest::of(b"an image")
    }

    #[test]
    fn rule_13_each_wait_is_longer_and_never_shorter_than_it_is_called() {
        let seconds = |attempt| length(attempt, FIRST, "pump-1", &digest()).as_secs_f64();
        for (attempt, least) in [(1, 30.0), (2, 120.0), (3, 480.0), (4, 1920.0), (5, 3600.0)] {
            let is = seconds(attempt);
            assert!((least..=least * 1.5).contains(&is), "{attempt}: {is}");
        }
        assert!((3600.0..=5400.0).contains(&seconds(u32::MAX)), "it grows no further");
        let day = Duration::from_secs(86_400);
        assert!(length(9, day, "pump-1", &digest()) >= day, "an operator may want more");
        assert_eq!(length(3, Duration::ZERO, "pump-1", &digest()), Duration::ZERO);
    }

    #[test]
    fn a_thousand_devices_are_spread_and_each_is_told_the_same_again() {
        let lengths: Vec<_> =
            (0..1000).map(|n| length(1, FIRST, &format!("pump-{n}"), &digest())).collect();
        assert_eq!(lengths[7], length(1, FIRST, "pump-7", &digest()));
        // Of the fifteen seconds, each has its share of them.
        for second in 30..45 {
            let number = lengths.iter().filter(|length| length.as_secs() == second).count();
            assert!((30..110).contains(&number), "{number} in second {second}");
        }
    }

    #[test]
    fn a_restart_makes_no_wait_shorter_nor_a_clock_longer() {
        let (now, unix) = (Instant::now(), clock::EARLIEST + 1_000_000);
        let length = Duration::from_millis(30_200);
        let wait = Wait::new(length, unix, now);
        assert_eq!((wait.until, wait.left(now)), (unix + 31, Some(length)));
        assert_eq!(wait.left(now + length), None);
        // Ten seconds later, of which five passed in another process.
        let later = now + Duration::from_secs(5);
        let again = Wait::stored(wait.until, length, unix + 10, later);
        assert_eq!(again.left(later), Some(Duration::from_secs(21)));
        assert_eq!(Wait::stored(wait.until, length, unix + 40, later).left(later), None);
        // The clock was set back, or is not set.
        for unix in [unix - 5000, 7] {
            let again = Wait::stored(wait.until, length, unix, later);
            assert_eq!(again.left(later), Some(Duration::from_secs(31)));
        }
    }
}
