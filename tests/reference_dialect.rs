//! The reference protocol, word by word, against the running daemon.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::{Value, json};
use support::{
    Client, Connect, Device, Publish, Site, TOPIC, Version,
    device::{Message, request, understand},
    eventually, image, sha256,
};

const CHUNK: usize = 4096;

/// A daemon that has one image for everybody, and a device that has heard of it.
fn site_with(image: &[u8]) -> (Site, support::Daemon, Device) {
    let site = Site::new();
    site.drop_file("pump-1.4.2.bin", image);
    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    device.manifest();
    (site, daemon, device)
}

#[test]
fn a_dropped_file_arrives_byte_for_byte() {
    let image = image(1, 5 * CHUNK + 100);
    let site = Site::new();
    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::token("a-token-of-the-field"));
    site.drop_file("pump-1.4.2.bin", &image);
    let manifest = device.expect_update(&image);
    assert_eq!(manifest.chunks, 6);
    assert_eq!(manifest.chunk_size, CHUNK, "unchanged devices expect 4096");
    assert_eq!(manifest.version, "1.4.2");
    device.client.expect_silence();
}

#[test]
fn sizes_around_the_chunk_size_arrive_whole() {
    let site = Site::new();
    let daemon = site.start();
    for (seed, size) in [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK].into_iter().enumerate() {
        let id = format!("dev-{size}");
        let mut device = Device::connect(daemon.mqtt(), &Connect::id(&id));
        let image = image(seed as u64 + 10, size);
        site.drop_file(&format!("devices/{id}/image.bin"), &image);
        let manifest = device.expect_update(&image);
        assert_eq!(manifest.chunks, size.div_ceil(CHUNK), "size {size}");
    }
}

#[test]
fn a_device_without_any_identity_is_served() {
    // The reference simulator without a token: empty client id, nothing else.
    let image = image(2, 3 * CHUNK);
    let site = Site::new();
    site.drop_file("pump-1.0.0.bin", &image);
    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::default());
    device.expect_update(&image);
}

#[test]
fn an_mqtt_5_device_is_served() {
    let image = image(3, 2 * CHUNK + 1);
    let site = Site::new();
    site.drop_file("pump-1.0.0.bin", &image);
    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("modern").v5());
    device.expect_update(&image);
}

