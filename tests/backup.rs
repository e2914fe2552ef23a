//! A backup that is made while the daemon runs, and a daemon that starts on it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use support::{Client, Connect, Daemon, Device, Publish, Site, eventually, image, sha256};

fn retained(daemon: &Daemon, topic: &str) -> String {
    let mut reader = Client::connect(daemon.mqtt(), &Connect::id("reader"));
    reader.subscribe(topic, 0);
    reader.next_publish().text()
}

fn add(daemon: &Daemon, listing: &str, body: &Value) -> Value {
    let answer = daemon.admin().request("POST", &format!("/api/v1/{listing}"), Some(body));
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()
}

#[test]
fn a_daemon_goes_on_from_a_backup() {
    let mut site = Site::new();
    site.set("fuota.chunk_size", "1000");
    let image = image(7, 20_000);
    site.drop_file("pump-1.4.2.bin", &image);
    let daemon = site.start();
    let added = add(&daemon, "devices", &json!({ "id": "pump-7" }));
    let token = added["token"].as_str().expect("a token").to_owned();
    add(&daemon, "users", &json!({ "name": "grafana", "role": "service" }));

    // A transfer half done, a session with a message that waits, a retained message.
    let mut device = Device::connect(daemon.mqtt(), &Connect::token(&token));
    device.manifest();
    let mut bytes: Vec<u8> = (0..10).flat_map(|index| device.fetch(index)).collect();
    let sleeper = Connect::id("sleeper").persistent();
    let mut client = Client::connect(daemon.mqtt(), &sleeper);
    client.subscribe("commands", 2);
    client.disconnect();
    let mut writer = Client::connect(daemon.mqtt(), &Connect::id("writer"));
    writer.publish(&Publish::new("commands", "before").qos(2));
    writer.publish(&Publish::new("state", "before").qos(1).retained());

    let path = site.path().join("backup");
    let url = format!("http://{}", daemon.admin_address());
    let run = |path: &std::path::Path| {
        let token = site.path().join("data/admin.token");
        let arguments = ["backup", path.to_str().unwrap(), "--url", &url, "--json", "--token-file"];
        site.run(&[&arguments[..], &[token.to_str().unwrap()]].concat())
    };
    let made = run(&path);
    assert!(made.status.success(), "{:?}", made.log);
    let said: Value = serde_json::from_str(&made.stdout.join("\n")).unwrap();
    assert_eq!((&said["images"], &said["image_bytes"]), (&json!(1), &json!(20_000)));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "tokens lie in it");
    let again = run(&path);
    assert!(!again.status.success() && again.said(&["exists already"]), "{:?}", again.log);
    // What is called like an unfinished one and is none is left alone.
    let (other, beside) = (site.path().join("other"), site.path().join("other.unfinished"));
    std::fs::create_dir(&beside).unwrap();
    std::fs::write(beside.join("notes.txt"), "mine").unwrap();
    let refused = run(&other);
    assert!(
        !refused.status.success() && refused.said(&["no backup has left"]),
        "{:?}",
        refused.log
    );
    assert!(beside.join("notes.txt").is_file());
    std::fs::write(beside.join("unfinished-backup"), "").unwrap();
    assert!(run(&other).status.success());
    let names = |at: &std::path::Path| {
        let mut names =
            Vec::from_iter(std::fs::read_dir(at).unwrap().map(|it| it.unwrap().file_name()));
        names.sort();
        names
    };
    assert!(!beside.exists());
    assert_eq!(names(&other), names(&path));
    let nowhere = run(&site.path().join("no/such/folder"));
    assert!(!nowhere.status.success() && nowhere.said(&["cannot be made"]), "{:?}", nowhere.log);

    // What happens now is not in it.
    writer.publish(&Publish::new("commands", "after").qos(2));
    writer.publish(&Publish::new("state", "after").qos(1).retained());
    let removed = daemon.admin().request("DELETE", "/api/v1/users/grafana", None);
    assert_eq!(removed.status, 204, "{}", removed.body);
    daemon.kill();

    // No firmware folder with anything in it: what was accepted is in the backup.
    std::fs::remove_file(site.firmware().join("pump-1.4.2.bin")).unwrap();
    site.set("data_dir", "\"backup\"").set("fuota.resume_grace", "\"30s\"");
    let daemon = Daemon::start(site.command(&["serve"]), path);
    assert_eq!(retained(&daemon, "state"), "before");
    let (mut client, present) = Client::connect_session(daemon.mqtt(), &sleeper);
    assert!(present);
    assert_eq!(client.next_publish().text(), "before");
    client.expect_silence();
    let users = daemon.admin().get("/api/v1/users").to_string();
    assert!(users.contains("grafana"), "{users}");
    let mut device = Device::connect(daemon.mqtt(), &Connect::token(&token));
    for index in 10..20 {
        bytes.extend(device.fetch(index));
    }
    assert_eq!(sha256(&bytes), sha256(&image));
    eventually("the download is over", || {
        let device = daemon.admin().get("/api/v1/devices/pump-7");
        (device["state"] == "downloaded").then_some(())
    });
}
