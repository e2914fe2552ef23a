//! The packets of clients.

use hook::{Protocol, Qos};

use super::{
    CodecError, SERVER_PACKET,
    properties::{self, Set, id},
    read, reasons,
};
use crate::{
    packet::{
        Ack, Connect, Disconnect, Packet, Publish, RetainHandling, Subscribe, SubscribeFilter,
        Unsubscribe, Will, reason,
    },
    topic::check_name,
};

type Result<T> = std::result::Result<T, CodecError>;

const CONNECT: Set = Set::of(&[
    id::SESSION_EXPIRY,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_PACKET_SIZE,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REQUEST_RESPONSE,
    id::REQUEST_PROBLEM,
    id::USER_PROPERTY,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
]);
const WILL: Set = Set::of(&[
    id::WILL_DELAY,
    id::PAYLOAD_FORMAT,
    id::MESSAGE_EXPIRY,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
]);
const PUBLISH: Set = Set::of(&[
    id::PAYLOAD_FORMAT,
    id::MESSAGE_EXPIRY,
    id::TOPIC_ALIAS,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
    id::SUBSCRIPTION_IDENTIFIER,
    id::CONTENT_TYPE,
]);
const ACK: Set = Set::of(&[id::REASON_STRING, id::USER_PROPERTY]);
const SUBSCRIBE: Set = Set::of(&[id::SUBSCRIPTION_IDENTIFIER, id::USER_PROPERTY]);
const UNSUBSCRIBE: Set = Set::of(&[id::USER_PROPERTY]);
const DISCONNECT: Set = Set::of(&[id::SESSION_EXPIRY, id::REASON_STRING, id::USER_PROPERTY]);
const AUTH: Set = Set::of(&[
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
    id::REASON_STRING,
    id::USER_PROPERTY,
]);

const UNKNOWN_REASON: CodecError =
    CodecError::malformed("a reason code that this packet does not have");

/// The body behind the fixed header; `frame` has checked that.
fn body(frame: &[u8]) -> Result<(u8, &[u8])> {
    let mut rest = frame;
    let first = read::byte(&mut rest)?;
    read::variable(&mut rest)?;
    Ok((first, rest))
}

/// Every byte of a body is used.
fn end(rest: &[u8]) -> Result<()> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(CodecError::malformed("the packet goes on behind its last field"))
    }
}

/// The protocol level of a bridge that speaks 3.1.1: its top bit asks for a subscriber that gets back
/// nothing of what it publishes, and the RETAIN flag as it was published.
const BRIDGE: u8 = 0x80 | 4;

/// Decodes a CONNECT of any version.
///
/// # Errors
/// What is wrong with it; 0x84 for a protocol that is neither 3.1.1 nor 5.
pub fn decode_connect(frame: &[u8]) -> Result<Connect> {
    let (first, mut rest) = body(frame)?;
    if first != 0x10 {
        return Err(CodecError::protocol("the first packet is not a CONNECT"));
    }
    let unsupported = CodecError {
        reason: reason::UNSUPPORTED_PROTOCOL_VERSION,
        text: "only MQTT 3.1.1 and 5 are spoken here",
        // A client that says something else understands a 3.1.1 CONNACK best.
        protocol: Some(Protocol::V311),
    };
    let name = read::binary(&mut rest)?;
    let level = read::byte(&mut rest)?;
    let protocol = match (name, level) {
        (b"MQTT", 4) => Protocol::V311,
        // In no standard, but in mosquitto and what has learned from it.
        (b"MQTT", BRIDGE) => Protocol::V311,
        (b"MQTT", 5) => Protocol::V5,
        // A bridge sets the top bit; with 3 below it, it expects the CONNACK of 3.1.
        (b"MQTT", _) if level & 0x7f > 4 => {
            return Err(CodecError { protocol: Some(Protocol::V5), ..unsupported });
        }
        // [MQTT-3.1.2-2]
        (b"MQTT" | b"MQIsdp", _) => return Err(unsupported),
        // [MQTT-3.1.2-1]
        _ => return Err(CodecError::protocol("the protocol name is not MQTT")),
    };
    let connect = connect(protocol, rest);
    let connect = connect.map(|connect| Connect { bridge: level == BRIDGE, ..connect });
    connect.map_err(|error| CodecError { protocol: Some(protocol), ..error })
}

