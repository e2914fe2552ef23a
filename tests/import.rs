//! Fleets and the users of another broker, taken over at once: rule 28.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{fmt::Write as _, fs, path::PathBuf};

use serde_json::json;
use support::{
    Client, Connect, Daemon, Device, Publish, Site, TOPIC, client::Refused, daemon::Ended,
    eventually, image,
};

/// A line of mosquitto's passwords: the user, and the password that it was made from.
const USERS: [(&str, &str); 7] = [
    ("grafana", "tulip-mania-1637"),
    ("node-red", "größe: 7 $ällig"),
    ("pump-1", "pw1"),
    ("pump-2", "pw2"),
    ("telegraf", "crab-nebula-1054"),
    ("historian", "south-sea-1720"),
    ("archive", "old and long ago"),
];

fn token_site() -> Site {
    let mut site = Site::new();
    site.set("auth.mode", "\"token\"");
    site
}

/// The path of a file of the mosquitto site.
fn fixture(name: &str) -> String {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/mosquitto");
    tests.join(name).display().to_string()
}

fn login(client: &str, user: &str, password: &str) -> Connect {
    Connect { username: Some(user.into()), password: Some(password.into()), ..Connect::id(client) }
}

fn connect(daemon: &Daemon, user: &str) -> Client {
    let (_, password) = USERS.iter().find(|(name, _)| *name == user).unwrap();
    Client::connect(daemon.mqtt(), &login(&format!("{user}-client"), user, password).v5())
}

/// Runs a command against this daemon.
fn cli(site: &Site, daemon: &Daemon, arguments: &[&str]) -> Ended {
    let mut command = site.command(arguments);
    command.arg("--url").arg(format!("http://{}", daemon.admin_address()));
    support::daemon::run_to_end(command)
}

fn registered(daemon: &Daemon) -> u64 {
    daemon.admin().get("/api/v1/status")["fuota"]["devices"]["registered"].as_u64().unwrap()
}

#[test]
fn an_import_that_dies_on_the_way_has_added_all_or_nothing() {
    const ROWS: u64 = 10_000;
    let site = token_site();
    let mut table = "id,token,groups,label.place\n".to_owned();
    for number in 0..ROWS {
        let place = "x".repeat(200);
        writeln!(table, "pump-{number},token-of-the-pump-{number:08},hall-1,{place}").unwrap();
    }
    fs::write(site.path().join("fleet.csv"), table).unwrap();
    let file = site.path().join("fleet.csv").display().to_string();
    let daemon = site.start();
    let log = site.path().join("data/fuota.db-wal");
    let mut command = site.command(&["device", "import", &file]);
    command.arg("--url").arg(format!("http://{}", daemon.admin_address()));
    let import = std::thread::spawn(move || support::daemon::run_to_end(command));
    // Its rows are larger than SQLite's cache: the log grows long before the commit.
    eventually("the transaction is being written", || {
        fs::metadata(&log).ok().filter(|log| log.len() > 1 << 20)
    });
    daemon.kill();
    let told = import.join().unwrap().status.success();
    let daemon = site.start();
    let found = registered(&daemon);
    assert!(found == ROWS || (found == 0 && !told), "{found} of {ROWS}, told: {told}");
    if found == 0 {
        let ended = cli(&site, &daemon, &["device", "import", &file]);
        assert!(ended.status.success(), "{:?}", ended.log);
        assert_eq!(registered(&daemon), ROWS);
    }
}

