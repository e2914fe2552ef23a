//! PUBLISH from one client to others.

use crate::support::*;

/// Topics of any script, with empty levels, spaces and `$` in the middle [MQTT-4.7.3-4], as long as
/// they may be [MQTT-4.7.3-3]. What differs in form is something else, though it looks the same.
#[test]
fn topics_are_taken_as_they_are() {
    let site = site();
    for (from, to) in [(V4, V5), (V5, V4)] {
        let mut all = site.subscriber(to, "all", "#", 0);
        let mut publisher = site.client(from, "publisher");
        let long = "x".repeat(65_535);
        for topic in ["é/x", "漢字", "/", "a//b", " ", "a/$b", "/finance", &long] {
            publisher.publish(Publish::new(topic, "1"));
            all.expect_publish(Publish::new(topic, "1"));
        }
        let (one, two) = ("caf\u{e9}", "cafe\u{301}");
        let mut exact = site.subscriber(to, "exact", one, 0);
        for topic in [two, "CAF\u{c9}", one] {
            publisher.publish(Publish::new(topic, "1"));
        }
        exact.expect_publish(Publish::new(one, "1"));
        exact.silent();
        for topic in [two, "CAF\u{c9}", one] {
            all.expect_publish(Publish::new(topic, "1"));
        }
        all.leave();
        publisher.leave();
    }
}

/// A retained message on a topic that is not ASCII meets a later subscription.
#[test]
fn a_retained_topic_of_another_script_reaches_later_subscribers() {
    let site = site();
    site.publish(Publish::new("é/x", "1").retained());
    for version in BOTH {
        let mut late = site.subscriber(version, "late", "#", 0);
        late.expect_publish(Publish::new("é/x", "1").retained());
    }
}

/// [MQTT-4.7.2-1]: and clients cannot publish below `$`. [MQTT311-3.3.5-2]: 3.1.1 acknowledges what
/// it refuses.
#[test]
fn dollar_topics_are_the_brokers() {
    let site = site();
    for version in BOTH {
        let mut own = site.subscriber(version, "own", "$other/x", 0);
        let mut publisher = site.client(version, "publisher");
        publisher.publish(Publish::new("$other/x", "1").qos(1, 9).retained());
        let ack = publisher.packet();
        assert_eq!(&ack[..4], &[0x40, ack[1], 0, 9]);
        if version == V5 {
            assert_eq!(ack[4], 0x87, "not authorized");
        }
        own.silent();
    }
}

/// Ours: deeper ones are no topics.
#[test]
fn a_topic_has_128_levels_at_most() {
    let site = site();
    let topic = |levels: usize| vec!["a"; levels].join("/");
    for version in BOTH {
        let mut wire = site.client(version, "a");
        wire.subscribe(&topic(128), 0);
        wire.publish(Publish::new(&topic(128), "deep"));
        wire.expect_publish(Publish::new(&topic(128), "deep"));
        let too_deep = topic(129);
        let refusal = if version == V5 { 0x8f } else { 0x80 };
        for filter in [too_deep.clone(), format!("$share/g/{too_deep}")] {
            wire.send(&subscribe(version, 1, &[], &[(&filter, 0)]));
            wire.expect(&suback(version, 1, &[refusal]));
        }
        wire.publish(Publish::new(&too_deep, "too deep"));
        wire.ended(0x90);
    }
}

/// [MQTT-3.3.2-2], [MQTT-4.7.0-1], [MQTT-4.7.3-1], [MQTT-4.7.3-2]
#[test]
fn invalid_topics_end_the_connection() {
    let site = site();
    for version in BOTH {
        for (topic, code) in [("a/#", 0x90), ("+/a", 0x90), ("a\0b", 0x81), ("", 0x82)] {
            let mut wire = site.client(version, "bad");
            wire.publish(Publish::new(topic, "x"));
            wire.ended(code);
        }
    }
}

