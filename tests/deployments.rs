//! Deployments over REST and on the command line, against the running daemon.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::{Value, json};
use support::{Connect, Daemon, Device, Site, daemon::Ended, eventually, http::Response, image};

fn post(daemon: &Daemon, path: &str, body: Value) -> Response {
    daemon.admin().request("POST", &format!("/api/v1/{path}"), Some(&body))
}

/// Runs a command of the site's binary against this daemon.
fn cli(site: &Site, daemon: &Daemon, arguments: &[&str]) -> Ended {
    let url = format!("http://{}", daemon.admin_address());
    site.run(&[arguments, &["--url", &url]].concat())
}

fn cli_json(site: &Site, daemon: &Daemon, arguments: &[&str]) -> Value {
    let ended = cli(site, daemon, &[arguments, &["--json"]].concat());
    assert!(ended.status.success(), "{:?}", ended.log);
    serde_json::from_str(&ended.stdout.join("\n")).unwrap()
}

/// Uploads bytes in a form, with these text fields after the file.
fn upload(daemon: &Daemon, file_name: &str, text: &str, fields: &[(&str, &str)]) -> Response {
    daemon.admin().upload("/api/v1/firmware", &[], file_name, text.as_bytes(), fields)
}

#[test]
fn an_upload_is_deployed_paused_resumed_and_cancelled_over_rest() {
    let site = Site::new();
    let daemon = site.start();
    let answer =
        upload(&daemon, "pump-1.0.0.bin", "some-bytes", &[("version", "1.1.0"), ("notes", "n")]);
    assert_eq!(answer.status, 201, "{}", answer.body);
    let firmware = answer.json();
    assert_eq!(
        (&firmware["state"], &firmware["version"]["value"]),
        (&json!("catalogued"), &json!("1.1.0"))
    );
    let again =
        upload(&daemon, "pump-1.0.0.bin", "some-bytes", &[("version", "1.1.0"), ("notes", "n")]);
    assert_eq!((again.status, &again.json()["id"]), (200, &firmware["id"]));
    for (field, value, status) in
        [("colour", "red", 400), ("model", "a b", 422), ("version", "", 409)]
    {
        let refused = upload(&daemon, "pump-1.0.0.bin", "other-bytes", &[(field, value)]);
        assert_eq!(refused.status, status, "{field}: {}", refused.body);
    }

    let body = json!({"firmware": firmware["id"], "target": {"all": true}, "rollout": "all"});
    let plan = post(&daemon, "deployments?dry_run=true", body.clone());
    assert_eq!((plan.status, &plan.json()["devices"]), (200, &json!([])));
    let made = post(&daemon, "deployments", body.clone());
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(made.head.to_ascii_lowercase().contains("location: /api/v1/deployments/1"));
    assert_eq!(post(&daemon, "deployments", body.clone()).status, 409);
    for (body, status) in [
        (json!({"firmware": "x", "target": {"all": true}}), 422),
        (json!({"firmware": firmware["id"], "target": {"all": true, "group": "g"}}), 422),
        (json!({"firmware": firmware["id"]}), 400),
        (json!({"firmware": firmware["id"], "target": {"all": true}, "colour": 1}), 400),
    ] {
        let refused = post(&daemon, "deployments", body.clone());
        assert_eq!(refused.status, status, "{body}: {}", refused.body);
    }

    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    assert_eq!(device.expect_update(b"some-bytes").version, "1.1.0");
    let one = eventually("the device is counted", || {
        let one = daemon.admin().get("/api/v1/deployments/1");
        (one["counts"]["downloaded"] == 1).then_some(one)
    });
    assert_eq!((&one["state"], &one["created_by"]), (&json!("running"), &json!("admin token")));
    assert_eq!(one["counts"].as_object().unwrap().len(), 10);
    let devices = daemon.admin().get("/api/v1/deployments/1/devices");
    assert_eq!(devices["devices"][0]["device"], "pump-1");
    eventually("the timeline says so", || {
        let timeline = daemon.admin().get("/api/v1/devices/pump-1/timeline?limit=1");
        (timeline["timeline"][0]["action"] == "downloaded").then_some(())
    });
    let why = daemon.admin().get("/api/v1/devices/pump-1/why");
    assert!(why["sentence"].as_str().unwrap().contains("was given"), "{why}");

    for (act, status, state) in [
        ("pause", 200, "paused"),
        ("pause", 409, "paused"),
        ("resume", 200, "running"),
        ("retry", 200, "running"),
        ("fly", 404, "running"),
        ("cancel", 200, "cancelled"),
        ("resume", 409, "cancelled"),
    ] {
        let answer = daemon.admin().request("POST", &format!("/api/v1/deployments/1/{act}"), None);
        assert_eq!(answer.status, status, "{act}: {}", answer.body);
        assert_eq!(daemon.admin().get("/api/v1/deployments/1")["state"], state);
    }
    for (device, status) in [("pump-1", 409), ("pump-9", 404), ("no%20name", 404)] {
        let path = format!("/api/v1/deployments/1/cancel?device={device}");
        assert_eq!(daemon.admin().request("POST", &path, None).status, status, "{device}");
    }
    assert_eq!(daemon.admin().request("GET", "/api/v1/deployments/9", None).status, 404);
    let listed = daemon.admin().get("/api/v1/deployments?state=cancelled&limit=1");
    assert_eq!(listed["deployments"].as_array().unwrap().len(), 1);
    let acts: Vec<_> =
        daemon.admin().rows("audit").iter().map(|line| line["action"].clone()).collect();
    assert_eq!(acts[..4], ["cancel", "retry", "resume", "pause"]);
    let line = &daemon.admin().rows("audit")[0];
    assert_eq!((&line["actor"], &line["origin"]), (&json!("admin token"), &json!("127.0.0.1")));
}

