//! Windows and caps of the running daemon: from the configuration, on the command line, and
//! changed by SIGHUP (rules 20 and 23).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use support::{Connect, Daemon, Device, Site, daemon::Ended, eventually, image};

/// A window that begins in six hours and is an hour long.
fn closed() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let hour = (now / 3600 + 6) % 24;
    format!("{hour:02}:00-{:02}:59 UTC", hour)
}

fn cli(site: &Site, daemon: &Daemon, arguments: &[&str]) -> Ended {
    let url = format!("http://{}", daemon.admin_address());
    site.run(&[arguments, &["--url", &url]].concat())
}

#[test]
fn a_window_and_a_cap_hold_back_until_the_configuration_says_otherwise() {
    let mut site = Site::new();
    site.set("fuota.windows", &format!("[{:?}]", closed()));
    site.set("fuota.limits.transfers", "1");
    site.set("fuota.limits.groups", "[\"hall-2 transfers=3 bytes_per_second=2MB\"]");
    let bytes = image(1, 20_000);
    site.drop_file("pump-1.0.0.bin", &bytes);
    let daemon = site.start();
    let mut devices =
        ["pump-1", "pump-2"].map(|id| Device::connect(daemon.mqtt(), &Connect::id(id)));
    devices.iter_mut().for_each(|device| device.client.expect_silence());
    let why = cli(&site, &daemon, &["device", "why", "pump-1"]);
    assert!(
        why.said(&["waits: its maintenance window", &closed(), "is closed until"]),
        "{:?}",
        why.log
    );
    let status = daemon.admin().get("/api/v1/status");
    assert!(status["fuota"]["window_closed"].as_str().unwrap().contains(&closed()), "{status}");
    assert_eq!(status["fuota"]["clock_problem"], json!(null));

    // Without the window one may begin, and the other when that one has everything.
    site.unset("fuota.windows").write_config();
    daemon.hang_up();
    daemon.expect_log(&["is in force", "fuota.windows"]);
    let first = eventually("one is offered it", || {
        let rows = daemon.admin().rows("devices");
        let offered = |row: &serde_json::Value| row["state"] == "offered";
        rows.iter().find(|row| offered(row)).map(|row| row["id"].as_str().unwrap().to_owned())
    });
    let (begun, waiting) = if first == "pump-1" { (0, 1) } else { (1, 0) };
    let manifest = devices[begun].manifest();
    devices[waiting].client.expect_silence();
    let why = cli(&site, &daemon, &["device", "why", &format!("pump-{}", waiting + 1)]);
    assert!(why.said(&["1 transfers are under way", "fuota.limits.transfers"]), "{:?}", why.log);
    assert!(devices[begun].download(manifest).1 == bytes);
    devices[waiting].expect_update(&bytes);

    // The same for one deployment, on the command line.
    let created = cli(
        &site,
        &daemon,
        &[
            "deployment",
            "create",
            "pump-1.0.0.bin",
            "--group",
            "hall-2",
            "--window",
            &closed(),
            "--max-transfers",
            "2",
            "--starts-per-minute",
            "30",
            "--bytes-per-second",
            "5000",
            "--json",
        ],
    );
    assert!(created.status.success(), "{:?}", created.log);
    let view: serde_json::Value = serde_json::from_str(&created.stdout.join("\n")).unwrap();
    assert_eq!(view["windows"], json!([closed()]));
    assert_eq!(
        view["limits"],
        json!({"transfers": 2, "starts_per_minute": 30, "bytes_per_second": 5000})
    );
    assert!(view["reason"].as_str().unwrap().contains("is closed until"), "{view}");
    let wrong = cli(
        &site,
        &daemon,
        &["deployment", "create", "pump-1.0.0.bin", "--all", "--window", "at night"],
    );
    assert!(
        !wrong.status.success() && wrong.said(&["is no maintenance window"]),
        "{:?}",
        wrong.log
    );
}

#[test]
fn mistakes_in_windows_and_caps_name_the_key() {
    for (key, value, why) in [
        ("fuota.windows", "\"at night\"", "not FROM-TO"),
        ("fuota.limits.groups", "[\"hall-2\"]", "it caps nothing"),
        ("fuota.limits.transfers", "-1", "fuota.limits.transfers"),
        ("fuota.fetch_allow", "[\"http://x/\"]", "no host name, address or network"),
    ] {
        let mut site = Site::new();
        site.set(key, value);
        let ended = site.run(&["check-config"]);
        assert!(!ended.status.success() && ended.said(&[key, why]), "{key}: {:?}", ended.log);
    }
}
