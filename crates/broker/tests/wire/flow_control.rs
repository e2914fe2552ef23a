//! Receive Maximum and Maximum Packet Size, in both directions.

use crate::support::*;

/// [MQTT-3.3.4-9], [MQTT-3.3.4-10], [MQTT-4.9.0-1], [MQTT-4.9.0-2], [MQTT-4.9.0-3]
#[test]
fn no_more_is_in_flight_than_the_client_takes() {
    let site = site();
    for qos in [1, 2] {
        let mut wire = site.enter(&Connect::new(V5, "s").with(&[0x21, 0, 2]), false);
        wire.subscribe("t", 2);
        for n in 1..=4 {
            site.publish(Publish::new("t", n.to_string()).qos(qos, 1));
        }
        for n in 1..=2 {
            wire.expect_publish(Publish::new("t", n.to_string()).qos(qos, n));
        }
        // QoS 0 and everything else go on.
        site.publish(Publish::new("t", "0"));
        wire.expect_publish(Publish::new("t", "0"));
        wire.silent();
        for n in 1..=2 {
            if qos == 1 {
                wire.send(&puback(n));
            } else {
                // The PUBCOMP makes room, not the PUBREC.
                wire.send(&pubrec(n));
                wire.expect(&pubrel(n));
                wire.silent();
                wire.send(&pubcomp(n));
            }
            wire.expect_publish(Publish::new("t", (n + 2).to_string()).qos(qos, n + 2));
        }
        wire.silent();
        wire.leave();
    }
}

/// [MQTT-3.3.4-7]: more than the broker's own Receive Maximum of unreleased publishes.
#[test]
fn too_many_unreleased_publishes_end_the_connection() {
    let site = site();
    let mut wire = site.client(V5, "p");
    for id in 1..=64 {
        wire.publish(Publish::new("t", "x").qos(2, id));
        wire.expect(&pubrec(id));
    }
    // Another copy is not another publish, and a release makes room.
    wire.publish(Publish::new("t", "x").qos(2, 64).dup());
    wire.expect(&pubrec(64));
    wire.send(&pubrel(1));
    wire.expect(&pubcomp(1));
    wire.publish(Publish::new("t", "x").qos(2, 65));
    wire.expect(&pubrec(65));
    wire.publish(Publish::new("t", "x").qos(2, 66));
    wire.ended(0x93);
}

/// The count begins anew with each connection (MQTT 5.0, 4.9).
#[test]
fn unreleased_publishes_of_an_earlier_connection_do_not_count() {
    let site = site();
    let connect = Connect::lasting(V5, "p");
    let mut wire = site.enter(&connect, false);
    for id in 1..=64 {
        wire.publish(Publish::new("t", "x").qos(2, id));
        wire.expect(&pubrec(id));
    }
    wire.vanish();
    let mut wire = site.enter(&connect, true);
    for id in 65..=128 {
        wire.publish(Publish::new("t", "x").qos(2, id));
        wire.expect(&pubrec(id));
    }
    // What is released makes room on its own connection alone.
    wire.send(&pubrel(1));
    wire.expect(&pubcomp(1));
    wire.publish(Publish::new("t", "x").qos(2, 1));
    wire.ended(0x93);
}

/// 3.1.1 has no such maximum.
#[test]
fn the_older_version_may_have_more_unreleased() {
    let site = site();
    let mut wire = site.client(V4, "p");
    for id in 1..=500 {
        wire.publish(Publish::new("t", "x").qos(2, id));
        wire.expect(&pubrec(id));
    }
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25]
#[test]
fn larger_packets_than_the_client_takes_are_not_sent() {
    let site = site();
    let mut wire = site.enter(&Connect::new(V5, "s").with(&seconds(0x27, 40)), false);
    wire.subscribe("t", 2);
    // Fixed header 2, topic 3, packet id 2, property length 1: 32 bytes are left.
    for qos in 0..=1 {
        let most = if qos == 0 { 34 } else { 32 };
        let fits = Publish::new("t", "x".repeat(most)).qos(qos, 1);
        site.publish(Publish::new("t", "x".repeat(most + 1)).qos(qos, 1));
        site.publish(fits.clone());
        assert_eq!(fits.bytes(V5).len(), 40);
        wire.expect_publish(fits);
    }
    wire.silent();
}

/// [MQTT-3.1.2-24]: not even the CONNACK: where it does not fit, the client hears as much as does.
#[test]
fn a_connack_fits_the_clients_maximum() {
    let site = site();
    let with_maximum = |maximum| Connect::new(V5, "s").with(&seconds(0x27, maximum));
    for maximum in [1, 4] {
        site.greet(&with_maximum(maximum)).closed();
    }
    for maximum in [5, 15] {
        let mut wire = site.greet(&with_maximum(maximum));
        wire.expect(&[0x20, 3, 0, 0x95, 0]);
        wire.closed();
    }
    let mut wire = site.greet(&with_maximum(16));
    assert_eq!(wire.packet().len(), 16);
    wire.silent();
}

