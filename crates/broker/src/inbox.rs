//! A session's bounded queues: what publishers and plugins put in, and its connection takes out.
//!
//! One lock guards all of it. A publisher holds it for one push, the connection for one swap,
//! so that neither waits for the other's work.

use hook::{Class, Outgoing, Qos, Refused, SessionEnd};
use parking_lot::Mutex;
use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::{
    crowd::{DISTRUST, TURNS, Turns},
    limits::LiveLimits,
    message::Delivery,
    queue::Queue,
    session::clock_ms,
};

/// While more than this waits in an outbox, no further PUBLISH of that client is read.
const OUTBOX_HIGH_BYTES: usize = 8 * 1024 * 1024;
/// The same in messages.
const OUTBOX_HIGH_MESSAGES: usize = 1024;
/// Past this many times the high-water mark an outbox refuses.
const OUTBOX_HARD_FACTOR: usize = 4;

/// Why a connection is to end, from outside its task.
#[derive(Clone, Debug)]
pub(crate) struct Kick {
    /// What hooks are told.
    pub end: SessionEnd,
    /// The MQTT 5 reason code of the DISCONNECT.
    pub reason: u8,
    /// Its reason string.
    pub text: Cow<'static, str>,
}

/// What became of a message that was offered to an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It will be delivered as its QoS promises.
    Queued,
    /// The same; nothing else waits, and the connection was woken for it.
    Woke,
    /// The bound is reached, and a connection is there to drain it.
    Full,
    /// The bound is reached and nobody drains: the message is dropped.
    Dropped,
    /// Nothing was promised: QoS 0 for a session that is away, or a session that has ended.
    Skipped,
}

/// What the connection took out in one swap. Emptied queues are given back with the next one.
#[derive(Default)]
pub(crate) struct Taken {
    /// QoS 0 deliveries.
    pub lossy: Queue<Delivery>,
    /// QoS 1 and 2 deliveries.
    pub assured: Queue<Delivery>,
    /// Outbox, [`Class::Control`].
    pub control: Queue<Outgoing>,
    /// Outbox, [`Class::Block`].
    pub blocks: Queue<Outgoing>,
}

/// What the connection has got rid of since its last swap: room for more.
#[derive(Default, Debug)]
pub(crate) struct Done {
    /// Deliveries handed to the writer or dropped.
    pub messages: usize,
    /// Their cost in bytes.
    pub bytes: usize,
    /// Those of them that were of QoS 0.
    pub lossy_messages: usize,
    /// Their cost in bytes.
    pub lossy_bytes: usize,
    /// Outbox messages written.
    pub outbox_messages: usize,
    /// Their payload bytes.
    pub outbox_bytes: usize,
    /// Those of them that were blocks.
    pub blocks: usize,
}

impl Done {
    /// One more delivery.
    pub fn count(&mut self, delivery: &Delivery) {
        let cost = delivery.message.cost();
        self.messages += 1;
        self.bytes += cost;
        if delivery.qos == Qos::AtMostOnce {
            self.lossy_messages += 1;
            self.lossy_bytes += cost;
        }
    }
}

/// How publishers of QoS 1 and 2 meet a session that is connected.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Pace {
    /// It keeps up.
    #[default]
    Free,
    /// Its queue was full. They wait until half of it has drained, and not for one message at a
    /// time: else a slow one would set everybody's pace for ever without being late for any.
    Draining,
    /// It let somebody wait in vain. Nobody waits for it until three quarters have drained, also on
    /// its next connection: what finds no room is dropped.
    Late,
}

#[derive(Default)]
struct Inner {
    /// The connection that drains it; 0 while the session is away.
    connection: u64,
    /// The session is gone for good.
    ended: bool,
    waker: Option<Waker>,
    kick: Option<Box<Kick>>,
    queues: Taken,
    messages: usize,
    bytes: usize,
    /// Those of them that are of QoS 0.
    lossy_messages: usize,
    lossy_bytes: usize,
    /// Some of them are to make room for QoS 1 and 2.
    evict: bool,
    /// Counts how often the session began with nothing.
    epoch: u32,
    pace: Pace,
    outbox_messages: usize,
    outbox_bytes: usize,
    pending_blocks: usize,
    /// Publishers that wait for room.
    waiting: Queue<Waker>,
    /// Publishers that let the queue drain.
    turns: Turns,
    /// Nobody waits for this session before this time, in [`clock_ms`]; 0 is for somebody who
    /// let nobody wait in vain.
    distrusted: u64,
}

/// The queues of one session. See the module.
pub(crate) struct Inbox {
    inner: Mutex<Inner>,
    /// Odd while publishers of QoS 0 are to let it drain; each change adds one. Changed under
    /// the lock.
    crowd: AtomicU32,
    limits: Arc<LiveLimits>,
}

impl Inbox {
    pub fn new(limits: Arc<LiveLimits>) -> Self {
        Inbox { inner: Mutex::default(), crowd: AtomicU32::new(0), limits }
    }

