//! Clients that read or send too slowly to be of any use, whether by accident or on purpose.
//!
//! The keep alive says that a client lives, not that it reads. One whose socket takes nothing
//! holds its queue, which is bounded, and its place for ever; one that sends a byte of a large
//! packet now and then holds a buffer. Neither is seen by the keep alive, and a client may have
//! none. So what has begun has to go on: something written must be taken within the patience,
//! and a packet must be whole within it and a second more for each [`SLOWEST`] bytes that have
//! come of it.
//!
//! The patience is [`crate::Settings::stall`], or one and a half times the keep alive where
//! that is longer: a device that sleeps as long as it announced is not slow.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::time::Sleep;

/// Bytes a second below which a packet that arrives is not on its way any more: a tenth of what
/// the slowest radio links of devices carry.
const SLOWEST: usize = 256;

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooSlow {
    /// The socket took nothing.
    Reading,
    /// A packet did not become whole.
    Sending,
}

/// One connection's unfinished business. It has memory only while there is some, and until the
/// patience has passed once.
#[derive(Default)]
pub(crate) struct Slow(Option<Box<Watch>>);

struct Watch {
    /// Never later than what is due first; it may be earlier, since progress does not move it.
    timer: Pin<Box<Sleep>>,
    /// Since when the socket has taken nothing.
    unread: Option<Instant>,
    /// Since when a packet arrives, and how much of it has come.
    partial: Option<(Instant, usize)>,
}

impl Watch {
    fn due(&self, patience: Duration) -> Option<(Instant, TooSlow)> {
        let unread = self.unread.map(|since| (since + patience, TooSlow::Reading));
        let partial = self.partial.map(|(since, bytes)| {
            (since + patience + Duration::from_secs((bytes / SLOWEST) as u64), TooSlow::Sending)
        });
        unread.into_iter().chain(partial).min_by_key(|(due, _)| *due)
    }
}

impl Slow {
    fn watch(&mut self, patience: Duration) -> &mut Watch {
        self.0.get_or_insert_with(|| {
            let timer = Box::pin(tokio::time::sleep(patience));
            Box::new(Watch { timer, unread: None, partial: None })
        })
    }

    /// The socket took less than there was; `some` says whether it took anything.
    pub fn unread(&mut self, now: Instant, patience: Duration, some: bool) {
        let watch = self.watch(patience);
        if some || watch.unread.is_none() {
            watch.unread = Some(now);
        }
    }

    /// The socket took everything.
    pub fn taken(&mut self) {
        if let Some(watch) = &mut self.0 {
            watch.unread = None;
        }
    }

    /// So many bytes of a packet have come and not the rest; `fresh` says that they are the
    /// beginning of one.
    pub fn partial(&mut self, now: Instant, patience: Duration, bytes: usize, fresh: bool) {
        let watch = self.watch(patience);
        let since = match watch.partial {
            Some((since, _)) if !fresh => since,
            _ => now,
        };
        watch.partial = Some((since, bytes));
    }

    /// No packet is under way.
    pub fn whole(&mut self) {
        if let Some(watch) = &mut self.0 {
            watch.partial = None;
        }
    }

    /// Ready when something took too long.
    pub fn poll(&mut self, cx: &mut Context<'_>, patience: Duration) -> Poll<TooSlow> {
        let Some(watch) = &mut self.0 else { return Poll::Pending };
        while watch.timer.as_mut().poll(cx).is_ready() {
            match watch.due(patience) {
                Some((due, what)) if due <= Instant::now() => return Poll::Ready(what),
                Some((due, _)) => watch.timer.as_mut().reset(due.into()),
                None => {
                    self.0 = None;
                    return Poll::Pending;
                }
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[tokio::test]
    async fn progress_counts_and_standing_still_does_not() {
        let (mut slow, start) = (Slow::default(), Instant::now());
        let due = |slow: &Slow| slow.0.as_ref().and_then(|watch| watch.due(PATIENCE));
        slow.unread(start, PATIENCE, false);
        slow.unread(start + second(10), PATIENCE, false);
        assert_eq!(due(&slow), Some((start + PATIENCE, TooSlow::Reading)));
        slow.unread(start + second(20), PATIENCE, true);
        slow.partial(start + second(5), PATIENCE, 10, true);
        slow.partial(start + second(6), PATIENCE, 20, false);
        assert_eq!(due(&slow), Some((start + second(5) + PATIENCE, TooSlow::Sending)));
        slow.partial(start + second(7), PATIENCE, 20, true);
        assert_eq!(due(&slow), Some((start + second(7) + PATIENCE, TooSlow::Sending)));
        slow.partial(start + second(8), PATIENCE, 2 * SLOWEST, false);
        assert_eq!(due(&slow), Some((start + second(7 + 2) + PATIENCE, TooSlow::Sending)));
        slow.whole();
        assert_eq!(due(&slow), Some((start + second(20) + PATIENCE, TooSlow::Reading)));
        slow.taken();
        assert_eq!(due(&slow), None);
    }

    #[tokio::test]
    async fn it_is_ready_when_due_and_gives_its_memory_back_when_all_is_done() {
        let patience = Duration::from_millis(10);
        let mut slow = Slow::default();
        let began = Instant::now();
        slow.unread(began, patience, false);
        let what = std::future::poll_fn(|cx| slow.poll(cx, patience)).await;
        assert_eq!(what, TooSlow::Reading);
        assert!(began.elapsed() >= patience);
        slow.taken();
        std::future::poll_fn(|cx| {
            assert!(slow.poll(cx, patience).is_pending());
            if slow.0.is_none() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
