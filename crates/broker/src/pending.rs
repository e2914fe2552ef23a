//! A publish that cannot be acknowledged yet: some queue is full, or the log has still to be
//! written.
//!
//! What goes into the log takes three steps, each for all receivers: room is reserved in their
//! queues, one record is written, and only then the message is in their queues. So nobody gets a
//! message that was refused, and what is in the log always has its place.

use hook::{Qos, SessionEnd};
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{task::JoinHandle, time::Sleep};

use crate::{
    counters::{Tally, Totals},
    exchange::{Routed, YIELD_AFTER, retained_record},
    inbox::{Kick, Pushed},
    index::Receiver,
    journal::{Journal, Published, Record, Target, Ticket, Unwritable, wall_seconds},
    lanes::count_pushed,
    left::Share,
    message::{Delivery, Message},
    packet::reason,
};

/// From one round of asking many receivers for room to the next.
const ASKED_AGAIN: Duration = Duration::from_millis(10);

/// A QoS 1 or 2 publish on its way. Its publisher is acknowledged when it is done, and while it
/// waits for room the publisher sends nothing else.
///
/// After `limits.publish_hold` the copies that found no room are dropped and counted, and the
/// slow subscribers are disconnected (0x97); the publisher is never the one who pays.
pub(crate) struct Pending {
    message: Arc<Message>,
    stage: Stage,
    /// Receivers whose queues were full.
    waiting: VecDeque<Receiver>,
    /// So many of them, the first ones, are still to be asked in this round.
    unasked: usize,
    /// When all are asked again, where a round took several turns: who made room meanwhile has
    /// woken nobody.
    again: Option<Pin<Box<Sleep>>>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Those that get it when it is written, in order.
    reserved: VecDeque<(Receiver, Delivery)>,
    log: Option<Log>,
}

enum Stage {
    /// Copies go straight into the queues as there is room.
    Pushing,
    /// Room is reserved.
    Reserving,
    /// The record is on its way.
    Writing(Ticket),
    /// The copies go into their places.
    Delivering,
}

/// What the log is to say of a publish beside its receivers.
pub(crate) struct Log {
    pub journal: Arc<Journal>,
    /// It is the retained message of its topic.
    pub retained: bool,
    /// Session and packet id, at QoS 2 from a session that lasts.
    pub received: Option<(u64, u16)>,
    /// Session and delivery in whose place it comes.
    pub instead: Option<(u64, u64)>,
}

/// One copy for one session, at the lower of both qualities of service [MQTT-3.8.4-8],
/// [MQTT-4.8.2-3]; RETAIN is as published, or 0 [MQTT-3.3.1-12], [MQTT-3.3.1-13].
fn copy(message: &Arc<Message>, receiver: &Receiver) -> Delivery {
    Delivery {
        id: 0,
        message: message.clone(),
        qos: message.qos.min(receiver.qos),
        retain: message.retain && receiver.retain_as_published,
        subscriptions: receiver.identifiers.clone(),
        share: receiver.share.clone(),
    }
}

/// Puts one copy into a session's queue.
fn push(message: &Arc<Message>, receiver: &Receiver, waker: Option<&Waker>) -> Pushed {
    let delivery = copy(message, receiver);
    match delivery.qos {
        Qos::AtMostOnce => receiver.session.inbox.push_lossy(delivery, receiver.epoch),
        _ => receiver.session.inbox.push_assured(delivery, receiver.epoch, waker),
    }
}

impl Pending {
    /// Hands a message over that needs no log.
    pub fn push(
        message: Arc<Message>,
        receivers: &[Receiver],
        patience: Duration,
        tally: &mut Tally,
    ) -> Routed {
        let mut waiting = VecDeque::new();
        let (first, others) = receivers.split_at(receivers.len().min(YIELD_AFTER));
        for receiver in first {
            match push(&message, receiver, None) {
                Pushed::Full => waiting.push_back(receiver.clone()),
                Pushed::Dropped => tally.dropped += 1,
                Pushed::Woke if receivers.len() == 1 => {
                    return Routed::Woke(receiver.session.clone());
                }
                Pushed::Queued | Pushed::Woke | Pushed::Skipped => {}
            }
        }
        waiting.extend(others.iter().cloned());
        if waiting.is_empty() {
            return Routed::Done;
        }
        let mut pending = Pending::new(message, waiting, None, Stage::Pushing);
        pending.deadline = Some(Box::pin(tokio::time::sleep(patience)));
        Routed::Pending(Box::new(pending))
    }

    /// Begins with a message that goes into the log, or that follows one that does (then `log`
    /// is `None`).
    pub fn reserve(
        message: Arc<Message>,
        receivers: &[Receiver],
        log: Option<Log>,
        patience: Duration,
        tally: &mut Tally,
    ) -> Box<Self> {
        let mut pending =
            Pending::new(message, receivers.iter().cloned().collect(), log, Stage::Reserving);
        if receivers.len() <= YIELD_AFTER {
            pending.reserve_waiting(None, false, tally);
            if pending.waiting.is_empty() {
                pending.write();
            }
        }
        if !pending.waiting.is_empty() {
            pending.deadline = Some(Box::pin(tokio::time::sleep(patience)));
        }
        Box::new(pending)
    }

