//! The message router of a running daemon dies: what its clients and `/readyz` see of it. Built
//! with the feature `faults`, which no release has.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use rustix::process::Signal;
use support::{Client, Connect, Publish, Site, eventually};

/// So many that no lane serves all of its own directly.
const SUBSCRIBERS: usize = 200;

#[test]
fn readyz_says_that_the_router_is_gone_and_clients_hardly_notice() {
    let site = Site::new();
    let daemon = site.start();
    let admin = daemon.admin();
    let ready = || admin.request("GET", "/readyz", None);
    eventually("ready", || (ready().status == 200).then_some(()));
    let mut subscribers: Vec<Client> = (0..SUBSCRIBERS)
        .map(|n| {
            let mut client = Client::connect(daemon.mqtt(), &Connect::id(&format!("s{n}")));
            client.subscribe("t", 1);
            client
        })
        .collect();
    let mut publisher = Client::connect(daemon.mqtt(), &Connect::id("publisher"));

    daemon.send(Signal::USR2);
    daemon.expect_log(&["router is held", "true"]);
    daemon.send(Signal::USR1);
    daemon.expect_log(&["router was killed"]);
    let refusal = ready();
    assert_eq!(refusal.status, 503, "{refusal:?}");
    assert!(refusal.body.contains("message router"), "{refusal:?}");
    assert_eq!(admin.request("GET", "/healthz", None).status, 200, "the process lives");
    // QoS 1 never needs it.
    publisher.publish(&Publish::new("t", "promised").qos(1));
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.next_publish().text(), "promised");
    }
    // QoS 0 to many waits for the next one.
    publisher.publish(&Publish::new("t", "waits"));
    publisher.ping();
    daemon.send(Signal::USR2);
    daemon.expect_log(&["router was replaced", "lost=0"]);
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.next_publish().text(), "waits");
    }
    eventually("ready again", || (ready().status == 200).then_some(()));
    assert_eq!(daemon.stop().status.code(), Some(0));
}
