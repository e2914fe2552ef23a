//! Starting, stopping and refusing to start.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use rustix::process::Signal;
use std::{fs, net::TcpListener};

use serde_json::Value;
use support::{Client, Connect, Daemon, Publish, Site, daemon::run_to_end};

/// Starts a daemon that must refuse: a non-zero exit, and one line with these words.
fn refuses(site: &Site, words: &[&str]) -> String {
    let ended = site.run(&["serve"]);
    assert!(!ended.status.success(), "it must not start:\n{}", ended.log.join("\n"));
    let lines: Vec<&String> =
        ended.log.iter().filter(|line| words.iter().all(|word| line.contains(word))).collect();
    assert_eq!(lines.len(), 1, "one clear line with {words:?} in:\n{}", ended.log.join("\n"));
    assert!(!ended.log.iter().any(|line| line.contains("panicked")), "{}", ended.log.join("\n"));
    lines[0].clone()
}

#[test]
fn the_start_says_what_listens_where_and_what_is_watched() {
    let site = Site::new();
    let daemon = site.start();
    daemon.expect_log(&["mqtt listening on", &daemon.mqtt().to_string()]);
    daemon.expect_log(&["admin listening on", &format!("http://{}", daemon.admin_address())]);
    daemon.expect_log(&["watching", "firmware"]);
    let ended = daemon.stop();
    assert_eq!(
        ended.stdout.last().map(String::as_str),
        Some("ready"),
        "the last word of the start"
    );
}

#[test]
fn signals_end_it_in_order() {
    for interrupt in [false, true] {
        let site = Site::new();
        let daemon = site.start();
        let client = Client::connect(daemon.mqtt(), &Connect::id("client").v5());
        let ended = if interrupt { daemon.interrupt() } else { daemon.stop() };
        assert_eq!(ended.status.code(), Some(0), "{}", ended.log.join("\n"));
        assert_eq!(client.expect_closed(), Some(0x8B), "server shutting down");
        // And the lock of `data_dir` is free again.
        site.start().stop();
    }
}

/// Whoever is in a hurry loses nothing that was acknowledged.
#[test]
fn a_second_signal_ends_it_at_once() {
    let site = Site::new();
    let daemon = site.start();
    // Somebody to say goodbye to.
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("client"));
    client.publish(&Publish::new("t", "kept").qos(1).retained());
    daemon.send(Signal::TERM);
    daemon.send(Signal::INT);
    let ended = daemon.ended();
    assert!([Some(130), Some(143)].contains(&ended.status.code()), "{}", ended.log.join("\n"));
    assert!(!ended.said(&["stopped"]), "{}", ended.log.join("\n"));
    let daemon = site.start();
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("client"));
    client.subscribe("t", 0);
    assert_eq!(client.next_publish().text(), "kept");
}

