//! What a client may send arrives, field by field.

use hook::{
    Properties,
    Protocol::{V5, V311},
    Qos,
};

use super::{
    build::{block, connect, corpus, field, packet, user},
    first,
};
use crate::{
    codec::{decode, decode_connect},
    packet::{Ack, Connect, Disconnect, Packet, Publish, RetainHandling, SubscribeFilter, Will},
};

fn connected(bytes: &[u8]) -> Connect {
    decode_connect(bytes).unwrap()
}

#[test]
fn the_corpus_is_taken() {
    for protocol in [V311, V5] {
        for bytes in corpus(protocol) {
            match first(&bytes, protocol) {
                Ok((_, len)) => assert_eq!(len, bytes.len()),
                Err(error) => panic!("{protocol:?} {bytes:02x?}: {error}"),
            }
        }
    }
}

#[test]
fn connect_3_1_1() {
    let payload = [field("id"), field("w/t"), field("bye"), field("user"), field("")];
    let payload: Vec<&[u8]> = payload.iter().map(Vec::as_slice).collect();
    let seen = connected(&connect(V311, 0xf6, &[], &payload));
    let Some(Will { topic, payload, qos, retain, delay_seconds, properties }) = seen.will else {
        panic!("no will");
    };
    assert_eq!((topic.as_str(), &payload[..]), ("w/t", &b"bye"[..]));
    assert_eq!((qos, retain, delay_seconds), (Qos::ExactlyOnce, true, 0));
    assert_eq!(properties, None);
    assert_eq!((seen.protocol, seen.client_id.as_str(), seen.keep_alive), (V311, "id", 60));
    assert_eq!(seen.username.as_deref(), Some("user"));
    // An empty password is a password.
    assert_eq!(seen.password.as_deref(), Some(&[][..]));
    assert_eq!((seen.clean_start, seen.session_expiry), (true, 0));
    assert_eq!((seen.receive_maximum, seen.maximum_packet_size), (u16::MAX, u32::MAX));
    assert!(seen.problem_information && !seen.enhanced_authentication);
    assert_eq!(seen.topic_alias_maximum, 0);

    // Without Clean Session, a session never expires; the empty id is the handshake's to refuse.
    let seen = connected(&connect(V311, 0, &[], &[&field("")]));
    assert_eq!((seen.clean_start, seen.session_expiry), (false, u32::MAX));
    assert_eq!((seen.client_id.as_str(), seen.username, seen.password), ("", None, None));
}

#[test]
fn connect_5() {
    let session = [
        &[0x11, 0, 0, 1, 0, 0x21, 0, 5, 0x27, 0, 1, 0, 0, 0x22, 0, 7, 0x17, 0, 0x19, 1, 0x15][..],
        &field("SCRAM"),
        &user("a", "1"),
        &user("a", "2"),
    ]
    .concat();
    let will = [&[0x18, 0, 0, 0, 9, 0x02, 0, 0, 0, 3][..], &user("w", "")].concat();
    let payload = [field("id"), block(&will), field("w"), field(""), field("pw")];
    let payload: Vec<&[u8]> = payload.iter().map(Vec::as_slice).collect();
    // Will, no Clean Start, and a password without a user name.
    let seen = connected(&connect(V5, 0x44, &session, &payload));
    assert_eq!((seen.protocol, seen.clean_start, seen.session_expiry), (V5, false, 256));
    assert_eq!((seen.receive_maximum, seen.maximum_packet_size), (5, 65536));
    assert_eq!((seen.topic_alias_maximum, seen.problem_information), (7, false));
    assert!(seen.enhanced_authentication);
    assert_eq!(seen.user_properties, [("a".into(), "1".into()), ("a".into(), "2".into())]);
    assert_eq!((seen.username, seen.password.as_deref()), (None, Some(&b"pw"[..])));
    let will = seen.will.unwrap();
    assert_eq!((will.delay_seconds, will.qos, will.retain), (9, Qos::AtMostOnce, false));
    let expected = Properties {
        expiry_seconds: Some(3),
        user_properties: vec![("w".into(), String::new())],
        ..Properties::default()
    };
    assert_eq!(will.properties.as_deref(), Some(&expected));

    // Nothing said: the session ends with the connection, also without Clean Start.
    let seen = connected(&connect(V5, 0, &[], &[&field("")]));
    assert_eq!((seen.session_expiry, seen.receive_maximum), (0, u16::MAX));
    assert!(seen.user_properties.is_empty());
}

fn published<'a>(bytes: &'a [u8], protocol: hook::Protocol) -> Publish<'a> {
    match decode(bytes, protocol) {
        Ok(Packet::Publish(publish)) => publish,
        other => panic!("{other:?}"),
    }
}

#[test]
fn publish_borrows_from_the_frame() {
    for protocol in [V311, V5] {
        let none = super::build::properties(protocol, &[]);
        let bytes = packet(0x3b, &[&field("a/\u{e9}"), &[1, 2], &none, b"\0\xff"]);
        let seen = published(&bytes, protocol);
        assert_eq!((seen.dup, seen.qos, seen.retain), (true, Qos::AtLeastOnce, true));
        assert_eq!((seen.topic, seen.packet_id, seen.alias), ("a/\u{e9}", 0x102, None));
        assert_eq!((seen.payload, seen.properties), (&b"\0\xff"[..], None));
        let within = bytes.as_ptr_range();
        assert!(within.contains(&seen.topic.as_ptr()) && within.contains(&seen.payload.as_ptr()));
    }
}

