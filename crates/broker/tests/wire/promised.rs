//! Retained messages that a session was promised when it subscribed: they are its own from the
//! SUBACK on, over its connections and the end of the process.

use crate::{
    durability::{first, killed, written},
    support::*,
};
use std::collections::BTreeSet;

/// A session that takes so many unacknowledged messages.
fn lasting(window: u8) -> Connect {
    Connect::lasting(V5, "s").with(&[0x21, 0, window])
}

fn publish_retained(site: &Site, topics: usize, qos: u8) {
    for n in 0..topics {
        site.publish(Publish::new(&format!("r/{n:04}"), n.to_string()).qos(qos, 1).retained());
    }
}

/// Takes so many messages, acknowledges each, and nothing else comes.
fn all(wire: &mut Wire, count: usize) -> Vec<String> {
    let taken = (0..count).map(|_| {
        let got = wire.received();
        match got.first >> 1 & 3 {
            1 => wire.send(&puback(got.id)),
            // Refused, which ends the exchange at once.
            _ => wire.send(&with_code(pubrec(got.id), 0x80)),
        }
        got.topic
    });
    let topics = taken.collect();
    wire.silent();
    topics
}

/// [MQTT-4.1.0-1]: what waits for its turn, and what was sent and is not acknowledged.
#[test]
fn they_survive_the_end_of_the_process() {
    for qos in [1, 2] {
        let (site, disk) = first();
        publish_retained(&site, 200, qos);
        let mut wire = site.enter(&lasting(2), false);
        wire.send(&subscribe(V5, 1, &[0x0b, 42], &[("r/+", 2)]));
        wire.expect(&suback(V5, 1, &[2]));
        let sent = [wire.received(), wire.received()];
        // And before anything was sent: a second one waits behind the first.
        wire.subscribe("r/0001", 1);
        wire.silent();
        let (site, disk) = killed(&disk);
        let mut wire = site.enter(&lasting(2), true);
        for sent in sent {
            let again = wire.received();
            assert_eq!((&again.topic, &again.payload), (&sent.topic, &sent.payload));
            assert_eq!(again.properties, [0x0b, 42]);
            // At QoS 2 the client tells by the packet id that it has it.
            let dup = if qos == 2 { 8 } else { 0 };
            assert_eq!((again.first, again.id), (0x31 | dup | qos << 1, sent.id));
            wire.send(&match qos {
                1 => puback(again.id),
                _ => with_code(pubrec(again.id), 0x80),
            });
        }
        let topics = all(&mut wire, 199);
        assert_eq!(topics.last().unwrap(), "r/0001", "the second subscription");
        assert_eq!(topics[..198].iter().collect::<BTreeSet<_>>().len(), 198);
        // A record behind those of the acknowledgements.
        wire.subscribe("other", 0);
        let (site, _) = killed(&disk);
        site.enter(&lasting(2), true).silent();
    }
}

/// A client that leaves before it was sent more than a few gets the others when it is back,
/// however many wait.
#[test]
fn no_queue_bounds_them() {
    const TOPICS: usize = 1500;
    let (site, disk) = first();
    publish_retained(&site, TOPICS, 1);
    let mut wire = site.enter(&lasting(3), false);
    wire.subscribe("#", 1);
    wire.received();
    wire.vanish();
    assert!(site.broker.client("s").unwrap().queued_messages < 10);
    let (after, _) = killed(&disk);
    for (site, how) in [(after, "killed"), (site, "only away")] {
        let mut wire = site.enter(&lasting(3), true);
        let topics: BTreeSet<String> = all(&mut wire, TOPICS).into_iter().collect();
        assert_eq!(topics.len(), TOPICS, "{how}");
    }
}

/// The payload stands in the log once, as the retained message.
#[test]
fn a_retained_message_for_many_is_written_once() {
    let (site, disk) = first();
    let payload = vec![b'x'; 10_000];
    site.publish(Publish::new("t", &payload).qos(1, 1).retained());
    let before = disk.len();
    for n in 0..50 {
        let mut wire = site.enter(&Connect::lasting(V4, &format!("c{n}")), false);
        wire.subscribe("t", 1);
        wire.received();
        wire.vanish();
    }
    let grown = disk.len() - before;
    assert!(grown < 15_000, "{grown}");
    let (site, _) = killed(&disk);
    for n in 0..50 {
        let mut wire = site.enter(&Connect::lasting(V4, &format!("c{n}")), true);
        assert_eq!(wire.received().payload, payload);
    }
}

