//! The MQTT that a device needs, 3.1.1 and 5: CONNECT, one SUBSCRIBE and PUBLISH at QoS 0 to the
//! server, and what the server answers to those.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::options::Protocol;

/// Largest packet that a device accepts, in bytes; the protocol itself allows 256 MB. A block of
/// 1 MiB in base64 fits.
pub(crate) const MAX_PACKET: usize = 2 * 1024 * 1024;

/// A packet from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// The reason code: 0 is success.
    ConnAck(u8),
    /// The code for the one filter: 0x80 and above are failures.
    SubAck(u8),
    Publish {
        topic: Bytes,
        payload: Bytes,
    },
    PingResp,
    /// MQTT 5 only; the reason code.
    Disconnect(u8),
}

/// The server sent something that is no MQTT, or that it may not send to a device at QoS 0.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Malformed {
    #[error("a packet of {0} bytes, more than a device accepts")]
    TooLarge(usize),
    #[error("a packet whose length is no MQTT length")]
    Length,
    #[error("a packet of type {0}, which is not for a device at QoS 0")]
    Type(u8),
    #[error("a packet of type {0} that ends too early")]
    Short(u8),
}

/// What a CONNECT says.
pub(crate) struct Connect<'a> {
    pub protocol: Protocol,
    pub client_id: &'a str,
    /// Sent as the password of the user `Token`.
    pub token: Option<&'a str>,
    /// MQTT 5 only: a user property `model`.
    pub model: Option<&'a str>,
    /// Seconds.
    pub keep_alive: u16,
}

impl Connect<'_> {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let mut body = BytesMut::new();
        put_string(&mut body, "MQTT");
        let v5 = self.protocol == Protocol::V5;
        body.put_u8(if v5 { 5 } else { 4 });
        const CLEAN: u8 = 0x02;
        const PASSWORD: u8 = 0x40;
        const USER_NAME: u8 = 0x80;
        body.put_u8(CLEAN | if self.token.is_some() { USER_NAME | PASSWORD } else { 0 });
        body.put_u16(self.keep_alive);
        if v5 {
            let mut properties = BytesMut::new();
            properties.put_u8(0x27); // Maximum Packet Size
            properties.put_u32(MAX_PACKET as u32);
            if let Some(model) = self.model {
                properties.put_u8(0x26); // User Property
                put_string(&mut properties, "model");
                put_string(&mut properties, model);
            }
            put_length(&mut body, properties.len());
            body.extend_from_slice(&properties);
        }
        put_string(&mut body, self.client_id);
        if let Some(token) = self.token {
            put_string(&mut body, "Token");
            put_string(&mut body, token);
        }
        put_packet(out, 0x10, &body);
    }
}

/// SUBSCRIBE to one filter at QoS 0, with packet id 1.
pub(crate) fn subscribe(protocol: Protocol, filter: &str, out: &mut BytesMut) {
    let mut body = BytesMut::new();
    body.put_u16(1);
    if protocol == Protocol::V5 {
        body.put_u8(0); // no properties
    }
    put_string(&mut body, filter);
    body.put_u8(0);
    put_packet(out, 0x82, &body);
}

/// PUBLISH at QoS 0.
pub(crate) fn publish(protocol: Protocol, topic: &str, payload: &[u8], out: &mut BytesMut) {
    let v5 = protocol == Protocol::V5;
    out.put_u8(0x30);
    put_length(out, 2 + topic.len() + usize::from(v5) + payload.len());
    put_string(out, topic);
    if v5 {
        out.put_u8(0);
    }
    out.extend_from_slice(payload);
}

/// PINGREQ.
pub(crate) fn ping(out: &mut BytesMut) {
    out.extend_from_slice(&[0xc0, 0]);
}

/// DISCONNECT, the orderly goodbye.
pub(crate) fn disconnect(out: &mut BytesMut) {
    out.extend_from_slice(&[0xe0, 0]);
}

