//! Shared subscriptions.

use crate::support::*;

/// MQTT 5.0, 4.8.2: each message to one member, in turn, at each QoS and for both versions.
#[test]
fn members_share_the_messages() {
    let site = site();
    let mut members = [
        site.subscriber(V4, "m4", "$share/g/t/#", 1),
        site.subscriber(V5, "m5", "$share/g/t/#", 1),
    ];
    for qos in 0..=1 {
        let mut publisher = site.client(V5, "p");
        for _ in 0..10 {
            publisher.publish(Publish::new("t/x", "x").qos(qos, 1));
        }
        publisher.silent();
        for member in &mut members {
            for _ in 0..5 {
                assert_eq!(member.received().topic, "t/x");
            }
            member.silent();
        }
        publisher.leave();
    }
}

/// Groups by name and filter: each of them gets each message.
#[test]
fn groups_and_plain_subscribers_do_not_take_from_each_other() {
    let site = site();
    let mut wires = [
        site.subscriber(V5, "plain", "t", 0),
        site.subscriber(V5, "g", "$share/g/t", 0),
        site.subscriber(V5, "h", "$share/h/t", 0),
        // One name with two filters is two subscriptions.
        site.subscriber(V5, "g2", "$share/g/+", 0),
    ];
    for n in 0..6 {
        site.publish(Publish::new("t", n.to_string()));
        for wire in &mut wires {
            wire.expect_publish(Publish::new("t", n.to_string()));
        }
    }
}

/// MQTT 5.0, 4.8.2: one client in two groups of one name loses nothing.
#[test]
fn one_client_with_two_filters_of_a_group_name() {
    let site = site();
    let mut wire = site.subscriber(V5, "s", "$share/g/a", 1);
    wire.subscribe("$share/g/b", 1);
    for n in 0..10u16 {
        let topic = if n % 2 == 0 { "a" } else { "b" };
        site.publish(Publish::new(topic, n.to_string()).qos(1, 1));
        wire.expect_publish(Publish::new(topic, n.to_string()).qos(1, n + 1));
    }
}

/// [MQTT-3.3.4-5]: beside a plain subscription it is one more copy, each with its own identifier.
#[test]
fn a_shared_and_a_plain_subscription_are_two_copies() {
    let site = site();
    let mut wire = site.client(V5, "s");
    for (identifier, filter) in [(1, "t"), (2, "$share/g/t"), (3, "t/#")] {
        wire.send(&subscribe(V5, 1, &[0x0b, identifier], &[(filter, 1)]));
        wire.expect(&suback(V5, 1, &[1]));
    }
    for qos in 0..=1 {
        site.publish(Publish::new("t", "x").qos(qos, 1));
        let (a, b) = (wire.received(), wire.received());
        let mut identifiers = [a.properties, b.properties].map(|mut bytes| {
            bytes.retain(|byte| *byte != 0x0b);
            bytes.sort_unstable();
            bytes
        });
        identifiers.sort_by_key(Vec::len);
        assert_eq!(identifiers, [vec![2], vec![1, 3]]);
    }
}

/// [MQTT-4.8.2-3]: each member by its own granted QoS.
#[test]
fn each_member_has_its_own_qos() {
    let site = site();
    let mut members = [0, 1, 2].map(|qos| {
        let wire = site.subscriber(V5, &format!("m{qos}"), "$share/g/t", qos);
        (wire, qos)
    });
    for _ in 0..3 {
        site.publish(Publish::new("t", "x").qos(2, 1));
    }
    for (member, qos) in &mut members {
        member.expect_publish(Publish::new("t", "x").qos(*qos, 1));
        member.silent();
    }
}

