//! What each packet of a client does.

use hook::{Origin, Protocol, Qos, Reason, ReasonKind, SessionEnd, SubscribeVerdict, Subscription};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    backlog::Owed,
    codec::{self, AckKind, CodecError, Frame},
    connection::{Connection, Ending},
    crowd::Wait,
    exchange::Routed,
    hooks::View,
    journal::{Record, Ticket},
    outbound::{Confirmation, Ended},
    packet::{
        Ack, Disconnect, Packet, Publish, RetainHandling, Subscribe, SubscribeFilter, Unsubscribe,
        reason,
    },
    submit::{Submission, Submitted},
    subscriptions::Held,
    topic::{check_filter, check_name},
    unsettled::{Answer, Step},
};

/// Aliases that an MQTT 5 client may set, each way of a connection.
pub(crate) const TOPIC_ALIAS_MAXIMUM: u16 = 32;
/// So many packets are handled before the outbox is looked at again.
const LOOK_EVERY: usize = 32;
/// The same for the clock.
const CLOCK_EVERY: usize = 8;
/// So many filters one SUBSCRIBE may have where a session may hold fewer, since some may repeat.
const FILTERS: usize = 64;
/// How long a connection goes on once the clock was looked at; then others have their turn.
const TURN: Duration = Duration::from_millis(2);

/// How far a batch of bytes was handled.
pub(crate) struct Used {
    pub consumed: usize,
    /// Whole packets are left, which must wait.
    pub waiting: bool,
}

impl From<CodecError> for Ending {
    fn from(error: CodecError) -> Self {
        Ending::protocol(error.reason, error.text)
    }
}

