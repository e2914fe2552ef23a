//! What was promised survives the end of the process, however it ends.
//!
//! "Killed" is a broker that starts on a copy of the disk while the old one still runs: it finds
//! what had been written at that moment, as after `kill -9`.

use crate::support::{disk::Disk, *};
use broker::Settings;
use std::time::Duration;

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
