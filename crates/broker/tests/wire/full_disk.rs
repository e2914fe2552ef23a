//! A disk that takes no more: what is refused, what waits, and what goes on.

use crate::{
    durability::{first, killed},
    support::{disk::Disk, *},
};
use broker::Settings;

/// Publishes that need the log are refused; everything else goes on, and is written later.
/// [MQTT311-4.8.0-2]: 3.1.1 is disconnected where it has no other answer.
#[test]
fn a_full_disk_stops_only_what_needs_it() {
    for settings in [Settings::default(), careful(Settings::default())] {
        let disk = Disk::default();
        let site = site_on(settings, &disk);
        let lasting = Connect::lasting(V5, "lasting");
        let mut reader = site.enter(&lasting, false);
        reader.subscribe("kept", 1);
        let mut brief = site.subscriber(V4, "brief", "#", 1);
        let (mut five, mut three) = (site.client(V5, "five"), site.client(V4, "three"));
        five.publish(Publish::new("kept", "before").qos(1, 1));
        five.expect(&puback(1));
        let before = reader.received();
        let mut late = site.enter(&Connect::lasting(V4, "late"), false);
        late.subscribe("late", 1);
        assert_eq!(brief.received().text(), "before");

        disk.set_full(true);
        // The first one meets the disk, the others know.
        for (publish, ack) in [
            (Publish::new("kept", "lost").qos(1, 2), puback(2)),
            (Publish::new("kept", "lost").qos(2, 3), pubrec(3)),
            (Publish::new("r", "lost").qos(1, 4).retained(), puback(4)),
        ] {
            five.publish(publish);
            let got = five.packet();
            let code = with_code(ack, 0x97);
            assert_eq!((got[0], &got[2..5]), (code[0], &code[2..5]), "{got:02x?}");
        }
        assert!(site.server.log_ready().is_err_and(|why| why.contains("disk is full")));
        three.publish(Publish::new("kept", "lost").qos(1, 2));
        three.closed();
        // What needs no log goes on, for new clients as well.
        let mut three = site.client(V4, "three");
        for (publish, qos) in [("kept", 0), ("other", 1), ("other", 2), ("other", 0)] {
            three.publish(Publish::new(publish, "goes on").qos(qos, 9));
            assert_eq!(brief.received().text(), "goes on");
            match qos {
                0 => {}
                1 => three.expect(&puback(9)),
                _ => three.expect(&pubrec(9)),
            }
        }
        assert_eq!(reader.received().text(), "goes on");
        // At QoS 0 nobody was promised that it lasts.
        three.publish(Publish::new("r", "until the end").retained());
        assert_eq!(brief.received().text(), "until the end");
        let mut new = site.subscriber(V4, "new", "r", 1);
        assert_eq!(new.received().text(), "until the end", "what was refused is not retained");
        // So do sessions: what they do now is written when it can be.
        reader.send(&puback(before.id));
        late.vanish();
        let mut late = site.enter(&Connect::lasting(V4, "late"), true);
        late.subscribe("late", 1);
        late.vanish();
        // A backup of this moment has what was answered, though it is not written.
        let directory = tempfile::tempdir().unwrap();
        site.server.snapshot().unwrap().save(directory.path()).unwrap();
        let backup = Disk::default();
        let name = "snapshot-00000001";
        backup.put(name, std::fs::read(directory.path().join(name)).unwrap());
        let copy = site_on(Settings::default(), &backup);
        copy.enter(&Connect::lasting(V4, "late"), true).silent();
        copy.enter(&lasting, true).silent();

        disk.set_full(false);
        eventually("the log is written", || site.server.log_ready().is_ok());
        five.publish(Publish::new("late", "after").qos(1, 5));
        five.expect(&puback(5));
        five.publish(Publish::new("kept", "after").qos(1, 6));
        five.expect(&puback(6));
        assert_eq!(reader.received().text(), "after");
        let (site, _) = killed(&disk);
        let mut late = site.enter(&Connect::lasting(V4, "late"), true);
        assert_eq!(late.received().text(), "after");
        let mut reader = site.enter(&lasting, true);
        assert_eq!(reader.received().text(), "after", "what was acknowledged is over");
        reader.silent();
    }
}

/// A QoS 2 exchange that goes on without the log could deliver twice, so it waits.
#[test]
fn qos_2_waits_for_a_full_disk() {
    let (site, disk) = first();
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 2);
    site.publish(Publish::new("t", "x").qos(2, 1));
    let id = wire.received().id;
    disk.set_full(true);
    wire.send(&pubrec(id));
    wire.silent();
    let (second, _) = killed(&disk);
    second.enter(&lasting, true).expect_publish(Publish::new("t", "x").qos(2, id).dup());
    disk.set_full(false);
    wire.expect(&pubrel(id));
}

