//! AWS IoT's jobs and streams, written from their description; real clients run in
//! `tests/interop`.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::{Client, Connect, Publish, Site, eventually, image, sha256};

pub fn things(id: &str, rest: &str) -> String {
    format!("$aws/things/{id}/{rest}")
}

/// Asks about a job, and gives the answer, which must be this.
pub fn job(client: &mut Client, id: &str, rest: &str, payload: Value, answer: &str) -> Value {
    let topic = things(id, &format!("jobs/{rest}"));
    client.publish(&Publish::new(&topic, payload.to_string()));
    let said = client.next_publish();
    assert_eq!(said.topic, format!("{topic}/{answer}"), "{}", said.text());
    said.json()
}

/// The bytes of a block in JSON.
pub fn data(block: &Value) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(block["p"].as_str().unwrap()).unwrap()
}

/// The whole image by ranges of 16 blocks of 1,024 bytes, in JSON.
pub fn fetch(client: &mut Client, id: &str, stream: &str, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let total = size.div_ceil(1024);
    for first in (0..total).step_by(16) {
        let get = json!({"s": 1, "f": 0, "l": 1024, "o": first, "n": 16, "c": "t"});
        client.publish(&Publish::new(
            &things(id, &format!("streams/{stream}/get/json")),
            get.to_string(),
        ));
        for _ in first..total.min(first + 16) {
            let said = client.next_publish();
            assert_eq!(said.topic, things(id, &format!("streams/{stream}/data/json")));
            let block = said.json();
            let data = data(&block);
            let at = block["i"].as_u64().unwrap() as usize * 1024;
            assert_eq!((&block["c"], block["l"].as_u64()), (&json!("t"), Some(data.len() as u64)));
            bytes[at..at + data.len()].copy_from_slice(&data);
        }
    }
    bytes
}

#[test]
fn a_job_is_found_streamed_and_ended_across_a_reboot_and_a_dead_server() {
    let bytes = image(1, 40_000);
    let site = Site::new();
    site.drop_file("pump-1.4.2.bin", &bytes);
    let daemon = site.start();
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    device.subscribe(&things("dev-1", "jobs/notify-next"), 1);
    let event = device.next_publish().json();
    let execution = job(
        &mut device,
        "dev-1",
        "$next/get",
        json!({"clientToken": "0:dev-1"}),
        "accepted",
    )["execution"]
        .clone();
    assert_eq!(execution["jobId"], event["execution"]["jobId"]);
    let id = execution["jobId"].as_str().unwrap();
    let ota = &execution["jobDocument"]["afr_ota"];
    let (stream, size) =
        (ota["streamname"].as_str().unwrap(), ota["files"][0]["filesize"].as_u64().unwrap());
    device
        .publish(&Publish::new(&things("dev-1", &format!("streams/{stream}/describe/json")), "{}"));
    assert_eq!(device.next_publish().json()["r"], json!([{"f": 0, "z": size}]));
    let got = fetch(&mut device, "dev-1", stream, size as usize);
    assert_eq!(sha256(&got), sha256(&bytes));
    let update = format!("{id}/update");
    let ready = json!({"status": "IN_PROGRESS", "statusDetails": {"self_test": "ready"}});
    job(&mut device, "dev-1", &update, ready, "accepted");
    let state = |daemon: &crate::support::Daemon| daemon.admin().get("/api/v1/devices/dev-1");
    eventually("updating", || (state(&daemon)["state"] == "updating").then_some(()));
    device.break_off();
    // What it said is written with the next interval.
    let daemon = {
        daemon.stop();
        site.start()
    };
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    let execution =
        job(&mut device, "dev-1", "$next/get", json!({}), "accepted")["execution"].clone();
    assert_eq!(execution["statusDetails"]["self_test"], "ready", "{execution}");
    job(
        &mut device,
        "dev-1",
        &update,
        json!({"status": "SUCCEEDED", "statusDetails": {"reason": "accepted v1.4.2"}}),
        "accepted",
    );
    eventually("updated", || (state(&daemon)["state"] == "updated").then_some(()));
    assert_eq!(state(&daemon)["dialect"], "aws");
    let none = job(&mut device, "dev-1", "$next/get", json!({}), "accepted");
    assert_eq!(none.get("execution"), None);
    job(&mut device, "dev-1", &update, json!({"status": "SUCCEEDED"}), "rejected");
}

