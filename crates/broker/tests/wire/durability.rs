//! What was promised survives the end of the process, however it ends.
//!
//! "Killed" is a broker that starts on a copy of the disk while the old one still runs: it finds
//! what had been written at that moment, as after `kill -9`.

use crate::support::{disk::Disk, *};
use broker::{Server, Settings, StartError};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

pub fn killed(disk: &Disk) -> (Site, Disk) {
    let disk = disk.after_kill();
    (site_on(Settings::default(), &disk), disk)
}

pub fn first() -> (Site, Disk) {
    let disk = Disk::default();
    (site_on(Settings::default(), &disk), disk)
}

/// A queue of one message, for whose room a publish waits long.
pub fn patient() -> Settings {
    let mut settings = Settings::default();
    settings.limits.queue_messages = 1;
    settings.limits.publish_hold = Duration::from_secs(15);
    settings
}

/// All that was appended until now is in the log.
pub fn written(site: &Site) {
    site.publish(Publish::new("barrier", "x").qos(1, 1).retained());
}

/// A client with a session that lasts and this subscription, on a patient site: it was sent "1",
/// and "2" fills its queue.
pub fn full_client(site: &Site, filter: &str) -> (Connect, Wire) {
    let connect = Connect::lasting(V5, "full").with(&[0x21, 0, 1]);
    let mut wire = site.enter(&connect, false);
    wire.subscribe(filter, 1);
    wire.subscribe("own", 1);
    for n in ["1", "2"] {
        site.publish(Publish::new("own", n).qos(1, 1));
    }
    assert_eq!(wire.received().text(), "1");
    (connect, wire)
}

/// Why the broker does not start on this disk.
fn refused(disk: &Disk) -> StartError {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    match Server::start_on(Settings::default(), Vec::new(), Arc::new(disk.clone())) {
        Ok(_) => panic!("it started on {:?}", disk.names()),
        Err(error) => error,
    }
}

/// [MQTT-3.3.1-5], [MQTT-3.3.1-6]: the newest one of each topic, and none where it was cleared.
#[test]
fn retained_messages_survive() {
    let (site, disk) = first();
    for (topic, payload, qos) in [
        ("a", "old", 1),
        ("a", "new", 1),
        ("b", "2", 2),
        ("c", "x", 1),
        ("c", "", 1),
        ("d", "0", 0),
    ] {
        site.publish(Publish::new(topic, payload).qos(qos, 1).retained());
    }
    // Nobody waits for a QoS 0 record; this one is behind it.
    site.publish(Publish::new("e", "last").qos(1, 1).retained());
    let (site, _) = killed(&disk);
    let mut wire = site.client(V4, "reader");
    wire.send(&subscribe(V4, 1, &[], &[("#", 0)]));
    wire.expect(&suback(V4, 1, &[0]));
    let mut got: Vec<_> = (0..4).map(|_| wire.received()).map(|r| (r.topic, r.payload)).collect();
    got.sort();
    let expected = [("a", "new"), ("b", "2"), ("d", "0"), ("e", "last")];
    assert_eq!(got, expected.map(|(t, p)| (t.to_owned(), p.as_bytes().to_vec())));
    wire.silent();
}

