//! PINGREQ and the keep alive.

use crate::support::*;
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
