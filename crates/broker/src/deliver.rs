//! What goes to the client: which message is next, and in which form.

use hook::{Class, Outgoing, Qos};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    backlog::Next,
    codec::{self, AckKind, PublishHead},
    connection::Connection,
    journal::Record,
    message::Delivery,
    outbound::{Content, Resend},
    packet::reason,
};

/// Ordinary messages in one write, in bytes: as many as there are go together up to this, so that
/// small ones share a system call, and the others stay in the session's queue, which is bounded,
/// until the socket has taken these. Answers and control messages wait behind no more.
const WRITE_BYTES: u64 = 64 * 1024;
/// Blocks in one write: nothing else waits behind more.
const WRITE_BLOCKS: usize = 16;
/// Topic aliases that the broker sets for one client, even where that would take more.
const SENT_ALIASES: u16 = 32;
/// What a packet with a reason string has beside it, at most, in bytes.
const REASON_OVERHEAD: usize = 16;

/// Where a delivery waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// In the session's queue, where its place is given back.
    Queue,
    /// In the backlog with this number in the log, 0 being none.
    Backlog(u64),
}

/// The topic aliases that the broker has set on a connection, first come, first served.
#[derive(Debug)]
pub(crate) struct SentAliases {
    most: u16,
    by_topic: HashMap<Arc<str>, u16>,
}

impl SentAliases {
    /// `None` where the client takes none [MQTT-3.1.2-27]; `maximum` is its Topic Alias Maximum.
    pub fn new(maximum: u16) -> Option<Box<Self>> {
        let most = maximum.min(SENT_ALIASES);
        (most > 0).then(|| Box::new(SentAliases { most, by_topic: HashMap::new() }))
    }

    /// Puts the alias in the place of a topic that has one.
    fn shorten(&self, head: &mut PublishHead<'_>) -> bool {
        let Some(alias) = self.by_topic.get(head.topic) else { return false };
        head.alias = Some(*alias);
        head.topic = "";
        true
    }

