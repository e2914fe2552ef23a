//! CONNECT and CONNACK.

use crate::support::*;

/// The properties with which the broker accepts a client of MQTT 5: Receive Maximum 64, Maximum
/// Packet Size 1 MiB, Topic Alias Maximum 32.
const OFFER: [u8; 11] = [0x21, 0, 64, 0x27, 0, 0x10, 0, 0, 0x22, 0, 32];

/// [MQTT-3.1.4-5], [MQTT-3.2.0-1], [MQTT-3.2.0-2], [MQTT-3.2.2-1], [MQTT-3.2.2-20]
#[test]
fn is_accepted_byte_by_byte() {
    let site = site();
    site.greet(&Connect::new(V4, "a")).expect(&[0x20, 2, 0, 0]);
    let expected = frame(0x20, &[&[0, 0, 11][..], &OFFER].concat());
    site.greet(&Connect::new(V5, "b")).expect(&expected);
}

/// [MQTT-3.1.0-1], [MQTT-3.14.0-1]
#[test]
fn anything_else_first_is_not_answered() {
    let site = site();
    for first in [&PINGREQ[..], &Publish::new("a", "x").bytes(V4), b"GET / HTTP/1.1\r\n\r\n"] {
        let mut wire = site.open();
        wire.throw(first);
        wire.closed();
    }
}

/// [MQTT-3.1.0-2]: whatever it says, also where it would be wrong as the first one.
#[test]
fn a_second_connect_ends_the_connection() {
    let site = site();
    for version in BOTH {
        let connect = Connect::new(version, "twice");
        let future = Connect { version: 6, ..connect.clone() };
        for second in [connect.bytes(), future.bytes(), connect.bytes_with_flags(1)] {
            let mut wire = site.enter(&connect, false);
            wire.send(&second);
            wire.ended(0x82);
        }
    }
}

/// Level 4 with the top bit set, as mosquitto's bridges say it: 3.1.1, but nothing comes back of what
/// it publishes, and RETAIN stays as it was published.
#[test]
fn a_bridge_gets_no_echo_and_retain_as_published() {
    let site = site();
    let hello = |clean: u8| {
        let head = [&text("MQTT")[..], &[0x84, clean << 1, 0, 0], &text("bridge")].concat();
        frame(0x10, &head)
    };
    for clean in [0, 1] {
        let mut bridge = site.open();
        bridge.version = V4;
        bridge.send(&hello(clean));
        bridge.expect(&[0x20, 2, 0, 0]);
        bridge.subscribe("both/#", 2);
        bridge.subscribe("$share/g/shared", 1);
        let mut other = site.subscriber(V4, "other", "#", 0);
        for qos in 0..=2 {
            bridge.publish(Publish::new("both/x", "mine").qos(qos, 7));
            match qos {
                0 => {}
                1 => bridge.expect(&puback(7)),
                _ => bridge.expect(&pubrec(7)),
            }
            assert_eq!(other.received().text(), "mine");
        }
        bridge.send(&pubrel(7));
        bridge.expect(&pubcomp(7));
        bridge.silent();
        for retain in [false, true] {
            let publish = Publish::new("both/y", "theirs").qos(1, 1);
            site.publish(if retain { publish.retained() } else { publish });
            let got = bridge.received();
            assert_eq!((got.text(), got.first & 1), ("theirs", u8::from(retain)));
            bridge.send(&puback(got.id));
        }
        site.publish(Publish::new("both/y", "").qos(1, 1).retained());
        let got = bridge.received();
        bridge.send(&puback(got.id));
        bridge.publish(Publish::new("shared", "to anybody"));
        assert_eq!(bridge.received().text(), "to anybody");
        bridge.vanish();
    }
}

/// [MQTT-3.1.2-1], [MQTT-3.1.2-2]
#[test]
fn other_protocols_are_refused() {
    let site = site();
    let named = |name: &str, level: u8| {
        let mut body = text(name);
        body.extend([level, 2, 0, 0]);
        body.extend(text("a"));
        frame(0x10, &body)
    };
    let refused = |name, level| {
        let mut wire = site.open();
        wire.send(&named(name, level));
        wire
    };
    for (name, level) in [("MQIsdp", 3), ("MQTT", 3), ("MQIsdp", 0x83)] {
        let mut wire = refused(name, level);
        wire.expect(&[0x20, 2, 0, 1]);
        wire.closed();
    }
    let mut future = refused("MQTT", 6);
    assert_eq!(future.packet()[..4][3], 0x84);
    future.closed();
    for name in ["MQTT ", "mqtt", "AMQP", ""] {
        refused(name, 4).closed();
    }
    BOTH.iter().for_each(|version| site.client(*version, "a").leave());
}

