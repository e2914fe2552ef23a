//! The exchanges of QoS 1 and 2, from both ends.

use crate::support::*;

/// [MQTT-4.3.2-4], [MQTT-2.2.1-5], [MQTT-3.3.4-1], [MQTT-4.5.0-1]
#[test]
fn qos_1_is_acknowledged_each_time() {
    let site = site();
    for version in BOTH {
        let mut subscriber = site.subscriber(version, "s", "t", 1);
        let mut publisher = site.client(version, "p");
        for (publish, id) in [
            (Publish::new("t", "x").qos(1, 65_535), 1),
            // QoS 1 is at least once: the copy is delivered too [MQTT-4.3.2-5].
            (Publish::new("t", "x").qos(1, 65_535).dup(), 2),
        ] {
            publisher.publish(publish);
            publisher.expect(&puback(65_535));
            subscriber.expect_publish(Publish::new("t", "x").qos(1, id));
        }
    }
}

/// [MQTT-4.3.3-8], [MQTT-4.3.3-10], [MQTT-4.3.3-11], [MQTT-4.3.3-12], [MQTT-3.3.4-1]
#[test]
fn qos_2_is_delivered_once() {
    let site = site();
    for version in BOTH {
        let mut subscriber = site.subscriber(version, "s", "t", 0);
        let mut publisher = site.client(version, "p");
        let publish = Publish::new("t", "x").qos(2, 10);
        publisher.publish(publish.clone());
        publisher.expect(&pubrec(10));
        subscriber.expect_publish(Publish::new("t", "x"));
        for again in [publish.clone().dup(), publish.clone()] {
            publisher.publish(again);
            publisher.expect(&pubrec(10));
        }
        subscriber.silent();
        publisher.send(&pubrel(10));
        publisher.expect(&pubcomp(10));
        // Released: the id stands for something new.
        publisher.publish(publish);
        publisher.expect(&pubrec(10));
        subscriber.expect_publish(Publish::new("t", "x"));
    }
}

/// [MQTT-4.3.3-10]: over a lost connection as well.
#[test]
fn qos_2_is_delivered_once_across_connections() {
    let site = site();
    for version in BOTH {
        let mut subscriber = site.subscriber(version, "s", "t", 0);
        let lasting = Connect::lasting(version, &format!("p{version}"));
        let mut publisher = site.enter(&lasting, false);
        publisher.publish(Publish::new("t", "x").qos(2, 10));
        publisher.expect(&pubrec(10));
        subscriber.expect_publish(Publish::new("t", "x"));
        publisher.vanish();
        let mut publisher = site.enter(&lasting, true);
        publisher.publish(Publish::new("t", "x").qos(2, 10).dup());
        publisher.expect(&pubrec(10));
        publisher.send(&pubrel(10));
        publisher.expect(&pubcomp(10));
        subscriber.silent();
    }
}

/// [MQTT-3.6.2-1], [MQTT-3.6.2-2], [MQTT-3.6.2-3], [MQTT-3.7.2-1], [MQTT-3.7.2-2], [MQTT-3.7.2-3]:
/// an id that nobody knows, and properties in the PUBREL.
#[test]
fn an_unknown_release_is_answered() {
    let site = site();
    let mut old = site.client(V4, "old");
    old.send(&pubrel(99));
    old.expect(&pubcomp(99));
    let mut new = site.client(V5, "new");
    new.send(&pubrel(99));
    new.expect(&with_code(pubcomp(99), 0x92));
    new.publish(Publish::new("t", "x").qos(2, 5));
    new.expect(&pubrec(5));
    let why = user("why", "not");
    let body = [&[0, 5, 0][..], &variable(why.len()), &why].concat();
    new.send(&frame(0x62, &body));
    new.expect(&pubcomp(5));
    new.send(&with_code(pubrec(77), 0));
    new.expect(&with_code(pubrel(77), 0x92));
}

/// [MQTT-4.3.3-1], [MQTT-4.3.3-2], [MQTT-4.3.3-4]: the broker as the sender.
#[test]
fn the_broker_completes_its_own_exchanges() {
    let site = site();
    for version in BOTH {
        let mut subscriber = site.subscriber(version, "s", "t", 2);
        for id in 1..=3 {
            site.publish(Publish::new("t", "x").qos(2, 1));
            subscriber.expect_publish(Publish::new("t", "x").qos(2, id));
            subscriber.send(&pubrec(id));
            subscriber.expect(&pubrel(id));
            // Asked twice, answered twice.
            subscriber.send(&pubrec(id));
            subscriber.expect(&pubrel(id));
            subscriber.send(&pubcomp(id));
        }
        subscriber.silent();
    }
}

