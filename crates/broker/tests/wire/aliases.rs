//! Topic aliases, in both directions.

use crate::support::*;

fn alias(n: u16) -> Vec<u8> {
    [&[0x23][..], &n.to_be_bytes()].concat()
}

/// [MQTT-3.3.2-12]: set, used, set again; receivers see topics.
#[test]
fn a_client_may_set_them() {
    let site = site();
    let mut new = site.subscriber(V5, "new", "#", 1);
    let mut old = site.subscriber(V4, "old", "+/+", 0);
    let mut publisher = site.client(V5, "p");
    for (topic, n, seen) in [
        ("a/1", 1, "a/1"),
        ("b/2", 32, "b/2"),
        ("", 1, "a/1"),
        ("", 32, "b/2"),
        ("c/3", 1, "c/3"),
        ("", 1, "c/3"),
    ] {
        publisher.publish(Publish::new(topic, "x").with(&alias(n)));
        new.expect_publish(Publish::new(seen, "x"));
        old.expect_publish(Publish::new(seen, "x"));
    }
}

/// [MQTT-3.3.2-8], [MQTT-3.3.2-9], [MQTT-3.2.2-17]
#[test]
fn impossible_ones_end_the_connection() {
    let site = site();
    for (topic, n, code) in [("t", 0, 0x94), ("t", 33, 0x94), ("", 5, 0x82)] {
        let mut wire = site.client(V5, "p");
        wire.publish(Publish::new(topic, "x").with(&alias(n)));
        wire.ended(code);
    }
}

/// [MQTT-3.3.2-7]: they end with the connection, even where the session does not.
#[test]
fn they_end_with_the_connection() {
    let site = site();
    let lasting = Connect::lasting(V5, "p");
    let mut wire = site.enter(&lasting, false);
    wire.publish(Publish::new("t", "x").with(&alias(1)));
    wire.leave();
    let mut wire = site.enter(&lasting, true);
    wire.publish(Publish::new("", "x").with(&alias(1)));
    wire.ended(0x82);
}

/// [MQTT-3.1.2-26], [MQTT-3.1.2-27], [MQTT-3.3.2-11]: as many as the client takes, each after its topic.
#[test]
fn the_broker_sets_as_many_as_the_client_takes() {
    let site = site();
    let mut none = site.subscriber(V5, "none", "#", 1);
    let mut two = site.enter(&Connect::new(V5, "two").with(&[0x22, 0, 2]), false);
    two.subscribe("#", 1);
    for (topic, short, n) in
        [("a", "a", 1), ("b", "b", 2), ("c", "c", 0), ("a", "", 1), ("b", "", 2), ("c", "c", 0)]
    {
        site.publish(Publish::new(topic, "x"));
        none.expect_publish(Publish::new(topic, "x"));
        let aliased = Publish::new(short, "x");
        two.expect_publish(if n == 0 { aliased } else { aliased.with(&alias(n)) });
    }
}

/// [MQTT-3.1.2-24]: an alias is no reason to exceed the Maximum Packet Size, but one to fit it.
#[test]
fn aliases_and_maximum_packet_size() {
    let site = site();
    let properties = [vec![0x22, 0, 2], seconds(0x27, 50)].concat();
    let mut wire = site.enter(&Connect::new(V5, "s").with(&properties), false);
    wire.subscribe("#", 0);
    let topic = "t".repeat(20);
    let full = Publish::new(&topic, "x".repeat(25));
    assert_eq!(full.bytes(V5).len(), 50);
    site.publish(full.clone());
    wire.expect_publish(full);
    let first = Publish::new(&topic, "x");
    site.publish(first.clone());
    wire.expect_publish(first.with(&alias(1)));
    site.publish(Publish::new(&topic, "x".repeat(42)));
    wire.expect_publish(Publish::new("", "x".repeat(42)).with(&alias(1)));
}

/// What is sent again has its topic: aliases of the last connection are gone.
#[test]
fn redelivery_sets_them_anew() {
    let site = site();
    let lasting = Connect::lasting(V5, "s").with(&[0x22, 0, 2]);
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 1);
    for (id, topic) in [(1, "t"), (2, "")] {
        site.publish(Publish::new("t", "x").qos(1, 1));
        wire.expect_publish(Publish::new(topic, "x").qos(1, id).with(&alias(1)));
    }
    wire.vanish();
    let mut wire = site.enter(&lasting, true);
    for (id, topic) in [(1, "t"), (2, "")] {
        wire.expect_publish(Publish::new(topic, "x").qos(1, id).dup().with(&alias(1)));
    }
}