#[test]
fn a_mosquitto_site_moves_with_its_passwords() {
    let site = token_site();
    let image = image(1, 2 * 4096);
    let daemon = site.start();
    // After the start: what is there at the very first one is held in token mode (rule 6).
    site.drop_file("devices/pump-1/fw.bin", &image);
    let conf = fixture("mosquitto.conf");
    let import = ["import", "mosquitto", "--config-file", &conf, "--devices", "pump-*"];
    let ended = cli(&site, &daemon, &[&import[..], &["--dry-run"]].concat());
    assert!(ended.status.success(), "{:?}", ended.log);
    for words in [
        &["pump-1: device"][..],
        &["grafana: service"],
        &["7 users would be added", "2 of them devices"],
        &["acl:29:", "below $"],
        &["acl:6:", "refused as a whole"],
    ] {
        assert!(ended.said(words), "{words:?} in {:#?}", ended.log);
    }
    let printed = ended.stdout.join("\n");
    assert!(printed.contains("allow user:grafana subscribe plant/#"), "{printed}");
    assert!(daemon.admin().rows("users").is_empty(), "a dry run");

    let out = site.path().join("rules.toml");
    let written = out.display().to_string();
    let ended = cli(&site, &daemon, &[&import[..], &["--rules-out", &written]].concat());
    assert!(ended.status.success() && ended.said(&["7 users added"]), "{:?}", ended.log);
    assert!(ended.stdout.is_empty());
    assert_eq!(fs::read_to_string(&out).unwrap().trim(), printed.trim());
    let users = daemon.admin().rows("users");
    let roles: Vec<_> = users.iter().map(|user| (&user["name"], &user["role"])).collect();
    assert!(roles.contains(&(&json!("pump-2"), &json!("device"))), "{roles:?}");
    let devices = daemon.admin().rows("devices");
    assert_eq!(devices.len(), 2, "known before they were ever seen");
    // Each with its own password, and the second time with a hash of ours, also after a restart.
    for _ in 0..2 {
        USERS.iter().for_each(|(user, _)| drop(connect(&daemon, user)));
    }
    let wrong = login("x", "grafana", "tulip-mania-1638");
    assert_eq!(Client::try_connect(daemon.mqtt(), &wrong).err(), Some(Refused(4)));
    let mut pump = Device::connect(daemon.mqtt(), &login("p", "pump-1", "pw1"));
    pump.expect_update(&image);
    let ended = daemon.kill();
    for (_, password) in USERS {
        assert!(!ended.said(&[password]));
    }
    let daemon = site.start();
    USERS.iter().for_each(|(user, _)| drop(connect(&daemon, user)));

    // Once more: everything is there already.
    let ended = cli(&site, &daemon, &import);
    assert!(!ended.status.success());
    assert!(ended.said(&["passwords:1:", "grafana", "already"]), "{:?}", ended.log);
    assert!(ended.said(&["7 of 7 users", "nothing was changed"]), "{:?}", ended.log);
}

#[test]
fn imported_rules_decide_as_mosquitto_does() {
    let mut site = token_site();
    let acl = fixture("acl");
    // No daemon is needed for rules alone.
    let ended = site.run(&["import", "mosquitto", "--acl", &acl]);
    assert!(ended.status.success(), "{:?}", ended.log);
    let block = ended.stdout.join("\n");
    // It can be pasted as it is.
    let pasted = site.path().join("pasted.toml");
    fs::write(&pasted, format!("data_dir = \"data\"\n\n{block}\n")).unwrap();
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_fuotad"));
    check.args(["check-config", "--config"]).arg(&pasted).current_dir(site.path());
    let checked = support::daemon::run_to_end(check);
    assert!(checked.status.success(), "{:?}", checked.log);
    let (_, rules) = block.split_once("rules = ").unwrap();
    site.set("auth.rules", rules).set("auth.strict", "true");
    let daemon = site.start();
    let passwords = fixture("passwords");
    let import = ["import", "mosquitto", "--passwords", &passwords, "--devices", "pump-?"];
    assert!(cli(&site, &daemon, &import).status.success());

    let operator = json!({"name": "root", "role": "operator", "password": "correct horse"});
    daemon.admin().request("POST", "/api/v1/users", Some(&operator));
    for (user, allowed, refused) in [
        ("grafana", &["plant/1", "news"][..], &["plant/#", "plant/1/secret", "notes/x", "#"][..]),
        (
            "node-red",
            &["plant/#", "pumps/node-red/x", "$SYS/broker/uptime"],
            &["$SYS/#", "pumps/#", "pumps/node-red/#"],
        ),
        ("historian", &["plant/#", "pumps/x/y"], &["#", "payroll/x", "pay/#/", "+/x"]),
        ("telegraf", &["news", "pumps/telegraf/t"], &["plant/1", "public/x", "pumps/x/locked"]),
        ("pump-1", &["pumps/pump-1/x", TOPIC], &["pumps/pump-1/#", "pumps/pump-2/x", "plant/1"]),
    ] {
        let mut client = connect(&daemon, user);
        for filter in allowed {
            assert!(client.subscribe(filter, 1) < 0x80, "{user} {filter}");
        }
        for filter in refused {
            assert!(client.subscribe(filter, 1) >= 0x80, "{user} {filter}");
        }
    }
    for (user, allowed, refused) in [
        ("grafana", &["notes/grafana", "clients/grafana-client/state"][..], &["plant/1"][..]),
        ("node-red", &["plant/x", "commands/pump 1/start"], &["commands/pump 2/start", "news"]),
        ("historian", &["100%/load", "pumps/historian/x"], &["plant/x", "payroll/x"]),
        ("pump-1", &["pumps/pump-1/x"], &["pumps/pump-1/factory", "pumps/pump-1/locked"]),
        ("pump-2", &["pumps/pump-2/factory"], &["pumps/pump-1/x", "clients/x/state"]),
    ] {
        let mut client = connect(&daemon, user);
        for topic in allowed {
            assert!(client.publish(&Publish::new(topic, "x").qos(1)) < 0x80, "{user} {topic}");
        }
        for topic in refused {
            assert_eq!(client.publish(&Publish::new(topic, "x").qos(1)), 0x87, "{user} {topic}");
        }
    }
    // Who was added since has nothing, as with mosquitto.
    let root = login("root", "root", "correct horse").v5();
    let mut root = Client::connect(daemon.mqtt(), &root);
    assert_eq!(
        root.subscribe_all(&[("x", 0), ("#", 0), ("$SYS/#", 0), ("news", 0)]),
        [0x87, 0x87, 0x87, 0]
    );
}

