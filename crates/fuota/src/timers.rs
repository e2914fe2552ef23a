//! What is to be done later: one heap for all devices, driven by the engine's run loop.
//!
//! Each connection has at most one entry of each kind and one per slowed-down block, each
//! device at most a few, so the heap is bounded by the connections.

use std::{cmp::Ordering, collections::BinaryHeap, sync::Weak};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{
    device::Device,
    link::{Lane, Link, Wanted},
};

/// What is due.
pub enum Event {
    /// A device that reconnected did not ask again (rule 16).
    Grace(Weak<Link>),
    /// A device may have stopped asking (rule 16).
    Nudge(Weak<Link>),
    /// A block that is asked for too often may be answered again (rule 17).
    Deferred(Weak<Link>, Weak<Lane>, Wanted),
    /// A request is not answered from the image that it was for.
    Unanswered(Weak<Link>, Wanted),
    /// A device that got everything may be confirmed or silent (rule 19).
    Confirm(Weak<Device>),
    /// A rate lets the next transfer begin.
    Starts,
    /// The next block of a connection that waits for its turn under a cap may go.
    Paced(Weak<Link>),
    /// What could not be offered may be offered now.
    Consider(Weak<Device>),
    /// A manifest that the outbox had no room for.
    Announce(Weak<Link>),
}

/// The heap, and what wakes its driver.
#[derive(Default)]
pub struct Timers {
    heap: Mutex<BinaryHeap<Entry>>,
    earlier: Notify,
}

impl Timers {
    /// Makes `event` due at `at`.
    pub fn at(&self, at: Instant, event: Event) {
        let mut heap = self.heap.lock();
        let first = heap.peek().is_none_or(|entry| at < entry.at);
        heap.push(Entry { at, event });
        drop(heap);
        if first {
            self.earlier.notify_one();
        }
    }

    /// Waits until something is due and takes all of that.
    pub async fn due(&self) -> Vec<Event> {
        loop {
            let next = {
                let mut heap = self.heap.lock();
                let (now, mut due) = (Instant::now(), Vec::new());
                while heap.peek().is_some_and(|entry| entry.at <= now) {
                    due.extend(heap.pop().map(|entry| entry.event));
                }
                if !due.is_empty() {
                    return due;
                }
                heap.peek().map(|entry| entry.at)
            };
            match next {
                Some(next) => tokio::select! {
                    () = tokio::time::sleep_until(next) => {}
                    () = self.earlier.notified() => {}
                },
                None => self.earlier.notified().await,
            }
        }
    }
}

struct Entry {
    at: Instant,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The heap is a maximum heap: the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}
