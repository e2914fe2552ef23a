//! The disk is full. The operating system refuses to let the daemon's files grow, as it does
//! there, and later allows it again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use std::process::Command;
use support::{Client, Connect, Daemon, Device, Publish, Site, eventually, image, sha256};

/// The same command in a process that hears of the limit as an error, and not by a signal.
fn without_signal(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    shell.arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// How large files of the daemon may be from now on.
fn set_largest_file(daemon: &Daemon, current: Option<u64>) {
    let pid = Pid::from_raw(daemon.pid().try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
}

#[test]
fn a_full_disk_stops_what_is_to_be_kept_and_nothing_else() {
    let mut site = Site::new();
    site.set("fuota.chunk_size", "4096");
    let firmware = image(3, 100_000);
    site.drop_file("pump-1.4.2.bin", &firmware);
    let command = without_signal(&site.command(&["serve"]));
    let daemon = Daemon::start(command, site.path().join("data"));
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    let manifest = device.manifest();
    let mut bytes = device.fetch(0);

    let early_id = Connect::id("pump-3").persistent();
    Device::connect(daemon.mqtt(), &early_id).manifest();

    set_largest_file(&daemon, Some(1 << 20));
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("writer").v5());
    let large = Publish::new("state", vec![b'x'; 200_000]).qos(1).retained();
    let codes: Vec<u8> = (0..8).map(|_| client.publish(&large)).collect();
    assert_eq!((codes[0], codes[7]), (0, 0x97), "{codes:02x?}");
    let ready = daemon.admin().request("GET", "/readyz", None);
    assert_eq!(ready.status, 503);
    let said = ready.json().to_string();
    assert!(said.contains("the broker's log cannot be written"), "{said}");
    daemon.expect_log(&["log cannot be written", "refused until it can"]);

    // Messages that nobody keeps go on, and so do updates, also of a device that comes now.
    let mut reader = Client::connect(daemon.mqtt(), &Connect::id("reader"));
    assert_eq!(reader.subscribe("other", 1), 1);
    for qos in 0..=2 {
        assert_eq!(client.publish(&Publish::new("other", "goes on").qos(qos)), 0);
        assert_eq!(reader.next_publish().text(), "goes on");
    }
    for index in 1..manifest.chunks {
        bytes.extend(device.fetch(index));
    }
    assert_eq!(sha256(&bytes), sha256(&firmware));
    let mut late = Device::connect(daemon.mqtt(), &Connect::id("pump-2"));
    assert_eq!(late.manifest().chunks, manifest.chunks);
    late.fetch(0);
    // 3.1.1 has no code for it: nothing is acknowledged, and the connection ends.
    let mut old = Client::connect(daemon.mqtt(), &Connect::id("old"));
    old.send_publish(&large);
    old.expect_closed();

    // What a session that lasts would be promised is refused, and what it was promised goes on.
    let mut early = Device::connect(daemon.mqtt(), &early_id);
    assert_eq!(early.manifest().chunks, manifest.chunks);
    early.fetch(0);
    let new = Connect::id("pump-4").persistent();
    assert!(Client::try_connect(daemon.mqtt(), &new).is_err());

    set_largest_file(&daemon, None);
    eventually("the log can be written again", || {
        (daemon.admin().request("GET", "/readyz", None).status == 200).then_some(())
    });
    assert_eq!(client.publish(&Publish::new("state", "kept").qos(1).retained()), 0);
    daemon.kill();
    let daemon = site.start();
    let mut reader = Client::connect(daemon.mqtt(), &Connect::id("reader"));
    reader.subscribe("state", 0);
    assert_eq!(reader.next_publish().text(), "kept");
}

/// The removal of a device is in the database, and the end of its session cannot be written: what
/// waits for it must not come back for whoever gets its name.
#[test]
fn the_session_of_a_removed_device_does_not_come_back() {
    let site = Site::new();
    let command = without_signal(&site.command(&["serve"]));
    let daemon = Daemon::start(command, site.path().join("data"));
    let body = json!({ "id": "pump-7" });
    let add = |daemon: &Daemon| daemon.admin().request("POST", "/api/v1/devices", Some(&body));
    let log_in = |token: &Value| Connect {
        client_id: "pump-7".into(),
        ..Connect::token(token.as_str().unwrap())
    };
    let added = add(&daemon);
    assert_eq!(added.status, 201, "{}", added.body);
    let old = log_in(&added.json()["token"]).persistent();
    let mut device = Client::connect(daemon.mqtt(), &old);
    device.subscribe("orders", 1);
    device.disconnect();
    let mut writer = Client::connect(daemon.mqtt(), &Connect::id("writer").v5());
    assert_eq!(writer.publish(&Publish::new("orders", "for the old one").qos(1)), 0);

    set_largest_file(&daemon, Some(1 << 20));
    let large = Publish::new("state", vec![b'x'; 200_000]).qos(1).retained();
    assert!((0..8).any(|_| writer.publish(&large) == 0x97));
    let removed = daemon.admin().request("DELETE", "/api/v1/devices/pump-7", None);
    assert_eq!(removed.status, 204, "{}", removed.body);
    // Not before the end of the old one is written.
    let early = add(&daemon);
    assert_eq!(early.status, 503, "{}", early.body);
    assert!(early.body.contains("still to be ended"), "{}", early.body);
    daemon.kill();

    let daemon = site.start();
    let clients = daemon.admin().get("/api/v1/clients").to_string();
    assert!(!clients.contains("pump-7"), "{clients}");
    let added = add(&daemon);
    assert_eq!(added.status, 201, "{}", added.body);
    let new = log_in(&added.json()["token"]).persistent();
    let (mut device, present) = Client::connect_session(daemon.mqtt(), &new);
    assert!(!present);
    device.expect_silence();
    device.disconnect();
    // It was done with that, and once.
    daemon.kill();
    let daemon = site.start();
    assert!(Client::connect_session(daemon.mqtt(), &new).1);
}
