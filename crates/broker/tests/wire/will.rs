//! Wills: when they are published, and when not.

use crate::{
    durability::{full_client, patient},
    support::{disk::Disk, *},
};
use broker::Settings;

fn will() -> Will {
    Will::new("w", "gone")
}

/// A will that waits: so many seconds.
fn delayed(delay: u32) -> Will {
    Will { properties: seconds(0x18, delay), ..will() }
}

/// [MQTT-3.1.2-7], [MQTT-3.1.2-8]: of a connection that just ends.
#[test]
fn a_lost_connection_publishes_it() {
    let site = site();
    for version in BOTH {
        let mut watcher = site.subscriber(version, "watcher", "w", 1);
        let with_qos = Will { qos: 1, ..will() };
        site.enter(&Connect::new(version, "c").will(with_qos), false).vanish();
        watcher.expect_publish(Publish::new("w", "gone").qos(1, 1));
        // And of one that breaks the protocol.
        let mut bad = site.enter(&Connect::new(version, "c").will(will()), false);
        bad.send(&[0, 0]);
        bad.ended(0x81);
        watcher.expect_publish(Publish::new("w", "gone"));
    }
}

/// [MQTT-3.1.2-10], [MQTT-3.14.4-3]
#[test]
fn an_orderly_goodbye_deletes_it() {
    let site = site();
    let mut watcher = site.subscriber(V5, "watcher", "w", 0);
    for version in BOTH {
        site.enter(&Connect::new(version, "c").will(will()), false).leave();
    }
    let mut wire = site.enter(&Connect::new(V5, "c").will(will()), false);
    // Reason code 0, without a property length.
    wire.send(&[0xe0, 1, 0]);
    wire.closed();
    watcher.silent();
    // Reason code 4 asks for it.
    let mut wire = site.enter(&Connect::new(V5, "c").will(will()), false);
    wire.send(&[0xe0, 1, 4]);
    wire.closed();
    watcher.expect_publish(Publish::new("w", "gone"));
}

/// [MQTT-3.14.4-3]: it counts also where the client is back before it was looked at, and so does what
/// it sent before.
#[test]
fn a_goodbye_counts_however_soon_its_client_is_back() {
    let site = site();
    let mut watcher = site.subscriber(V5, "watcher", "w", 0);
    for version in BOTH {
        let connect = Connect::new(version, "c").will(will());
        let mut wire = site.enter(&connect, false);
        for _ in 0..200 {
            let last = Publish::new("w", "last");
            wire.send(&[last.bytes(version), DISCONNECT.into()].concat());
            wire = site.enter(&connect, false);
            watcher.expect_publish(last);
        }
        wire.leave();
    }
    watcher.silent();
}

/// [MQTT-3.14.4-3]: it counts also where it waits behind a publish that is held, and with it what was
/// sent before, whether the client closes then or comes back.
#[test]
fn a_goodbye_that_waits_deletes_it() {
    let site = site_on(patient(), &Disk::default());
    let (_, mut full) = full_client(&site, "t");
    let mut watcher = site.subscriber(V5, "watcher", "w", 0);
    for (n, comes_back) in [(1, false), (2, true)] {
        let connect = Connect::new(V5, "c").will(will());
        let mut wire = site.enter(&connect, false);
        wire.publish(Publish::new("t", "held").qos(1, 1));
        wire.silent();
        wire.publish(Publish::new("w", "last"));
        // It goes ahead of what waits, so that all of that has been read.
        wire.send(&PINGREQ);
        wire.expect(&PINGRESP);
        wire.send(&DISCONNECT);
        if comes_back {
            let back = site.enter(&connect, false);
            watcher.silent();
            back.leave();
        } else {
            wire.cut();
            watcher.silent();
            full.send(&puback(1));
            assert_eq!(full.received().text(), ["2", "held"][n - 1]);
            watcher.expect_publish(Publish::new("w", "last"));
        }
        watcher.silent();
    }
}

/// [MQTT-3.14.4-3]: it counts also where the client closed over what it had not read, which takes
/// the broker's connection away before its last packets are looked at.
#[test]
fn a_goodbye_that_the_broker_cannot_answer_deletes_it() {
    let mut settings = Settings::default();
    settings.limits.packet_bytes = 40_000_000;
    let site = site_with(settings);
    // More than sockets hold, so that the broker reads nothing before it has got rid of some.
    site.publish(Publish::new("much", vec![b'x'; 32_000_000]).retained());
    let mut watcher = site.subscriber(V5, "watcher", "w", 0);
    for version in BOTH {
        let mut wire = site.enter(&Connect::new(version, "c").will(will()), false);
        wire.subscribe("much", 0);
        wire.swallow(1);
        wire.publish(Publish::new("w", "last"));
        wire.send(&DISCONNECT);
        drop(wire);
        watcher.expect_publish(Publish::new("w", "last"));
        eventually("it is gone", || site.broker.client("c").is_none());
        watcher.silent();
    }
}

/// MQTT 5.0, 3.1.2.6: at each QoS.
#[test]
fn it_is_published_at_its_qos() {
    let site = site();
    for version in BOTH {
        let mut watcher = site.subscriber(version, "watcher", "w", 2);
        for qos in 0..=2 {
            let connect = Connect::new(version, "c").will(Will { qos, ..will() });
            site.enter(&connect, false).vanish();
            watcher.expect_publish(Publish::new("w", "gone").qos(qos, u16::from(qos)));
        }
    }
}

