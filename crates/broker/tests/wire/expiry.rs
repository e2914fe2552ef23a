//! Message expiry.

use crate::support::*;

/// The seconds of a delivery's Message Expiry Interval.
fn left(received: &Received) -> u32 {
    assert_eq!(received.properties[0], 0x02, "{received:02x?}");
    u32::from_be_bytes(received.properties[1..5].try_into().unwrap())
}

/// [MQTT-3.3.2-6]: what is left when it is sent; a 3.1.1 client gets the message without.
#[test]
fn the_interval_counts_down() {
    let site = site();
    let lasting = Connect::lasting(V5, "s");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 1);
    wire.vanish();
    site.publish(Publish::new("t", "x").qos(1, 1).retained().with(&seconds(0x02, 1000)));
    // A second passes: another message lives that long, and its end is seen below.
    let mut clock = site.subscriber(V5, "clock", "w", 0);
    let will = Will { properties: seconds(0x18, 1), ..Will::new("w", "") };
    site.enter(&Connect::lasting(V5, "c").will(will), false).vanish();
    clock.expect_publish(Publish::new("w", ""));
    let mut wire = site.enter(&lasting, true);
    let waited = left(&wire.received());
    assert!((980..1000).contains(&waited), "{waited}");
    // The retained copy ages by time, not by being read.
    for _ in 0..3 {
        let mut late = site.subscriber(V5, "late", "t", 0);
        assert!((980..1000).contains(&left(&late.received())));
    }
    let mut old = site.subscriber(V4, "old", "t", 0);
    old.expect_publish(Publish::new("t", "x").retained());
}

/// [MQTT-3.3.2-5]: neither from a queue nor as the retained message.
#[test]
fn what_is_late_is_not_sent() {
    let site = site();
    for version in BOTH {
        let lasting = Connect::lasting(version, &format!("s{version}"));
        let mut wire = site.enter(&lasting, false);
        wire.subscribe("t", 1);
        wire.vanish();
        site.publish(Publish::new("t", "x").qos(1, 1).retained().with(&seconds(0x02, 0)));
        site.publish(Publish::new("t", "y").qos(1, 1).with(&seconds(0x02, 1000)));
        let mut wire = site.enter(&lasting, true);
        assert_eq!(wire.received().text(), "y");
        wire.silent();
        site.subscriber(version, "late", "t", 1).silent();
    }
}