/// [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20],
/// [MQTT-3.3.2-4]
#[test]
fn properties_travel_to_v5_and_are_stripped_for_v4() {
    let site = site();
    let mut new = site.subscriber(V5, "new", "t", 1);
    let mut old = site.subscriber(V4, "old", "t", 1);
    let mut publisher = site.client(V5, "publisher");
    // In the order in which the broker writes them.
    let properties = [
        vec![0x01, 1],
        [vec![0x03], text("text/plain")].concat(),
        [vec![0x08], text("answers/here")].concat(),
        [vec![0x09], text([0, 255, 7])].concat(),
        user("k", "1"),
        user("k", "2"),
        user("a", ""),
    ]
    .concat();
    let publish = Publish::new("t", "é").with(&properties);
    for qos in [0, 1] {
        publisher.publish(publish.clone().qos(qos, 5));
        new.expect_publish(publish.clone().qos(qos, 1));
        old.expect_publish(Publish::new("t", "é").qos(qos, 1));
    }
    // The indicator is passed on, not judged: 0, and 1 for what is no text.
    for indicator in [0, 1] {
        let publish = Publish::new("t", [0xff, 0]).with(&[0x01, indicator]);
        publisher.publish(publish.clone());
        new.expect_publish(publish);
        old.expect_publish(Publish::new("t", [0xff, 0]));
    }
    // 3.1.1 reconnects as if nothing had been: the codec took no harm.
    old.leave();
    site.subscriber(V4, "old", "t", 1).silent();
}

/// [MQTT-3.3.4-6]
#[test]
fn a_subscription_identifier_from_a_client_ends_the_connection() {
    let site = site();
    let mut wire = site.client(V5, "a");
    wire.publish(Publish::new("t", "x").with(&[0x0b, 1]));
    wire.ended(0x82);
}

/// [MQTT-3.3.2-14]
#[test]
fn a_response_topic_has_no_wildcards() {
    let site = site();
    let mut wire = site.client(V5, "a");
    wire.publish(Publish::new("t", "x").with(&[vec![0x08], text("a/+")].concat()));
    wire.ended(0x82);
}

/// [MQTT-3.3.1-2], [MQTT-3.3.1-4], [MQTT-2.2.1-3], [MQTT-4.3.1-1]
#[test]
fn impossible_flags_and_ids_end_the_connection() {
    let site = site();
    for version in BOTH {
        let qos_3 = Publish::new("t", "x").qos(3, 1);
        let dup_0 = Publish::new("t", "x").dup();
        let no_id = Publish::new("t", "x").qos(1, 0);
        for (publish, code) in [(qos_3, 0x81), (dup_0, 0x81), (no_id, 0x82)] {
            let mut wire = site.client(version, "bad");
            wire.publish(publish.clone());
            wire.ended(code);
        }
    }
}

/// [MQTT-3.3.1-3]: DUP says something of this hop only.
#[test]
fn dup_is_not_passed_on() {
    let site = site();
    let mut subscriber = site.subscriber(V4, "s", "t", 1);
    let mut publisher = site.client(V4, "p");
    publisher.publish(Publish::new("t", "x").qos(1, 3).dup());
    publisher.expect(&puback(3));
    subscriber.expect_publish(Publish::new("t", "x").qos(1, 1));
}

/// [MQTT-4.6.0-5], [MQTT-4.6.0-6]
#[test]
fn order_is_kept_at_every_qos() {
    let site = site();
    for (version, qos) in BOTH.into_iter().flat_map(|version| [0, 1, 2].map(|qos| (version, qos))) {
        let mut subscriber = site.subscriber(version, "s", "t", 2);
        let mut publisher = site.client(version, "p");
        for n in 1..=60u16 {
            publisher.publish(Publish::new("t", n.to_string()).qos(qos, n));
        }
        for n in 1..=60 {
            assert_eq!(subscriber.received().text(), n.to_string());
        }
        subscriber.leave();
        publisher.throw(&DISCONNECT);
    }
}

/// An empty payload is a message like any other.
#[test]
fn an_empty_message_is_delivered() {
    let site = site();
    for version in BOTH {
        let mut subscriber = site.subscriber(version, "s", "t", 0);
        site.publish(Publish::new("t", ""));
        subscriber.expect_publish(Publish::new("t", ""));
    }
}

/// Some hundreds of KB pass as they are.
#[test]
fn large_messages_arrive_whole() {
    let site = site();
    let payload: Vec<u8> = (0..700_000u32).map(|n| (n % 251) as u8).collect();
    for version in BOTH {
        let mut subscriber = site.subscriber(version, "s", "t", 1);
        let mut publisher = site.client(version, "p");
        publisher.publish(Publish::new("t", &payload).qos(1, 1));
        subscriber.expect_publish(Publish::new("t", &payload).qos(1, 1));
        publisher.expect(&puback(1));
    }
}
