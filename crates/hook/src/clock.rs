//! The wall clock, which may be wrong.
//!
//! What lasts is measured on the monotonic clock. The wall clock is for people to read, and for
//! what has to outlast the process: there it may have been stepped between two looks, and on a
//! machine without a battery it shows 1970 until the network is up.

use std::time::{SystemTime, UNIX_EPOCH};

/// In seconds since 1970: when this program was made, where its build was told so by
/// `SOURCE_DATE_EPOCH`, else the beginning of 2025. A clock that shows less was not set.
pub const EARLIEST: u64 = {
    const YEAR_2025: u64 = 1_735_689_600;
    match option_env!("SOURCE_DATE_EPOCH") {
        Some(text) => match u64::from_str_radix(text, 10) {
            Ok(made) if made > YEAR_2025 => made,
            _ => YEAR_2025,
        },
        None => YEAR_2025,
    }
};

/// Seconds since 1970 by the wall clock; 0 where it stands before that.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether a clock that showed this may have been right.
pub fn is_set(unix: u64) -> bool {
    unix >= EARLIEST
}

/// Seconds from `then` to `now`, as well as it can be told: none where the clock was set back, or
/// where it was not set at one of the times. So what waits for an end may live longer than it
/// should, and never shorter because of a clock.
pub fn passed(then: u64, now: u64) -> u64 {
    if is_set(then) && is_set(now) { now.saturating_sub(then) } else { 0 }
}

/// Seconds that are left at `now` of what ends at `until`, and was to last no longer than `most`.
/// All of it where a clock was not set at one of the times.
pub fn left(until: u64, now: u64, most: u64) -> u64 {
    if is_set(until) && is_set(now) { until.saturating_sub(now).min(most) } else { most }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lasts_longer_than_it_was_to() {
        let now = EARLIEST + 1_000;
        assert_eq!(left(now + 7, now, 100), 7);
        assert_eq!(left(now - 7, now, 100), 0);
        assert_eq!(left(now + 3600, now, 100), 100, "the clock was set back since");
        assert_eq!(left(160, now, 100), 100, "it was not set then");
        assert_eq!(left(now, 160, 100), 100, "it is not set now");
    }

    #[test]
    fn a_step_never_makes_time_pass() {
        let now = EARLIEST + 1_000;
        assert_eq!(passed(now - 7, now), 7);
        assert_eq!(passed(now + 3600, now), 0, "set back");
        assert_eq!(passed(60, now), 0, "it was not set then");
        assert_eq!(passed(now, 60), 0, "it is not set now");
        assert!(is_set(unix_now()), "the clock of this machine");
    }
}
