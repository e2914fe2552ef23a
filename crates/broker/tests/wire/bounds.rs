//! What one client may make the broker hold or do, whatever it sends.

use crate::support::{disk::Disk, *};
use broker::Settings;

/// More than anything here needs, and far less than a record for each packet.
const LITTLE: u64 = 10_000;

/// While the disk is full, PUBREL and PUBREC wait; the same one again waits with it, and a
/// SUBSCRIBE does not.
#[test]
fn what_is_said_again_and_again_waits_once() {
    let disk = Disk::default();
    let site = site_on(Settings::default(), &disk);
    let mut wire = site.enter(&Connect::lasting(V5, "c"), false);
    wire.subscribe("t", 2);
    site.publish(Publish::new("t", "x").qos(2, 1));
    let id = wire.received().id;
    wire.publish(Publish::new("u", "x").qos(2, 7));
    wire.expect(&pubrec(7));
    disk.set_full(true);
    for (packet, answer) in [(pubrel(7), pubcomp(7)), (pubrec(id), pubrel(id))] {
        wire.send(&packet.repeat(1_000_000));
        wire.silent();
        let waiting = site.broker.counters().log_waiting;
        assert!(waiting < LITTLE, "{waiting} bytes wait for one answer");
        wire.subscribe("v", 1);
        disk.set_full(false);
        wire.expect(&answer);
        wire.silent();
        disk.set_full(true);
    }
}

/// What is retained at QoS 0 is acknowledged to nobody, so its publisher is not read on while too
/// much of it waits.
#[test]
fn retained_at_qos_0_waits_for_the_log_as_well() {
    const MOST: u64 = 18_000_000;
    let disk = Disk::default();
    let site = site_on(Settings::default(), &disk);
    let mut wire = site.client(V4, "w");
    let publish = Publish::new("t", vec![b'x'; 1_000_000]).retained().bytes(V4);
    disk.set_full(true);
    let mut most = 0;
    for _ in 0..60 {
        wire.send(&publish);
        most = most.max(site.broker.counters().log_waiting);
    }
    wire.publish(Publish::new("t", "newest").retained());
    wire.silent();
    assert!(most < MOST, "{most} bytes waited for the disk");
    let mut reader = site.subscriber(V4, "r", "t", 0);
    assert_eq!(reader.received().text(), "newest");
    disk.set_full(false);
    eventually("all is written", || site.broker.counters().log_waiting == 0);
    let site = site_on(Settings::default(), &disk.after_kill());
    let mut reader = site.subscriber(V4, "r", "t", 0);
    assert_eq!(reader.received().text(), "newest");
}
