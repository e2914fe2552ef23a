//! SIGHUP: the configuration is read again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;

use support::{
    Client, Connect, Daemon, Device, Publish, Site, Version, client::Refused, eventually, image,
};

/// Writes the configuration, signals, and gives the lines that came of it.
fn reload(site: &Site, daemon: &Daemon) -> Vec<String> {
    site.write_config();
    signal(daemon)
}

fn signal(daemon: &Daemon) -> Vec<String> {
    let before = daemon.log().len();
    daemon.hang_up();
    eventually("the end of the reload", || {
        let new = daemon.log().split_off(before);
        new.iter().any(|line| line.contains("SIGHUP: done")).then_some(new)
    })
}

fn said(lines: &[String], words: &[&str]) -> bool {
    lines.iter().any(|line| words.iter().all(|word| line.contains(word)))
}

#[test]
fn limits_rules_and_times_change_at_once() {
    let mut site = Site::new();
    let daemon = site.start();
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("client").v5());
    assert_eq!(client.subscribe("a", 0), 0);
    assert_eq!(client.publish(&Publish::new("secret/x", "1").qos(1)), 0);
    site.drop_file("pump-1.0.0.bin", &image(1, 5_000));
    let mut running = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    let manifest = running.manifest();
    assert_eq!(manifest.chunk_size, 4096);

    site.set("limits.subscriptions", "1")
        .set("limits.connections_per_ip", "4")
        .set("auth.rules", "[\"deny any publish secret/#\"]")
        .set("fuota.chunk_size", "1000");
    let lines = reload(&site, &daemon);
    assert!(
        said(
            &lines,
            &[
                "read again and is in force",
                "auth.rules, fuota.chunk_size, limits.connections_per_ip, limits.subscriptions"
            ]
        ),
        "{lines:?}"
    );
    assert!(!said(&lines, &["need a restart"]), "{lines:?}");
    assert_eq!(client.subscribe("b", 0), 0x97, "one subscription is all");
    assert_eq!(client.subscribe("a", 1), 1, "and the one that is there may change");
    assert_eq!(client.publish(&Publish::new("secret/x", "1").qos(1)), 0x87);
    // What was offered goes on as it was offered, what is new is smaller.
    assert_eq!(running.download(manifest).1, image(1, 5_000));
    let mut new = Device::connect(daemon.mqtt(), &Connect::id("pump-2"));
    assert_eq!(new.manifest().chunk_size, 1000);
    let _fourth = Client::connect(daemon.mqtt(), &Connect::id("fourth"));
    assert_eq!(Client::open(daemon.mqtt(), Version::V5).expect_closed(), None, "one too many");

    // And back to the defaults, by taking the lines out.
    for key in ["limits.subscriptions", "limits.connections_per_ip", "auth.rules"] {
        site.unset(key);
    }
    reload(&site, &daemon);
    assert_eq!(client.subscribe("b", 0), 0);
    assert_eq!(client.publish(&Publish::new("secret/x", "1").qos(1)), 0);
    Client::connect(daemon.mqtt(), &Connect::id("fifth")).ping();
}

#[test]
fn who_hears_what_new_rules_refuse_is_disconnected() {
    let mut site = Site::new();
    let daemon = site.start();
    let lasting = Connect { clean: false, ..Connect::id("lasting") };
    let mut away = Client::connect(daemon.mqtt(), &lasting);
    assert_eq!(away.subscribe_all(&[("secret/#", 1), ("plant/#", 1)]), [1, 1]);
    let mut hears = Client::connect(daemon.mqtt(), &Connect::id("hears").v5());
    assert_eq!(hears.subscribe_all(&[("plant/#", 0), ("secret/#", 0)]), [0, 0]);
    let mut other = Client::connect(daemon.mqtt(), &Connect::id("other").v5());
    assert_eq!(other.subscribe("plant/#", 0), 0);

    site.set("auth.rules", "[\"deny any subscribe secret/#\"]");
    let lines = reload(&site, &daemon);
    assert!(said(&lines, &["disconnected=2"]), "{lines:?}");
    assert_eq!(hears.expect_closed(), Some(0x87), "not authorized");
    away.expect_closed();
    // The other one was not disturbed, and the session that lasts has lost one filter alone.
    let mut back = Client::connect(daemon.mqtt(), &lasting);
    other.publish(&Publish::new("secret/x", "no"));
    other.publish(&Publish::new("plant/x", "yes"));
    for client in [&mut other, &mut back] {
        assert_eq!(client.next_publish().topic, "plant/x");
    }
}

#[test]
fn a_connection_keeps_what_its_connack_said() {
    let mut site = Site::new();
    let daemon = site.start();
    let mut old = Client::connect(daemon.mqtt(), &Connect::id("old").v5());
    site.set("limits.packet_bytes", "2000");
    reload(&site, &daemon);
    let large = Publish::new("t", vec![b'x'; 10_000]);
    old.publish(&large);
    old.ping();
    let mut new = Client::connect(daemon.mqtt(), &Connect::id("new").v5());
    new.publish(&large);
    assert_eq!(new.expect_closed(), Some(0x95), "packet too large");
    old.ping();
}

