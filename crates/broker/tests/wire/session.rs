//! Sessions: what outlives a connection, and who holds it.

use crate::support::*;

/// [MQTT-3.1.3-2], [MQTT-3.1.2-4], [MQTT-3.1.2-5], [MQTT-3.1.2-6], [MQTT-3.2.2-2], [MQTT-3.2.2-3]
/// [MQTT-3.1.4-4]
#[test]
fn session_present_says_what_is_there() {
    let site = site();
    for version in BOTH {
        let id = format!("c{version}");
        let lasting = Connect::lasting(version, &id);
        site.enter(&lasting, false).leave();
        site.enter(&lasting, true).vanish();
        site.enter(&Connect { clean: true, ..lasting.clone() }, false).leave();
        // For 3.1.1 a clean session leaves nothing; MQTT 5 asked for a session that lasts.
        site.enter(&lasting, version == V5).leave();
        site.client(version, &id).leave();
        site.enter(&lasting, false).leave();
    }
}

/// [MQTT-4.4.0-1], [MQTT-4.1.0-1], [MQTT-3.3.1-1], [MQTT-4.3.3-3], [MQTT-4.3.3-6]: subscriptions stay, messages wait, and what was not
/// acknowledged is sent again, under its id and in its order.
#[test]
fn a_session_goes_on_where_it_was() {
    let site = site();
    for version in BOTH {
        let lasting = Connect::lasting(version, &format!("c{version}"));
        let mut wire = site.enter(&lasting, false);
        wire.subscribe("t", 2);
        for (n, qos) in [("1", 1), ("2", 2), ("3", 2), ("4", 1)] {
            site.publish(Publish::new("t", n).qos(qos, 1));
        }
        for id in 1..=4u16 {
            assert_eq!(wire.received().id, id);
        }
        wire.send(&pubrec(2));
        wire.expect(&pubrel(2));
        wire.vanish();
        site.publish(Publish::new("t", "5").qos(1, 1));
        site.publish(Publish::new("t", "at most once"));
        let mut wire = site.enter(&lasting, true);
        wire.expect(&pubrel(2));
        wire.expect_publish(Publish::new("t", "1").qos(1, 1).dup());
        wire.expect_publish(Publish::new("t", "3").qos(2, 3).dup());
        wire.expect_publish(Publish::new("t", "4").qos(1, 4).dup());
        wire.expect_publish(Publish::new("t", "5").qos(1, 5));
        for ack in [puback(1), pubcomp(2), pubrec(3), puback(4), puback(5)] {
            wire.send(&ack);
        }
        wire.expect(&pubrel(3));
        wire.send(&pubcomp(3));
        wire.silent();
        wire.vanish();
        site.enter(&lasting, true).silent();
    }
}

/// [MQTT-3.3.4-9]: the next connection may allow less in flight than the last one.
#[test]
fn redelivery_keeps_to_the_new_receive_maximum() {
    let site = site();
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 1);
    for id in 1..=5 {
        site.publish(Publish::new("t", "x").qos(1, 1));
        assert_eq!(wire.received().id, id);
    }
    wire.vanish();
    let mut wire = site.enter(&lasting.with(&[0x21, 0, 2]), true);
    site.publish(Publish::new("t", "y").qos(1, 1));
    for id in 1..=2 {
        wire.expect_publish(Publish::new("t", "x").qos(1, id).dup());
    }
    wire.silent();
    for id in 1..=3 {
        wire.send(&puback(id));
        wire.expect_publish(Publish::new("t", "x").qos(1, id + 2).dup());
    }
    wire.silent();
    wire.send(&puback(5));
    wire.expect_publish(Publish::new("t", "y").qos(1, 6));
}

