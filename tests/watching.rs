//! The watched directory: what is noticed, what is refused, and what is never taken for a
//! deletion. Rules 6 to 10.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    fs::{self, File},
    io::Write as _,
};

use serde_json::{Value, json};
use support::{Client, Connect, Daemon, Device, Publish, Site, TOPIC, eventually, image, sha256};

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

#[test]
fn files_that_settle_together_are_decided_together() {
    let site = Site::new();
    let daemon = site.start();
    let mut device = device(&daemon, "pump-1");
    // One rename puts both into the watched place at once, the older one first by name.
    let staged = site.path().join("both");
    fs::create_dir(&staged).unwrap();
    let (old, new) = (image(1, 9_000), image(2, 9_000));
    fs::write(staged.join("pump-1.9.0.bin"), &old).unwrap();
    fs::write(staged.join("pump-1.10.0.bin"), &new).unwrap();
    fs::rename(staged, site.firmware().join("all")).unwrap();
    assert_eq!(device.expect_update(&new).version, "1.10.0", "the higher version, and only it");
    row(&daemon, "all/pump-1.9.0.bin", "accepted");
    device.client.expect_silence();
}

#[test]
fn the_first_scan_is_one_decision() {
    let site = Site::new();
    for minor in 0..20 {
        site.drop_file(&format!("pump-1.{minor}.0.bin"), &image(minor, 5_000));
    }
    let daemon = site.start();
    let mut device = device(&daemon, "pump-1");
    assert_eq!(device.expect_update(&image(19, 5_000)).version, "1.19.0");
    device.client.expect_silence();
}

#[test]
fn a_folder_that_goes_away_and_comes_back_changes_nothing() {
    for mount_point_stays in [false, true] {
        let site = Site::new();
        let bytes = image(3, 20_000);
        site.drop_file("pump-1.0.0.bin", &bytes);
        site.drop_file("devices/late/image.bin", &image(4, 5_000));
        let daemon = site.start();
        let mut done = device(&daemon, "done");
        done.expect_update(&bytes);
        let mut busy = device(&daemon, "busy");
        busy.manifest();
        busy.fetch(0);

        let away = site.path().join("away");
        fs::rename(site.firmware(), &away).unwrap();
        if mount_point_stays {
            // As umount leaves it: an empty directory where the files were.
            fs::create_dir(site.firmware()).unwrap();
        }
        daemon.expect_log(&["store", "unavailable"]);
        eventually("not ready any more", || {
            (daemon.admin().request("GET", "/readyz", None).status == 503).then_some(())
        });
        row(&daemon, "pump-1.0.0.bin", "accepted");
        // Copies are our own, so a transfer goes on and a new device is served.
        for index in 1..5 {
            assert!(busy.fetch(index) == bytes[index * 4096..bytes.len().min((index + 1) * 4096)]);
        }
        device(&daemon, "new").expect_update(&bytes);

        if mount_point_stays {
            fs::remove_dir(site.firmware()).unwrap();
        }
        fs::rename(&away, site.firmware()).unwrap();
        eventually("ready again", || {
            (daemon.admin().request("GET", "/readyz", None).status == 200).then_some(())
        });
        row(&daemon, "pump-1.0.0.bin", "accepted");
        done.client.expect_silence();
        // What is dropped from now on is noticed as before.
        let newer = image(5, 9_000);
        site.drop_file("pump-1.1.0.bin", &newer);
        done.expect_update(&newer);
        assert!(
            !daemon
                .log()
                .iter()
                .any(|line| line.contains("removed") && line.contains("pump-1.0.0.bin"))
        );
    }
}

#[test]
fn a_start_without_the_folders_files_forgets_none() {
    let site = Site::new();
    let bytes = image(6, 9_000);
    site.drop_file("pump-1.0.0.bin", &bytes);
    site.start().stop();
    fs::rename(site.firmware(), site.path().join("away")).unwrap();
    fs::create_dir(site.firmware()).unwrap();
    let daemon = site.start();
    daemon.expect_log(&["store", "unavailable"]);
    row(&daemon, "pump-1.0.0.bin", "accepted");
}

#[test]
fn deleting_a_file_stops_new_offers_only() {
    let site = Site::new();
    let bytes = image(7, 9_000);
    site.drop_file("pump-1.0.0.bin", &bytes);
    site.drop_file("devices/nobody/stays.bin", &image(8, 10));
    let daemon = site.start();
    let mut running = device(&daemon, "running");
    let manifest = running.manifest();
    running.fetch(0);
    site.remove_file("pump-1.0.0.bin");
    eventually("the deletion is noticed", || {
        let rows = daemon.admin().rows("firmware");
        let row = rows.into_iter().find(|row| row["path"] == "pump-1.0.0.bin");
        row.is_none_or(|row| row["state"] != "accepted").then_some(())
    });
    let mut late = device(&daemon, "late");
    late.client.expect_silence();
    assert!(running.download(manifest).1 == bytes, "a running transfer finishes");
}