#[test]
fn nothing_is_routed_and_nobody_gets_what_is_not_for_him() {
    let (one, two) = (image(2, 9000), image(3, 9000));
    let site = Site::new();
    site.drop_file("devices/dev-1/a.bin", &one);
    site.drop_file("devices/dev-2/b.bin", &two);
    let daemon = site.start();
    let stream = |bytes: &[u8]| format!("AFR_OTA-{}", &sha256(bytes)[..16]);
    let mut onlooker = Client::connect(daemon.mqtt(), &Connect::id("onlooker"));
    let codes = onlooker.subscribe_all(&[
        ("#", 0),
        ("+/things/#", 0),
        ("$aws/#", 0),
        ("$aws/things/dev-1/#", 0),
        ("$aws/things/+/jobs/#", 0),
    ]);
    assert_eq!(codes, [0, 0, 0x80, 0x80, 0x80]);
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    let get = json!({"f": 0, "l": 4096, "o": 0, "n": 1}).to_string();
    let ask = |device: &mut Client, id: &str, stream: &str, payload: &str| {
        device.publish(&Publish::new(&things(id, &format!("streams/{stream}/get/json")), payload));
        let said = device.next_publish();
        (said.topic.clone(), said.json())
    };
    for (id, stream, code) in [
        ("dev-1", stream(&two), "ResourceNotFound"),
        ("dev-2", stream(&two), "Unauthorized"),
        ("dev-1", "AFR_OTA-0".into(), "ResourceNotFound"),
    ] {
        let (topic, said) = ask(&mut device, id, &stream, &get);
        assert_eq!(
            (topic, &said["o"]),
            (things(id, &format!("streams/{stream}/rejected/json")), &json!(code))
        );
    }
    let own = stream(&one);
    let (topic, _) = ask(&mut device, "dev-1", &own, &get);
    assert_eq!(topic, things("dev-1", &format!("streams/{own}/data/json")));
    // A bitmap that is longer than the image; blocks past its end are left out.
    device.publish(&Publish::new(
        &things("dev-1", &format!("streams/{own}/get/json")),
        json!({"f": 0, "l": 4096, "o": 1, "b": "ff".repeat(100)}).to_string(),
    ));
    let got: BTreeMap<u64, u64> = (0..2)
        .map(|_| device.next_publish().json())
        .map(|block| (block["i"].as_u64().unwrap(), block["l"].as_u64().unwrap()))
        .collect();
    assert_eq!(got, BTreeMap::from([(1, 4096), (2, 808)]));
    let past = json!({"f": 0, "l": 4096, "o": 3, "n": 5}).to_string();
    assert_eq!(ask(&mut device, "dev-1", &own, &past).1["o"], "InvalidRequest");
    for topic in [
        "$aws/things/dev-1/shadow/update",
        "$aws/rules/x/y",
        "$aws/things/dev-1/jobs/notify-next",
        "$aws/things/dev-2/jobs/notify-next",
    ] {
        device.publish(&Publish::new(topic, "{}").qos(1));
        device.publish(&Publish::new(topic, "{}").retained());
    }
    device.expect_silence();
    onlooker.expect_silence();
}

#[test]
fn who_listens_for_both_events_hears_both() {
    let site = Site::new();
    let daemon = site.start();
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    let (next, list) = (things("dev-1", "jobs/notify-next"), things("dev-1", "jobs/notify"));
    device.subscribe_all(&[(&next, 1), (&list, 1)]);
    let both = |device: &mut Client| {
        let mut heard = BTreeMap::new();
        for _ in 0..2 {
            let said = device.next_publish();
            heard.insert(said.topic.clone(), said.json());
        }
        (heard.remove(&next).expect("notify-next"), heard.remove(&list).expect("notify"))
    };
    site.drop_file("pump-1.0.0.bin", &image(5, 3000));
    let (event, jobs) = both(&mut device);
    let id = event["execution"]["jobId"].clone();
    assert_eq!(jobs["jobs"]["QUEUED"][0]["jobId"], id);
    // Withdrawn.
    crate::thingsboard::withdraw(&daemon, "1.0.0");
    let (event, jobs) = both(&mut device);
    assert_eq!((event.get("execution"), &jobs["jobs"]), (None, &json!({})));
    // Ended by the device.
    site.drop_file("pump-1.1.0.bin", &image(6, 3000));
    let (event, _) = both(&mut device);
    let update = format!("{}/update", event["execution"]["jobId"].as_str().expect("a job"));
    job(&mut device, "dev-1", &update, json!({"status": "REJECTED"}), "accepted");
    let (event, jobs) = both(&mut device);
    assert_eq!((event.get("execution"), &jobs["jobs"]), (None, &json!({})));
    device.expect_silence();
}