/// [MQTT-4.1.0-1], [MQTT-3.1.2-5], [MQTT-3.1.2-23], [MQTT-4.4.0-1]
#[test]
fn a_session_survives_with_all_that_waits_for_it() {
    let (site, disk) = first();
    for version in BOTH {
        let lasting = Connect::lasting(version, &format!("c{version}"));
        let mut wire = site.enter(&lasting, false);
        wire.subscribe(&format!("t{version}/+"), 2);
        wire.subscribe(&format!("gone{version}"), 2);
        wire.send(&unsubscribe(version, 9, &[&format!("gone{version}")]));
        wire.expect(&unsuback(version, 9, &[0]));
        wire.vanish();
        let topic = format!("t{version}/x");
        for n in 1..=4 {
            site.publish(Publish::new(&topic, n.to_string()).qos(1 + n % 2, 1));
        }
        site.publish(Publish::new(&format!("gone{version}"), "x").qos(1, 1));
    }
    let (site, disk) = killed(&disk);
    for version in BOTH {
        let mut wire = site.enter(&Connect::lasting(version, &format!("c{version}")), true);
        let mut got: Vec<_> = (0..4).map(|_| wire.received()).collect();
        got.sort_by_key(|publish| publish.payload.clone());
        for (n, publish) in (1u8..).zip(&got) {
            assert_eq!(publish.text(), n.to_string());
            assert_eq!(publish.first >> 1 & 3, 1 + n % 2, "its quality of service");
        }
        for publish in &got {
            let qos_1 = publish.first & 2 > 0;
            wire.send(&if qos_1 { puback(publish.id) } else { pubrec(publish.id) });
            if !qos_1 {
                wire.expect(&pubrel(publish.id));
                wire.send(&pubcomp(publish.id));
            }
        }
        wire.silent();
        site.publish(Publish::new(&format!("t{version}/y"), "live").qos(1, 1));
        let live = wire.received();
        assert_eq!(live.text(), "live", "the subscription is there as well");
        wire.send(&puback(live.id));
        wire.leave();
    }
    // What was acknowledged does not come again: a record behind those of the acknowledgements.
    site.publish(Publish::new("r", "x").qos(1, 1).retained());
    let (site, _) = killed(&disk);
    for version in BOTH {
        site.enter(&Connect::lasting(version, &format!("c{version}")), true).silent();
    }
}

/// [MQTT-4.3.3-10], [MQTT-4.3.3-11]: a copy that the client sends after the end of the process.
#[test]
fn a_qos_2_publish_is_not_taken_twice() {
    for version in BOTH {
        let (site, disk) = first();
        let lasting = Connect::lasting(version, "p");
        let mut reader = site.enter(&Connect::lasting(version, "r"), false);
        reader.subscribe("t", 1);
        reader.vanish();
        let mut wire = site.enter(&lasting, false);
        let (kept, lost) =
            (Publish::new("t", "kept").qos(2, 7), Publish::new("nobody", "x").qos(2, 8));
        for publish in [&kept, &lost] {
            wire.publish(publish.clone());
            wire.expect(&pubrec(publish.id));
        }
        let (site, disk) = killed(&disk);
        let mut late = site.subscriber(version, "late", "nobody", 2);
        let mut wire = site.enter(&lasting, true);
        for publish in [kept, lost] {
            wire.publish(publish.clone().dup());
            wire.expect(&pubrec(publish.id));
            wire.send(&pubrel(publish.id));
            wire.expect(&pubcomp(publish.id));
        }
        late.silent();
        let mut reader = site.enter(&Connect::lasting(version, "r"), true);
        assert_eq!(reader.received().text(), "kept");
        reader.silent();
        // What was released is free, also after another end.
        let (site, _) = killed(&disk);
        let mut wire = site.enter(&lasting, true);
        let mut late = site.subscriber(version, "late", "nobody", 0);
        wire.publish(Publish::new("nobody", "new").qos(2, 8));
        wire.expect(&pubrec(8));
        assert_eq!(late.received().text(), "new");
    }
}

/// [MQTT-4.4.0-1], [MQTT-4.3.3-5]: the broker's own QoS 2 exchanges go on under their packet ids.
#[test]
fn a_qos_2_delivery_goes_on_under_its_packet_id() {
    for version in BOTH {
        let (site, disk) = first();
        let lasting = Connect::lasting(version, "c");
        let mut wire = site.enter(&lasting, false);
        wire.subscribe("t", 2);
        for n in ["1", "2", "3"] {
            site.publish(Publish::new("t", n).qos(2, 1));
        }
        let ids: Vec<u16> = (0..3).map(|_| wire.received().id).collect();
        wire.send(&pubrec(ids[0]));
        wire.expect(&pubrel(ids[0]));
        wire.send(&pubrec(ids[1]));
        wire.expect(&pubrel(ids[1]));
        wire.send(&pubcomp(ids[1]));
        wire.silent();
        // A record behind that of the PUBCOMP, for which nobody waits.
        wire.subscribe("other", 0);
        let (site, _) = killed(&disk);
        let mut wire = site.enter(&lasting, true);
        wire.expect(&pubrel(ids[0]));
        wire.expect_publish(Publish::new("t", "3").qos(2, ids[2]).dup());
        wire.send(&pubcomp(ids[0]));
        wire.send(&pubrec(ids[2]));
        wire.expect(&pubrel(ids[2]));
        wire.send(&pubcomp(ids[2]));
        wire.silent();
    }
}

