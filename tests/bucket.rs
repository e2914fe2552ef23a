//! A bucket instead of a directory: the same rules, against a real S3 server in this process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/bucket.rs"]
mod fixture;
#[path = "support/s3.rs"]
mod s3;
mod support;

use std::io::{Seek as _, SeekFrom, Write as _};
use std::time::{Duration, SystemTime};

use fixture::Bucket;
use s3::{Fault, Tags};
use support::{Client, Connect, Daemon, Device, eventually, image};

fn ready(daemon: &Daemon, status: u16) {
    eventually(&format!("readiness is {status}"), || {
        (daemon.admin().request("GET", "/readyz", None).status == status).then_some(())
    });
}

#[test]
fn an_object_reaches_a_device_byte_for_byte() {
    let bucket = Bucket::new();
    let daemon = bucket.site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    // Larger than what is read at once, and no whole number of chunks.
    let bytes = image(1, 1_500_001);
    bucket.put("pump-1.4.2.bin", &bytes);
    // What lies beside the prefix is nothing of ours.
    bucket.server.put("elsewhere-9.9.9.bin", &image(2, 100));
    bucket.server.put("site-abc/other-9.9.9.bin", &image(3, 100));
    assert_eq!(device.expect_update(&bytes).version, "1.4.2");
    device.client.expect_silence();
    assert_eq!(daemon.admin().rows("firmware").len(), 1);
}

#[test]
fn folders_sidecars_and_overwriting_mean_the_same() {
    let bucket = Bucket::new();
    bucket.put("devices/pump-1/nightly.bin.toml", b"version = \"2.0.0\"\nname = \"pump\"\n");
    let old = image(4, 20_000);
    bucket.put("devices/pump-1/nightly.bin", &old);
    bucket.put("attic/lost.bin", &image(5, 100));
    let daemon = bucket.site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    let mut other = Device::connect(daemon.mqtt(), &Connect::id("pump-2"));
    let manifest = device.manifest();
    assert_eq!(manifest.version, "2.0.0");
    assert!(device.fetch(0) == old[..4096]);
    // Of equal size: only the ETag tells.
    let new = image(6, 20_000);
    bucket.put("devices/pump-1/nightly.bin", &new);
    eventually("the new object is in the catalog", || {
        let digest = support::sha256(&new);
        daemon.admin().get("/api/v1/firmware").to_string().contains(&digest).then_some(())
    });
    device.request(1);
    let (_, bytes) = device.update();
    assert!(bytes == new);
    other.client.expect_silence();
    let refused = daemon.admin().rows("firmware").into_iter().any(|row| {
        row["state"] == "refused"
            && row["path"].as_str().is_some_and(|path| path.starts_with("attic"))
    });
    assert!(refused, "{}", daemon.admin().get("/api/v1/firmware"));
}

#[test]
fn the_same_bytes_again_do_nothing() {
    for tags in [Tags::Everywhere, Tags::Answers, Tags::Nowhere] {
        let bucket = Bucket::new();
        bucket.server.set_tags(tags);
        let bytes = image(30, 20_000);
        bucket.put("pump-1.0.0.bin", &bytes);
        let hour = Duration::from_secs(3600);
        bucket.server.date("site-a/pump-1.0.0.bin", SystemTime::now() - hour);
        let daemon = bucket.site.start();
        Device::connect(daemon.mqtt(), &Connect::id("done")).expect_update(&bytes);
        let id = daemon.admin().rows("deployments")[0]["id"].as_str().unwrap().to_owned();
        let cancel = format!("/api/v1/deployments/{id}/cancel");
        assert_eq!(daemon.admin().request("POST", &cancel, None).status, 200);
        let sent = bucket.server.sent();

        bucket.put("pump-1.0.0.bin", &bytes);
        let looked = daemon.admin().request("POST", "/api/v1/firmware/rescan", None);
        assert_eq!((looked.status, &looked.json()["files"]), (200, &1.into()));
        // Only where nothing else tells that they are the same are they read again.
        let read = bucket.server.sent() - sent;
        assert_eq!(read, if tags == Tags::Nowhere { 20_000 } else { 0 }, "{tags:?}");
        let mut device = Device::connect(daemon.mqtt(), &Connect::id("new"));
        device.client.expect_silence();
        // What comes next is offered, and nothing before it.
        let newer = image(31, 9_000);
        bucket.put("pump-1.1.0.bin", &newer);
        device.expect_update(&newer);
        let rows = daemon.admin().rows("deployments");
        let state = rows.iter().find(|row| row["id"] == *id).map(|row| &row["state"]);
        assert_eq!((rows.len(), state), (2, Some(&"cancelled".into())), "{tags:?}: {rows:?}");
    }
}

