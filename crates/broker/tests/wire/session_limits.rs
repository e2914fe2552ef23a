//! How long sessions may wait for their clients.

use crate::{
    durability::killed,
    support::{disk::Disk, *},
};
use broker::{Limits, Settings};

fn limited(limits: Limits) -> (Site, Disk) {
    let disk = Disk::default();
    (site_on(Settings { limits, ..Settings::default() }, &disk), disk)
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