/// [MQTT-3.1.2-4]: a session that ended does not come back.
#[test]
fn what_a_client_gave_up_stays_gone() {
    let (site, disk) = first();
    for version in BOTH {
        let lasting = Connect::lasting(version, &format!("c{version}"));
        let mut wire = site.enter(&lasting, false);
        wire.subscribe("t", 1);
        wire.vanish();
        site.publish(Publish::new("t", "x").qos(1, 1));
        // It is told so, and killed at once.
        let _wire = site.enter(&Connect { clean: true, ..lasting.clone() }, false);
        let (site, _) = killed(&disk);
        // MQTT 5 began a new session that lasts.
        site.enter(&lasting, version == V5).silent();
    }
}

/// [MQTT-3.1.2-23]: the time without the broker counts.
#[test]
fn sessions_expire_while_the_broker_is_away() {
    let (site, disk) = first();
    let short = Connect::new(V5, "short").with(&seconds(0x11, 1));
    site.enter(&Connect { clean: false, ..short.clone() }, false).leave();
    let long = Connect { clean: false, ..Connect::new(V5, "long").with(&seconds(0x11, 3600)) };
    site.enter(&long, false).leave();
    drop(site);
    // The record has whole seconds, so it is over within two.
    let disk = disk.after_kill();
    let over = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while std::time::Instant::now() < over {
        std::thread::park_timeout(over - std::time::Instant::now());
    }
    let site = site_on(Settings::default(), &disk);
    assert!(site.broker.client("short").is_none(), "it is not even made");
    site.enter(&long, true).silent();
}

/// What nobody was promised costs no write.
#[test]
fn other_publishes_never_touch_the_log() {
    let (site, disk) = first();
    let mut lossy = site.enter(&Connect::lasting(V5, "lossy"), false);
    lossy.subscribe("t", 0);
    let mut brief = site.subscriber(V5, "brief", "t", 2);
    let mut publisher = site.client(V4, "p");
    let before = disk.len();
    for id in 1..=20 {
        let qos = (id % 3) as u8;
        publisher.publish(Publish::new("t", "never written").qos(qos, id));
        match qos {
            0 => {}
            1 => publisher.expect(&puback(id)),
            _ => publisher.expect(&pubrec(id)),
        }
        assert_eq!(brief.received().text(), "never written");
        assert_eq!(lossy.received().text(), "never written");
    }
    assert!(!disk.holds(b"never written"));
    assert_eq!(disk.len(), before);
}

/// The payload stands in the log once, however many sessions wait for it.
#[test]
fn a_message_for_many_is_written_once() {
    let (site, disk) = first();
    for n in 0..50 {
        let mut wire = site.enter(&Connect::lasting(V4, &format!("c{n}")), false);
        wire.subscribe("t", 1);
        wire.vanish();
    }
    let payload = vec![b'x'; 10_000];
    let before = disk.len();
    site.publish(Publish::new("t", &payload).qos(1, 1).retained());
    let grown = disk.len() - before;
    assert!((10_000..13_000).contains(&grown), "{grown}");
    let (site, _) = killed(&disk);
    for n in 0..50 {
        let mut wire = site.enter(&Connect::lasting(V4, &format!("c{n}")), true);
        assert_eq!(wire.received().payload, payload);
    }
}

