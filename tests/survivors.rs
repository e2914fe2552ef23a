//! Devices that are killed and revived at random, together with the broker: whoever gets to the
//! end has the image byte for byte, and who can resume hardly hears a block twice.
//!
//! Reference devices cannot resume: each lost connection makes them begin anew. What they need is
//! printed beside it (`--nocapture`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{process::Command, thread, time::Duration};

use serde_json::Value;
use support::{Daemon, Site, daemon::Ended, eventually, image, sha256};

const RESUMING: usize = 150;
const REFERENCE: usize = 50;
const CHUNKS: usize = 400;
const CHUNK: usize = 1000;
/// What a resuming device may hear, as images.
const MOST: f64 = 1.05;
/// Only a failing test waits so long.
const LONG: Duration = Duration::from_secs(320);

/// Devices of a prefix as a process of their own, with these arguments.
fn devices(site: &Site, broker: &str, number: usize, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fuotad"));
    command.args(["simulate", "--broker", broker, "--devices", &number.to_string(), "--json"]);
    command.args(["--timeout", "300s", "--progress", "silent", "--seed", "11", "--report"]);
    command.args(arguments).current_dir(site.path());
    command
}

fn devices_of(daemon: &Daemon) -> Vec<Value> {
    daemon.admin().get("/api/v1/devices?limit=1000")["devices"].as_array().unwrap().clone()
}

/// Different blocks that all devices were served, as the broker has it.
fn served(daemon: &Daemon) -> u64 {
    devices_of(daemon).iter().filter_map(|device| device["progress"]["chunks_sent"].as_u64()).sum()
}

fn summary(ended: Ended, number: usize, digest: &str) -> Vec<Value> {
    let summary: Value = serde_json::from_str(&ended.stdout.join("\n"))
        .unwrap_or_else(|error| panic!("{error}: {}", ended.log.join("\n")));
    assert_eq!(summary["ok"], number, "{}", ended.log.join("\n"));
    let reports = summary["reports"].as_array().unwrap().clone();
    for report in &reports {
        assert_eq!(report["sha256"], digest, "{report}");
        assert_eq!(report["malformed"], 0, "{report}");
    }
    reports
}

#[test]
fn two_hundred_devices_survive_their_own_ends_and_the_brokers() {
    let mut site = Site::new();
    site.set("fuota.chunk_size", &CHUNK.to_string());
    let bytes = image(1, CHUNKS * CHUNK - 300);
    let digest = sha256(&bytes);
    site.drop_file("pump-1.0.0.bin", &bytes);
    let mut daemon = site.start();
    // Where the devices look for it, life after life.
    let broker = daemon.mqtt().to_string();
    site.set("mqtt.listen", &format!("{broker:?}"));
    let resuming = devices(
        &site,
        &broker,
        RESUMING,
        &[
            "--resume",
            "--window",
            "2",
            "--retry-after",
            "20s",
            "--reboots",
            "3",
            "--down",
            "500ms",
            "--pace",
            "5ms",
        ],
    );
    let reference = devices(
        &site,
        &broker,
        REFERENCE,
        &[
            "--strict-reference",
            "--id-prefix",
            "ref-",
            "--reboots",
            "1",
            "--down",
            "500ms",
            "--pace",
            "1ms",
        ],
    );
    let resuming = thread::spawn(|| support::daemon::run_to_end_within(resuming, LONG));
    let reference = thread::spawn(|| support::daemon::run_to_end_within(reference, LONG));

    // The broker dies when a fifth, two fifths and three fifths of everything was served.
    let all = ((RESUMING + REFERENCE) * CHUNKS) as u64;
    for fifth in 1..=3 {
        eventually("the devices come on", || (served(&daemon) > all * fifth / 5).then_some(()));
        daemon.kill();
        daemon = site.start();
    }

    let heard = |reports: &[Value]| {
        let size = bytes.len() as f64;
        let mut images: Vec<f64> =
            reports.iter().map(|report| report["bytes"].as_f64().unwrap() / size).collect();
        images.sort_by(f64::total_cmp);
        images
    };
    let reports = summary(resuming.join().unwrap(), RESUMING, &digest);
    let sum = |key: &str| reports.iter().map(|report| report[key].as_u64().unwrap()).sum::<u64>();
    let (reboots, reconnects) = (sum("reboots"), sum("reconnects"));
    // One with a block left is not killed any more.
    assert!(reboots > 2 * RESUMING as u64, "nearly each was killed three times: {reboots}");
    assert!(reconnects > reboots, "and lost the broker beside that");
    let images = heard(&reports);
    // What it asked for is the most that was sent to it, heard or not.
    let asked = |report: &Value| 1.0 + report["retries"].as_f64().unwrap() / CHUNKS as f64;
    let asked = reports.iter().map(asked).fold(0.0, f64::max);
    println!("resuming:  {asked:.3} images were asked for at most");
    assert!(asked <= MOST);
    println!(
        "resuming:  {:.3} images in the median, {:.3} at most",
        images[RESUMING / 2],
        images[RESUMING - 1]
    );
    assert!(images[RESUMING - 1] <= MOST);
    let images = heard(&summary(reference.join().unwrap(), REFERENCE, &digest));
    println!(
        "reference: {:.3} images in the median, {:.3} at most",
        images[REFERENCE / 2],
        images[REFERENCE - 1]
    );

    // The broker knows of no failure, and of every device.
    let deployment = daemon.admin().get("/api/v1/deployments/1");
    assert_eq!(deployment["counts"]["failed"], 0, "{deployment}");
    assert_eq!(devices_of(&daemon).len(), RESUMING + REFERENCE);
}
