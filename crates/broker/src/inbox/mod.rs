//! A session's bounded queues: what publishers and plugins put in, and its connection takes out.
//!
//! | file | subject |
//! | --- | --- |
//! | this one | the queues, and the connection's side of them |
//! | `lossy` | QoS 0 |
//! | `assured` | QoS 1 and 2 |
//! | `outbox` | messages of plugins |
//!
//! One lock guards all of it. A publisher holds it for one push, the connection for one swap,
//! so that neither waits for the other's work.

mod assured;
mod lossy;
mod outbox;
#[cfg(test)]
mod tests;

use hook::{Outgoing, Qos, SessionEnd};
use parking_lot::Mutex;
use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{Arc, atomic::AtomicU32},
    task::Waker,
};

use crate::{crowd::Turns, limits::LiveLimits, message::Delivery, queue::Queue};

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

    /// Whether the queue holds at most its bound divided by `share`.
    fn is_within(&self, inner: &Inner, share: usize) -> bool {
        self.are_within(inner.messages, inner.bytes, share)
    }

    fn are_within(&self, messages: usize, bytes: usize, share: usize) -> bool {
        messages <= self.limits.queue_messages() / share
            && bytes <= self.limits.queue_bytes() / share
    }

    /// Whether one more message fits, where so many wait and so many bytes would.
    fn fits(&self, messages: usize, bytes: usize) -> bool {
        messages < self.limits.queue_messages() && bytes <= self.limits.queue_bytes()
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
