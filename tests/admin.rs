//! The admin interface: its doors, its resources, and the commands that use it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::{Value, json};
use support::{
    Client, Connect, Daemon, Device, Publish, Site, TOPIC, daemon::Ended, eventually, image, sha256,
};

#[test]
fn everything_but_health_asks_for_the_token() {
    let site = Site::new();
    let daemon = site.start();
    let admin = daemon.admin();
    let host = format!("Host: {}", daemon.admin_address());
    for path in ["/healthz", "/readyz"] {
        assert_eq!(admin.raw("GET", path, &[&host], None).status, 200, "{path}");
    }
    let wrong = [
        vec![],
        vec!["Authorization: Bearer wrong".to_owned()],
        vec![format!("Authorization: Bearer {}x", admin.token())],
        vec![format!("Authorization: Basic {}", admin.token())],
        vec![format!("Authorization: Bearer {}", &admin.token()[..admin.token().len() - 1])],
    ];
    for path in ["devices", "devices/pump-1", "firmware", "clients", "status", "no-such-thing"] {
        for headers in &wrong {
            let mut all = vec![host.as_str()];
            all.extend(headers.iter().map(String::as_str));
            let response = admin.raw("GET", &format!("/api/v1/{path}"), &all, None);
            assert_eq!(response.status, 401, "{path} with {headers:?}");
        }
        // A token never stands in a query string.
        let query = format!("/api/v1/{path}?token={}", admin.token());
        let answer = admin.raw("GET", &query, &[&host], None);
        assert!([400, 401].contains(&answer.status), "{}", answer.status);
    }
}

#[test]
fn foreign_hosts_and_origins_are_turned_away() {
    let site = Site::new();
    let daemon = site.start();
    let admin = daemon.admin();
    let port = daemon.admin_address().port();
    let bearer = format!("Authorization: Bearer {}", admin.token());
    let get = |headers: &[String]| {
        let mut all: Vec<&str> = headers.iter().map(String::as_str).collect();
        all.push(&bearer);
        admin.raw("GET", "/api/v1/devices", &all, None).status
    };
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}")]
    {
        assert_eq!(get(&[format!("Host: {host}")]), 200, "{host}");
    }
    // What a page does whose name was pointed at this address.
    for host in
        ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"]
    {
        assert!((400..500).contains(&get(&[format!("Host: {host}")])), "{host}");
    }
    let host = format!("Host: 127.0.0.1:{port}");
    assert_eq!(get(&[host.clone(), format!("Origin: http://127.0.0.1:{port}")]), 200);
    for origin in
        ["http://evil.example", "null", "https://localhost.evil.example", "http://127.0.0.1:1"]
    {
        assert_eq!(get(&[host.clone(), format!("Origin: {origin}")]), 403, "{origin}");
    }
}

#[test]
fn a_device_is_added_once_and_logs_in_with_its_token() {
    let site = Site::new();
    let daemon = site.start();
    let admin = daemon.admin();
    let new =
        json!({"id": "pump-1", "groups": ["hall-2"], "labels": {"floor": "1"}, "model": "pump-x"});
    let made = admin.request("POST", "/api/v1/devices", Some(&new));
    assert_eq!(made.status, 201, "{}", made.body);
    let token = made.json()["token"].as_str().expect("token").to_owned();
    assert!(token.len() >= 22, "at least 128 bits");

    let one = admin.get("/api/v1/devices/pump-1");
    for key in ["id", "online", "version", "state", "progress"] {
        assert!(one.get(key).is_some(), "{key} in {one}");
    }
    assert_eq!(one["id"], "pump-1");
    assert_eq!(one["online"], false);
    assert_eq!(one["groups"], json!(["hall-2"]));
    assert_eq!(one["labels"], json!({"floor": "1"}));
    assert_eq!(one["model"], "pump-x");
    assert!(!one.to_string().contains(&token), "the token is shown once");
    assert!(!admin.get("/api/v1/devices").to_string().contains(&token));

    let again = admin.request("POST", "/api/v1/devices", Some(&new));
    assert_eq!(again.status, 409, "{}", again.body);
    assert!(again.head.to_lowercase().contains("application/problem+json"), "{}", again.head);

    // A registered id always needs its own proof, also in open mode: rule 2.
    assert!(Client::try_connect(daemon.mqtt(), &Connect::id("pump-1")).is_err());
    let wrong = Connect { client_id: "pump-1".into(), ..Connect::token("another-token") };
    assert!(Client::try_connect(daemon.mqtt(), &wrong).is_err());
    let device = Device::connect(daemon.mqtt(), &Connect::token(&token));
    eventually("online", || (admin.get("/api/v1/devices/pump-1")["online"] == true).then_some(()));
    device.client.disconnect();
    eventually("offline", || {
        (admin.get("/api/v1/devices/pump-1")["online"] == false).then_some(())
    });
    // As a ThingsBoard device logs in: the token as user name, an empty password.
    let user = Connect { username: Some(token), password: Some(Vec::new()), ..Connect::default() };
    let _device = Device::connect(daemon.mqtt(), &user);
    eventually("online again", || {
        (admin.get("/api/v1/devices/pump-1")["online"] == true).then_some(())
    });
}

