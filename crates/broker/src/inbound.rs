//! What each packet of a client does; SUBSCRIBE and UNSUBSCRIBE are in [`crate::subscribe`].

use bytes::BytesMut;
use hook::{Origin, Protocol, Qos, ReasonKind, SessionEnd};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    codec::{self, AckKind, CodecError, Frame},
    connection::{Connection, Ending},
    crowd::Wait,
    exchange::Routed,
    hooks::View,
    journal::Record,
    outbound::{Confirmation, Ended},
    packet::{Ack, Disconnect, Packet, Publish, reason},
    submit::{Submission, Submitted},
    topic::check_name,
    unsettled::Step,
};

/// Aliases that an MQTT 5 client may set, each way of a connection.
pub(crate) const TOPIC_ALIAS_MAXIMUM: u16 = 32;
/// So many packets are handled before the outbox is looked at again.
const LOOK_EVERY: usize = 32;
/// The same for the clock.
const CLOCK_EVERY: usize = 8;
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
            // Acknowledgements and PINGREQ do not wait: others may wait for them [MQTT-4.9.0-3].
            // Those behind a packet that does are found by `overtake`.
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

    /// Handles the acknowledgements and PINGREQs of whole packets that have to wait, and takes them
    /// out of `bytes`, which begin with such a packet and were looked at before as far as `looked`.
    /// Returns how far they are looked at now. Else two clients that publish to each other, or one
    /// that publishes to itself, would each wait for what the other one has sent already.
    ///
    /// A PUBREL keeps its place: nobody but its client waits for it, and a PUBLISH with its packet
    /// id may stand before it. What is not as it should be is found when its turn comes, and behind
    /// a DISCONNECT nothing counts.
    pub(crate) fn overtake(
        &mut self,
        bytes: &mut BytesMut,
        looked: usize,
    ) -> Result<usize, Ending> {
        let (mut at, mut kept) = (looked, looked);
        while let Ok(Frame::Complete { len }) =
            codec::frame(&bytes[at..], self.promised.packet_bytes)
        {
            let kind = bytes[at] >> 4;
            if kind == 14 {
                break;
            }
            if matches!(kind, 4 | 5 | 7 | 12) {
                let decoded = codec::decode(&bytes[at..at + len], self.client.protocol);
                let Ok(packet) = decoded else { break };
                self.packet(packet)?;
            } else {
                bytes.copy_within(at..at + len, kept);
                kept += len;
            }
            at += len;
        }
        if kept < at {
            bytes.copy_within(at.., kept);
            bytes.truncate(bytes.len() - (at - kept));
        }
        Ok(kept)
    }

    /// What a DISCONNECT says that has come and was not handled, perhaps behind other packets.
    pub(crate) fn parting(&mut self) -> Option<Ending> {
        let (mut at, bytes) = (0, self.take_partial());
        while let Ok(Frame::Complete { len }) =
            codec::frame(&bytes[at..], self.promised.packet_bytes)
        {
            let packet = &bytes[at..at + len];
            if packet[0] >> 4 == 14 {
                return match codec::decode(packet, self.client.protocol) {
                    Ok(Packet::Disconnect(disconnect)) => Some(self.on_disconnect(disconnect)),
                    _ => None,
                };
            }
            at += len;
        }
        None
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
        // Nor is there one before its PUBREC: were it released now, the log would have that ahead of
        // the publish, and the packet id for ever.
        let is_under_way = self.unsettled.as_ref().is_some_and(|u| u.has_publish(packet_id));
        if is_under_way || !self.state.received.contains(&packet_id) {
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
            self.state.expiry = match seconds.min(self.exchange.limits.session_expiry()) {
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
            // Those of earlier connections do not count (MQTT 5.0, 4.9).
            let here = self.state.received.len().saturating_sub(self.received_before.len());
            if self.client.protocol == Protocol::V5 && here >= limit {
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
            self.settled += u32::from(matches!(submitted, Submitted::Routed(_)));
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
                self.settled += 1;
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
                self.settled += u32::from(matches!(submitted, Submitted::Routed(_)));
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
}
