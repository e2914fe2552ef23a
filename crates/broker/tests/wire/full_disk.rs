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
        let mut late = site.enter(&Connect::lasting(V4, "late"), false);
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
