//! ThingsBoard's dialect, written from its description; the real client runs in `tests/interop`.

use serde_json::{Value, json};

use crate::support::{Client, Connect, Daemon, Publish, Site, eventually, image, sha256};

const ATTRIBUTES: &str = "v1/devices/me/attributes";
const KEYS: &str =
    r#"{"sharedKeys":"fw_title,fw_version,fw_size,fw_checksum_algorithm,fw_checksum,"}"#;

pub fn chunk(id: u32, chunk: u32, size: &str) -> Publish {
    Publish::new(&format!("v2/fw/request/{id}/chunk/{chunk}"), size)
}

/// Asks for the firmware's attributes.
pub fn ask(client: &mut Client, number: u32) -> Value {
    client.publish(&Publish::new(&format!("{ATTRIBUTES}/request/{number}"), KEYS));
    let answer = client.next_publish();
    assert_eq!(answer.topic, format!("{ATTRIBUTES}/response/{number}"));
    answer.json()
}

#[test]
fn what_is_not_as_it_should_be_is_answered_and_ends_nothing() {
    let bytes = image(1, 8192);
    let site = Site::new();
    let daemon = site.start();
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    device.subscribe(&format!("{ATTRIBUTES}/response/+"), 1);
    // Before any offer.
    assert_eq!(ask(&mut device, 1), json!({}));
    device.publish(&chunk(1, 0, "4096"));
    let error = device.next_publish();
    assert_eq!((&*error.topic, &*error.text()), ("v2/fw/error", "NOT_FOUND"));
    site.drop_file("pump-1.0.0.bin", &bytes);
    eventually("an offer", || (ask(&mut device, 2) != json!({})).then_some(()));
    assert_eq!(ask(&mut device, 3)["shared"]["fw_checksum"], sha256(&bytes));

    for (size, answer) in
        [("\"4096\"", 4096), (" 100 ", 100), ("1", 1), ("", 1), ("0", 8192), ("65536", 8192)]
    {
        let publish = chunk(2, 0, size);
        device.publish(&publish);
        let block = device.next_publish();
        assert_eq!(
            (&*block.topic, block.payload.len()),
            ("v2/fw/response/2/chunk/0", answer),
            "{size:?}"
        );
        assert!(bytes.starts_with(&block.payload));
    }
    for (size, word) in [
        ("65537", "PAYLOAD_TOO_LARGE"),
        ("1073741824", "PAYLOAD_TOO_LARGE"),
        ("-5", "FAILURE"),
        ("[1]", "FAILURE"),
    ] {
        device.publish(&chunk(3, 0, size));
        let error = device.next_publish();
        assert_eq!((&*error.topic, &*error.text()), ("v2/fw/error", word), "{size}");
    }
    // The image is a multiple of the chunk: the one after the last is empty.
    for number in [2, 3, u32::MAX] {
        device.publish(&chunk(4, number, "4096"));
        let block = device.next_publish();
        assert_eq!(
            (block.topic, block.payload),
            (format!("v2/fw/response/4/chunk/{number}"), vec![])
        );
    }
    device.publish(&Publish::new("v2/sw/request/1/chunk/0", "4096"));
    assert_eq!(device.next_publish().text(), "NOT_FOUND");
    device.publish(&Publish::new("v2/fw/response/1/chunk/0", "forged"));
    device.publish(&Publish::new("v2/fw/nonsense", ""));
    device.publish(&Publish::new(&format!("{ATTRIBUTES}/request/9"), "[[[[[[[[["));
    assert_eq!(device.next_publish().json(), json!({}));
    device.expect_silence();
    // Nor may a connection speak two of them. All of that is counted.
    device.publish(&Publish::new("$aws/things/dev-1/streams/any/get/json", "{}"));
    device.expect_silence();
    let metrics = daemon.admin().request("GET", "/metrics", None).body;
    for (dialect, quirk) in [
        ("thingsboard", "chunk_size_quoted"),
        ("thingsboard", "chunk_size_with_spaces"),
        ("thingsboard", "chunk_size_zero"),
        ("aws", "second_dialect"),
    ] {
        let line =
            format!("fuotad_dialect_quirks_total{{dialect=\"{dialect}\",quirk=\"{quirk}\"}} 1\n");
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
}

#[test]
fn an_image_is_announced_and_its_outcome_believed_by_the_version() {
    let (old, new) = (image(2, 3000), image(3, 3000));
    let site = Site::new();
    site.drop_file("pump-1.0.0.bin", &old);
    let daemon = site.start();
    let state = || daemon.admin().get("/api/v1/devices/dev-1");
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    device.subscribe(ATTRIBUTES, 1);
    let push = device.next_publish();
    assert_eq!((&*push.topic, &push.json()["fw_version"]), (ATTRIBUTES, &json!("1.0.0")));
    assert_eq!(push.json()["fw_title"], "pump");
    let say = |device: &mut Client, text: Value| {
        device.publish(&Publish::new("v1/devices/me/telemetry", text.to_string()).qos(1))
    };
    say(
        &mut device,
        json!({"current_fw_title": "pump", "current_fw_version": "0.9", "fw_state": "IDLE"}),
    );
    for (number, range) in [(0, 0..1000), (1, 1000..2000), (2, 2000..3000)] {
        device.publish(&chunk(1, number, "1000"));
        assert_eq!(device.next_publish().payload, old[range]);
    }
    for (said, becomes) in
        [("VERIFIED", "verified"), ("UPDATING", "updating"), ("UPDATED", "updating")]
    {
        say(&mut device, json!([{"fw_state": said, "current_fw_version": "0.9"}]));
        eventually(becomes, || (state()["state"] == becomes).then_some(()));
    }
    say(&mut device, json!({"ts": 1, "values": {"current_fw_version": "1.0.0"}}));
    eventually("updated", || (state()["state"] == "updated").then_some(()));
    // Another one, while it is online; the number of the old one gets nothing of it.
    site.drop_file("pump-1.1.0.bin", &new);
    assert_eq!(device.next_publish().json()["fw_version"], "1.1.0");
    device.publish(&chunk(1, 0, "1000"));
    assert_eq!(device.next_publish().text(), "NOT_FOUND");
    device.publish(&chunk(2, 0, "3000"));
    assert_eq!(device.next_publish().payload, new);
    assert_eq!(state()["dialect"], "thingsboard");
}

#[test]
fn ordinary_messages_go_on_under_the_devices_name_alone() {
    // No rule changes that either.
    let mut site = Site::new();
    site.set("auth.rules", r##"["allow any publish #"]"##);
    let daemon = site.start();
    let mut onlooker = Client::connect(daemon.mqtt(), &Connect::id("onlooker"));
    onlooker.subscribe_all(&[("#", 0), ("v1/#", 0)]);
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    device.publish(&Publish::new("v1/devices/me/telemetry", r#"{"temperature": 21}"#));
    let heard = onlooker.next_publish();
    assert_eq!(
        (&*heard.topic, &*heard.text()),
        ("fuota/devices/dev-1/telemetry", r#"{"temperature": 21}"#)
    );
    // Nobody speaks in another's name.
    device.publish(&Publish::new("fuota/devices/dev-2/telemetry", r#"{"temperature": 99}"#));
    device.publish(&Publish::new("v1/devices/me/attributes", r#"{"serial": 5}"#));
    let heard = onlooker.next_publish();
    assert_eq!(heard.topic, "fuota/devices/dev-1/attributes");
    onlooker.expect_silence();
}

#[test]
fn attributes_that_are_withdrawn_are_deleted() {
    let site = Site::new();
    site.drop_file("pump-1.0.0.bin", &image(4, 3000));
    let daemon = site.start();
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    device.subscribe(ATTRIBUTES, 1);
    assert_eq!(device.next_publish().json()["fw_version"], "1.0.0");
    device.publish(&chunk(1, 0, "1000"));
    assert_eq!(device.next_publish().payload.len(), 1000);
    withdraw(&daemon, "1.0.0");
    let gone = device.next_publish();
    let keys = ["fw_title", "fw_version", "fw_size", "fw_checksum_algorithm", "fw_checksum"];
    assert_eq!((&*gone.topic, gone.json()), (ATTRIBUTES, json!({ "deleted": keys })));
    device.publish(&chunk(1, 1, "1000"));
    assert_eq!(device.next_publish().text(), "NOT_FOUND");
    // The next one is told of as if nothing had been.
    site.drop_file("pump-1.1.0.bin", &image(5, 3000));
    assert_eq!(device.next_publish().json()["fw_version"], "1.1.0");
    device.expect_silence();
}

/// Withdraws the firmware of this version.
pub fn withdraw(daemon: &Daemon, version: &str) {
    let admin = daemon.admin();
    let firmware = admin.rows("firmware");
    let one = firmware.iter().find(|one| one["version"]["value"] == version).expect("it is there");
    let path = format!("/api/v1/firmware/{}", one["id"].as_str().expect("an id"));
    assert_eq!(admin.request("DELETE", &path, None).status, 204);
}
