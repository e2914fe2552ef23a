//! What a connection has begun and cannot finish before the log or other sessions let it.
//!
//! Four queues, each in the order of its packets: publishes that are not acknowledged yet,
//! steps of QoS 2 exchanges, answers to SUBSCRIBE and UNSUBSCRIBE, and QoS 2 messages whose packet
//! id is not in the log yet. Nothing waits behind publishes, since other sessions may wait for it,
//! nor behind QoS 2, which may have to wait for a full disk.

use hook::{Protocol, Qos, SessionEnd};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    codec::{self, AckKind},
    connection::{Connection, Ending},
    exchange::Exchange,
    journal::{MOST_WAITING, Record, Ticket, Unwritable},
    message::Delivery,
    outbound::{Ended, Resend},
    packet::{ConnAck, reason},
    pending::Pending,
    session::State,
};

/// Publishes and subscriptions of one connection that wait to be answered, in bytes, before it is
/// read on: also publishes that need not stand in the log, and only follow one that does.
const MOST_BYTES: usize = 1024 * 1024;

/// Why a publish was refused that needs the log.
pub(crate) const UNWRITABLE: &str = "the broker's log cannot be written";

/// The queues. Boxed in the connection, since most connections never have one.
#[derive(Default)]
pub(crate) struct Unsettled {
    greeting: Option<(Ticket, ConnAck)>,
    /// Each with when it was read.
    publishes: VecDeque<(Box<Pending>, AckKind, u16, Instant)>,
    /// What publishes and answers hold, in bytes.
    bytes: usize,
    steps: VecDeque<(Ticket, Step)>,
    /// The same, each once: a client that repeats itself is answered once.
    under_way: BTreeSet<Step>,
    answers: VecDeque<(Ticket, Answer)>,
    /// What was appended to the log before is to be written before more is.
    hold: Option<Ticket>,
    /// Packet ids that are taken, and whose messages have not been sent: the first one waits for
    /// the log, the others for it or behind it.
    staged: VecDeque<(Option<Ticket>, u16)>,
}

/// A packet of a QoS 2 exchange that says that something is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// The client's PUBREC is.
    PubRel(u16),
    /// The client's PUBREL is. Also for a message that had expired [MQTT-4.3.3-13].
    PubComp(u16),
}

/// An answer that says that something is in the log.
pub(crate) enum Answer {
    /// SUBACK: the subscriptions are. Then their retained messages follow. Those that were `new` are
    /// taken back where they are not.
    SubAck { packet_id: u16, codes: Vec<u8>, new: Vec<Arc<str>> },
    /// UNSUBACK.
    UnsubAck { packet_id: u16, codes: Vec<u8> },
}

impl Answer {
    /// What it holds, in bytes.
    fn cost(&self) -> usize {
        match self {
            Answer::SubAck { codes, new, .. } => codes.len() + size_of_val(&**new),
            Answer::UnsubAck { codes, .. } => codes.len(),
        }
    }
}

impl Unsettled {
    fn is_empty(&self) -> bool {
        self.greeting.is_none()
            && self.publishes.is_empty()
            && self.steps.is_empty()
            && self.answers.is_empty()
            && self.staged.is_empty()
            && self.hold.is_none()
    }

    /// Whether the client's next publish may not be looked at yet; `behind` says that too much
    /// waits for the log.
    pub fn blocks_publishes(&self, behind: bool) -> bool {
        let waiting = self.publishes.len().max(self.answers.len());
        waiting >= if behind { 1 } else { MOST_WAITING }
            || self.bytes >= MOST_BYTES
            || self.hold.is_some()
            || self.publishes.back().is_some_and(|(pending, ..)| pending.waits_for_room())
    }

    /// Whether an answer to a SUBSCRIBE or UNSUBSCRIBE is still to come.
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether the client was told nothing yet of a step that it has asked for.
    pub fn has_step(&self, step: Step) -> bool {
        self.under_way.contains(&step)
    }

    /// Whether a publish with this packet id is on its way.
    pub fn has_publish(&self, id: u16) -> bool {
        self.publishes
            .iter()
            .any(|(_, kind, waiting, _)| *kind == AckKind::PubRec && *waiting == id)
    }