#[test]
fn a_slow_copy_is_offered_when_it_is_whole() {
    let site = Site::new();
    // There before the start: of a file in a folder that just appeared it is not known whether
    // somebody writes to it, until he does.
    fs::create_dir_all(site.firmware().join("devices/pump-1")).unwrap();
    fs::create_dir_all(site.firmware().join("devices/clock")).unwrap();
    let daemon = site.start();
    let mut device = device(&daemon, "pump-1");
    let mut clock = self::device(&daemon, "clock");
    let bytes = image(9, 60_000);
    let mut copy = File::create(site.firmware().join("devices/pump-1/image.bin")).unwrap();
    for (step, piece) in bytes.chunks(20_000).enumerate() {
        copy.write_all(piece).unwrap();
        copy.sync_all().unwrap();
        if step == 2 {
            break;
        }
        // Another file that is written and closed after this piece passes all the settling there
        // is, and reaches its device: the clock of this test.
        let other = image(100 + step as u64, 3_000);
        fs::write(site.firmware().join(format!("devices/clock/tick-1.{step}.0.bin")), &other)
            .unwrap();
        clock.expect_update(&other);
        device.client.expect_silence();
    }
    drop(copy);
    device.expect_update(&bytes);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_never_mixed() {
    // Written in place, again and again, without a rename: whatever is offered is one of the
    // versions, whole.
    let site = Site::new();
    let daemon = site.start();
    let mut device = device(&daemon, "pump-1");
    let versions: Vec<Vec<u8>> = (0..30).map(|seed| image(200 + seed, 300_000)).collect();
    for bytes in &versions {
        fs::write(site.firmware().join("pump.bin"), bytes).unwrap();
    }
    let last = sha256(versions.last().unwrap());
    loop {
        let (manifest, bytes) = device.update();
        assert_eq!(sha256(&bytes), manifest.sha256);
        assert!(versions.contains(&bytes), "a whole version");
        if manifest.sha256 == last {
            break;
        }
    }
}

#[test]
fn the_same_bytes_seen_again_do_nothing() {
    let site = Site::new();
    let bytes = image(10, 9_000);
    site.drop_file("pump-1.0.0.bin", &bytes);
    let daemon = site.start();
    let mut device = device(&daemon, "pump-1");
    device.expect_update(&bytes);
    site.drop_file("pump-1.0.0.bin", &bytes);
    site.drop_file("devices/clock/tick.bin", &image(11, 100));
    let mut clock = self::device(&daemon, "clock");
    assert!(matches!(clock.manifest().size, 100 | 9_000));
    row(&daemon, "devices/clock/tick.bin", "accepted");
    device.client.expect_silence();
}

#[test]
fn a_file_that_moves_under_a_stopped_rollout_waits_where_it_goes() {
    for (act, state, then) in [("pause", "paused", "resume"), ("cancel", "held", "approve")] {
        let site = Site::new();
        let bytes = image(30, 9_000);
        fs::create_dir_all(site.firmware().join("all")).unwrap();
        fs::create_dir_all(site.firmware().join("devices/pump-1")).unwrap();
        let daemon = site.start();
        site.drop_file("pump-1.0.0.bin", &bytes);
        row(&daemon, "pump-1.0.0.bin", "accepted");
        let acted = |id: &str, act: &str| {
            let path = format!("/api/v1/deployments/{id}/{act}");
            let answer = daemon.admin().request("POST", &path, None);
            assert_eq!(answer.status, 200, "{}", answer.body);
        };
        let deployment = |id: &str| {
            let rows = daemon.admin().rows("deployments");
            rows.into_iter().find(|row| row["id"] == id)
        };
        acted("1", act);
        // To everybody as before, and then to one device.
        let mut from = site.firmware().join("pump-1.0.0.bin");
        for (id, to) in [("2", "all/pump-1.0.0.bin"), ("3", "devices/pump-1/pump-1.0.0.bin")] {
            fs::rename(&from, site.firmware().join(to)).unwrap();
            from = site.firmware().join(to);
            let made = eventually("the deployment of its new place", || deployment(id));
            assert_eq!(made["state"], state, "{made}");
            let reason = made["reason"].as_str().expect("a reason");
            assert!(reason.contains(&format!("`fuotad deployment {then} {id}`")), "{reason}");
        }
        let mut pump = device(&daemon, "pump-1");
        let mut other = device(&daemon, "pump-2");
        pump.client.expect_silence();
        acted("3", then);
        pump.expect_update(&bytes);
        other.client.expect_silence();
        for id in ["1", "2"] {
            let over = deployment(id).expect("it is remembered")["state"].clone();
            assert!(["ended", "cancelled"].contains(&over.as_str().unwrap()), "{id}: {over}");
        }
    }
}

#[test]
fn a_file_that_moves_under_a_rollout_that_runs_is_the_same_for_others() {
    let site = Site::new();
    fs::create_dir_all(site.firmware().join("devices/pump-2")).unwrap();
    let daemon = site.start();
    let bytes = image(31, 9_000);
    site.drop_file("devices/pump-1/pump-1.0.0.bin", &bytes);
    let mut first = device(&daemon, "pump-1");
    first.expect_update(&bytes);
    let (from, to) = ("devices/pump-1/pump-1.0.0.bin", "devices/pump-2/pump-1.0.0.bin");
    fs::rename(site.firmware().join(from), site.firmware().join(to)).unwrap();
    device(&daemon, "pump-2").expect_update(&bytes);
    first.client.expect_silence();
}

#[test]
fn each_folder_reaches_the_devices_that_it_names() {
    let site = Site::new();
    let daemon = site.start();
    let admin = daemon.admin();
    let token = |id: &str, body: Value| {
        let mut body = body;
        body["id"] = json!(id);
        let made = admin.request("POST", "/api/v1/devices", Some(&body));
        assert_eq!(made.status, 201, "{}", made.body);
        made.json()["token"].as_str().expect("token").to_owned()
    };
    let devices = [
        ("one", token("one", json!({}))),
        ("grouped", token("grouped", json!({"groups": ["hall-2"]}))),
        ("modelled", token("modelled", json!({"model": "pump-x"}))),
    ];
    let mut devices =
        devices.map(|(_, token)| Device::connect(daemon.mqtt(), &Connect::token(&token)));
    let images = [image(12, 5_000), image(13, 5_000), image(14, 5_000)];
    site.drop_file("devices/one/a.bin", &images[0]);
    site.drop_file("groups/hall-2/b.bin", &images[1]);
    site.drop_file("models/pump-x/c.bin", &images[2]);
    for (device, image) in devices.iter_mut().zip(&images) {
        device.expect_update(image);
    }
    for device in &mut devices {
        device.client.expect_silence();
    }
}

#[test]
fn a_sidecar_names_title_version_and_model() {
    let site = Site::new();
    let daemon = site.start();
    let bytes = image(15, 5_000);
    let sidecar = "name = \"pump\"\nversion = \"3.2.1\"\nmodel = \"pump-x\"\nnotes = \"quieter\"\n";
    site.drop_file("all/nightly.bin.toml", sidecar.as_bytes());
    site.drop_file("all/nightly.bin", &bytes);
    let found = row(&daemon, "all/nightly.bin", "accepted");
    // What decided each is shown.
    assert_eq!(found["title"], json!({"value": "pump", "from": "sidecar"}));
    assert_eq!(found["version"], json!({"value": "3.2.1", "from": "sidecar"}));
    // It names a model, so it fits only devices of that model.
    let mut unknown = device(&daemon, "no-model");
    unknown.client.expect_silence();
    let mut connect = Connect::id("fits").v5();
    connect.user_properties = vec![("model".into(), "pump-x".into())];
    let mut fits = Device::connect(daemon.mqtt(), &connect);
    assert_eq!(fits.expect_update(&bytes).version, "3.2.1");
    let mut connect = Connect::id("other-model").v5();
    connect.user_properties = vec![("model".into(), "pump-y".into())];
    Device::connect(daemon.mqtt(), &connect).client.expect_silence();
    // The model may also come later, in the device's own words, and fills an empty value.
    let status =
        json!({"variable": "firmware_status", "value": "online", "metadata": {"model": "pump-x"}});
    unknown.client.publish(&Publish::new(TOPIC, status.to_string()));
    unknown.expect_update(&bytes);
}

#[test]
fn a_late_sidecar_is_evaluated_again() {
    let site = Site::new();
    let daemon = site.start();
    site.drop_file("devices/pump-1/nightly.bin", &image(16, 5_000));
    row(&daemon, "devices/pump-1/nightly.bin", "accepted");
    site.drop_file("devices/pump-1/nightly.bin.toml", b"version = \"7.0.0\"\n");
    eventually("the sidecar's version", || {
        let row = row(&daemon, "devices/pump-1/nightly.bin", "accepted");
        (row["version"]["value"] == "7.0.0").then_some(())
    });
}

#[test]
fn what_is_not_accepted_says_why() {
    let mut site = Site::new();
    site.set("store.max_size", "\"10 kB\"");
    let daemon = site.start();
    let refused: [(&str, &[u8]); 6] = [
        ("empty.bin", b""),
        ("large.bin", &image(17, 20_000)),
        ("bad-sidecar.bin", &image(18, 100)),
        ("attic/pump.bin", &image(19, 100)),
        ("all/bootloader/pump.bin", &image(20, 100)),
        ("groups/not a name/pump.bin", &image(21, 100)),
    ];
    site.drop_file("bad-sidecar.bin.toml", b"colour = \"red\"\n");
    for (path, bytes) in refused {
        site.drop_file(path, bytes);
    }
    let paths = [
        "empty.bin",
        "large.bin",
        "bad-sidecar.bin",
        "attic",
        "all/bootloader",
        "groups/not a name",
    ];
    for path in paths {
        let row = eventually(&format!("{path} is refused"), || {
            let rows = daemon.admin().rows("firmware");
            rows.into_iter().find(|row| {
                row["state"] == "refused"
                    && row["path"].as_str().is_some_and(|p| p.starts_with(path))
            })
        });
        let reason = row["reason"].as_str().expect("a reason").to_owned();
        assert!(reason.len() > 15, "{path}: a sentence, not {reason:?}");
        // The log writes texts with their quotes escaped.
        daemon.expect_log(&[path, &reason.replace('"', "\\\"")]);
        if path == "bad-sidecar.bin" {
            assert!(reason.contains("colour"), "names the key: {reason}");
        }
        if path == "all/bootloader" {
            assert!(reason.contains("deeper folders"), "{reason}");
        }
    }
    let mut device = device(&daemon, "pump-1");
    device.client.expect_silence();
    // Set right, it is taken.
    let bytes = image(18, 100);
    site.drop_file("bad-sidecar.bin.toml", b"version = \"1.0.0\"\n");
    device.expect_update(&bytes);
}

#[test]
fn the_same_version_with_other_bytes_at_a_second_path_is_refused() {
    let site = Site::new();
    let daemon = site.start();
    site.drop_file("all/pump-1.0.0.bin", &image(22, 5_000));
    row(&daemon, "all/pump-1.0.0.bin", "accepted");
    site.drop_file("groups/g/pump-1.0.0.bin", &image(23, 5_000));
    let conflict = row(&daemon, "groups/g/pump-1.0.0.bin", "conflict");
    let reason = conflict["reason"].as_str().expect("a reason");
    assert!(reason.contains("all/pump-1.0.0.bin"), "names the earlier: {reason}");
}

#[test]
fn temporary_and_hidden_files_are_nothing() {
    let site = Site::new();
    let daemon = site.start();
    let mut device = device(&daemon, "pump-1");
    for path in [".hidden.bin", "upload.bin.part", "upload.tmp", "backup.bin~", ".git/config"] {
        site.drop_file(path, &image(24, 100));
    }
    let bytes = image(25, 5_000);
    site.drop_file("pump-1.0.0.bin", &bytes);
    device.expect_update(&bytes);
    device.client.expect_silence();
    assert_eq!(daemon.admin().rows("firmware").len(), 1);
    // A copy program's temporary name becomes the real one.
    let newer = image(26, 5_000);
    fs::write(site.firmware().join("pump-1.1.0.bin.part"), &newer).unwrap();
    fs::rename(site.firmware().join("pump-1.1.0.bin.part"), site.firmware().join("pump-1.1.0.bin"))
        .unwrap();
    device.expect_update(&newer);
}

#[test]
fn links_out_of_the_folder_are_not_followed() {
    let site = Site::new();
    fs::write(site.path().join("secret.bin"), image(27, 500)).unwrap();
    std::os::unix::fs::symlink(site.path().join("secret.bin"), site.firmware().join("link.bin"))
        .unwrap();
    let daemon = site.start();
    let mut device = device(&daemon, "pump-1");
    let bytes = image(28, 5_000);
    site.drop_file("pump-1.0.0.bin", &bytes);
    device.expect_update(&bytes);
    device.client.expect_silence();
    assert!(
        !daemon
            .admin()
            .rows("firmware")
            .iter()
            .any(|row| row["path"] == "link.bin" && row["state"] == "accepted")
    );
}

/// A client that never subscribes to a downlink is no device, whatever it reads: rule 1.
#[test]
fn a_dashboard_is_no_target() {
    let site = Site::new();
    let daemon = site.start();
    let mut dashboard = Client::connect(daemon.mqtt(), &Connect::id("dashboard"));
    dashboard.subscribe("#", 0);
    site.drop_file("pump-1.0.0.bin", &image(29, 500));
    row(&daemon, "pump-1.0.0.bin", "accepted");
    dashboard.expect_silence();
    assert!(daemon.admin().rows("devices").is_empty());
}