#[test]
fn lines_that_cannot_be_taken_over_are_named_and_nothing_is_changed() {
    let site = token_site();
    let daemon = site.start();
    let path = |name: &str| site.path().join(name).display().to_string();
    let good = fs::read_to_string(fixture("passwords")).unwrap();
    let bad = "plain:secret-one\nb\u{e4}r:$6$secret\n# comment\ncrypt:$1$secret$secret\nno colon\n";
    fs::write(site.path().join("passwords"), format!("{bad}{good}grafana:$7$again\n")).unwrap();
    fs::write(site.path().join("acl"), "user grafana\ntopic reed x\n").unwrap();
    let passwords = path("passwords");
    let import = ["import", "mosquitto", "--passwords", &passwords];
    for arguments in [&["--dry-run"][..], &[]] {
        let ended = cli(&site, &daemon, &[&import[..], arguments].concat());
        assert!(!ended.status.success());
        for words in [
            ["passwords:1: plain", "not hashed"],
            ["passwords:2: b\u{e4}r", "is not a name"],
            ["passwords:4: crypt", "not known"],
            ["passwords:5:", "NAME:HASH"],
            ["passwords:13:", "line 6"],
            ["5 of 12 users", "nothing was changed"],
        ] {
            assert!(ended.said(&words), "{words:?} in {:#?}", ended.log);
        }
        assert!(!ended.said(&["secret"]), "{:#?}", ended.log);
        assert!(daemon.admin().rows("users").is_empty());
    }
    // Rules that cannot be translated stop it before any user is added.
    let acl = path("acl");
    let ended = cli(&site, &daemon, &[&import[..], &["--skip", "--acl", &acl]].concat());
    assert!(!ended.status.success() && ended.said(&["acl:2:", "reed"]), "{:?}", ended.log);
    assert!(ended.stdout.is_empty() && daemon.admin().rows("users").is_empty());
    let ended = cli(&site, &daemon, &[&import[..], &["--skip"]].concat());
    assert!(ended.status.success() && ended.said(&["7 users added"]), "{:?}", ended.log);
    connect(&daemon, "grafana");
    for (arguments, words) in [
        (&["--passwords", "nowhere"][..], ["nowhere", "cannot be read"]),
        (&[], ["--config-file", "required"]),
    ] {
        let ended = cli(&site, &daemon, &[&["import", "mosquitto"][..], arguments].concat());
        assert!(
            !ended.status.success() && words.iter().all(|word| ended.said(&[word])),
            "{:?}",
            ended.log
        );
    }
}
