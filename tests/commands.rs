//! The command line does what the interface does: listings as tables and as JSON, commands that
//! follow what happens, and exit codes for scripts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::{Value, json};
use support::{Client, Connect, Daemon, Device, Publish, Site, daemon::Ended, eventually, image};

/// Runs a command of the site's binary against this daemon.
fn cli(site: &Site, daemon: &Daemon, arguments: &[&str]) -> Ended {
    let url = format!("http://{}", daemon.admin_address());
    site.run(&[arguments, &["--url", &url]].concat())
}

fn ok(site: &Site, daemon: &Daemon, arguments: &[&str]) -> String {
    let ended = cli(site, daemon, arguments);
    assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {:?}", ended.log);
    ended.stdout.join("\n")
}

fn ok_json(site: &Site, daemon: &Daemon, arguments: &[&str]) -> Value {
    let text = ok(site, daemon, arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

#[test]
fn exit_codes_tell_scripts_what_happened() {
    let site = Site::new();
    let daemon = site.start();
    let url = format!("http://{}", daemon.admin_address());
    let wrong = site.path().join("wrong-token");
    std::fs::write(&wrong, "not the token at all").unwrap();
    let wrong = wrong.to_str().unwrap();
    for (code, arguments, words) in [
        (0, &["status", "--url", &url][..], "ready"),
        (1, &["device", "why", "nobody", "--url", &url], "nobody"),
        (1, &["device", "add", "a b", "--url", &url], "not a name"),
        (2, &["device", "add"], "Usage"),
        (2, &["device", "list", "--online", "--offline"], "cannot be used with"),
        (2, &["deployment", "create", "x"], "required"),
        (2, &["user", "set", "nobody", "--url", &url], "nothing to change"),
        (2, &["deployment", "set", "1", "--url", &url], "nothing to change"),
        (2, &["device", "set", "nobody", "--url", &url], "nothing to change"),
        (2, &["simulate", "--devices", "0"], "--devices"),
        (3, &["status", "--url", "http://127.0.0.1:1"], "cannot reach"),
        (4, &["status", "--url", &url, "--token-file", wrong], "opens nothing"),
        (4, &["status", "--url", &url, "--token-file", "/nowhere"], "cannot be read"),
    ] {
        let ended = site.run(arguments);
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {:?}", ended.log);
        assert!(ended.said(&[words]), "{arguments:?}: {:?}", ended.log);
        let lines = ended.stderr.iter().filter(|line| line.starts_with("fuotad: "));
        // Those that clap finds are its own, of several lines.
        let own = code != 0 && (code != 2 || words == "nothing to change");
        assert_eq!(lines.count(), usize::from(own), "{:?}", ended.stderr);
    }
}

/// What shows one thing as JSON takes `--json` as all the others do; and the doctor looks where the
/// other commands do.
#[test]
fn options_are_the_same_everywhere() {
    let site = Site::new();
    let daemon = site.start();
    ok(&site, &daemon, &["device", "add", "pump-1"]);
    ok(&site, &daemon, &["user", "add", "ann", "--role", "service"]);
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("c").v5());
    assert_eq!(client.publish(&Publish::new("t", "x").qos(1).retained()), 0);
    for (kind, name) in [("device", "pump-1"), ("user", "ann"), ("client", "c"), ("retained", "t")]
    {
        let plain = ok_json(&site, &daemon, &[kind, "show", name]);
        let json = ok_json(&site, &daemon, &[kind, "show", name, "--json"]);
        assert_eq!(plain.as_object().unwrap().len(), json.as_object().unwrap().len(), "{kind}");
    }
    // Its configuration leaves the port to the system.
    let url = format!("http://{}", daemon.admin_address());
    let mut doctor = site.command(&["doctor", "--json"]);
    let output = doctor.env("FUOTAD_URL", url).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("runs, and every part is up"), "{said}");
}