#[test]
fn a_token_may_be_given_if_it_is_long_enough() {
    let site = Site::new();
    let daemon = site.start();
    let admin = daemon.admin();
    let add = |id: &str, token: &str| {
        admin.request("POST", "/api/v1/devices", Some(&json!({"id": id, "token": token}))).status
    };
    assert!((400..500).contains(&add("short", "0123456789")), "below 128 bits");
    let token = "0123456789abcdef0123456789abcdef";
    assert_eq!(add("long", token), 201);
    assert_eq!(add("twin", token), 409, "a token names one device");
    Client::connect(daemon.mqtt(), &Connect::token(token)).ping();
}

#[test]
fn bad_requests_are_problems_that_name_the_field() {
    let site = Site::new();
    let daemon = site.start();
    let admin = daemon.admin();
    for (body, field) in [
        (json!({}), "id"),
        (json!({"id": ""}), "id"),
        (json!({"id": "a b"}), "id"),
        (json!({"id": "-x"}), "id"),
        (json!({"id": "x".repeat(129)}), "id"),
        (json!({"id": 5}), "id"),
        (json!({"id": "a", "groups": ["not a name"]}), "groups"),
        (json!({"id": "a", "model": "not a name"}), "model"),
        (json!({"id": "a", "colour": "red"}), "colour"),
    ] {
        let response = admin.request("POST", "/api/v1/devices", Some(&body));
        assert!((400..500).contains(&response.status), "{body}: {}", response.status);
        assert!(
            response.head.to_lowercase().contains("application/problem+json"),
            "{}",
            response.head
        );
        assert!(response.body.contains(field), "{body}: {}", response.body);
    }
    for path in ["devices/nobody", "firmware/nothing", "clients/nobody", "no-such-thing"] {
        assert_eq!(admin.request("GET", &format!("/api/v1/{path}"), None).status, 404, "{path}");
    }
    assert_eq!(admin.request("DELETE", "/api/v1/status", None).status, 405);
    assert!(admin.rows("devices").is_empty(), "nothing was added");
}

#[test]
fn progress_of_a_device_can_be_watched() {
    let site = Site::new();
    let bytes = image(1, 10 * 4096);
    site.drop_file("pump-1.4.2.bin", &bytes);
    let daemon = site.start();
    let admin = daemon.admin();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    let manifest = device.manifest();
    for index in 0..4 {
        device.fetch(index);
    }
    eventually("four chunks are counted", || {
        let one = admin.get("/api/v1/devices/pump-1");
        (one["progress"]["chunks_sent"] == 4).then_some(one)
    });
    let one = admin.get("/api/v1/devices/pump-1");
    assert_eq!(one["progress"]["chunks_total"], 10);
    assert_eq!(one["state"], "downloading");
    // A chunk that is asked for twice is counted once.
    device.fetch(3);
    for index in 4..manifest.chunks {
        device.fetch(index);
    }
    eventually("downloaded", || {
        let one = admin.get("/api/v1/devices/pump-1");
        (one["state"] == "downloaded" && one["progress"]["chunks_sent"] == 10).then_some(())
    });
    let firmware = admin.rows("firmware");
    assert_eq!(firmware.len(), 1);
    assert_eq!(firmware[0]["version"], json!({"value": "1.4.2", "from": "file name"}));
    assert_eq!(firmware[0]["title"], json!({"value": "pump", "from": "file name"}));
    assert_eq!(firmware[0]["size"], 10 * 4096);
    assert_eq!(firmware[0]["digest"], sha256(&bytes));
    let id =
        firmware[0]["id"].as_str().map_or_else(|| firmware[0]["id"].to_string(), str::to_owned);
    assert_eq!(admin.get(&format!("/api/v1/firmware/{id}"))["path"], "pump-1.4.2.bin");
}

