//! `fuotad simulate` against the running daemon.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{Site, daemon::Ended, image, sha256};

/// Runs the simulator against a daemon that has dropped `bytes`.
fn simulate(bytes: &[u8], arguments: &[&str]) -> Ended {
    let mut site = Site::new();
    site.set("fuota.chunk_size", "1000");
    site.drop_file("pump-1.4.2.bin", bytes);
    let daemon = site.start();
    let broker = daemon.mqtt().to_string();
    let mut all = vec!["simulate", "--broker", &broker, "--timeout", "120s"];
    all.extend(arguments);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fuotad"));
    command.args(all).current_dir(site.path());
    support::daemon::run_to_end(command)
}

fn succeeds(bytes: &[u8], arguments: &[&str]) -> Ended {
    let ended = simulate(bytes, arguments);
    assert_eq!(ended.status.code(), Some(0), "{arguments:?}\n{}", ended.log.join("\n"));
    ended
}

#[test]
fn every_device_gets_the_image() {
    let bytes = image(1, 30_500);
    let digest = sha256(&bytes);
    let ended = succeeds(&bytes, &["--devices", "10", "--expect-sha256", &digest]);
    assert!(
        ended.log.iter().any(|line| line.contains("10")),
        "a summary: {}",
        ended.log.join("\n")
    );
}

#[test]
fn mqtt_5_devices_with_a_window_get_the_image() {
    succeeds(&image(2, 30_500), &["--devices", "3", "--protocol", "5", "--window", "16"]);
}

#[test]
fn devices_as_the_reference_has_them_get_the_image() {
    succeeds(&image(3, 30_500), &["--devices", "3", "--strict-reference", "--empty-client-id"]);
}

#[test]
fn faults_end_no_update() {
    succeeds(
        &image(4, 30_500),
        &[
            "--devices",
            "5",
            "--loss",
            "0.05",
            "--duplicates",
            "0.1",
            "--reconnect-every",
            "10",
            "--reboots",
            "1",
            "--retry-after",
            "300ms",
            "--seed",
            "7",
        ],
    );
}

#[test]
fn another_digest_than_expected_is_a_failure() {
    let other = sha256(b"something else");
    let ended = simulate(&image(5, 5_000), &["--devices", "2", "--expect-sha256", &other]);
    assert!(ended.status.code().is_some_and(|code| code > 0), "{}", ended.log.join("\n"));
}

#[test]
fn nobody_to_talk_to_is_a_failure() {
    let site = Site::new();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fuotad"));
    command
        .args(["simulate", "--devices", "1", "--timeout", "2s", "--broker"])
        .arg(format!("127.0.0.1:{port}"))
        .current_dir(site.path());
    let ended = support::daemon::run_to_end(command);
    assert!(ended.status.code().is_some_and(|code| code > 0), "{}", ended.log.join("\n"));
}
