//! What clients bring goes with them: memory at rest does not grow with what was there once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

// A part of it is used here.
#[allow(dead_code, unused_imports)]
#[path = "wire/support/mod.rs"]
mod support;

use std::sync::{Mutex, PoisonError};
use support::*;

/// Memory is the process's, so that one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Rounds before memory is looked at for the first time, and all of them.
const WARM: usize = 4;
const ROUNDS: usize = 12;
/// In KB, for all rounds behind the first ones: pools and fragments, and far less than what a
/// stock rumqttd keeps (6 KB a filter, 112 bytes a topic, 538 bytes a link). Without a log, since
/// the disk of these tests is memory.
const GROWTH: u64 = 2 * 1024;

/// Resident memory in KB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Does the same again and again, and memory stays.
fn stays(mut round: impl FnMut(usize)) {
    let mut before = 0;
    for number in 0..ROUNDS {
        if number == WARM {
            before = resident();
        }
        round(number);
    }
    let grown = resident().saturating_sub(before);
    println!("{grown} KB more");
    assert!(grown < GROWTH, "{grown} KB more after {} rounds", ROUNDS - WARM);
}

#[test]
fn filters_and_topics_leave_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let site = site_without_log(broker::Settings::default());
    let mut wire = site.client(V5, "s");
    let mut others: Vec<Wire> =
        (0..40).map(|n| site.subscriber(V4, &format!("o{n}"), "+/+/+/all", 0)).collect();
    stays(|round| {
        for part in 0..20 {
            let texts: Vec<String> =
                (0..100).map(|n| format!("{round}/{part}/{n}/+/only/here/#")).collect();
            let filters: Vec<&str> = texts.iter().map(String::as_str).collect();
            let asked: Vec<(&str, u8)> = filters.iter().map(|filter| (*filter, 0)).collect();
            wire.send(&subscribe(V5, 1, &[], &asked));
            wire.expect(&suback(V5, 1, &[0; 100]));
            for n in 0..20 {
                let topic = format!("{round}/{part}/{n}/all");
                wire.publish(Publish::new(&topic, "x").retained());
                wire.publish(Publish::new(&topic, "").retained());
            }
            wire.silent();
            for other in &mut others {
                for _ in 0..40 {
                    other.packet();
                }
            }
            wire.send(&unsubscribe(V5, 2, &filters));
            wire.expect(&unsuback(V5, 2, &[0; 100]));
        }
    });
    let counters = site.broker.counters();
    assert!(counters.direct > 0 && counters.dropped == 0, "{counters:?}");
}

#[test]
fn sessions_leave_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let site = site_without_log(broker::Settings::default());
    stays(|round| {
        for n in 0..300 {
            let lasting = Connect::lasting(V5, &format!("{round}/{n}"));
            let mut wire = site.enter(&lasting, false);
            wire.subscribe(&format!("{round}/{n}"), 1);
            wire.vanish();
            site.publish(Publish::new(&format!("{round}/{n}"), "x".repeat(100)).qos(1, 1));
            let mut wire = site.enter(&lasting, true);
            wire.received();
            wire.send(&frame(0xe0, &[&[0, 5][..], &seconds(0x11, 0)].concat()));
            wire.closed();
        }
    });
    eventually("no session is left", || site.broker.counters().sessions == 0);
}
