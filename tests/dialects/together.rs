//! One dropped file, and a device of every dialect that fetches it at the same time.

use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use crate::{
    aws, http, native,
    support::{Client, Connect, Device, eventually, image, sha256},
};

type Fetch = fn(std::net::SocketAddr, std::net::SocketAddr, usize) -> Vec<u8>;

fn reference(mqtt: std::net::SocketAddr, _: std::net::SocketAddr, _: usize) -> Vec<u8> {
    Device::connect(mqtt, &Connect::id("reference")).update().1
}

fn thingsboard(mqtt: std::net::SocketAddr, _: std::net::SocketAddr, size: usize) -> Vec<u8> {
    let mut device = Client::connect(mqtt, &Connect::id("thingsboard"));
    device.subscribe("v1/devices/me/attributes", 1);
    let attributes = device.next_publish().json();
    assert_eq!(attributes["fw_size"], size);
    let mut bytes = Vec::new();
    for chunk in 0.. {
        let topic = format!("v2/fw/request/1/chunk/{chunk}");
        device.publish(&crate::support::Publish::new(&topic, "1000"));
        let part = device.next_publish().payload;
        if part.is_empty() {
            break;
        }
        bytes.extend(part);
    }
    bytes
}

fn streams(mqtt: std::net::SocketAddr, _: std::net::SocketAddr, size: usize) -> Vec<u8> {
    let mut device = Client::connect(mqtt, &Connect::id("aws"));
    let job = aws::job(&mut device, "aws", "$next/get", json!({}), "accepted");
    let ota = &job["execution"]["jobDocument"]["afr_ota"];
    let stream = ota["streamname"].as_str().expect("a stream");
    aws::fetch(&mut device, "aws", stream, size)
}

fn native(mqtt: std::net::SocketAddr, _: std::net::SocketAddr, _: usize) -> Vec<u8> {
    let mut device = Client::connect(mqtt, &Connect::id("native"));
    let (image, size) = native::begin(&mut device);
    native::fetch(&mut device, &image, size, 2048)
}

fn over_http(_: std::net::SocketAddr, http: std::net::SocketAddr, _: usize) -> Vec<u8> {
    http::request(http, "GET", "/devices/http/firmware", &[], "").body
}

#[test]
fn every_dialect_gets_the_same_dropped_file_at_once() {
    const DEVICES: [(&str, Fetch); 5] = [
        ("reference", reference),
        ("thingsboard", thingsboard),
        ("aws", streams),
        ("native", native),
        ("http", over_http),
    ];
    let bytes = image(1, 400_017);
    let site = http::site();
    site.drop_file("pump-1.4.2.bin", &bytes);
    let daemon = site.start();
    let addresses = (daemon.mqtt(), daemon.address_after("downloads listening on http://"));
    let together = Arc::new(Barrier::new(DEVICES.len()));
    let fetching: Vec<_> = DEVICES
        .into_iter()
        .map(|(name, fetch)| {
            let together = Arc::clone(&together);
            let size = bytes.len();
            let fetching = std::thread::spawn(move || {
                together.wait();
                sha256(&fetch(addresses.0, addresses.1, size))
            });
            (name, fetching)
        })
        .collect();
    let digest = sha256(&bytes);
    for (name, fetching) in fetching {
        assert_eq!(fetching.join().expect("it fetched"), digest, "{name}");
    }
    let admin = daemon.admin();
    for (name, _) in DEVICES {
        let state = eventually(name, || {
            let state = admin.get(&format!("/api/v1/devices/{name}"));
            (state["state"] == "downloaded").then_some(state)
        });
        assert_eq!(state["dialect"], name);
        assert_eq!(state["firmware"]["digest"], Value::from(digest.as_str()));
        assert_eq!(state["progress"]["chunks_sent"], state["progress"]["chunks_total"]);
    }
}
