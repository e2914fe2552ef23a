//! A log that takes its time, or cannot be written: what waits for it, and what does not.

use crate::{
    durability::{first, full_client, killed, patient, written},
    support::{disk::Disk, *},
};

/// [MQTT-4.6.0-5], [MQTT-4.6.0-6]: what a client leaves behind is delivered in its order.
#[test]
fn what_waits_for_the_log_keeps_its_order_when_its_publisher_leaves() {
    let (site, disk) = first();
    let mut reader = site.enter(&Connect::lasting(V4, "reader"), false);
    reader.subscribe("t", 1);
    let mut publisher = site.client(V4, "p");
    let held = disk.hold();
    // Behind one more the goodbye would wait as well.
    for id in 1..=63 {
        publisher.publish(Publish::new("t", id.to_string()).qos(1, id));
    }
    publisher.leave();
    drop(held);
    for n in 1..=63 {
        let got = reader.received();
        assert_eq!(got.text(), n.to_string());
        reader.send(&puback(got.id));
    }
}

/// [MQTT-3.14.0-1]: who has not been accepted yet is told nothing when it is taken over.
#[test]
fn nothing_is_said_before_the_connack() {
    let (site, disk) = first();
    let held = disk.hold();
    let mut early = site.greet(&Connect::lasting(V5, "c"));
    eventually("it has the session", || site.broker.client("c").is_some_and(|c| c.connected));
    let mut late = site.greet(&Connect::lasting(V5, "c"));
    early.closed();
    drop(held);
    let ack = late.packet();
    assert_eq!((ack[0], ack[3]), (0x20, 0), "{ack:02x?}");
}

/// [MQTT-4.6.0-6]: a publish that needs no log waits behind one that does.
#[test]
fn a_publish_without_a_record_does_not_overtake_one_with() {
    let (site, disk) = first();
    let mut reader = site.subscriber(V5, "reader", "t", 1);
    let mut publisher = site.client(V5, "p");
    let held = disk.hold();
    publisher.publish(Publish::new("t", "retained").qos(1, 1).retained());
    publisher.publish(Publish::new("t", "plain").qos(1, 2));
    publisher.silent();
    drop(held);
    for text in ["retained", "plain"] {
        assert_eq!(reader.received().text(), text);
    }
}

/// What cannot be written is refused before it waits for room, so that nobody is called slow for it.
#[test]
fn nobody_is_too_slow_for_what_cannot_be_written() {
    let disk = Disk::default();
    let mut settings = broker::Settings::default();
    settings.limits.queue_messages = 1;
    settings.limits.publish_hold = std::time::Duration::from_millis(50);
    let site = site_on(settings, &disk);
    let mut full = site.enter(&Connect::lasting(V5, "full").with(&[0x21, 0, 1]), false);
    full.subscribe("t", 1);
    let mut publisher = site.client(V5, "p");
    for id in 1..=2 {
        publisher.publish(Publish::new("t", "x").qos(1, id));
        publisher.expect(&puback(id));
    }
    disk.set_full(true);
    // The first one meets the disk, the second one a full queue.
    for (id, topic) in [(3, "retained"), (4, "t")] {
        let publish = Publish::new(topic, "x").qos(1, id);
        publisher.publish(Publish { retain: topic == "retained", ..publish });
        let got = publisher.packet();
        assert_eq!((got[0], got[3], got[4]), (0x40, id as u8, 0x97), "{got:02x?}");
    }
    assert_eq!(site.broker.counters().slow_clients, 0);
    full.received();
    full.silent();
}

/// What follows a publish that waits for the log waits with it, whether it needs the log or not:
/// for who sends a lot the broker reads on when that is written.
#[test]
fn what_waits_behind_a_slow_log_is_bounded_in_bytes() {
    let (site, disk) = first();
    let mut publisher = site.client(V5, "p");
    let before = site.broker.counters().publishes_received;
    let held = disk.hold();
    publisher.publish(Publish::new("retained", "x").qos(1, 1).retained());
    let large = "x".repeat(512 * 1024);
    for id in 2..=4 {
        publisher.publish(Publish::new("nobody", &large).qos(1, id));
    }
    // It overtakes the last one.
    publisher.send(&PINGREQ);
    publisher.expect(&[0xd0, 0]);
    let received = || site.broker.counters().publishes_received - before;
    eventually("they are counted", || received() >= 3);
    publisher.silent();
    assert_eq!(received(), 3);
    drop(held);
    for id in 1..=4 {
        let ack = publisher.packet();
        assert_eq!((ack[0], ack[3]), (0x40, id), "{ack:02x?}");
    }
}

