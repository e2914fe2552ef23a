//! How many may come in, at once and in a second.

use crate::support::*;
use std::time::{Duration, Instant};

/// One too many is closed without a word, and the others do not notice. Who leaves makes room.
#[test]
fn one_connection_too_many_is_closed_at_once() {
    type Bound = fn(&mut broker::Limits);
    let bounds: [Bound; 2] =
        [|limits| limits.connections = 2, |limits| limits.connections_per_ip = Some(2)];
    for (per_ip, bound) in bounds.into_iter().enumerate() {
        let mut settings = broker::Settings::default();
        bound(&mut settings.limits);
        let site = site_with(settings);
        let mut first = site.client(V5, "first");
        // A place is taken with the first byte or before it.
        let silent = site.open();
        for _ in 0..20 {
            site.open().closed();
        }
        first.silent();
        let counters = site.broker.counters();
        let refused = [counters.connections_refused, counters.connections_refused_per_ip];
        assert_eq!((refused[per_ip], refused[1 - per_ip]), (20, 0));
        assert_eq!(counters.connects_refused, 20);
        silent.vanish();
        // The place is free when the broker knows of it, which is after the client does.
        eventually("it is", || site.broker.counters().connections == 1);
        site.client(V4, "second").silent();
    }
}

/// Many at once wait for their turn and all get in; their clients see nothing but a later
/// CONNACK.
#[test]
fn connects_wait_for_their_turn() {
    let mut settings = broker::Settings::default();
    settings.limits.connects_per_second = Some(50);
    let site = site_with(settings);
    let began = Instant::now();
    let mut waiting: Vec<Wire> =
        (0..100).map(|n| site.greet(&Connect::new(BOTH[n % 2], &format!("c{n}")))).collect();
    // What comes behind the CONNECT meanwhile is not lost.
    waiting[99].send(&PINGREQ);
    for wire in &mut waiting {
        let ack = wire.packet();
        assert_eq!((ack[0], ack[3]), (0x20, 0), "{ack:02x?}");
    }
    waiting[99].expect(&PINGRESP);
    // 50 at once, and 50 more in a second.
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    let counters = site.broker.counters();
    assert_eq!(counters.connects, 100);
    assert!(counters.connects_delayed > 0, "{counters:?}");
    assert_eq!(counters.connects_refused_rate, 0);
}

/// Who waits longer than its client would is told.
#[test]
fn who_waits_too_long_is_told() {
    let mut settings = broker::Settings::default();
    settings.limits.connects_per_second = Some(1);
    settings.connect_patience = Duration::from_millis(100);
    let site = site_with(settings);
    let _first = site.client(V5, "first");
    let mut late = site.greet(&Connect::new(V5, "late"));
    let ack = late.packet();
    assert_eq!((ack[0], ack[3]), (0x20, 0x9f), "{ack:02x?}");
    late.closed();
    let mut late = site.greet(&Connect::new(V4, "late"));
    late.expect(&[0x20, 2, 0, 3]);
    late.closed();
    assert_eq!(site.broker.counters().connects_refused_rate, 2);
}

/// A CONNECT that nobody waits for any more takes no turn.
#[test]
fn who_leaves_while_waiting_takes_no_turn() {
    let mut settings = broker::Settings::default();
    settings.limits.connects_per_second = Some(1);
    let site = site_with(settings);
    let _first = site.client(V5, "first");
    for _ in 0..10 {
        site.greet(&Connect::new(V5, "gone")).vanish();
    }
    eventually("all have gone", || site.broker.counters().connections == 1);
    let counters = site.broker.counters();
    assert_eq!(counters.connects, 1, "{counters:?}");
    assert_eq!((counters.connects_delayed, counters.connects_refused_rate), (10, 0));
    assert_eq!(counters.connects_refused, 10);
}