/// Takes the first packet out of `buffer`, or leaves it as it is where that is not complete.
pub(crate) fn decode(
    protocol: Protocol,
    buffer: &mut BytesMut,
) -> Result<Option<Packet>, Malformed> {
    let Some((length, header)) = packet_length(buffer)? else { return Ok(None) };
    let total = header + length;
    if total > MAX_PACKET {
        return Err(Malformed::TooLarge(total));
    }
    if buffer.len() < total {
        buffer.reserve(total - buffer.len());
        return Ok(None);
    }
    let first = buffer[0];
    let mut body = buffer.split_to(total).freeze();
    body.advance(header);
    read_body(protocol, first, body).map(Some)
}

fn read_body(protocol: Protocol, first: u8, mut body: Bytes) -> Result<Packet, Malformed> {
    let v5 = protocol == Protocol::V5;
    let kind = first >> 4;
    let short = Malformed::Short(kind);
    match kind {
        // The first byte is the session-present flag, the second the code.
        2 => body.get(1).copied().map(Packet::ConnAck).ok_or(short),
        3 if first & 0x06 == 0 => {
            if body.len() < 2 {
                return Err(short);
            }
            let length = body.get_u16().into();
            if body.len() < length {
                return Err(short);
            }
            let topic = body.split_to(length);
            if v5 {
                skip_properties(&mut body).ok_or(short)?;
            }
            Ok(Packet::Publish { topic, payload: body })
        }
        // One filter was subscribed to, so the last byte is its code, whatever stands before it.
        9 if body.len() > 2 => Ok(Packet::SubAck(body[body.len() - 1])),
        9 => Err(short),
        13 => Ok(Packet::PingResp),
        14 if v5 => Ok(Packet::Disconnect(body.first().copied().unwrap_or(0))),
        other => Err(Malformed::Type(other)),
    }
}

fn skip_properties(body: &mut Bytes) -> Option<()> {
    let (length, bytes) = variable_length(body).ok().flatten()?;
    let end = length + bytes;
    (body.len() >= end).then(|| body.advance(end))
}

/// The remaining length of the packet at the start of `buffer` and the bytes of its fixed header.
fn packet_length(buffer: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let Some(rest) = buffer.get(1..) else { return Ok(None) };
    Ok(variable_length(rest)?.map(|(length, bytes)| (length, bytes + 1)))
}

/// A variable byte integer and the bytes that it takes; `None` where it is not complete.
fn variable_length(buffer: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut length = 0;
    for (at, byte) in buffer.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((length, at + 1)));
        }
    }
    if buffer.len() >= 4 { Err(Malformed::Length) } else { Ok(None) }
}

fn put_packet(out: &mut BytesMut, first: u8, body: &[u8]) {
    out.put_u8(first);
    put_length(out, body.len());
    out.extend_from_slice(body);
}

fn put_length(out: &mut BytesMut, mut length: usize) {
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        out.put_u8(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return;
        }
    }
}

