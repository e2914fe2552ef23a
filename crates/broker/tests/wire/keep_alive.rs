//! PINGREQ and the keep alive.

use crate::{durability::full_client, support::*};
use broker::Settings;
use std::time::{Duration, Instant};

/// [MQTT-3.12.4-1]
#[test]
fn every_ping_is_answered() {
    let site = site();
    for version in BOTH {
        let mut wire = site.client(version, "a");
        wire.send(&PINGREQ.repeat(100));
        for _ in 0..100 {
            wire.expect(&PINGRESP);
        }
        // Neither flags nor a body.
        wire.send(&[0xc1, 0]);
        wire.ended(0x81);
        let mut wire = site.client(version, "a");
        wire.send(&[0xc0, 1, 0]);
        wire.ended(0x81);
    }
}

/// [MQTT-3.1.2-22], [MQTT-3.2.2-22]: after one and a half times the keep alive, and with the will.
#[test]
fn who_says_nothing_is_disconnected() {
    let site = site();
    let mut watcher = site.subscriber(V4, "watcher", "w", 0);
    let silent = |version, id| {
        let will = Will::new("w", "gone");
        site.enter(&Connect { keep_alive: 1, ..Connect::new(version, id) }.will(will), false)
    };
    let began = Instant::now();
    let (mut old, mut new) = (silent(V4, "old"), silent(V5, "new"));
    old.ended(0);
    new.ended(0x8d);
    assert!(began.elapsed() >= Duration::from_millis(1400), "{:?}", began.elapsed());
    for _ in 0..2 {
        watcher.expect_publish(Publish::new("w", "gone"));
    }
}

/// [MQTT-3.2.2-22]: who asks for more than the broker waits, or for none, is told
/// what to use, and the broker uses it too.
#[test]
fn a_longer_keep_alive_is_cut() {
    let mut settings = Settings::default();
    settings.limits.keep_alive = Some(1);
    let site = site_with(settings);
    let told = |version, id, keep_alive| {
        let mut wire = site.greet(&Connect { keep_alive, ..Connect::new(version, id) });
        let ack = wire.packet();
        assert_eq!((ack[0], ack[3]), (0x20, 0), "{ack:02x?}");
        let property = ack.windows(3).find(|part| part[0] == 0x13);
        (wire, property.map(|part| u16::from_be_bytes([part[1], part[2]])))
    };
    for keep_alive in [0, 2, u16::MAX] {
        let (_, property) = told(V5, "c", keep_alive);
        assert_eq!(property, Some(1), "{keep_alive}");
    }
    assert_eq!(told(V5, "c", 1).1, None, "its own is short enough");
    let (mut old, property) = told(V4, "old", 0);
    assert_eq!(property, None, "3.1.1 has no word for it");
    let began = Instant::now();
    let (mut new, _) = told(V5, "new", 0);
    new.ended(0x8d);
    assert!(began.elapsed() >= Duration::from_millis(1400), "{:?}", began.elapsed());
    old.silent();
}

/// While a publish is held for others, and so much waits behind it that nothing is read, its
/// publisher is not silent: what it says is not heard.
#[test]
fn who_is_held_up_by_others_is_not_silent() {
    const HELD: Duration = Duration::from_secs(4);
    let mut settings = Settings::default();
    (settings.limits.queue_messages, settings.limits.packet_bytes) = (1, 1024);
    settings.limits.publish_hold = HELD;
    let site = site_with(settings);
    let (_, _full) = full_client(&site, "t");
    let connect = Connect { keep_alive: 1, ..Connect::new(V5, "p") };
    let mut publisher = site.enter(&connect, false);
    let began = Instant::now();
    publisher.publish(Publish::new("t", "x").qos(1, 1));
    publisher.send(&Publish::new("nobody", [0; 500]).bytes(V5).repeat(400));
    publisher.send(&PINGREQ);
    publisher.expect(&puback(1));
    assert!(began.elapsed() >= HELD, "it was held for {:?}", began.elapsed());
    publisher.expect(&PINGRESP);
    publisher.silent();
    // And from then on it counts again.
    publisher.ended(0x8d);
}

/// While much waits for a slow client nothing is read from it: what it takes says that it lives.
#[test]
fn who_takes_a_long_message_slowly_is_not_silent() {
    const PATIENCE: Duration = Duration::from_secs(3);
    let mut settings = Settings::default();
    (settings.limits.queue_bytes, settings.limits.packet_bytes) = (32_000_000, 16_000_000);
    let site = site_with(settings);
    let mut wire = site.enter(&Connect { keep_alive: 2, ..Connect::new(V4, "slow") }, false);
    wire.subscribe("t", 1);
    let mut publisher = site.client(V4, "p");
    publisher.publish(Publish::new("t", vec![0; 15_000_000]).qos(1, 1));
    publisher.expect(&puback(1));
    // Two and a half megabytes a second, for longer than it may be silent.
    let (began, step) = (Instant::now(), Duration::from_millis(25));
    let mut next = began;
    while began.elapsed() < PATIENCE + Duration::from_secs(1) {
        wire.throw(&PINGREQ);
        assert!(wire.swallow(64 * 1024), "ended after {:?}", began.elapsed());
        next += step;
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
}