/// [MQTT-3.3.2-5], [MQTT-3.3.2-6]: what has expired by then is not delivered, and the rest says how long it has left.
#[test]
fn expiry_counts_on() {
    let (site, disk) = first();
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 1);
    wire.vanish();
    site.publish(Publish::new("t", "long").qos(1, 1).with(&seconds(0x02, 500)));
    site.publish(Publish::new("t", "no time").qos(1, 1).with(&seconds(0x02, 0)));
    let (site, _) = killed(&disk);
    let mut wire = site.enter(&lasting, true);
    let got = wire.received();
    assert_eq!(got.text(), "long");
    let left = u32::from_be_bytes(got.properties[1..].try_into().unwrap());
    assert!((400..=500).contains(&left) && got.properties[0] == 0x02, "{left}");
    wire.silent();
}

/// User properties and the rest of MQTT 5 are promised as well.
#[test]
fn properties_survive() {
    let (site, disk) = first();
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.send(&subscribe(V5, 1, &[0x0b, 42], &[("t", 2 | RETAIN_AS_PUBLISHED)]));
    wire.expect(&suback(V5, 1, &[2]));
    wire.vanish();
    let properties = [user("a", "1"), user("a", "2"), vec![0x01, 1]].concat();
    site.publish(Publish::new("t", "é").qos(2, 1).retained().with(&properties));
    let (site, _) = killed(&disk);
    let mut wire = site.enter(&lasting, true);
    let got = wire.received();
    assert_eq!((got.first, got.text()), (0x35, "é"), "QoS 2, retained");
    for part in [user("a", "1"), user("a", "2"), vec![0x01, 1], vec![0x0b, 42]] {
        assert!(got.properties.windows(part.len()).any(|w| w == part), "{:02x?}", got.properties);
    }
}

/// `persistence.sync = "always"`: what was acknowledged survives a power cut, and what was being
/// written then is cut off and kept aside.
#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let disk = Disk::default();
    let site = site_on(careful(Settings::default()), &disk);
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 1);
    wire.vanish();
    for n in 0..20 {
        site.publish(Publish::new("t", n.to_string()).qos(1, 1));
    }
    site.publish(Publish::new("r", "retained").qos(1, 1).retained());
    for torn in [0, 1, 9, 30] {
        let disk = disk.after_power_cut(torn);
        let log = disk.names().pop().unwrap();
        disk.put(&log, [disk.bytes(&log), vec![0xa5; torn]].concat());
        let site = site_on(careful(Settings::default()), &disk);
        assert_eq!(disk.names().iter().any(|name| name.starts_with("torn-")), torn > 0);
        let mut wire = site.enter(&lasting, true);
        for n in 0..20 {
            assert_eq!(wire.received().text(), n.to_string());
        }
        site.publish(Publish::new("t", "goes on").qos(1, 1));
        assert_eq!(wire.received().text(), "goes on");
        let mut reader = site.subscriber(V4, "r", "r", 0);
        assert_eq!(reader.received().text(), "retained");
    }
}

/// A log that ends anywhere is read up to its last whole record.
#[test]
fn a_log_may_end_anywhere() {
    let (site, disk) = first();
    for n in 0..10 {
        site.publish(Publish::new("t", format!("<{n}>")).qos(1, 1).retained());
    }
    let whole = disk.bytes("log-00000001");
    let mut last = None;
    for len in (0..=whole.len()).rev().step_by(7) {
        let disk = Disk::default();
        disk.put("log-00000001", whole[..len].to_vec());
        let site = site_on(Settings::default(), &disk);
        let newest = site.broker.counters().retained_messages;
        assert!(last.is_none_or(|before| newest <= before), "at {len}");
        last = Some(newest);
        site.publish(Publish::new("u", "new").qos(1, 1).retained());
        let (site, _) = killed(&disk);
        let mut reader = site.subscriber(V4, "r", "u", 0);
        assert_eq!(reader.received().text(), "new", "after a cut at {len}");
    }
}

