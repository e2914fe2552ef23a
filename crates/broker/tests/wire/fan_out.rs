//! One message to many: the way through the router, which is taken where there is more to do.

use crate::support::*;

/// So many that no lane serves all of its own directly.
const SUBSCRIBERS: usize = 200;

/// Topics, flags, properties and identifiers are those of the direct way, and so is the order.
#[test]
fn many_receivers_get_what_few_would_get() {
    let site = site_with(broker::Settings { lanes: 2, ..broker::Settings::default() });
    let mut wires: Vec<Wire> = (0..SUBSCRIBERS)
        .map(|n| {
            let version = BOTH[n % 2];
            let mut wire = site.client(version, &format!("s{n}"));
            let (identifier, options) =
                if version == V5 { (&[0x0b, 7][..], RETAIN_AS_PUBLISHED) } else { (&[][..], 0) };
            wire.send(&subscribe(version, 1, identifier, &[("+/é/#", options)]));
            wire.expect(&suback(version, 1, &[0]));
            wire
        })
        .collect();
    let mut publisher = site.client(V5, "p");
    publisher.subscribe("#", NO_LOCAL);
    let properties = [[vec![0x03], text("json")].concat(), user("k", "v")].concat();
    for n in 0..20 {
        // A topic alias, and the same topic again and again.
        let topic = ["a/é/x", "b/é/y"][n % 2];
        let alias = [0x23, 0, 1 + (n % 2) as u8];
        let sent = if n < 2 { topic } else { "" };
        let publish = Publish::new(sent, n.to_string()).retained().with(&properties);
        publisher.publish(publish.with(&alias));
    }
    publisher.silent();
    for wire in &mut wires {
        for n in 0..20 {
            let expected = Publish::new(["a/é/x", "b/é/y"][n % 2], n.to_string());
            wire.expect_publish(if wire.version == V5 {
                expected.retained().with(&properties).with(&[0x0b, 7])
            } else {
                expected
            });
        }
    }
    assert!(site.broker.counters().routed > 0, "the router was not used at all");
    assert_eq!(site.broker.counters().dropped, 0);
}
