//! SUBSCRIBE and its options.

use crate::support::*;

/// [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-3.8.4-6], [MQTT-3.8.4-7], [MQTT-3.9.3-1], [MQTT-2.2.1-6],
/// [MQTT-3.9.2-1], [MQTT-3.9.2-2], [MQTT-2.2.2-1]
#[test]
fn every_filter_gets_a_code_in_order() {
    let site = site();
    for version in BOTH {
        let mut wire = site.client(version, "s");
        let filters = [("a", 2), ("b/#/c", 0), ("c/+", 1), ("d+", 0), ("$share/g", 1), ("e", 0)];
        wire.send(&subscribe(version, 4711, &[], &filters));
        let bad = if version == V5 { 0x8f } else { 0x80 };
        wire.expect(&suback(version, 4711, &[2, bad, 1, bad, bad, 0]));
    }
}

/// [MQTT-3.8.1-1], [MQTT-3.8.3-1], [MQTT-3.8.3-2], [MQTT-3.8.3-5], [MQTT-2.2.1-3], [MQTT-4.7.3-1],
/// [MQTT-4.7.3-2]
#[test]
fn malformed_subscribes_end_the_connection() {
    let site = site();
    for version in BOTH {
        let mut flags = subscribe(version, 1, &[], &[("a", 0)]);
        flags[0] = 0x80;
        for (packet, code) in [
            (flags, 0x81),
            (subscribe(version, 1, &[], &[]), 0x82),
            (subscribe(version, 1, &[], &[("a", 3)]), 0x81),
            (subscribe(version, 1, &[], &[("a", 0xc0)]), 0x81),
            (subscribe(version, 0, &[], &[("a", 0)]), 0x82),
            (subscribe(version, 1, &[], &[("", 0)]), 0x82),
            (subscribe(version, 1, &[], &[("a\0", 0)]), 0x81),
            (subscribe_raw(version, &[0xff]), 0x81),
            (subscribe_raw(version, &[0xed, 0xa0, 0x80]), 0x81),
            (frame(0x82, &[0, 1]), if version == V5 { 0x81 } else { 0x82 }),
        ] {
            let mut wire = site.client(version, "s");
            wire.send(&packet);
            wire.ended(code);
        }
    }
    // Options that 3.1.1 does not have; Retain Handling 3 and identifier 0 for MQTT 5.
    let mut wire = site.client(V4, "s");
    wire.send(&subscribe(V4, 1, &[], &[("a", NO_LOCAL)]));
    wire.closed();
    for (properties, options) in [(&[][..], 0x30), (&[0x0b, 0], 0)] {
        let mut wire = site.client(V5, "s");
        wire.send(&subscribe(V5, 1, properties, &[("a", options)]));
        wire.ended(0x82);
    }
}

/// [MQTT-3.8.4-5]: as if they had come one by one, also where one filter stands twice.
#[test]
fn filters_of_one_packet_are_taken_one_by_one() {
    let site = site();
    site.publish(Publish::new("a/b", "old").qos(1, 1).retained());
    for version in BOTH {
        let mut wire = site.client(version, "s");
        wire.send(&subscribe(version, 5, &[], &[("a/b", 2), ("a/#", 0), ("a/b", 1)]));
        wire.expect(&suback(version, 5, &[2, 0, 1]));
        for (qos, id) in [(1, 1), (0, 0), (1, 2)] {
            wire.expect_publish(Publish::new("a/b", "old").qos(qos, id).retained());
        }
        site.publish(Publish::new("a/b", "new").qos(2, 1));
        wire.expect_publish(Publish::new("a/b", "new").qos(1, 3));
        wire.silent();
    }
}