#[test]
fn users_do_what_their_role_allows_and_stand_in_the_audit() {
    let site = Site::new();
    let daemon = site.start();
    for (name, role) in [("ann", "operator"), ("bob", "service")] {
        let user = json!({"name": name, "role": role, "password": "correct horse"});
        assert_eq!(post(&daemon, "users", user).status, 201);
    }
    let host = format!("Host: {}", daemon.admin_address());
    // ann:correct horse, bob:correct horse, ann:wrong
    let [ann, bob, wrong] =
        ["YW5uOmNvcnJlY3QgaG9yc2U=", "Ym9iOmNvcnJlY3QgaG9yc2U=", "YW5uOndyb25n"]
            .map(|login| format!("Authorization: Basic {login}"));
    let ask = |login: &str, method: &str, path: &str| {
        daemon.admin().raw(method, &format!("/api/v1/{path}"), &[&host, login], None).status
    };
    assert_eq!(ask(&ann, "GET", "devices"), 200);
    assert_eq!(ask(&bob, "GET", "devices"), 200);
    assert_eq!(ask(&bob, "PUT", "freeze"), 403);
    assert_eq!(ask(&ann, "PUT", "freeze"), 200);
    assert_eq!(ask(&ann, "GET", "users"), 403);
    assert_eq!(ask(&wrong, "GET", "devices"), 401);
    assert_eq!(daemon.admin().get("/api/v1/freeze")["by"], "ann");
    assert_eq!(daemon.admin().rows("audit")[0]["actor"], "ann");
}

#[test]
fn a_retried_request_makes_one_deployment() {
    let site = Site::new();
    let daemon = site.start();
    let firmware = upload(&daemon, "pump-1.0.0.bin", "bytes", &[]).json();
    let admin = daemon.admin();
    let headers = [
        format!("Host: {}", daemon.admin_address()),
        format!("Authorization: Bearer {}", admin.token()),
        "Idempotency-Key: job-1".into(),
    ];
    let headers: Vec<_> = headers.iter().map(String::as_str).collect();
    let body = json!({"firmware": firmware["id"], "target": {"group": "g"}}).to_string();
    let first = admin.raw("POST", "/api/v1/deployments", &headers, Some(&body));
    let second = admin.raw("POST", "/api/v1/deployments", &headers, Some(&body));
    assert_eq!((first.status, second.status), (201, 200), "{}", second.body);
    assert_eq!(first.json()["id"], second.json()["id"]);
    assert_eq!(admin.rows("deployments").len(), 1);
}