/// [MQTT-3.1.2-24]: an answer that would be too large, so that there is none, ends the connection.
#[test]
fn a_suback_and_an_unsuback_fit_the_clients_maximum() {
    let site = site();
    for subscribing in [true, false] {
        let mut wire = site.enter(&Connect::new(V5, "s").with(&seconds(0x27, 20)), false);
        for (filters, fits) in [(15, true), (16, false)] {
            wire.send(&if subscribing {
                subscribe(V5, 1, &[], &vec![("a", 0); filters])
            } else {
                unsubscribe(V5, 1, &vec!["a"; filters])
            });
            if fits {
                assert_eq!(wire.packet().len(), 20);
            } else {
                wire.ended(0x95);
                break;
            }
        }
    }
}

/// [MQTT-3.2.2-15]: larger ones than the broker takes; seen before they have arrived.
#[test]
fn larger_packets_than_the_broker_takes_end_the_connection() {
    let mut settings = broker::Settings::default();
    settings.limits.packet_bytes = 1000;
    let site = site_with(settings);
    for version in BOTH {
        let mut wire = site.client(version, "p");
        let overhead = Publish::new("t", vec![0; 500]).bytes(version).len() - 500;
        wire.publish(Publish::new("t", vec![0; 1000 - overhead]));
        wire.silent();
        wire.throw(&[0x30, 0xe6, 0x07]);
        wire.ended(0x95);
    }
}

/// [MQTT-3.14.2-3]: a goodbye fits as well.
#[test]
fn a_goodbye_fits_the_clients_maximum() {
    let site = site();
    let mut wire = site.enter(&Connect::new(V5, "s").with(&seconds(0x27, 20)), false);
    wire.send(&[0, 0]);
    wire.expect(&[0xe0, 2, 0x81, 0]);
    wire.closed();
}

/// A subscriber that acknowledges nothing pays for it, not the publisher.
#[test]
fn a_full_queue_ends_the_slow_subscriber() {
    let mut settings = broker::Settings::default();
    settings.limits.queue_messages = 2;
    settings.limits.publish_hold = std::time::Duration::from_millis(50);
    let site = site_with(settings);
    for version in BOTH {
        let receive_maximum = if version == V5 { &[0x21, 0, 1][..] } else { &[] };
        let slow = Connect::new(version, "slow").with(receive_maximum);
        let mut slow = site.enter(&slow, false);
        slow.subscribe("t", 1);
        let mut publisher = site.client(version, "p");
        // 64 in flight for 3.1.1, one for MQTT 5, two that wait, and one too many.
        let window = if version == V5 { 1 } else { 64 };
        for id in 1..=window + 3 {
            publisher.publish(Publish::new("t", "x").qos(1, id));
            publisher.expect(&puback(id));
        }
        for id in 1..=window {
            assert_eq!(slow.received().id, id);
        }
        slow.ended(0x97);
        publisher.leave();
    }
}

/// Publishes that many messages at QoS 1, each when the last one is acknowledged. `meanwhile`
/// runs between each publish and its acknowledgement.
fn publish_all(site: &Site, messages: u16, mut meanwhile: impl FnMut(u16)) {
    let mut publisher = site.client(V5, "p");
    for id in 1..=messages {
        publisher.publish(Publish::new("t", id.to_string()).qos(1, id));
        meanwhile(id);
        publisher.expect(&puback(id));
    }
    publisher.leave();
}

/// One that acknowledges a message for each that is published keeps its queue full without letting
/// any single publish wait long. It is too slow all the same, and pays.
#[test]
fn who_acknowledges_slowly_does_not_set_the_pace() {
    const MESSAGES: u16 = 3_000;
    let mut settings = broker::Settings::default();
    settings.limits.queue_messages = 1_000;
    settings.limits.publish_hold = std::time::Duration::from_millis(100);
    let site = site_with(settings);
    let mut slow = site.subscriber(V4, "slow", "t", 1);
    let mut innocent = site.subscriber(V4, "innocent", "t", 1);
    // 64 are in flight to the slow one; from here on each publish finds its queue full.
    let full = 64 + 1_000;
    publish_all(&site, MESSAGES, |id| {
        if id > full {
            slow.throw(&puback(id - full));
        }
        let got = innocent.received();
        assert_eq!(got.text(), id.to_string());
        innocent.send(&puback(got.id));
    });
    innocent.silent();
    while slow.next().is_some() {}
    assert_eq!(site.broker.counters().slow_clients, 1);
}

