//! Thousands of connections that speak nonsense, while two others exchange messages.

use crate::support::*;

const CONNECTIONS: u64 = 3000;

/// [MQTT-4.13.1-1]: and nobody else feels it.
#[test]
fn nonsense_harms_nobody() {
    let site = site();
    let mut subscriber = site.subscriber(V5, "innocent-subscriber", "good/+", 2);
    let mut publisher = site.client(V4, "innocent-publisher");
    let mut random = Random(2026);
    for n in 0..CONNECTIONS {
        let bytes = nonsense(&mut random, n);
        let mut wire = site.open();
        wire.throw(&bytes);
        if n % 10 == 0 {
            // Also those that stay until they are thrown out, or leave in the middle.
            wire.vanish();
        }
        if n % 5 == 0 {
            let text = n.to_string();
            let received = |subscriber: &mut Wire, first| {
                let received = subscriber.received();
                assert_eq!((received.text(), received.first), (&*text, first));
                received.id
            };
            publisher.publish(Publish::new("good/é", &text).qos(1, 1));
            publisher.expect(&puback(1));
            let id = received(&mut subscriber, 0x32);
            subscriber.send(&puback(id));
            publisher.publish(Publish::new("good/é", &text).qos(2, 2));
            publisher.expect(&pubrec(2));
            publisher.send(&pubrel(2));
            publisher.expect(&pubcomp(2));
            let id = received(&mut subscriber, 0x34);
            subscriber.send(&pubrec(id));
            subscriber.expect(&pubrel(id));
            subscriber.send(&pubcomp(id));
        }
    }
    subscriber.silent();
    publisher.silent();
    site.server.ready().unwrap();
    for version in BOTH {
        site.client(version, "afterwards").silent();
    }
}