#[test]
fn the_commands_do_what_an_operator_needs() {
    let mut site = Site::new();
    site.set("fuota.on_drop", "\"catalog\"");
    let daemon = site.start();
    let bytes = image(1, 10_000);
    std::fs::write(site.path().join("pump-1.0.0.bin"), &bytes).unwrap();
    let file = site.path().join("pump-1.0.0.bin").display().to_string();
    let uploaded = cli_json(&site, &daemon, &["firmware", "upload", &file, "--model", "m"]);
    assert_eq!(uploaded["path"], "uploads/pump-1.0.0.bin");
    let path = uploaded["path"].as_str().unwrap();

    let nobody = cli(&site, &daemon, &["deployment", "plan", path, "--model", "m"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(nobody.said(&["nobody would get it"]), "{:?}", nobody.log);
    let made = cli_json(
        &site,
        &daemon,
        &["deployment", "create", path, "--model", "m", "--rollout", "1,50%,100%"],
    );
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(made["rollout"]["waves"][1]["percent"], 50);
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    let why = cli(&site, &daemon, &["device", "why", "pump-1"]);
    assert!(why.said(&["pump-1 is offered nothing: no firmware is for"]), "{:?}", why.log);
    assert!(cli(&site, &daemon, &["device", "set", "pump-1", "--model", "m"]).status.success());
    device.expect_update(&bytes);
    device.send(&json!({"variable": "firmware_status", "metadata": {"version": "1.0.0"}}));
    let watched = cli(&site, &daemon, &["deployment", "show", &id, "--watch"]);
    assert!(watched.status.success(), "{:?}", watched.log);
    let timeline = cli_json(&site, &daemon, &["device", "timeline", "pump-1"]);
    assert_eq!(timeline[0]["action"], "updated");

    // A dropped file waits for the command.
    site.drop_file("pump-2.0.0.bin", &bytes[..5000]);
    eventually("it is catalogued", || {
        let files = cli_json(&site, &daemon, &["firmware", "list"]);
        let files = files.as_array().unwrap().clone();
        files.iter().any(|file| file["state"] == "catalogued").then_some(())
    });
    assert!(cli(&site, &daemon, &["freeze"]).status.success());
    let made =
        cli(&site, &daemon, &["deployment", "create", "pump-2.0.0.bin", "--device", "pump-1"]);
    assert!(made.status.success(), "{:?}", made.log);
    let second = made.stdout[0].clone();
    let why = cli(&site, &daemon, &["device", "why", "pump-1"]);
    assert!(why.said(&["admin token froze all offers"]), "{:?}", why.log);
    assert!(cli(&site, &daemon, &["unfreeze"]).status.success());
    let manifest = device.manifest();
    assert_eq!(manifest.version, "2.0.0");
    let cancelled = cli(&site, &daemon, &["deployment", "cancel", &second]);
    assert!(cancelled.status.success() && cancelled.said(&["cancelled"]), "{:?}", cancelled.log);
    device.request(0);
    assert!(device.error().contains("cancelled by an operator"));
    let again = cli(&site, &daemon, &["deployment", "resume", &second]);
    assert_eq!(again.status.code(), Some(1));
    assert!(again.said(&["it is over"]), "{:?}", again.log);
    assert!(cli(&site, &daemon, &["firmware", "withdraw", "pump-2.0.0.bin"]).status.success());
    let gone =
        cli(&site, &daemon, &["deployment", "create", "pump-2.0.0.bin", "--device", "pump-1"]);
    assert!(gone.said(&["withdrew these bytes"]), "{:?}", gone.log);
    let listed = cli(&site, &daemon, &["deployment", "list"]);
    assert_eq!(listed.stdout.len(), 3, "{:?}", listed.log);
}

#[test]
fn token_mode_holds_what_was_there_and_sends_a_canary_first() {
    let mut site = Site::new();
    site.set("auth.mode", "\"token\"");
    let old = image(1, 5000);
    site.drop_file("pump-1.0.0.bin", &old);
    let daemon = site.start();
    let tokens: Vec<String> =
        (0..3).map(|number| format!("token-of-pump-{number}-0123456789")).collect();
    for (number, token) in tokens.iter().enumerate() {
        let device = json!({"id": format!("pump-{number}"), "token": token});
        assert_eq!(post(&daemon, "devices", device).status, 201);
    }
    let mut devices: Vec<_> =
        tokens.iter().map(|token| Device::connect(daemon.mqtt(), &Connect::token(token))).collect();
    daemon.expect_log(&["firmware not accepted", "fuotad deployment approve 1"]);
    for device in &mut devices {
        device.client.expect_silence();
    }
    assert!(cli(&site, &daemon, &["deployment", "approve", "1"]).status.success());
    devices[0].expect_update(&old);
    for device in &mut devices[1..] {
        device.client.expect_silence();
    }
    devices[0].send(&json!({"variable": "firmware_status", "metadata": {"version": "1.0.0"}}));
    for device in &mut devices[1..] {
        device.expect_update(&old);
    }
}