#[test]
fn every_listing_is_a_table_and_json() {
    let site = Site::new();
    site.drop_file("pump-1.0.0.bin", &image(1, 100));
    let daemon = site.start();
    ok(&site, &daemon, &["user", "add", "ann", "--role", "operator"]);
    ok(&site, &daemon, &["user", "token", "create", "ann", "--label", "ci"]);
    ok(&site, &daemon, &["device", "add", "pump-1"]);
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-2"));
    device.expect_update(&image(1, 100));
    daemon.admin().request("PUT", "/api/v1/freeze", None);
    let message = support::Publish::new("plant/a", "warm").qos(1).retained();
    device.client.publish(&message);
    eventually("the timeline is written", || {
        let lines = daemon.admin().get("/api/v1/devices/pump-2/timeline");
        (lines["timeline"].as_array().unwrap().len() == 2).then_some(())
    });
    for (listing, words) in [
        (&["device", "list"][..], "pump-1"),
        (&["device", "timeline", "pump-2"], "downloaded"),
        (&["user", "list"], "ann"),
        (&["user", "token", "list", "ann"], "ci"),
        (&["firmware", "list"], "pump-1.0.0.bin"),
        (&["deployment", "list"], "running"),
        (&["client", "list"], "pump-2"),
        (&["retained", "list"], "plant/a"),
        (&["audit"], "token made"),
    ] {
        let table = ok(&site, &daemon, listing);
        assert!(table.contains(words) && !table.contains('{'), "{listing:?}: {table}");
        let json = ok_json(&site, &daemon, &[listing, &["--json"]].concat());
        assert!(json.as_array().is_some_and(|rows| !rows.is_empty()), "{listing:?}: {json}");
        assert!(json.to_string().contains(words), "{listing:?}: {json}");
    }
    for one in [
        &["device", "show", "pump-1"][..],
        &["user", "show", "ann"],
        &["firmware", "show", "pump-1.0.0.bin", "--json"],
        &["deployment", "show", "1", "--json"],
        &["client", "show", "pump-2"],
        &["retained", "show", "plant/a"],
        &["device", "why", "pump-1", "--json"],
        &["freeze", "--show", "--json"],
        &["status", "--json"],
        &["openapi"],
    ] {
        assert!(ok_json(&site, &daemon, one).is_object(), "{one:?}");
    }
    assert!(ok(&site, &daemon, &["freeze", "--show"]).contains("by admin token"));
    assert_eq!(
        ok_json(&site, &daemon, &["audit", "--limit", "1", "--json"])[0]["action"],
        "frozen"
    );
}

#[test]
fn a_users_token_is_made_used_and_revoked() {
    let site = Site::new();
    let daemon = site.start();
    ok(&site, &daemon, &["user", "add", "ann", "--role", "operator"]);
    let create = ["user", "token", "create", "ann", "--expires-in-days", "30", "--json"];
    let made = ok_json(&site, &daemon, &[&create[..], &["--idempotency-key", "k"]].concat());
    assert_eq!(made["expires"].as_u64().unwrap() - made["created"].as_u64().unwrap(), 30 * 86_400);
    let again = ok_json(&site, &daemon, &[&create[..], &["--idempotency-key", "k"]].concat());
    assert_eq!(made, again);
    let file = site.path().join("ann-token");
    std::fs::write(&file, made["token"].as_str().unwrap()).unwrap();
    let by_ann = ["--token-file", file.to_str().unwrap()];
    let run = |arguments: &[&str]| cli(&site, &daemon, &[arguments, &by_ann[..]].concat());
    assert_eq!(run(&["freeze"]).status.code(), Some(0));
    let refused = run(&["user", "list"]);
    assert_eq!(refused.status.code(), Some(1), "the role may not: {:?}", refused.log);
    assert!(refused.said(&["role operator"]), "{:?}", refused.log);
    let id = made["id"].as_str().unwrap();
    ok(&site, &daemon, &["user", "token", "revoke", "ann", id]);
    assert_eq!(run(&["freeze", "--show"]).status.code(), Some(4));
    assert_eq!(cli(&site, &daemon, &["user", "token", "revoke", "ann", id]).status.code(), Some(1));
}

#[test]
fn creates_can_be_repeated_and_tried() {
    let site = Site::new();
    let daemon = site.start();
    std::fs::write(site.path().join("fleet.csv"), "id,model\na,x\nb,x\n").unwrap();
    std::fs::write(site.path().join("valve-1.0.0.bin"), "an-image").unwrap();
    let csv = site.path().join("fleet.csv");
    let bin = site.path().join("valve-1.0.0.bin");
    assert!(ok(&site, &daemon, &["device", "add", "p", "--dry-run"]).contains("would be"));
    assert!(daemon.admin().rows("devices").is_empty());
    for create in [
        &["device", "add", "p"][..],
        &["user", "add", "ann", "--role", "service"],
        &["device", "import", csv.to_str().unwrap()],
        &["firmware", "upload", bin.to_str().unwrap()],
        &["deployment", "create", "uploads/valve-1.0.0.bin", "--all"],
    ] {
        let keyed = [create, &["--idempotency-key", "k"]].concat();
        let first = ok(&site, &daemon, &keyed);
        assert_eq!(ok(&site, &daemon, &keyed), first, "{create:?}: the same, with its secrets");
    }
    assert_eq!(daemon.admin().rows("devices").len(), 3);
}

