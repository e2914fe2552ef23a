//! What the broker says of itself below `$SYS`.

use crate::support::*;

/// MQTT 5.0, 4.7.2: to whoever asks for it by name, and nobody else.
#[test]
fn statistics_can_be_read_but_not_written() {
    let site = site();
    for version in BOTH {
        let mut everything = site.subscriber(version, "everything", "#", 0);
        everything.subscribe("+/broker/version", 0);
        everything.silent();
        let mut wire = site.subscriber(version, "reader", "$SYS/broker/version", 0);
        let received = wire.received();
        assert_eq!((received.first & 0xf0, &*received.topic), (0x30, "$SYS/broker/version"));
        assert!(received.text().starts_with("fuotad "), "{}", received.text());
        wire.publish(Publish::new("$SYS/broker/version", "mine").qos(1, 1).retained());
        wire.silent();
        wire.leave();
    }
    // They count as nobody's retained messages.
    assert_eq!(site.broker.counters().retained_messages, 0);
}

/// Each of them is a number.
#[test]
fn statistics_are_numbers() {
    let site = site();
    let mut wire = site.subscriber(V5, "reader", "$SYS/broker/clients/+", 0);
    for _ in 0..3 {
        let received = wire.received();
        received.text().parse::<u64>().expect(&received.topic);
    }
}
