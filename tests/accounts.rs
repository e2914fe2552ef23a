//! Accounts and what they may do: rules 1 to 3, 24 to 26 and 28.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::{Value, json};
use support::{
    Client, Connect, Daemon, Device, Publish, Site, TOPIC, client::Refused, eventually,
    http::Admin, image,
};

const TOKEN: &str = "token-of-pump-1-0123456789";
const PASSWORD: &str = "correct horse battery";
/// CONNACK codes of MQTT 3.1.1 and 5.
const BAD_LOGIN: Refused = Refused(4);
const NOT_AUTHORIZED: Refused = Refused(5);
const BAD_LOGIN_5: Refused = Refused(0x86);
const NOT_AUTHORIZED_5: Refused = Refused(0x87);
const BUSY_5: Refused = Refused(0x89);

fn token_site() -> Site {
    let mut site = Site::new();
    site.set("auth.mode", "\"token\"");
    site
}

fn login(client: &str, user: &str, password: &str) -> Connect {
    Connect { username: Some(user.into()), password: Some(password.into()), ..Connect::id(client) }
}

fn add_user(daemon: &Daemon, name: &str, role: &str) {
    let user = json!({"name": name, "role": role, "password": PASSWORD});
    let answer = daemon.admin().request("POST", "/api/v1/users", Some(&user));
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert!(!answer.body.contains(PASSWORD), "{}", answer.body);
}

fn add_device(daemon: &Daemon, id: &str, token: &str) {
    let device = json!({"id": id, "token": token});
    let answer = daemon.admin().request("POST", "/api/v1/devices", Some(&device));
    assert_eq!(answer.status, 201, "{}", answer.body);
}

fn try_connect(daemon: &Daemon, connect: &Connect) -> Result<Client, Refused> {
    Client::try_connect(daemon.mqtt(), connect).map(|(client, _)| client)
}

fn refusal(daemon: &Daemon, connect: &Connect) -> Refused {
    try_connect(daemon, connect).err().unwrap_or_else(|| panic!("let in: {connect:?}"))
}

#[test]
fn token_mode_lets_in_who_proves_an_account_and_nobody_else() {
    let site = token_site();
    let image = image(1, 3 * 4096);
    let daemon = site.start();
    // Not before: what is there at the very first start is held.
    site.drop_file("devices/pump-1/fw.bin", &image);
    add_device(&daemon, "pump-1", TOKEN);
    add_user(&daemon, "dashboard", "service");
    for (absent_or_wrong, v4, v5) in [
        (Connect::id("x"), NOT_AUTHORIZED, NOT_AUTHORIZED_5),
        (Connect::default(), NOT_AUTHORIZED, NOT_AUTHORIZED_5),
        (Connect::token("a token that nobody has"), BAD_LOGIN, BAD_LOGIN_5),
        (login("x", "dashboard", "wrong horse"), BAD_LOGIN, BAD_LOGIN_5),
    ] {
        assert_eq!(refusal(&daemon, &absent_or_wrong), v4, "{absent_or_wrong:?}");
        if v5 == NOT_AUTHORIZED_5 {
            assert_eq!(refusal(&daemon, &absent_or_wrong.v5()), v5);
        }
    }
    let mut pump = Device::connect(daemon.mqtt(), &Connect::token(TOKEN));
    pump.expect_update(&image);
    drop(try_connect(&daemon, &login("x", "dashboard", PASSWORD)).unwrap());
    drop(try_connect(&daemon, &login("x", "dashboard", PASSWORD).v5()).unwrap());
    drop(try_connect(&daemon, &login("y", "pump-1", TOKEN)).unwrap());
    let ids: Vec<_> = daemon.admin().rows("devices").iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, ["pump-1"], "rule 1: a service is no device");
}

