//! Packets that MQTT forbids, each a whole frame, with the clause and the reason code.
//!
//! Clauses are those of MQTT 5.0; where 3.1.1 alone has a rule, it says so.

use hook::Protocol::{self, V5, V311};

use super::{
    build::{block, connect, field, level, packet, properties, user},
    first, topics_hold,
};
use crate::{codec::CodecError, packet::reason::*};

struct Case {
    protocol: Protocol,
    clause: &'static str,
    what: &'static str,
    bytes: Vec<u8>,
    /// `None`: the codec lets it through, and `crate::topic` refuses it one step later, so that
    /// the handshake or the session can say which topic it was.
    reason: Option<u8>,
}

/// Adds to the table: clause, what is wrong, packet, reason code.
fn refused(
    protocol: Protocol,
    cases: &mut Vec<Case>,
) -> impl FnMut(&'static str, &'static str, Vec<u8>, u8) {
    move |clause, what, bytes, reason| {
        cases.push(Case { protocol, clause, what, bytes, reason: Some(reason) });
    }
}

/// Those of both versions.
fn common(protocol: Protocol, cases: &mut Vec<Case>) {
    let mut add = refused(protocol, cases);
    const BAD: u8 = MALFORMED_PACKET;
    const NO: u8 = PROTOCOL_ERROR;
    let none = &properties(protocol, &[])[..];
    let id = &[0, 7][..];
    let (a, c) = (&field("a")[..], &field("c")[..]);
    let hello = |flags: u8, payload: &[&[u8]]| connect(protocol, flags, &[], payload);
    let publish = |first: u8, topic: &[u8], id: &[u8]| packet(first, &[&field(topic), id, none]);
    let subscribe =
        |filter: &[u8], options: &[u8]| packet(0x82, &[id, none, &field(filter), options]);

    let flags = "MQTT-2.1.3-1";
    add(flags, "PUBACK flags 1", packet(0x41, &[id]), BAD);
    add(flags, "PUBREC flags 2", packet(0x52, &[id]), BAD);
    add(flags, "PUBREL flags 0", packet(0x60, &[id]), BAD);
    add(flags, "PUBCOMP flags 2", packet(0x72, &[id]), BAD);
    add(flags, "SUBSCRIBE flags 0", packet(0x80, &[id, none, a, &[0]]), BAD);
    add(flags, "UNSUBSCRIBE flags 0", packet(0xa0, &[id, none, a]), BAD);
    let mut bytes = hello(2, &[c]);
    bytes[0] = 0x11;
    add(flags, "CONNECT flags 1", bytes, BAD);
    add(flags, "PINGREQ flags 1", packet(0xc1, &[]), BAD);
    add(flags, "DISCONNECT flags 1", packet(0xe1, &[]), BAD);
    add("2.1.2", "packet type 0", packet(0, &[]), BAD);
    add("2.1.2", "CONNACK from a client", packet(0x20, &[&[0, 0], none]), NO);
    add("2.1.2", "SUBACK from a client", packet(0x90, &[id, none, &[0]]), NO);
    add("2.1.2", "UNSUBACK from a client", packet(0xb0, &[id, none]), NO);
    add("2.1.2", "PINGRESP from a client", packet(0xd0, &[]), NO);
    add("1.5.5", "remaining length of five bytes", vec![0x30, 0x80, 0x80, 0x80, 0x80, 1, 0], BAD);
    add(
        "2.1.4",
        "more than the maximum packet size",
        vec![0x30, 0xff, 0xff, 0x7f],
        PACKET_TOO_LARGE,
    );

    let will = [c, none, &field("t"), &field("m")].concat();
    add("MQTT-3.1.2-3", "CONNECT flags bit 0", hello(3, &[c]), BAD);
    add("MQTT-3.1.2-12", "will QoS 3", hello(0x1e, &[&will]), BAD);
    add("MQTT-3.1.2-11", "will QoS without will", hello(0x0a, &[c]), BAD);
    add("MQTT-3.1.2-13", "will retain without will", hello(0x22, &[c]), BAD);
    let other =
        |name: &str, number: u8| packet(0x10, &[&field(name), &[number, 2, 0, 60], none, c]);
    let version = UNSUPPORTED_PROTOCOL_VERSION;
    add("MQTT-3.1.2-2", "protocol level 6", other("MQTT", 6), version);
    add("MQTT-3.1.2-2", "protocol level 0", other("MQTT", 0), version);
    add("MQTT-3.1.2-2", "protocol level 3", other("MQTT", 3), version);
    add("MQTT-3.1.2-2", "MQTT 3.1", other("MQIsdp", 3), version);
    add("MQTT-3.1.2-1", "protocol name MQTX", other("MQTX", level(protocol)), NO);
    add("MQTT-3.1.2-1", "protocol name mqtt", other("mqtt", level(protocol)), NO);
    add("1.2", "CONNECT goes on", hello(2, &[c, b"zz"]), BAD);
    add("MQTT-3.1.3-1", "CONNECT without client id", hello(2, &[]), BAD);
    add("MQTT-3.1.3-1", "CONNECT without the user name", hello(0x82, &[c]), BAD);
    add("MQTT-1.5.4-2", "NUL in the client id", hello(2, &[&field("a\0b")]), BAD);
    add("MQTT-1.5.4-1", "bad UTF-8 in the client id", hello(2, &[&field([0xff, 0x61])]), BAD);
    add("MQTT-1.5.4-1", "surrogate in the client id", hello(2, &[&field([0xed, 0xa0, 0x80])]), BAD);
    add("MQTT-1.5.4-2", "NUL in the user name", hello(0x82, &[c, &field("u\0")]), BAD);
    add(
        "MQTT-1.5.4-2",
        "NUL in the will topic",
        hello(6, &[c, none, &field("\0"), &field("m")]),
        BAD,
    );

    add("MQTT-3.3.1-4", "QoS 3", publish(0x36, b"a", id), BAD);
    add("MQTT-3.3.1-2", "DUP at QoS 0", publish(0x38, b"a", &[]), BAD);
    add("MQTT-2.2.1-3", "PUBLISH packet id 0", publish(0x32, b"a", &[0, 0]), NO);
    add("3.3.2.2", "PUBLISH packet id cut", packet(0x32, &[a, &[0]]), BAD);
    add("MQTT-1.5.4-2", "NUL in the topic", publish(0x30, b"a\0b", &[]), BAD);
    add("MQTT-1.5.4-1", "bad UTF-8 in the topic", publish(0x30, &[0xc3, 0x28], &[]), BAD);
    add("MQTT-1.5.4-1", "overlong UTF-8 in the topic", publish(0x30, &[0xc1, 0x81], &[]), BAD);
    add("MQTT-3.3.2-2", "+ in the topic", publish(0x30, b"a/+", &[]), TOPIC_NAME_INVALID);
    add("MQTT-3.3.2-2", "# in the topic", publish(0x30, b"a/#", &[]), TOPIC_NAME_INVALID);
    add("4.7.3", "topic deeper than ours", publish(0x30, &[b'/'; 128], &[]), TOPIC_NAME_INVALID);
    add("MQTT-4.7.3-1", "neither topic nor alias", publish(0x30, b"", &[]), NO);
    add("1.5.4", "topic longer than the packet", packet(0x30, &[&[0, 9, b'a']]), BAD);
    add("3.3.2.1", "PUBLISH without a topic", packet(0x30, &[]), BAD);

    add("MQTT-2.2.1-3", "PUBACK packet id 0", packet(0x40, &[&[0, 0]]), NO);
    add("MQTT-2.2.1-3", "PUBREL packet id 0", packet(0x62, &[&[0, 0]]), NO);
    add("3.4.2", "PUBACK of one byte", packet(0x40, &[&[0]]), BAD);
    add("3.4.2", "PUBACK of no byte", packet(0x40, &[]), BAD);

    add("MQTT-2.2.1-3", "SUBSCRIBE packet id 0", packet(0x82, &[&[0, 0], none, a, &[0]]), NO);
    add("MQTT-3.8.3-2", "SUBSCRIBE without a filter", packet(0x82, &[id, none]), NO);
    add("3.8.3.1", "subscription QoS 3", subscribe(b"a", &[3]), BAD);
    let reserved = if protocol == V5 { 0x40 } else { 4 };
    add("MQTT-3.8.3-5", "reserved option bits", subscribe(b"a", &[reserved]), BAD);
    add("3.8.3.1", "options missing", subscribe(b"a", &[]), BAD);
    add("MQTT-4.7.3-1", "empty filter", subscribe(b"", &[0]), NO);
    add("MQTT-1.5.4-2", "NUL in a filter", subscribe(b"a\0", &[0]), BAD);
    add("MQTT-2.2.1-3", "UNSUBSCRIBE packet id 0", packet(0xa2, &[&[0, 0], none, a]), NO);
    add("MQTT-3.10.3-2", "UNSUBSCRIBE without a filter", packet(0xa2, &[id, none]), NO);
    add("MQTT-4.7.3-1", "UNSUBSCRIBE of nothing", packet(0xa2, &[id, none, &field("")]), NO);
    add("MQTT-1.5.4-1", "UNSUBSCRIBE bad UTF-8", packet(0xa2, &[id, none, &field([0xff])]), BAD);
    add("3.12", "PINGREQ with a body", packet(0xc0, &[&[1, 2]]), BAD);
}