#[test]
fn a_file_that_was_too_large_is_taken_when_it_may_be() {
    let mut site = Site::new();
    site.set("store.max_size", "1000").set("store.poll_interval", "\"1h\"");
    let daemon = site.start();
    site.drop_file("pump-1.0.0.bin", &image(1, 5_000));
    let of = |daemon: &Daemon| daemon.admin().rows("firmware").pop();
    eventually("the refusal", || of(&daemon).filter(|file| file["state"] == "refused"));
    site.set("store.max_size", "\"1 MB\"");
    reload(&site, &daemon);
    eventually("the file", || of(&daemon).filter(|file| file["state"] == "accepted"));
}

#[test]
fn the_log_level_changes() {
    let mut site = Site::new();
    let daemon = site.start();
    let refused = |daemon: &Daemon| {
        // An empty client id needs a clean session: said at debug level.
        let connect = Connect { clean: false, ..Connect::default() };
        assert_eq!(Client::try_connect(daemon.mqtt(), &connect).err(), Some(Refused(2)));
    };
    refused(&daemon);
    site.set("log.level", "\"debug\"");
    reload(&site, &daemon);
    assert!(!daemon.log().iter().any(|line| line.contains("connection refused")));
    refused(&daemon);
    daemon.expect_log(&["DEBUG", "connection refused"]);
    assert!(!daemon.log().iter().any(|line| line.contains("rumqttd::")), "always off");
}

#[test]
fn with_a_mistake_in_it_nothing_changes() {
    let mut site = Site::new();
    let daemon = site.start();
    site.set("limits.subscriptions", "1").set("fuota.chunk_size", "\"many\"");
    site.set("mqtt.lisen", "\"127.0.0.1:0\"");
    let lines = reload(&site, &daemon);
    for words in [["ERROR", "fuota.chunk_size must be"], ["ERROR", "unknown key mqtt.lisen"]] {
        assert!(said(&lines, &words) && said(&lines, &["nothing changed"]), "{lines:?}");
    }
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("client"));
    assert_eq!(client.subscribe_all(&[("a", 0), ("b", 0)]), [0, 0]);
    // No file at all is a mistake as well, and so is what is no TOML.
    fs::write(site.config(), "limits = [[[").unwrap();
    let lines = signal(&daemon);
    assert!(said(&lines, &["ERROR", "broker.toml"]), "{lines:?}");
    fs::remove_file(site.config()).unwrap();
    let lines = signal(&daemon);
    assert!(said(&lines, &["ERROR", "no such configuration file"]), "{lines:?}");
    assert_eq!(client.subscribe("c", 0), 0);
    // Put right, all of it counts.
    site.unset("mqtt.lisen").set("fuota.chunk_size", "1000");
    let lines = reload(&site, &daemon);
    assert!(said(&lines, &["in force", "fuota.chunk_size, limits.subscriptions"]), "{lines:?}");
    assert_eq!(client.subscribe("d", 0), 0x80);
}

#[test]
fn what_needs_a_restart_is_named_each_time() {
    let mut site = Site::new();
    let daemon = site.start();
    let secret = "a-very-secret-admin-token";
    site.set("mqtt.listen", "\"127.0.0.1:1\"")
        .set("admin.token", &format!("\"{secret}\""))
        .set("limits.subscriptions", "1");
    for round in 0..2 {
        let lines = reload(&site, &daemon);
        assert!(
            said(&lines, &["WARN", "mqtt.listen, admin.token", "need a restart"]),
            "round {round}: {lines:?}"
        );
        assert_eq!(said(&lines, &["in force", "limits.subscriptions"]), round == 0, "{lines:?}");
    }
    // All is where it was, and the secret is in no line.
    Client::connect(daemon.mqtt(), &Connect::id("client")).ping();
    assert_eq!(daemon.admin().get("/readyz")["ready"], true);
    assert!(!daemon.log().join("\n").contains(secret));
    site.set("mqtt.listen", "\"127.0.0.1:0\"").unset("admin.token");
    let lines = reload(&site, &daemon);
    assert!(said(&lines, &["nothing changed that can change now"]), "{lines:?}");
    assert!(!said(&lines, &["need a restart"]), "{lines:?}");
}

#[test]
fn a_secret_file_with_another_secret_is_a_change() {
    let mut site = Site::new();
    let file = site.path().join("token");
    fs::write(&file, "a-first-admin-token-of-the-site").unwrap();
    site.set("admin.token_file", "\"token\"");
    let command = site.command(&["serve"]);
    let daemon = Daemon::start(command, site.path().join("data"));
    fs::write(&file, "another-admin-token-of-the-site").unwrap();
    let lines = signal(&daemon);
    assert!(said(&lines, &["admin.token", "need a restart"]), "{lines:?}");
    assert!(!daemon.log().join("\n").contains("-admin-token-of-the-site"));
}