/// One whose session lasts comes back to the queue that it left full. It is not waited for again
/// before it has got rid of most of that; then it is.
#[test]
fn who_was_late_is_not_waited_for_again_until_it_has_caught_up() {
    let mut settings = broker::Settings::default();
    settings.limits.queue_messages = 40;
    settings.limits.publish_hold = std::time::Duration::from_millis(100);
    let site = site_with(settings);
    let connect = Connect::lasting(V5, "slow").with(&[0x21, 0, 2]);
    let mut slow = site.enter(&connect, false);
    slow.subscribe("t", 1);
    publish_all(&site, 43, |_| {});
    for _ in 0..2 {
        slow.received();
    }
    slow.ended(0x97);
    // A window of two is sent again; 40 wait, and it acknowledges nothing.
    let mut slow = site.enter(&connect, true);
    let sent = [slow.received(), slow.received()];
    publish_all(&site, 100, |_| {});
    slow.silent();
    let counters = site.broker.counters();
    assert_eq!((counters.slow_clients, counters.dropped), (1, 101));
    // It takes three quarters of what waits, and is one whom others wait for.
    for got in sent {
        slow.send(&puback(got.id));
    }
    for _ in 0..28 {
        let id = slow.received().id;
        slow.send(&puback(id));
    }
    for _ in 0..2 {
        slow.received();
    }
    slow.silent();
    publish_all(&site, 31, |_| {});
    slow.ended(0x97);
    let counters = site.broker.counters();
    assert_eq!((counters.slow_clients, counters.dropped), (2, 102));
}

fn patient(queue_messages: usize) -> Site {
    let mut settings = broker::Settings::default();
    settings.limits.queue_messages = queue_messages;
    settings.limits.publish_hold = std::time::Duration::from_secs(10);
    site_with(settings)
}

/// Takes what comes and acknowledges all of it, until `published` publishes are acknowledged and
/// as many have come.
fn exchange(wire: &mut Wire, qos: u8, published: usize) {
    let (mut acknowledged, mut received) = (0, 0);
    while (acknowledged, received) != (published, published) {
        let packet = wire.packet();
        let id = || u16::from_be_bytes([packet[2], packet[3]]);
        match packet[0] {
            0x40 | 0x70 => acknowledged += 1,
            0x50 => wire.send(&pubrel(id())),
            0x62 => {
                wire.send(&pubcomp(id()));
                received += 1;
            }
            _ => {
                let id = Received::parse(&packet, wire.version).id;
                wire.send(&if qos == 1 { puback(id) } else { pubrec(id) });
                received += usize::from(qos == 1);
            }
        }
    }
    wire.silent();
}

/// [MQTT-4.9.0-3]: what a client acknowledges counts, also where it comes behind publishes that
/// have to wait; else a client would wait for itself, or two for each other.
#[test]
fn acknowledgements_do_not_wait_behind_publishes() {
    const PUBLISHES: u16 = 200;
    for qos in [1, 2] {
        for peers in [1, 2] {
            let site = patient(10);
            let mut wires: Vec<Wire> = (0..peers)
                .map(|n| site.subscriber(V4, &format!("c{n}"), &format!("to/{n}"), qos))
                .collect();
            for (n, wire) in wires.iter_mut().enumerate() {
                let topic = format!("to/{}", (n + 1) % peers);
                for id in 1..=PUBLISHES {
                    wire.publish(Publish::new(&topic, "x").qos(qos, id));
                }
            }
            std::thread::scope(|scope| {
                for wire in &mut wires {
                    scope.spawn(move || exchange(wire, qos, PUBLISHES.into()));
                }
            });
            let counters = site.broker.counters();
            assert_eq!((counters.dropped, counters.slow_clients), (0, 0));
        }
    }
}

/// [MQTT-3.12.4-1], and what waited is handled in its order.
#[test]
fn a_ping_does_not_wait_behind_publishes() {
    let site = patient(1);
    let mut slow = site.enter(&Connect::new(V5, "slow").with(&[0x21, 0, 1]), false);
    slow.subscribe("t", 1);
    let mut wire = site.client(V5, "p");
    for id in 1..=2 {
        wire.publish(Publish::new("t", id.to_string()).qos(1, id));
        wire.expect(&puback(id));
    }
    // In pieces, so that what waits is looked at more than once.
    let mut bytes = Vec::new();
    for id in 3..=5 {
        bytes.extend(Publish::new("t", id.to_string()).qos(1, id).bytes(V5));
        bytes.extend(PINGREQ);
    }
    for piece in bytes.chunks(5) {
        wire.send(piece);
    }
    for _ in 0..3 {
        wire.expect(&PINGRESP);
    }
    for id in 1..=5 {
        let got = slow.received();
        assert_eq!(got.text(), id.to_string());
        slow.send(&puback(got.id));
    }
    for id in 3..=5 {
        wire.expect(&puback(id));
    }
}