#[test]
fn it_is_not_ready_while_it_stops() {
    let site = Site::new();
    let daemon = site.start();
    let ready = |daemon: &Daemon| daemon.admin().raw("GET", "/readyz", &["Host: localhost"], None);
    assert_eq!(ready(&daemon).status, 200);
    // One that reads nothing takes a second to say goodbye to. It is more than any buffer holds.
    let mut stuck = Client::connect(daemon.mqtt(), &Connect::id("stuck"));
    stuck.subscribe("t", 0);
    let mut publisher = Client::connect(daemon.mqtt(), &Connect::id("publisher"));
    for _ in 0..200 {
        publisher.publish(&Publish::new("t", vec![b'x'; 100_000]));
    }
    publisher.ping();
    daemon.begin_stop();
    daemon.expect_log(&["stopping"]);
    let answer = support::eventually("not ready", || {
        let answer = ready(&daemon);
        (answer.status == 503).then_some(answer)
    });
    assert!(answer.body.contains("the broker stops"), "{}", answer.body);
    assert_eq!(daemon.ended().status.code(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["mqtt.listen", "admin.listen"] {
        let mut site = Site::new();
        site.set(key, &format!("\"{address}\""));
        let line = refuses(&site, &[&address]);
        assert!(line.contains(key), "names the key to change: {line}");
    }
}

#[test]
fn what_is_no_directory_is_one_clear_line() {
    let mut site = Site::new();
    fs::write(site.path().join("a-file"), "").unwrap();
    site.set("store.url", "\"file:a-file\"");
    refuses(&site, &["a-file"]);

    let mut site = Site::new();
    fs::write(site.path().join("a-file"), "").unwrap();
    site.set("data_dir", "\"a-file\"");
    refuses(&site, &["a-file"]);
}

#[test]
fn a_bad_value_names_the_key() {
    for (key, value) in [
        ("fuota.chunk_size", "\"many\""),
        ("fuota.chunk_size", "0"),
        ("fuota.chunk_size", "-1"),
        ("mqtt.listen", "\"nowhere\""),
        ("store.url", "\"ftp://example.com\""),
        ("store.settle", "\"soon\""),
        ("log.format", "\"xml\""),
        ("auth.mode", "\"closed\""),
        ("fuota.drop_rollout", "\"some\""),
        ("http.listen", "\"somewhere\""),
        ("mqtt.tls.listen", "\"nowhere\""),
    ] {
        let mut site = Site::new();
        site.set(key, value);
        refuses(&site, &[key]);
    }
}

#[test]
fn an_unknown_key_is_named() {
    let mut site = Site::new();
    site.set("mqtt.lisen", "\"127.0.0.1:0\"");
    let line = refuses(&site, &["mqtt.lisen"]);
    assert!(line.contains("mqtt.listen"), "and the right one is suggested: {line}");

    let site = Site::new();
    let mut command = site.command(&["serve"]);
    command.env("FUOTAD__STORE__COLOUR", "red");
    let ended = run_to_end(command);
    assert!(
        !ended.status.success()
            && ended.log.iter().any(|line| line.to_lowercase().contains("colour"))
    );
}

#[test]
fn the_environment_overrides_the_file() {
    let mut site = Site::new();
    site.set("fuota.chunk_size", "\"many\"");
    let mut command = site.command(&["serve"]);
    command.env("FUOTAD__FUOTA__CHUNK_SIZE", "1000");
    let daemon = support::Daemon::start(command, site.path().join("data"));
    site.drop_file("pump-1.0.0.bin", &support::image(1, 3_000));
    let mut device = support::Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    assert_eq!(device.manifest().chunk_size, 1000);
}

#[test]
fn the_network_needs_a_yes() {
    let mut site = Site::new();
    site.set("mqtt.listen", "\"0.0.0.0:0\"");
    refuses(&site, &["mqtt.listen", "auth.allow_open_network"]);
    let mut site = Site::new();
    site.set("admin.listen", "\"0.0.0.0:0\"");
    refuses(&site, &["admin.listen", "admin.allow_plain_network"]);
}

#[test]
fn a_missing_file_that_was_named_is_an_error() {
    let site = Site::new();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fuotad"));
    command.args(["serve", "--config", "nowhere.toml"]).current_dir(site.path());
    let ended = run_to_end(command);
    assert!(!ended.status.success() && ended.said(&["nowhere.toml"]), "{}", ended.log.join("\n"));
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused() {
    let mut site = Site::new();
    let daemon = site.start();
    // Also by another name.
    std::os::unix::fs::symlink("data", site.path().join("link")).unwrap();
    for name in ["data", "link", "link/../data"] {
        site.set("data_dir", &format!("{name:?}"));
        let line = refuses(&site, &["data_dir", "in use"]);
        assert!(line.contains(&format!("process {}", daemon.pid())), "names the other: {line}");
    }
    site.set("data_dir", "\"data\"");
    // The first one is unharmed.
    Client::connect(daemon.mqtt(), &Connect::id("client")).ping();
    // A daemon that was killed leaves no lock behind.
    daemon.kill();
    site.start().stop();
}

#[test]
fn json_logs_are_json_on_every_line() {
    let mut site = Site::new();
    site.set("log.format", "\"json\"").set("log.level", "\"debug\"");
    let daemon = site.start();
    site.drop_file("pump-1.0.0.bin", &support::image(2, 5_000));
    let mut device = support::Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    device.expect_update(&support::image(2, 5_000));
    let ended = daemon.stop();
    assert!(ended.stderr.len() > 3, "{:?}", ended.stderr);
    for line in &ended.stderr {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line.is_object() && line.get("level").is_some(), "{line}");
    }
}

#[test]
fn the_router_never_writes_a_line() {
    // Its spans cost more than its work and hold client topics.
    let mut site = Site::new();
    site.set("log.level", "\"info,rumqttd=trace\"");
    refuses(&site, &["log.level", "rumqttd"]);
    for level in ["trace", "debug,broker=trace"] {
        let mut site = Site::new();
        site.set("log.level", &format!("\"{level}\""));
        let mut command = site.command(&["serve"]);
        command.env("RUST_LOG", "rumqttd=trace");
        let daemon = support::Daemon::start(command, site.path().join("data"));
        let mut client = Client::connect(daemon.mqtt(), &Connect::id("client"));
        client.subscribe("secret/#", 0);
        for _ in 0..50 {
            client.publish(&Publish::new("secret/topic", "x"));
            client.next_publish();
        }
        let ended = daemon.stop();
        assert!(
            !ended.log.iter().any(|line| line.contains("rumqttd::") || line.contains("rumqttd:")),
            "{level}"
        );
    }
}

#[test]
fn secrets_are_never_printed() {
    let mut site = Site::new();
    let secret = "a-very-secret-admin-token";
    site.set("admin.token", &format!("\"{secret}\"")).set("log.level", "\"trace\"");
    let checked = site.run(&["check-config"]);
    assert_eq!(checked.status.code(), Some(0), "{}", checked.log.join("\n"));
    assert!(!checked.log.join("\n").contains(secret));
    let daemon = site.start();
    let mut client = Client::connect(daemon.mqtt(), &Connect::token("a-very-secret-device-token"));
    client.ping();
    let ended = daemon.stop();
    let log = ended.log.join("\n");
    assert!(!log.contains(secret) && !log.contains("a-very-secret-device-token"));
}
