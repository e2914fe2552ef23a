//! The packets of the server.
//!
//! Nothing here fails or panics: sizes are bounded by what was decoded or by the settings, and a
//! text or binary that its field cannot hold is cut to 65,535 bytes, so that a frame stays whole.

use bytes::BytesMut;
use hook::{Properties, Protocol, Qos};

use super::{
    properties::id,
    reasons::{self, fitting},
    write::{Sink, block, length, packet},
};
use crate::packet::{ConnAck, reason};

/// Which acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind {
    /// 3.4
    PubAck,
    /// 3.5
    PubRec,
    /// 3.6
    PubRel,
    /// 3.7
    PubComp,
}

/// A PUBLISH up to its payload.
#[derive(Clone, Copy, Debug)]
pub struct PublishHead<'a> {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: Qos,
    /// RETAIN.
    pub retain: bool,
    /// The topic name, at most 65,535 bytes; empty where `alias` stands for it.
    pub topic: &'a str,
    /// Packet Identifier; not written at QoS 0.
    pub packet_id: u16,
    /// Topic Alias, MQTT 5 only.
    pub alias: Option<u16>,
    /// The properties that travel with the message; left out for 3.1.1.
    pub properties: Option<&'a Properties>,
    /// Seconds left of the Message Expiry Interval [MQTT-3.3.2-6]; `None` leaves the publisher's.
    pub expiry_left: Option<u32>,
    /// Subscription identifiers that matched; left out for 3.1.1.
    pub subscriptions: &'a [u32],
    /// Bytes of the payload that follows; the whole packet stays below 256 MB.
    pub payload_len: usize,
}

/// PUBLISH, up to the payload, which the caller writes behind it.
pub fn publish_head(out: &mut BytesMut, protocol: Protocol, head: &PublishHead<'_>) {
    let block = publish_block(protocol, head);
    let fields = length(|sink| publish_fields(sink, head, block));
    let rest = block.unwrap_or(0);
    out.reserve(5 + fields + rest);
    out.byte(0x30 | u8::from(head.dup) << 3 | (head.qos as u8) << 1 | u8::from(head.retain));
    out.variable(fields + rest + head.payload_len);
    publish_fields(out, head, block);
    if block.is_some() {
        publish_properties(out, head);
    }
}

/// Bytes of the whole PUBLISH on the wire, payload included: what a receiver's Maximum Packet
/// Size is compared with.
pub fn publish_len(protocol: Protocol, head: &PublishHead<'_>) -> usize {
    let block = publish_block(protocol, head);
    let fields = length(|sink| publish_fields(sink, head, block));
    let remaining = fields + block.unwrap_or(0) + head.payload_len;
    1 + length(|sink| sink.variable(remaining)) + remaining
}

/// Bytes of the properties of a PUBLISH; `None` where the version has none.
fn publish_block(protocol: Protocol, head: &PublishHead<'_>) -> Option<usize> {
    (protocol == Protocol::V5).then(|| length(|sink| publish_properties(sink, head)))
}

/// What stands between the fixed header and the properties, their length included.
fn publish_fields(sink: &mut impl Sink, head: &PublishHead<'_>, block: Option<usize>) {
    sink.text(head.topic);
    // [MQTT-2.2.1-2]
    if head.qos != Qos::AtMostOnce {
        sink.u16(head.packet_id);
    }
    if let Some(len) = block {
        sink.variable(len);
    }
}

fn publish_properties(sink: &mut impl Sink, head: &PublishHead<'_>) {
    if let Some(alias) = head.alias {
        sink.byte(id::TOPIC_ALIAS);
        sink.u16(alias);
    }
    let expiry = head.properties.and_then(|properties| properties.expiry_seconds);
    if let Some(seconds) = head.expiry_left.or(expiry) {
        sink.byte(id::MESSAGE_EXPIRY);
        sink.u32(seconds);
    }
    if let Some(properties) = head.properties {
        message_properties(sink, properties);
    }
    // Last: rumqttc 0.25 counts a byte too many for each, and would lose what follows.
    for identifier in head.subscriptions {
        sink.byte(id::SUBSCRIPTION_IDENTIFIER);
        sink.variable(*identifier as usize);
    }
}

