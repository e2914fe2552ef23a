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

/// Once for each, when it is acknowledged; at QoS 0 when it is handed over. One that waits for the
/// log is measured until then; what was refused is no publish of this kind.
#[test]
fn the_time_of_each_publish_is_measured() {
    let (site, _disk) = crate::durability::first();
    let measured = || site.broker.publish_time().buckets.iter().sum::<u64>();
    // Something that is promised to a session that lasts is written before it is acknowledged.
    let mut lasting = site.enter(&Connect::lasting(V5, "lasting"), false);
    lasting.subscribe("t", 1);
    let mut publisher = site.client(V5, "p");
    publisher.publish(Publish::new("t", "a"));
    for (id, qos) in [(1, 1), (2, 2)] {
        publisher.publish(Publish::new("t", "b").qos(qos, id));
        publisher.expect(&if qos == 1 { puback(id) } else { pubrec(id) });
    }
    assert_eq!(measured(), 3);
    // A copy of what was taken is not another one.
    publisher.publish(Publish::new("t", "b").qos(2, 2).dup());
    publisher.expect(&pubrec(2));
    publisher.publish(Publish::new("$SYS/mine", "c").qos(1, 3));
    assert_eq!(publisher.packet()[4], 0x87, "not authorized");
    assert_eq!(measured(), 3);
}