    /// A connection begins to drain. `current` is asked under the lock: `false` means that a
    /// newer connection has claimed the session, and nothing happens.
    pub fn attach(&self, connection: u64, current: impl FnOnce() -> bool) -> bool {
        let mut inner = self.inner.lock();
        if !current() {
            return false;
        }
        inner.connection = connection;
        inner.kick = None;
        true
    }

    /// The connection is gone: QoS 0 and the outbox go with it, `pending` (QoS 1 and 2, not yet
    /// sent) goes back to the front. `taken_back` are those of them that were counted as sent,
    /// and their cost. Returns the outbox messages, for their receipts.
    pub fn detach(
        &self,
        done: Done,
        pending: &mut VecDeque<Delivery>,
        taken_back: (usize, usize),
    ) -> Vec<Outgoing> {
        let mut inner = self.inner.lock();
        inner.settle(&done);
        inner.messages += taken_back.0;
        inner.bytes += taken_back.1;
        inner.connection = 0;
        inner.waker = None;
        inner.kick = None;
        if inner.pace == Pace::Draining {
            inner.pace = Pace::Free;
        }
        // Also those that the connection had taken.
        inner.queues.lossy.take();
        inner.messages = inner.messages.saturating_sub(std::mem::take(&mut inner.lossy_messages));
        inner.bytes = inner.bytes.saturating_sub(std::mem::take(&mut inner.lossy_bytes));
        pending.append(&mut inner.queues.assured.take());
        inner.queues.assured = std::mem::take(pending).into();
        inner.outbox_messages = 0;
        inner.outbox_bytes = 0;
        inner.pending_blocks = 0;
        let mut outbox: Vec<Outgoing> = inner.queues.control.take().into();
        outbox.extend(inner.queues.blocks.take());
        let waiting = inner.waiting.take();
        let turns = self.go_on(&mut inner);
        drop(inner);
        waiting.into_iter().chain(turns).for_each(Waker::wake);
        outbox
    }

    /// Drops all deliveries: the session starts clean.
    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.queues.lossy.take();
        inner.queues.assured.take();
        (inner.messages, inner.bytes) = (0, 0);
        (inner.lossy_messages, inner.lossy_bytes) = (0, 0);
        inner.pace = Pace::Free;
        inner.epoch = inner.epoch.wrapping_add(1);
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

    /// Changes when the session starts clean: what was under way for it is no longer for it.
    pub fn epoch(&self) -> u32 {
        self.inner.lock().epoch
    }

    /// Whether what began in this epoch is still for the session.
    pub fn is_in(&self, epoch: u32) -> bool {
        let inner = self.inner.lock();
        !inner.ended && inner.epoch == epoch
    }

    /// The session is gone for good: whatever comes is skipped.
    pub fn close(&self) {
        self.clear();
        self.inner.lock().ended = true;
    }

    /// Whether a connection drains it.
    pub fn is_connected(&self) -> bool {
        self.inner.lock().connection != 0
    }

