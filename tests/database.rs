//! The fleet's database on bad days: damaged at the start, not writable while running.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{fs, path::PathBuf, process::Command};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use support::{Connect, Daemon, Device, Site, eventually, image};

fn database(site: &Site) -> PathBuf {
    site.path().join("data/fuota.db")
}

/// A site with a registered device and a file, stopped in order: all is in the one file.
fn stopped() -> (Site, Vec<u8>) {
    let site = Site::new();
    site.drop_file("pump-1.0.0.bin", &image(1, 50_000));
    let daemon = site.start();
    let added = daemon.admin().request("POST", "/api/v1/devices", Some(&json!({"id": "pump-7"})));
    assert_eq!(added.status, 201, "{}", added.body);
    eventually("the file", || daemon.admin().rows("firmware").pop());
    assert_eq!(daemon.stop().status.code(), Some(0));
    let bytes = fs::read(database(&site)).unwrap();
    assert!(bytes.len() > 8 * 4096, "{} bytes", bytes.len());
    (site, bytes)
}

/// The start fails with one line on this file, and the file stays as it is.
fn refuses(site: &Site, damaged: &[u8], words: &[&str]) {
    fs::write(database(site), damaged).unwrap();
    let ended = site.run(&["serve"]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log.join("\n"));
    let file = database(site).display().to_string();
    let lines: Vec<&String> =
        ended.log.iter().filter(|line| line.starts_with("fuotad: ")).collect();
    assert_eq!(lines.len(), 1, "{}", ended.log.join("\n"));
    assert!(lines[0].contains(&file), "names the file: {}", lines[0]);
    for word in words {
        assert!(lines[0].contains(word), "{word}: {}", lines[0]);
    }
    assert!(!ended.said(&["panicked"]), "{}", ended.log.join("\n"));
    assert!(fs::read(database(site)).unwrap() == damaged, "it was touched");
}

#[test]
fn a_damaged_database_is_refused_and_left_alone() {
    let (site, whole) = stopped();
    let todo = ["is damaged", "backup", "move it away", "accounts"];

    let mut header = whole.clone();
    header[..100].fill(b'x');
    refuses(&site, &header, &todo);
    let mut middle = whole.clone();
    middle[2 * 4096..5 * 4096].fill(0xa5);
    refuses(&site, &middle, &todo);
    refuses(&site, &whole[..whole.len() / 2], &todo);
    refuses(&site, &whole[..50], &todo);
    refuses(&site, b"", &["is damaged (it is empty)", "backup"]);
    // Bytes 60 to 63 are the number of the schema.
    let mut newer = whole.clone();
    newer[60..64].copy_from_slice(&99u32.to_be_bytes());
    refuses(&site, &newer, &["schema version 99", "newer fuotad"]);

    // The backup in its place, and all is there again.
    fs::write(database(&site), &whole).unwrap();
    let daemon = site.start();
    assert_eq!(daemon.admin().get("/api/v1/devices/pump-7")["registered"], true);
    daemon.stop();
    // Moved away, it begins anew.
    fs::remove_file(database(&site)).unwrap();
    let daemon = site.start();
    assert_eq!(daemon.admin().request("GET", "/api/v1/devices/pump-7", None).status, 404);
}