    /// The next alias, where there is one left [MQTT-3.1.2-26], [MQTT-3.3.2-11].
    fn next(&self) -> Option<u16> {
        let used = self.by_topic.len() as u16;
        (used < self.most).then_some(used + 1)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Whether one more publish may be in flight [MQTT-3.3.4-9], [MQTT-4.9.0-2]. Nothing but a PUBLISH waits for
    /// that [MQTT-3.3.4-10].
    fn has_room(&self) -> bool {
        self.state.window.len().saturating_sub(self.resend.len()) < self.window
    }

    /// Moves what waits into the writer, in the order of its importance: what the session's last
    /// connection left unacknowledged [MQTT-4.4.0-1], control, ordinary publishes, retained ones,
    /// and blocks only where nothing else waits. `true` where there is more to look for at once,
    /// after others had their turn.
    ///
    /// No kind of message starves another: each has a part of a write, and what one leaves is for
    /// all. A stream of QoS 0 has no other bound; QoS 1 and 2 are bounded by the window as well.
    pub(crate) fn fill(&mut self) -> bool {
        let start = self.writer.len();
        while let Some(&id) = self.resend.front()
            && (self.has_room() || self.state.window.is_released(id))
        {
            self.resend.pop_front();
            self.send_again(id);
        }
        while let Some(message) = self.pop_outgoing(Class::Control) {
            self.send_outgoing(message);
        }
        let end = start + WRITE_BYTES;
        self.fill_assured(start + WRITE_BYTES / 2);
        self.fill_lossy(start + WRITE_BYTES / 4 * 3);
        let more = self.fill_from_backlog(end);
        self.fill_lossy(end);
        self.fill_assured(end);
        if self.writer.len() >= end {
            return more;
        }
        for _ in 0..WRITE_BLOCKS {
            let Some(block) = self.pop_outgoing(Class::Block) else { break };
            self.send_outgoing(block);
        }
        more
    }

    /// QoS 1 and 2, until so much is in the writer.
    fn fill_assured(&mut self, end: u64) {
        while self.writer.len() < end
            && self.has_room()
            && let Some(delivery) = self.taken.assured.pop_front()
        {
            self.send_delivery(delivery, Source::Queue);
        }
    }

    /// QoS 0.
    fn fill_lossy(&mut self, end: u64) {
        while self.writer.len() < end
            && let Some(delivery) = self.taken.lossy.pop_front()
        {
            self.send_delivery(delivery, Source::Queue);
        }
    }

    /// Retained messages.
    fn fill_from_backlog(&mut self, end: u64) -> bool {
        let Some(mut backlog) = self.backlog.take() else { return false };
        let mut more = false;
        while self.writer.len() < end {
            match backlog.next(&self.exchange.retained, self.has_room()) {
                Next::Send(delivery, number) => {
                    self.send_delivery(delivery, Source::Backlog(number));
                }
                Next::Served(backlog) => self.log(|session| Record::Served { session, backlog }),
                Next::Later => {
                    more = true;
                    break;
                }
                Next::Nothing => break,
            }
        }
        self.backlog = Some(backlog).filter(|backlog| !backlog.is_over());
        more
    }

    /// The next message of a plugin that may go now.
    fn pop_outgoing(&mut self, class: Class) -> Option<Outgoing> {
        let room = self.has_room();
        let queue = match class {
            Class::Control => &mut self.taken.control,
            Class::Block => &mut self.taken.blocks,
        };
        queue.pop_front_if(|message| message.qos == Qos::AtMostOnce || room)
    }

    /// With DUP [MQTT-3.3.1-1], also where it has expired [MQTT-4.3.3-7]. What is sent for the first
    /// time has none, whatever its publisher sent [MQTT-3.3.1-3], [MQTT-4.3.1-1], [MQTT-4.3.2-2],
    /// [MQTT-4.3.3-2].
    fn send_again(&mut self, id: u16) {
        match self.state.window.resend(id) {
            Some(Resend::Publish(delivery)) if self.fits(&delivery) => {
                self.encode_delivery(&delivery, id, true);
            }
            // This connection takes smaller packets than the last one [MQTT-3.1.2-25].
            Some(Resend::Publish(_)) => {
                self.tally.dropped += 1;
                let ended = self.state.window.forget(id);
                self.ended(ended);
            }
            Some(Resend::Release) => self.encode_ack(AckKind::PubRel, id, reason::SUCCESS, None),
            None => {}
        }
    }

    fn send_delivery(&mut self, mut delivery: Delivery, from: Source) {
        let counted = from == Source::Queue;
        if counted {
            self.done.count(&delivery);
        }
        if delivery.message.expired() {
            self.tally.dropped += 1;
            return self.delivery_over(delivery.id);
        }
        if counted && self.is_covered_by_retained(&delivery) {
            return self.delivery_over(delivery.id);
        }
        if !self.fits(&delivery) {
            // [MQTT-3.1.2-25]: as if it had been sent.
            self.tally.dropped += 1;
            return self.delivery_over(delivery.id);
        }
        self.tally.deliveries += 1;
        if delivery.qos == Qos::AtMostOnce {
            self.encode_delivery(&delivery, 0, false);
        } else {
            if let Source::Backlog(number) = from {
                self.log_served(&mut delivery, number);
            }
            let id = self.state.window.send(Content::Delivery(delivery.clone()), delivery.qos);
            self.session.inflight.store(self.state.window.len(), Ordering::Relaxed);
            if !self.stage(&delivery, id) {
                self.encode_delivery(&delivery, id, false);
            }
        }
    }

    /// A live copy of a publish that is, or will be, sent as the retained message.
    fn is_covered_by_retained(&mut self, delivery: &Delivery) -> bool {
        let Some(backlog) = &mut self.backlog else { return false };
        !backlog.lets_pass(delivery, &self.exchange.retained)
    }

    fn head<'a>(delivery: &'a Delivery, packet_id: u16, dup: bool) -> PublishHead<'a> {
        PublishHead {
            dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: &delivery.message.topic,
            packet_id,
            alias: None,
            properties: delivery.message.properties.as_deref(),
            expiry_left: delivery.message.seconds_left(),
            // [MQTT-3.3.4-4], [MQTT-3.3.4-5]
            subscriptions: delivery.subscriptions.as_deref().unwrap_or_default(),
            payload_len: delivery.message.payload.len(),
        }
    }

    /// Whether the client takes a packet of this size [MQTT-3.1.2-24], by its topic or an alias:
    /// either may be the shorter one.
    fn fits(&self, delivery: &Delivery) -> bool {
        let mut head = Self::head(delivery, 1, false);
        let aliases = self.sent_aliases.as_ref();
        self.takes(&head)
            || aliases.is_some_and(|aliases| aliases.shorten(&mut head) && self.takes(&head))
    }

    fn takes(&self, head: &PublishHead<'_>) -> bool {
        let most = self.client.maximum_packet_size;
        most == u32::MAX || codec::publish_len(self.client.protocol, head) <= most as usize
    }

    pub(crate) fn encode_delivery(&mut self, delivery: &Delivery, packet_id: u16, dup: bool) {
        let protocol = self.client.protocol;
        let plain = Self::head(delivery, packet_id, dup);
        let mut head = plain;
        if let Some(aliases) = &self.sent_aliases {
            if !aliases.shorten(&mut head) {
                head.alias = aliases.next();
            }
            if head.alias.is_some() && !self.takes(&head) {
                head = plain;
            }
        }
        if let (Some(alias), Some(aliases)) = (head.alias, &mut self.sent_aliases)
            && !head.topic.is_empty()
        {
            aliases.by_topic.insert(delivery.message.topic.clone(), alias);
        }
        self.writer.encode(|out| codec::publish_head(out, protocol, &head));
        self.writer.payload(&delivery.message.payload);
    }

    fn send_outgoing(&mut self, message: Outgoing) {
        self.done.outbox_messages += 1;
        self.done.outbox_bytes += message.payload.len();
        self.done.blocks += usize::from(message.class == Class::Block);
        self.tally.outbox_messages += 1;
        let qos = outgoing_qos(&message);
        let packet_id = match qos {
            Qos::AtMostOnce => 0,
            _ => {
                let id = self.state.window.send(Content::Plugin, qos);
                self.session.inflight.store(self.state.window.len(), Ordering::Relaxed);
                id
            }
        };
        let head = outgoing_head(&message, packet_id);
        let protocol = self.client.protocol;
        self.writer.encode(|out| codec::publish_head(out, protocol, &head));
        self.writer.plugin_payload(&message.payload);
        if let Some((receipt, tag)) = message.receipt {
            self.writer.receipt(receipt, tag);
        }
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP, ahead of all messages. A client that wants no problem
    /// information gets no text [MQTT-3.1.2-29].
    pub(crate) fn encode_ack(&mut self, kind: AckKind, id: u16, reason: u8, text: Option<&str>) {
        let protocol = self.client.protocol;
        let text = text.filter(|text| {
            self.problem_information && text_fits(text, self.client.maximum_packet_size)
        });
        self.writer.encode(|out| codec::ack(out, protocol, kind, id, reason, text));
    }
}

/// At most QoS 1: see `Window::connection_ended`.
fn outgoing_qos(message: &Outgoing) -> Qos {
    message.qos.min(Qos::AtLeastOnce)
}

/// The head of a plugin's message; `packet_id` counts at QoS 1 only.
pub(crate) fn outgoing_head(message: &Outgoing, packet_id: u16) -> PublishHead<'_> {
    PublishHead {
        dup: false,
        qos: outgoing_qos(message),
        retain: false,
        topic: &message.topic,
        packet_id,
        alias: None,
        properties: message.properties.as_deref(),
        expiry_left: None,
        subscriptions: &[],
        payload_len: message.payload.len(),
    }
}

/// Whether a reason string leaves its packet below the client's Maximum Packet Size
/// [MQTT-3.2.2-19], [MQTT-3.4.2-2], [MQTT-3.5.2-2], [MQTT-3.14.2-3]. PUBREL and PUBCOMP have none
/// [MQTT-3.6.2-2], [MQTT-3.7.2-2].
pub(crate) fn text_fits(text: &str, maximum_packet_size: u32) -> bool {
    text.len().saturating_add(REASON_OVERHEAD) <= maximum_packet_size as usize
}

#[cfg(test)]
mod tests;