/// Those of 3.1.1 alone; clauses are its own.
fn old(cases: &mut Vec<Case>) {
    let mut add = refused(V311, cases);
    const BAD: u8 = MALFORMED_PACKET;
    add("2.2.1", "packet type 15", packet(0xf0, &[]), BAD);
    let bytes = connect(V311, 0x42, &[], &[&field("c"), &field("pw")]);
    add("MQTT-3.1.2-22", "password without user name", bytes, BAD);
    add("3.4.1", "PUBACK goes on", packet(0x40, &[&[0, 7, 0]]), BAD);
    add("3.14.1", "DISCONNECT with a body", packet(0xe0, &[&[0]]), BAD);
}

/// Those of 5 alone.
fn new(cases: &mut Vec<Case>) {
    let mut add = refused(V5, cases);
    const BAD: u8 = MALFORMED_PACKET;
    const NO: u8 = PROTOCOL_ERROR;
    let (a, c) = (&field("a")[..], &field("c")[..]);
    let id = &[0, 7][..];
    let publish = |bytes: &[u8]| packet(0x30, &[&field("a"), &block(bytes)]);
    let hello = |bytes: &[u8]| connect(V5, 2, bytes, &[&field("c")]);
    let subscribe = |bytes: &[u8]| packet(0x82, &[&[0, 7], &block(bytes), &field("a"), &[0]]);

    let short = "MQTT-1.5.5-1";
    add(short, "remaining length not shortest", vec![0x30, 0x84, 0, 0, 1, b'a', 0], BAD);
    add(short, "PUBLISH property length not shortest", packet(0x30, &[a, &[0x80, 0]]), BAD);
    add(
        short,
        "SUBSCRIBE property length not shortest",
        packet(0x82, &[id, &[0x80, 0], a, &[0]]),
        BAD,
    );
    add(short, "subscription identifier not shortest", subscribe(&[0x0b, 0x81, 0]), BAD);

    add(
        "MQTT-3.8.3-4",
        "No Local on $share",
        packet(0x82, &[id, &[0], &field("$share/g/a"), &[4]]),
        NO,
    );
    add("3.8.3.1", "Retain Handling 3", packet(0x82, &[id, &[0], a, &[0x30]]), NO);
    add("3.8.2.1.1", "SUBSCRIBE without property length", packet(0x82, &[id]), BAD);
    add("3.8.2.1.2", "subscription identifier 0", subscribe(&[0x0b, 0]), NO);
    add("3.8.2.1.2", "subscription identifier twice", subscribe(&[0x0b, 1, 0x0b, 1]), NO);
    add("2.2.2.2", "SUBSCRIBE: expiry", subscribe(&[2, 0, 0, 0, 1]), BAD);
    add(
        "2.2.2.2",
        "UNSUBSCRIBE: subscription identifier",
        packet(0xa2, &[id, &block(&[0x0b, 1]), a]),
        BAD,
    );

    let once = "2.2.2.2";
    add("3.3.2.3.1", "PUBLISH without property length", packet(0x30, &[a]), BAD);
    add("3.3.2.3.1", "properties past the end", packet(0x30, &[a, &[50, 1]]), BAD);
    add("3.3.2.3.1", "property cut by the length", packet(0x30, &[a, &[3, 2, 0, 0, 0, 1]]), BAD);
    add(
        "1.5.5",
        "property length of five bytes",
        packet(0x30, &[a, &[0x80, 0x80, 0x80, 0x80, 1]]),
        BAD,
    );
    add("3.3.2.3.3", "expiry twice", publish(&[2, 0, 0, 0, 1, 2, 0, 0, 0, 1]), NO);
    add("3.3.2.3.4", "topic alias twice", publish(&[0x23, 0, 1, 0x23, 0, 1]), NO);
    add("3.3.2.3.2", "payload format twice", publish(&[1, 0, 1, 0]), NO);
    add("MQTT-3.3.2-8", "topic alias 0", publish(&[0x23, 0, 0]), TOPIC_ALIAS_INVALID);
    add("2.2.2.2", "PUBLISH: receive maximum", publish(&[0x21, 0, 1]), BAD);
    add("2.2.2.2", "PUBLISH: unknown property 0x7f", publish(&[0x7f, 0, 1]), BAD);
    add("2.2.2.2", "PUBLISH: unknown property 0xff", publish(&[0xff, 0, 1]), BAD);
    add("3.3.2.3.2", "payload format 2", publish(&[1, 2]), NO);
    add("MQTT-1.5.4-2", "NUL in a user property", publish(&user("k\0", "v")), BAD);
    add("MQTT-1.5.4-1", "bad UTF-8 in a user property", publish(&user("k", [0xff])), BAD);
    add(
        "1.5.7",
        "user property without a value",
        publish(&[&[0x26][..], &field("k")].concat()),
        BAD,
    );
    let topic = |name: &str| [&[0x08][..], &field(name)].concat();
    add("MQTT-3.3.2-14", "wildcard in the response topic", publish(&topic("r/#")), NO);
    add("MQTT-4.7.3-1", "empty response topic", publish(&topic("")), NO);
    add("MQTT-3.3.4-6", "subscription identifier from a client", publish(&[0x0b, 1]), NO);

    add("3.1.2.11.3", "receive maximum 0", hello(&[0x21, 0, 0]), NO);
    add("3.1.2.11.4", "maximum packet size 0", hello(&[0x27, 0, 0, 0, 0]), NO);
    add("3.1.2.11.2", "session expiry twice", hello(&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1]), NO);
    add(once, "CONNECT: topic alias", hello(&[0x23, 0, 1]), BAD);
    add(once, "CONNECT: will delay outside the will", hello(&[0x18, 0, 0, 0, 1]), BAD);
    add("3.1.2.11.7", "request problem information 2", hello(&[0x17, 2]), NO);
    add("3.1.2.11.6", "request response information 2", hello(&[0x19, 2]), NO);
    add("3.1.2.11.10", "authentication data without method", hello(&[0x16, 0, 1, 9]), NO);
    let will = |bytes: &[u8]| connect(V5, 6, &[], &[c, &block(bytes), &field("t"), &field("m")]);
    add(once, "will: receive maximum", will(&[0x21, 0, 1]), BAD);
    add("3.1.3.2.2", "will delay twice", will(&[0x18, 0, 0, 0, 1, 0x18, 0, 0, 0, 1]), NO);

    add("MQTT-3.4.2-1", "PUBACK reason 0x7f", packet(0x40, &[&[0, 7, 0x7f]]), BAD);
    add("MQTT-3.4.2-1", "PUBACK reason of another packet", packet(0x40, &[&[0, 7, 4]]), BAD);
    add("MQTT-3.6.2-1", "PUBREL reason of another packet", packet(0x62, &[&[0, 7, 0x10]]), BAD);
    add("1.2", "PUBACK goes on", packet(0x40, &[&[0, 7, 0, 0, 9]]), BAD);
    add("3.4.2.2.1", "PUBACK properties past the end", packet(0x40, &[&[0, 7, 0, 9]]), BAD);
    add(once, "PUBREL: receive maximum", packet(0x62, &[&[0, 7, 0, 3, 0x21, 0, 1]]), BAD);
    add(
        "3.6.2.2.2",
        "reason string twice",
        packet(0x62, &[&[0, 7, 0, 6, 0x1f, 0, 0, 0x1f, 0, 0]]),
        NO,
    );
    add("MQTT-3.14.2-1", "DISCONNECT reason 0x7f", packet(0xe0, &[&[0x7f]]), BAD);
    add(
        "MQTT-3.14.2-1",
        "DISCONNECT reason of servers",
        packet(0xe0, &[&[SERVER_SHUTTING_DOWN]]),
        BAD,
    );
    add("1.2", "DISCONNECT goes on", packet(0xe0, &[&[0, 0, 9]]), BAD);
    add("3.14.2.2.1", "DISCONNECT properties past the end", packet(0xe0, &[&[0, 9]]), BAD);
    add(
        once,
        "DISCONNECT: server reference of servers",
        packet(0xe0, &[&[0], &block(&[0x1c, 0, 0])]),
        BAD,
    );
    let twice = block(&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1]);
    add("3.14.2.2.2", "DISCONNECT expiry twice", packet(0xe0, &[&[0], &twice]), NO);
    let method = block(&[&[0x15][..], &field("m")].concat());
    add("3.15.2.1", "AUTH reason 0x7f", packet(0xf0, &[&[0x7f], &method]), BAD);
    add("3.15.2.1", "AUTH success from a client", packet(0xf0, &[&[0], &method]), NO);
    add("3.15.2.1", "AUTH success, left out", packet(0xf0, &[]), NO);
    add("1.2", "AUTH goes on", packet(0xf0, &[&[0x18], &method, &[9]]), BAD);
    add("3.15.2.2.2", "AUTH without method", packet(0xf0, &[&[0x18, 0]]), NO);
    add("3.15.2.2.2", "AUTH without properties", packet(0xf0, &[&[0x18]]), NO);
}

