//! A backup that is made while the daemon runs, and a daemon that starts on it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};
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

/// Somebody who does one thing after the other, each answered before the next, in turns where the
/// database has it and where the broker's log does.
#[derive(Default)]
struct Coupled {
    stop: AtomicBool,
    rounds: AtomicU64,
    /// Of the devices that it added.
    tokens: Mutex<BTreeMap<u64, String>>,
}

impl Coupled {
    fn log_in(&self, round: u64) -> Connect {
        let token = self.tokens.lock().unwrap()[&round].clone();
        Connect { client_id: format!("temp-{round}"), ..Connect::token(&token) }.persistent()
    }

    fn run(&self, daemon: &Daemon) {
        let admin = daemon.admin();
        let mut writer = Client::connect(daemon.mqtt(), &Connect::id("coupled"));
        for round in 1.. {
            let body = json!({ "labels": { "round": round.to_string() } });
            let labelled = admin.request("PATCH", "/api/v1/devices/pump-1", Some(&body));
            assert_eq!(labelled.status, 200, "{}", labelled.body);
            writer.publish(&Publish::new("round", round.to_string()).qos(1).retained());
            let token = add(daemon, "devices", &json!({ "id": format!("temp-{round}") }));
            let token = token["token"].as_str().unwrap().to_owned();
            self.tokens.lock().unwrap().insert(round, token);
            let mut device = Client::connect(daemon.mqtt(), &self.log_in(round));
            device.subscribe(&format!("orders/{round}"), 1);
            device.disconnect();
            writer.publish(&Publish::new(&format!("orders/{round}"), round.to_string()).qos(1));
            if round > 1 {
                let path = format!("/api/v1/devices/temp-{}", round - 1);
                let removed = admin.request("DELETE", &path, None);
                assert_eq!(removed.status, 204, "{}", removed.body);
            }
            self.rounds.store(round, Ordering::Relaxed);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// What both tell is one moment of that.
    fn check(&self, daemon: &Daemon) {
        let named = |listing: &str| -> Vec<u64> {
            let rows = daemon.admin().rows(listing);
            let ids = rows.iter().filter_map(|row| row["id"].as_str()?.strip_prefix("temp-"));
            ids.map(|round| round.parse().unwrap()).collect()
        };
        let pump = daemon.admin().get("/api/v1/devices/pump-1");
        let round: u64 = pump["labels"]["round"].as_str().unwrap().parse().unwrap();
        let published: u64 = retained(daemon, "round").parse().unwrap();
        assert!(published == round || published + 1 == round, "{published} of {round}");
        let (mut devices, sessions) = (named("devices"), named("clients"));
        devices.sort_unstable();
        let all = format!("round {round}, {published}: devices {devices:?}, sessions {sessions:?}");
        assert!(sessions.iter().all(|it| devices.contains(it)), "one that was removed: {all}");
        let last = round - 1;
        match *devices {
            [only] if only == last => {}
            [one, two] if published == round && (one, two) == (last, round) => {}
            [only] if published == round && only == round => {}
            _ => panic!("{all}"),
        }
        // Before another one was added, or removed, this one had a session and a message.
        let one = devices[0];
        let (mut device, present) = Client::connect_session(daemon.mqtt(), &self.log_in(one));
        assert!(present, "{one}: {all}");
        assert_eq!(device.next_publish().text(), one.to_string(), "{all}");
        device.expect_silence();
    }
}

/// Also where an assertion ends the test: the others would go on.
struct Stop<'a>(&'a Coupled);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn log_and_database_tell_of_one_moment_whenever_it_is_made() {
    const BACKUPS: usize = 8;
    let mut site = Site::new();
    let daemon = site.start();
    add(&daemon, "devices", &json!({ "id": "pump-1" }));
    let coupled = Coupled::default();
    let path = |number: usize| site.path().join(format!("backup-{number}"));
    thread::scope(|scope| {
        let stop = Stop(&coupled);
        let writer = scope.spawn(|| coupled.run(&daemon));
        // The log has more to do than that.
        let noise = (0..2).map(|number| {
            let (daemon, coupled) = (&daemon, &coupled);
            scope.spawn(move || {
                let connect = Connect::id(&format!("noise-{number}"));
                let mut client = Client::connect(daemon.mqtt(), &connect);
                let large = Publish::new(&format!("noise/{number}"), vec![b'x'; 20_000]);
                while !coupled.stop.load(Ordering::Relaxed) {
                    client.publish(&large.clone().qos(1).retained());
                }
            })
        });
        let noise: Vec<_> = noise.collect();
        for number in 0..BACKUPS {
            let rounds = coupled.rounds.load(Ordering::Relaxed) + 2;
            eventually("the next round", || {
                assert!(!writer.is_finished());
                (coupled.rounds.load(Ordering::Relaxed) >= rounds).then_some(())
            });
            let body = json!({ "path": path(number) });
            let made = daemon.admin().request("POST", "/api/v1/backup", Some(&body));
            assert_eq!(made.status, 201, "{}", made.body);
        }
        drop(stop);
        writer.join().unwrap();
        noise.into_iter().for_each(|one| one.join().unwrap());
    });
    daemon.kill();
    let paths: Vec<_> = (0..BACKUPS).map(path).collect();
    for path in paths {
        site.set("data_dir", &format!("{:?}", path.file_name().unwrap()));
        let daemon = Daemon::start(site.command(&["serve"]), path);
        coupled.check(&daemon);
        daemon.kill();
    }
}