/// [MQTT-3.3.4-3]: a retained message has the identifier of the subscription that it is sent for.
#[test]
fn retained_messages_have_the_identifier_of_their_subscription() {
    let site = site();
    site.publish(Publish::new("a/b", "old").retained());
    let mut wire = site.client(V5, "s");
    for (identifier, filter) in [(0x0fff_ffff, "a/b"), (1, "a/#"), (0, "+/b")] {
        let property =
            if identifier > 0 { [vec![0x0b], variable(identifier)].concat() } else { vec![] };
        wire.send(&subscribe(V5, 5, &property, &[(filter, 0)]));
        wire.expect(&suback(V5, 5, &[0]));
        wire.expect_publish(Publish::new("a/b", "old").retained().with(&property));
    }
    // A new one in the place of the old.
    wire.send(&subscribe(V5, 5, &[0x0b, 7], &[("a/b", 0)]));
    wire.expect(&suback(V5, 5, &[0]));
    wire.expect_publish(Publish::new("a/b", "old").retained().with(&[0x0b, 7]));
    wire.send(&unsubscribe(V5, 6, &["a/#"]));
    wire.expect(&unsuback(V5, 6, &[0]));
    site.publish(Publish::new("a/b", "new"));
    wire.expect_publish(Publish::new("a/b", "new").with(&[0x0b, 7]));
}

/// [MQTT-3.8.4-4]: what waits while a subscription is replaced is not lost, and what is retained
/// is sent again.
#[test]
fn replacing_a_subscription_loses_nothing() {
    let site = site();
    site.publish(Publish::new("t", "kept").retained());
    let mut wire = site.enter(&Connect::new(V5, "s").with(&[0x21, 0, 1]), false);
    wire.subscribe("t", 1);
    wire.expect_publish(Publish::new("t", "kept").retained());
    for n in 1..=5 {
        site.publish(Publish::new("t", n.to_string()).qos(1, 1));
    }
    wire.expect_publish(Publish::new("t", "1").qos(1, 1));
    for n in 1..=4 {
        wire.send(&subscribe(V5, 1, &[], &[("t", 1)]));
        wire.expect(&suback(V5, 1, &[1]));
        wire.expect_publish(Publish::new("t", "kept").retained());
        wire.send(&puback(n));
        wire.expect_publish(Publish::new("t", (n + 1).to_string()).qos(1, n + 1));
    }
    wire.send(&puback(5));
    wire.silent();
}

/// [MQTT-3.8.4-3]: the new options count, at once.
#[test]
fn subscribing_again_replaces_the_options() {
    let site = site();
    for version in BOTH {
        let mut subscriber = site.subscriber(version, "s", "t", 0);
        subscriber.subscribe("t", 1);
        site.publish(Publish::new("t", "x").qos(1, 1));
        subscriber.expect_publish(Publish::new("t", "x").qos(1, 1));
        subscriber.send(&puback(1));
        subscriber.subscribe("t", 0);
        site.publish(Publish::new("t", "y").qos(2, 1));
        subscriber.expect_publish(Publish::new("t", "y"));
        subscriber.silent();
    }
}

/// [MQTT-3.8.4-8], [MQTT-2.2.1-2]: the lower of both qualities of service, in all nine combinations.
#[test]
fn delivery_has_the_lower_qos() {
    let site = site();
    for version in BOTH {
        for granted in 0..=2 {
            for sent in 0..=2 {
                let mut subscriber = site.subscriber(version, "s", "t", granted);
                site.publish(Publish::new("t", "x").qos(sent, 1));
                subscriber.expect_publish(Publish::new("t", "x").qos(granted.min(sent), 1));
                subscriber.leave();
            }
        }
    }
}

