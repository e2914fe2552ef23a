//! Shared subscriptions over the end of the process: MQTT 5.0, 4.8.2.

use broker::Settings;

use crate::{
    durability::{first, full_client, killed, patient, written},
    support::{disk::Disk, *},
};
use std::time::{Duration, Instant};

const GROUP: &str = "$share/g/t";

/// A member whose session lasts for some seconds, with two messages sent and two that wait, one at
/// each QoS; none is acknowledged.
fn member(site: &Site, expiry: u32) -> Connect {
    let connect = Connect {
        clean: false,
        ..Connect::new(V5, "member").with(&seconds(0x11, expiry)).with(&[0x21, 0, 2])
    };
    let mut wire = site.enter(&connect, false);
    wire.subscribe(GROUP, 2);
    for n in 1..=4 {
        site.publish(Publish::new("t", n.to_string()).qos(2 - (n % 2) as u8, 1));
    }
    for n in ["1", "2"] {
        assert_eq!(wire.received().text(), n);
    }
    wire.vanish();
    connect
}

/// All but what was sent at QoS 2 [MQTT-4.8.2-5], in order and once.
fn takes_over(wire: &mut Wire) {
    for (n, qos) in [("1", 1), ("3", 1), ("4", 2)] {
        let got = wire.received();
        assert_eq!((got.text(), got.first), (n, 0x30 | qos << 1));
        wire.send(&if qos == 1 { puback(got.id) } else { with_code(pubrec(got.id), 0x80) });
    }
    wire.silent();
}

fn wait_until_expired(disk: &Disk) -> Disk {
    // The record has whole seconds, so a session of one second is over within two.
    let over = Instant::now() + Duration::from_secs(2);
    while Instant::now() < over {
        std::thread::park_timeout(over - Instant::now());
    }
    disk.after_kill()
}

/// [MQTT-4.8.2-4]: as long as the session is there they are its own, and then another member's.
#[test]
fn what_a_member_has_stays_with_it_and_is_handed_on_at_its_end() {
    let (site, disk) = first();
    let connect = member(&site, 1000);
    let (site, disk) = killed(&disk);
    let mut other = site.subscriber(V5, "other", GROUP, 2);
    other.silent();
    let mut wire = site.enter(&connect, true);
    let (two, one) = (wire.received(), wire.received());
    assert_eq!((two.text(), two.first, one.text()), ("2", 0x3c, "1"));
    other.silent();
    wire.vanish();
    // Another end of the process in between.
    let (site, disk) = killed(&disk);
    let mut other = site.subscriber(V5, "other", GROUP, 2);
    site.enter(&Connect { clean: true, ..connect.clone() }, false).leave();
    takes_over(&mut other);
    // The log knows that they are gone.
    let (site, _) = killed(&disk);
    let mut other = site.subscriber(V5, "other", GROUP, 2);
    site.enter(&Connect { clean: true, ..connect }, false).leave();
    other.silent();
}

/// Its time may run out while there is no broker, and the other member be away as well.
#[test]
fn a_member_that_expires_meanwhile_leaves_them_to_one_that_is_away() {
    let (site, disk) = first();
    let other = Connect::lasting(V5, "other");
    member(&site, 1);
    let mut wire = site.enter(&other, false);
    wire.subscribe(GROUP, 2);
    wire.vanish();
    drop(site);
    let disk = wait_until_expired(&disk);
    for kills in 0..2 {
        let site = site_on(Settings::default(), &disk);
        assert!(site.broker.client("member").is_none(), "it is not even made");
        if kills == 1 {
            takes_over(&mut site.enter(&other, true));
        } else {
            let waiting = || site.broker.client("other").unwrap().queued_messages;
            eventually("they are handed on", || waiting() == 3);
        }
    }
}

/// A member whose session lasts, with a message that it has not acknowledged.
fn promised(site: &Site) -> (Connect, Wire) {
    let member = Connect::lasting(V5, "member");
    let mut wire = site.enter(&member, false);
    wire.subscribe(GROUP, 1);
    site.publish(Publish::new("t", "promised").qos(1, 1));
    assert_eq!(wire.received().text(), "promised");
    (member, wire)
}

/// A session is in the log until the last message that it leaves to others is with them, however
/// long those have no room for it.
#[test]
fn a_session_is_over_when_it_has_handed_on_what_it_leaves() {
    for starts_clean in [false, true] {
        let disk = Disk::default();
        let site = site_on(patient(), &disk);
        let (member, mut wire) = promised(&site);
        let (other, mut full) = full_client(&site, GROUP);
        let mut greeted = None;
        if starts_clean {
            greeted = Some(site.greet(&Connect { clean: true, ..member.clone() }));
            wire.ended(0x8e);
        } else {
            // DISCONNECT with a session expiry of 0.
            wire.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
            wire.closed();
            eventually("it is gone", || site.broker.client("member").is_none());
        }
        written(&site);
        {
            let (site, _) = killed(&disk);
            let mut wire = site.enter(&member, true);
            assert_eq!(wire.received().text(), "promised", "{starts_clean}");
        }
        full.send(&puback(1));
        assert_eq!(full.received().text(), "2");
        if let Some(mut wire) = greeted {
            let ack = wire.packet();
            assert_eq!((ack[0], ack[2]), (0x20, 0), "a new session: {ack:02x?}");
        } else {
            eventually("it is handed on", || {
                site.broker.client("full").unwrap().queued_messages == 1
            });
        }
        written(&site);
        // The end is written behind what was handed on.
        eventually("its end is in the log", || {
            killed(&disk).0.broker.client("member").is_some() == starts_clean
        });
        let (site, _) = killed(&disk);
        let mut full = site.enter(&other, true);
        let id = full.received().id;
        full.send(&puback(id));
        assert_eq!(full.received().text(), "promised");
    }
}

/// It may begin anew twice before that: the log has both beginnings, and what came behind them.
#[test]
fn a_session_that_begins_anew_again_keeps_what_it_gets_then() {
    let disk = Disk::default();
    let site = site_on(patient(), &disk);
    let (member, mut wire) = promised(&site);
    let (_, mut full) = full_client(&site, GROUP);
    let clean = Connect { clean: true, ..member.clone() };
    let mut waits = site.greet(&clean);
    wire.ended(0x8e);
    let connected = || site.broker.client("member").is_some_and(|it| it.connected);
    eventually("it has the session", connected);
    let mut again = site.greet(&clean);
    waits.closed();
    // It need not wait for its CONNACK [MQTT-3.1.4-5]; nothing of it is in the log yet.
    again.send(&subscribe(V5, 1, &[], &[("mine", 1)]));
    written(&site);
    full.send(&puback(1));
    assert_eq!(full.received().text(), "2");
    let ack = again.packet();
    assert_eq!((ack[0], ack[2]), (0x20, 0), "a new session: {ack:02x?}");
    again.expect(&suback(V5, 1, &[1]));
    full.send(&puback(2));
    assert_eq!(full.received().text(), "promised");
    written(&site);
    let (site, _) = killed(&disk);
    let mut again = site.enter(&member, true);
    site.publish(Publish::new("mine", "heard").qos(1, 1));
    assert_eq!(again.received().text(), "heard");
}
