//! The exchanges of QoS 1 and 2, from both ends.

use crate::support::*;

/// [MQTT-4.3.2-4], [MQTT-2.2.1-5]
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

/// [MQTT-4.3.3-8], [MQTT-4.3.3-10], [MQTT-4.3.3-11], [MQTT-4.3.3-12]
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

/// MQTT 5.0, 3.6 and 3.7: an id that nobody knows, and properties in the PUBREL.
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

/// [MQTT-3.1.2-29], [MQTT-3.4.2-2]: Request Problem Information 0 wants no reason strings in acknowledgements.
#[test]
fn problem_information_is_left_out_on_request() {
    let site = site();
    let refused = Publish::new("$own/x", "x").qos(1, 4);
    let mut told = site.client(V5, "told");
    told.publish(refused.clone());
    assert!(told.packet().len() > 10, "a reason string");
    for property in [vec![0x17, 0], seconds(0x27, 40)] {
        let mut terse = site.enter(&Connect::new(V5, "terse").with(&property), false);
        terse.publish(refused.clone());
        terse.expect(&with_code(puback(4), 0x87));
    }
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
