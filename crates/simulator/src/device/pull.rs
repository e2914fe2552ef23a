//! Which chunk is asked for next, and when.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::Behaviour;

/// How a device chooses its requests. Chunks are numbered from 0.
pub(super) trait Pull: Send + Sync {
    /// A block came; the pause before the next request ends at `ready`.
    fn received(&mut self, index: u32, ready: Instant);

    /// The connection is a new one: what was asked for on the old one is not answered any more.
    fn reconnected(&mut self, now: Instant);

    /// The next thing that is due now, if any; called until it answers `None`.
    fn next(&mut self, now: Instant) -> Option<Next>;

    /// When [`Pull::next`] has something again, if no block comes before.
    fn next_wake(&self) -> Option<Instant>;
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for a chunk.
    First(u32),
    /// Ask again for a chunk that did not come.
    Again(u32),
    /// A chunk was asked for as often as allowed.
    GiveUp { index: u32, attempts: u32 },
}

/// The reference device: chunk 0 after the manifest, then after each block the chunk behind it.
///
/// A block that comes twice so starts a second chain of requests, and a lost one ends its chain:
/// that is what such devices do.
pub(super) struct Reference {
    chunks: u32,
    /// Requests and when they are due, in that order.
    due: VecDeque<(Instant, u32)>,
}

impl Reference {
    pub(super) fn new(now: Instant, chunks: u32) -> Self {
        Self { chunks, due: VecDeque::from([(now, 0)]) }
    }
}

impl Pull for Reference {
    fn received(&mut self, index: u32, ready: Instant) {
        if index + 1 < self.chunks {
            self.due.push_back((ready, index + 1));
        }
    }

    fn reconnected(&mut self, _now: Instant) {}

    fn next(&mut self, now: Instant) -> Option<Next> {
        let due = self.due.pop_front_if(|(at, _)| *at <= now)?;
        Some(Next::First(due.1))
    }

    fn next_wake(&self) -> Option<Instant> {
        self.due.front().map(|(at, _)| *at)
    }
}

/// A better device: several requests in flight, and what does not come is asked for again.
///
/// The window is a number of slots. A slot is free from some moment on (the pace), or taken by a
/// request until its block comes.
pub(super) struct Windowed {
    chunks: u32,
    /// The first chunk that was never asked for.
    unasked: u32,
    /// When each free slot may be used, in that order.
    free: VecDeque<Instant>,
    /// The taken slots, by chunk.
    asked: BTreeMap<u32, Asked>,
    retry_after: Duration,
    max_retries: u32,
}

struct Asked {
    attempts: u32,
    /// When the block counts as lost.
    late: Instant,
}

impl Windowed {
    pub(super) fn new(now: Instant, chunks: u32, behaviour: &Behaviour) -> Self {
        Self {
            chunks,
            unasked: 0,
            free: std::iter::repeat_n(now, behaviour.window.into()).collect(),
            asked: BTreeMap::new(),
            retry_after: behaviour.retry_after,
            max_retries: behaviour.max_retries,
        }
    }
}

impl Pull for Windowed {
    fn received(&mut self, index: u32, ready: Instant) {
        // A repeated block holds no slot any more.
        if self.asked.remove(&index).is_some() {
            self.free.push_back(ready);
        }
    }

    fn reconnected(&mut self, now: Instant) {
        for asked in self.asked.values_mut() {
            asked.late = now;
        }
    }

    fn next(&mut self, now: Instant) -> Option<Next> {
        if let Some((&index, asked)) = self.asked.iter_mut().find(|(_, asked)| asked.late <= now) {
            if asked.attempts > self.max_retries {
                return Some(Next::GiveUp { index, attempts: asked.attempts });
            }
            asked.attempts += 1;
            asked.late = now + self.retry_after;
            return Some(Next::Again(index));
        }
        if self.unasked < self.chunks {
            self.free.pop_front_if(|at| *at <= now)?;
            let index = self.unasked;
            self.unasked += 1;
            self.asked.insert(index, Asked { attempts: 1, late: now + self.retry_after });
            return Some(Next::First(index));
        }
        None
    }

    fn next_wake(&self) -> Option<Instant> {
        let late = self.asked.values().map(|asked| asked.late).min();
        let free = self.free.front().copied().filter(|_| self.unasked < self.chunks);
        late.into_iter().chain(free).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windowed(now: Instant, chunks: u32, window: u16) -> Windowed {
        let behaviour = Behaviour {
            window,
            max_retries: 2,
            retry_after: Duration::from_secs(2),
            ..crate::device::tests::behaviour()
        };
        Windowed::new(now, chunks, &behaviour)
    }

    fn due(pull: &mut dyn Pull, now: Instant) -> Vec<Next> {
        std::iter::from_fn(|| pull.next(now)).collect()
    }

    #[test]
    fn a_window_is_filled_and_refilled_after_the_pace() {
        let now = Instant::now();
        let mut pull = windowed(now, 4, 2);
        assert_eq!(due(&mut pull, now), [Next::First(0), Next::First(1)]);
        let ready = now + Duration::from_millis(100);
        pull.received(1, ready);
        assert_eq!(due(&mut pull, now), []);
        assert_eq!(pull.next_wake(), Some(ready));
        assert_eq!(due(&mut pull, ready), [Next::First(2)]);
        pull.received(1, ready);
        assert_eq!(due(&mut pull, ready), [], "a repeated block frees no second slot");
    }

    #[test]
    fn what_is_late_is_asked_for_again_until_it_is_enough() {
        let mut now = Instant::now();
        let mut pull = windowed(now, 1, 1);
        assert_eq!(due(&mut pull, now), [Next::First(0)]);
        for _ in 0..2 {
            now += Duration::from_secs(2);
            assert_eq!(pull.next_wake(), Some(now));
            assert_eq!(due(&mut pull, now), [Next::Again(0)]);
        }
        now += Duration::from_secs(2);
        assert_eq!(pull.next(now), Some(Next::GiveUp { index: 0, attempts: 3 }));
    }

    #[test]
    fn a_new_connection_asks_again_at_once() {
        let now = Instant::now();
        let mut pull = windowed(now, 4, 2);
        due(&mut pull, now);
        pull.reconnected(now);
        assert_eq!(due(&mut pull, now), [Next::Again(0), Next::Again(1)]);
    }

    #[test]
    fn the_reference_follows_each_block_and_forks_on_a_repeated_one() {
        let now = Instant::now();
        let mut pull = Reference::new(now, 3);
        assert_eq!(due(&mut pull, now), [Next::First(0)]);
        pull.received(0, now);
        pull.received(0, now);
        assert_eq!(due(&mut pull, now), [Next::First(1), Next::First(1)]);
        pull.received(2, now);
        assert_eq!(due(&mut pull, now), [], "nothing is behind the last");
        assert_eq!(pull.next_wake(), None, "and nothing is ever asked for again");
    }
}