/// [MQTT-3.3.4-10]: a PUBREL does not wait for room.
#[test]
fn a_release_is_sent_again_at_once() {
    let site = site();
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 2);
    for id in 1..=4 {
        site.publish(Publish::new("t", "x").qos(2, 1));
        assert_eq!(wire.received().id, id);
    }
    for id in [2, 4] {
        wire.send(&pubrec(id));
        wire.expect(&pubrel(id));
    }
    wire.vanish();
    let mut wire = site.enter(&lasting.with(&[0x21, 0, 1]), true);
    wire.expect(&pubrel(2));
    wire.expect(&pubrel(4));
    wire.silent();
    for id in [2, 4] {
        wire.send(&pubcomp(id));
    }
    for id in [1, 3] {
        wire.expect_publish(Publish::new("t", "x").qos(2, id).dup());
        wire.silent();
        wire.send(&pubrec(id));
        wire.expect(&pubrel(id));
        wire.send(&pubcomp(id));
    }
    wire.silent();
}

/// What is acknowledged before it was sent again is not sent again, and makes no room.
#[test]
fn acknowledgements_may_come_before_redelivery() {
    let site = site();
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 1);
    for id in 1..=3 {
        site.publish(Publish::new("t", "x").qos(1, 1));
        assert_eq!(wire.received().id, id);
    }
    wire.vanish();
    let mut wire = site.enter(&lasting.with(&[0x21, 0, 1]), true);
    wire.expect_publish(Publish::new("t", "x").qos(1, 1).dup());
    wire.send(&puback(3));
    wire.silent();
    wire.send(&puback(1));
    wire.expect_publish(Publish::new("t", "x").qos(1, 2).dup());
    wire.send(&puback(2));
    wire.silent();
}

/// An acknowledgement that does not fit the message ends nothing, also of what is still to be sent
/// again.
#[test]
fn acknowledgements_that_do_not_fit_end_nothing() {
    let site = site();
    for version in BOTH {
        let lasting = Connect::lasting(version, &format!("c{version}"));
        let mut wire = site.enter(&lasting, false);
        wire.subscribe("t", 2);
        for (id, qos) in [(1, 1), (2, 1), (3, 2)] {
            site.publish(Publish::new("t", "x").qos(qos, 1));
            assert_eq!(wire.received().id, id);
        }
        wire.vanish();
        let one_at_a_time = if version == V5 { &[0x21, 0, 1][..] } else { &[] };
        let mut wire = site.enter(&lasting.with(one_at_a_time), true);
        let wrong = [pubcomp(2), puback(3), pubcomp(3), puback(9), pubcomp(9)];
        wire.send(&wrong.concat());
        for (id, qos) in [(1, 1), (2, 1), (3, 2)] {
            wire.expect_publish(Publish::new("t", "x").qos(qos, id).dup());
            wire.send(&if qos == 1 { puback(id) } else { pubrec(id) });
        }
        wire.expect(&pubrel(3));
        wire.send(&pubcomp(3));
        wire.silent();
        wire.leave();
    }
}

/// [MQTT-3.1.2-24]: and smaller packets.
#[test]
fn redelivery_keeps_to_the_new_maximum_packet_size() {
    let site = site();
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 1);
    for payload in ["x".repeat(100), "small".into()] {
        site.publish(Publish::new("t", payload).qos(1, 1));
        wire.received();
    }
    wire.vanish();
    let mut wire = site.enter(&lasting.with(&seconds(0x27, 64)), true);
    wire.expect_publish(Publish::new("t", "small").qos(1, 2).dup());
    wire.silent();
}

/// [MQTT-3.1.4-3]: for any mix of versions. [MQTT-3.14.2-2], [MQTT-3.14.2-4]: with a reason, and
/// nothing else.
#[test]
fn the_newer_connection_takes_over() {
    let site = site();
    for (first, second) in [(V4, V4), (V4, V5), (V5, V4), (V5, V5)] {
        let mut old = site.client(first, "same");
        let mut new = site.client(second, "same");
        if first == V5 {
            let why = [vec![0x1f], text("the same client id connected again")].concat();
            let body = [&[0x8e][..], &variable(why.len()), &why].concat();
            old.expect(&frame(0xe0, &body));
            old.closed();
        } else {
            old.ended(0);
        }
        new.silent();
        new.leave();
    }
}