/// MQTT 5.0, 4.6: acknowledgements may come in any order, also for what was never sent.
#[test]
fn acknowledgements_out_of_order_are_no_harm() {
    let site = site();
    for version in BOTH {
        let mut subscriber = site.subscriber(version, "s", "t", 1);
        for id in 1..=3 {
            site.publish(Publish::new("t", "x").qos(1, 1));
            subscriber.expect_publish(Publish::new("t", "x").qos(1, id));
        }
        for id in [3, 1, 2, 2, 4000] {
            subscriber.send(&puback(id));
        }
        subscriber.send(&pubcomp(4000));
        subscriber.silent();
    }
}

/// [MQTT-4.3.3-9]: an error ends the exchange, from either side.
#[test]
fn a_refusing_pubrec_ends_the_exchange() {
    let site = site();
    let lasting = Connect::lasting(V5, "s");
    let mut subscriber = site.enter(&lasting, false);
    subscriber.subscribe("t", 2);
    site.publish(Publish::new("t", "x").qos(2, 1));
    subscriber.expect_publish(Publish::new("t", "x").qos(2, 1));
    subscriber.send(&with_code(pubrec(1), 0x97));
    subscriber.silent();
    subscriber.vanish();
    // [MQTT-4.4.0-2]: nothing of it is sent again.
    site.enter(&lasting, true).silent();

    let mut publisher = site.client(V5, "p");
    publisher.publish(Publish::new("$own/x", "x").qos(2, 4));
    let refusal = publisher.packet();
    assert_eq!((refusal[0], refusal[4]), (0x50, 0x87));
    publisher.send(&pubrel(4));
    publisher.expect(&with_code(pubcomp(4), 0x92));
}

/// [MQTT-4.4.0-2], [MQTT-4.9.0-2]: a PUBACK with an error is an acknowledgement like any other.
#[test]
fn a_refusing_puback_ends_the_exchange() {
    let site = site();
    let lasting = Connect::lasting(V5, "s").with(&[0x21, 0, 1]);
    let mut subscriber = site.enter(&lasting, false);
    subscriber.subscribe("t", 1);
    for n in ["1", "2"] {
        site.publish(Publish::new("t", n).qos(1, 1));
    }
    subscriber.expect_publish(Publish::new("t", "1").qos(1, 1));
    subscriber.send(&with_code(puback(1), 0x80));
    subscriber.expect_publish(Publish::new("t", "2").qos(1, 2));
    subscriber.send(&with_code(puback(2), 0x99));
    subscriber.silent();
    subscriber.vanish();
    site.enter(&lasting, true).silent();
}

/// [MQTT-4.3.3-7]: what was sent once is sent again, however late. [MQTT-4.3.3-5]: and its PUBREL.
#[test]
fn what_was_sent_does_not_expire() {
    let site = site();
    let lasting = Connect::lasting(V5, "s");
    let mut subscriber = site.enter(&lasting, false);
    subscriber.subscribe("t", 2);
    // They live as long as another message, whose end is seen below.
    let second = seconds(0x02, 1);
    for qos in 1..=2 {
        site.publish(Publish::new("t", "x").qos(qos, 1).with(&second));
        assert_eq!(subscriber.received().id, u16::from(qos));
    }
    subscriber.vanish();
    site.publish(Publish::new("t", "never sent").qos(2, 1).with(&second));
    let mut clock = site.subscriber(V5, "clock", "w", 0);
    let will = Will { properties: seconds(0x18, 2), ..Will::new("w", "") };
    site.enter(&Connect::lasting(V5, "c").will(will), false).vanish();
    clock.expect_publish(Publish::new("w", ""));
    let mut subscriber = site.enter(&lasting, true);
    for qos in 1..=2 {
        let again = Publish::new("t", "x").qos(qos, u16::from(qos)).dup();
        subscriber.expect_publish(again.with(&seconds(0x02, 0)));
    }
    subscriber.send(&pubrec(2));
    subscriber.expect(&pubrel(2));
    subscriber.vanish();
    let mut subscriber = site.enter(&lasting, true);
    subscriber.expect(&pubrel(2));
    subscriber.expect_publish(Publish::new("t", "x").qos(1, 1).dup().with(&seconds(0x02, 0)));
    subscriber.silent();
}

/// [MQTT-4.3.3-13]: a message that is of no use any more is acknowledged to the end.
#[test]
fn an_expired_publish_is_acknowledged() {
    let site = site();
    let mut watcher = site.subscriber(V5, "watcher", "t", 2);
    let mut publisher = site.client(V5, "p");
    publisher.publish(Publish::new("t", "x").qos(2, 7).with(&seconds(0x02, 0)));
    publisher.expect(&pubrec(7));
    publisher.send(&pubrel(7));
    publisher.expect(&pubcomp(7));
    watcher.silent();
}

