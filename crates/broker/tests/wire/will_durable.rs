//! Wills over the end of the process: MQTT 5.0, 4.1: they are a part of the session.

use crate::{
    durability::{first, full_client, killed, patient, written},
    support::{disk::Disk, *},
};
use broker::Settings;
use std::time::{Duration, Instant};

/// A session that lasts for so many seconds, with a will that waits for so many.
fn session(id: &str, expiry: u32, delay: u32) -> Connect {
    let properties = [seconds(0x18, delay), seconds(0x02, 500)].concat();
    let will = Will { qos: 1, properties, ..Will::new(&format!("w/{id}"), "gone") };
    Connect { clean: false, ..Connect::new(V5, id).with(&seconds(0x11, expiry)).will(will) }
}

/// Somebody who hears all wills, also those that were published while it was away. `later` than the
/// broker's start.
fn watcher(site: &Site, later: bool) -> Wire {
    let lasting = Connect::lasting(V5, "watcher");
    let mut wire = site.enter(&lasting, later);
    if !later {
        wire.subscribe("w/#", 1);
    }
    wire
}

/// The next will, and its time to live, which begins when it is published.
fn expect_will(wire: &mut Wire, id: &str) {
    let got = wire.received();
    assert_eq!((&*got.topic, got.text()), (&*format!("w/{id}"), "gone"));
    // It counts down while the message waits.
    let [0x02, left @ ..] = &got.properties[..] else { panic!("{got:?}") };
    let left = u32::from_be_bytes(left.try_into().unwrap());
    assert!((400..=500).contains(&left), "{got:?}");
    wire.send(&puback(got.id));
}

/// Takes so many wills, and gives their topics in order.
fn topics(wire: &mut Wire, count: usize) -> Vec<String> {
    let mut topics: Vec<_> = (0..count)
        .map(|_| {
            let got = wire.received();
            wire.send(&puback(got.id));
            got.topic
        })
        .collect();
    topics.sort();
    topics
}

fn after(time: Duration) {
    let over = Instant::now() + time;
    while Instant::now() < over {
        std::thread::park_timeout(over - Instant::now());
    }
}

/// [MQTT-3.1.2-8]: the end of the process ends each connection, and none of them said goodbye.
#[test]
fn of_clients_that_were_connected_they_are_published() {
    let (site, disk) = first();
    watcher(&site, false).vanish();
    let _now = site.enter(&session("now", 1000, 0), false);
    let _old = site.enter(
        &Connect::lasting(V4, "old").will(Will { qos: 1, ..Will::new("w/old", "gone") }),
        false,
    );
    // This one has a second of time, and that one a session.
    let _soon = site.enter(&session("soon", 1000, 1), false);
    let _ends = site.enter(&session("ends", 1, 1000), false);
    let _later = site.enter(&session("later", 1000, 1000), false);
    // Of a session that ends with its connection nothing is known.
    let _brief = site.enter(&Connect::new(V5, "brief").will(Will::new("w/brief", "gone")), false);
    let (site, disk) = killed(&disk);
    let mut wire = watcher(&site, true);
    assert_eq!(topics(&mut wire, 4), ["w/ends", "w/now", "w/old", "w/soon"]);
    wire.silent();
    // Behind what is in the log by then.
    written(&site);
    // Once: what was published is over, and the others still wait.
    let (site, _) = killed(&disk);
    let mut wire = watcher(&site, true);
    wire.silent();
    // [MQTT-3.1.3-9]
    site.enter(&Connect { clean: true, ..session("later", 0, 0) }, false).leave();
    expect_will(&mut wire, "later");
    wire.silent();
}

/// Their wills are due, their time is over, and there are many of them: all end at the start.
#[test]
fn sessions_whose_time_ran_out_meanwhile_end_with_their_wills() {
    let (site, disk) = first();
    watcher(&site, false).vanish();
    for number in 0..100 {
        site.enter(&session(&format!("s{number}"), 1, 1), false).vanish();
    }
    written(&site);
    let disk = disk.after_kill();
    drop(site);
    after(Duration::from_secs(2));
    let site = start(Settings::default(), Vec::new(), &disk);
    eventually("only the watcher is left", || site.broker.counters().sessions == 1);
    let mut wire = watcher(&site, true);
    let mut topics = topics(&mut wire, 100);
    topics.dedup();
    assert_eq!(topics.len(), 100);
    wire.silent();
}

