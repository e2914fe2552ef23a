//! Packets of MQTT 3.1.1 as bytes, written and read by hand, so that the load costs little.

use std::ops::Range;

use anyhow::{Context, ensure};

pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;
pub const SUBACK: u8 = 9;
pub const PINGRESP: u8 = 13;

/// PINGREQ, whole.
pub const PINGREQ: [u8; 2] = [0xc0, 0];
/// DISCONNECT, whole.
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

/// CONNECT with a clean session, and a user's name and password where there is one. `keep_alive`
/// is in seconds; 0 means none, which some servers refuse.
pub fn connect(client_id: &str, keep_alive: u16, login: Option<(&str, &str)>) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04\x02".to_vec();
    body.extend_from_slice(&keep_alive.to_be_bytes());
    put_string(&mut body, client_id);
    if let Some((user, password)) = login {
        body[7] |= 0xc0;
        put_string(&mut body, user);
        put_string(&mut body, password);
    }
    packet(0x10, &body)
}

/// CONNECT of a session that outlives its connection.
pub fn lasting(client_id: &str, keep_alive: u16) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04\0".to_vec();
    body.extend_from_slice(&keep_alive.to_be_bytes());
    put_string(&mut body, client_id);
    packet(0x10, &body)
}

/// SUBSCRIBE to one filter.
pub fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    subscribe_all([filter], qos)
}

/// SUBSCRIBE to several filters at once.
pub fn subscribe_all<'a>(filters: impl IntoIterator<Item = &'a str>, qos: u8) -> Vec<u8> {
    let mut body = b"\0\x01".to_vec();
    for filter in filters {
        put_string(&mut body, filter);
        body.push(qos);
    }
    packet(0x82, &body)
}

/// The type and the body's place of the packet at the start of `bytes`; `None` if it is not whole.
pub fn cut(bytes: &[u8]) -> anyhow::Result<Option<(u8, Range<usize>)>> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate().skip(1).take(4) {
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let end = at + 1 + length;
            return Ok((bytes.len() >= end).then_some((first >> 4, at + 1..end)));
        }
    }
    ensure!(bytes.len() < 5, "no MQTT length in {:02x?}", &bytes[..5]);
    Ok(None)
}

/// The payload of a PUBLISH at QoS 0.
pub fn payload(body: &[u8]) -> anyhow::Result<&[u8]> {
    let length = body.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
    length.and_then(|length| body.get(2 + length..)).context("a PUBLISH without a topic")
}

/// Appends a string with its length.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A packet: its first byte, the length, the body.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    let mut length = body.len();
    while length >= 0x80 {
        frame.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    frame.push(length as u8);
    frame.extend_from_slice(body);
    frame
}