/// [MQTT-4.4.0-1]: nothing is sent again but when a session is resumed, and [MQTT-4.3.2-3]: then
/// all that was not acknowledged, however often.
#[test]
fn nothing_is_sent_again_on_a_connection_that_stands() {
    let site = site();
    for version in BOTH {
        let lasting = Connect::lasting(version, &format!("s{version}"));
        let mut wire = site.enter(&lasting, false);
        wire.subscribe("t", 2);
        for id in 1..=2u16 {
            let publish = Publish::new("t", "x").qos(id as u8, id);
            site.publish(publish.clone());
            wire.expect_publish(publish);
        }
        wire.silent();
        wire.subscribe("t", 2);
        wire.silent();
        for _ in 0..3 {
            wire.vanish();
            wire = site.enter(&lasting, true);
            for id in 1..=2u16 {
                wire.expect_publish(Publish::new("t", "x").qos(id as u8, id).dup());
            }
            wire.silent();
        }
        wire.vanish();
        site.enter(&Connect { clean: true, ..lasting }, false).silent();
    }
}

/// [MQTT-3.1.2-29], [MQTT-3.4.2-2], [MQTT-3.4.2-3], [MQTT-3.5.2-2], [MQTT-3.5.2-3]: Request Problem
/// Information 0 wants no reason strings in acknowledgements.
#[test]
fn problem_information_is_left_out_on_request() {
    let site = site();
    for (qos, ack) in [(1, puback(4)), (2, pubrec(4))] {
        let refused = Publish::new("$own/x", "x").qos(qos, 4);
        let mut told = site.client(V5, "told");
        told.publish(refused.clone());
        // A reason string, and nothing behind it.
        let packet = told.packet();
        assert_eq!((packet[0], packet[5], packet[6]), (ack[0], packet.len() as u8 - 6, 0x1f));
        for property in [vec![0x17, 0], seconds(0x27, 40)] {
            let mut terse = site.enter(&Connect::new(V5, "terse").with(&property), false);
            terse.publish(refused.clone());
            terse.expect(&with_code(ack.clone(), 0x87));
        }
    }
}

/// [MQTT-2.2.1-4], [MQTT-4.3.2-1], [MQTT-4.3.2-2], [MQTT-4.3.3-1], [MQTT-4.3.3-2]: an id that is in
/// flight is passed over when they have run once around.
#[test]
fn an_id_in_flight_is_not_given_twice() {
    let site = site();
    let mut subscriber = site.subscriber(V4, "s", "t", 2);
    let mut publisher = site.client(V4, "p");
    publisher.publish(Publish::new("t", "x").qos(2, 1));
    publisher.expect(&pubrec(1));
    subscriber.expect_publish(Publish::new("t", "x").qos(2, 1));
    let mut next = 2;
    for _ in 0..65_540 / 60 + 1 {
        let batch: Vec<u8> =
            (1..=60).flat_map(|id| Publish::new("t", "x").qos(1, id).bytes(V4)).collect();
        publisher.send(&batch);
        let mut acks = Vec::new();
        for _ in 0..60 {
            subscriber.expect_publish(Publish::new("t", "x").qos(1, next));
            acks.extend(puback(next));
            next = if next == u16::MAX { 2 } else { next + 1 };
        }
        subscriber.send(&acks);
        for id in 1..=60 {
            publisher.expect(&puback(id));
        }
    }
    subscriber.send(&pubrec(1));
    subscriber.expect(&pubrel(1));
}

/// [MQTT-2.2.1-4]: more deliveries than there were ids in a hundred.
#[test]
fn packet_ids_go_on_and_are_never_zero() {
    let site = site();
    let mut subscriber = site.subscriber(V4, "s", "t", 1);
    let mut publisher = site.client(V4, "p");
    for n in 1..=300u16 {
        publisher.publish(Publish::new("t", "x").qos(1, n));
        publisher.expect(&puback(n));
        let received = subscriber.received();
        assert_eq!(received.id, n);
        subscriber.send(&puback(received.id));
    }
}

/// The broker takes no acknowledgement with a reason code that its packet does not have.
#[test]
fn unknown_reason_codes_are_malformed() {
    let site = site();
    for ack in [puback(1), pubrec(1), pubrel(1), pubcomp(1)] {
        let mut wire = site.client(V5, "a");
        wire.send(&with_code(ack, 0x05));
        wire.ended(0x81);
    }
}
