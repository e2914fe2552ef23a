//! An operator starts an update with the reference's messages, against the running daemon and a
//! real HTTP server: rules 24 and 27.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use serde_json::{Value, json};
use support::{Client, Connect, Daemon, Device, Publish, Site, TOPIC, image, sha256};

/// Serves this body to everybody, and gives its address.
fn server(body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            assert!(head.starts_with(b"GET /files/pump.bin HTTP/1.1\r\n"));
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            socket.write_all(head.as_bytes()).unwrap();
            socket.write_all(&body).unwrap();
        }
    });
    format!("http://{address}/files/pump.bin")
}

fn account(daemon: &Daemon, name: &str, role: &str) -> Connect {
    let user = json!({"name": name, "role": role, "password": "correct horse"});
    let added = daemon.admin().request("POST", "/api/v1/users", Some(&user));
    assert_eq!(added.status, 201, "{}", added.body);
    let mut connect = Connect::id(name);
    connect.username = Some(name.into());
    connect.password = Some("correct horse".into());
    connect
}

fn order(url: &str, device: Option<&str>) -> Vec<u8> {
    let mut file = json!({"variable": "firmware_file", "metadata": {"file": {"url": url}}});
    if let Some(device) = device {
        file["device"] = device.into();
    }
    json!([file, {"variable": "firmware_version", "value": "1.4.0"}]).to_string().into_bytes()
}

fn answer(operator: &mut Client) -> Value {
    let publish = operator.next_publish();
    assert_eq!(publish.topic, TOPIC);
    let message = publish.json();
    assert_eq!(message["variable"], "firmware_validation", "{message}");
    json!([message["value"], message["metadata"]["type"]])
}

#[test]
fn an_operators_file_updates_the_named_device_and_nobody_else_may_send_one() {
    let mut site = Site::new();
    site.set("fuota.fetch_allow", "[\"127.0.0.0/8\"]");
    let daemon = site.start();
    let bytes = image(1, 2 * 4096 + 7);
    let url = server(bytes.clone());
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    let mut onlooker = Client::connect(daemon.mqtt(), &Connect::id("onlooker"));
    onlooker.subscribe("#", 1);

    // Everybody else is refused: a device, a client without an account, a service.
    let service = account(&daemon, "historian", "service").v5();
    for (connect, version5) in [(Connect::id("pump-2"), false), (service, true)] {
        let mut sender = Client::connect(daemon.mqtt(), &connect);
        for topic in [TOPIC, "fuota/devices/pump-1/down"] {
            let code = sender.publish(&Publish::new(topic, order(&url, Some("pump-1"))).qos(1));
            assert!(!version5 || code >= 0x80, "{topic}: {code:#04x}");
        }
        sender.expect_silence();
    }
    device.client.expect_silence();

    let ann = account(&daemon, "ann", "operator");
    let mut operator = Client::connect(daemon.mqtt(), &ann);
    for (topic, named) in [(TOPIC, Some("pump-1")), ("fuota/devices/pump-1/down", None)] {
        operator.publish(&Publish::new(topic, order(&url, named)));
        assert_eq!(answer(&mut operator), json!(["Calculating file size...", "warning"]));
        let ready = "Ready: 8199 bytes (3 chunks). Manifest Sent.";
        assert_eq!(answer(&mut operator), json!([ready, "success"]));
        let manifest = device.expect_update(&bytes);
        assert_eq!((&*manifest.version, manifest.sha256), ("1.4.0", sha256(&bytes)));
    }
    let view = daemon.admin().get("/api/v1/devices/pump-1");
    assert_eq!(view["parameters"], json!({"ota_url": url, "ota_size": 8199, "ota_chunks": 3}));
    operator.publish(&Publish::new(TOPIC, order("http://192.0.2.1/x", Some("pump-1"))));
    answer(&mut operator);
    assert_eq!(answer(&mut operator), json!(["Error: Could not determine file size.", "danger"]));
    // Nobody else hears of it.
    operator.expect_silence();
    device.client.expect_silence();
    onlooker.expect_silence();
}
