//! What happens is told as it happens: server-sent events with places to go on from, webhooks,
//! and messages on `fuotad/events/…`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    time::Instant,
};

use serde_json::{Value, json};
use support::{Client, Connect, Daemon, Device, PATIENCE, Publish, Site, image};

/// A stream of server-sent events.
struct Stream {
    lines: BufReader<TcpStream>,
    /// The last `id` that was heard.
    id: String,
}

impl Stream {
    /// Listens, from the place that `last` names.
    fn open(daemon: &Daemon, query: &str, last: Option<&str>) -> Stream {
        let mut socket = TcpStream::connect(daemon.admin_address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        write!(
            socket,
            "GET /api/v1/events{query} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n{last}\r\n",
            daemon.admin_address(),
            daemon.admin().token(),
        )
        .unwrap();
        let mut stream = Stream { lines: BufReader::new(socket), id: String::new() };
        assert!(stream.line().unwrap().starts_with("HTTP/1.1 200"));
        while stream.line().unwrap() != "" {}
        // The first thing is the place, without an event.
        while stream.id.is_empty() {
            let line = stream.line().expect("a place");
            stream.take_id(&line);
        }
        stream
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line).unwrap() {
            0 => None,
            _ => Some(line.trim_end().to_owned()),
        }
    }

    fn take_id(&mut self, line: &str) {
        if let Some(id) = line.strip_prefix("id: ") {
            self.id = id.to_owned();
        }
    }