#[test]
fn clients_are_listed_with_their_subscriptions() {
    let site = Site::new();
    let daemon = site.start();
    let admin = daemon.admin();
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("dashboard").v5());
    client.subscribe("plant/#", 1);
    let away = Connect::id("away").persistent();
    let mut sleeper = Client::connect(daemon.mqtt(), &away);
    sleeper.subscribe("plant/+", 2);
    sleeper.disconnect();
    client.publish(&Publish::new("plant/x", "waiting").qos(1));
    let one = admin.get("/api/v1/clients/dashboard");
    assert_eq!((&one["id"], &one["connected"]), (&json!("dashboard"), &json!(true)));
    assert!(one["subscriptions"].to_string().contains("plant/#"), "{one}");
    let one = eventually("away, with a queue", || {
        let one = admin.get("/api/v1/clients/away");
        (one["connected"] == false).then_some(one)
    });
    assert_eq!(one["queued_messages"], 1, "{one}");
    assert_eq!(admin.rows("clients").len(), 2);
}

#[test]
fn readiness_follows_the_store() {
    let site = Site::new();
    let daemon = site.start();
    let ready = daemon.admin().request("GET", "/readyz", None);
    assert_eq!(ready.status, 200, "{}", ready.body);
    std::fs::rename(site.firmware(), site.path().join("away")).unwrap();
    eventually("not ready", || {
        let ready = daemon.admin().request("GET", "/readyz", None);
        (ready.status == 503 && ready.body.contains("store")).then_some(())
    });
    assert_eq!(daemon.admin().request("GET", "/healthz", None).status, 200, "alive all the same");
}

/// Runs a command against the daemon, through its configuration.
fn cli(site: &Site, daemon: &Daemon, arguments: &[&str]) -> Ended {
    let mut command = site.command(arguments);
    // The port was chosen by the system, so the file cannot name it.
    command.env("FUOTAD__ADMIN__LISTEN", daemon.admin_address().to_string());
    support::daemon::run_to_end(command)
}

