//! How many sessions may wait for their clients, and for how long.

use crate::{
    durability::killed,
    support::{disk::Disk, *},
};
use broker::{Limits, Settings};

fn limited(limits: Limits) -> (Site, Disk) {
    let disk = Disk::default();
    (site_on(Settings { limits, ..Settings::default() }, &disk), disk)
}

/// Is refused with this code of MQTT 5, or 3 of 3.1.1.
fn refused(site: &Site, connect: &Connect) {
    let mut wire = site.greet(connect);
    let ack = wire.packet();
    let code = if connect.version == V5 { 0x97 } else { 3 };
    assert_eq!((ack[0], ack[2], ack[3]), (0x20, 0, code), "{ack:02x?}");
    if connect.version == V5 {
        assert!(String::from_utf8_lossy(&ack).contains("limits.sessions"), "{ack:02x?}");
    }
    wire.closed();
}

/// One client under ever new names fills no memory, and harms nobody who is there.
#[test]
fn absent_clients_are_bounded() {
    let (site, disk) = limited(Limits { sessions: 2, ..Limits::default() });
    let lasting = |id: &str, n: usize| Connect::lasting(BOTH[n % 2], id);
    let mut first = site.enter(&lasting("a", 0), false);
    first.subscribe("t", 1);
    let second = site.enter(&lasting("b", 1), false);
    // Connected ones do not count.
    let third = site.enter(&lasting("c", 0), false);
    first.vanish();
    second.vanish();
    for n in 0..20 {
        refused(&site, &lasting(&format!("new-{n}"), n));
    }
    assert_eq!(site.broker.counters().sessions, 3, "nothing is left of them");
    // Clean sessions go on, and so do those that are there: also the one that is one too many.
    site.client(V4, "clean").leave();
    third.vanish();
    site.publish(Publish::new("t", "x").qos(1, 1));
    let mut first = site.enter(&lasting("a", 0), true);
    assert_eq!(first.received().text(), "x");
    site.enter(&Connect { clean: true, ..lasting("c", 1) }, false).vanish();
    // Who is back does not count: two are away.
    let more = Limits { sessions: 3, ..Limits::default() };
    site.server.set_limits(&more);
    site.enter(&lasting("brief", 1), false).send(&DISCONNECT);
    site.client(V5, "brief").leave();
    // They count after a restart as well.
    let (site, _) = killed(&disk);
    site.server.set_limits(&more);
    refused(&site, &lasting("new", 1));
    // One that ends makes room.
    site.client(V5, "b").leave();
    let new = site.enter(&lasting("new", 1), false);
    new.vanish();
    refused(&site, &lasting("newer", 1));
    site.server.set_limits(&Limits::default());
    site.enter(&lasting("newer", 1), false).leave();
}

/// MQTT 5.0, 3.2.2.3.2: the client is told; 3.1.1 has no word for it.
#[test]
fn a_session_may_not_stay_longer_than_allowed() {
    let (site, disk) = limited(Limits { session_expiry: Some(1), ..Limits::default() });
    let ask = |seconds_: u32| Connect {
        clean: false,
        ..Connect::new(V5, "five").with(&seconds(0x11, seconds_))
    };
    for (asked, told) in [(1000, Some(1)), (u32::MAX, Some(1)), (1, None), (0, None)] {
        let mut wire = site.greet(&ask(asked));
        let ack = wire.packet();
        let property = told.map(|it| seconds(0x11, it));
        let found = ack.windows(5).any(|window| window[0] == 0x11 && window[1..] == [0, 0, 0, 1]);
        assert_eq!(found, property.is_some(), "{asked}: {ack:02x?}");
        wire.leave();
    }
    // Nor can it be prolonged when it leaves.
    let mut wire = site.enter(&ask(1), false);
    wire.send(&frame(0xe0, &[&[0, 5][..], &seconds(0x11, 1000)].concat()));
    wire.closed();
    site.enter(&Connect::lasting(V4, "three"), false).vanish();
    let (after, _) = killed(&disk);
    for site in [&site, &after] {
        eventually("they are forgotten", || site.broker.counters().sessions == 0);
    }
}