    fn new(
        message: Arc<Message>,
        waiting: VecDeque<Receiver>,
        log: Option<Log>,
        stage: Stage,
    ) -> Self {
        let (deadline, again, reserved) = (None, None, VecDeque::new());
        Pending { message, stage, waiting, unasked: 0, again, deadline, reserved, log }
    }

    /// Whether it waits for room: what its publisher sends next has to wait as well.
    pub fn waits_for_room(&self) -> bool {
        matches!(self.stage, Stage::Pushing | Stage::Reserving)
    }

    /// What it holds, in bytes.
    pub fn cost(&self) -> usize {
        self.message.cost()
    }

    /// The same with all that it holds for its receivers now.
    pub fn held(&self) -> usize {
        let receivers = self.waiting.len() * size_of::<Receiver>()
            + self.reserved.len() * size_of::<(Receiver, Delivery)>();
        size_of::<Self>() + receivers + self.cost()
    }

    /// Whether nothing of it was promised or handed over, so that it can be given up.
    pub fn is_revocable(&self) -> bool {
        matches!(self.stage, Stage::Reserving)
    }

    /// Ready when every copy is queued or given up; an error where the log could not be written,
    /// and nobody gets it.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        tally: &mut Tally,
    ) -> Poll<Result<(), Unwritable>> {
        loop {
            match &mut self.stage {
                Stage::Pushing | Stage::Reserving => {
                    if self.poll_room(cx, tally).is_pending() {
                        return Poll::Pending;
                    }
                    if matches!(self.stage, Stage::Pushing) {
                        return Poll::Ready(Ok(()));
                    }
                    self.write();
                }
                Stage::Writing(ticket) => match ticket.poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => self.stage = Stage::Delivering,
                    Poll::Ready(Err(Unwritable)) => {
                        self.release();
                        return Poll::Ready(Err(Unwritable));
                    }
                },
                Stage::Delivering => {
                    for _ in 0..YIELD_AFTER {
                        let Some((receiver, delivery)) = self.reserved.pop_front() else {
                            return Poll::Ready(Ok(()));
                        };
                        let inbox = &receiver.session.inbox;
                        if delivery.qos == Qos::AtMostOnce {
                            count_pushed(inbox.push_lossy(delivery, receiver.epoch), tally);
                            continue;
                        }
                        let id = delivery.id;
                        if !inbox.push_reserved(delivery, receiver.epoch)
                            && let (Some(log), true) = (&self.log, id != 0)
                        {
                            // The log may have the new beginning of the session before this.
                            let session = receiver.session.key;
                            log.journal.append(Record::Done { session, delivery: id });
                        }
                    }
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Goes on reserving room, and no further: an earlier publish is still to be delivered.
    /// `true` where that has just been done.
    pub fn poll_reserving(&mut self, cx: &mut Context<'_>, tally: &mut Tally) -> bool {
        let reserving = matches!(self.stage, Stage::Reserving);
        if !reserving || self.poll_room(cx, tally).is_pending() {
            return false;
        }
        self.write();
        true
    }

    /// Ready when no receiver waits any more.
    fn poll_room(&mut self, cx: &mut Context<'_>, tally: &mut Tally) -> Poll<()> {
        if self.again.as_mut().is_some_and(|at| at.as_mut().poll(cx).is_ready()) {
            self.again = None;
        }
        let late = self.deadline.as_mut().is_some_and(|at| at.as_mut().poll(cx).is_ready());
        if matches!(self.stage, Stage::Reserving) {
            self.reserve_waiting(Some(cx), late, tally);
        } else {
            let message = self.message.clone();
            self.serve_waiting(cx, late, tally, |receiver, waker| push(&message, receiver, waker));
        }
        if self.waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn reserve_waiting(&mut self, cx: Option<&mut Context<'_>>, late: bool, tally: &mut Tally) {
        let message = self.message.clone();
        let mut reserved = std::mem::take(&mut self.reserved);
        let reserve = |receiver: &Receiver, waker: Option<&Waker>| {
            let delivery = copy(&message, receiver);
            let pushed = match delivery.qos {
                Qos::AtMostOnce => Pushed::Queued,
                _ => receiver.session.inbox.reserve(&delivery, receiver.epoch, waker),
            };
            if pushed == Pushed::Queued {
                reserved.push_back((receiver.clone(), delivery));
            }
            pushed
        };
        match cx {
            Some(cx) => self.serve_waiting(cx, late, tally, reserve),
            None => {
                let mut cx = Context::from_waker(Waker::noop());
                self.serve_waiting(&mut cx, late, tally, reserve);
            }
        }
        self.reserved = reserved;
    }

    /// Serves the receivers that wait, as many as one turn may, all of them in turn: one that has no
    /// room keeps nobody behind it from being asked.
    fn serve_waiting(
        &mut self,
        cx: &mut Context<'_>,
        late: bool,
        tally: &mut Tally,
        mut serve: impl FnMut(&Receiver, Option<&Waker>) -> Pushed,
    ) {
        let goes_on = self.unasked > 0;
        if !goes_on {
            self.unasked = self.waiting.len();
        }
        for _ in 0..self.unasked.min(YIELD_AFTER) {
            let Some(receiver) = self.waiting.pop_front() else { break };
            self.unasked -= 1;
            match serve(&receiver, Some(cx.waker())) {
                Pushed::Queued | Pushed::Woke | Pushed::Skipped => {}
                Pushed::Dropped => tally.dropped += 1,
                Pushed::Full if late => {
                    tally.dropped += 1;
                    tally.slow_clients += 1;
                    receiver.session.inbox.late(Kick {
                        end: SessionEnd::Kicked,
                        reason: reason::QUOTA_EXCEEDED,
                        text:
                            "the client reads too slowly: its queue was full (limits.publish_hold)"
                                .into(),
                    });
                }
                Pushed::Full => self.waiting.push_back(receiver),
            }
        }
        if self.unasked > 0 {
            cx.waker().wake_by_ref();
        } else if goes_on && !self.waiting.is_empty() {
            let mut again = Box::pin(tokio::time::sleep(ASKED_AGAIN));
            // Only then it wakes anybody.
            self.again = again.as_mut().poll(cx).is_pending().then_some(again);
        }
    }

    /// All room is reserved: the record, or where none is due, the delivery.
    fn write(&mut self) {
        self.stage = Stage::Delivering;
        if self.deadline.is_some() {
            // While it waited for others, some that have room may have ended or started clean.
            self.reserved.retain(|(receiver, delivery)| {
                delivery.qos == Qos::AtMostOnce || receiver.session.inbox.is_in(receiver.epoch)
            });
        }
        let Some(Log { journal, retained, received, instead }) = &self.log else { return };
        let lasts = |(receiver, delivery): &&mut (Receiver, Delivery)| {
            delivery.qos != Qos::AtMostOnce && receiver.session.is_durable()
        };
        let count = self.reserved.iter_mut().filter(lasts).count();
        let mut targets = Vec::with_capacity(count);
        let numbers = journal.deliveries(count)..;
        for (number, (receiver, delivery)) in numbers.zip(self.reserved.iter_mut().filter(lasts)) {
            delivery.id = number;
            targets.push(Target {
                session: receiver.session.key,
                delivery: number,
                qos: delivery.qos,
                retain: delivery.retain,
                subscriptions: delivery.subscriptions.clone(),
                share: delivery.share.clone(),
            });
        }
        let record = match (*received, *instead) {
            _ if *retained || count > 0 => Record::Publish(Box::new(Published {
                message: self.message.clone(),
                at: wall_seconds(),
                retained: *retained,
                received: *received,
                instead: *instead,
                targets,
            })),
            (Some((session, packet_id)), _) => Record::Received { session, packet_id },
            // Its new receiver does not last.
            (None, Some((session, delivery))) => Record::Done { session, delivery },
            // Those that it was for have gone while it waited.
            (None, None) => return,
        };
        self.stage = match journal.promise(record) {
            Ok(ticket) => Stage::Writing(ticket),
            Err(Unwritable) => Stage::Writing(Ticket::refused()),
        };
    }

    /// Gives all room back: nobody gets it. As its topic's retained message it was there from its
    /// beginning, and may have been sent as that, so the log has to know of it all the same.
    pub fn release(&mut self) {
        for (receiver, delivery) in self.reserved.drain(..) {
            if delivery.qos != Qos::AtMostOnce {
                receiver.session.inbox.release(&delivery, receiver.epoch);
            }
        }
        self.waiting.clear();
        if let Some(log) = self.log.take_if(|log| log.retained) {
            log.journal.append(retained_record(&self.message));
        }
    }

    /// Waits until it is done, for a publish without a connection.
    ///
    /// # Errors
    /// The log could not be written, and nobody gets it.
    pub async fn done(mut self: Box<Self>, totals: &Totals) -> Result<(), Unwritable> {
        let mut tally = Tally::default();
        let result = std::future::poll_fn(|cx| self.poll(cx, &mut tally)).await;
        tally.flush(totals);
        result
    }

    /// The same in a task of its own, for the broker's own messages.
    pub fn go_on(self: Box<Self>, totals: Arc<Totals>) {
        Self::go_on_in_order(vec![(self, None)], totals);
    }

    /// Several of those, one behind the other, for what nobody can be told of: wills, and what their
    /// publisher left behind. The task ends when they are done.
    pub fn go_on_in_order(
        all: Vec<(Box<Self>, Option<Share>)>,
        totals: Arc<Totals>,
    ) -> JoinHandle<()> {
        tokio::spawn(async move {
            for (pending, _share) in all {
                let topic = pending.message.topic.clone();
                if pending.done(&totals).await.is_err() {
                    Totals::count(&totals.dropped);
                    tracing::warn!(
                        topic = &*topic,
                        "a message was dropped: the broker's log cannot be written"
                    );
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
