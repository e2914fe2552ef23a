//! QoS 1 and 2: what was promised waits here until its connection takes it.

use std::{collections::VecDeque, task::Waker};

use super::{Done, Inbox, Inner, Kick, Pace, Pushed, wake};
use crate::message::Delivery;

impl Inbox {
    /// QoS 1 and 2, for a session that is still in this epoch. On [`Pushed::Full`] the waker is kept and called when there is room.
    pub fn push_assured(&self, delivery: Delivery, epoch: u32, waker: Option<&Waker>) -> Pushed {
        let mut inner = self.inner.lock();
        if inner.ended || inner.epoch != epoch {
            return Pushed::Skipped;
        }
        if let Some(without) = self.without_room(&mut inner, &delivery, waker) {
            return without;
        }
        inner.messages += 1;
        inner.bytes += delivery.message.cost();
        inner.queues.assured.push_back(delivery);
        let alone = inner.messages == 1 && self.is_within(&inner, 2);
        if wake(inner) && alone { Pushed::Woke } else { Pushed::Queued }
    }

    /// After [`Pushed::Woke`]: calls the waker when the connection has taken the message, or is
    /// gone. `false` where that has happened.
    pub fn after_take(&self, waker: &Waker) -> bool {
        let mut inner = self.inner.lock();
        let waits = inner.connection != 0 && inner.waker.is_none() && self.is_within(&inner, 2);
        if waits && !inner.queues.assured.is_empty() {
            inner.behind.push_back(waker.clone());
            return true;
        }
        false
    }

    /// Room for a QoS 1 or 2 delivery that is to be written to the log before it is
    /// [pushed](Self::push_reserved). As [`Self::push_assured`] otherwise.
    pub fn reserve(&self, delivery: &Delivery, epoch: u32, waker: Option<&Waker>) -> Pushed {
        let mut inner = self.inner.lock();
        if inner.ended || inner.epoch != epoch {
            return Pushed::Skipped;
        }
        if let Some(without) = self.without_room(&mut inner, delivery, waker) {
            return without;
        }
        inner.messages += 1;
        inner.bytes += delivery.message.cost();
        Pushed::Queued
    }

    /// Puts a delivery into the room that was reserved for it. `false` where the session started
    /// clean or ended meanwhile: it is not for it any more.
    pub fn push_reserved(&self, delivery: Delivery, epoch: u32) -> bool {
        let mut inner = self.inner.lock();
        if inner.ended || inner.epoch != epoch {
            return false;
        }
        inner.queues.assured.push_back(delivery);
        wake(inner);
        true
    }

    /// Gives the room back.
    pub fn release(&self, delivery: &Delivery, epoch: u32) {
        let mut inner = self.inner.lock();
        if !inner.ended && inner.epoch == epoch {
            inner.messages = inner.messages.saturating_sub(1);
            inner.bytes = inner.bytes.saturating_sub(delivery.message.cost());
        }
    }

    /// A delivery that the log promised, at the start of the broker: whatever the bounds are now.
    pub fn restore(&self, delivery: Delivery) {
        let mut inner = self.inner.lock();
        inner.messages += 1;
        inner.bytes += delivery.message.cost();
        inner.queues.assured.push_back(delivery);
    }

    /// Takes out what has expired while no connection is there to do it.
    pub fn take_expired(&self) -> Vec<Delivery> {
        let mut inner = self.inner.lock();
        if inner.connection != 0 || inner.queues.assured.is_empty() {
            return Vec::new();
        }
        let mut expired = Vec::new();
        inner.queues.assured.retain(|delivery| {
            let late = delivery.message.expired();
            if late {
                expired.push(delivery.clone());
            }
            !late
        });
        let bytes = expired.iter().map(|delivery| delivery.message.cost()).sum();
        inner.settle(&Done { messages: expired.len(), bytes, ..Done::default() });
        expired
    }

    /// Messages of shared subscriptions that wait: where the session ends, they are for another
    /// member.
    pub fn shared(&self) -> Vec<Delivery> {
        let inner = self.inner.lock();
        inner.queues.assured.iter().filter(|delivery| delivery.share.is_some()).cloned().collect()
    }

    /// Takes out the QoS 1 and 2 deliveries that wait and are not to be kept.
    pub fn drop_waiting(&self, keep: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
        let mut inner = self.inner.lock();
        let (kept, dropped): (Vec<_>, Vec<_>) =
            inner.queues.assured.take().into_iter().partition(keep);
        inner.queues.assured = VecDeque::from(kept).into();
        for delivery in &dropped {
            inner.messages = inner.messages.saturating_sub(1);
            inner.bytes = inner.bytes.saturating_sub(delivery.message.cost());
        }
        dropped
    }

    /// What becomes of a QoS 1 or 2 delivery that there is no room for. Who waits is told when there
    /// is some. QoS 0 makes room for it: see [`Inbox::take`].
    pub(super) fn without_room(
        &self,
        inner: &mut Inner,
        delivery: &Delivery,
        waker: Option<&Waker>,
    ) -> Option<Pushed> {
        self.look_at_pace(inner);
        let (messages, bytes) = inner.assured();
        let cost = delivery.message.cost();
        if inner.pace != Pace::Draining && self.fits(messages, bytes + cost) {
            inner.evict |= !self.fits(inner.messages, inner.bytes + cost);
            return None;
        }
        if inner.connection == 0 || inner.pace == Pace::Late {
            return Some(Pushed::Dropped);
        }
        inner.pace = Pace::Draining;
        if let Some(waker) = waker
            && !inner.waiting.iter().any(|waiting| waiting.will_wake(waker))
        {
            inner.waiting.push_back(waker.clone());
        }
        Some(Pushed::Full)
    }

    /// Forgives where enough has drained.
    pub(super) fn look_at_pace(&self, inner: &mut Inner) {
        let share = match inner.pace {
            Pace::Free => return,
            Pace::Draining => 2,
            Pace::Late => 4,
        };
        let (messages, bytes) = inner.assured();
        if self.are_within(messages, bytes, share) {
            inner.pace = Pace::Free;
        }
    }

    /// Somebody waited as long as one waits for room: the connection is asked to end, and nobody
    /// waits for the session again before it has caught up.
    pub fn late(&self, kick: Kick) {
        self.inner.lock().pace = Pace::Late;
        self.kick(kick);
    }
}