    /// The data of the next event. What is between are the sizes of chunks and comments.
    fn next(&mut self) -> Value {
        let began = Instant::now();
        loop {
            // Comments that keep the connection alive come for ever.
            assert!(began.elapsed() < PATIENCE, "no event behind {:?}", self.id);
            let line = self.line().expect("the stream goes on");
            self.take_id(&line);
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    /// What the next one is about: its type, and what it says.
    fn what(&mut self) -> String {
        let event = self.next();
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let subject = [text("device"), text("user")].concat();
        [text("type"), subject, text("what")].join(" ").trim().to_owned()
    }
}

fn add_device(daemon: &Daemon, id: &str) {
    let answer = daemon.admin().request("POST", "/api/v1/devices", Some(&json!({"id": id})));
    assert_eq!(answer.status, 201, "{}", answer.body);
}

fn freeze(daemon: &Daemon) {
    assert_eq!(daemon.admin().request("PUT", "/api/v1/freeze", None).status, 200);
    assert_eq!(daemon.admin().request("DELETE", "/api/v1/freeze", None).status, 200);
}

#[test]
fn a_listener_that_comes_again_misses_nothing() {
    let site = Site::new();
    let daemon = site.start();
    let mut stream = Stream::open(&daemon, "", None);
    let at_once = stream.id.clone();
    add_device(&daemon, "a-1");
    assert_eq!(stream.what(), "known a-1 registered");
    let place = stream.id.clone();
    assert_ne!(place, at_once);
    drop(stream);
    // Meanwhile nobody listens.
    add_device(&daemon, "a-2");
    let user = json!({"name": "ann", "role": "service"});
    assert_eq!(daemon.admin().request("POST", "/api/v1/users", Some(&user)).status, 201);
    freeze(&daemon);
    let mut stream = Stream::open(&daemon, "", Some(&place));
    for expected in ["known a-2 registered", "user ann added", "site", "site"] {
        assert_eq!(stream.what(), expected);
    }
    // Also one that lost its connection before the first change.
    assert_eq!(Stream::open(&daemon, "", Some(&at_once)).what(), "known a-1 registered");
    // And it goes on with what is new.
    add_device(&daemon, "a-3");
    assert_eq!(stream.what(), "known a-3 registered");
}

#[test]
fn a_listener_of_an_earlier_run_is_told_that_it_missed_something() {
    let site = Site::new();
    let daemon = site.start();
    let mut stream = Stream::open(&daemon, "", None);
    add_device(&daemon, "a-1");
    assert_eq!(stream.what(), "known a-1 registered");
    let place = stream.id.clone();
    daemon.kill();
    let daemon = site.start();
    let mut stream = Stream::open(&daemon, "", Some(&place));
    assert_eq!(stream.next(), json!({"type": "missed", "events": null}));
    add_device(&daemon, "a-2");
    assert_eq!(stream.what(), "known a-2 registered");
}

#[test]
fn a_listener_chooses_what_it_hears() {
    let site = Site::new();
    let daemon = site.start();
    let mut stream = Stream::open(&daemon, "?type=user,site", None);
    add_device(&daemon, "a-1");
    freeze(&daemon);
    assert_eq!(stream.next()["frozen"], true);
    assert_eq!(stream.next()["frozen"], false);
    // Without waiting: everything that is kept, and then the end.
    let answer = daemon.admin().request("GET", "/api/v1/events?type=known&follow=false", None);
    let data: Vec<_> = answer.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.len(), 1, "{}", answer.body);
    assert!(data[0].contains("a-1"), "{}", answer.body);
}

#[test]
fn devices_are_told_as_they_come_and_go() {
    let site = Site::new();
    let daemon = site.start();
    let mut stream = Stream::open(&daemon, "?type=known", None);
    let device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    assert_eq!(stream.what(), "known pump-1 online");
    device.client.disconnect();
    assert_eq!(stream.what(), "known pump-1 offline");
    let answer = daemon.admin().request("DELETE", "/api/v1/devices/pump-1", None);
    assert_eq!(answer.status, 204, "{}", answer.body);
    assert_eq!(stream.what(), "known pump-1 removed");
}

/// A request that a webhook got: head and body.
type Got = (String, String);

/// A receiver of webhooks that answers with these statuses, and with 200 after them.
fn receiver(statuses: Vec<u16>) -> (String, Receiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook/T0KEN", listener.local_addr().unwrap());
    let (told, got) = channel();
    std::thread::spawn(move || {
        let mut statuses = statuses.into_iter();
        for socket in listener.incoming() {
            let mut reader = BufReader::new(socket.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).unwrap_or(0) == 0 {
                    break;
                }
            }
            let length = |line: &str| line.strip_prefix("content-length: ")?.trim().parse().ok();
            let length = head.to_ascii_lowercase().lines().find_map(length).unwrap_or(0);
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let status = statuses.next().unwrap_or(200);
            let answer = format!(
                "HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            reader.into_inner().write_all(answer.as_bytes()).unwrap();
            if told.send((head, String::from_utf8(body).unwrap())).is_err() {
                return;
            }
        }
    });
    (url, got)
}

fn next(got: &Receiver<Got>) -> (String, Value) {
    let (head, body) = got.recv_timeout(PATIENCE).expect("a webhook");
    (head, serde_json::from_str(&body).unwrap())
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

/// HMAC-SHA256 by its definition, for keys of up to 64 bytes.
fn hmac(key: &[u8], message: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let pad = |with: u8| -> Vec<u8> {
        (0..64).map(|place| key.get(place).copied().unwrap_or(0) ^ with).collect()
    };
    let inner = Sha256::digest([&pad(0x36)[..], message].concat());
    hex::encode(Sha256::digest([&pad(0x5c)[..], &inner[..]].concat()))
}

#[test]
fn webhooks_are_told_signed_and_again_until_they_take_it() {
    const SECRET: &str = "a secret of the receiver";
    let mut site = Site::new();
    let (all_url, all) = receiver(vec![503, 429]);
    let (some_url, some) = receiver(vec![302]);
    std::fs::write(site.path().join("secret"), SECRET).unwrap();
    site.set(
        "events.webhooks",
        &format!(
            "[{{ url = \"{all_url}\", secret_file = \"secret\" }}, \
              {{ url = \"{some_url}\", events = [\"store_away\", \"store_back\"] }}]"
        ),
    );
    let daemon = site.start();
    // A root file without a model, on a site that knows two: held.
    for (id, model) in [("a", "x"), ("b", "y")] {
        let device = json!({"id": id, "model": model});
        assert_eq!(daemon.admin().request("POST", "/api/v1/devices", Some(&device)).status, 201);
    }
    site.drop_file("pump-1.0.0.bin", &image(1, 100));
    let mut signatures = Vec::new();
    let mut first = None;
    for attempt in 0..3 {
        let (head, body) = all.recv_timeout(PATIENCE).expect("a webhook");
        let told: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&told["event"], &told["path"]), (&json!("held"), &json!("pump-1.0.0.bin")));
        assert!(told["text"].as_str().unwrap().contains("which model"), "{told}");
        assert!(head.starts_with("POST /hook/T0KEN HTTP/1.1"), "{head}");
        assert_eq!(header(&head, "Fuotad-Event").as_deref(), Some("held"));
        assert_eq!(header(&head, "Fuotad-Delivery").as_deref(), told["id"].as_str());
        assert_eq!(*first.get_or_insert(told.clone()), told, "attempt {attempt} tells the same");
        let signature = header(&head, "Fuotad-Signature").expect("signed");
        let (at, signed) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
        assert_eq!(signed, hmac(SECRET.as_bytes(), format!("{at}.{body}").as_bytes()));
        signatures.push(signature);
    }
    // The store goes and comes back.
    std::fs::rename(site.firmware(), site.path().join("away")).unwrap();
    let (head, told) = next(&some);
    assert_eq!(told["event"], "store_away");
    assert!(told["reason"].is_string() && header(&head, "Fuotad-Signature").is_none(), "{told}");
    assert_eq!(next(&all).1["event"], "store_away");
    std::fs::rename(site.path().join("away"), site.firmware()).unwrap();
    // A redirect is not followed, and not tried again: the next thing is the next message.
    assert_eq!(next(&some).1["event"], "store_back");
    assert_eq!(next(&all).1["event"], "store_back");
    daemon.expect_log(&["does not take this message", "302"]);
    let ended = daemon.stop();
    assert!(!ended.log.join("\n").contains("T0KEN"), "an address may be a secret");
    let shown = site.run(&["check-config"]);
    assert!(!shown.log.join("\n").contains("T0KEN"), "{}", shown.log.join("\n"));
}