fn connect(protocol: Protocol, mut rest: &[u8]) -> Result<Connect> {
    let v5 = protocol == Protocol::V5;
    let rest = &mut rest;
    let flags = read::byte(rest)?;
    let flag = |bit: u8| flags >> bit & 1 == 1;
    let (username, password, has_will) = (flag(7), flag(6), flag(2));
    if flag(0) {
        // [MQTT-3.1.2-3]
        return Err(CodecError::malformed("the reserved connect flag is set"));
    }
    if !has_will && flags & 0b0011_1000 != 0 {
        // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
        return Err(CodecError::malformed("will QoS or retain without a will"));
    }
    if password && !username && !v5 {
        // [MQTT311-3.1.2-22]
        return Err(CodecError::malformed("a password without a user name"));
    }
    // [MQTT-3.1.2-12]
    let will_qos = Qos::from_bits(flags >> 3 & 3).ok_or(CodecError::malformed("will QoS 3"))?;
    let clean_start = flag(1);
    let keep_alive = read::u16(rest)?;
    let block = if v5 { properties::read(rest, CONNECT)? } else { properties::Block::default() };
    if block.authentication_data && !block.authentication_method {
        return Err(CodecError::protocol("authentication data without a method"));
    }
    // [MQTT-3.1.3-1], [MQTT-3.1.3-3], [MQTT-3.1.3-4], [MQTT-3.1.3-12]: the flags say which fields
    // there are [MQTT-3.1.2-9], [MQTT-3.1.2-16], [MQTT-3.1.2-17], [MQTT-3.1.2-18],
    // [MQTT-3.1.2-19], and with the last one the packet ends.
    let client_id = read::text(rest)?.to_owned();
    let will = if has_will { Some(will(rest, v5, will_qos, flag(5))?) } else { None };
    let username = if username { Some(read::text(rest)?.to_owned()) } else { None };
    let password = if password { Some(read::binary(rest)?.to_vec()) } else { None };
    end(rest)?;
    Ok(Connect {
        bridge: false,
        protocol,
        client_id,
        clean_start,
        keep_alive,
        username,
        password,
        will,
        session_expiry: match protocol {
            Protocol::V5 => block.session_expiry.unwrap_or(0),
            Protocol::V311 if clean_start => 0,
            Protocol::V311 => u32::MAX,
        },
        receive_maximum: block.receive_maximum.unwrap_or(u16::MAX),
        maximum_packet_size: block.maximum_packet_size.unwrap_or(u32::MAX),
        topic_alias_maximum: block.topic_alias_maximum.unwrap_or(0),
        problem_information: block.request_problem.unwrap_or(true),
        enhanced_authentication: block.authentication_method,
        user_properties: block.user,
    })
}

fn will(rest: &mut &[u8], v5: bool, qos: Qos, retain: bool) -> Result<Will> {
    let block = if v5 { properties::read(rest, WILL)? } else { properties::Block::default() };
    // [MQTT-3.1.3-11]
    let topic = read::text(rest)?.to_owned();
    let payload = read::binary(rest)?.to_vec();
    let delay_seconds = block.will_delay.unwrap_or(0);
    Ok(Will { topic, payload, qos, retain, delay_seconds, properties: block.into_message() })
}

/// Decodes any packet but the first one of a connection.
///
/// # Errors
/// The first rule that it breaks.
pub fn decode(frame: &[u8], protocol: Protocol) -> Result<Packet<'_>> {
    let (first, mut rest) = body(frame)?;
    let v5 = protocol == Protocol::V5;
    let rest = &mut rest;
    let packet = match first >> 4 {
        // Whatever is wrong with it, it is one CONNECT too many [MQTT-3.1.0-2].
        1 => {
            return decode_connect(frame)
                .map(|connect| Packet::Connect(Box::new(connect)))
                .map_err(|_| CodecError::protocol("a second CONNECT"));
        }
        3 => return publish(first, rest, v5).map(Packet::Publish),
        4 => Packet::PubAck(ack(rest, v5, reasons::is_receipt)?),
        5 => Packet::PubRec(ack(rest, v5, reasons::is_receipt)?),
        6 => Packet::PubRel(ack(rest, v5, reasons::is_release)?),
        7 => Packet::PubComp(ack(rest, v5, reasons::is_release)?),
        8 => Packet::Subscribe(Box::new(subscribe(rest, v5)?)),
        10 => Packet::Unsubscribe(Box::new(unsubscribe(rest, v5)?)),
        12 => Packet::PingReq,
        14 => Packet::Disconnect(disconnect(rest, v5)?),
        15 if v5 => {
            auth(rest)?;
            Packet::Auth
        }
        0 | 15 => {
            return Err(CodecError::malformed("a packet type that this version does not have"));
        }
        _ => return Err(SERVER_PACKET),
    };
    end(rest)?;
    Ok(packet)
}

fn publish<'a>(first: u8, rest: &mut &'a [u8], v5: bool) -> Result<Publish<'a>> {
    let qos = Qos::from_bits(first >> 1 & 3).ok_or(CodecError::malformed("QoS 3"))?;
    // [MQTT-3.3.2-1]
    let topic = read::text(rest)?;
    let packet_id = if qos == Qos::AtMostOnce { 0 } else { read::packet_id(rest)? };
    let (mut alias, mut message) = (None, None);
    if v5 {
        if let Some((0, tail)) = rest.split_first() {
            // The usual case: no properties.
            *rest = tail;
        } else {
            let block = properties::read(rest, PUBLISH)?;
            if block.subscription_identifier.is_some() {
                // [MQTT-3.3.4-6]
                let text = "a subscription identifier in the PUBLISH of a client";
                return Err(CodecError::protocol(text));
            }
            alias = block.topic_alias;
            message = block.into_message();
        }
    }
    if topic.is_empty() {
        if alias.is_none() {
            return Err(CodecError::protocol("a PUBLISH without topic and alias"));
        }
    } else if check_name(topic).is_err() {
        let text = "a topic name has no wildcards, and at most 128 levels";
        return Err(CodecError { reason: reason::TOPIC_NAME_INVALID, text, protocol: None });
    }
    Ok(Publish {
        dup: first & 0b1000 != 0,
        qos,
        retain: first & 1 != 0,
        topic,
        packet_id,
        alias,
        properties: message,
        payload: rest,
    })
}