/// [MQTT-3.1.4-1], [MQTT-3.1.2-3], [MQTT-3.1.2-11], [MQTT-3.1.2-12], [MQTT-3.1.2-13]
#[test]
fn forbidden_flags_are_malformed() {
    let site = site();
    let will = Will::new("w", "");
    for version in BOTH {
        let plain = Connect::new(version, "a");
        let cases = [
            (plain.clone(), 0x03),
            (plain.clone(), 0x0a),
            (plain.clone(), 0x22),
            (plain.clone().will(will.clone()), 0x1e),
        ];
        for (connect, flags) in cases {
            let mut wire = site.open();
            wire.send(&connect.bytes_with_flags(flags));
            if version == V5 {
                assert_eq!(wire.packet()[3], 0x81, "{flags:02x}");
            }
            wire.closed();
        }
    }
}

/// [MQTT-3.1.2-9], [MQTT-3.1.2-16], [MQTT-3.1.2-17], [MQTT-3.1.2-18], [MQTT-3.1.2-19],
/// [MQTT-3.1.3-1], [MQTT-3.1.3-3]: the flags say which fields there are, to the last one.
#[test]
fn the_payload_has_what_the_flags_say() {
    let site = site();
    for version in BOTH {
        let plain = Connect::new(version, "a");
        let full = plain.clone().will(Will::new("w", "x")).user("u").password("p");
        let (all, fields) = (full.flags(), full.payload());
        site.enter(&full, false).leave();
        let login = plain.clone().user("u");
        let cases = [
            // Fields that no flag announces.
            (plain.flags(), fields.clone()),
            (plain.flags(), login.payload()),
            (login.flags(), login.clone().password("p").payload()),
            // Flags without their fields.
            (all, fields[..fields.len() - 1].to_vec()),
            (all, fields[..fields.len() - 3].to_vec()),
            (plain.flags() | 0x04, plain.payload()),
            (plain.flags() | 0x80, plain.payload()),
            (plain.flags() | 0xc0, login.payload()),
            (plain.flags(), Vec::new()),
        ];
        for (flags, payload) in cases {
            let mut wire = site.open();
            wire.send(&plain.frame(flags, &payload));
            if version == V5 {
                assert_eq!(wire.packet()[3], 0x81, "{flags:02x} {payload:02x?}");
            }
            wire.closed();
        }
    }
}

/// [MQTT311-3.1.2-22]: no password without a user name. MQTT 5 takes it.
#[test]
fn a_password_alone_is_for_mqtt_5() {
    let site = site();
    site.greet(&Connect::new(V4, "a").password("p")).closed();
    site.enter(&Connect::new(V5, "a").password("p"), false).leave();
}

/// [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-3.1.3-4], [MQTT-3.1.3-11], [MQTT-3.1.3-12]
#[test]
fn strings_are_utf_8() {
    let site = site();
    for version in BOTH {
        let good = Connect::new(version, "a").will(Will::new("w", "x")).user("u");
        let properties = if version == V5 { &[0][..] } else { &[] };
        for bad in [&b"\xff"[..], b"\xed\xa0\x80", b"\xc0\x80", b"\0"] {
            let payload = |id: &[u8], topic: &[u8], user: &[u8]| {
                [&text(id), properties, &text(topic), &text("x"), &text(user)].concat()
            };
            let cases =
                [payload(bad, b"w", b"u"), payload(b"a", bad, b"u"), payload(b"a", b"w", bad)];
            for payload in cases {
                let mut wire = site.open();
                wire.send(&good.frame(good.flags(), &payload));
                if version == V5 {
                    assert_eq!(wire.packet()[3], 0x81);
                }
                wire.closed();
            }
        }
        // Will payload and password are bytes.
        let will = [properties, &text("w"), &text(b"\xff\0")].concat();
        let payload = [text("a"), will, text("u"), text(b"\xff\0")].concat();
        let mut wire = site.open();
        wire.version = version;
        wire.send(&good.frame(good.flags() | 0x40, &payload));
        assert_eq!(wire.packet()[3], 0);
        wire.leave();
    }
}

/// MQTT 5.0, 1.5.4 and 1.5.6: as long as their two bytes of length can say.
#[test]
fn fields_may_be_65535_bytes_long() {
    let site = site();
    let long = "x".repeat(65_535);
    for version in BOTH {
        let connect = Connect::new(version, &long).user(&long).password(&long);
        let will = Will { retain: true, ..Will::new(&long, &long) };
        site.enter(&connect.will(will), false).vanish();
        let mut late = site.subscriber(version, "late", "#", 0);
        late.expect_publish(Publish::new(&long, &long).retained());
    }
}

