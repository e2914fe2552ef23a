//! UNSUBSCRIBE.

use crate::support::*;

/// [MQTT-3.10.4-4], [MQTT-3.10.4-5], [MQTT-3.10.4-6], [MQTT-3.11.3-1], [MQTT-3.11.3-2],
/// [MQTT-2.2.1-6], [MQTT-3.11.2-1], [MQTT-3.11.2-2]
#[test]
fn one_answer_with_a_code_for_each_filter() {
    let site = site();
    for version in BOTH {
        let mut wire = site.subscriber(version, "s", "a", 1);
        wire.subscribe("b/#", 0);
        wire.send(&unsubscribe(version, 7, &["a", "never", "b/#", "a", "x/#/y"]));
        wire.expect(&unsuback(version, 7, &[0, 0x11, 0, 0x11, 0x8f]));
        site.publish(Publish::new("a", "x").qos(1, 1));
        site.publish(Publish::new("b/c", "x"));
        wire.silent();
    }
}

/// [MQTT-3.10.4-1]: character by character, not by what it matches.
#[test]
fn a_filter_is_compared_as_a_text() {
    let site = site();
    for version in BOTH {
        let mut wire = site.subscriber(version, "s", "a/+", 0);
        wire.send(&unsubscribe(version, 7, &["a/b", "a/#", "A/+"]));
        wire.expect(&unsuback(version, 7, &[0x11, 0x11, 0x11]));
        site.publish(Publish::new("a/b", "x"));
        wire.expect_publish(Publish::new("a/b", "x"));
    }
}

/// [MQTT-3.10.4-2]: also of a session that was resumed.
#[test]
fn a_resumed_session_can_unsubscribe() {
    let site = site();
    for version in BOTH {
        let lasting = Connect::lasting(version, &format!("s{version}"));
        let mut wire = site.enter(&lasting, false);
        wire.subscribe("a", 1);
        wire.vanish();
        let mut wire = site.enter(&lasting, true);
        wire.send(&unsubscribe(version, 9, &["a"]));
        wire.expect(&unsuback(version, 9, &[0]));
        site.publish(Publish::new("a", "x").qos(1, 1));
        wire.silent();
    }
}

/// [MQTT-3.10.1-1], [MQTT-3.10.3-1], [MQTT-3.10.3-2], [MQTT-2.2.1-3]
#[test]
fn malformed_ones_end_the_connection() {
    let site = site();
    for version in BOTH {
        let mut flags = unsubscribe(version, 1, &["a"]);
        flags[0] = 0xa0;
        for (packet, code) in [
            (flags, 0x81),
            (unsubscribe(version, 1, &[]), 0x82),
            (unsubscribe(version, 0, &["a"]), 0x82),
            (unsubscribe(version, 1, &[""]), 0x82),
            (unsubscribe(version, 1, &["a\0"]), 0x81),
            (frame(0xa2, &[&[0, 1][..], none(version), &text([0xc3, 0x28])].concat()), 0x81),
        ] {
            let mut wire = site.client(version, "s");
            wire.send(&packet);
            wire.ended(code);
        }
    }
}

/// [MQTT-3.10.4-3]: what is under way is completed.
#[test]
fn deliveries_that_began_are_completed() {
    let site = site();
    for version in BOTH {
        let mut wire = site.subscriber(version, "s", "a", 2);
        site.publish(Publish::new("a", "x").qos(2, 1));
        wire.expect_publish(Publish::new("a", "x").qos(2, 1));
        wire.send(&unsubscribe(version, 2, &["a"]));
        wire.expect(&unsuback(version, 2, &[0]));
        wire.send(&pubrec(1));
        wire.expect(&pubrel(1));
        wire.send(&pubcomp(1));
        wire.silent();
    }
}