/// [MQTT-3.1.2-10], [MQTT311-3.1.2-12]: once, and not again at the next end of the session's connection.
#[test]
fn it_is_gone_once_published() {
    let site = site();
    let mut watcher = site.subscriber(V5, "watcher", "w", 0);
    for version in BOTH {
        let lasting = Connect::lasting(version, &format!("c{version}"));
        site.enter(&lasting.clone().will(will()), false).vanish();
        watcher.expect_publish(Publish::new("w", "gone"));
        site.enter(&lasting, true).vanish();
        // A goodbye takes it along, and the next connection has none.
        site.enter(&lasting.clone().will(will()), true).leave();
        site.enter(&lasting, true).vanish();
        watcher.silent();
    }
}

/// [MQTT-3.1.2-14], [MQTT-3.1.2-15]
#[test]
fn it_is_retained_on_request() {
    let site = site();
    site.enter(&Connect::new(V4, "c").will(Will::new("x", "gone")), false).vanish();
    site.enter(&Connect::new(V4, "c").will(Will { retain: true, ..will() }), false).vanish();
    let mut late = site.subscriber(V4, "late", "#", 0);
    late.expect_publish(Publish::new("w", "gone").retained());
    late.silent();
}

/// [MQTT-3.1.3-10]: its properties travel with it, in their order; but for the delay, which is the
/// broker's.
#[test]
fn its_properties_travel() {
    let site = site();
    let mut new = site.subscriber(V5, "new", "w", 0);
    let mut old = site.subscriber(V4, "old", "w", 0);
    let travelling = [
        seconds(0x02, 1000),
        vec![0x01, 1],
        [vec![0x03], text("json")].concat(),
        [vec![0x08], text("answers")].concat(),
        [vec![0x09], text([0, 1])].concat(),
        user("k", "2"),
        user("a", ""),
        user("k", "1"),
    ]
    .concat();
    let properties = [seconds(0x18, 0), travelling.clone()].concat();
    site.enter(&Connect::new(V5, "c").will(Will { properties, ..will() }), false).vanish();
    new.expect_publish(Publish::new("w", "gone").with(&travelling));
    old.expect_publish(Publish::new("w", "gone"));
}

/// [MQTT-3.1.3-9]: who comes back in time is not mourned.
#[test]
fn a_delayed_will_is_void_when_the_session_goes_on() {
    let site = site();
    let mut watcher = site.subscriber(V5, "watcher", "w", 0);
    let lasting = Connect::lasting(V5, "c");
    site.enter(&lasting.clone().will(delayed(1)), false).vanish();
    let back = site.enter(&lasting, true);
    // Longer than the delay: another will, as long and later, has come meanwhile.
    site.enter(&Connect::lasting(V5, "d").will(Will { payload: "d".into(), ..delayed(1) }), false)
        .vanish();
    watcher.expect_publish(Publish::new("w", "d"));
    watcher.silent();
    back.leave();
}

/// MQTT 5.0, 3.1.3.2.2: the end of the session does not wait for the delay.
#[test]
fn a_delayed_will_is_due_with_the_end_of_the_session() {
    let site = site();
    let mut watcher = site.subscriber(V5, "watcher", "w", 0);
    // The session ends with the connection.
    site.enter(&Connect::new(V5, "c").will(delayed(3600)), false).vanish();
    watcher.expect_publish(Publish::new("w", "gone"));
    // It ends a second later.
    let short = Connect::new(V5, "c").with(&seconds(0x11, 1)).will(delayed(3600));
    site.enter(&short, false).vanish();
    watcher.expect_publish(Publish::new("w", "gone"));
    // It ends since the client starts again [MQTT-3.1.4-4].
    site.enter(&Connect::lasting(V5, "c").will(delayed(3600)), false).vanish();
    site.client(V5, "c");
    watcher.expect_publish(Publish::new("w", "gone"));
    watcher.silent();
}

/// [MQTT-3.1.4-3]: a takeover ends the old connection like any other end.
#[test]
fn a_takeover_publishes_it() {
    let site = site();
    let mut watcher = site.subscriber(V5, "watcher", "w", 0);
    for version in BOTH {
        let mut first = site.enter(&Connect::lasting(version, "c").will(will()), false);
        let second = site.enter(&Connect { clean: true, ..Connect::lasting(version, "c") }, false);
        first.ended(0x8e);
        watcher.expect_publish(Publish::new("w", "gone"));
        second.leave();
        site.client(version, "c").leave();
    }
    // A delayed one is void where the session goes on [MQTT-3.1.3-9].
    let mut first = site.enter(&Connect::lasting(V5, "c").will(delayed(3600)), false);
    site.enter(&Connect::lasting(V5, "c"), true).silent();
    first.ended(0x8e);
    watcher.silent();
}

/// An administrator, or a stop of the broker, is not the client's goodbye.
#[test]
fn a_kicked_client_is_mourned() {
    let site = site();
    let mut watcher = site.subscriber(V5, "watcher", "w", 0);
    let mut wire = site.enter(&Connect::new(V5, "c").will(will()), false);
    let why = hook::Reason::new(hook::ReasonKind::AdministrativeAction, "maintenance");
    assert!(site.broker.disconnect("c", &why));
    wire.ended(0x98);
    watcher.expect_publish(Publish::new("w", "gone"));
}