#[test]
fn a_model_that_is_named_a_moment_later_keeps_the_image_from_others() {
    let mut bucket = Bucket::new();
    bucket.site.set("store.settle", "\"1h\"");
    let daemon = bucket.site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    let looked = || {
        let before = bucket.server.listings();
        eventually("it looks", || (bucket.server.listings() >= before + 3).then_some(()));
    };
    bucket.put("pump-1.0.0.bin", &image(32, 9_000));
    looked();
    device.client.expect_silence();
    bucket.put("pump-1.0.0.bin.toml", b"model = \"px\"");
    looked();
    bucket.site.set("store.settle", "\"0s\"").write_config();
    daemon.hang_up();
    let model = eventually("it is taken", || {
        let rows = daemon.admin().rows("firmware");
        rows.first().map(|row| row["model"]["value"].clone())
    });
    assert_eq!(model, "px");
    device.client.expect_silence();
}

#[test]
fn an_outage_is_no_deletion() {
    let mut bucket = Bucket::new();
    let bytes = image(7, 20_000);
    bucket.put("pump-1.0.0.bin", &bytes);
    let daemon = bucket.site.start();
    let mut done = Device::connect(daemon.mqtt(), &Connect::id("done"));
    done.expect_update(&bytes);
    let mut busy = Device::connect(daemon.mqtt(), &Connect::id("busy"));
    let manifest = busy.manifest();
    busy.fetch(0);

    bucket.stop();
    daemon.expect_log(&["store", "unavailable"]);
    ready(&daemon, 503);
    // Copies are our own: the transfer and new offers go on.
    assert!(busy.download(manifest).1 == bytes);
    Device::connect(daemon.mqtt(), &Connect::id("new")).expect_update(&bytes);

    bucket.resume();
    ready(&daemon, 200);
    done.client.expect_silence();
    let newer = image(8, 9_000);
    bucket.put("pump-1.1.0.bin", &newer);
    done.expect_update(&newer);
}

#[test]
fn what_an_operator_stopped_stays_stopped_when_a_file_could_not_be_read_for_a_while() {
    for (act, state) in [("pause", "paused"), ("cancel", "cancelled")] {
        let bucket = Bucket::new();
        // It is always answered for, so that it is the file's trouble and not the store's.
        bucket.put("devices/nobody/steady.bin", &image(20, 100));
        bucket.put("pump-1.0.0.bin.toml", b"notes = \"quieter\"\n");
        bucket.put("pump-1.0.0.bin", &image(21, 9_000));
        let daemon = bucket.site.start();
        let deployments = |daemon: &Daemon| daemon.admin().rows("deployments");
        let of_it = |daemon: &Daemon| {
            let rows = daemon.admin().rows("firmware");
            rows.into_iter().find(|row| row["path"] == "pump-1.0.0.bin").unwrap_or_default()
        };
        let id = eventually("its deployment", || {
            of_it(&daemon)["deployments"][0].as_str().map(str::to_owned)
        });
        let path = format!("/api/v1/deployments/{id}/{act}");
        assert_eq!(daemon.admin().request("POST", &path, None).status, 200);
        daemon.stop();

        // The bytes of its sidecar, and then whatever is asked about it.
        for fault in [Fault::Status(403), Fault::HeadStatus(403)] {
            bucket.server.set_fault(fault);
            let daemon = bucket.site.start();
            ready(&daemon, 200);
            let shown = of_it(&daemon);
            assert!(shown["warnings"][0].as_str().is_some_and(|it| it.contains("403")), "{shown}");
            let looked = daemon.admin().request("POST", "/api/v1/firmware/rescan", None);
            assert_eq!(looked.json()["troubled"], 1);
            daemon.expect_log(&["pump-1.0.0.bin", "what is known of it stands", "403"]);
            let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
            device.client.expect_silence();
            bucket.server.set_fault(Fault::None);
            eventually("it is read again", || {
                (of_it(&daemon)["warnings"] == serde_json::json!([])).then_some(())
            });
            device.client.expect_silence();
            let rows = deployments(&daemon);
            assert_eq!(rows.len(), 2, "{rows:?}");
            let row = rows.iter().find(|row| row["id"] == *id).expect("the same deployment");
            assert_eq!(row["state"], state);
            daemon.stop();
        }
    }
}