/// The size that the daemon may write a file to: 0 is a disk that takes nothing.
fn may_write(daemon: &Daemon, bytes: Option<u64>) {
    let pid = Pid::from_raw(daemon.pid() as i32);
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

/// Starts a daemon for which a write beyond the limit is to fail, as on a full disk, and not to
/// end the process.
fn start_limitable(site: &Site) -> Daemon {
    let inner = site.command(&["serve"]);
    let mut command = Command::new("sh");
    command.arg("-c").arg("trap '' XFSZ; exec \"$0\" \"$@\"");
    command.arg(inner.get_program()).args(inner.get_args()).current_dir(site.path());
    Daemon::start(command, site.path().join("data"))
}

/// Waits until `/readyz` answers with this status.
fn until_ready(daemon: &Daemon, status: u16) {
    eventually("the database's health", || {
        let ready = daemon.admin().raw("GET", "/readyz", &["Host: localhost"], None);
        (ready.status == status).then_some(())
    });
}

#[test]
fn what_was_stopped_on_a_full_disk_stays_stopped_after_a_kill() {
    let site = Site::new();
    let daemon = start_limitable(&site);
    site.drop_file("pump-1.0.0.bin", &image(2, 20 * 4096));
    eventually("the deployment", || daemon.admin().rows("deployments").pop());
    may_write(&daemon, Some(0));
    for _ in 0..2 {
        for (method, path) in [("POST", "/api/v1/deployments/1/pause"), ("PUT", "/api/v1/freeze")] {
            let refused = daemon.admin().request(method, path, None);
            assert_eq!(refused.status, 503, "{path}: {}", refused.body);
        }
        until_ready(&daemon, 503);
    }
    // It is there again, and nobody says anything once more.
    may_write(&daemon, None);
    until_ready(&daemon, 200);
    daemon.kill();
    let daemon = site.start();
    assert_eq!(daemon.admin().get("/api/v1/deployments/1")["state"], "paused");
    assert_eq!(daemon.admin().get("/api/v1/freeze")["frozen"], true);
}

#[test]
fn blocks_go_on_while_the_database_cannot_be_written() {
    let site = Site::new();
    let daemon = start_limitable(&site);
    let firmware = image(2, 20 * 4096);
    site.drop_file("pump-1.0.0.bin", &firmware);
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    let manifest = device.manifest();
    let mut got = device.fetch(0);

    may_write(&daemon, Some(0));
    got.extend(device.fetch(1));
    // The progress cannot be written, and that is said, in one line for all of it.
    let database = eventually("the failure", || {
        let ready = daemon.admin().raw("GET", "/readyz", &["Host: localhost"], None);
        let ready_checks = ready.json();
        let mut checks = ready_checks["checks"].as_array().unwrap().iter();
        let check = checks.find(|check| check["name"] == "database").unwrap();
        (check["ok"] == false).then(|| (ready.status, check["reason"].as_str().unwrap().to_owned()))
    });
    assert_eq!(database.0, 503);
    assert!(database.1.contains("fuota.db cannot be written"), "{}", database.1);
    daemon.expect_log(&["the database was not written"]);

    // What was offered goes on.
    for index in 2..manifest.chunks {
        got.extend(device.fetch(index));
    }
    assert!(got == firmware);
    // What would have to be written down waits.
    let mut late = Device::connect(daemon.mqtt(), &Connect::id("pump-2"));
    late.request(0);
    assert!(late.error().contains("could not write"), "no offer without its pin");
    let refused = daemon.admin().request("POST", "/api/v1/devices", Some(&json!({"id": "pump-9"})));
    assert_eq!(refused.status, 503, "{}", refused.body);

    may_write(&daemon, None);
    late.update();
    eventually("the recovery", || {
        let ready = daemon.admin().raw("GET", "/readyz", &["Host: localhost"], None);
        (ready.status == 200).then_some(())
    });
    daemon.expect_log(&["the database is written again"]);
    let said = daemon.log();
    let said = said.iter().filter(|line| line.contains("the database was not written")).count();
    assert_eq!(said, 1, "{}", daemon.log().join("\n"));
    // And nothing of what happened meanwhile is lost.
    let daemon = {
        drop((device, late));
        assert_eq!(daemon.stop().status.code(), Some(0));
        site.start()
    };
    for id in ["pump-1", "pump-2"] {
        let devices = daemon.admin().rows("devices");
        let row = devices.iter().find(|row| row["client_id"] == id).unwrap();
        assert_eq!(row["progress"]["chunks_sent"], 20, "{row}");
    }
}

/// Somebody may mean it; who does not must not learn it from a set point that is missing.
#[test]
fn a_log_of_the_broker_that_is_gone_is_reported() {
    let site = Site::new();
    let said = ["WARN", "broker's log in", "is missing", "backup"];
    for damage in [false, true] {
        if damage {
            fs::remove_dir_all(site.path().join("data/broker")).unwrap();
        }
        let daemon = site.start();
        if damage {
            daemon.expect_log(&said);
        }
        let ended = daemon.stop();
        assert_eq!((ended.status.code(), ended.said(&said)), (Some(0), damage));
    }
}