/// The log is replaced by a snapshot when it has grown, and the files stay few.
#[test]
fn snapshots_replace_the_log() {
    let (site, disk) = first();
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 2);
    site.publish(Publish::new("t", "sent").qos(2, 1));
    let id = wire.received().id;
    wire.vanish();
    site.publish(Publish::new("t", "waits").qos(1, 1));
    let payload = vec![b'x'; 500_000];
    let mut writer = site.client(V5, "w");
    // 16 MiB make a log full; this is three of them.
    for n in 0..100u16 {
        writer.publish(Publish::new("big", &payload).qos(1, n + 1).retained());
        writer.expect(&puback(n + 1));
    }
    assert!(disk.len() < 40_000_000, "{} bytes in {:?}", disk.len(), disk.names());
    drop(site);
    let (site, disk) = killed(&disk);
    assert!(disk.names().iter().any(|name| name.starts_with("snapshot-")), "{:?}", disk.names());
    let mut wire = site.enter(&lasting, true);
    wire.expect_publish(Publish::new("t", "sent").qos(2, id).dup());
    assert_eq!(wire.received().text(), "waits");
    let mut reader = site.subscriber(V4, "r", "big", 0);
    assert_eq!(reader.received().payload, payload);
}

#[test]
fn damage_that_no_power_cut_makes_is_not_passed_over() {
    let (site, disk) = first();
    site.publish(Publish::new("a", "1").qos(1, 1).retained());
    drop(site);
    let disk = disk.after_kill();
    let log = disk.bytes("log-00000001");

    let with = |name: &str, bytes: Vec<u8>| {
        let disk = disk.after_kill();
        disk.put(name, bytes);
        disk
    };
    let mut newer = log.clone();
    newer[11] = 3;
    for (disk, expected) in [
        (with("log-00000001", newer), "log-00000001 was written by a newer version (format 3"),
        (with("log-00000001", b"PK\x03\x04, a zip file".to_vec()), "log-00000001 is not a file"),
        (with("log-00000002", log.clone()), ""),
        (with("log-00000003", log.clone()), "log-00000002 is missing"),
        (with("snapshot-00000002", log[..log.len() - 1].to_vec()), "snapshot-00000002 is damaged"),
    ] {
        if expected.is_empty() {
            // A second file behind the first is how a log goes on.
            site_on(Settings::default(), &disk);
            let mut torn = disk.bytes("log-00000001");
            torn.pop();
            disk.put("log-00000001", torn);
            let error = refused(&disk).to_string();
            assert!(error.contains("log-00000001 is damaged at byte 12"), "{error}");
            continue;
        }
        let before: Vec<_> = disk.names().iter().map(|name| disk.bytes(name)).collect();
        let error = refused(&disk).to_string();
        assert!(error.contains(expected), "{error}");
        let after: Vec<_> = disk.names().iter().map(|name| disk.bytes(name)).collect();
        assert_eq!(before, after, "nothing is changed");
    }
}

/// A log of an older form is read, and what is written now goes into a file of its own, which a
/// program that knows the older form alone refuses.
#[test]
fn an_older_form_is_read_and_followed_by_a_new_one() {
    let (site, disk) = first();
    site.publish(Publish::new("t", "old").qos(1, 1).retained());
    drop(site);
    let disk = disk.after_kill();
    let mut old = disk.bytes("log-00000001");
    assert_eq!(old[11], 2, "the form that this program writes");
    old[11] = 1;
    // It ends in the middle of a record.
    disk.put("log-00000001", [&old[..], &[1, 2, 3]].concat());
    for payload in ["new", "newer"] {
        let site = site_on(Settings::default(), &disk);
        assert_eq!(disk.bytes("log-00000001"), old, "whole, and not written to");
        assert_eq!(disk.bytes("log-00000002")[11], 2);
        assert_eq!(site.broker.counters().retained_messages, 1);
        site.publish(Publish::new("t", payload).qos(1, 1).retained());
        let mut reader = site.subscriber(V4, "r", "t", 0);
        assert_eq!(reader.received().text(), payload);
    }
    let torn = disk.after_power_cut(0);
    let site = site_on(Settings::default(), &torn);
    assert_eq!(site.broker.counters().retained_messages, 1, "the old file is durable");
    assert!(!disk.names().iter().any(|name| name == "log-00000003"), "{:?}", disk.names());
}

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