#[test]
fn a_watched_deployment_ends_with_its_outcome() {
    let mut site = Site::new();
    site.set("fuota.confirm_after", "\"100ms\"").set("fuota.on_drop", "\"catalog\"");
    let daemon = site.start();
    let bytes = image(1, 20_000);
    site.drop_file("pump-1.0.0.bin", &bytes);
    eventually("the file is there", || (daemon.admin().rows("firmware").len() == 1).then_some(()));
    let (done, stop) = std::sync::mpsc::channel::<()>();
    let device = std::thread::spawn({
        let (mqtt, bytes) = (daemon.mqtt(), bytes.clone());
        move || {
            let mut device = Device::connect(mqtt, &Connect::id("good"));
            device.expect_update(&bytes);
            // Whoever is heard of after the last block counts as updated.
            while stop.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                device.client.ping();
            }
        }
    });
    eventually("the device is known", || (daemon.admin().rows("devices").len() == 1).then_some(()));
    let create = ["deployment", "create", "pump-1.0.0.bin", "--all", "--rollout", "all", "--watch"];
    let ended = cli(&site, &daemon, &create);
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.log);
    assert_eq!(ended.stdout[0], "1", "the number comes first, for scripts");
    assert!(ended.stderr.iter().any(|line| line.starts_with("1/1 running")), "{:?}", ended.stderr);
    let shown = ok(&site, &daemon, &["device", "show", "good", "--watch"]);
    assert!(shown.starts_with("updated_unconfirmed 1.0.0"), "{shown}");
    drop(done);
    device.join().unwrap();

    // One that fails, and one that was cancelled.
    let other = image(2, 20_000);
    site.drop_file("pump-2.0.0.bin", &other);
    eventually("the other is there", || (daemon.admin().rows("firmware").len() == 2).then_some(()));
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("good"));
    let id = ok(&site, &daemon, &["deployment", "create", "pump-2.0.0.bin", "--all"]);
    device.expect_update(&other);
    device.send(&json!({"variable": "firmware_status", "value": "failed"}));
    let ended = cli(&site, &daemon, &["deployment", "show", id.trim(), "--watch"]);
    assert_eq!(ended.status.code(), Some(1), "{:?}", ended.log);
    assert!(ended.said(&["1 devices did not get it"]), "{:?}", ended.log);
    let ended = cli(&site, &daemon, &["device", "show", "good", "--watch"]);
    assert_eq!(ended.status.code(), Some(1), "{:?}", ended.log);
    assert!(ended.said(&["failed 2.0.0"]), "{:?}", ended.log);
    ok(&site, &daemon, &["deployment", "cancel", id.trim()]);
    let ended = cli(&site, &daemon, &["deployment", "show", id.trim(), "--watch"]);
    assert_eq!(ended.status.code(), Some(1), "{:?}", ended.log);
    assert!(ended.said(&["the deployment is cancelled"]), "{:?}", ended.log);
}

#[test]
fn changes_are_printed_as_they_happen() {
    let site = Site::new();
    let daemon = site.start();
    ok(&site, &daemon, &["device", "add", "pump-1"]);
    ok(&site, &daemon, &["freeze"]);
    let lines = ok(&site, &daemon, &["events", "--no-follow", "--type", "known", "--type", "site"]);
    assert!(lines.contains("known  device=pump-1  what=registered"), "{lines}");
    assert!(lines.contains("site  frozen=true"), "{lines}");
    let all = ok(&site, &daemon, &["events", "--no-follow", "--json"]);
    let all: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let known = all.iter().position(|one| one["event"]["type"] == "known").unwrap();
    let since = ["events", "--no-follow", "--json", "--since", all[known]["id"].as_str().unwrap()];
    assert_eq!(ok(&site, &daemon, &since).lines().count(), all.len() - known - 1);
    // With a limit it waits for what comes.
    let url = format!("http://{}", daemon.admin_address());
    let mut command = site.command(&["events", "--type", "user", "--limit", "1", "--url", &url]);
    let mut waiting = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    eventually("it has heard of one", || {
        let name = format!("u-{}", daemon.admin().rows("users").len());
        ok(&site, &daemon, &["user", "add", &name, "--role", "service"]);
        waiting.try_wait().unwrap()
    });
    let output = waiting.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("user  user=u-"));
}