/// [MQTT-3.1.2-10], [MQTT-3.1.3-9]: who said goodbye, or is back, is not mourned.
#[test]
fn what_is_void_stays_void() {
    let (site, disk) = first();
    watcher(&site, false).vanish();
    site.enter(&session("left", 1000, 0), false).leave();
    site.enter(&session("published", 1000, 0), false).vanish();
    site.enter(&session("back", 1000, 1000), false).vanish();
    let without = Connect { will: None, ..session("back", 1000, 0) };
    let _back = site.enter(&without, true);
    // Behind the records of the wills.
    written(&site);
    let (site, _) = killed(&disk);
    let mut wire = watcher(&site, true);
    expect_will(&mut wire, "published");
    wire.silent();
    for id in ["left", "back"] {
        site.enter(&Connect { clean: true, will: None, ..session(id, 0, 0) }, false).leave();
    }
    wire.silent();
}

/// The time without the broker counts, and the end of the session ends the waiting.
#[test]
fn delays_run_on_while_the_broker_is_away() {
    let (site, disk) = first();
    watcher(&site, false).vanish();
    site.enter(&session("delay", 1000, 1), false).vanish();
    site.enter(&session("expiry", 1, 1000), false).vanish();
    site.enter(&session("waits", 1000, 1000), false).vanish();
    drop(site);
    // The records have whole seconds, so a second is over within two.
    let disk: Disk = disk.after_kill();
    after(Duration::from_secs(2));
    let site = site_on(Settings::default(), &disk);
    let mut wire = watcher(&site, true);
    let mut topics = [wire.received().topic, wire.received().topic];
    topics.sort();
    assert_eq!(topics, ["w/delay", "w/expiry"]);
    wire.silent();
}

/// A stop of the broker ends connections too; a will that waits goes on waiting.
#[test]
fn a_stop_publishes_some_and_keeps_the_others() {
    let (site, disk) = first();
    watcher(&site, false).vanish();
    let mut wires = [
        site.enter(&session("now", 1000, 0), false),
        site.enter(&session("delay", 1000, 1), false),
    ];
    site.cancel.cancel();
    wires.iter_mut().for_each(|wire| wire.ended(0x8b));
    let stopped = || {
        let site = site_on(Settings::default(), &disk.after_kill());
        site.broker.client("watcher").is_some_and(|it| it.queued_messages == 1)
    };
    eventually("the first one is in the log", stopped);
    drop(site);
    let site = site_on(Settings::default(), &disk);
    let mut wire = watcher(&site, true);
    expect_will(&mut wire, "now");
    expect_will(&mut wire, "delay");
    wire.silent();
}

/// Who is to hear of it may have no room for a while. Until they have, it is not over, and the log
/// has what comes next behind it.
#[test]
fn a_will_that_waits_for_room_outlives_the_process() {
    let disk = Disk::default();
    let site = site_on(patient(), &disk);
    let (full, mut wire) = full_client(&site, "w/#");
    site.enter(&session("c", 1000, 0), false).vanish();
    eventually("it is gone", || site.broker.client("c").is_some_and(|it| !it.connected));
    // It is back with another will, and greeted when the log knows.
    let again = session("c", 1000, 1000);
    let mut back = site.greet(&again);
    written(&site);
    let heard = |wire: &mut Wire| {
        for n in ["2", "gone"] {
            let got = wire.received();
            assert_eq!(got.text(), n);
            wire.send(&puback(got.id));
        }
    };
    {
        let (site, _) = killed(&disk);
        let mut wire = site.enter(&full, true);
        let first = wire.received();
        wire.send(&puback(first.id));
        heard(&mut wire);
        wire.silent();
    }
    wire.send(&puback(1));
    heard(&mut wire);
    let ack = back.packet();
    assert_eq!((ack[0], ack[2]), (0x20, 1), "the old session: {ack:02x?}");
    // It has acknowledged, and that is in the log.
    wire.silent();
    written(&site);
    let (site, _) = killed(&disk);
    let mut wire = site.enter(&full, true);
    wire.silent();
    // Its new one is there.
    site.enter(&Connect { clean: true, will: None, ..again }, false).leave();
    expect_will(&mut wire, "c");
    wire.silent();
}