fn ack(rest: &mut &[u8], v5: bool, known: fn(u8) -> bool) -> Result<Ack> {
    let packet_id = read::packet_id(rest)?;
    let mut reason = 0;
    if v5 && !rest.is_empty() {
        reason = read::byte(rest)?;
        if !known(reason) {
            return Err(UNKNOWN_REASON);
        }
        if !rest.is_empty() {
            properties::read(rest, ACK)?;
        }
    }
    Ok(Ack { packet_id, reason })
}

fn subscribe(rest: &mut &[u8], v5: bool) -> Result<Subscribe> {
    let packet_id = read::packet_id(rest)?;
    let identifier =
        if v5 { properties::read(rest, SUBSCRIBE)?.subscription_identifier } else { None };
    let mut filters = Vec::new();
    while !rest.is_empty() {
        let filter = filter(rest)?;
        filters.push(subscribe_filter(filter, read::byte(rest)?, v5)?);
    }
    if filters.is_empty() {
        // [MQTT-3.8.3-2]
        return Err(CodecError::protocol("a SUBSCRIBE without a filter"));
    }
    Ok(Subscribe { packet_id, identifier, filters })
}

/// A topic filter. Where its wildcards stand is not the codec's: the session answers each filter
/// of a packet with a code of its own. But no answer fits a filter that is not there.
fn filter<'a>(rest: &mut &'a [u8]) -> Result<&'a str> {
    // [MQTT-3.8.3-1], [MQTT-3.10.3-1]
    match read::text(rest)? {
        // [MQTT-4.7.3-1]
        "" => Err(CodecError::protocol("an empty topic filter")),
        filter => Ok(filter),
    }
}

fn subscribe_filter(filter: &str, options: u8, v5: bool) -> Result<SubscribeFilter> {
    let reserved = if v5 { 0b1100_0000 } else { 0b1111_1100 };
    if options & reserved != 0 {
        // [MQTT-3.8.3-5]
        return Err(CodecError::malformed("reserved subscription options"));
    }
    let qos = Qos::from_bits(options & 3).ok_or(CodecError::malformed("subscription QoS 3"))?;
    let no_local = options & 0b100 != 0;
    if no_local && filter.starts_with("$share/") {
        // [MQTT-3.8.3-4]
        return Err(CodecError::protocol("No Local on a shared subscription"));
    }
    let retain_handling = match options >> 4 & 3 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(CodecError::protocol("Retain Handling 3")),
    };
    Ok(SubscribeFilter {
        filter: filter.to_owned(),
        qos,
        no_local,
        retain_as_published: options & 0b1000 != 0,
        retain_handling,
    })
}

fn unsubscribe(rest: &mut &[u8], v5: bool) -> Result<Unsubscribe> {
    let packet_id = read::packet_id(rest)?;
    if v5 {
        properties::read(rest, UNSUBSCRIBE)?;
    }
    let mut filters = Vec::new();
    while !rest.is_empty() {
        filters.push(filter(rest)?.to_owned());
    }
    if filters.is_empty() {
        // [MQTT-3.10.3-2]
        return Err(CodecError::protocol("an UNSUBSCRIBE without a filter"));
    }
    Ok(Unsubscribe { packet_id, filters })
}

fn disconnect(rest: &mut &[u8], v5: bool) -> Result<Disconnect> {
    let mut disconnect = Disconnect { reason: 0, session_expiry: None };
    if v5 && !rest.is_empty() {
        disconnect.reason = read::byte(rest)?;
        if !reasons::is_goodbye_of_client(disconnect.reason) {
            return Err(UNKNOWN_REASON);
        }
        if !rest.is_empty() {
            disconnect.session_expiry = properties::read(rest, DISCONNECT)?.session_expiry;
        }
    }
    Ok(disconnect)
}

/// Continue or re-authenticate: a success is the server's to tell (3.15.2.1).
fn auth(rest: &mut &[u8]) -> Result<()> {
    // 3.15.2.1: nothing at all stands for success.
    let reason = if rest.is_empty() { 0x00 } else { read::byte(rest)? };
    // [MQTT-3.15.2-1]
    if !reasons::is_auth(reason) {
        return Err(UNKNOWN_REASON);
    }
    if reason == 0x00 {
        return Err(CodecError::protocol("an AUTH that only servers send"));
    }
    // 3.15.2.2.2
    if rest.is_empty() || !properties::read(rest, AUTH)?.authentication_method {
        return Err(CodecError::protocol("an AUTH without a method"));
    }
    Ok(())
}
