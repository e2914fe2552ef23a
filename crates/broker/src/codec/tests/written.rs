//! The packets of the server, byte by byte.

use bytes::BytesMut;
use hook::{
    Properties,
    Protocol::{self, V5, V311},
    Qos,
};

use crate::{
    codec::{
        AckKind, PublishHead, ack, connack, disconnect, pingresp, publish_head, publish_len,
        suback, unsuback,
    },
    packet::{ConnAck, reason},
};

fn bytes(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    // Something stands before it: a packet goes behind what is there.
    let mut out = BytesMut::from(&b"before"[..]);
    write(&mut out);
    out[6..].to_vec()
}

#[test]
fn connack_3_1_1_has_return_codes() {
    for (code, expected) in [
        (reason::SUCCESS, 0),
        (reason::UNSUPPORTED_PROTOCOL_VERSION, 1),
        (reason::CLIENT_IDENTIFIER_NOT_VALID, 2),
        (reason::SERVER_BUSY, 3),
        (reason::TOPIC_NAME_INVALID, 3),
        (reason::BAD_USER_NAME_OR_PASSWORD, 4),
        (reason::NOT_AUTHORIZED, 5),
    ] {
        let reply = ConnAck { reason: code, session_present: true, ..ConnAck::default() };
        // [MQTT-3.2.2-6]: no session where it is refused.
        let present = u8::from(code == 0);
        assert_eq!(bytes(|out| connack(out, V311, &reply)), [0x20, 2, present, expected]);
    }
}

#[test]
fn connack_5() {
    let reply = ConnAck {
        session_present: true,
        reason: 0,
        reason_string: Some("hi".into()),
        assigned_client_id: Some("id".into()),
        receive_maximum: 10,
        maximum_packet_size: 65536,
        topic_alias_maximum: 3,
        session_expiry: Some(9),
        server_keep_alive: Some(60),
    };
    let expected = [
        &[0x20, 32, 1, 0, 29, 0x1f, 0, 2, b'h', b'i', 0x12, 0, 2, b'i', b'd'][..],
        &[0x21, 0, 10, 0x27, 0, 1, 0, 0, 0x22, 0, 3, 0x11, 0, 0, 0, 9, 0x13, 0, 60],
    ]
    .concat();
    assert_eq!(bytes(|out| connack(out, V5, &reply)), expected);
    let refused = ConnAck { reason: reason::NOT_AUTHORIZED, ..reply };
    let expected = [0x20, 8, 0, 0x87, 5, 0x1f, 0, 2, b'h', b'i'];
    assert_eq!(bytes(|out| connack(out, V5, &refused)), expected);
    assert_eq!(bytes(|out| connack(out, V5, &ConnAck::default())), [0x20, 3, 0, 0, 0]);
}

#[test]
fn acknowledgements() {
    for (kind, first) in [
        (AckKind::PubAck, 0x40),
        (AckKind::PubRec, 0x50),
        (AckKind::PubRel, 0x62),
        (AckKind::PubComp, 0x70),
    ] {
        let plain = [first, 2, 1, 2];
        assert_eq!(bytes(|out| ack(out, V5, kind, 0x102, 0, None)), plain);
        assert_eq!(bytes(|out| ack(out, V311, kind, 0x102, 0x97, Some("no"))), plain);
        let error = if first < 0x60 { 0x91 } else { 0x92 };
        assert_eq!(bytes(|out| ack(out, V5, kind, 0x102, error, None)), [first, 3, 1, 2, error]);
        let told = [first, 9, 1, 2, error, 5, 0x1f, 0, 2, b'n', b'o'];
        assert_eq!(bytes(|out| ack(out, V5, kind, 0x102, error, Some("no"))), told);
    }
    let codes = [0, 1, 2, 0x80, 0x8f, 0x97];
    let old = [0x90, 8, 1, 2, 0, 1, 2, 0x80, 0x80, 0x80];
    assert_eq!(bytes(|out| suback(out, V311, 0x102, &codes)), old);
    let new = [0x90, 9, 1, 2, 0, 0, 1, 2, 0x80, 0x8f, 0x97];
    assert_eq!(bytes(|out| suback(out, V5, 0x102, &codes)), new);
    assert_eq!(bytes(|out| unsuback(out, V311, 0x102, &[0, 0x11])), [0xb0, 2, 1, 2]);
    assert_eq!(bytes(|out| unsuback(out, V5, 0x102, &[0, 0x11])), [0xb0, 5, 1, 2, 0, 0, 0x11]);
}

#[test]
fn ping_and_goodbye() {
    assert_eq!(bytes(pingresp), [0xd0, 0]);
    assert_eq!(bytes(|out| disconnect(out, 0x8e, None)), [0xe0, 2, 0x8e, 0]);
    let told = [0xe0, 7, 0x8e, 5, 0x1f, 0, 2, b'n', b'o'];
    assert_eq!(bytes(|out| disconnect(out, 0x8e, Some("no"))), told);
}

