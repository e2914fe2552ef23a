//! QoS 0, which is dropped where there is no room, and its publishers, who let a crowded queue
//! drain first: see [`crate::crowd`].

use std::{
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
};

use super::{Done, Inbox, Inner, Pushed, wake};
use crate::{
    crowd::{DISTRUST, TURNS},
    message::Delivery,
    queue::Queue,
    session::clock_ms,
};

impl Inbox {
    /// QoS 0: dropped where there is no room.
    pub fn push_lossy(&self, delivery: Delivery) -> Pushed {
        let mut inner = self.inner.lock();
        if inner.connection == 0 || inner.ended {
            return Pushed::Skipped;
        }
        let cost = delivery.message.cost();
        if !self.fits(inner.messages, inner.bytes + cost) {
            return Pushed::Dropped;
        }
        inner.messages += 1;
        inner.bytes += cost;
        inner.lossy_messages += 1;
        inner.lossy_bytes += cost;
        inner.queues.lossy.push_back(delivery);
        if inner.distrusted == 0 && self.crowd().is_none() && !self.is_within(&inner, 2) {
            self.crowd.fetch_add(1, Ordering::Relaxed);
        }
        wake(inner);
        Pushed::Queued
    }

    /// A number for this crowd, where publishers of QoS 0 are to let the queue drain.
    pub fn crowd(&self) -> Option<u32> {
        Some(self.crowd.load(Ordering::Relaxed)).filter(|crowd| crowd % 2 == 1)
    }

    /// Waits for a turn while this crowd lasts.
    pub fn poll_turn(&self, crowd: u32, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.inner.lock();
        if self.crowd() != Some(crowd) {
            return Poll::Ready(());
        }
        inner.turns.wait(cx.waker());
        Poll::Pending
    }

    /// Somebody waited as long as one waits. Where this crowd still lasts, nobody waits for the
    /// session for some time.
    pub fn waited_in_vain(&self, crowd: u32) {
        let mut inner = self.inner.lock();
        if self.crowd() != Some(crowd) {
            return;
        }
        inner.distrusted = clock_ms() + DISTRUST.as_millis() as u64;
        let turns = self.go_on(&mut inner);
        drop(inner);
        turns.into_iter().for_each(Waker::wake);
    }

    /// Nobody is to wait any more.
    pub(super) fn go_on(&self, inner: &mut Inner) -> Vec<Waker> {
        self.crowd_is_over();
        inner.turns.next(usize::MAX)
    }

    pub(super) fn crowd_is_over(&self) {
        if self.crowd().is_some() {
            self.crowd.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Some who wait go on where the queue has drained, all of them where it is empty.
    pub(super) fn turns(&self, inner: &mut Inner) -> Vec<Waker> {
        let untouched = self.crowd().is_none() && inner.turns.is_empty() && inner.distrusted == 0;
        if untouched || !self.is_within(inner, 4) {
            return Vec::new();
        }
        self.crowd_is_over();
        if inner.distrusted <= clock_ms() {
            inner.distrusted = 0;
        }
        inner.turns.next(if inner.messages == 0 { usize::MAX } else { TURNS })
    }

    /// Drops the oldest of QoS 0 while more waits than the queue may hold.
    pub(super) fn evict(&self, inner: &mut Inner, lossy: &mut Queue<Delivery>) -> usize {
        let mut evicted = Done::default();
        if !std::mem::take(&mut inner.evict) {
            return 0;
        }
        while !self.are_within(inner.messages - evicted.messages, inner.bytes - evicted.bytes, 1)
            && let Some(delivery) = lossy.pop_front()
        {
            evicted.count(&delivery);
        }
        inner.settle(&evicted);
        evicted.messages
    }
}