/// What `crate::topic` refuses, one step behind the codec.
fn topics(protocol: Protocol, cases: &mut Vec<Case>) {
    let mut add = |clause, what, bytes| {
        cases.push(Case { protocol, clause, what, bytes, reason: None });
    };
    let none = &properties(protocol, &[])[..];
    let will =
        |topic: &str| connect(protocol, 6, &[], &[&field("c"), none, &field(topic), &field("m")]);
    let subscribe = |filter: &str| packet(0x82, &[&[0, 7], none, &field(filter), &[0]]);
    add("MQTT-4.7.0-1", "wildcard in the will topic", will("t/#"));
    add("MQTT-4.7.3-1", "empty will topic", will(""));
    add("MQTT-4.7.1-1", "# before the end", subscribe("a/#/b"));
    add("MQTT-4.7.1-2", "+ beside a character", subscribe("a+"));
    add("MQTT-4.8.2-1", "$share/NAME without a filter", subscribe("$share/g"));
    add("MQTT-4.8.2-2", "wildcard in the share name", subscribe("$share/g+/a"));
    let unsubscribe = packet(0xa2, &[&[0, 7], none, &field("a#")]);
    add("MQTT-4.7.1-1", "UNSUBSCRIBE # beside a character", unsubscribe);
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in [V311, V5] {
        common(protocol, &mut cases);
        topics(protocol, &mut cases);
    }
    old(&mut cases);
    new(&mut cases);
    cases
}