#[test]
fn nonsense_is_rejected_in_its_own_format_and_ends_no_connection() {
    let site = Site::new();
    let daemon = site.start();
    let bytes = image(7, 5000);
    let stream = format!("AFR_OTA-{}", &sha256(&bytes)[..16]);
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    let topic =
        |verb: &str, format: &str| things("dev-1", &format!("streams/{stream}/{verb}/{format}"));
    let ask = |device: &mut Client, format: &str, payload: &[u8]| {
        device.publish(&Publish::new(&topic("get", format), payload));
        let said = device.next_publish();
        let kind = said.topic.split('/').nth(5).expect("a verb").to_owned();
        assert_eq!(said.topic, topic(&kind, format));
        (kind, said.payload)
    };
    let code_in =
        |answer: &[u8], code: &str| answer.windows(code.len()).any(|part| part == code.as_bytes());
    // {"f": 0, "l": 1024, "n": 1}, with and without a number of members.
    let members = [&b"af"[..], &[0], b"al", &[0x19, 4, 0], b"an", &[1]].concat();
    let definite = [&[0xa3][..], &members].concat();
    let indefinite = [&[0xbf][..], &members, &[0xff]].concat();
    let (kind, answer) = ask(&mut device, "cbor", &definite);
    assert!(kind == "rejected" && code_in(&answer, "ResourceNotFound"), "before any offer");
    site.drop_file("pump-1.0.0.bin", &bytes);
    eventually("a job", || {
        let said = job(&mut device, "dev-1", "$next/get", json!({}), "accepted");
        said.get("execution").is_some().then_some(())
    });
    let nested = |open: &str, close: &str| {
        format!("{}{}", open.repeat(30_000), close.repeat(30_000)).into_bytes()
    };
    for (format, payload, code) in [
        ("json", nested("[", "]"), "InvalidJson"),
        ("json", nested("{\"b\":", "}"), "InvalidJson"),
        ("json", b"{\"f\":0,".to_vec(), "InvalidJson"),
        ("json", br#"{"f":0,"l":1024,"b":[1]}"#.to_vec(), "InvalidRequest"),
        ("json", br#"{"f":0,"l":"0"}"#.to_vec(), "BlockSizeOutOfBounds"),
        ("json", br#"{"f":0,"l":1}"#.to_vec(), "BlockSizeOutOfBounds"),
        ("json", br#"{"f":0,"l":4294967296}"#.to_vec(), "BlockSizeOutOfBounds"),
        ("json", br#"{"f":0,"l":1024,"o":98305}"#.to_vec(), "OffsetOutOfBounds"),
        ("json", br#"{"f":0,"l":1024,"o":50,"n":2}"#.to_vec(), "InvalidRequest"),
        ("cbor", vec![0x81; 30_000], "InvalidCbor"),
        ("cbor", [&[0xbf, 0x61, b'x'][..], &[0x9f; 30_000]].concat(), "InvalidCbor"),
        ("cbor", definite[..8].to_vec(), "InvalidCbor"),
        ("cbor", indefinite[..8].to_vec(), "InvalidCbor"),
        ("cbor", b"{}".to_vec(), "InvalidCbor"),
    ] {
        let (kind, answer) = ask(&mut device, format, &payload);
        let shown = String::from_utf8_lossy(&payload[..payload.len().min(40)]).into_owned();
        assert!(kind == "rejected" && code_in(&answer, code), "{shown}: {answer:?} is not {code}");
    }
    for payload in [definite, indefinite] {
        let (kind, answer) = ask(&mut device, "cbor", &payload);
        assert!(kind == "data" && answer.ends_with(&bytes[..1024]));
    }
    device.expect_silence();
}