/// A session belongs to its client id, not to the version that began it: what 3.1.1 does not know
/// is left out, and still there when MQTT 5 comes back.
#[test]
fn a_session_goes_from_version_to_version() {
    let site = site();
    let (new, old) = (Connect::lasting(V5, "c"), Connect::lasting(V4, "c"));
    let mut wire = site.enter(&new, false);
    let identifier = [0x0b, 9];
    let options = 1 | NO_LOCAL | RETAIN_AS_PUBLISHED;
    wire.send(&subscribe(V5, 1, &identifier, &[("t", options)]));
    wire.expect(&suback(V5, 1, &[1]));
    wire.vanish();
    let publish = Publish::new("t", "x").qos(1, 1).retained();
    let sent = publish.clone().with(&user("k", "v"));
    site.publish(sent.clone());
    let mut wire = site.enter(&old, true);
    wire.expect_publish(publish.clone());
    wire.publish(Publish::new("t", "mine").qos(1, 3));
    wire.expect(&puback(3));
    wire.silent();
    wire.vanish();
    let mut wire = site.enter(&new, true);
    wire.expect_publish(sent.dup().with(&identifier));
    wire.send(&puback(1));
    wire.silent();
}

/// A subscriber that reads nothing can be taken over as well, and the broker goes on.
#[test]
fn a_stuck_connection_can_be_taken_over() {
    let site = site();
    let stuck = site.subscriber(V4, "stuck", "t", 0);
    let mut publisher = site.client(V4, "p");
    for _ in 0..400 {
        publisher.publish(Publish::new("t", vec![b'x'; 60_000]));
    }
    publisher.silent();
    let mut new = site.subscriber(V4, "stuck", "t", 0);
    publisher.publish(Publish::new("t", "x"));
    new.expect_publish(Publish::new("t", "x"));
    drop(stuck);
}

/// [MQTT-3.1.2-23], [MQTT-4.1.0-2]: Session Expiry Interval, in CONNECT and DISCONNECT.
#[test]
fn sessions_expire() {
    let site = site();
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    let goodbye = |expiry| frame(0xe0, &[&[0, 5][..], &seconds(0x11, expiry)].concat());
    wire.send(&goodbye(0));
    wire.closed();
    let mut wire = site.enter(&lasting, false);
    wire.send(&goodbye(u32::MAX));
    wire.closed();
    site.enter(&lasting, true).leave();
    // For ever, and taken back.
    let forever = Connect { clean: false, ..Connect::new(V5, "c") }.with(&seconds(0x11, u32::MAX));
    site.enter(&forever, true).vanish();
    let mut wire = site.enter(&forever, true);
    wire.send(&goodbye(0));
    wire.closed();
    // Absent, it is 0.
    site.enter(&Connect { clean: false, ..Connect::new(V5, "c") }, false).vanish();
    site.enter(&forever, false).leave();
    site.client(V5, "c").leave();
    // From nothing to something is a protocol error.
    let mut wire = site.client(V5, "c");
    wire.send(&goodbye(5));
    wire.ended(0x82);
    // A second, by the broker's clock; its will tells when it is over.
    let mut watcher = site.subscriber(V5, "watcher", "w", 0);
    let will = Will { properties: seconds(0x18, 9), ..Will::new("w", "") };
    let short = Connect { clean: false, ..Connect::new(V5, "c") }.with(&seconds(0x11, 1));
    site.enter(&short.clone().will(will), false).vanish();
    watcher.expect_publish(Publish::new("w", ""));
    site.enter(&short, false).leave();
}

/// MQTT 5.0, 4.1: a queue is bounded, and what it has no room for is the newest.
#[test]
fn an_absent_clients_queue_is_bounded() {
    let mut settings = broker::Settings::default();
    settings.limits.queue_messages = 3;
    let site = site_with(settings);
    let lasting = Connect::lasting(V4, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 1);
    wire.vanish();
    for n in 1..=5 {
        site.publish(Publish::new("t", n.to_string()).qos(1, 1));
    }
    let mut wire = site.enter(&lasting, true);
    for n in 1..=3 {
        assert_eq!(wire.received().text(), n.to_string());
    }
    wire.silent();
    assert_eq!(site.broker.counters().dropped, 2);
}