#[test]
fn open_mode_knows_accounts_and_asks_nobody_else() {
    let site = Site::new();
    let daemon = site.start();
    add_user(&daemon, "dashboard", "service");
    drop(try_connect(&daemon, &Connect::id("x")).unwrap());
    drop(try_connect(&daemon, &login("x", "somebody", "something")).unwrap());
    assert_eq!(refusal(&daemon, &login("x", "dashboard", "wrong horse")), BAD_LOGIN);
    let client = try_connect(&daemon, &login("d", "dashboard", PASSWORD)).unwrap();
    let session = daemon.admin().get("/api/v1/clients/d");
    assert_eq!((&session["name"], &session["role"]), (&json!("dashboard"), &json!("service")));
    client.disconnect();
    assert!(daemon.stop().status.success());
    let daemon = site.start();
    drop(try_connect(&daemon, &login("d", "dashboard", PASSWORD)).unwrap());
}

#[test]
fn another_account_cannot_take_a_session_over() {
    let site = token_site();
    let daemon = site.start();
    add_device(&daemon, "pump-1", TOKEN);
    add_device(&daemon, "pump-2", "token-of-pump-2-0123456789");
    add_user(&daemon, "dashboard", "service");
    let mine = Connect { username: Some("Token".into()), ..login("mine", "", TOKEN) };
    let mut owner = Client::connect(daemon.mqtt(), &mine.clone().persistent());
    owner.subscribe("plant/#", 1);
    let thief = Connect { password: Some("token-of-pump-2-0123456789".into()), ..mine.clone() };
    assert_eq!(refusal(&daemon, &thief), NOT_AUTHORIZED);
    assert_eq!(refusal(&daemon, &thief.clone().v5()), NOT_AUTHORIZED_5);
    assert_eq!(refusal(&daemon, &login("mine", "dashboard", PASSWORD)), NOT_AUTHORIZED);
    owner.ping();
    // Nor while the owner is away: the session waits for its account.
    owner.disconnect();
    assert_eq!(refusal(&daemon, &thief), NOT_AUTHORIZED);
    let (owner, present) = Client::connect_session(daemon.mqtt(), &mine.clone().persistent());
    assert!(present);
    drop(owner);
    // Nor after the broker was killed.
    daemon.kill();
    let daemon = site.start();
    assert_eq!(refusal(&daemon, &thief), NOT_AUTHORIZED);
    assert_eq!(refusal(&daemon, &login("mine", "dashboard", PASSWORD)), NOT_AUTHORIZED);
    let (owner, present) = Client::connect_session(daemon.mqtt(), &mine.persistent());
    assert!(present);
    drop(owner);
    // A registered id is a claim of its own.
    let impostor = login("pump-1", "Token", "token-of-pump-2-0123456789");
    assert_eq!(refusal(&daemon, &impostor), BAD_LOGIN);
}

#[test]
fn removal_disconnects_at_once() {
    let site = token_site();
    let daemon = site.start();
    add_device(&daemon, "pump-1", TOKEN);
    add_user(&daemon, "dashboard", "service");
    let mut pump = Client::connect(daemon.mqtt(), &Connect::token(TOKEN).v5());
    pump.subscribe(TOPIC, 0);
    let dashboards: Vec<_> = ["d1", "d2"]
        .map(|id| Client::connect(daemon.mqtt(), &login(id, "dashboard", PASSWORD).v5()))
        .into();
    for path in ["/api/v1/users/dashboard", "/api/v1/devices/pump-1"] {
        assert_eq!(daemon.admin().request("DELETE", path, None).status, 204, "{path}");
        assert_eq!(daemon.admin().request("DELETE", path, None).status, 404, "{path}");
    }
    for client in dashboards {
        assert_eq!(client.expect_closed(), Some(0x98), "administrative action");
    }
    assert_eq!(pump.expect_closed(), Some(0x98));
    assert_eq!(refusal(&daemon, &login("d1", "dashboard", PASSWORD)), BAD_LOGIN);
    assert_eq!(refusal(&daemon, &Connect::token(TOKEN)), BAD_LOGIN);
}