/// [MQTT-3.1.2-28], [MQTT-4.12.0-6]: nothing that was not asked for, nor that the broker does not
/// have; asked for or not.
#[test]
fn no_response_information_is_given() {
    let site = site();
    let expected = frame(0x20, &[&[0, 0, 11][..], &OFFER].concat());
    for asked in [vec![], vec![0x19, 0], vec![0x19, 1]] {
        site.greet(&Connect::new(V5, "a").with(&asked)).expect(&expected);
    }
}

/// [MQTT-3.1.4-2], [MQTT-3.1.4-6], [MQTT-3.2.2-7]: nor is its will left behind.
#[test]
fn nothing_behind_a_refused_connect_is_handled() {
    let site = site();
    let mut watcher = site.subscriber(V5, "watcher", "#", 1);
    let method = [vec![0x15], text("X")].concat();
    let refused = Connect::new(V5, "a").with(&method).will(Will::new("w", "gone"));
    let publish = Publish::new("t", "x").qos(1, 1).bytes(V5);
    let mut wire = site.open();
    wire.send(&[refused.bytes(), publish.clone()].concat());
    assert_eq!(wire.packet()[3], 0x8c);
    wire.closed();
    let mut wire = site.open();
    let bad = Connect::lasting(V4, "").will(Will::new("w", "gone"));
    wire.send(&[bad.bytes(), publish].concat());
    wire.expect(&[0x20, 2, 0, 2]);
    wire.closed();
    watcher.silent();
}

/// [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16]
#[test]
fn an_empty_client_id_is_replaced() {
    let site = site();
    site.client(V4, "");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let ack = site.greet(&Connect::new(V5, "")).packet();
        let at = ack.iter().position(|b| *b == 0x12).expect("an assigned client id");
        let len = usize::from(ack[at + 2]);
        ids.push(ack[at + 3..at + 3 + len].to_vec());
    }
    assert!(ids[0].len() > 8 && ids[0] != ids[1], "{ids:?}");
}

/// [MQTT-3.1.3-8], [MQTT-3.2.2-6], [MQTT311-3.1.3-8]: for 3.1.1 an empty client id needs a clean session.
#[test]
fn an_empty_client_id_without_clean_session_is_refused() {
    let site = site();
    let mut wire = site.greet(&Connect::lasting(V4, ""));
    wire.expect(&[0x20, 2, 0, 2]);
    wire.closed();
    assert_eq!(site.greet(&Connect::lasting(V5, "")).packet()[3], 0, "MQTT 5 knows no such rule");
}

/// [MQTT-3.1.3-5]: and far more than the 23 letters that have to be taken.
#[test]
fn client_ids_may_have_any_character() {
    let site = site();
    for version in BOTH {
        for id in ["a+b#c/$d", "é ü 漢", &"x".repeat(65_535)] {
            site.client(version, id).silent();
        }
    }
}

/// [MQTT-3.1.2-22]: 0 turns the timeout off.
#[test]
fn keep_alive_zero_is_accepted() {
    let site = site();
    for version in BOTH {
        site.enter(&Connect { keep_alive: 0, ..Connect::new(version, "z") }, false).silent();
    }
}

/// [MQTT-3.1.3-11]: and a will topic is a topic name.
#[test]
fn a_will_topic_with_wildcards_is_refused() {
    let site = site();
    for topic in ["a/#", "+", ""] {
        let will = Will::new(topic, "");
        let mut wire = site.greet(&Connect::new(V5, "w").will(will.clone()));
        assert_eq!(wire.packet()[3], 0x90, "{topic}");
        wire.closed();
        assert_ne!(site.greet(&Connect::new(V4, "w").will(will)).packet()[3], 0, "{topic}");
    }
}