/// The power fails at random moments, while publishers go on: whatever was acknowledged before is
/// there, and in its order.
#[test]
fn power_cuts_amid_traffic_take_nothing_that_was_acknowledged() {
    let disk = Disk::default();
    let site = site_on(careful(Settings::default()), &disk);
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("load/+", 2);
    wire.vanish();
    // The queue of a client that is away holds a thousand.
    const EACH: u16 = 300;
    let acknowledged = [(); 3].map(|()| AtomicU16::new(0));
    let (site, disk) = (&site, &disk);
    std::thread::scope(|scope| {
        for (me, acknowledged) in acknowledged.iter().enumerate() {
            scope.spawn(move || {
                let mut wire = site.client(V5, &format!("p{me}"));
                let topic = format!("load/{me}");
                for n in 1..=EACH {
                    let qos = 1 + (me % 2) as u8;
                    let publish = Publish::new(&topic, n.to_string()).qos(qos, n);
                    wire.publish(publish.clone());
                    wire.expect(&if qos == 1 { puback(n) } else { pubrec(n) });
                    if qos == 2 {
                        wire.send(&pubrel(n));
                        wire.expect(&pubcomp(n));
                    }
                    acknowledged.store(n, Ordering::Release);
                }
            });
        }
        let read = || [0, 1, 2].map(|me| acknowledged[me].load(Ordering::Acquire));
        let mut cuts = 0usize;
        loop {
            let before = read();
            // The bytes that reach the disk beyond the last sync differ each time.
            let cut = disk.after_power_cut(cuts * 37 % 500);
            let site = site_on(careful(Settings::default()), &cut);
            let waiting = site.broker.client("c").expect("the session").queued_messages;
            let promised: usize = before.iter().map(|n| usize::from(*n)).sum();
            assert!(waiting >= promised, "cut {cuts}: {waiting} of {before:?} are left");
            cuts += 1;
            if before == [EACH; 3] {
                let mut wire = site.enter(&lasting, true);
                let mut next = [1u16; 3];
                for _ in 0..3 * EACH {
                    let got = wire.received();
                    let me: usize = got.topic["load/".len()..].parse().unwrap();
                    assert_eq!(got.text(), next[me].to_string(), "in the order of {}", got.topic);
                    next[me] += 1;
                    // Refused, which ends the exchange at once.
                    let ack = if got.first >> 1 & 3 == 1 { puback } else { pubrec };
                    wire.send(&with_code(ack(got.id), 0x80));
                }
                break;
            }
        }
        assert!(cuts > 3, "the traffic was over before the power failed");
    });
}

/// [MQTT-3.1.2-4]: a publish that waits for another subscriber is not for a session that starts
/// clean meanwhile, neither now nor after the end of the process.
#[test]
fn a_publish_under_way_is_not_for_a_session_that_began_meanwhile() {
    let disk = Disk::default();
    let mut settings = Settings::default();
    settings.limits.queue_messages = 1;
    settings.limits.publish_hold = std::time::Duration::from_secs(15);
    let site = site_on(settings, &disk);
    let lasting = Connect::lasting(V5, "clean");
    let mut clean = site.enter(&lasting, false);
    clean.subscribe("t", 1);
    let mut full = site.enter(&Connect::new(V5, "full").with(&[0x21, 0, 1]), false);
    full.subscribe("t", 1);
    let mut publisher = site.client(V5, "p");
    for id in 1..=2 {
        publisher.publish(Publish::new("t", "x").qos(1, id));
        publisher.expect(&puback(id));
        let id = clean.received().id;
        clean.send(&puback(id));
    }
    publisher.publish(Publish::new("t", "of the old session").qos(1, 3));
    publisher.silent();
    let mut new = site.enter(&Connect { clean: true, ..lasting.clone() }, false);
    clean.ended(0x8e);
    full.vanish();
    publisher.expect(&puback(3));
    new.silent();
    let (site, _) = killed(&disk);
    site.enter(&lasting, true).silent();
}
