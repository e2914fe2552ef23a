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

/// [MQTT-3.3.2-5]: nor does it take the room of others meanwhile, in memory or in the log.
#[test]
fn what_is_late_gives_its_room_back() {
    let mut settings = broker::Settings::default();
    settings.limits.queue_messages = 2;
    settings.forget_every = std::time::Duration::from_millis(5);
    let disk = disk::Disk::default();
    let site = site_on(settings, &disk);
    let lasting = Connect::lasting(V4, "away");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 1);
    wire.vanish();
    let late = Publish::new("t", "late").qos(1, 1).with(&seconds(0x02, 0));
    for n in 0..10 {
        site.publish(late.clone());
        // Both places are taken, or would be.
        site.publish(late.clone());
        eventually("both are dropped", || {
            let queued = site.broker.client("away").unwrap().queued_messages;
            queued == 0 && site.broker.counters().dropped == 2 * (n + 1)
        });
    }
    for text in ["1", "2"] {
        site.publish(Publish::new("t", text).qos(1, 1));
    }
    for site in [&site, &site_on(broker::Settings::default(), &disk.after_kill())] {
        assert_eq!(site.broker.client("away").unwrap().queued_messages, 2);
        let mut wire = site.enter(&lasting, true);
        for text in ["1", "2"] {
            assert_eq!(wire.received().text(), text);
        }
        wire.silent();
    }
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