fn cli_json(site: &Site, daemon: &Daemon, arguments: &[&str]) -> Value {
    let ended = cli(site, daemon, arguments);
    assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {}", ended.log.join("\n"));
    let text = ended.stdout.join("\n");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

#[test]
fn the_commands_do_what_the_interface_does() {
    let site = Site::new();
    site.drop_file("pump-1.4.2.bin", &image(2, 5_000));
    site.drop_file("attic/lost.bin", &image(3, 5_000));
    let daemon = site.start();

    let added =
        cli(&site, &daemon, &["device", "add", "pump-1", "--group", "hall-2", "--model", "pump-x"]);
    assert_eq!(added.status.code(), Some(0), "{}", added.log.join("\n"));
    let listed = cli_json(&site, &daemon, &["device", "list", "--json"]).to_string();
    assert!(listed.contains("pump-1") && listed.contains("hall-2"), "{listed}");
    let table = cli(&site, &daemon, &["device", "list"]);
    assert!(table.said(&["pump-1"]), "{}", table.log.join("\n"));

    let set = cli(&site, &daemon, &["device", "set", "pump-1", "--model", "pump-y"]);
    assert_eq!(set.status.code(), Some(0), "{}", set.log.join("\n"));
    assert_eq!(daemon.admin().get("/api/v1/devices/pump-1")["model"], "pump-y");

    eventually("both files are listed", || {
        (daemon.admin().rows("firmware").len() == 2).then_some(())
    });
    let listed = cli_json(&site, &daemon, &["firmware", "list", "--json"]).to_string();
    assert!(listed.contains("pump-1.4.2.bin") && listed.contains("refused"), "{listed}");
    let table = cli(&site, &daemon, &["firmware", "list"]);
    assert!(table.said(&["pump-1.4.2.bin"]), "{}", table.log.join("\n"));
    assert!(table.said(&["attic", "not a folder"]), "says why: {}", table.log.join("\n"));

    cli_json(&site, &daemon, &["status", "--json"]);
    assert_eq!(cli(&site, &daemon, &["status"]).status.code(), Some(0));
}

#[test]
fn clients_and_retained_messages_by_command() {
    let site = Site::new();
    let daemon = site.start();
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("hall/dashboard").v5());
    client.subscribe("plant/#", 1);
    for (topic, payload) in [("plant/a", &b"warm"[..]), ("plant/b", &[0xff, 0xfe]), ("x", b"y")] {
        client.publish(&Publish::new(topic, payload).qos(1).retained());
    }
    let listed = cli_json(&site, &daemon, &["client", "list", "--prefix", "hall/", "--json"]);
    assert_eq!(listed[0]["id"], "hall/dashboard", "{listed}");
    assert_eq!(cli_json(&site, &daemon, &["client", "list", "--away", "--json"]), json!([]));
    let shown = cli_json(&site, &daemon, &["client", "show", "hall/dashboard"]);
    assert_eq!(shown["subscriptions"], json!([{"filter": "plant/#", "qos": 1}]));

    let table = cli(&site, &daemon, &["retained", "list", "plant/#"]);
    assert!(table.said(&["plant/a", "4", "warm"]), "{}", table.log.join("\n"));
    assert!(table.said(&["plant/b", "2", "(binary)"]), "{}", table.log.join("\n"));
    assert!(!table.said(&["x", "y"]), "{}", table.log.join("\n"));
    let all = cli_json(&site, &daemon, &["retained", "list", "--json"]);
    assert_eq!(all.as_array().unwrap().len(), 3, "{all}");
    let one = cli_json(&site, &daemon, &["retained", "show", "plant/b"]);
    assert_eq!((&one["encoding"], &one["payload"]), (&json!("base64"), &json!("//4=")));
    for (arguments, words) in [
        (&["retained", "show", "plant/c"][..], "nothing is retained"),
        (&["retained", "show", "plant/+"], "is a filter"),
        (&["retained", "list", "a#"], "wildcard"),
        (&["retained", "delete", "plant/#"], "--yes"),
        (&["retained", "delete", "$SYS/#", "--yes"], "belong to the broker"),
        (&["client", "disconnect", "nobody"], "nobody"),
    ] {
        let ended = cli(&site, &daemon, arguments);
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}");
        assert!(ended.said(&[words]), "{arguments:?}: {}", ended.log.join("\n"));
    }
    let removed = cli(&site, &daemon, &["retained", "delete", "plant/#", "--yes"]);
    assert!(removed.said(&["2 removed"]), "{}", removed.log.join("\n"));
    assert_eq!(daemon.admin().rows("retained").len(), 1);
    let again = cli_json(&site, &daemon, &["retained", "delete", "plant/#", "--yes", "--json"]);
    assert_eq!(again, json!({"removed": 0}));

    let gone = cli(&site, &daemon, &["client", "disconnect", "hall/dashboard"]);
    assert_eq!(gone.status.code(), Some(0), "{}", gone.log.join("\n"));
    assert_eq!(client.expect_closed(), Some(0x98), "administrative action");
}

#[test]
fn commands_that_fail_exit_with_a_line_that_says_why() {
    let site = Site::new();
    let daemon = site.start();
    for (arguments, word) in [
        (&["device", "set", "nobody", "--model", "m"][..], "nobody"),
        (&["device", "add", "not a name"][..], "not a name"),
        (&["device", "explode"][..], "explode"),
    ] {
        let ended = cli(&site, &daemon, arguments);
        assert!(ended.status.code().is_some_and(|code| code > 0), "{arguments:?}");
        assert!(ended.said(&[word]), "{arguments:?}: {}", ended.log.join("\n"));
    }
    let address = daemon.admin_address().to_string();
    daemon.stop();
    let mut command = site.command(&["status"]);
    command.env("FUOTAD__ADMIN__LISTEN", &address);
    let ended = support::daemon::run_to_end(command);
    assert!(ended.status.code().is_some_and(|code| code > 0));
    assert!(ended.said(&[&address]), "says where nobody answered: {}", ended.log.join("\n"));
}

#[test]
fn a_model_only_fills_an_empty_value() {
    let site = Site::new();
    let daemon = site.start();
    let admin = daemon.admin();
    let new = json!({"id": "pump-1", "model": "pump-x"});
    let made = admin.request("POST", "/api/v1/devices", Some(&new)).json();
    let token = made["token"].as_str().expect("token").to_owned();
    let mut connect = Connect::token(&token).v5();
    connect.user_properties = vec![("model".into(), "pump-z".into())];
    let mut device = Device::connect(daemon.mqtt(), &connect);
    let status =
        json!({"variable": "firmware_status", "value": "online", "metadata": {"model": "pump-z"}});
    device.client.publish(&Publish::new(TOPIC, status.to_string()).qos(1));
    assert_eq!(admin.get("/api/v1/devices/pump-1")["model"], "pump-x");
}