#[test]
fn group_is_echoed_exactly() {
    let image = image(4, 16 * CHUNK);
    let (_site, _daemon, mut device) = site_with(&image);
    let groups = [
        r#""a-group""#,
        r#""""#,
        "17",
        "1.50",
        "-0",
        "1e400",
        "123456789012345678901234567890",
        "null",
        "false",
        r#""\u00e9\n\"\\""#,
        "\"é☂\"",
        r#"{"b": [1, {"a":null}],  "a":2}"#,
        "[ ]",
    ];
    for (index, group) in groups.into_iter().enumerate() {
        device.client.publish(&Publish::new(
            TOPIC,
            format!(r#"{{"variable":"firmware_request","value":{index},"group":{group},"unit":"index"}}"#),
        ));
        let answer = device.client.next_publish();
        let text = answer.text();
        assert!(text.contains(&format!("\"group\":{group}")), "{group} in {}", &text[..200]);
        let (at, bytes) = understand_raw(&text);
        assert_eq!(at, index);
        assert!(bytes == image[index * CHUNK..(index + 1) * CHUNK]);
    }
    // Where the request had none, the block has none.
    device.request(15);
    match device.next() {
        Message::Block { whole, .. } => assert_eq!(whole.get("group"), None),
        other => panic!("expected a block, got {other:?}"),
    }
}

/// Index and bytes of a block, for numbers that `serde_json::Value` cannot hold.
fn understand_raw(text: &str) -> (usize, Vec<u8>) {
    use base64::Engine as _;
    let between = |from: &str, to: char| {
        let rest = text.split_once(from).unwrap_or_else(|| panic!("{from} in {text}")).1;
        rest[..rest.find(to).expect("end")].to_owned()
    };
    let rest = between("\"data\":\"", '"');
    let index = between("\"value\":", ',');
    let bytes = base64::engine::general_purpose::STANDARD.decode(rest).expect("base64");
    (index.parse().expect("index"), bytes)
}

#[test]
fn an_index_may_be_a_string() {
    let image = image(5, 6 * CHUNK);
    let (_site, _daemon, mut device) = site_with(&image);
    device.send(&request(json!("5")));
    assert!(device.block(5) == image[5 * CHUNK..]);
    device.send(&request(json!("0")));
    assert!(device.block(0) == image[..CHUNK]);
}

#[test]
fn every_bad_index_is_an_error_and_never_bytes() {
    let image = image(6, 40 * CHUNK);
    let (_site, _daemon, mut device) = site_with(&image);
    let bad = [
        json!(40),
        json!(41),
        json!(4_294_967_296_u64),
        json!(u64::MAX),
        json!(1e30),
        json!(-1),
        json!(-0.5),
        json!(1.5),
        json!("40"),
        json!("-1"),
        json!("1.5"),
        json!("first"),
        json!(""),
        json!("0x10"),
        json!("99999999999999999999999"),
        json!("1; DROP TABLE"),
        json!(null),
        json!(true),
        json!([]),
        json!([3]),
        json!({}),
        json!({"index": 3}),
    ];
    for (good, index) in bad.into_iter().enumerate() {
        device.send(&request(index.clone()));
        let text = device.error();
        assert!(text.len() > 10, "{index}: the error says what was wrong: {text:?}");
        // The very next thing on this connection is the answer to the next request.
        assert!(
            device.fetch(good) == image[good * CHUNK..(good + 1) * CHUNK],
            "after {index} the next good request is answered"
        );
    }
    device.send(&json!({"variable": "firmware_request", "unit": "index"}));
    device.error();
    device.client.expect_silence();
}

#[test]
fn requests_inside_an_array_are_taken_out_of_it() {
    let image = image(7, 3 * CHUNK);
    let (_site, daemon, mut device) = site_with(&image);
    let mut onlooker = Client::connect(daemon.mqtt(), &Connect::id("onlooker"));
    onlooker.subscribe("#", 0);
    let first = r#"{ "variable":"temperature",  "value":21.50 , "note":"\u00e9"}"#;
    let second = r#"{"variable":"humidity","value":1e2,"variable":"humidity"}"#;
    let ask = |index: &str| format!(r#"{{"variable":"firmware_request","value":{index}}}"#);
    let message = format!("[{first}, {}, {second},{}]", ask("0"), ask("\"2\""));
    device.client.publish(&Publish::new(TOPIC, message));
    assert!(device.block(0) == image[..CHUNK]);
    assert!(device.block(2) == image[2 * CHUNK..]);
    let rest = onlooker.next_publish().text();
    assert!(rest.contains(first) && rest.contains(second), "byte for byte: {rest}");
    assert!(!rest.contains("firmware_request"), "{rest}");
    assert_eq!(serde_json::from_str::<Vec<Value>>(&rest).expect("an array").len(), 2);

    // Nothing is left of an array of requests alone.
    device.client.publish(&Publish::new(TOPIC, format!("[{},{}]", ask("0"), ask("1"))));
    device.block(0);
    device.block(1);
    device.client.publish(&Publish::new(TOPIC, "marker"));
    assert_eq!(onlooker.next_publish().text(), "marker");
}

#[test]
fn what_is_not_the_dialect_is_left_alone() {
    let (_site, daemon, mut device) = site_with(&image(8, CHUNK));
    let mut onlooker = Client::connect(daemon.mqtt(), &Connect::id("onlooker"));
    onlooker.subscribe("tago/+/post", 0);
    let payloads: [&[u8]; 9] = [
        b"",
        b"not JSON",
        b"\x00\xff\xfe",
        b"{\"variable\":\"firmware_request\",\"value\":0", // not closed
        b"{\"variable\":\"firmware_requests\",\"value\":0}",
        b"{\"value\":\"firmware_request\"}",
        b"\"firmware_request\"",
        b"[1, [], null, {\"variable\": 5}]",
        b" { \"variable\" : \"temperature\" , \"value\" : 21.50 } ",
    ];
    for payload in payloads {
        device.client.publish(&Publish::new(TOPIC, payload));
        assert_eq!(
            onlooker.next_publish().payload,
            payload,
            "{}",
            String::from_utf8_lossy(payload)
        );
    }
    device.client.expect_silence();
    assert_eq!(device.fetch(0).len(), CHUNK, "and the device is served as before");
}

#[test]
fn a_request_is_acknowledged_at_every_qos() {
    let image = image(9, 6 * CHUNK);
    let site = Site::new();
    site.drop_file("pump-1.0.0.bin", &image);
    let daemon = site.start();
    for version in [Version::V4, Version::V5] {
        let mut connect = Connect::id(&format!("dev-{version:?}"));
        connect.version = version;
        let mut device = Device::connect(daemon.mqtt(), &connect);
        device.manifest();
        for qos in 0..=2_u8 {
            let index = usize::from(qos);
            let ask = Publish::new(TOPIC, request(json!(index)).to_string()).qos(qos);
            let code = device.client.publish(&ask);
            assert!(code < 0x80, "{version:?} QoS {qos}: {code:#04x}");
            assert!(device.block(index) == image[index * CHUNK..(index + 1) * CHUNK]);
            // A bad one too: refusing to answer is no reason to leave a packet id open.
            let ask = Publish::new(TOPIC, request(json!(-1)).to_string()).qos(qos);
            assert!(device.client.publish(&ask) < 0x80);
            device.error();
        }
        device.client.expect_silence();
    }
}

#[test]
fn a_qos_2_request_sent_again_is_answered_once() {
    let (_site, _daemon, mut device) = site_with(&image(10, 2 * CHUNK));
    let mut ask = Publish::new(TOPIC, request(json!(1)).to_string()).qos(2);
    ask.id = 77;
    device.client.send_publish(&ask);
    ask.dup = true;
    device.client.publish(&ask);
    device.block(1);
    device.client.expect_silence();
}

#[test]
fn a_retained_request_is_answered_once_and_never_stored() {
    let (_site, daemon, mut device) = site_with(&image(11, 2 * CHUNK));
    for qos in 0..=2 {
        let ask = Publish::new(TOPIC, request(json!(1)).to_string()).qos(qos).retained();
        device.client.publish(&ask);
        device.block(1);
        device.client.expect_silence();
    }
    for (filter, qos) in [("#", 0), ("tago/+/post", 1), (TOPIC, 2)] {
        let mut late = Client::connect(daemon.mqtt(), &Connect::id(&format!("late-{qos}")));
        late.subscribe(filter, qos);
        if filter == TOPIC {
            // Whoever subscribes to its downlink becomes a device, and this image is for all.
            assert_eq!(late.next_publish().json()["variable"], "firmware_manifest");
        }
        late.expect_silence();
    }
}

#[test]
fn a_request_as_a_will_is_dropped() {
    let (_site, daemon, mut device) = site_with(&image(12, 2 * CHUNK));
    let mut onlooker = Client::connect(daemon.mqtt(), &Connect::id("onlooker"));
    onlooker.subscribe("#", 0);
    for retain in [false, true] {
        let mut will = Publish::new(TOPIC, request(json!(0)).to_string());
        will.retain = retain;
        let dying = Client::connect(daemon.mqtt(), &Connect::id("dying").will(will));
        dying.break_off();
        let admin = daemon.admin();
        eventually("the broken connection is noticed", || {
            let clients = admin.request("GET", "/api/v1/clients/dying", None);
            (clients.status == 404 || clients.json()["connected"] == false).then_some(())
        });
    }
    device.client.publish(&Publish::new(TOPIC, "marker"));
    assert_eq!(onlooker.next_publish().text(), "marker", "the will reached nobody");
    device.client.expect_silence();
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    let image = image(13, 4 * CHUNK);
    let (_site, daemon, mut device) = site_with(&image);
    device.fetch(0);
    // The answer to this one is lost with the connection.
    device.request(1);
    device.client.break_off();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    for index in 1..4 {
        let expected = &image[index * CHUNK..(index + 1) * CHUNK];
        assert!(device.fetch(index) == expected, "chunk {index}");
        assert!(device.fetch(index) == expected, "chunk {index}, asked for again");
    }
}

#[test]
fn a_client_with_a_small_maximum_packet_size_gets_smaller_chunks() {
    let image = image(14, 20_000);
    let site = Site::new();
    site.drop_file("pump-1.0.0.bin", &image);
    let daemon = site.start();
    let mut connect = Connect::id("small").v5();
    connect.maximum_packet_size = Some(1024);
    let mut device = Device::connect(daemon.mqtt(), &connect);
    let manifest = device.manifest();
    assert!(manifest.chunk_size < 1024, "{manifest:?}");
    let mut bytes = Vec::new();
    for index in 0..manifest.chunks {
        device.request(index);
        let answer = device.client.next_publish();
        assert!(answer.wire_length <= 1024, "{} bytes", answer.wire_length);
        match understand(answer.json()) {
            Message::Block { index: at, bytes: block, .. } => {
                assert_eq!(at, index);
                bytes.extend(block);
            }
            other => panic!("expected block {index}, got {other:?}"),
        }
    }
    assert_eq!(sha256(&bytes), manifest.sha256);
}

/// The README's answer to "which `fuota.chunk_size` keeps a message under 4 KB?".
#[test]
fn the_chunk_size_of_the_readme_keeps_a_message_under_4_kb() {
    let readme = include_str!("../README.md");
    let sentence = readme
        .lines()
        .find(|line| line.contains("under 4 KB") && line.contains("chunk_size = "))
        .expect("the README names a chunk size");
    let digits = sentence.split_once("chunk_size = ").expect("checked").1;
    let chunk: usize = digits
        .chars()
        .take_while(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .expect("a number");

    // The largest index and the largest size fields that an image of 512 MB can have.
    let mut site = Site::new();
    site.set("fuota.chunk_size", &chunk.to_string());
    let image = image(15, 100 * chunk);
    site.drop_file("pump-1.0.0.bin", &image);
    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1").v5());
    let manifest = device.manifest();
    assert_eq!(manifest.chunk_size, chunk);
    device.client.publish(&Publish::new(
        TOPIC,
        r#"{"variable":"firmware_request","value":99,"unit":"index","group":"0123456789abcdef01234567"}"#,
    ));
    let answer = device.client.next_publish();
    // A seven-digit index, as an image of 512 MB has, is five bytes longer than this one.
    let length = answer.wire_length + 5;
    assert!(length < 4096, "{length} bytes");
    assert!(length > 4096 - 64, "{length} bytes: a larger chunk would fit too");
}
