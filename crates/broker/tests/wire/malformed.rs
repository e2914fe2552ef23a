//! Bytes that are no packet, or not one that a client sends.

use crate::support::*;

/// [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-4.13.1-1]: reserved types and flags.
#[test]
fn reserved_bits_end_the_connection() {
    let site = site();
    for version in BOTH {
        for first in [0x00, 0x41, 0x5f, 0x60, 0x63, 0x72, 0x80, 0x8f, 0xa0, 0xc8, 0xef, 0xff] {
            let mut wire = site.client(version, "bad");
            wire.throw(&[first, 2, 0, 1]);
            wire.ended(0x81);
        }
    }
}

/// Packets that only servers send: to be refused like any other, with the listener unharmed.
#[test]
fn packets_of_servers_end_the_connection() {
    let site = site();
    for version in BOTH {
        for packet in [
            frame(0x20, &[0, 0, 0]),
            suback(version, 1, &[0]),
            unsuback(version, 1, &[0]),
            PINGRESP.to_vec(),
        ] {
            let mut wire = site.client(version, "bad");
            wire.send(&packet);
            wire.ended(0x82);
            site.client(version, "bad").leave();
        }
    }
}

/// [MQTT-1.5.5-1]: a remaining length of five bytes, or longer than it need be.
#[test]
fn bad_remaining_lengths_end_the_connection() {
    let site = site();
    for version in BOTH {
        for bytes in [&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01][..], &[0xc0, 0x80, 0x00]] {
            let mut wire = site.client(version, "bad");
            wire.throw(bytes);
            wire.ended(0x81);
        }
    }
}

/// [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-3.3.2-1]; [MQTT-1.5.4-3]: a byte order mark is a
/// character, and so are those that mean nothing.
#[test]
fn strings_are_utf_8() {
    let site = site();
    let raw = |version, topic: &[u8]| {
        let properties = if version == V5 { &[0][..] } else { &[] };
        frame(0x30, &[&text(topic)[..], properties].concat())
    };
    for version in BOTH {
        for topic in [&b"\xff"[..], b"a\xc0\x80", b"\xed\xa0\x80", b"a\xe2\x82", b"a\0"] {
            let mut wire = site.client(version, "bad");
            wire.send(&raw(version, topic));
            wire.ended(0x81);
        }
        let mut wire = site.subscriber(version, "good", "#", 0);
        for topic in
            ["\u{feff}a", "\u{ffff}", "\u{fdd0}/\u{10ffff}", "\u{1}\u{7f}\u{9f}", "\u{d7ff}"]
        {
            wire.send(&raw(version, topic.as_bytes()));
            wire.expect_publish(Publish::new(topic, ""));
        }
    }
}

/// A body that ends too early, or goes on too long.
#[test]
fn bodies_have_exactly_their_length() {
    let site = site();
    for version in BOTH {
        for packet in [
            frame(0x30, &[0, 9, b'a']),
            frame(0x32, &[0, 1, b'a', 0]),
            frame(0x40, &[0]),
            frame(0x82, &[0, 1, 0, 0, 9, b'a']),
            frame(0xe0, &[0, 9, 9]),
        ] {
            let mut wire = site.client(version, "bad");
            wire.send(&packet);
            wire.ended(0x81);
        }
    }
    // 3.1.1 acknowledgements end with their packet id.
    let mut wire = site.client(V4, "bad");
    wire.send(&frame(0x40, &[0, 1, 0]));
    wire.closed();
}

/// [MQTT-1.5.7-1], [MQTT-3.3.2-13], [MQTT-3.3.2-19]: and MQTT 5.0, 2.2.2.2: a property of another
/// packet, one that stands twice, one cut short.
#[test]
fn bad_properties_end_the_connection() {
    let site = site();
    for (properties, code) in [
        (vec![0x11, 0, 0, 0, 1], 0x81),
        (vec![0x01, 0, 0x01, 0], 0x82),
        (vec![0x01, 2], 0x82),
        (vec![0x02, 0, 0], 0x81),
        (vec![0xff, 0xff, 0x7f], 0x81),
        ([vec![0x26], text("name"), vec![0, 9]].concat(), 0x81),
        ([vec![0x26], text(b"\xff"), text("value")].concat(), 0x81),
        ([vec![0x26], text("name"), text(b"a\0")].concat(), 0x81),
        ([vec![0x03], text(b"\xc3\x28")].concat(), 0x81),
        ([vec![0x08], text(b"\xed\xa0\x80")].concat(), 0x81),
        ([vec![0x08], text("")].concat(), 0x82),
        (vec![0x0b, 0x80, 0x00], 0x81),
    ] {
        let mut wire = site.client(V5, "bad");
        wire.publish(Publish::new("t", "x").with(&properties));
        wire.ended(code);
    }
}
