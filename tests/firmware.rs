//! What is in a dropped file decides what becomes of it: formats, headers, signatures, the status
//! beside it, and how long its copy is kept.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use serde_json::{Value, json};
use support::{Connect, Daemon, Device, Site, daemon::Ended, eventually, image, sha256};

/// A file that the format's own tool made.
fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../store/tests/fixtures/formats");
    fs::read(PathBuf::from(folder).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The row of the catalog for this path, as soon as there is one in this state.
fn row(daemon: &Daemon, path: &str, state: &str) -> Value {
    eventually(&format!("{path} is {state}"), || {
        let rows = daemon.admin().rows("firmware");
        rows.into_iter().find(|row| row["path"] == path && row["state"] == state)
    })
}

fn device(daemon: &Daemon, id: &str) -> Device {
    Device::connect(daemon.mqtt(), &Connect::id(id))
}

/// The status beside a file, as soon as it is in this state.
fn status(site: &Site, path: &str, state: &str) -> Value {
    eventually(&format!("{path}.status.json says {state}"), || {
        let text = fs::read(site.firmware().join(format!("{path}.status.json"))).ok()?;
        let status: Value = serde_json::from_slice(&text).expect("it is never half written");
        (status["state"] == state).then_some(status)
    })
}

/// Runs a command of the site's binary against this daemon.
fn cli(site: &Site, daemon: &Daemon, arguments: &[&str]) -> Ended {
    let url = format!("http://{}", daemon.admin_address());
    site.run(&[arguments, &["--url", &url]].concat())
}

fn said(ended: &Ended) -> String {
    [&ended.stdout[..], &ended.log].concat().join("\n")
}

#[test]
fn the_image_itself_tells_title_version_and_chip() {
    let site = Site::new();
    let daemon = site.start();
    let mut right = device(&daemon, "right");
    let mut wrong = device(&daemon, "wrong");
    for (id, chip) in [("right", "ESP32-S3"), ("wrong", "esp32")] {
        let path = format!("/api/v1/devices/{id}");
        let answer = eventually("the device is known", || {
            let patch = json!({"labels": {"chip": chip}});
            let answer = daemon.admin().request("PATCH", &path, Some(&patch));
            (answer.status == 200).then_some(answer)
        });
        assert_eq!(answer.json()["labels"]["chip"], chip);
    }
    let bytes = fixture("esp32s3.bin");
    site.drop_file("pump-1.0.0.bin", &bytes);
    assert_eq!(right.expect_update(&bytes).version, "v2.0.0-rc.1");
    wrong.client.expect_silence();
    let why = said(&cli(&site, &daemon, &["device", "why", "wrong"]));
    assert!(why.contains("for the chip esp32s3, this device has an esp32"), "{why}");

    let row = row(&daemon, "pump-1.0.0.bin", "accepted");
    assert_eq!(row["title"], json!({"value": "valve", "from": "image header"}));
    assert_eq!(row["format"], "ESP-IDF");
    assert_eq!((&row["chip"], &row["security_counter"]), (&json!("esp32s3"), &json!(3)));
    // The label says another version. It was said before anybody was offered it.
    let warning = row["warnings"][0].as_str().unwrap();
    assert!(warning.contains("file name says version 1.0.0"), "{warning}");
    let log = daemon.log();
    let line = |words: &str| log.iter().position(|line| line.contains(words)).unwrap();
    assert!(line("firmware warning") < line("firmware accepted"));
    let shown = said(&cli(&site, &daemon, &["firmware", "show", "pump-1.0.0.bin"]));
    for words in ["v2.0.0-rc.1 (image header)", "esp32s3", "warning", "unsigned"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

#[test]
fn records_reach_the_device_as_the_binary_in_them_across_a_restart() {
    let site = Site::new();
    let daemon = site.start();
    site.drop_file("boiler-1.0.0.hex", &fixture("gap.hex"));
    let binary = fixture("gap.bin");
    device(&daemon, "boiler-1").expect_update(&binary);
    let row_before = row(&daemon, "boiler-1.0.0.hex", "accepted");
    assert_eq!(row_before["format"], "Intel HEX");
    assert_eq!(row_before["digest"], sha256(&binary));
    assert_eq!(row_before["dropped_digest"], sha256(&fixture("gap.hex")));
    daemon.kill();
    let daemon = site.start();
    assert_eq!(row(&daemon, "boiler-1.0.0.hex", "accepted"), row_before);
    device(&daemon, "boiler-1").client.expect_silence();
    device(&daemon, "boiler-2").expect_update(&binary);
}

#[test]
fn the_outcome_stands_beside_the_file_and_goes_with_it() {
    let site = Site::new();
    let daemon = site.start();
    let bytes = image(1, 9_000);
    site.drop_file("models/px/pump-1.4.2.bin", &bytes);
    let accepted = status(&site, "models/px/pump-1.4.2.bin", "accepted");
    assert_eq!(accepted["title"], json!({"value": "pump", "from": "file name"}));
    assert_eq!(accepted["version"], json!({"value": "1.4.2", "from": "file name"}));
    assert_eq!(accepted["model"], json!({"value": "px", "from": "folder"}));
    assert_eq!(
        (&accepted["target"], &accepted["digest"]),
        (&json!("model:px"), &json!(sha256(&bytes)))
    );
    site.drop_file("application.bin", &fixture("application.elf"));
    let refused = status(&site, "application.bin", "refused");
    assert!(refused["reason"].as_str().unwrap().contains("not the .elf"), "{refused}");
    // Overwritten by what is right, it says so; the status is no firmware and no news.
    site.drop_file("application.bin", &image(2, 5_000));
    status(&site, "application.bin", "accepted");
    assert_eq!(daemon.admin().rows("firmware").len(), 2);

    // One that cannot be written keeps nothing from happening.
    let folder = site.firmware().join("groups/g");
    site.drop_file("groups/g/pump-1.5.0.bin", &image(3, 5_000));
    status(&site, "groups/g/pump-1.5.0.bin", "accepted");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    fs::write(site.firmware().join("groups/g/pump-1.5.0.bin"), image(4, 5_000)).unwrap();
    eventually("the new bytes are taken", || {
        let row = row(&daemon, "groups/g/pump-1.5.0.bin", "accepted");
        (row["digest"] == sha256(&image(4, 5_000))).then_some(())
    });
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();

    for stopped in [false, true] {
        let path = if stopped { "models/px/pump-1.4.2.bin" } else { "application.bin" };
        site.remove_file(path);
        if stopped {
            break;
        }
        let beside = site.firmware().join("application.bin.status.json");
        eventually("the status is gone", || (!beside.exists()).then_some(()));
    }
    // A file that went while the daemon was away.
    daemon.stop();
    let _daemon = site.start();
    let beside = site.firmware().join("models/px/pump-1.4.2.bin.status.json");
    eventually("its status goes too", || (!beside.exists()).then_some(()));
}

#[test]
fn only_what_a_trusted_key_signed_is_taken_where_that_is_required() {
    let mut site = Site::new();
    let keys = site.run(&["firmware", "keygen", "site", "--no-password"]);
    assert!(keys.status.success(), "{}", said(&keys));
    let mode = fs::metadata(site.path().join("site.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    site.set("store.trusted_keys", "[\"site.pub\"]").set("store.require_signature", "true");
    let daemon = site.start();
    let mut device = device(&daemon, "pump-1");
    let bytes = image(5, 20_000);
    site.drop_file("nightly.bin", &bytes);
    let refused = row(&daemon, "nightly.bin", "refused");
    assert!(refused["reason"].as_str().unwrap().contains("not signed"), "{refused}");

    let sign = ["firmware", "sign", "firmware/nightly.bin", "--key", "site.key"];
    let said_by_operator = ["--title", "heat pump", "--version", "3.1.0"];
    let signed = site.run(&[&sign[..], &said_by_operator].concat());
    assert!(signed.status.success(), "{}", said(&signed));
    assert_eq!(device.expect_update(&bytes).version, "3.1.0");
    let accepted = row(&daemon, "nightly.bin", "accepted");
    assert_eq!(accepted["title"], json!({"value": "heat pump", "from": "trusted comment"}));
    assert_eq!(accepted["signature"]["state"], "trusted");
    let verified = site.run(&["firmware", "verify", "firmware/nightly.bin"]);
    assert!(
        verified.status.success() && said(&verified).contains("heat pump"),
        "{}",
        said(&verified)
    );

    // Uploads too, with the signature that stands beside the file.
    let (plain, file) = (image(6, 5_000), site.path().join("upload-1.0.0.bin"));
    fs::write(&file, &plain).unwrap();
    let name = file.to_str().unwrap();
    let refused = cli(&site, &daemon, &["firmware", "upload", name]);
    assert!(
        !refused.status.success() && said(&refused).contains("not signed"),
        "{}",
        said(&refused)
    );
    assert!(site.run(&["firmware", "sign", name, "--key", "site.key"]).status.success());
    let taken = cli(&site, &daemon, &["firmware", "upload", name]);
    assert!(taken.status.success(), "{}", said(&taken));

    // One changed byte.
    let mut changed = bytes.clone();
    changed[7] ^= 1;
    site.drop_file("nightly.bin", &changed);
    let refused = row(&daemon, "nightly.bin", "refused");
    assert!(refused["reason"].as_str().unwrap().contains("does not match"), "{refused}");
    let verified = site.run(&["firmware", "verify", "firmware/nightly.bin"]);
    assert!(!verified.status.success() && said(&verified).contains("does not match"));

    // A key that is trusted no more, in the same file: neither what is dropped nor what was uploaded
    // is given to anybody.
    let deployed = cli(
        &site,
        &daemon,
        &["deployment", "create", "uploads/upload-1.0.0.bin", "--device", "pump-2"],
    );
    assert!(deployed.status.success(), "{}", said(&deployed));
    let other = site.run(&["firmware", "keygen", "other", "--no-password"]);
    assert!(other.status.success());
    site.drop_file("nightly.bin", &bytes);
    row(&daemon, "nightly.bin", "accepted");
    fs::rename(site.path().join("site.pub"), site.path().join("kept.pub")).unwrap();
    fs::rename(site.path().join("other.pub"), site.path().join("site.pub")).unwrap();
    daemon.hang_up();
    let refused = row(&daemon, "nightly.bin", "refused");
    assert!(
        refused["reason"].as_str().unwrap().contains("none of store.trusted_keys"),
        "{refused}"
    );
    let held = row(&daemon, "uploads/upload-1.0.0.bin", "held");
    assert!(held["reason"].as_str().unwrap().contains("none of store.trusted_keys"), "{held}");
    let mut second = self::device(&daemon, "pump-2");
    second.request(0);
    let error = second.error();
    assert!(error.contains("none of store.trusted_keys"), "{error}");
    fs::rename(site.path().join("kept.pub"), site.path().join("site.pub")).unwrap();
    daemon.hang_up();
    assert_eq!(second.expect_update(&plain).version, "1.0.0");
}

#[test]
fn keys_with_a_password_need_it() {
    let site = Site::new();
    let write = |name: &str, text: &str| fs::write(site.path().join(name), text).unwrap();
    write("password", "correct horse\n");
    write("guess", "battery staple\n");
    write("pump.bin", "bytes");
    let made = site.run(&["firmware", "keygen", "site", "--password-file", "password"]);
    assert!(made.status.success(), "{}", said(&made));
    let again = site.run(&["firmware", "keygen", "site", "--no-password"]);
    assert!(!again.status.success() && said(&again).contains("there already"), "{}", said(&again));
    let sign = ["firmware", "sign", "pump.bin", "--key", "site.key", "--password-file"];
    let refused = site.run(&[&sign[..], &["guess"]].concat());
    assert!(!refused.status.success() && !site.path().join("pump.bin.minisig").exists());
    let signed = site.run(&[&sign[..], &["password"]].concat());
    assert!(signed.status.success(), "{}", said(&signed));
    let verify = ["firmware", "verify", "pump.bin", "--key", "site.pub"];
    assert!(site.run(&verify).status.success());
    write("pump.bin", "other");
    assert!(!site.run(&verify).status.success());
}

#[test]
fn copies_go_when_no_device_needs_them_and_the_way_back_stays() {
    let mut site = Site::new();
    let daemon = site.start();
    let mut device = device(&daemon, "pump-1");
    let objects = site.path().join("data/objects/sha256");
    let copy = |bytes: &[u8]| {
        let name = sha256(bytes);
        objects.join(&name[..2]).join(&name)
    };
    let images: Vec<_> = (0..3).map(|number| image(10 + number, 9_000)).collect();
    for (number, bytes) in images.iter().enumerate() {
        let version = format!("1.{number}.0");
        site.drop_file(
            "pump.bin.toml",
            format!("version = \"{version}\"\nname = \"pump\"").as_bytes(),
        );
        site.drop_file("pump.bin", bytes);
        device.expect_update(bytes);
        device.send(&json!({"variable": "firmware_status", "metadata": {"version": version}}));
        eventually("the device is updated", || {
            let view = daemon.admin().get("/api/v1/devices/pump-1");
            (view["state"] == "updated" && view["version"] == version).then_some(())
        });
    }
    assert!(images.iter().all(|bytes| copy(bytes).exists()), "all are kept for a while");
    daemon.stop();
    // Of an earlier run nothing is young.
    site.set("store.keep_unused", "\"0s\"");
    let copies = images.iter().map(|bytes| copy(bytes)).collect::<Vec<_>>();
    let daemon = site.start();
    eventually("the oldest copy is gone", || (!copies[0].exists()).then_some(()));
    assert!(copies[1].exists(), "what it ran before is its way back");
    assert!(copies[2].exists());
    Device::connect(daemon.mqtt(), &Connect::id("pump-2")).expect_update(&images[2]);
}

#[test]
fn a_full_disk_amid_a_copy_leaves_nothing_and_is_tried_again() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let site = Site::new();
    let mut command = std::process::Command::new("sh");
    let plain = site.command(&["serve"]);
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(plain.get_program());
    command.args(plain.get_args()).current_dir(site.path());
    let daemon = Daemon::start(command, site.path().join("data"));
    let pid = Pid::from_raw(daemon.pid().try_into().unwrap());
    let limit = |current| {
        prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    };
    // Room for the database, not for the copy.
    limit(Some(8 << 20));
    let large = image(20, 12 << 20);
    site.drop_file("large-1.0.0.bin", &large);
    let refused = row(&daemon, "large-1.0.0.bin", "refused");
    assert!(refused["reason"].as_str().unwrap().contains("data_dir"), "{refused}");
    let incoming = site.path().join("data/objects/incoming");
    assert_eq!(fs::read_dir(incoming).unwrap().count(), 0, "nothing is left of it");
    let small = image(21, 9_000);
    site.drop_file("devices/pump-1/small-1.0.0.bin", &small);
    device(&daemon, "pump-1").expect_update(&small);
    limit(None);
    row(&daemon, "large-1.0.0.bin", "accepted");
}
