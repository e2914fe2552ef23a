//! How fast a transfer is and why it stands still, measured by the broker from what it sent and
//! what was asked for: a device that reports nothing has both.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    device::{Device, DeviceState},
    engine::Engine,
    link::Link,
    state::UpdateState,
    transfer::Transfer,
};

/// Over about so long the rate is a mean: short enough to follow a device that walks away from
/// its access point, long enough for one that asks every few seconds.
const MEAN: Duration = Duration::from_secs(5);
/// Standing still for less is nothing to speak of.
const STILL: Duration = Duration::from_secs(5);
/// A device's own pace counts: it stands still after so many of its median gaps.
const GAPS: u32 = 3;

/// The rate of one transfer, in blocks a second. Looked at now and then, and never on the way of
/// a block.
#[derive(Debug)]
pub struct Rate {
    /// When it was looked at last, and how many blocks were served by then.
    last: (Instant, u32),
    mean: Option<f64>,
    /// When a block was last found to be served.
    moved: Instant,
}

impl Rate {
    /// From `now` on, where so many blocks are served already.
    pub fn new(now: Instant, sent: u32) -> Rate {
        Rate { last: (now, sent), mean: None, moved: now }
    }

    /// So many blocks are served by now.
    pub fn look(&mut self, now: Instant, sent: u32) {
        let (then, before) = self.last;
        let passed = now.saturating_duration_since(then).as_secs_f64();
        if sent > before {
            self.moved = now;
        } else if self.mean.is_none() {
            // Nobody has begun: that is no rate of nothing.
            self.last = (now, sent);
            return;
        }
        if passed <= 0.0 {
            return;
        }
        let newest = f64::from(sent.saturating_sub(before)) / passed;
        let share = 1.0 - (-passed / MEAN.as_secs_f64()).exp();
        self.mean = Some(self.mean.map_or(newest, |mean| mean + (newest - mean) * share));
        self.last = (now, sent);
    }

    /// Blocks a second; `None` before any was served.
    pub fn mean(&self) -> Option<f64> {
        self.mean
    }

    /// Since when no block was served.
    pub fn still_since(&self) -> Instant {
        self.moved
    }
}

impl Engine {
    /// Why the download of a device stands still; `None` where it goes on, or there is none.
    pub fn stalled(&self, device: &Device) -> Option<String> {
        let state = device.state.lock();
        let transfer = state.transfer.as_ref().filter(|transfer| transfer.state().is_running())?;
        self.stall(&state, transfer)
    }

    /// The same where the device is locked by the caller.
    pub fn stall(&self, state: &DeviceState, transfer: &Transfer) -> Option<String> {
        if let Some(reason) = self.held_back(transfer) {
            return Some(reason);
        }
        let stopped = transfer.state() == UpdateState::Stalled;
        let now = Instant::now();
        let still = now.saturating_duration_since(transfer.still_since());
        let Some(newest) = state.links.last() else {
            // One may fetch over HTTP alone.
            return (still >= STILL || stopped).then(|| "it is away".into());
        };
        let of_it = |link: &Link| {
            let on_link = link.state.lock();
            on_link.lane.as_ref().is_some_and(|lane| std::ptr::eq(&*lane.transfer, transfer))
        };
        let link = state.links.iter().rev().find(|link| of_it(link)).unwrap_or(newest);
        let link = link.state.lock();
        let window = &link.window;
        let patience = STILL.max(window.median_gap() * GAPS);
        if still < patience && !stopped {
            return None;
        }
        let store_problem = || self.store_problem.lock().clone();
        Some(if window.reading {
            match store_problem() {
                Some(problem) => format!("its next block cannot be read: {problem}"),
                None => "its next block is being read from the store".into(),
            }
        } else if !window.paced.is_empty() {
            "its next block waits for its turn under a cap on bytes a second".into()
        } else if window.open > 0 {
            "its connection takes nothing of what was sent to it".into()
        } else {
            let asked = window.last_request.map(|last| now.saturating_duration_since(last));
            match asked {
                Some(ago) => format!("it has asked for nothing for {} s", ago.as_secs()),
                None if link.downlink.is_none() => {
                    "it has asked for nothing, and has not subscribed to its downlink".into()
                }
                None => "it has asked for nothing on its present connection".into(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_what_is_sent_and_fades_when_nothing_is() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut rate = Rate::new(start, 0);
        rate.look(at(1), 0);
        assert_eq!(rate.mean(), None, "nobody has begun");
        for second in 2..30 {
            rate.look(at(second), (second as u32 - 1) * 10);
        }
        let mean = rate.mean().unwrap();
        assert!((9.9..10.1).contains(&mean), "{mean}");
        assert_eq!(rate.still_since(), at(29));
        for second in 30..60 {
            rate.look(at(second), 280);
        }
        assert!(rate.mean().unwrap() < 0.1);
        assert_eq!(rate.still_since(), at(29));
        // Looked at twice at one moment, nothing is divided by nothing.
        rate.look(at(59), 280);
        assert!(rate.mean().unwrap().is_finite());
    }
}