/// [MQTT-3.3.4-2], [MQTT-3.3.4-3], [MQTT-3.3.4-4]
#[test]
fn overlapping_filters_give_one_copy_at_the_highest_qos() {
    let site = site();
    let mut old = site.subscriber(V4, "old", "a/+", 0);
    old.subscribe("a/#", 1);
    let mut new = site.client(V5, "new");
    for (identifier, filter, qos) in [(1, "a/+", 0), (200, "a/#", 1), (3, "a/b", 0), (4, "x", 2)] {
        let identifier = [vec![0x0b], variable(identifier)].concat();
        new.send(&subscribe(V5, 1, &identifier, &[(filter, qos)]));
        new.packet();
    }
    site.publish(Publish::new("a/b", "x").qos(2, 1));
    old.expect_publish(Publish::new("a/b", "x").qos(1, 1));
    old.silent();
    let received = new.received();
    assert_eq!((received.first, received.text()), (0x32, "x"));
    let mut identifiers: Vec<&[u8]> = received.properties.split(|b| *b == 0x0b).collect();
    identifiers.sort_unstable();
    assert_eq!(identifiers, [&[][..], &[1], &[3], &[200, 1]]);
    new.silent();
}

/// [MQTT-3.8.3-3]
#[test]
fn no_local_keeps_ones_own_messages_away() {
    let site = site();
    let mut wire = site.subscriber(V5, "self", "t", 1 | NO_LOCAL);
    let mut other = site.subscriber(V5, "other", "t", 1 | NO_LOCAL);
    for qos in 0..=1 {
        wire.publish(Publish::new("t", "mine").qos(qos, 9));
        other.expect_publish(Publish::new("t", "mine").qos(qos, 1));
    }
    wire.silent();
    other.publish(Publish::new("t", "theirs"));
    wire.expect_publish(Publish::new("t", "theirs"));
}

/// [MQTT-3.8.3-3]: an overlapping filter without No Local counts alone.
#[test]
fn no_local_excludes_its_filter_only() {
    let site = site();
    let mut wire = site.client(V5, "self");
    wire.send(&subscribe(V5, 1, &[0x0b, 1], &[("t/#", 2 | NO_LOCAL)]));
    wire.expect(&suback(V5, 1, &[2]));
    wire.send(&subscribe(V5, 2, &[0x0b, 2], &[("t/+", 0)]));
    wire.expect(&suback(V5, 2, &[0]));
    wire.publish(Publish::new("t/a", "mine").qos(1, 7));
    let mut packets = [wire.packet(), wire.packet()];
    packets.sort();
    assert_eq!(packets[0], Publish::new("t/a", "mine").with(&[0x0b, 2]).bytes(V5));
    assert_eq!(packets[1][..4], puback(7)[..4]);
}

/// [MQTT-3.8.3-4]
#[test]
fn no_local_on_a_shared_subscription_is_an_error() {
    let site = site();
    let mut wire = site.client(V5, "s");
    wire.send(&subscribe(V5, 1, &[], &[("$share/g/t", NO_LOCAL)]));
    wire.ended(0x82);
}

/// [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.2-1], [MQTT-3.3.2-3]: which filters see `a/b`, and which do not.
#[test]
fn wildcards_match_as_the_standard_says() {
    let site = site();
    for version in BOTH {
        for filter in ["#", "a/#", "a/b/#", "+/+", "a/+", "+/b", "a/b"] {
            let mut wire = site.subscriber(version, "s", filter, 0);
            site.publish(Publish::new("a/b", filter));
            wire.expect_publish(Publish::new("a/b", filter));
            wire.leave();
        }
        for filter in ["+", "a", "/a/b", "a/b/+", "A/b", "+/+/+", "a/b/"] {
            let mut wire = site.subscriber(version, "s", filter, 0);
            site.publish(Publish::new("a/b", filter));
            wire.silent();
            wire.leave();
        }
    }
}

/// MQTT 5.0, 3.9.3: what a client may not have beyond its quota.
#[test]
fn too_many_subscriptions_are_refused_one_by_one() {
    let mut settings = broker::Settings::default();
    settings.limits.subscriptions = 2;
    let site = site_with(settings);
    let mut wire = site.client(V5, "s");
    wire.send(&subscribe(V5, 1, &[], &[("a", 0), ("b", 0), ("c", 0), ("a", 1)]));
    wire.expect(&suback(V5, 1, &[0, 0, 0x97, 1]));
}