/// The MQTT 5 reason code of a refusal.
pub(crate) fn reason_code(kind: ReasonKind) -> u8 {
    match kind {
        ReasonKind::NotAuthorized => reason::NOT_AUTHORIZED,
        ReasonKind::BadUserNameOrPassword => reason::BAD_USER_NAME_OR_PASSWORD,
        ReasonKind::ClientIdentifierNotValid => reason::CLIENT_IDENTIFIER_NOT_VALID,
        ReasonKind::TopicNameInvalid => reason::TOPIC_NAME_INVALID,
        ReasonKind::PayloadFormatInvalid => reason::PAYLOAD_FORMAT_INVALID,
        ReasonKind::QuotaExceeded => reason::QUOTA_EXCEEDED,
        ReasonKind::ServerBusy => reason::SERVER_BUSY,
        ReasonKind::AdministrativeAction => reason::ADMINISTRATIVE_ACTION,
        ReasonKind::ImplementationSpecific => reason::IMPLEMENTATION_SPECIFIC_ERROR,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Handles all whole packets at the front of `bytes` that need not wait.
    pub(crate) fn packets(&mut self, bytes: &[u8]) -> Result<Used, Ending> {
        // [MQTT-3.2.2-15]
        let max = self.promised.packet_bytes;
        let mut consumed = 0;
        for count in 0.. {
            let rest = &bytes[consumed..];
            let Frame::Complete { len } = codec::frame(rest, max)? else {
                return Ok(Used { consumed, waiting: false });
            };
            // Acknowledgements and PINGREQ never wait: others may wait for them [MQTT-4.9.0-3].
            let may_wait = !matches!(rest[0] >> 4, 4..=7 | 12);
            let look = self.crowd.is_some() || self.unsettled.is_some() || count % LOOK_EVERY == 0;
            if may_wait && look && self.blocked() {
                return Ok(Used { consumed, waiting: true });
            }
            let packet = codec::decode(&rest[..len], self.client.protocol)?;
            self.packet(packet)?;
            consumed += len;
            // Filters may take long, and other packets in numbers.
            let look = count % CLOCK_EVERY == CLOCK_EVERY - 1 || matches!(rest[0] >> 4, 8 | 10);
            if look && self.turn_is_over(true) {
                return Ok(Used { consumed, waiting: consumed < bytes.len() });
            }
        }
        Ok(Used { consumed, waiting: false })
    }

    /// Whether others should run. The clock is started with the first look that may `begin` it, so
    /// that short turns never look.
    pub(crate) fn turn_is_over(&mut self, begin: bool) -> bool {
        if self.turn_ends.is_none() && !begin {
            return false;
        }
        let now = Instant::now();
        *self.turn_ends.get_or_insert(now + TURN) <= now
    }

    fn packet(&mut self, packet: Packet<'_>) -> Result<(), Ending> {
        match packet {
            Packet::Publish(publish) => self.on_publish(publish),
            Packet::PubAck(ack) => {
                let ended = self.state.window.puback(ack.packet_id);
                self.exchange_ended(ack.packet_id, ended);
                Ok(())
            }
            Packet::PubRec(ack) => {
                self.on_pubrec(ack);
                Ok(())
            }
            Packet::PubRel(ack) => {
                self.on_pubrel(ack);
                Ok(())
            }
            Packet::PubComp(ack) => {
                let ended = self.state.window.pubcomp(ack.packet_id);
                self.exchange_ended(ack.packet_id, ended);
                Ok(())
            }
            Packet::Subscribe(subscribe) => self.on_subscribe(*subscribe),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(*unsubscribe),
            Packet::PingReq => {
                // [MQTT-3.12.4-1]
                self.writer.encode(codec::pingresp);
                Ok(())
            }
            Packet::Disconnect(disconnect) => Err(self.on_disconnect(disconnect)),
            // [MQTT-3.1.0-2]
            Packet::Connect(_) => Err(Ending::protocol(reason::PROTOCOL_ERROR, "a second CONNECT")),
            // No authentication method was agreed on [MQTT-4.12.0-6], [MQTT-4.12.1-2].
            Packet::Auth => Err(Ending::protocol(reason::PROTOCOL_ERROR, "AUTH without a method")),
        }
    }

    /// An acknowledgement has come, and perhaps one that something waited for.
    fn exchange_ended(&mut self, packet_id: u16, ended: Option<Ended>) {
        if ended.is_some() {
            self.ended(ended);
            self.acknowledged(packet_id);
        }
    }

    /// An exchange has gone on, and the packet id is not sent again.
    fn acknowledged(&mut self, packet_id: u16) {
        self.resend.retain(|id| *id != packet_id);
        self.session.inflight.store(self.state.window.len(), Ordering::Relaxed);
    }

    /// Whether a packet asks for what is on its way: it is answered with that.
    fn has_step(&self, step: Step) -> bool {
        self.unsettled.as_ref().is_some_and(|unsettled| unsettled.has_step(step))
    }

    fn on_pubrec(&mut self, ack: Ack) {
        let step = Step::PubRel(ack.packet_id);
        if self.has_step(step) {
            return;
        }
        if ack.reason >= 0x80 {
            let ended = self.state.window.pubrec_refused(ack.packet_id);
            return self.exchange_ended(ack.packet_id, ended);
        }
        let confirmation = self.state.window.pubrec(ack.packet_id);
        if confirmation != Confirmation::Unknown {
            self.acknowledged(ack.packet_id);
        }
        match confirmation {
            Confirmation::Release => self.step(None, step),
            Confirmation::Log(delivery) => {
                let ticket = self.exchange.journal.as_ref().map(|journal| {
                    journal.require(Record::Confirmed { session: self.session.key, delivery })
                });
                self.step(ticket, step);
            }
            Confirmation::Unknown => {
                let code = reason::PACKET_IDENTIFIER_NOT_FOUND;
                self.encode_ack(AckKind::PubRel, ack.packet_id, code, None);
            }
        }
    }

    fn on_pubrel(&mut self, ack: Ack) {
        let packet_id = ack.packet_id;
        if !self.state.received.contains(&packet_id) {
            let code = reason::PACKET_IDENTIFIER_NOT_FOUND;
            return self.encode_ack(AckKind::PubComp, packet_id, code, None);
        }
        let step = Step::PubComp(packet_id);
        if self.has_step(step) {
            return;
        }
        // [MQTT-4.3.3-11], [MQTT-4.3.3-12]
        // Were the log not to know, a new publish under this id would be taken for the old one.
        let ticket =
            self.exchange.journal.as_ref().filter(|_| self.session.is_durable()).map(|journal| {
                journal.require(Record::Released { session: self.session.key, packet_id })
            });
        self.step(ticket, step);
    }

    fn on_disconnect(&mut self, disconnect: Disconnect) -> Ending {
        if let Some(seconds) = disconnect.session_expiry {
            if self.state.expiry == Some(Duration::ZERO) && seconds != 0 {
                // MQTT 5.0, 3.14.2.2.2
                return Ending::protocol(
                    reason::PROTOCOL_ERROR,
                    "a session that ends with its connection cannot be prolonged",
                );
            }
            self.state.expiry = match seconds {
                u32::MAX => None,
                seconds => Some(Duration::from_secs(seconds.into())),
            };
        }
        // [MQTT-3.14.4-3]: an orderly goodbye takes the will with it, but for reason 4.
        let will = disconnect.reason != reason::SUCCESS;
        Ending { end: SessionEnd::ClientLeft, tell: None, will }
    }

    fn on_publish(&mut self, publish: Publish<'_>) -> Result<(), Ending> {
        self.tally.publishes_received += 1;
        let aliased;
        let topic = match publish.alias {
            None => publish.topic,
            Some(alias) => {
                aliased = self.resolve_alias(alias, publish.topic)?;
                &*aliased
            }
        };
        if let Err(error) = check_name(topic) {
            return Err(Ending::protocol(reason::TOPIC_NAME_INVALID, error.to_string()));
        }
        // [MQTT-3.3.4-1], [MQTT-4.3.2-4], [MQTT-4.3.3-8]
        let ack = match publish.qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce => Some(AckKind::PubAck),
            Qos::ExactlyOnce => Some(AckKind::PubRec),
        };
        if publish.qos == Qos::ExactlyOnce {
            // A second copy of what was already taken [MQTT-4.3.3-10].
            if self.state.received.contains(&publish.packet_id) {
                if self.unsettled.as_ref().is_some_and(|u| u.has_publish(publish.packet_id)) {
                    // The first one is acknowledged when it is safe.
                    return Ok(());
                }
                self.encode_ack(AckKind::PubRec, publish.packet_id, reason::SUCCESS, None);
                return Ok(());
            }
            let limit = usize::from(self.promised.inflight);
            // [MQTT-3.3.4-7]
            if self.client.protocol == Protocol::V5 && self.state.received.len() >= limit {
                return Err(Ending::protocol(
                    reason::RECEIVE_MAXIMUM_EXCEEDED,
                    "more publishes in flight than the Receive Maximum",
                ));
            }
        }
        let lasts = self.exchange.journal.is_some() && self.session.is_durable();
        let submission = Submission {
            topic,
            payload: publish.payload,
            shared: None,
            qos: publish.qos,
            retain: publish.retain,
            origin: Origin::Live,
            properties: publish.properties,
            received: (lasts && publish.qos == Qos::ExactlyOnce)
                .then_some((self.session.key, publish.packet_id)),
            follows: self.unsettled.as_ref().is_some_and(|u| u.has_publishes()),
        };
        let mut view = View { client: &self.client, outbox: &self.outbox, slots: &mut self.slots };
        let submitted = self.exchange.submit(
            &mut view,
            &self.session,
            submission,
            &mut self.route,
            &mut self.tally,
        );
        let Some(kind) = ack else {
            if let Submitted::Routed(Routed::Crowded(whom)) = submitted {
                let patience = self.exchange.limits.publish_hold();
                self.crowd = Some(Wait::new(whom, patience));
            }
            if publish.retain {
                self.hold_for_log();
            }
            return Ok(());
        };
        match submitted {
            Submitted::Routed(Routed::Woke(receiver)) => {
                self.remember_received(publish.qos, publish.packet_id);
                self.encode_ack(kind, publish.packet_id, reason::SUCCESS, None);
                self.ahead = Some(receiver);
            }
            Submitted::Routed(Routed::Pending(pending)) => {
                self.remember_received(publish.qos, publish.packet_id);
                self.acknowledge_later(pending, kind, publish.packet_id);
            }
            Submitted::Routed(Routed::Unwritable) => {
                self.refuse_unwritable(kind, publish.packet_id)?;
            }
            // Only QoS 0 is ever told of a crowd; what is not retained comes as refused.
            Submitted::Routed(_) | Submitted::Consumed => {
                self.remember_received(publish.qos, publish.packet_id);
                self.encode_ack(kind, publish.packet_id, reason::SUCCESS, None);
            }
            Submitted::Refused(why) if self.client.protocol == Protocol::V5 => {
                // A PUBREC with an error ends the exchange [MQTT-4.3.3-9].
                self.encode_ack(kind, publish.packet_id, reason_code(why.kind), Some(&why.text));
            }
            // 3.1.1 has no way to refuse but to disconnect: it is acknowledged and dropped
            // [MQTT311-3.3.5-2].
            Submitted::Refused(_) => {
                self.remember_received(publish.qos, publish.packet_id);
                self.encode_ack(kind, publish.packet_id, reason::SUCCESS, None);
            }
        }
        Ok(())
    }

    /// At QoS 1 nothing is remembered: the next publish under the id is a new one [MQTT-4.3.2-5].
    fn remember_received(&mut self, qos: Qos, packet_id: u16) {
        if qos == Qos::ExactlyOnce {
            self.state.received.insert(packet_id);
        }
    }

    fn resolve_alias(&mut self, alias: u16, topic: &str) -> Result<Arc<str>, Ending> {
        if alias == 0 || alias > TOPIC_ALIAS_MAXIMUM {
            // [MQTT-3.3.2-8], [MQTT-3.3.2-9], [MQTT-3.2.2-17]
            return Err(Ending::protocol(
                reason::TOPIC_ALIAS_INVALID,
                "a topic alias is 1 to the Topic Alias Maximum",
            ));
        }
        // [MQTT-3.3.2-12]
        let aliases = &mut self.aliases.get_or_insert_default().0;
        if topic.is_empty() {
            return aliases.get(&alias).cloned().ok_or_else(|| {
                Ending::protocol(reason::PROTOCOL_ERROR, "the topic alias was never set")
            });
        }
        let topic: Arc<str> = topic.into();
        aliases.insert(alias, topic.clone());
        Ok(topic)
    }

    /// An answer that the client does not take cannot be given, nor left out [MQTT-3.1.2-24].
    fn check_answer(&self, codes: usize) -> Result<(), Ending> {
        if codec::answer_len(codes) <= self.client.maximum_packet_size as usize {
            return Ok(());
        }
        let text = "the acknowledgement would be larger than the Maximum Packet Size";
        Err(Ending::protocol(reason::PACKET_TOO_LARGE, text))
    }

    fn on_subscribe(&mut self, subscribe: Subscribe) -> Result<(), Ending> {
        let Subscribe { packet_id, identifier, filters } = subscribe;
        self.check_answer(filters.len())?;
        // What is more than a session may hold repeats itself, or is refused anyway.
        let held = self.session.subscriptions.lock().len();
        let most = self.exchange.limits.subscriptions().max(held).max(FILTERS);
        // One after the other, and one answer [MQTT-3.8.4-1], [MQTT-3.8.4-5], [MQTT-3.9.3-1].
        let mut codes = Vec::with_capacity(filters.len());
        for (at, options) in filters.into_iter().enumerate() {
            let granted = if at < most {
                self.subscribe(packet_id, options, identifier)
            } else {
                Err(reason::QUOTA_EXCEEDED)
            };
            // [MQTT-3.8.4-7]
            codes.push(granted.map_or_else(|code| code, |qos| qos as u8));
            self.tally.refused += u32::from(granted.is_err());
        }
        let granted = codes.iter().any(|code| *code < 0x80);
        let ticket = self.logged_before(granted);
        self.answer(ticket, Answer::SubAck { packet_id, codes });
        Ok(())
    }

    /// A ticket for all that this session has appended so far, where something was.
    fn logged_before(&self, something: bool) -> Option<Ticket> {
        let journal = self.exchange.journal.as_ref();
        journal.filter(|_| something && self.session.is_durable()).map(|journal| journal.barrier())
    }

    fn subscribe(
        &mut self,
        packet_id: u16,
        options: SubscribeFilter,
        identifier: Option<u32>,
    ) -> Result<Qos, u8> {
        let text: Arc<str> = options.filter.as_str().into();
        let filter = check_filter(&text).map_err(|_| reason::TOPIC_FILTER_INVALID)?;
        let refused = |why: Reason| reason_code(why.kind);
        self.exchange.hooks.authorize_subscribe(&self.client, &text).map_err(refused)?;
        let known = self.session.subscriptions.lock().get(&text).map(|held| held.consumed);
        if known.is_none()
            && self.session.subscriptions.lock().len() >= self.exchange.limits.subscriptions()
        {
            return Err(reason::QUOTA_EXCEEDED);
        }
        let qos = options.qos;
        let asked = Subscription { filter: options.filter.clone(), qos };
        let (exchange, mut view) = self.view();
        let consumed = match exchange.hooks.subscribe(&mut view, &asked) {
            SubscribeVerdict::Continue => false,
            SubscribeVerdict::Consume => true,
            SubscribeVerdict::Reject(why) => return Err(reason_code(why.kind)),
        };
        if known == Some(false) && consumed {
            self.exchange.index.remove(filter, self.session.key);
        }
        let handling = options.retain_handling;
        let held = Held::new(&options, identifier, consumed);
        self.log(|session| Record::Subscribe {
            session,
            filter: (*text).into(),
            held: held.clone(),
        });
        if !consumed {
            self.exchange.index.insert(filter, &text, held.entry(&self.session));
        }
        self.session.subscriptions.lock().insert(text.clone(), held);
        let wanted = match handling {
            // [MQTT-3.3.1-9], [MQTT-3.8.4-4]
            RetainHandling::Send => true,
            // [MQTT-3.3.1-10]
            RetainHandling::SendIfNew => known.is_none(),
            // [MQTT-3.3.1-11]
            RetainHandling::DoNotSend => false,
        };
        // Shared subscriptions get no retained messages (4.8.2).
        if wanted && !consumed && filter.share.is_none() {
            // Behind the index: what is published from now on comes as a live message. They are
            // sent with RETAIN set [MQTT311-3.3.1-8].
            let owed = Owed {
                filter: filter.levels.into(),
                qos,
                identifier,
                newest: self.exchange.retained.newest(),
                after: None,
            };
            self.owe(owed, known.is_none(), packet_id);
        }
        Ok(qos)
    }

    fn on_unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), Ending> {
        self.check_answer(unsubscribe.filters.len())?;
        // [MQTT-3.10.4-4], [MQTT-3.10.4-6], [MQTT-3.11.3-1]
        let codes: Vec<u8> =
            unsubscribe.filters.iter().map(|filter| self.unsubscribe(filter)).collect();
        let ticket = self.logged_before(codes.contains(&reason::SUCCESS));
        let packet_id = unsubscribe.packet_id;
        self.answer(ticket, Answer::UnsubAck { packet_id, codes });
        Ok(())
    }

    /// By its text [MQTT-3.10.4-1]; what is in the queue already is still delivered [MQTT-3.10.4-3].
    fn unsubscribe(&mut self, text: &str) -> u8 {
        let Ok(filter) = check_filter(text) else { return reason::TOPIC_FILTER_INVALID };
        let Some(held) = self.session.subscriptions.lock().remove(text) else {
            return reason::NO_SUBSCRIPTION_EXISTED;
        };
        if !held.consumed {
            self.exchange.index.remove(filter, self.session.key);
        }
        self.forget_owed(text);
        self.log(|session| Record::Unsubscribe { session, filter: text.into() });
        let (exchange, mut view) = self.view();
        exchange.hooks.unsubscribe(&mut view, text);
        reason::SUCCESS
    }
}