/// The same for answers to SUBSCRIBE, which have a byte for each filter.
#[test]
fn what_is_answered_behind_a_slow_log_is_bounded_in_bytes() {
    const SUBSCRIBES: u16 = 13;
    let (site, disk) = first();
    let mut wire = site.enter(&Connect::lasting(V5, "c"), false);
    let held = disk.hold();
    for id in 1..=SUBSCRIBES {
        let own = format!("f/{id}");
        let filters = [vec![(&*own, 0)], vec![("a", 0); 100_000]].concat();
        wire.send(&subscribe(V5, id, &[], &filters));
    }
    let held_by_it = || site.broker.client("c").unwrap().subscription_count;
    // Eleven of these are more than a megabyte, and "a" is one as well.
    eventually("they are looked at", || held_by_it() > 11);
    wire.silent();
    assert_eq!(held_by_it(), 12);
    drop(held);
    for id in 1..=SUBSCRIBES {
        let ack = wire.packet();
        assert_eq!((ack[0], &ack[4..6]), (0x90, &id.to_be_bytes()[..]));
    }
}

/// [MQTT-3.3.1-5]: whoever subscribes is sent a retained message from its beginning on, so a start
/// finds it too, whatever becomes of the publish.
#[test]
fn what_is_retained_in_memory_is_retained_in_the_log() {
    let disk = Disk::default();
    let site = site_on(patient(), &disk);
    let _full = full_client(&site, "given/up");
    // Its publisher is gone before there is room, and would send it again.
    let mut publisher = site.client(V5, "p");
    publisher.publish(Publish::new("given/up", "x").qos(2, 1).retained());
    publisher.silent();
    publisher.vanish();
    written(&site);
    // This one's publisher is refused.
    let mut publisher = site.client(V5, "p");
    disk.set_full(true);
    publisher.publish(Publish::new("refused", "x").qos(1, 1).retained());
    let ack = publisher.packet();
    assert_eq!((ack[0], ack[3], ack[4]), (0x40, 1, 0x97), "{ack:02x?}");
    disk.set_full(false);
    eventually("the log is written", || site.server.log_ready().is_ok());
    written(&site);
    let retained = |site: &Site| {
        let mut reader = site.subscriber(V5, "reader", "#", 0);
        let mut topics = Vec::from_iter((0..3).map(|_| reader.received().topic));
        reader.silent();
        topics.sort();
        topics
    };
    assert_eq!(retained(&site), ["barrier", "given/up", "refused"]);
    assert_eq!(retained(&killed(&disk).0), ["barrier", "given/up", "refused"]);
}

/// A client that releases what was not received yet does harm to nobody, not even itself.
#[test]
fn there_is_nothing_to_release_before_the_pubrec() {
    let disk = Disk::default();
    let site = site_on(patient(), &disk);
    let (_, mut full) = full_client(&site, "t");
    let connect = Connect::lasting(V5, "p");
    let mut publisher = site.enter(&connect, false);
    publisher.publish(Publish::new("t", "first").qos(2, 5));
    publisher.send(&pubrel(5));
    publisher.expect(&with_code(pubcomp(5), 0x92));
    full.send(&puback(1));
    publisher.expect(&pubrec(5));
    publisher.send(&pubrel(5));
    publisher.expect(&pubcomp(5));
    written(&site);
    let (site, _) = killed(&disk);
    let mut reader = site.subscriber(V5, "reader", "t", 0);
    let mut publisher = site.enter(&connect, true);
    publisher.publish(Publish::new("t", "second").qos(2, 5));
    assert_eq!(reader.received().text(), "second");
}
