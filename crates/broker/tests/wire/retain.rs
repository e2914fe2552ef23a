//! Retained messages.

use crate::support::*;
use std::collections::BTreeSet;

/// [MQTT-3.3.1-5], [MQTT-3.3.1-9], [MQTT311-3.3.1-8]
#[test]
fn the_last_one_meets_each_new_subscription() {
    let site = site();
    site.publish(Publish::new("t", "old").retained());
    site.publish(Publish::new("t", "new").qos(1, 1).retained());
    for version in BOTH {
        let mut wire = site.subscriber(version, "s", "t", 2);
        wire.expect_publish(Publish::new("t", "new").qos(1, 1).retained());
        wire.send(&puback(1));
        // Again for the same filter.
        wire.subscribe("t", 0);
        wire.expect_publish(Publish::new("t", "new").retained());
        wire.silent();
    }
}

/// [MQTT311-3.1.2-7]: they are no part of the session that they came from.
#[test]
fn they_outlive_their_publisher() {
    let site = site();
    for version in BOTH {
        let topic = format!("t{version}");
        let lasting = Connect::lasting(version, "p");
        let mut wire = site.enter(&lasting, false);
        wire.publish(Publish::new(&topic, "x").retained().qos(1, 1));
        wire.expect(&puback(1));
        wire.vanish();
        site.client(version, "p").leave();
        site.subscriber(version, "s", &topic, 0)
            .expect_publish(Publish::new(&topic, "x").retained());
    }
}

/// [MQTT-3.3.1-6], [MQTT-3.3.1-7], [MQTT-3.3.1-8]
#[test]
fn only_an_empty_retained_message_erases() {
    let site = site();
    site.publish(Publish::new("t", "kept").retained());
    site.publish(Publish::new("t", ""));
    site.publish(Publish::new("t", "live"));
    let mut wire = site.subscriber(V4, "s", "t", 0);
    wire.expect_publish(Publish::new("t", "kept").retained());
    site.publish(Publish::new("t", "").retained());
    wire.expect_publish(Publish::new("t", ""));
    for version in BOTH {
        site.subscriber(version, "late", "t", 0).silent();
    }
    assert_eq!(site.broker.counters().retained_messages, 0);
}

/// [MQTT-3.3.1-12], [MQTT-3.3.1-13]
#[test]
fn retain_as_published_decides_the_flag_of_live_messages() {
    let site = site();
    let mut plain = site.subscriber(V5, "plain", "t", 0);
    let mut flagged = site.subscriber(V5, "flagged", "t", RETAIN_AS_PUBLISHED);
    let mut old = site.subscriber(V4, "old", "t", 0);
    site.publish(Publish::new("t", "1").retained());
    plain.expect_publish(Publish::new("t", "1"));
    old.expect_publish(Publish::new("t", "1"));
    flagged.expect_publish(Publish::new("t", "1").retained());
    site.publish(Publish::new("t", "2"));
    flagged.expect_publish(Publish::new("t", "2"));
}

/// [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]
#[test]
fn retain_handling_decides_when_they_are_sent() {
    let site = site();
    site.publish(Publish::new("t", "x").retained());
    let expected = Publish::new("t", "x").retained();
    let mut never = site.subscriber(V5, "never", "t", DO_NOT_SEND);
    never.silent();
    let mut once = site.subscriber(V5, "once", "t", SEND_IF_NEW);
    once.expect_publish(expected.clone());
    once.subscribe("t", SEND_IF_NEW);
    once.silent();
    once.send(&unsubscribe(V5, 1, &["t"]));
    once.packet();
    once.subscribe("t", SEND_IF_NEW);
    once.expect_publish(expected.clone());
    // Known from an earlier connection.
    let lasting = Connect::lasting(V5, "lasting");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", SEND_IF_NEW);
    wire.expect_publish(expected);
    wire.leave();
    let mut wire = site.enter(&lasting, true);
    wire.subscribe("t", SEND_IF_NEW);
    wire.silent();
}

/// MQTT 5.0, 3.8.4: any number of matches, at each QoS, in spite of the bounded window.
#[test]
fn thousands_of_matches_all_arrive() {
    const TOPICS: usize = 5000;
    let site = site();
    let mut publisher = site.client(V5, "p");
    for n in 0..TOPICS {
        publisher.publish(Publish::new(&format!("r/{n}"), "x").qos(0, 0).retained());
    }
    publisher.silent();
    for n in 0..TOPICS {
        publisher.publish(Publish::new(&format!("q/{n}"), "x").qos(1, 1).retained());
        publisher.expect(&puback(1));
    }
    for (filter, qos) in [("r/#", 0), ("q/#", 1)] {
        for version in BOTH {
            let mut wire = site.subscriber(version, "s", filter, 1);
            let mut topics = BTreeSet::new();
            for _ in 0..TOPICS {
                let received = wire.received();
                assert_eq!(received.first, 0x31 | qos << 1);
                if qos == 1 {
                    wire.send(&puback(received.id));
                }
                topics.insert(received.topic);
            }
            assert_eq!(topics.len(), TOPICS);
            wire.silent();
            wire.leave();
        }
    }
}

/// [MQTT-4.7.2-1]
#[test]
fn wildcards_find_them_as_they_find_live_ones() {
    let site = site();
    for topic in ["a", "a/b", "a/b/c", "/a"] {
        site.publish(Publish::new(topic, topic).retained());
    }
    for (filter, expected) in
        [("#", 4), ("a/#", 3), ("+/b", 1), ("+", 1), ("/+", 1), ("a/+/#", 2), ("+/+/+", 1)]
    {
        let mut wire = site.subscriber(V4, "s", filter, 0);
        for _ in 0..expected {
            assert_eq!(wire.received().first, 0x31, "{filter}");
        }
        wire.silent();
        wire.leave();
    }
}