const HEAD: PublishHead<'_> = PublishHead {
    dup: false,
    qos: Qos::AtMostOnce,
    retain: false,
    topic: "a",
    packet_id: 0x102,
    alias: None,
    properties: None,
    expiry_left: None,
    subscriptions: &[],
    payload_len: 0,
};

fn head(protocol: Protocol, head: &PublishHead<'_>) -> Vec<u8> {
    let written = bytes(|out| publish_head(out, protocol, head));
    assert_eq!(publish_len(protocol, head), written.len() + head.payload_len);
    written
}

#[test]
fn publish() {
    assert_eq!(head(V311, &HEAD), [0x30, 3, 0, 1, b'a']);
    assert_eq!(head(V5, &HEAD), [0x30, 4, 0, 1, b'a', 0]);
    let one =
        PublishHead { dup: true, qos: Qos::ExactlyOnce, retain: true, payload_len: 123, ..HEAD };
    assert_eq!(head(V311, &one), [0x3d, 0x80, 1, 0, 1, b'a', 1, 2]);
    // What 3.1.1 does not have is left out.
    let properties = Properties { content_type: Some("t".into()), ..Properties::default() };
    let full = PublishHead {
        alias: Some(3),
        expiry_left: Some(4),
        subscriptions: &[1, 128, 2],
        properties: Some(&properties),
        ..HEAD
    };
    assert_eq!(head(V311, &full), head(V311, &HEAD));
    let block = [0x23, 0, 3, 2, 0, 0, 0, 4, 3, 0, 1, b't', 0x0b, 1, 0x0b, 0x80, 1, 0x0b, 2];
    assert_eq!(head(V5, &full), [&[0x30, 23, 0, 1, b'a', 19][..], &block].concat());
}

#[test]
fn the_time_left_replaces_the_expiry_of_the_publisher() {
    let properties = Properties { expiry_seconds: Some(9), ..Properties::default() };
    let untouched = PublishHead { properties: Some(&properties), ..HEAD };
    assert_eq!(head(V5, &untouched), [0x30, 9, 0, 1, b'a', 5, 2, 0, 0, 0, 9]);
    let aged = PublishHead { expiry_left: Some(7), ..untouched };
    assert_eq!(head(V5, &aged), [0x30, 9, 0, 1, b'a', 5, 2, 0, 0, 0, 7]);
}

#[test]
fn a_text_that_no_field_holds_is_cut_at_a_character() {
    let long = "\u{20ac}".repeat(30_000);
    let written = bytes(|out| disconnect(out, 0x80, Some(&long)));
    // 65,535 is a multiple of the three bytes of a euro sign; one byte before, it is not.
    assert_eq!(&written[..2], &[0xe0, 0x86]);
    assert_eq!(&written[8..11], &[0x1f, 0xff, 0xff]);
    let shifted = format!("x{long}");
    let written = bytes(|out| disconnect(out, 0x80, Some(&shifted)));
    assert_eq!(&written[8..11], &[0x1f, 0xff, 0xfd]);
    assert!(std::str::from_utf8(&written[11..]).is_ok());
    // The lengths of a PUBLISH know of it.
    head(V311, &PublishHead { topic: &long, ..HEAD });
}

/// [MQTT-3.2.2-8], [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.9.3-2], [MQTT-3.11.3-2],
/// [MQTT-3.14.2-1]: whatever the reason, the code is one that the packet has (MQTT 5.0, 2.4).
#[test]
fn every_code_is_one_that_the_packet_has() {
    let receipt: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    let in_connack: &[u8] = &[
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95,
        0x97, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
    ];
    let in_suback: &[u8] =
        &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];
    let in_unsuback: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91];
    let goodbye: &[u8] = &[
        0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95,
        0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
    ];
    type Write = fn(&mut BytesMut, u8);
    let packets: [(&str, &[u8], Write); 6] = [
        ("CONNACK", in_connack, connack_with),
        ("PUBACK", receipt, |out, code| ack(out, V5, AckKind::PubAck, 1, code, Some("why"))),
        ("PUBREC", receipt, |out, code| ack(out, V5, AckKind::PubRec, 1, code, Some("why"))),
        ("SUBACK", in_suback, |out, code| suback(out, V5, 1, &[code])),
        ("UNSUBACK", in_unsuback, |out, code| unsuback(out, V5, 1, &[code])),
        ("DISCONNECT", goodbye, |out, code| disconnect(out, code, None)),
    ];
    for (name, known, write) in packets {
        let at = match name {
            "CONNACK" => 3,
            "PUBACK" | "PUBREC" => 4,
            "SUBACK" | "UNSUBACK" => 5,
            _ => 2,
        };
        for code in 0..=u8::MAX {
            let written = bytes(|out| write(out, code))[at];
            let expected = if known.contains(&code) { code } else { 0x83 };
            assert_eq!(written, expected, "{name} {code:02x}");
        }
    }
}

fn connack_with(out: &mut BytesMut, reason: u8) {
    connack(out, V5, &ConnAck { reason, ..ConnAck::default() });
}