#[test]
fn a_receiver_that_is_away_holds_up_nobody() {
    let mut site = Site::new();
    // Nobody listens there: the port was free a moment ago, and is below what systems give out.
    site.set("events.webhooks", "[{ url = \"http://127.0.0.1:1/\" }]");
    let daemon = site.start();
    for (id, model) in [("a", "x"), ("b", "y")] {
        let device = json!({"id": id, "model": model});
        assert_eq!(daemon.admin().request("POST", "/api/v1/devices", Some(&device)).status, 201);
    }
    site.drop_file("pump-1.0.0.bin", &image(1, 100));
    daemon.expect_log(&["a webhook is told again later", "http://127.0.0.1:1"]);
    site.drop_file("devices/dev-1/valve-1.0.0.bin", &image(2, 5_000));
    Device::connect(daemon.mqtt(), &Connect::id("dev-1")).expect_update(&image(2, 5_000));
    assert!(daemon.stop().status.success());
}

#[test]
fn configuration_that_cannot_work_is_refused_by_name() {
    let mut site = Site::new();
    for (value, words) in [
        ("\"http://h/\"", "a list of tables"),
        ("[{ }]", "url is missing"),
        ("[{ url = \"file:///etc/passwd\" }]", "http://"),
        ("[{ url = \"http://h/\", events = [\"rain\"] }]", "rain"),
        ("[{ url = \"http://h/\", sceret = \"x\" }]", "sceret"),
    ] {
        site.set("events.webhooks", value);
        let ended = site.run(&["check-config"]);
        assert!(!ended.status.success(), "{value}");
        assert!(ended.said(&["events.webhooks", words]), "{value}: {:?}", ended.log);
    }
}

fn login(client: &str, user: &str) -> Connect {
    let password = Some("correct horse".into());
    Connect { username: Some(user.into()), password, ..Connect::id(client) }
}

/// Makes the store go away, so that something is told.
fn lose_store(site: &Site) {
    std::fs::rename(site.firmware(), site.path().join("away")).unwrap();
}