#[test]
fn forbidden_packets_are_refused_with_the_reason_of_their_clause() {
    let cases = cases();
    let mut wrong = Vec::new();
    for Case { protocol, clause, what, bytes, reason } in &cases {
        // A packet behind it: one that is read too far would not be noticed otherwise.
        let stream = [&bytes[..], &[0xc0, 0]].concat();
        let seen = first(&stream, *protocol);
        let right = match (reason, &seen) {
            (Some(reason), Err(error)) => error.reason == *reason,
            (None, Ok((packet, _))) => !topics_hold(packet),
            _ => false,
        };
        if !right {
            wrong.push(format!("{protocol:?} [{clause}] {what}: {bytes:02x?} {seen:02x?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The tables 3.4.2.1 to 3.7.2.1, 3.14.2.1 (what clients send) and 3.15.2.1.
#[test]
fn each_packet_has_its_own_reason_codes() {
    let receipt = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99][..];
    let goodbye =
        &[0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99][..];
    let method = block(&[&[0x15][..], &field("m")].concat());
    let id = &[0, 7][..];
    for (first_byte, before, behind, known) in [
        (0x40, id, &[][..], receipt),
        (0x50, id, &[], receipt),
        (0x62, id, &[], &[0x00, 0x92]),
        (0x70, id, &[], &[0x00, 0x92]),
        (0xe0, &[], &[], goodbye),
        (0xf0, &[], &method, &[0x18, 0x19]),
    ] {
        for reason in 0..=u8::MAX {
            let bytes = packet(first_byte, &[before, &[reason], behind]);
            let taken = first(&bytes, V5).is_ok();
            assert_eq!(taken, known.contains(&reason), "{first_byte:02x} {reason:02x}");
        }
    }
}

#[test]
fn a_refused_connect_says_which_version_its_answer_needs() {
    let hello = |name: &str, level: u8| packet(0x10, &[&field(name), &[level, 2, 0, 60]]);
    let refused = |bytes: Vec<u8>| -> CodecError { first(&bytes, V5).unwrap_err() };
    // A version that does not exist yet is newer than 5; what is older reads the form of 3.1.1,
    // as do bridges, which set the top bit of the level.
    for (name, level, answer) in [
        ("MQTT", 6, V5),
        ("MQTT", 3, V311),
        ("MQIsdp", 3, V311),
        ("MQIsdp", 0x83, V311),
        ("MQTT", 0x85, V5),
    ] {
        let error = refused(hello(name, level));
        assert_eq!(error.reason, UNSUPPORTED_PROTOCOL_VERSION, "{name} {level}");
        assert_eq!(error.protocol, Some(answer), "{name} {level}");
    }
    assert_eq!(refused(hello("MQTX", 5)).protocol, None);
    for protocol in [V311, V5] {
        let error = refused(connect(protocol, 2, &[], &[]));
        assert_eq!((error.reason, error.protocol), (MALFORMED_PACKET, Some(protocol)));
    }
    // Before the version, nothing is known.
    assert_eq!(refused(packet(0x10, &[&field("MQTT")])).protocol, None);
}