/// Strings here are client ids, tokens and topics of this crate's options; what is longer than
/// MQTT's 65,535 bytes is cut, and the server refuses it as it would a wrong one.
fn put_string(out: &mut BytesMut, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.put_u16(bytes.len() as u16);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut out);
        out.to_vec()
    }

    #[test]
    fn connect_as_the_reference_device_sends_it() {
        let connect = Connect {
            protocol: Protocol::V311,
            client_id: "",
            token: Some("ab"),
            model: None,
            keep_alive: 60,
        };
        assert_eq!(
            encoded(|out| connect.encode(out)),
            b"\x10\x17\0\x04MQTT\x04\xc2\0\x3c\0\0\0\x05Token\0\x02ab"
        );
    }

    #[test]
    fn connect_of_mqtt_5_carries_the_model() {
        let connect = Connect {
            protocol: Protocol::V5,
            client_id: "d",
            token: None,
            model: Some("x"),
            keep_alive: 60,
        };
        assert_eq!(
            encoded(|out| connect.encode(out)),
            b"\x10\x1e\0\x04MQTT\x05\x02\0\x3c\x10\x27\0\x20\0\0\x26\0\x05model\0\x01x\0\x01d"
        );
    }

    #[test]
    fn subscribe_and_publish() {
        assert_eq!(
            encoded(|out| subscribe(Protocol::V311, "a/b", out)),
            b"\x82\x08\0\x01\0\x03a/b\0"
        );
        assert_eq!(
            encoded(|out| subscribe(Protocol::V5, "a/b", out)),
            b"\x82\x09\0\x01\0\0\x03a/b\0"
        );
        assert_eq!(encoded(|out| publish(Protocol::V311, "a", b"xy", out)), b"\x30\x05\0\x01axy");
        assert_eq!(encoded(|out| publish(Protocol::V5, "a", b"xy", out)), b"\x30\x06\0\x01a\0xy");
    }

    #[test]
    fn answers_are_read() {
        let read = |protocol, bytes: &[u8]| decode(protocol, &mut BytesMut::from(bytes));
        let v4 = |bytes| read(Protocol::V311, bytes);
        let v5 = |bytes| read(Protocol::V5, bytes);
        assert_eq!(v4(b"\x20\x02\0\x05"), Ok(Some(Packet::ConnAck(5))));
        assert_eq!(v5(b"\x20\x03\0\x87\0"), Ok(Some(Packet::ConnAck(0x87))));
        assert_eq!(v4(b"\x90\x03\0\x01\x80"), Ok(Some(Packet::SubAck(0x80))));
        assert_eq!(v5(b"\x90\x04\0\x01\0\0"), Ok(Some(Packet::SubAck(0))));
        assert_eq!(v4(b"\xd0\0"), Ok(Some(Packet::PingResp)));
        assert_eq!(v5(b"\xe0\x01\x8e"), Ok(Some(Packet::Disconnect(0x8e))));
        assert_eq!(v5(b"\xe0\0"), Ok(Some(Packet::Disconnect(0))));
        let publish = |payload: &'static [u8]| {
            Ok(Some(Packet::Publish { topic: Bytes::from_static(b"a"), payload: payload.into() }))
        };
        assert_eq!(v4(b"\x30\x05\0\x01axy"), publish(b"xy"));
        assert_eq!(v5(b"\x30\x08\0\x01a\x02\x01\0xy"), publish(b"xy"));
        assert_eq!(v4(b"\x30\x02\0\x09"), Err(Malformed::Short(3)));
        assert_eq!(v4(b"\x32\x02\0\0"), Err(Malformed::Type(3)), "QoS 1 was not subscribed");
        assert_eq!(v4(b"\xe0\0"), Err(Malformed::Type(14)), "3.1.1 servers say no goodbye");
        assert_eq!(v4(b"\x30\xff\xff\xff\xff"), Err(Malformed::Length));
        assert!(matches!(v4(b"\x30\xff\xff\xff\x7f"), Err(Malformed::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64), v5: bool) {
            let protocol = if v5 { Protocol::V5 } else { Protocol::V311 };
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(protocol, &mut buffer) {}
        }

        #[test]
        fn a_publish_comes_back_however_it_is_cut(
            payload in prop::collection::vec(any::<u8>(), 0..20_000), cut in any::<prop::sample::Index>(), v5: bool,
        ) {
            let protocol = if v5 { Protocol::V5 } else { Protocol::V311 };
            let bytes = encoded(|out| publish(protocol, "a/b", &payload, out));
            let cut = cut.index(bytes.len());
            let mut buffer = BytesMut::from(&bytes[..cut]);
            prop_assert_eq!(decode(protocol, &mut buffer), Ok(None));
            buffer.extend_from_slice(&bytes[cut..]);
            let packet = Packet::Publish { topic: Bytes::from_static(b"a/b"), payload: payload.into() };
            prop_assert_eq!(decode(protocol, &mut buffer), Ok(Some(packet)));
            prop_assert!(buffer.is_empty());
        }
    }
}
