//! A copy that is gone or damaged while the bucket is away: devices are told to try again, each in
//! the words of its dialect, and get their bytes when it is back.

use std::{fs, net::SocketAddr};

use serde_json::json;

use crate::{
    aws,
    fixture::Bucket,
    http,
    native::{self, Heard},
    support::{
        Client, Connect, Device, Publish, Site,
        device::{Message, understand},
        eventually, image,
    },
    thingsboard,
};

/// What a device hears when it asks for the beginning of its image.
#[derive(Debug, PartialEq)]
enum Answer {
    Bytes(Vec<u8>),
    TryAgain,
}

/// Asks once.
type Ask = Box<dyn FnMut() -> Answer + Send>;

/// Connects as a device of this name, and is offered its image.
type Begin = fn(mqtt: SocketAddr, http: SocketAddr, name: &str) -> Ask;

fn reference(mqtt: SocketAddr, _: SocketAddr, name: &str) -> Ask {
    let mut device = Device::connect(mqtt, &Connect::id(name));
    device.manifest();
    Box::new(move || {
        device.request(0);
        match understand(device.client.next_publish().json()) {
            Message::Block { index: 0, bytes, .. } => Answer::Bytes(bytes),
            Message::Error(text) if text.contains("try again") => Answer::TryAgain,
            other => panic!("{other:?}"),
        }
    })
}

fn chunks(mqtt: SocketAddr, _: SocketAddr, name: &str) -> Ask {
    let mut device = Client::connect(mqtt, &Connect::id(name));
    device.subscribe("v1/devices/me/attributes", 1);
    device.next_publish();
    Box::new(move || {
        device.publish(&thingsboard::chunk(1, 0, "1000"));
        let said = device.next_publish();
        match (&*said.topic, &*said.text()) {
            ("v2/fw/response/1/chunk/0", _) => Answer::Bytes(said.payload),
            ("v2/fw/error", "FAILURE") => Answer::TryAgain,
            other => panic!("{other:?}"),
        }
    })
}

fn streams(mqtt: SocketAddr, _: SocketAddr, name: &str) -> Ask {
    let mut device = Client::connect(mqtt, &Connect::id(name));
    let job = aws::job(&mut device, name, "$next/get", json!({}), "accepted");
    let ota = &job["execution"]["jobDocument"]["afr_ota"];
    let stream = ota["streamname"].as_str().expect("a stream").to_owned();
    let name = name.to_owned();
    Box::new(move || {
        let topic = |verb: &str| aws::things(&name, &format!("streams/{stream}/{verb}/json"));
        let get = json!({"f": 0, "l": 1024, "o": 0, "n": 1}).to_string();
        device.publish(&Publish::new(&topic("get"), get));
        let said = device.next_publish();
        if said.topic == topic("rejected") && said.json()["o"] == "InternalError" {
            return Answer::TryAgain;
        }
        assert_eq!(said.topic, topic("data"), "{}", said.text());
        Answer::Bytes(aws::data(&said.json()))
    })
}

fn binary(mqtt: SocketAddr, _: SocketAddr, name: &str) -> Ask {
    /// "Try again in some seconds."
    const LATER: u8 = 4;
    let mut device = Client::connect(mqtt, &Connect::id(name));
    let (image, _) = native::begin(&mut device);
    Box::new(move || {
        device.publish(&native::get(&image, 2048, &[(0, 1)]));
        match native::understand(&device.next_publish().payload) {
            Heard::Block { offset: 0, data, .. } => Answer::Bytes(data),
            Heard::Error(LATER) => Answer::TryAgain,
            other => panic!("{other:?}"),
        }
    })
}

fn over_http(_: SocketAddr, http: SocketAddr, name: &str) -> Ask {
    let path = format!("/devices/{name}/firmware");
    Box::new(move || {
        let answer = http::request(http, "GET", &path, &["Range: bytes=0-999".into()], "");
        match answer.status {
            206 => Answer::Bytes(answer.body),
            503 if answer.header("retry-after").is_some() => Answer::TryAgain,
            other => panic!("{other}"),
        }
    })
}

/// What happens to the copy of these bytes.
type Lose = fn(&Site, &[u8]);

fn remove(site: &Site, bytes: &[u8]) {
    fs::remove_file(site.copy_of(bytes)).unwrap();
}

fn damage(site: &Site, bytes: &[u8]) {
    let mut other = bytes.to_vec();
    other[bytes.len() - 1] ^= 1;
    let staged = site.path().join("staged");
    fs::write(&staged, other).unwrap();
    fs::rename(staged, site.copy_of(bytes)).unwrap();
}

#[test]
fn devices_try_again_while_the_copy_cannot_be_made_anew() {
    const DIALECTS: [(&str, Begin); 5] = [
        ("reference", reference),
        ("thingsboard", chunks),
        ("aws", streams),
        ("native", binary),
        ("http", over_http),
    ];
    const LOSSES: [(&str, Lose); 2] = [("gone", remove), ("damaged", damage)];

    let mut bucket = Bucket::new();
    bucket.site.set("http.listen", "\"127.0.0.1:0\"");
    let mut devices = Vec::new();
    for (dialect, begin) in DIALECTS {
        for (what, lose) in LOSSES {
            let name = format!("{dialect}-{what}");
            let bytes = image(devices.len() as u64, 20_000);
            bucket.put(&format!("devices/{name}/{name}-1.0.0.bin"), &bytes);
            devices.push((name, bytes, begin, lose));
        }
    }
    let daemon = bucket.site.start();
    let (mqtt, http) = (daemon.mqtt(), daemon.address_after("downloads listening on http://"));
    eventually("all are copied", || {
        devices.iter().all(|(_, bytes, ..)| bucket.site.copy_of(bytes).exists()).then_some(())
    });
    let mut asks: Vec<Ask> =
        devices.iter().map(|(name, _, begin, _)| begin(mqtt, http, name)).collect();

    bucket.stop();
    for (_, bytes, _, lose) in &devices {
        lose(&bucket.site, bytes);
    }
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asking: Vec<_> = asks.iter_mut().map(|ask| scope.spawn(ask)).collect();
        asking.into_iter().map(|answer| answer.join().expect("an answer")).collect()
    });
    for ((name, ..), answer) in devices.iter().zip(answers) {
        assert_eq!(answer, Answer::TryAgain, "{name}");
    }

    bucket.resume();
    for ((name, bytes, ..), ask) in devices.iter().zip(&mut asks) {
        eventually("the copy is made anew", || {
            fs::read(bucket.site.copy_of(bytes)).is_ok_and(|copy| copy == *bytes).then_some(())
        });
        match ask() {
            Answer::Bytes(answer) => assert!(bytes.starts_with(&answer), "{name}"),
            Answer::TryAgain => panic!("{name}"),
        }
    }
}