    /// Messages and bytes that wait, outbox included.
    pub fn waiting(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.messages + inner.outbox_messages, inner.bytes + inner.outbox_bytes)
    }

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
    fn go_on(&self, inner: &mut Inner) -> Vec<Waker> {
        self.crowd_is_over();
        inner.turns.next(usize::MAX)
    }

    fn crowd_is_over(&self) {
        if self.crowd().is_some() {
            self.crowd.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the queue holds at most its bound divided by `share`.
    fn is_within(&self, inner: &Inner, share: usize) -> bool {
        self.are_within(inner.messages, inner.bytes, share)
    }

    fn are_within(&self, messages: usize, bytes: usize, share: usize) -> bool {
        messages <= self.limits.queue_messages() / share
            && bytes <= self.limits.queue_bytes() / share
    }

    /// Some who wait go on where the queue has drained, all of them where it is empty.
    fn turns(&self, inner: &mut Inner) -> Vec<Waker> {
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

    /// QoS 1 and 2. On [`Pushed::Full`] the waker is kept and called when there is room.
    pub fn push_assured(&self, delivery: Delivery, waker: Option<&Waker>) -> Pushed {
        let mut inner = self.inner.lock();
        if inner.ended {
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
            inner.waiting.push_back(waker.clone());
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

    /// Whether one more message fits, where so many wait and so many bytes would.
    fn fits(&self, messages: usize, bytes: usize) -> bool {
        messages < self.limits.queue_messages() && bytes <= self.limits.queue_bytes()
    }

    /// What becomes of a QoS 1 or 2 delivery that there is no room for. Who waits is told when there
    /// is some. QoS 0 makes room for it: see [`Inbox::take`].
    fn without_room(
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
    fn look_at_pace(&self, inner: &mut Inner) {
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

    /// A plugin's message for one connection.
    pub fn push_outgoing(&self, connection: u64, message: Outgoing) -> Result<(), Refused> {
        let mut inner = self.inner.lock();
        if inner.connection != connection {
            return Err(Refused::Closed);
        }
        if inner.outbox_messages >= OUTBOX_HIGH_MESSAGES * OUTBOX_HARD_FACTOR
            || inner.outbox_bytes + message.payload.len() > OUTBOX_HIGH_BYTES * OUTBOX_HARD_FACTOR
        {
            return Err(Refused::Full);
        }
        inner.outbox_messages += 1;
        inner.outbox_bytes += message.payload.len();
        match message.class {
            Class::Control => inner.queues.control.push_back(message),
            Class::Block => {
                inner.pending_blocks += 1;
                inner.queues.blocks.push_back(message);
            }
        }
        wake(inner);
        Ok(())
    }

    /// Blocks pushed for this connection and not yet written.
    pub fn pending_blocks(&self, connection: u64) -> usize {
        let inner = self.inner.lock();
        if inner.connection == connection { inner.pending_blocks } else { 0 }
    }

    /// Whether this connection still drains it.
    pub fn serves(&self, connection: u64) -> bool {
        self.inner.lock().connection == connection
    }

    /// Whether the outbox is above its high-water mark.
    pub fn outbox_is_high(&self) -> bool {
        let inner = self.inner.lock();
        inner.outbox_bytes > OUTBOX_HIGH_BYTES || inner.outbox_messages > OUTBOX_HIGH_MESSAGES
    }

    /// Asks the connection, if there is one, to end. The first reason stands.
    pub fn kick(&self, kick: Kick) -> bool {
        let mut inner = self.inner.lock();
        if inner.connection == 0 {
            return false;
        }
        inner.kick.get_or_insert_with(|| Box::new(kick));
        wake(inner);
        true
    }

    /// The connection's turn: takes what came in and gives back room. Until it [parks](Self::park)
    /// nobody wakes it, so that what hooks push while it runs does not schedule it once more.
    /// `Err` says that the connection is to end. `Ok` has the number of QoS 0 deliveries that were
    /// dropped, the oldest first, because QoS 1 and 2 took their place: until this turn, which that
    /// set off, the two together may have had twice the bound.
    pub fn take(&self, done: &mut Done, into: &mut Taken) -> Result<usize, Kick> {
        let mut inner = self.inner.lock();
        if let Some(kick) = inner.kick.take() {
            return Err(*kick);
        }
        inner.waker = None;
        inner.settle(&std::mem::take(done));
        inner.queues.lossy.move_to(&mut into.lossy);
        inner.queues.assured.move_to(&mut into.assured);
        inner.queues.control.move_to(&mut into.control);
        inner.queues.blocks.move_to(&mut into.blocks);
        let evicted = self.evict(&mut inner, &mut into.lossy);
        self.look_at_pace(&mut inner);
        let waiting = match inner.pace {
            Pace::Draining => VecDeque::new(),
            Pace::Free | Pace::Late => inner.waiting.take(),
        };
        let turns = self.turns(&mut inner);
        drop(inner);
        waiting.into_iter().chain(turns).for_each(Waker::wake);
        Ok(evicted)
    }

    /// Drops the oldest of QoS 0 while more waits than the queue may hold.
    fn evict(&self, inner: &mut Inner, lossy: &mut Queue<Delivery>) -> usize {
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

    /// Leaves the connection's waker for whoever pushes next. `false` where something has come
    /// meanwhile and is to be taken first.
    pub fn park(&self, waker: &Waker) -> bool {
        let mut inner = self.inner.lock();
        if inner.kick.is_some() || inner.queues.has_any() {
            return false;
        }
        inner.waker = Some(waker.clone());
        // What is left waits for the client, and nobody else for that.
        if !inner.turns.is_empty() && self.crowd().is_none() {
            let turns = inner.turns.next(usize::MAX);
            drop(inner);
            turns.into_iter().for_each(Waker::wake);
        }
        true
    }
}

impl Taken {
    fn has_any(&self) -> bool {
        !(self.lossy.is_empty()
            && self.assured.is_empty()
            && self.control.is_empty()
            && self.blocks.is_empty())
    }
}

impl Inner {
    /// Messages and bytes of QoS 1 and 2.
    fn assured(&self) -> (usize, usize) {
        (
            self.messages.saturating_sub(self.lossy_messages),
            self.bytes.saturating_sub(self.lossy_bytes),
        )
    }

    fn settle(&mut self, done: &Done) {
        self.messages = self.messages.saturating_sub(done.messages);
        self.bytes = self.bytes.saturating_sub(done.bytes);
        self.lossy_messages = self.lossy_messages.saturating_sub(done.lossy_messages);
        self.lossy_bytes = self.lossy_bytes.saturating_sub(done.lossy_bytes);
        self.outbox_messages = self.outbox_messages.saturating_sub(done.outbox_messages);
        self.outbox_bytes = self.outbox_bytes.saturating_sub(done.outbox_bytes);
        self.pending_blocks = self.pending_blocks.saturating_sub(done.blocks);
    }
}

/// Wakes the connection after the lock is gone, so that it does not run into it. `false` where it
/// runs already, or there is none.
fn wake(mut inner: parking_lot::MutexGuard<'_, Inner>) -> bool {
    let waker = inner.waker.take();
    drop(inner);
    let parked = waker.is_some();
    if let Some(waker) = waker {
        waker.wake();
    }
    parked
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