#[test]
fn what_could_not_be_read_at_the_very_first_start_is_held_too() {
    let mut bucket = Bucket::new();
    bucket.site.set("fuota.on_existing", "\"hold\"");
    bucket.put("devices/nobody/steady.bin", &image(22, 100));
    bucket.put("pump-1.0.0.bin", &image(23, 9_000));
    let state = |daemon: &Daemon, state: &str| {
        eventually(&format!("pump is {state}"), || {
            let rows = daemon.admin().rows("firmware");
            rows.iter()
                .any(|row| row["path"] == "pump-1.0.0.bin" && row["state"] == state)
                .then_some(())
        });
    };
    // The second start is the first one still: not all that was there was seen.
    for fault in [Fault::Status(403), Fault::HeadStatus(403)] {
        bucket.server.set_fault(fault);
        let daemon = bucket.site.start();
        state(&daemon, "refused");
        daemon.kill();
    }
    let daemon = bucket.site.start();
    state(&daemon, "refused");
    bucket.server.set_fault(Fault::None);
    state(&daemon, "held");
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    device.client.expect_silence();
    // What is dropped is not held.
    let newer = image(24, 9_000);
    bucket.put("pump-1.1.0.bin", &newer);
    device.expect_update(&newer);
    daemon.stop();
    bucket.put("pump-1.2.0.bin", &image(25, 9_000));
    let daemon = bucket.site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    device.expect_update(&image(25, 9_000));
}

#[test]
fn a_server_that_freezes_amid_a_rollout_stops_nobody() {
    let bucket = Bucket::new();
    let bytes = image(10, 200_000);
    bucket.put("pump-1.0.0.bin", &bytes);
    let daemon = bucket.site.start();
    let mut done = Device::connect(daemon.mqtt(), &Connect::id("done"));
    done.expect_update(&bytes);
    let mut busy = Device::connect(daemon.mqtt(), &Connect::id("busy"));
    let manifest = busy.manifest();
    busy.fetch(0);

    // It takes connections and requests, and answers nothing.
    bucket.server.set_fault(Fault::Frozen);
    let newer = image(11, 9_000);
    bucket.put("pump-1.1.0.bin", &newer);
    assert!(busy.download(manifest).1 == bytes);
    Device::connect(daemon.mqtt(), &Connect::id("new")).expect_update(&bytes);
    done.client.expect_silence();
    bucket.server.set_fault(Fault::None);
    done.expect_update(&newer);
}

#[test]
fn keep_alives_go_on_while_the_server_is_frozen_and_a_block_waits_for_it() {
    let bucket = Bucket::new();
    let bytes = image(14, 20_000);
    bucket.put("pump-1.0.0.bin", &bytes);
    let daemon = bucket.site.start();
    let connect = |id| Connect { keep_alive: 1, ..Connect::id(id) };
    let mut device = Device::connect(daemon.mqtt(), &connect("pump-1"));
    device.manifest();
    bucket.server.set_fault(Fault::Frozen);
    std::fs::remove_file(bucket.site.copy_of(&bytes)).unwrap();
    device.request(0);
    // For longer than it takes to end a connection on which nothing comes.
    let silent = Client::connect(daemon.mqtt(), &connect("silent"));
    let silent = std::thread::spawn(move || silent.expect_closed());
    eventually("the silent one is disconnected", || {
        device.client.ping();
        silent.is_finished().then_some(())
    });
    silent.join().unwrap();
    // With a ping at each look.
    let answer = eventually("an answer", || device.client.next_publish_before_ping());
    assert!(answer.text().contains("try again"), "{}", answer.text());

    bucket.server.set_fault(Fault::None);
    eventually("the copy is made anew", || {
        device.client.ping();
        bucket.site.copy_of(&bytes).exists().then_some(())
    });
    assert!(device.fetch(0) == bytes[..4096]);
}