/// Whoever gets the name or the client id later finds nothing of it, and who only has a new token
/// loses nothing.
#[test]
fn a_removed_account_takes_its_sessions_along() {
    const SECOND: &str = "token-of-pump-2-0123456789";
    let site = token_site();
    let daemon = site.start();
    add_device(&daemon, "pump-1", TOKEN);
    add_device(&daemon, "pump-2", SECOND);
    add_user(&daemon, "dashboard", "service");
    add_user(&daemon, "writer", "service");
    let lasting = |client: &str, user: &str, password: &str| Connect {
        session_expiry: Some(3600),
        clean: false,
        ..login(client, user, password).v5()
    };
    let mut away = vec![
        lasting("pump-1", "Token", TOKEN),
        lasting("hall", "pump-1", TOKEN),
        lasting("d", "dashboard", PASSWORD),
        lasting("pump-2", "Token", SECOND),
    ];
    for connect in &away {
        let mut client = Client::connect(daemon.mqtt(), connect);
        assert_eq!(client.subscribe("plant/#", 1), 1);
        client.disconnect();
    }
    let with_will =
        lasting("online", "pump-1", TOKEN).will(Publish::new("state/pump-1", "gone").qos(1));
    let mut online = Client::connect(daemon.mqtt(), &with_will);
    online.subscribe("plant/#", 1);
    let mut writer = Client::connect(daemon.mqtt(), &login("w", "writer", PASSWORD));
    writer.subscribe("state/#", 1);
    writer.publish(&Publish::new("plant/1", "for those that are there").qos(1));
    assert_eq!(online.next_publish().topic, "plant/1");

    let second =
        cli_json(&site, &daemon, &["device", "token", "rotate", "pump-2", "--now", "--json"]);
    away[3] = lasting("pump-2", "Token", second["token"].as_str().unwrap());
    for path in ["/api/v1/users/dashboard", "/api/v1/devices/pump-1"] {
        assert_eq!(daemon.admin().request("DELETE", path, None).status, 204, "{path}");
    }
    assert_eq!(online.expect_closed(), Some(0x98));
    assert_eq!(writer.next_publish().text(), "gone", "its will says that it is not there");
    let sessions = |daemon: &Daemon| -> Vec<String> {
        let rows = daemon.admin().rows("clients");
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    eventually("the sessions have ended", || (sessions(&daemon) == ["pump-2", "w"]).then_some(()));
    // A record behind those of their end.
    writer.publish(&Publish::new("plant/2", "x").qos(1).retained());
    daemon.kill();
    let daemon = site.start();
    assert_eq!(sessions(&daemon), ["pump-2"]);
    // The names are free, and those who get them begin with nothing.
    add_device(&daemon, "pump-1", TOKEN);
    add_user(&daemon, "dashboard", "service");
    for (connect, there) in away.iter().zip([false, false, false, true]) {
        let (mut client, present) = Client::connect_session(daemon.mqtt(), connect);
        assert_eq!(present, there, "{}", connect.client_id);
        if there {
            assert_eq!(client.next_publish().topic, "plant/1");
            assert_eq!(client.next_publish().topic, "plant/2");
        }
        client.expect_silence();
    }
}

/// What the rules keep from a user over MQTT, the admin interface keeps from it as well.
#[test]
fn rules_count_for_retained_messages_over_rest() {
    let mut site = token_site();
    let rules = r#"["deny user:dashboard,operator subscribe payroll/#", "deny service all %c/x"]"#;
    site.set("auth.rules", rules);
    let daemon = site.start();
    add_user(&daemon, "writer", "admin");
    let mut writer = Client::connect(daemon.mqtt(), &login("w", "writer", PASSWORD).v5());
    for topic in ["a/x", "payroll/1", "payroll/2/x", "plant/1", "z"] {
        assert_eq!(writer.publish(&Publish::new(topic, topic).qos(1).retained()), 0);
    }
    let token = |user: &str| {
        let path = format!("/api/v1/users/{user}/tokens");
        let answer = daemon.admin().request("POST", &path, Some(&json!({})));
        answer.json()["token"].as_str().unwrap().to_owned()
    };
    let read = |admin: &Admin, query: &str| -> Vec<String> {
        let page = admin.get(&format!("/api/v1/retained?{query}"));
        let rows = page["retained"].as_array().unwrap().iter();
        rows.map(|row| row["topic"].as_str().unwrap().to_owned()).collect()
    };
    let all = ["a/x", "payroll/1", "payroll/2/x", "plant/1", "z"];
    for (user, role, expected) in [
        // Its client id might be anything.
        ("dashboard", "service", &[][..]),
        ("historian", "service", &[]),
        ("ann", "operator", &["a/x", "plant/1", "z"]),
        ("root", "admin", &all),
    ] {
        add_user(&daemon, user, role);
        let admin = Admin::new(daemon.admin_address(), &token(user));
        assert_eq!(read(&admin, ""), expected, "{user}");
        let hidden = if role == "admin" { &all[1..3] } else { &[] };
        assert_eq!(read(&admin, "filter=payroll/%23"), hidden, "{user}");
    }
    assert_eq!(read(&daemon.admin(), "limit=3"), all[..3], "the admin token is nobody's");
    site.set("auth.rules", r#"["deny user:dashboard subscribe payroll/#"]"#);
    site.write_config();
    daemon.hang_up();
    daemon.expect_log(&["SIGHUP: done"]);
    let admin = Admin::new(daemon.admin_address(), &token("dashboard"));
    assert_eq!(read(&admin, ""), ["a/x", "plant/1", "z"]);
}

#[test]
fn a_token_is_rotated_and_cut() {
    let site = token_site();
    let daemon = site.start();
    add_device(&daemon, "pump-1", TOKEN);
    let rotate = |now: bool| -> String {
        let mut arguments = vec!["device", "token", "rotate", "pump-1", "--json"];
        arguments.extend(now.then_some("--now"));
        cli_json(&site, &daemon, &arguments)["token"].as_str().unwrap().to_owned()
    };
    let old = Client::connect(daemon.mqtt(), &Connect::token(TOKEN));
    let second = rotate(false);
    drop(try_connect(&daemon, &Connect::token(TOKEN)).unwrap());
    drop(try_connect(&daemon, &Connect::token(&second)).unwrap());
    assert_eq!(refusal(&daemon, &Connect::token(TOKEN)), BAD_LOGIN, "the new one has logged in");
    let third = rotate(true);
    old.expect_closed();
    assert_eq!(refusal(&daemon, &Connect::token(&second)), BAD_LOGIN);
    drop(try_connect(&daemon, &Connect::token(&third)).unwrap());
}

#[test]
fn devices_are_imported_all_or_none_and_a_dry_run_adds_none() {
    let site = token_site();
    let daemon = site.start();
    add_device(&daemon, "pump-1", TOKEN);
    let import = |table: &str, arguments: &[&str]| {
        std::fs::write(site.path().join("fleet.csv"), table).unwrap();
        let file = site.path().join("fleet.csv").display().to_string();
        cli(&site, &daemon, &[&["device", "import", &file], arguments].concat())
    };
    let ids = || daemon.admin().rows("devices").len();
    let good = "id,token,model,groups,label.floor\n\
                pump-2,token-of-pump-2-0123456789,pump-x,hall-1 hall-2,3\n\
                pump-3,,,,\n";
    let ended = import(good, &["--dry-run"]);
    assert!(ended.status.success() && ended.said(&["2 devices would be added"]), "{:?}", ended.log);
    assert_eq!(ids(), 1);
    let bad = format!("{good}pump-1,,,,\nno name,,,,\npump-4,short,,,\npump-5,{TOKEN},,,\n");
    for arguments in [&["--dry-run"][..], &[]] {
        let ended = import(&bad, arguments);
        assert!(!ended.status.success());
        for words in [
            ["line 4", "registered already"],
            ["line 5", "is not a name"],
            ["line 6", "128 bits"],
            ["line 7", "another device's"],
            ["4 of 6 rows", "nothing was changed"],
        ] {
            assert!(ended.said(&words), "{words:?} in {:?}", ended.log);
        }
        assert!(!ended.said(&[TOKEN]));
        assert_eq!(ids(), 1);
    }
    let ended = import(good, &[]);
    assert!(ended.status.success() && !ended.said(&["token-of-pump-2"]), "{:?}", ended.log);
    let made = ended.stdout.iter().find_map(|line| line.strip_prefix("pump-3,")).unwrap();
    drop(try_connect(&daemon, &Connect::token(made)).unwrap());
    drop(try_connect(&daemon, &Connect::token("token-of-pump-2-0123456789")).unwrap());
    let pump = daemon.admin().get("/api/v1/devices/pump-2");
    assert_eq!(
        (&pump["model"], &pump["groups"], &pump["labels"]["floor"]),
        (&json!("pump-x"), &json!(["hall-1", "hall-2"]), &json!("3"))
    );
}

#[test]
fn the_commands_manage_users() {
    let site = token_site();
    let daemon = site.start();
    let added = cli_json(&site, &daemon, &["user", "add", "hist", "--role", "service", "--json"]);
    let password = added["password"].as_str().unwrap().to_owned();
    let client = Client::connect(daemon.mqtt(), &login("h", "hist", &password));
    std::fs::write(site.path().join("secret"), format!("{PASSWORD}\n")).unwrap();
    let secret = site.path().join("secret").display().to_string();
    let changed = cli_json(
        &site,
        &daemon,
        &["user", "set", "hist", "--role", "operator", "--password-file", &secret, "--json"],
    );
    assert_eq!((&changed["role"], &changed["password"]), (&json!("operator"), &Value::Null));
    client.expect_closed();
    assert_eq!(refusal(&daemon, &login("h", "hist", &password)), BAD_LOGIN);
    drop(try_connect(&daemon, &login("h", "hist", PASSWORD)).unwrap());
    let listed = cli(&site, &daemon, &["user", "list"]);
    assert!(listed.said(&["hist", "operator"]), "{:?}", listed.log);
    assert!(cli(&site, &daemon, &["user", "remove", "hist"]).status.success());
    let gone = cli(&site, &daemon, &["user", "remove", "hist"]);
    assert!(!gone.status.success() && gone.said(&["there is no user hist"]), "{:?}", gone.log);
    assert!(daemon.admin().rows("users").is_empty());
}

#[test]
fn failed_logins_slow_their_address_down_and_show_no_secret() {
    let site = token_site();
    let daemon = site.start();
    add_device(&daemon, "pump-1", TOKEN);
    add_user(&daemon, "dashboard", "service");
    let guess = login("guesser", "dashboard", "a wrong guess");
    let mut codes = Vec::new();
    for _ in 0..8 {
        codes.push(refusal(&daemon, &guess.clone().v5()));
    }
    assert_eq!(codes[..6], [0x86; 6].map(Refused));
    assert_eq!(codes[7], BUSY_5);
    daemon.expect_log(&["a login failed", "guesser", "dashboard", "the address waits"]);
    // A device with a valid token is not shut out with its neighbour.
    drop(try_connect(&daemon, &Connect::token(TOKEN)).unwrap());
    // The wait ends by itself.
    eventually("the wait is over", || {
        try_connect(&daemon, &login("d", "dashboard", PASSWORD)).ok()
    });
    let token_as_user =
        Connect { username: Some("some-secret-token-0123".into()), ..Connect::id("t") };
    refusal(&daemon, &token_as_user);
    let status = daemon.admin().get("/api/v1/status");
    let ended = daemon.stop();
    for secret in ["a wrong guess", PASSWORD, TOKEN, "some-secret-token-0123"] {
        assert!(!ended.said(&[secret]), "{secret} in {:#?}", ended.log);
        assert!(!status.to_string().contains(secret));
    }
    for entry in std::fs::read_dir(site.path().join("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            for secret in [PASSWORD, TOKEN] {
                let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                assert!(!found, "{secret} in {}", path.display());
            }
        }
    }
}

#[test]
fn a_removed_device_that_tries_on_shuts_nobody_out() {
    let site = token_site();
    let daemon = site.start();
    add_user(&daemon, "dashboard", "service");
    for _ in 0..20 {
        refusal(&daemon, &Connect::token(TOKEN));
    }
    drop(try_connect(&daemon, &login("d", "dashboard", PASSWORD)).unwrap());
    let admin = daemon.admin();
    let host = format!("Host: {}", daemon.admin_address());
    let body = json!({"token": admin.token()}).to_string();
    let answer = admin.raw("POST", "/api/v1/session", &[&host], Some(&body));
    assert_eq!(answer.status, 201, "{}", answer.body);
}

#[test]
fn a_service_hears_all_devices_and_writes_to_one() {
    let site = token_site();
    let daemon = site.start();
    add_device(&daemon, "pump-1", TOKEN);
    add_device(&daemon, "pump-2", "token-of-pump-2-0123456789");
    add_user(&daemon, "node-red", "service");
    let mut service = Client::connect(daemon.mqtt(), &login("nr", "node-red", PASSWORD).v5());
    assert_eq!(service.subscribe(TOPIC, 1), 1);
    assert_eq!(service.subscribe("$share/g/tago/data/post", 1), 0x87);
    let mut pump = Device::connect(daemon.mqtt(), &Connect::token(TOKEN));
    let mut other = Device::connect(daemon.mqtt(), &Connect::token("token-of-pump-2-0123456789"));
    pump.send(&json!({"variable": "temperature", "value": 21.5}));
    assert_eq!(service.next_publish().json()["value"], 21.5);
    other.client.expect_silence();
    pump.send(&json!({"variable": "firmware_request", "value": 0, "unit": "index"}));
    pump.error();
    service.expect_silence();

    let command = json!({"variable": "relay", "value": true}).to_string();
    let down = Publish::new("fuota/devices/pump-1/down", command.clone()).qos(1);
    assert_eq!(service.publish(&down), 0);
    assert_eq!(pump.client.next_publish().text(), command);
    other.client.expect_silence();
    let mut device = Client::connect(daemon.mqtt(), &Connect::token(TOKEN).v5());
    assert_eq!(device.publish(&down), 0x87, "a device may not, not even to itself");
    let mut old = Client::connect(daemon.mqtt(), &Connect::token("token-of-pump-2-0123456789"));
    assert_eq!(old.publish(&down), 0, "3.1.1 has no code for it: acknowledged and not delivered");
    pump.client.expect_silence();
    for forged in ["firmware_manifest", "firmware_block", "fuota_error", "firmware_validation"] {
        let payload = json!({"variable": forged, "value": 0}).to_string();
        let down = Publish::new("fuota/devices/pump-1/down", payload).qos(1);
        assert_eq!(service.publish(&down), 0x87, "{forged}");
    }
    pump.client.expect_silence();
}

#[test]
fn rules_refuse_with_the_versions_codes_and_are_counted() {
    let mut site = token_site();
    site.set("auth.strict", "true").set(
        "auth.rules",
        r#"["allow device publish plant/%d/#", "allow device subscribe cmd/%d", "deny service all secret/#"]"#,
    );
    let daemon = site.start();
    add_device(&daemon, "pump-1", TOKEN);
    add_user(&daemon, "dashboard", "service");
    let mut dashboard = Client::connect(daemon.mqtt(), &login("d", "dashboard", PASSWORD).v5());
    assert_eq!(
        dashboard.subscribe_all(&[("plant/#", 1), ("secret/x", 1), ("#", 1), ("cmd/#", 0)]),
        [1, 0x87, 0x87, 0]
    );
    let mut pump = Client::connect(daemon.mqtt(), &Connect::token(TOKEN).v5());
    let mut old = Client::connect(daemon.mqtt(), &Connect::token(TOKEN));
    assert_eq!(
        pump.subscribe_all(&[("cmd/pump-1", 1), ("cmd/pump-2", 1), (TOPIC, 0)]),
        [1, 0x87, 0]
    );
    assert_eq!(old.subscribe_all(&[("cmd/pump-1", 1), ("cmd/+", 1)]), [1, 0x80]);
    for qos in [1, 2] {
        assert_eq!(pump.publish(&Publish::new("plant/pump-2/t", "1").qos(qos)), 0x87);
        assert_eq!(old.publish(&Publish::new("plant/pump-2/t", "1").qos(qos)), 0);
    }
    assert_eq!(pump.publish(&Publish::new("plant/pump-1/t", "mine").qos(1)), 0);
    assert_eq!(dashboard.next_publish().text(), "mine", "nothing else came before");
    let refused = || daemon.admin().get("/api/v1/status")["broker"]["refused"].as_u64().unwrap();
    // Four filters and four publishes.
    eventually("all are counted", || (refused() == 8).then_some(()));
    // A will is a publish like any other.
    let will = Publish::new("plant/pump-2/t", "last words");
    let dying = Client::connect(daemon.mqtt(), &Connect::token(TOKEN).will(will));
    dying.break_off();
    eventually("the will is refused", || (refused() == 9).then_some(()));
    dashboard.expect_silence();
}

#[test]
fn a_resumed_session_keeps_only_what_is_allowed_now() {
    let mut site = token_site();
    let daemon = site.start();
    add_device(&daemon, "pump-1", TOKEN);
    add_user(&daemon, "dashboard", "service");
    let lasting = login("d", "dashboard", PASSWORD).persistent();
    let mut dashboard = Client::connect(daemon.mqtt(), &lasting);
    assert_eq!(dashboard.subscribe_all(&[("plant/#", 1), ("news", 1), (TOPIC, 1)]), [1, 1, 1]);
    dashboard.disconnect();
    let mut pump = Client::connect(daemon.mqtt(), &Connect::token(TOKEN));
    let reading = json!({"variable": "temperature", "value": 21.5}).to_string();
    for topic in ["plant/a", "news", TOPIC] {
        pump.publish(&Publish::new(topic, reading.as_str()).qos(1));
    }
    drop(pump);
    daemon.stop();

    site.set("auth.rules", r#"["deny service all plant/#"]"#);
    let daemon = site.start();
    let (mut dashboard, present) = Client::connect_session(daemon.mqtt(), &lasting);
    assert!(present);
    daemon.expect_log(&["a resumed subscription is refused", "client=\"d\"", "plant/#"]);
    assert_eq!(dashboard.next_publish().topic, "news", "and nothing of plant/#");
    assert_eq!(dashboard.next_publish().topic, TOPIC);
    let refused = || daemon.admin().get("/api/v1/status")["broker"]["refused"].as_u64().unwrap();
    eventually("it is counted", || (refused() == 1).then_some(()));

    // A device does not hear what other devices say, whatever it was before.
    let role = json!({"role": "device"});
    let changed = daemon.admin().request("PATCH", "/api/v1/users/dashboard", Some(&role));
    assert_eq!(changed.status, 200, "{}", changed.body);
    dashboard.expect_closed();
    let mut pump = Client::connect(daemon.mqtt(), &Connect::token(TOKEN));
    pump.publish(&Publish::new(TOPIC, reading.as_str()).qos(1));
    let (mut device, present) = Client::connect_session(daemon.mqtt(), &lasting);
    assert!(present);
    pump.publish(&Publish::new(TOPIC, reading.as_str()).qos(1));
    device.expect_silence();
    pump.publish(&Publish::new("news", "x").qos(1));
    assert_eq!(device.next_publish().topic, "news");
}

#[test]
fn a_rule_that_is_none_ends_the_start() {
    let mut site = Site::new();
    site.set("auth.rules", r#"["allow everybody publish a"]"#);
    let ended = site.run(&["serve"]);
    assert!(!ended.status.success());
    assert!(ended.said(&["auth.rules", "allow everybody publish a"]), "{:?}", ended.log);
}

/// Runs a command against this daemon.
fn cli(site: &Site, daemon: &Daemon, arguments: &[&str]) -> support::daemon::Ended {
    let mut command = site.command(arguments);
    command.arg("--url").arg(format!("http://{}", daemon.admin_address()));
    support::daemon::run_to_end(command)
}

fn cli_json(site: &Site, daemon: &Daemon, arguments: &[&str]) -> Value {
    let ended = cli(site, daemon, arguments);
    assert!(ended.status.success(), "{arguments:?}: {:?}", ended.log);
    serde_json::from_str(&ended.stdout.join("\n")).unwrap()
}