/// [MQTT-4.1.0-1]: those that were promised survive the connection with its session.
#[test]
fn promised_ones_are_part_of_the_session() {
    let site = site();
    for n in 0..3 {
        site.publish(Publish::new(&format!("r/{n}"), "x").qos(1, 1).retained());
    }
    let lasting = Connect::lasting(V5, "s");
    let mut wire = site.enter(&lasting.clone().with(&[0x21, 0, 1]), false);
    wire.subscribe("r/+", 1);
    let first = wire.received();
    wire.vanish();
    let mut wire = site.enter(&lasting, true);
    let mut topics = BTreeSet::new();
    let again = wire.received();
    assert_eq!((again.first, &again.topic), (0x3b, &first.topic), "with DUP");
    topics.insert(again.topic);
    for _ in 0..2 {
        topics.insert(wire.received().topic);
    }
    assert_eq!(topics.len(), 3);
    wire.silent();
}

/// A retained message that waits for its turn does not come behind a newer one.
#[test]
fn a_superseded_message_is_not_sent() {
    let site = site();
    for topic in ["r/1", "r/2"] {
        site.publish(Publish::new(topic, "old").qos(1, 1).retained());
    }
    let mut wire = site.enter(&Connect::new(V5, "s").with(&[0x21, 0, 1]), false);
    wire.subscribe("r/+", 1);
    let first = wire.received();
    let other = if first.topic == "r/1" { "r/2" } else { "r/1" };
    site.publish(Publish::new(other, "new").qos(1, 1).retained());
    wire.send(&puback(1));
    wire.expect_publish(Publish::new(other, "new").qos(1, 2));
    wire.send(&puback(2));
    wire.silent();
}

/// Live messages that waited for an overlapping subscription are not lost to a retained one.
#[test]
fn a_new_subscription_drops_no_promised_message() {
    let site = site();
    let mut wire = site.enter(&Connect::new(V5, "s").with(&[0x21, 0, 1]), false);
    wire.subscribe("t", 1);
    for n in 1..=3 {
        site.publish(Publish::new("t", n.to_string()).qos(1, 1).retained());
    }
    assert_eq!(wire.received().text(), "1");
    wire.subscribe("#", 1);
    let mut seen = Vec::new();
    for id in 1..=2 {
        wire.send(&puback(id));
        seen.push(wire.received().text().to_owned());
    }
    assert_eq!(seen, ["2", "3"]);
}

/// One SUBSCRIBE that asks for everything a thousand times over does not get everything a
/// thousand times; the filters of one that asks for much are served one after the other.
#[test]
fn asking_for_everything_again_and_again_does_not_add_up() {
    const TOPICS: usize = 300;
    let site = site();
    let mut publisher = site.client(V5, "p");
    for n in 0..TOPICS {
        publisher.publish(Publish::new(&format!("r/{n}"), "x").retained());
    }
    publisher.silent();
    let mut wire = site.client(V4, "s");
    let filters = vec![("#", 0); 1000];
    wire.send(&subscribe(V4, 1, &[], &filters));
    wire.expect(&suback(V4, 1, &vec![0; filters.len()]));
    for _ in 0..64 * TOPICS {
        assert_eq!(wire.received().first, 0x31);
    }
    wire.silent();
    // Different filters are different subscriptions, and each gets what it matches.
    let filters = [("+/#", 0), ("r/+", 0), ("+/+", 0)];
    wire.send(&subscribe(V4, 2, &[], &filters));
    wire.expect(&suback(V4, 2, &[0; 3]));
    for _ in 0..3 * TOPICS {
        assert_eq!(wire.received().first, 0x31);
    }
    wire.silent();
}

/// Who unsubscribes again gets no more of what it asked for.
#[test]
fn an_ended_subscription_is_served_no_further() {
    let site = site();
    for n in 0..3 {
        site.publish(Publish::new(&format!("r/{n}"), "x").qos(1, 1).retained());
    }
    for version in BOTH {
        let receive_maximum = if version == V5 { &[0x21, 0, 1][..] } else { &[] };
        let mut wire = site.enter(&Connect::new(version, "s").with(receive_maximum), false);
        wire.subscribe("r/#", 1);
        let sent = if version == V5 { 1 } else { 3 };
        for _ in 0..sent {
            wire.received();
        }
        wire.send(&unsubscribe(version, 2, &["r/#"]));
        assert_eq!(wire.packet()[0], 0xb0);
        for id in 1..=sent {
            wire.send(&puback(id));
        }
        wire.silent();
    }
}

/// [MQTT-3.3.4-2]: a message that was promised at QoS 1 and waits for room in the window is due at
/// QoS 1, also where a new subscription has brought it as the retained one at QoS 0.
#[test]
fn a_retained_copy_at_qos_0_does_not_stand_for_one_at_qos_1() {
    let site = site();
    let connect = Connect::lasting(V5, "c").with(&[0x21, 0, 1]);
    let mut wire = site.enter(&connect, false);
    wire.subscribe("a/t", 1);
    site.publish(Publish::new("a/t", "first").qos(1, 1));
    assert_eq!(wire.received().text(), "first");
    site.publish(Publish::new("a/t", "second").qos(1, 1).retained());
    wire.send(&subscribe(V5, 100, &[], &[("a/#", 0)]));
    wire.expect(&suback(V5, 100, &[0]));
    wire.expect_publish(Publish::new("a/t", "second").retained());
    wire.silent();
    wire.send(&puback(1));
    wire.expect_publish(Publish::new("a/t", "second").qos(1, 2));
    wire.send(&puback(2));
    wire.silent();
}