#[test]
fn operators_hear_over_mqtt_and_devices_do_not() {
    let mut site = Site::new();
    site.set("auth.mode", "\"token\"");
    let daemon = site.start();
    for (name, role) in
        [("ann", "operator"), ("grafana", "service"), ("root", "admin"), ("pump-1", "device")]
    {
        let user = json!({"name": name, "role": role, "password": "correct horse"});
        assert_eq!(daemon.admin().request("POST", "/api/v1/users", Some(&user)).status, 201);
    }
    let mut hearing: Vec<Client> = Vec::new();
    for (name, filter) in
        [("ann", "fuotad/events/#"), ("grafana", "#"), ("root", "$share/desk/fuotad/events/+")]
    {
        let mut client = Client::connect(daemon.mqtt(), &login(name, name).v5());
        assert!(client.subscribe(filter, 1) <= 2, "{filter}");
        hearing.push(client);
    }
    let mut device = Client::connect(daemon.mqtt(), &login("pump-1", "pump-1").v5());
    assert_eq!(device.subscribe("fuotad/events/#", 1), 0x87, "not authorized");
    assert_eq!(device.subscribe("fuotad/#", 1), 1, "a wildcard may be wider");
    assert_eq!(device.subscribe("#", 1), 1);
    lose_store(&site);
    for client in &mut hearing {
        let told = client.next_publish();
        assert_eq!((&*told.topic, told.qos, told.retain), ("fuotad/events/store_away", 1, false));
        let told = told.json();
        assert_eq!(told["event"], "store_away");
        assert!(told["text"].is_string() && told["at"].is_u64(), "{told}");
    }
    device.expect_silence();
    // Nobody else says so: not a device, not an admin, not as a will.
    for name in ["pump-1", "root"] {
        let mut liar = Client::connect(daemon.mqtt(), &login(&format!("liar-{name}"), name).v5());
        let lie = Publish::new("fuotad/events/store_back", "{}").qos(1);
        assert_eq!(liar.publish(&lie), 0x87, "{name}");
        drop(liar);
    }
    let will = login("liar", "root").v5().will(Publish::new("fuotad/events/held", "{}").qos(1));
    Client::connect(daemon.mqtt(), &will).break_off();
    daemon.expect_log(&["will refused", "liar"]);
    for client in &mut hearing {
        client.expect_silence();
    }
}

#[test]
fn in_open_mode_whoever_has_no_account_hears_too() {
    let site = Site::new();
    let daemon = site.start();
    let mut anybody = Client::connect(daemon.mqtt(), &Connect::id("desk").v5());
    assert_eq!(anybody.subscribe("fuotad/events/#", 1), 1);
    let device = daemon.admin().request("POST", "/api/v1/devices", Some(&json!({"id": "pump-1"})));
    let token = device.json()["token"].as_str().unwrap().to_owned();
    let mut device = Client::connect(daemon.mqtt(), &Connect::token(&token).v5());
    assert_eq!(device.subscribe("fuotad/events/#", 1), 0x87);
    lose_store(&site);
    assert_eq!(anybody.next_publish().topic, "fuotad/events/store_away");
    device.expect_silence();
    assert_eq!(anybody.publish(&Publish::new("fuotad/events/held", "{}").qos(1)), 0x87);
}

#[test]
fn what_becomes_of_an_update_is_told() {
    let mut site = Site::new();
    site.set("fuota.confirm_within", "\"100ms\"").set("fuota.confirm_after", "\"100ms\"");
    let daemon = site.start();
    let mut desk = Client::connect(daemon.mqtt(), &Connect::id("desk").v5());
    desk.subscribe("fuotad/events/#", 1);
    let bytes = image(1, 5_000);
    site.drop_file("pump-1.0.0.bin", &bytes);
    // It takes the whole image and does not come back.
    let mut lost = Device::connect(daemon.mqtt(), &Connect::id("lost"));
    lost.expect_update(&bytes);
    lost.client.disconnect();
    let told = desk.next_publish();
    assert_eq!(told.topic, "fuotad/events/silent");
    let told = told.json();
    assert_eq!((&told["device"], &told["version"]), (&json!("lost"), &json!("1.0.0")));
    // This one says that it failed.
    let mut broken = Device::connect(daemon.mqtt(), &Connect::id("broken"));
    broken.expect_update(&bytes);
    broken.send(&json!({"variable": "firmware_status", "value": "failed"}));
    let told = desk.next_publish();
    assert_eq!(told.topic, "fuotad/events/failed");
    assert_eq!(told.json()["device"], "broken");
    let id = daemon.admin().rows("deployments")[0]["id"].as_str().unwrap().to_owned();
    let paused = daemon.admin().request("POST", &format!("/api/v1/deployments/{id}/pause"), None);
    assert_eq!(paused.status, 200, "{}", paused.body);
    let told = desk.next_publish();
    assert_eq!(told.topic, "fuotad/events/paused");
    assert_eq!(told.json()["deployment"], json!(id));
    desk.expect_silence();
}

/// A page that is open does not hold up a stop: its stream ends whole, and is not cut off when the
/// patience with it is over.
#[test]
fn a_stop_ends_the_streams() {
    let site = Site::new();
    let daemon = site.start();
    let mut stream = Stream::open(&daemon, "", None);
    daemon.begin_stop();
    let mut last = String::new();
    stream.lines.read_to_string(&mut last).unwrap();
    assert!(last.ends_with("\r\n0\r\n\r\n"), "{last:?}");
    assert_eq!(daemon.ended().status.code(), Some(0));
}