/// The properties that travel with a message, but for its expiry: unaltered and in order
/// [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18],
/// [MQTT-3.3.2-20], [MQTT-3.1.3-10].
fn message_properties(sink: &mut impl Sink, properties: &Properties) {
    if let Some(utf8) = properties.payload_is_utf8 {
        sink.byte(id::PAYLOAD_FORMAT);
        sink.byte(u8::from(utf8));
    }
    if let Some(text) = &properties.content_type {
        sink.byte(id::CONTENT_TYPE);
        sink.text(text);
    }
    if let Some(topic) = &properties.response_topic {
        sink.byte(id::RESPONSE_TOPIC);
        sink.text(topic);
    }
    if let Some(data) = &properties.correlation_data {
        sink.byte(id::CORRELATION_DATA);
        sink.binary(data);
    }
    for (name, value) in &properties.user_properties {
        sink.byte(id::USER_PROPERTY);
        sink.text(name);
        sink.text(value);
    }
}

/// CONNACK.
pub fn connack(out: &mut BytesMut, protocol: Protocol, ack: &ConnAck) {
    // [MQTT-3.2.2-1], [MQTT-3.2.2-6]: one bit, and no session where the connection is refused.
    let present = u8::from(ack.session_present && ack.reason == reason::SUCCESS);
    if protocol == Protocol::V311 {
        out.push(&[0x20, 2, present, return_code(ack.reason)]);
        return;
    }
    packet(out, 0x20, |body| {
        body.byte(present);
        // [MQTT-3.2.2-8]
        body.byte(fitting(ack.reason, reasons::is_connack));
        block(body, |properties| connack_properties(properties, ack));
    });
}

/// No response information is there to be returned [MQTT-3.1.2-28], no user property to be too
/// large [MQTT-3.2.2-20], no authentication to be named.
fn connack_properties(sink: &mut dyn Sink, ack: &ConnAck) {
    reason_string(sink, ack.reason_string.as_deref());
    if ack.reason != reason::SUCCESS {
        return;
    }
    if let Some(client_id) = &ack.assigned_client_id {
        sink.byte(id::ASSIGNED_CLIENT_IDENTIFIER);
        sink.text(client_id);
    }
    // 0 is forbidden for the first two [3.2.2.3.3, 3.2.2.3.6], and the default of the third.
    if ack.receive_maximum != 0 {
        sink.byte(id::RECEIVE_MAXIMUM);
        sink.u16(ack.receive_maximum);
    }
    if ack.maximum_packet_size != 0 {
        sink.byte(id::MAXIMUM_PACKET_SIZE);
        sink.u32(ack.maximum_packet_size);
    }
    if ack.topic_alias_maximum != 0 {
        sink.byte(id::TOPIC_ALIAS_MAXIMUM);
        sink.u16(ack.topic_alias_maximum);
    }
    if let Some(seconds) = ack.session_expiry {
        sink.byte(id::SESSION_EXPIRY);
        sink.u32(seconds);
    }
    if let Some(seconds) = ack.server_keep_alive {
        sink.byte(id::SERVER_KEEP_ALIVE);
        sink.u16(seconds);
    }
}

