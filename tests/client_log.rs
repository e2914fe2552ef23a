//! The second plugin beside the updates: who came and went, and what they published.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{Client, Connect, Publish, Site, TOPIC};

#[test]
fn each_connection_is_logged_with_what_it_published() {
    let mut site = Site::new();
    site.set("log.clients", "true");
    let daemon = site.start();
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("pump-1").v5());
    client.publish(&Publish::new("plant/x", "12345").qos(1));
    client.publish(&Publish::new("plant/x", "123").qos(2));
    // Consumed by the updates, and seen all the same.
    let request = r#"{"variable":"firmware_request","value":0,"unit":"index"}"#;
    client.publish(&Publish::new(TOPIC, request).qos(1));
    daemon.expect_log(&["client connected", "pump-1", "protocol=\"5\""]);
    client.disconnect();
    let bytes = format!("bytes={}", 8 + request.len());
    daemon.expect_log(&["client disconnected", "pump-1", "client left", "publishes=3", &bytes]);

    // What ended a connection is told apart.
    Client::connect(daemon.mqtt(), &Connect::id("pump-2")).break_off();
    daemon.expect_log(&["client disconnected", "pump-2", "lost", "publishes=0"]);
    let _taken = Client::connect(daemon.mqtt(), &Connect::id("pump-3"));
    let _taker = Client::connect(daemon.mqtt(), &Connect::id("pump-3"));
    daemon.expect_log(&["client disconnected", "pump-3", "connected again"]);
    let ended = daemon.stop();
    assert!(ended.said(&["client disconnected", "pump-3", "the broker stops"]));
}

#[test]
fn it_is_off_unless_asked_for() {
    let site = Site::new();
    let daemon = site.start();
    Client::connect(daemon.mqtt(), &Connect::id("pump-1")).disconnect();
    assert!(!daemon.stop().said(&["client connected"]));
}