/// What a session that lasts would be promised is refused while the log cannot have it, so that
/// nothing is missing after a kill; what it has goes on.
#[test]
fn a_full_disk_makes_no_promises_to_sessions() {
    let (site, disk) = first();
    let old = Connect::lasting(V5, "old");
    let three = Connect::lasting(V4, "three");
    for (connect, version) in [(&old, V5), (&three, V4)] {
        let mut wire = site.enter(connect, false);
        wire.subscribe("held", 1);
        wire.send(&subscribe(version, 3, &[], &[("kept", 0)]));
        wire.expect(&suback(version, 3, &[0]));
        wire.leave();
    }
    disk.set_full(true);
    let mut full = site.client(V5, "full");
    full.publish(Publish::new("r", "lost").qos(1, 4).retained());
    assert_eq!(full.packet()[4], 0x97);

    for version in BOTH {
        let new = Connect::lasting(version, "new");
        let mut wire = site.greet(&new);
        let ack = wire.packet();
        assert_eq!(ack[3], if version == V5 { 0x97 } else { 3 }, "{ack:02x?}");
        wire.closed();
        // One that ends with its connection has nothing to lose.
        let mut brief = site.client(version, "new");
        brief.subscribe("brief", 1);
        brief.leave();
    }
    // The end of an old one would be undone by a kill.
    let mut clean = site.greet(&Connect::new(V5, "old"));
    assert_eq!(clean.packet()[3], 0x97);
    let mut wire = site.enter(&old, true);
    wire.send(&subscribe(V5, 5, &[], &[("held", 1), ("new", 1), ("kept", 1)]));
    wire.expect(&suback(V5, 5, &[1, 0x97, 0x97]));
    wire.send(&unsubscribe(V5, 6, &["held", "none"]));
    wire.expect(&unsuback(V5, 6, &[0x83, 0x11]));
    let mut other = site.enter(&three, true);
    other.send(&subscribe(V4, 5, &[], &[("held", 1), ("new", 1)]));
    other.expect(&suback(V4, 5, &[1, 0x80]));
    // 3.1.1 has no code: its answer waits, and nothing else does.
    other.send(&unsubscribe(V4, 6, &["held"]));
    other.send(&[0xc0, 0]);
    other.expect(&[0xd0, 0]);

    let (second, _) = killed(&disk);
    for client in ["old", "three"] {
        let filters = second.broker.client(client).expect("the session").subscriptions;
        let filters: Vec<_> = filters.iter().map(|it| (&*it.filter, it.qos as u8)).collect();
        assert_eq!(filters, [("held", 1), ("kept", 0)], "{client}");
    }
    assert!(second.broker.client("new").is_none());
    disk.set_full(false);
    other.expect(&unsuback(V4, 6, &[]));
    wire.send(&subscribe(V5, 7, &[], &[("new", 1)]));
    eventually("the log is written", || site.server.log_ready().is_ok());
    // It may have come before that.
    let code = *wire.packet().last().unwrap();
    assert!([1, 0x97].contains(&code), "{code:02x}");
}

/// Who meets the disk first, when nobody knows that it is full.
#[test]
fn the_first_to_meet_a_full_disk_is_promised_nothing() {
    let lasting = Connect::lasting(V5, "c");
    let (site, disk) = first();
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("old", 1);
    disk.set_full(true);
    wire.send(&subscribe(V5, 5, &[], &[("old", 1), ("new", 1)]));
    wire.expect(&suback(V5, 5, &[0x97, 0x97]));
    site.client(V4, "w").publish(Publish::new("new", "x"));
    wire.silent();
    let (second, _) = killed(&disk);
    assert_eq!(second.broker.client("c").expect("the session").subscriptions.len(), 1);

    let (site, disk) = first();
    disk.set_full(true);
    site.greet(&lasting).closed();
    let mut wire = site.greet(&lasting);
    assert_eq!(wire.packet()[3], 0x97, "now it is known");
    disk.set_full(false);
    eventually("the log is written", || site.server.log_ready().is_ok());
    site.enter(&lasting, false).leave();
    // What is answered must be there: 3.1.1 hears nothing.
    let mut wire = site.enter(&Connect::lasting(V4, "three"), false);
    wire.subscribe("t", 1);
    disk.set_full(true);
    wire.send(&unsubscribe(V4, 6, &["t"]));
    wire.silent();
    disk.set_full(false);
    wire.expect(&unsuback(V4, 6, &[]));
}

/// A stop on a full disk says that something is lost.
#[test]
fn a_stop_that_cannot_write_says_so() {
    let (site, disk) = first();
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 1);
    site.publish(Publish::new("t", "x").qos(1, 1));
    let id = wire.received().id;
    disk.set_full(true);
    wire.send(&puback(id));
    eventually("it is known", || site.server.log_ready().is_err());
    site.cancel.cancel();
    let lost = || site.server.log_ready().is_err_and(|why| why.contains("is lost"));
    eventually("the end of the log", lost);
}