    /// Whether publishes are on their way.
    pub fn has_publishes(&self) -> bool {
        !self.publishes.is_empty()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn unsettled(&mut self) -> &mut Unsettled {
        self.unsettled.get_or_insert_default()
    }

    /// Writes a record that is of this session, where it stands in the log.
    pub(crate) fn log(&self, record: impl FnOnce(u64) -> Record) {
        if let Some(journal) = &self.exchange.journal
            && self.session.is_durable()
        {
            journal.append(record(self.session.key));
        }
    }

    /// A delivery is over.
    pub(crate) fn delivery_over(&self, delivery: u64) {
        if delivery != 0 {
            self.log(|session| Record::Done { session, delivery });
        }
    }

    /// The same by what the window knew of it.
    pub(crate) fn ended(&self, ended: Option<Ended>) {
        if let Some(Ended(delivery)) = ended {
            self.delivery_over(delivery);
        }
    }

    /// What the client learns when `ticket`'s record is written; without one, now.
    pub(crate) fn answer(&mut self, ticket: Option<Ticket>, answer: Answer) {
        match ticket {
            Some(ticket) => {
                let unsettled = self.unsettled();
                unsettled.bytes += answer.cost();
                unsettled.answers.push_back((ticket, answer));
            }
            None => self.give(answer),
        }
    }

    /// The same for a QoS 2 exchange.
    pub(crate) fn step(&mut self, ticket: Option<Ticket>, step: Step) {
        let Some(ticket) = ticket else { return self.take_step(step) };
        let unsettled = self.unsettled();
        unsettled.steps.push_back((ticket, step));
        unsettled.under_way.insert(step);
    }

    fn take_step(&mut self, step: Step) {
        match step {
            // [MQTT-4.3.3-4]
            Step::PubRel(id) => {
                self.state.window.confirmed(id);
                self.encode_ack(AckKind::PubRel, id, reason::SUCCESS, None);
            }
            Step::PubComp(id) => {
                self.state.received.remove(&id);
                self.received_before.remove(&id);
                self.encode_ack(AckKind::PubComp, id, reason::SUCCESS, None);
            }
        }
    }

    /// Something was appended that nobody waits for. While too much waits for the log, the client
    /// does.
    pub(crate) fn hold_for_log(&mut self) {
        if let Some(journal) = self.exchange.journal.as_ref().filter(|log| log.is_behind()) {
            let ticket = journal.barrier();
            self.unsettled().hold = Some(ticket);
        }
    }

    fn give(&mut self, answer: Answer) {
        let protocol = self.client.protocol;
        match answer {
            Answer::SubAck { packet_id, codes, .. } => {
                self.writer.encode(|out| codec::suback(out, protocol, packet_id, &codes));
                if let Some(backlog) = &mut self.backlog {
                    backlog.acknowledged(packet_id);
                }
            }
            Answer::UnsubAck { packet_id, codes } => {
                self.writer.encode(|out| codec::unsuback(out, protocol, packet_id, &codes));
            }
        }
    }

    /// The CONNACK, ahead of everything; with a ticket, when its record is written.
    pub(crate) fn greet(&mut self, ticket: Option<Ticket>, ack: ConnAck) {
        match ticket {
            Some(ticket) => self.unsettled().greeting = Some((ticket, ack)),
            None => self.send_connack(&ack),
        }
    }

    /// Whether the CONNACK has gone, or goes now. Where the log could not be written, what began is
    /// over without one: the next CONNECT of this client is refused with the reason.
    pub(crate) fn poll_greeting(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let Some(unsettled) = &mut self.unsettled else { return Ok(true) };
        let Some((mut ticket, ack)) = unsettled.greeting.take() else { return Ok(true) };
        match ticket.poll(cx) {
            Poll::Pending => {
                unsettled.greeting = Some((ticket, ack));
                return Ok(false);
            }
            Poll::Ready(Err(Unwritable)) if !ack.session_present => {
                self.state.expiry = Some(Duration::ZERO);
                return Err(Ending { end: SessionEnd::Kicked, tell: None, will: false });
            }
            Poll::Ready(_) => {}
        }
        self.send_connack(&ack);
        Ok(true)
    }

    /// Whether the CONNACK is still to come.
    pub(crate) fn is_greeting(&self) -> bool {
        self.unsettled.as_ref().is_some_and(|unsettled| unsettled.greeting.is_some())
    }

    /// A publish whose acknowledgement waits.
    pub(crate) fn acknowledge_later(&mut self, pending: Box<Pending>, kind: AckKind, id: u16) {
        let arrived = self.arrived;
        let unsettled = self.unsettled();
        unsettled.bytes += pending.cost();
        unsettled.publishes.push_back((pending, kind, id, arrived));
    }

    /// Whether a delivery that has its packet id is not to be sent yet. At QoS 2 the client tells
    /// a copy from a new message by that id alone, so it goes to the log first; what comes behind
    /// it keeps its place.
    pub(crate) fn stage(&mut self, delivery: &Delivery, packet_id: u16) -> bool {
        let staged = self.unsettled.as_ref().is_some_and(|unsettled| !unsettled.staged.is_empty());
        let journal = self.exchange.journal.as_ref();
        let logged = delivery.id != 0 && delivery.qos == Qos::ExactlyOnce;
        let ticket = journal.filter(|_| logged).map(|journal| {
            let (session, delivery) = (self.session.key, delivery.id);
            journal.require(Record::Sent { session, delivery, packet_id })
        });
        let later = staged || ticket.is_some();
        if later {
            self.unsettled().staged.push_back((ticket, packet_id));
        }
        later
    }

    /// Finishes what can be finished.
    pub(crate) fn poll_unsettled(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        let Some(mut unsettled) = self.unsettled.take() else { return Ok(()) };
        let result = self.settle(&mut unsettled, cx);
        if !unsettled.is_empty() {
            self.unsettled = Some(unsettled);
        }
        result
    }

    fn settle(&mut self, unsettled: &mut Unsettled, cx: &mut Context<'_>) -> Result<(), Ending> {
        while let Some((ticket, _)) = unsettled.steps.front_mut()
            && ticket.poll(cx).is_ready()
        {
            if let Some((_, step)) = unsettled.steps.pop_front() {
                unsettled.under_way.remove(&step);
                self.take_step(step);
            }
        }
        while let Some((ticket, _)) = unsettled.answers.front_mut()
            && let Poll::Ready(written) = ticket.poll(cx)
        {
            let Some((_, answer)) = unsettled.answers.pop_front() else { break };
            unsettled.bytes -= answer.cost();
            match (answer, written) {
                (answer, Ok(())) => self.give(answer),
                (Answer::SubAck { packet_id, codes, new }, Err(Unwritable)) => {
                    self.take_back(packet_id, codes, &new);
                }
                // The log is gone.
                (Answer::UnsubAck { .. }, Err(Unwritable)) => {}
            }
            self.look_at_what_waited();
        }
        if unsettled.hold.as_mut().is_some_and(|ticket| ticket.poll(cx).is_ready()) {
            unsettled.hold = None;
            self.look_at_what_waited();
        }
        while let Some((ticket, _)) = unsettled.staged.front_mut()
            && ticket.as_mut().is_none_or(|ticket| ticket.poll(cx).is_ready())
        {
            if let Some((_, id)) = unsettled.staged.pop_front()
                && let Some(Resend::Publish(delivery)) = self.state.window.resend(id)
            {
                self.encode_delivery(&delivery, id, false);
            }
        }
        while let Some((pending, ..)) = unsettled.publishes.front_mut()
            && let Poll::Ready(result) = pending.poll(cx, &mut self.tally)
        {
            let Some((pending, kind, id, arrived)) = unsettled.publishes.pop_front() else { break };
            unsettled.bytes -= pending.cost();
            match result {
                Ok(()) => {
                    self.encode_ack(kind, id, reason::SUCCESS, None);
                    self.exchange.totals.publish_time.observe(arrived.elapsed());
                }
                Err(Unwritable) => self.refuse_unwritable(kind, id)?,
            }
            // What waited behind it may go on.
            self.look_at_what_waited();
        }
        // The last one may wait for room while the first waits for the log.
        if unsettled.publishes.len() > 1
            && let Some((last, ..)) = unsettled.publishes.back_mut()
            && last.poll_reserving(cx, &mut self.tally)
        {
            self.look_at_what_waited();
        }
        Ok(())
    }

    /// A publish that the log should have, and has not. 3.1.1 has no way to say so but to leave
    /// it unacknowledged and to disconnect [MQTT311-4.8.0-2]: the client sends it again when it is
    /// back [MQTT-4.4.0-1].
    pub(crate) fn refuse_unwritable(&mut self, kind: AckKind, id: u16) -> Result<(), Ending> {
        self.state.received.remove(&id);
        self.tally.refused += 1;
        if self.client.protocol == Protocol::V5 {
            self.encode_ack(kind, id, reason::QUOTA_EXCEEDED, Some(UNWRITABLE));
            return Ok(());
        }
        Err(Ending {
            end: SessionEnd::Kicked,
            tell: Some((reason::QUOTA_EXCEEDED, UNWRITABLE.into())),
            will: true,
        })
    }

    /// Messages that were taken into the window and never left, to wait with the others again.
    pub(crate) fn take_back_staged(&mut self) -> VecDeque<Delivery> {
        let Some(unsettled) = &mut self.unsettled else { return VecDeque::new() };
        let staged = std::mem::take(&mut unsettled.staged);
        staged.into_iter().filter_map(|(_, id)| self.state.window.take_back(id)).collect()
    }
}

impl Unsettled {
    /// The connection has ended. What its client was not told is finished all the same, so that
    /// the next connection finds what the log says, each QoS in its order [MQTT-4.6.0-6].
    pub async fn finish(self: Box<Self>, state: &mut State, exchange: &Exchange) {
        let (assured, exact): (Vec<_>, Vec<_>) =
            self.publishes.into_iter().partition(|(_, kind, ..)| *kind == AckKind::PubAck);
        let later = exchange.finish_later(assured.into_iter().map(|(pending, ..)| pending));
        state.behind.has_left |= later.is_some();
        for (mut pending, _, id, _) in exact {
            if pending.is_revocable() {
                // Nobody was told and nothing was handed over: the client sends it again.
                pending.release();
                state.received.remove(&id);
            } else if pending.done(&exchange.totals).await.is_err() {
                state.received.remove(&id);
            }
        }
    }
}