/// What is replaced or cleared meanwhile is not sent: the newer one comes as a live message.
#[test]
fn what_is_outdated_is_not_owed() {
    let (site, disk) = first();
    publish_retained(&site, 4, 1);
    let mut wire = site.enter(&lasting(1), false);
    wire.subscribe("r/+", 1);
    let taken = wire.received();
    wire.vanish();
    site.publish(Publish::new("r/0001", "new").qos(1, 1).retained());
    site.publish(Publish::new("r/0002", "").qos(1, 1).retained());
    let (site, _) = killed(&disk);
    let mut wire = site.enter(&lasting(9), true);
    let expected = [(0x33, &*taken.topic, "0"), (0x32, "r/0001", "new"), (0x32, "r/0002", "")];
    for (first, topic, payload) in expected.into_iter().chain([(0x33, "r/0003", "3")]) {
        let got = wire.received();
        assert_eq!((got.first, &*got.topic, got.text()), (first, topic, payload));
    }
    wire.silent();
}

/// At QoS 0 the newer one is no live message for who is away, so it takes the place of what was
/// promised, once.
#[test]
fn what_is_replaced_at_qos_0_comes_in_its_place() {
    for kill in [false, true] {
        let (mut site, disk) = first();
        publish_retained(&site, 4, 1);
        let mut wire = site.enter(&lasting(1), false);
        wire.subscribe("r/+", 1);
        let taken = wire.received();
        wire.vanish();
        site.publish(Publish::new("r/0001", "new").retained());
        site.publish(Publish::new("r/0002", "").retained());
        written(&site);
        if kill {
            site = killed(&disk).0;
        }
        let mut wire = site.enter(&lasting(9), true);
        let again = wire.received();
        assert_eq!((&*again.topic, again.text()), (&*taken.topic, "0"));
        for (first, topic, payload) in [(0x31, "r/0001", "new"), (0x33, "r/0003", "3")] {
            let got = wire.received();
            assert_eq!((got.first, &*got.topic, got.text()), (first, topic, payload), "{kill}");
        }
        wire.silent();
    }
}

/// [MQTT-3.3.1-10], [MQTT-3.3.1-11], [MQTT-3.10.4-3], [MQTT-3.1.2-4]: who is not owed anything, or not any more.
#[test]
fn nothing_is_owed_without_a_promise() {
    type Act = fn(&Site, Wire);
    let acts: [(&str, Act); 6] = [
        ("not asked for", |_, mut wire| wire.subscribe("r/+", 1 | DO_NOT_SEND)),
        ("not new", |_, mut wire| {
            wire.subscribe("r/+", 1 | DO_NOT_SEND);
            wire.subscribe("r/+", 1 | SEND_IF_NEW);
        }),
        ("at QoS 0", |_, mut wire| {
            wire.subscribe("r/+", 0);
            (0..3).for_each(|_| drop(wire.received()));
        }),
        ("unsubscribed", |_, mut wire| {
            wire.subscribe("r/+", 1);
            let id = wire.received().id;
            wire.send(&puback(id));
            let id = wire.received().id;
            wire.send(&unsubscribe(V5, 1, &["r/+"]));
            wire.expect(&unsuback(V5, 1, &[0]));
            wire.send(&puback(id));
            wire.subscribe("other", 0);
        }),
        ("served", |_, mut wire| {
            wire.subscribe("r/+", 1);
            all(&mut wire, 3);
            wire.subscribe("other", 0);
        }),
        ("given up", |site, mut wire| {
            wire.subscribe("r/+", 1);
            wire.vanish();
            site.enter(&Connect { clean: true, ..lasting(1) }, false).vanish();
        }),
    ];
    for (why, act) in acts {
        let (site, disk) = first();
        publish_retained(&site, 3, 1);
        act(&site, site.enter(&lasting(1), false));
        let (site, _) = killed(&disk);
        println!("{why}");
        site.enter(&lasting(9), true).silent();
    }
}

/// One that waited for the log when its connection ended comes on the next one.
#[test]
fn what_was_taken_and_never_sent_comes_later() {
    let (site, disk) = first();
    let mut wire = site.enter(&lasting(1), false);
    wire.subscribe("r/+", 2);
    publish_retained(&site, 2, 2);
    for _ in 0..2 {
        let id = wire.received().id;
        wire.send(&pubrec(id));
        wire.expect(&pubrel(id));
        wire.send(&pubcomp(id));
    }
    wire.silent();
    disk.set_full(true);
    // The same once more: what is retained comes again.
    wire.subscribe("r/+", 2);
    wire.silent();
    wire.vanish();
    disk.set_full(false);
    eventually("the log can be written", || site.server.log_ready().is_ok());
    assert_eq!(all(&mut site.enter(&lasting(9), true), 2), ["r/0000", "r/0001"]);
}