/// [MQTT-4.8.2-4]: what was sent to a member is that member's when it comes back.
/// [MQTT-4.8.2-5]: at QoS 2 it is nobody else's where it does not.
#[test]
fn what_was_sent_to_a_member_stays_with_it() {
    let site = site();
    for version in BOTH {
        let lasting = Connect::lasting(version, &format!("away{version}"));
        let mut away = site.enter(&lasting, false);
        away.subscribe("$share/g/t", 2);
        site.publish(Publish::new("t", "1").qos(2, 1));
        away.expect_publish(Publish::new("t", "1").qos(2, 1));
        let mut other = site.subscriber(version, "other", "$share/g/t", 2);
        away.vanish();
        other.silent();
        let mut away = site.enter(&lasting, true);
        away.expect_publish(Publish::new("t", "1").qos(2, 1).dup());
        away.vanish();
        site.enter(&Connect { clean: true, ..lasting }, false).leave();
        other.silent();
        other.leave();
    }
}

/// MQTT 5.0, 4.8.2: what a member did not acknowledge at QoS 1 when its session ends, however that
/// ends, and what it was never sent, goes to another member. [MQTT-4.8.2-5]: not what it was sent
/// at QoS 2.
#[test]
fn what_a_member_leaves_behind_goes_to_another() {
    let site = site();
    type End = fn(&Site, Wire);
    let ends: [(&str, Connect, End); 4] = [
        ("a clean session ends with its connection", Connect::new(V4, "m"), |_, wire| {
            wire.vanish()
        }),
        ("a session expires", Connect::new(V5, "m").with(&seconds(0x11, 1)), |_, wire| {
            wire.vanish()
        }),
        ("a session starts again", Connect::lasting(V5, "m"), |site, wire| {
            wire.vanish();
            site.client(V5, "m").leave();
        }),
        ("a client gives its session up", Connect::lasting(V5, "m"), |_, mut wire| {
            wire.send(&frame(0xe0, &[&[0, 5][..], &seconds(0x11, 0)].concat()));
            wire.closed();
        }),
    ];
    for (why, connect, end) in ends {
        let window = if connect.version == V5 { &[0x21, 0, 3][..] } else { &[] };
        let mut member = site.enter(&connect.with(window), false);
        member.subscribe("$share/g/t", 2);
        let last = if member.version == V5 { 6 } else { 70 };
        let publish = |n: u16| {
            let qos = if n == 2 || n == last { 2 } else { 1 };
            Publish::new("t", n.to_string()).qos(qos, n)
        };
        for n in 1..=last {
            site.publish(publish(n));
        }
        let sent = if member.version == V5 { 3 } else { 64 };
        for n in 1..=sent {
            member.expect_publish(publish(n));
        }
        member.send(&puback(1));
        member.expect_publish(publish(sent + 1));
        let mut other = site.subscriber(V5, "other", "$share/g/t", 2);
        other.silent();
        end(&site, member);
        for (id, n) in (1..).zip((3..=last).filter(|n| *n != 2)) {
            let received = other.received();
            assert_eq!(received.text(), n.to_string(), "{why}");
            assert_eq!((received.first, received.id), (0x30 | publish(n).qos << 1, id), "{why}");
            other.send(&if n == last { pubrec(id) } else { puback(id) });
        }
        assert_eq!(other.packet()[0], 0x62);
        other.silent();
        other.leave();
    }
}

/// Where nobody else is there it is kept for a member whose session lasts, and where there is none
/// it is gone.
#[test]
fn what_is_left_behind_may_wait_or_end() {
    let site = site();
    let lasting = Connect::lasting(V4, "away");
    let mut away = site.enter(&lasting, false);
    away.subscribe("$share/g/t", 1);
    away.vanish();
    let mut member = site.subscriber(V4, "member", "$share/g/t", 1);
    // Of another group by its name, and another by its filter.
    let mut others =
        [site.subscriber(V4, "h", "$share/h/t", 1), site.subscriber(V4, "g", "$share/g/+", 1)];
    site.publish(Publish::new("t", "x").qos(1, 1));
    for wire in others.iter_mut().chain([&mut member]) {
        wire.expect_publish(Publish::new("t", "x").qos(1, 1));
    }
    member.vanish();
    let mut away = site.enter(&lasting, true);
    away.expect_publish(Publish::new("t", "x").qos(1, 1));
    away.vanish();
    site.client(V4, "away").leave();
    others.iter_mut().for_each(Wire::silent);
}