#[test]
fn a_copy_that_is_damaged_amid_a_transfer_is_fetched_again_unnoticed() {
    let bucket = Bucket::new();
    // More than is read and verified at once.
    let bytes = image(13, 2_500_000);
    bucket.put("pump-1.0.0.bin", &bytes);
    let daemon = bucket.site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    let manifest = device.manifest();
    device.fetch(0);
    let mut file =
        std::fs::OpenOptions::new().write(true).open(bucket.site.copy_of(&bytes)).unwrap();
    file.seek(SeekFrom::End(-1)).unwrap();
    file.write_all(&[!bytes[bytes.len() - 1]]).unwrap();
    assert!(device.download(manifest).1 == bytes);
    daemon.expect_log(&["copy was damaged"]);
    assert_eq!(bucket.server.sent(), 2 * bytes.len() as u64, "fetched once more");
}

#[test]
fn a_look_can_be_asked_for() {
    let mut bucket = Bucket::new();
    bucket.site.set("store.poll_interval", "\"1h\"");
    let daemon = bucket.site.start();
    let url = format!("http://{}", daemon.admin_address());
    let bytes = image(12, 9_000);
    bucket.put("pump-1.0.0.bin", &bytes);
    bucket.put("attic/lost.bin", &bytes);
    let answer = bucket.site.run(&["firmware", "rescan", "--json", "--url", &url]);
    assert!(answer.status.success(), "{:?}", answer.log);
    let answer: serde_json::Value = serde_json::from_str(&answer.stdout.join("\n")).unwrap();
    assert_eq!((&answer["files"], &answer["refused"]), (&1.into(), &1.into()), "{answer}");
    Device::connect(daemon.mqtt(), &Connect::id("pump-1")).expect_update(&bytes);
    let reader = daemon.admin().request("GET", "/api/v1/firmware/rescan", None);
    assert_eq!(reader.status, 405, "looking changes something");

    bucket.server.set_fault(Fault::EveryStatus(403));
    let answer = bucket.site.run(&["firmware", "rescan", "--url", &url]);
    assert!(answer.stdout.join("\n").contains("cannot list s3://"), "{:?}", answer.stdout);
}

#[test]
fn a_wrong_key_is_said_and_never_printed() {
    let mut bucket = Bucket::new();
    let secret = "not-the-secret-of-this-site";
    bucket.site.set("store.s3.secret_access_key", &format!("\"{secret}\""));
    bucket.put("pump-1.0.0.bin", &image(9, 100));
    // The broker serves ordinary clients whatever the store does.
    let daemon = bucket.site.start();
    daemon.expect_log(&["store", "unavailable"]);
    ready(&daemon, 503);
    let ended = daemon.stop();
    assert!(!ended.log.iter().any(|line| line.contains(secret)));
}

#[test]
fn a_key_that_changed_in_its_file_counts_after_a_restart_and_a_reload_says_so() {
    let mut bucket = Bucket::new();
    let file = bucket.site.path().join("key");
    std::fs::write(&file, "of-another-day\n").unwrap();
    bucket
        .site
        .unset("store.s3.secret_access_key")
        .set("store.s3.secret_access_key_file", "\"key\"");
    let bytes = image(15, 9_000);
    bucket.put("pump-1.0.0.bin", &bytes);
    let daemon = bucket.site.start();
    ready(&daemon, 503);
    std::fs::write(&file, format!("{}\n", s3::SECRET_ACCESS_KEY)).unwrap();
    daemon.hang_up();
    daemon.expect_log(&["store.s3.secret_access_key", "need a restart"]);
    daemon.expect_log(&["SIGHUP: done"]);
    let ended = daemon.stop();
    assert!(!ended.said(&[s3::SECRET_ACCESS_KEY]) && !ended.said(&["of-another-day"]));
    let daemon = bucket.site.start();
    Device::connect(daemon.mqtt(), &Connect::id("pump-1")).expect_update(&bytes);
}