/// [MQTT-4.12.0-1], [MQTT-4.12.0-4], [MQTT-4.12.0-6], [MQTT-3.2.2-7]: no method of enhanced authentication is offered.
#[test]
fn enhanced_authentication_is_refused() {
    let site = site();
    let method = [vec![0x15], text("SCRAM-SHA-1")].concat();
    let mut wire = site.greet(&Connect::new(V5, "a").with(&method));
    assert_eq!(wire.packet()[3], 0x8c);
    wire.closed();
    // Data without a method is a protocol error, and so is an AUTH out of nothing.
    let data = [vec![0x16], text("x")].concat();
    assert_eq!(site.greet(&Connect::new(V5, "a").with(&data)).packet()[3], 0x82);
    let mut wire = site.client(V5, "a");
    wire.send(&[0xf0, 0]);
    wire.ended(0x82);
    // Not with a method either [MQTT-4.12.1-2], nor a broken one [MQTT-3.15.1-1],
    // [MQTT-3.15.2-1].
    let again = [&[0x19][..], &variable(method.len()), &method].concat();
    for (packet, code) in
        [(frame(0xf0, &again), 0x82), (frame(0xf1, &again), 0x81), (frame(0xf0, &[0x17, 0]), 0x81)]
    {
        let mut wire = site.client(V5, "a");
        wire.send(&packet);
        wire.ended(code);
    }
    // 3.1.1 has no such packet.
    let mut wire = site.client(V4, "b");
    wire.send(&[0xf0, 0]);
    wire.closed();
}

/// [MQTT-3.1.4-1]: a property that stands twice, or has a value that it may not have.
#[test]
fn bad_connect_properties_are_refused() {
    let site = site();
    for (property, code) in [
        (vec![0x21, 0, 0], 0x82),
        (seconds(0x27, 0), 0x82),
        (vec![0x17, 2], 0x82),
        (vec![0x19, 2], 0x82),
        ([seconds(0x11, 1), seconds(0x11, 1)].concat(), 0x82),
        (vec![0x23, 0, 1], 0x81),
        (vec![0x7f], 0x81),
        (vec![0x11, 0], 0x81),
    ] {
        let mut wire = site.greet(&Connect::new(V5, "p").with(&property));
        assert_eq!(wire.packet()[3], code, "{property:02x?}");
        wire.closed();
    }
}

/// [MQTT-3.2.2-6], [MQTT-3.2.2-19]: a refusal has no reason string where the client could not take it.
#[test]
fn a_refusal_fits_the_clients_maximum_packet_size() {
    let site = site();
    let method = [seconds(0x27, 20), vec![0x15], text("SCRAM")].concat();
    site.greet(&Connect::new(V5, "a").with(&method)).expect(&[0x20, 3, 0, 0x8c, 0]);
}

/// What comes behind the CONNECT in one segment is not lost.
#[test]
fn packets_may_follow_at_once() {
    let site = site();
    for version in BOTH {
        let mut wire = site.open();
        wire.version = version;
        wire.send(&[&Connect::new(version, "fast").bytes()[..], &PINGREQ, &PINGREQ].concat());
        wire.packet();
        wire.expect(&PINGRESP);
        wire.expect(&PINGRESP);
    }
}

/// Bytes may come one by one.
#[test]
fn packets_may_come_in_pieces() {
    let site = site();
    for version in BOTH {
        let mut wire = site.open();
        wire.version = version;
        for byte in Connect::new(version, "slow").bytes() {
            wire.send(&[byte]);
        }
        assert_eq!(wire.packet()[3], 0);
        for byte in Publish::new("t", "x").qos(1, 7).bytes(version) {
            wire.send(&[byte]);
        }
        wire.expect(&puback(7));
    }
}

/// MQTT 5.0, 4.13 and 5.4.9: a socket that says nothing, or half of a CONNECT, is closed.
#[test]
fn a_connect_has_its_time() {
    let connect_timeout = std::time::Duration::from_millis(50);
    let site = site_with(broker::Settings { connect_timeout, ..broker::Settings::default() });
    site.open().closed();
    let mut half = site.open();
    half.send(&Connect::new(V5, "half").bytes()[..9]);
    half.closed();
}

/// Connections beyond the limit are closed, and those that are there go on.
#[test]
fn connections_are_limited() {
    let mut settings = broker::Settings::default();
    settings.limits.connections = 1;
    let site = site_with(settings);
    let mut first = site.client(V4, "first");
    site.open().closed();
    first.silent();
}

/// [MQTT-3.1.4-5]: a client may send on without waiting for the CONNACK, and hears a refusal all the
/// same: a reset would take it back on its way.
#[test]
fn who_sends_on_hears_that_it_was_refused() {
    let site = site();
    // An authentication method.
    let connect = Connect::new(V5, "c").with(&[&[0x15][..], &text("x")].concat());
    let mut wire = site.open();
    wire.throw(&[connect.bytes(), vec![0x30; 200_000]].concat());
    let ack = wire.packet();
    assert_eq!((ack[0], ack[3]), (0x20, 0x8c), "{ack:02x?}");
    wire.closed();
    // What is on its way meets nobody who would reset the connection.
    for _ in 0..100 {
        wire.send(&[0x30; 1000]);
    }
}