/// [MQTT-4.8.2-6]: what a member refuses is offered to nobody else.
#[test]
fn what_a_member_refuses_is_gone() {
    let site = site();
    let mut first = site.subscriber(V5, "first", "$share/g/t", 2);
    site.publish(Publish::new("t", "1").qos(1, 1));
    site.publish(Publish::new("t", "2").qos(2, 1));
    let mut second = site.subscriber(V5, "second", "$share/g/t", 2);
    first.expect_publish(Publish::new("t", "1").qos(1, 1));
    first.expect_publish(Publish::new("t", "2").qos(2, 2));
    first.send(&with_code(puback(1), 0x80));
    first.send(&with_code(pubrec(2), 0x83));
    first.silent();
    first.leave();
    second.silent();
}

/// MQTT 5.0, 4.8.2.2: no retained messages.
#[test]
fn they_get_no_retained_messages() {
    let site = site();
    site.publish(Publish::new("t", "x").retained());
    for version in BOTH {
        site.subscriber(version, "s", "$share/g/t", 0).silent();
    }
}

/// The only member goes with a message unacknowledged, and unsubscribes something else first:
/// the group, the broker and the session go on.
#[test]
fn the_only_member_may_come_and_go() {
    let site = site();
    for version in BOTH {
        let lasting = Connect::lasting(version, &format!("m{version}"));
        let mut wire = site.enter(&lasting, false);
        wire.subscribe("other", 0);
        wire.subscribe("$share/g/t", 1);
        wire.send(&unsubscribe(version, 1, &["other"]));
        wire.expect(&unsuback(version, 1, &[0]));
        site.publish(Publish::new("t", "1").qos(1, 1));
        wire.expect_publish(Publish::new("t", "1").qos(1, 1));
        wire.vanish();
        site.publish(Publish::new("t", "2").qos(1, 1));
        let mut wire = site.enter(&lasting, true);
        wire.expect_publish(Publish::new("t", "1").qos(1, 1).dup());
        wire.expect_publish(Publish::new("t", "2").qos(1, 2));
        wire.send(&unsubscribe(version, 2, &["$share/g/t"]));
        wire.expect(&unsuback(version, 2, &[0]));
        site.publish(Publish::new("t", "3").qos(1, 1));
        wire.silent();
        wire.leave();
    }
}

/// MQTT 5.0, 4.8.2: an absent member is passed over while another one is there.
#[test]
fn absent_members_are_passed_over() {
    let site = site();
    let lasting = Connect::lasting(V5, "away");
    let mut away = site.enter(&lasting, false);
    away.subscribe("$share/g/t", 1);
    away.vanish();
    let mut here = site.subscriber(V5, "here", "$share/g/t", 1);
    for id in 1..=4 {
        site.publish(Publish::new("t", "x").qos(1, 1));
        here.expect_publish(Publish::new("t", "x").qos(1, id));
    }
    site.enter(&lasting, true).silent();
}

/// [MQTT-4.8.2-1], [MQTT-4.8.2-2]
#[test]
fn bad_names_are_refused() {
    let site = site();
    for version in BOTH {
        let mut wire = site.client(version, "s");
        let filters =
            ["$share/g", "$share//t", "$share/+/t", "$share/g#/t", "$share/g/", "$share/g/a/#/b"];
        wire.send(&subscribe(version, 1, &[], &filters.map(|filter| (filter, 0))));
        let bad = if version == V5 { 0x8f } else { 0x80 };
        wire.expect(&suback(version, 1, &[bad; 6]));
    }
}
