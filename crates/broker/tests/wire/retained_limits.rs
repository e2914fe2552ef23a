//! Where `limits.retained_messages` and `limits.retained_bytes` leave no room.

use crate::{
    durability::killed,
    support::{disk::Disk, *},
};
use broker::{Limits, Settings};

/// One topic, with a payload of five bytes.
fn narrow() -> (Site, Disk) {
    let limits = Limits { retained_messages: 1, retained_bytes: 70, ..Limits::default() };
    let disk = Disk::default();
    let site = site_on(Settings { limits, ..Settings::default() }, &disk);
    site.publish(Publish::new("t", "old").qos(1, 1).retained());
    (site, disk)
}

/// What is retained on every topic. The first PINGRESP may come ahead of it.
fn retained(site: &Site) -> Vec<String> {
    let mut wire = site.client(V5, "late");
    wire.send(&subscribe(V5, 1, &[], &[("#", 0)]));
    wire.send(&PINGREQ);
    wire.expect(&suback(V5, 1, &[0]));
    let (mut found, mut pings) = (Vec::new(), 0);
    loop {
        let packet = wire.packet();
        if packet[0] == 0xd0 && pings == 0 {
            wire.send(&PINGREQ);
            pings += 1;
            continue;
        }
        if packet[0] == 0xd0 {
            wire.leave();
            return found;
        }
        let got = Received::parse(&packet, V5);
        found.push(format!("{}: {}", got.topic, got.text()));
    }
}

/// Who can be told is refused, as a whole: what holds is what held before.
#[test]
fn a_publisher_that_can_be_told_is_refused() {
    let (site, disk) = narrow();
    let mut live = site.subscriber(V5, "live", "#", 0);
    live.received();
    let mut wire = site.client(V5, "p");
    for (qos, topic, payload) in [(1, "t", "longer"), (2, "t", "longer"), (1, "u", "new")] {
        wire.publish(Publish::new(topic, payload).qos(qos, 7).retained());
        let ack = wire.packet();
        let kind = if qos == 1 { 0x40 } else { 0x50 };
        assert_eq!((ack[0], &ack[2..5]), (kind, &[0, 7, 0x97][..]), "{ack:02x?}");
        let text = String::from_utf8_lossy(&ack).into_owned();
        assert!(text.contains("limits.retained_bytes"), "{text}");
    }
    live.silent();
    assert_eq!(retained(&site), ["t: old"]);
    eventually("they are counted", || site.broker.counters().not_retained == 3);
    // What fits goes on, under the packet ids that were given back.
    wire.publish(Publish::new("t", "fits").qos(2, 7).retained());
    wire.expect(&pubrec(7));
    live.expect_publish(Publish::new("t", "fits"));
    let (site, _) = killed(&disk);
    assert_eq!(retained(&site), ["t: fits"]);
}

/// Who cannot be told is heard by those who are there, and nobody is shown later what it has
/// replaced. [MQTT311-3.3.5-2]
#[test]
fn where_nobody_can_be_told_nothing_outdated_stays() {
    for (version, qos) in [(V4, 0), (V4, 1), (V4, 2), (V5, 0)] {
        let (site, disk) = narrow();
        let mut live = site.subscriber(V5, "live", "#", 2);
        let id = live.received().id;
        live.send(&puback(id));
        let mut wire = site.client(version, "p");
        wire.publish(Publish::new("t", "longer").qos(qos, 7).retained());
        match qos {
            0 => {}
            1 => wire.expect(&puback(7)),
            _ => wire.expect(&pubrec(7)),
        }
        assert_eq!(live.received().text(), "longer", "{version} {qos}");
        assert_eq!(retained(&site), Vec::<String>::new());
        assert_eq!(site.broker.counters().not_retained, 1);
        // A record behind that of the one that was forgotten. It takes the place that is free.
        site.publish(Publish::new("u", "new").qos(1, 1).retained());
        let (site, _) = killed(&disk);
        assert_eq!(retained(&site), ["u: new"]);
    }
}
