//! DISCONNECT, from either side.

use crate::support::*;

/// MQTT 5.0, 3.14.2: every length that the packet may have.
#[test]
fn clients_may_leave_in_every_form() {
    let site = site();
    site.client(V4, "a").leave();
    let expiry = frame(0xe0, &[&[0, 5][..], &seconds(0x11, 0)].concat());
    let why = frame(0xe0, &[&[0x80, 6, 0x1f][..], &text("why")].concat());
    for goodbye in [&DISCONNECT[..], &[0xe0, 1, 0], &[0xe0, 2, 0, 0], &expiry, &why] {
        let mut wire = site.client(V5, "a");
        wire.send(goodbye);
        wire.closed();
    }
}

/// [MQTT-3.14.1-1]
#[test]
fn malformed_ones_are_told_so() {
    let site = site();
    for goodbye in [&[0xe1, 0][..], &[0xe0, 1, 0x8e], &[0xe0, 3, 0, 0, 0]] {
        let mut wire = site.client(V5, "a");
        wire.send(goodbye);
        wire.ended(0x81);
    }
    for goodbye in [&[0xe2, 0][..], &[0xe0, 1, 0]] {
        let mut wire = site.client(V4, "a");
        wire.send(goodbye);
        wire.closed();
    }
}

/// [MQTT-3.14.4-1], [MQTT-3.14.4-2]: the broker's own DISCONNECT is the last that it says, and what
/// it was asked before comes before.
#[test]
fn the_brokers_goodbye_is_its_last_word() {
    let site = site();
    let mut wire = site.subscriber(V5, "a", "#", 1);
    let ping_then_nonsense = [&PINGREQ[..], &[0x30, 4, 0, 1, b'#', 0], &PINGREQ].concat();
    wire.send(&ping_then_nonsense);
    wire.expect(&PINGRESP);
    wire.ended(0x90);
    site.publish(Publish::new("t", "x").qos(1, 1));
}

/// Nothing that follows a DISCONNECT is handled.
#[test]
fn nothing_follows() {
    let site = site();
    for version in BOTH {
        let mut watcher = site.subscriber(version, "watcher", "t", 0);
        let mut wire = site.client(version, "a");
        wire.send(&[&DISCONNECT[..], &Publish::new("t", "late").bytes(version)].concat());
        wire.closed();
        watcher.silent();
    }
}

/// MQTT 5.0, 4.13: a stop of the broker is said to those who understand it.
#[test]
fn a_stop_says_goodbye() {
    let site = site();
    let (mut old, mut new) = (site.client(V4, "old"), site.client(V5, "new"));
    site.cancel.cancel();
    old.ended(0);
    new.ended(0x8b);
}

/// [MQTT-4.13.2-1]: the reason arrives, however much the client still has to say.
#[test]
fn the_broker_hears_a_client_out() {
    let site = site();
    for _ in 0..20 {
        let mut wire = site.client(V5, "a");
        let late = Publish::new("t", vec![0; 100_000]).bytes(V5);
        wire.send(&[&[0, 0][..], &late].concat());
        wire.ended(0x81);
        // The socket is not reset over what the client sends before it knows.
        wire.send(&late);
        wire.send(&late);
    }
}
