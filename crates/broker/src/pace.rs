//! CONNECTs a second, of the whole broker (`limits.connects_per_second`).
//!
//! A thousand devices that come back at once after a power cut are no attack, so who is too
//! early waits for its turn instead of being refused, in the order of coming: nobody has to try
//! again, and nobody is passed by one who tries more often. A second's worth goes at once. Who
//! has waited in vain for [`crate::Settings::connect_patience`] hears that (0x9F, in MQTT 3.1.1
//! code 3), while most clients still listen; who leaves gives its turn to the next.

use hook::Seldom;
use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};

use crate::limits::LiveLimits;

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It goes on.
    Now,
    /// It waited as long as it may.
    Late,
    /// It left.
    Gone,
}

/// See [the module](self).
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Locked by the one whose turn is next; the lock is fair, so the others queue behind it.
    bucket: Mutex<Bucket>,
    /// CONNECTs that had to wait.
    pub delayed: AtomicU64,
    /// CONNECTs that waited in vain.
    pub refused: AtomicU64,
    line: Seldom,
}

impl Pace {
    /// Waits for the turn of one CONNECT, for `patience` at most and not after `gone`.
    pub async fn turn(
        &self,
        limits: &LiveLimits,
        patience: Duration,
        gone: impl Future<Output = ()>,
    ) -> Turn {
        let mut waited = false;
        let turn = tokio::select! {
            biased;
            () = self.wait(limits, &mut waited) => Turn::Now,
            () = gone => Turn::Gone,
            () = tokio::time::sleep(patience) => Turn::Late,
        };
        if waited || turn != Turn::Now {
            self.delayed.fetch_add(1, Ordering::Relaxed);
        }
        if turn == Turn::Late {
            self.refused.fetch_add(1, Ordering::Relaxed);
            if let Some(times) = self.line.note() {
                tracing::warn!(
                    times,
                    "CONNECTs refused: they waited too long for limits.connects_per_second"
                );
            }
        }
        turn
    }

    async fn wait(&self, limits: &LiveLimits, waited: &mut bool) {
        let mut bucket = match self.bucket.try_lock() {
            Ok(bucket) => bucket,
            Err(_) => {
                *waited = true;
                self.bucket.lock().await
            }
        };
        // Asked only now, and again: it may change meanwhile.
        while let Some(rate) = limits.connects_per_second() {
            match bucket.take(rate, Instant::now()) {
                None => return,
                Some(turn) => {
                    *waited = true;
                    tokio::time::sleep_until(turn).await;
                }
            }
        }
    }
}

/// The generic cell rate algorithm, with a second's worth as tolerance.
#[derive(Debug, Default)]
struct Bucket {
    /// When the turns that were given are used up at their rate.
    used_up: Option<Instant>,
}

impl Bucket {
    /// Takes a turn, or says when there will be one.
    fn take(&mut self, rate: u32, now: Instant) -> Option<Instant> {
        let interval = Duration::from_secs(1) / rate;
        let tolerance = Duration::from_secs(1).saturating_sub(interval);
        let turn = self.used_up.and_then(|used_up| used_up.checked_sub(tolerance));
        if turn.is_some_and(|turn| turn > now) {
            return turn;
        }
        self.used_up = Some(self.used_up.map_or(now, |used_up| used_up.max(now)) + interval);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_goes_at_once_and_the_rest_evenly() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let mut now = start;
        for number in 0..60 {
            if let Some(turn) = bucket.take(10, now) {
                now = turn;
                assert_eq!(bucket.take(10, now), None, "and then it is there");
            }
            let expected = Duration::from_millis(100) * (number + 1u32).saturating_sub(10);
            assert_eq!(now - start, expected, "number {number}");
        }
    }

    #[test]
    fn a_rest_saves_up_no_more_than_a_second() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        assert_eq!(bucket.take(2, start), None);
        let later = start + Duration::from_secs(3600);
        assert_eq!((bucket.take(2, later), bucket.take(2, later)), (None, None));
        assert_eq!(bucket.take(2, later), Some(later + Duration::from_millis(500)));
    }
}