#[test]
fn publish_with_all_properties() {
    let all = [
        &[0x01, 1, 0x02, 0, 0, 0, 60, 0x03][..],
        &field("type"),
        &[0x08],
        &field("r/t"),
        &[0x09],
        &field([0, 1]),
        &[0x23, 0, 3],
        &user("k", "v"),
        &user("k", ""),
    ]
    .concat();
    let bytes = packet(0x30, &[&field(""), &block(&all), b"x"]);
    let seen = published(&bytes, V5);
    assert_eq!((seen.topic, seen.alias, seen.packet_id), ("", Some(3), 0));
    assert_eq!(seen.payload, b"x");
    let expected = Properties {
        payload_is_utf8: Some(true),
        expiry_seconds: Some(60),
        content_type: Some("type".into()),
        response_topic: Some("r/t".into()),
        correlation_data: Some(bytes::Bytes::from_static(&[0, 1])),
        user_properties: vec![("k".into(), "v".into()), ("k".into(), String::new())],
    };
    assert_eq!(seen.properties.as_deref(), Some(&expected));
    // An alias belongs to the connection: it alone makes no properties that travel on.
    let bytes = packet(0x30, &[&field("a"), &block(&[0x23, 0, 3])]);
    assert_eq!(published(&bytes, V5).properties, None);
}

#[test]
fn acknowledgements() {
    let ack = |reason| Ack { packet_id: 0x1234, reason };
    for protocol in [V311, V5] {
        let seen = |first| format!("{:?}", decode(&[first, 2, 0x12, 0x34], protocol).unwrap());
        assert_eq!(seen(0x40), format!("{:?}", Packet::PubAck(ack(0))));
        assert_eq!(seen(0x50), format!("{:?}", Packet::PubRec(ack(0))));
        assert_eq!(seen(0x62), format!("{:?}", Packet::PubRel(ack(0))));
        assert_eq!(seen(0x70), format!("{:?}", Packet::PubComp(ack(0))));
    }
    for tail in [&[][..], &[0][..], &block(&user("k", "v"))[..]] {
        let bytes = packet(0x50, &[&[0x12, 0x34, 0x97], tail]);
        let Ok(Packet::PubRec(seen)) = decode(&bytes, V5) else { panic!("{bytes:02x?}") };
        assert_eq!(seen, ack(0x97));
    }
}

#[test]
fn subscriptions() {
    let options = |qos, no_local, retain_as_published, retain_handling| SubscribeFilter {
        filter: "a/+".into(),
        qos,
        no_local,
        retain_as_published,
        retain_handling,
    };
    for (bits, expected) in [
        (0x00, options(Qos::AtMostOnce, false, false, RetainHandling::Send)),
        (0x15, options(Qos::AtLeastOnce, true, false, RetainHandling::SendIfNew)),
        (0x2a, options(Qos::ExactlyOnce, false, true, RetainHandling::DoNotSend)),
    ] {
        let body = [&[0, 7][..], &block(&[0x0b, 0x80, 1]), &field("a/+"), &[bits]];
        let bytes = packet(0x82, &[&body.concat(), &field("b"), &[0]]);
        let Ok(Packet::Subscribe(seen)) = decode(&bytes, V5) else { panic!("{bytes:02x?}") };
        assert_eq!((seen.packet_id, seen.identifier, seen.filters.len()), (7, Some(128), 2));
        assert_eq!(seen.filters[0], expected);
    }
    let bytes = packet(0x82, &[&[0, 7], &field("a/+"), &[2]]);
    let Ok(Packet::Subscribe(seen)) = decode(&bytes, V311) else { panic!("{bytes:02x?}") };
    assert_eq!(seen.identifier, None);
    assert_eq!(seen.filters, [options(Qos::ExactlyOnce, false, false, RetainHandling::Send)]);

    let bytes = packet(0xa2, &[&[0, 7], &field("a/+"), &field("b")]);
    let Ok(Packet::Unsubscribe(seen)) = decode(&bytes, V311) else { panic!("{bytes:02x?}") };
    assert_eq!((seen.packet_id, seen.filters), (7, vec!["a/+".to_owned(), "b".to_owned()]));
}

#[test]
fn disconnect() {
    let expiry = block(&[0x11, 0, 0, 0, 9]);
    for (body, reason, session_expiry) in [
        (&[][..], 0, None),
        (&[4][..], 4, None),
        (&[4, 0][..], 4, None),
        (&[&[0x81][..], &expiry].concat()[..], 0x81, Some(9)),
    ] {
        let bytes = packet(0xe0, &[body]);
        let Ok(Packet::Disconnect(seen)) = decode(&bytes, V5) else { panic!("{bytes:02x?}") };
        assert_eq!(seen, Disconnect { reason, session_expiry });
    }
}
