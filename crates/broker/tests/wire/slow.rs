//! Clients that read nothing, or never come to the end of a packet.

use crate::support::*;
use broker::Settings;
use std::time::{Duration, Instant};

fn stall(milliseconds: u64) -> Settings {
    Settings { stall: Duration::from_millis(milliseconds), ..Settings::default() }
}

fn is_connected(site: &Site, id: &str) -> bool {
    site.broker.client(id).is_some_and(|client| client.connected)
}

/// At QoS 0 nothing is owed, so it is waited for once and no more: what it has no room for is
/// dropped, and it is disconnected, even if it goes on sending. What waits for it stays below its bounds.
#[test]
fn who_reads_nothing_at_qos_0_is_bounded_and_then_disconnected() {
    let mut settings = stall(500);
    settings.limits.queue_bytes = 100_000;
    settings.limits.publish_hold = Duration::from_millis(50);
    let site = site_with(settings);
    for (version, keep_alive, pings) in [(V5, 0, false), (V4, 0, true), (V5, 1, true)] {
        let connect = Connect { keep_alive, ..Connect::new(version, "slow") };
        let mut slow = site.enter(&connect, false);
        slow.subscribe("t", 0);
        let mut publisher = site.client(version, "publisher");
        let began = Instant::now();
        let before = site.broker.counters();
        let mut rounds = 0;
        while is_connected(&site, "slow") {
            for _ in 0..10 {
                publisher.publish(Publish::new("t", vec![b'x'; 10_000]));
            }
            // Nobody else waits for it again and again.
            publisher.silent();
            if pings {
                slow.throw(&PINGREQ);
            }
            rounds += 1;
            let waits = site.broker.client("slow").map_or(0, |client| client.queued_bytes);
            assert!(waits <= 100_000, "{waits} bytes wait");
            assert!(began.elapsed() < Duration::from_secs(20), "still there after {rounds} rounds");
        }
        // One and a half times the keep alive, where that is longer.
        let patience = if keep_alive == 1 { 1500 } else { 500 };
        assert!(began.elapsed() >= Duration::from_millis(patience), "{:?}", began.elapsed());
        let after = site.broker.counters();
        assert_eq!(after.slow_clients - before.slow_clients, 1);
        assert!(after.dropped > before.dropped);
    }
}

/// The retained messages of a subscription are no way around it.
#[test]
fn who_reads_no_retained_messages_is_disconnected() {
    let site = site_with(stall(300));
    for n in 0..100 {
        site.publish(Publish::new(&format!("r/{n}"), vec![b'x'; 100_000]).retained());
    }
    let connect = Connect { keep_alive: 0, ..Connect::new(V5, "slow") };
    let mut slow = site.enter(&connect, false);
    slow.send(&subscribe(V5, 1, &[], &[("r/#", 0)]));
    eventually("it is disconnected", || !is_connected(&site, "slow"));
    assert_eq!(site.broker.counters().slow_clients, 1);
}

/// A byte now and then is not a packet, with or without a keep alive.
#[test]
fn who_never_ends_a_packet_is_disconnected() {
    let site = site_with(stall(300));
    for (version, keep_alive) in [(V4, 0), (V5, 0), (V5, 1)] {
        let connect = Connect { keep_alive, ..Connect::new(version, "slow") };
        let mut slow = site.enter(&connect, false);
        let began = Instant::now();
        // A PUBLISH of 100,000 bytes: its head, and the first of them.
        slow.send(&[0x30, 0xa0, 0x8d, 0x06, 0, 1, b't']);
        // Then another byte now and then: in the time of a few hundred round trips.
        let mut other = site.client(V4, "other");
        while is_connected(&site, "slow") {
            slow.throw(&[0]);
            for _ in 0..100 {
                other.silent();
            }
            assert!(began.elapsed() < Duration::from_secs(20), "still there");
        }
        slow.ended(0x8d);
        let patience = if keep_alive == 1 { 1500 } else { 300 };
        assert!(began.elapsed() >= Duration::from_millis(patience), "{:?}", began.elapsed());
    }
    assert_eq!(site.broker.counters().slow_clients, 3);
}

/// A large packet in small pieces is one packet, and costs what it weighs.
#[test]
fn a_packet_may_come_byte_by_byte() {
    let site = site();
    let mut subscriber = site.subscriber(V5, "s", "t", 0);
    for version in BOTH {
        let mut wire = site.client(version, "p");
        let publish = Publish::new("t", vec![b'x'; 3000]);
        for byte in publish.bytes(version) {
            wire.send(&[byte]);
        }
        wire.silent();
        subscriber.expect_publish(publish);
    }
}