/// The 3.1.1 return code nearest to a reason code (3.1.1, 3.2.2.3).
fn return_code(code: u8) -> u8 {
    match code {
        reason::SUCCESS => 0,
        reason::UNSUPPORTED_PROTOCOL_VERSION => 1,
        reason::CLIENT_IDENTIFIER_NOT_VALID => 2,
        reason::BAD_USER_NAME_OR_PASSWORD => 4,
        reason::NOT_AUTHORIZED => 5,
        _ => 3,
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP, with the packet id that they answer [MQTT-2.2.1-5]. 3.1.1 has
/// neither reason nor text, and user properties are never sent [MQTT-3.4.2-3], [MQTT-3.5.2-3],
/// [MQTT-3.6.2-3], [MQTT-3.7.2-3].
pub fn ack(
    out: &mut BytesMut,
    protocol: Protocol,
    kind: AckKind,
    packet_id: u16,
    reason: u8,
    text: Option<&str>,
) {
    let first = match kind {
        AckKind::PubAck => 0x40,
        AckKind::PubRec => 0x50,
        AckKind::PubRel => 0x62,
        AckKind::PubComp => 0x70,
    };
    let reason = match kind {
        // [MQTT-3.4.2-1], [MQTT-3.5.2-1]
        AckKind::PubAck | AckKind::PubRec => fitting(reason, reasons::is_receipt),
        // Success, or a packet id that is not known [MQTT-3.6.2-1], [MQTT-3.7.2-1].
        AckKind::PubRel | AckKind::PubComp => reason,
    };
    packet(out, first, |body| {
        body.u16(packet_id);
        // Success and the property length may be left out where nothing follows (3.4.2.1).
        if protocol == Protocol::V311 || reason == 0 && text.is_none() {
            return;
        }
        body.byte(reason);
        if text.is_some() {
            block(body, |properties| reason_string(properties, text));
        }
    });
}

/// SUBACK with one code per filter [MQTT-3.8.4-6], under the packet id of the SUBSCRIBE
/// [MQTT-3.8.4-2], [MQTT-2.2.1-6]. A failure of MQTT 5 is 0x80 in 3.1.1. It has no properties that
/// could be too large [MQTT-3.9.2-1], [MQTT-3.9.2-2].
pub fn suback(out: &mut BytesMut, protocol: Protocol, packet_id: u16, codes: &[u8]) {
    packet(out, 0x90, |body| {
        body.u16(packet_id);
        match protocol {
            Protocol::V5 => {
                block(body, |_| {});
                // [MQTT-3.9.3-2]
                codes.iter().for_each(|code| body.byte(fitting(*code, reasons::is_suback)));
            }
            Protocol::V311 => codes.iter().for_each(|code| body.byte((*code).min(0x80))),
        }
    });
}

/// Bytes of a SUBACK or UNSUBACK of MQTT 5 with so many codes, on the wire.
pub fn answer_len(codes: usize) -> usize {
    // Packet id and property length.
    let remaining = 2 + 1 + codes;
    1 + length(|sink| sink.variable(remaining)) + remaining
}

/// UNSUBACK with one code per filter; 3.1.1 has no codes in it. The rest is as in a SUBACK
/// [MQTT-3.10.4-5], [MQTT-3.11.2-1], [MQTT-3.11.2-2].
pub fn unsuback(out: &mut BytesMut, protocol: Protocol, packet_id: u16, codes: &[u8]) {
    packet(out, 0xb0, |body| {
        body.u16(packet_id);
        if protocol == Protocol::V5 {
            block(body, |_| {});
            // [MQTT-3.11.3-2]
            codes.iter().for_each(|code| body.byte(fitting(*code, reasons::is_unsuback)));
        }
    });
}

/// PINGRESP.
pub fn pingresp(out: &mut BytesMut) {
    out.push(&[0xd0, 0]);
}

/// DISCONNECT, which only MQTT 5 servers send, without Session Expiry Interval [MQTT-3.14.2-2] and
/// user properties [MQTT-3.14.2-4].
pub fn disconnect(out: &mut BytesMut, reason: u8, text: Option<&str>) {
    packet(out, 0xe0, |body| {
        // [MQTT-3.14.2-1]
        body.byte(fitting(reason, reasons::is_goodbye));
        // Its length stands there even where it is 0: some clients trip over a reason alone.
        block(body, |properties| reason_string(properties, text));
    });
}

fn reason_string(sink: &mut dyn Sink, text: Option<&str>) {
    if let Some(text) = text {
        sink.byte(id::REASON_STRING);
        sink.text(text);
    }
}
