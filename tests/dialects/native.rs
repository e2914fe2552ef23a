//! The native dialect, written from its page.

use crate::support::{Client, Connect, Daemon, Publish, Site, eventually, image, sha256};

const UP: &str = "fuota/v1/up";
const DOWN: &str = "fuota/v1/down";

/// What the server says.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Manifest { image: Vec<u8>, size: usize, sha256: String, version: String },
    Block { image: Vec<u8>, offset: usize, data: Vec<u8> },
    Nothing,
    Error(u8),
}

pub fn understand(payload: &[u8]) -> Heard {
    match payload[0] {
        0x81 => {
            let (mut rest, mut fields) = (&payload[1..], std::collections::BTreeMap::new());
            while let [tag, length, after @ ..] = rest {
                let (value, after) = after.split_at(usize::from(*length));
                fields.insert(*tag, value.to_vec());
                rest = after;
            }
            assert!(rest.is_empty(), "a field ends too early");
            let size = u32::from_be_bytes(fields[&2][..].try_into().unwrap()) as usize;
            Heard::Manifest {
                image: fields[&1].clone(),
                size,
                sha256: hex::encode(&fields[&3]),
                version: String::from_utf8(fields[&4].clone()).unwrap(),
            }
        }
        0x82 => {
            let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            assert_eq!(number(1), castagnoli(&payload[5..]), "checksum");
            Heard::Block {
                image: payload[5..9].to_vec(),
                offset: number(9) as usize,
                data: payload[13..].to_vec(),
            }
        }
        0x83 => Heard::Nothing,
        0x84 => Heard::Error(payload[1]),
        other => panic!("a message {other:#04x}"),
    }
}

/// CRC-32C, bit by bit.
fn castagnoli(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

pub fn get(image: &[u8], size: u16, ranges: &[(u32, u32)]) -> Publish {
    let mut message = vec![2];
    message.extend(image);
    message.extend(size.to_be_bytes());
    message.push(0);
    for (first, count) in ranges {
        message.extend(first.to_be_bytes());
        message.extend(count.to_be_bytes());
    }
    Publish::new(UP, message)
}

fn bitmap(image: &[u8], size: u16, base: u32, bits: &[u8]) -> Publish {
    let mut message = vec![2];
    message.extend(image);
    message.extend(size.to_be_bytes());
    message.push(1);
    message.extend(base.to_be_bytes());
    message.extend(bits);
    Publish::new(UP, message)
}

fn updated(version: &str) -> Publish {
    Publish::new(UP, [&[3, 4, 4, version.len() as u8], version.as_bytes()].concat())
}

/// Subscribes, and hears the manifest.
pub fn begin(client: &mut Client) -> (Vec<u8>, usize) {
    client.subscribe(DOWN, 0);
    match understand(&client.next_publish().payload) {
        Heard::Manifest { image, size, .. } => (image, size),
        other => panic!("expected a manifest, got {other:?}"),
    }
}

/// The whole image, asked for at once.
pub fn fetch(client: &mut Client, image: &[u8], size: usize, block: u16) -> Vec<u8> {
    let blocks = size.div_ceil(block.into()) as u32;
    client.publish(&get(image, block, &[(0, blocks)]));
    let mut bytes = vec![0; size];
    for _ in 0..blocks {
        match understand(&client.next_publish().payload) {
            Heard::Block { image: of, offset, data } => {
                assert_eq!(of, image[..4]);
                bytes[offset..offset + data.len()].copy_from_slice(&data);
            }
            other => panic!("expected a block, got {other:?}"),
        }
    }
    bytes
}

fn device_of(daemon: &Daemon, id: &str) -> serde_json::Value {
    daemon.admin().get(&format!("/api/v1/devices/{id}"))
}

#[test]
fn a_device_with_1_kb_of_buffer_is_updated() {
    let bytes = image(1, 50_000);
    let site = Site::new();
    site.drop_file("pump-1.4.2.bin", &bytes);
    let daemon = site.start();
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("small-1"));
    device.subscribe(DOWN, 0);
    let manifest = device.next_publish();
    let Heard::Manifest { image, size, sha256: digest, version } = understand(&manifest.payload)
    else {
        panic!("a manifest")
    };
    assert_eq!((size, &*version), (50_000, "1.4.2"));
    assert_eq!(digest, sha256(&bytes));
    assert!(manifest.wire_length <= 1024);
    let mut got = Vec::new();
    for first in (0..53).step_by(4) {
        let count = 4.min(53 - first);
        device.publish(&get(&image, 960, &[(first, count)]));
        for _ in 0..count {
            let publish = device.next_publish();
            assert!(publish.wire_length <= 1024, "{} bytes", publish.wire_length);
            let Heard::Block { offset, data, .. } = understand(&publish.payload) else { panic!() };
            assert_eq!(offset, got.len());
            got.extend(data);
        }
    }
    assert_eq!(sha256(&got), digest);
    eventually("downloaded", || {
        (device_of(&daemon, "small-1")["state"] == "downloaded").then_some(())
    });
    // It restarts, and says nothing of what it runs: told once more, it would install the same
    // again at each start.
    device.disconnect();
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("small-1"));
    device.subscribe(DOWN, 0);
    device.publish(&Publish::new(UP, [1]));
    assert_eq!(understand(&device.next_publish().payload), Heard::Nothing);
    device.publish(&updated("1.4.2"));
    eventually("updated", || (device_of(&daemon, "small-1")["state"] == "updated").then_some(()));
    assert_eq!(device_of(&daemon, "small-1")["dialect"], "native");
}

#[test]
fn what_is_missing_is_named_by_a_bitmap_after_the_server_died() {
    let bytes = image(2, 40 * 1000);
    let site = Site::new();
    site.drop_file("pump-1.0.0.bin", &bytes);
    let daemon = site.start();
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    let (image, _) = begin(&mut device);
    device.publish(&get(&image, 1000, &[(0, 20)]));
    for _ in 0..20 {
        device.next_publish();
    }
    device.break_off();
    daemon.kill();
    let daemon = site.start();
    // A reboot later it knows the image and what it lacks, and needs no manifest.
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    device.publish(&bitmap(&image, 1000, 16, &[0xF0, 0xFF, 0xFF, 0xFF]));
    let mut offsets: Vec<usize> = (0..20)
        .map(|_| match understand(&device.next_publish().payload) {
            Heard::Block { offset, data, .. } => {
                assert_eq!(data, bytes[offset..offset + 1000]);
                offset / 1000
            }
            other => panic!("{other:?}"),
        })
        .collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (20..40).collect::<Vec<_>>());
    device.expect_silence();
    eventually("downloaded", || {
        (device_of(&daemon, "dev-1")["state"] == "downloaded").then_some(())
    });
}

#[test]
fn an_mqtt_5_device_says_where_answers_go() {
    let bytes = image(3, 10_000);
    let site = Site::new();
    site.drop_file("pump-1.0.0.bin", &bytes);
    let daemon = site.start();
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1").v5());
    let (image, _) = begin(&mut device);
    // Response Topic `r`, Correlation Data `17`.
    let properties = [&[8, 0, 1][..], b"r", &[9, 0, 2], b"17"].concat();
    device.publish(&Publish { properties, ..get(&image, 4096, &[(1, 1)]) });
    let answer = device.next_publish();
    assert_eq!(answer.topic, "r");
    assert_eq!(answer.properties, [&[9, 0, 2][..], b"17"].concat());
    assert!(matches!(understand(&answer.payload), Heard::Block { offset: 4096, .. }));
    // And an error.
    device.publish(&Publish {
        properties: [&[8, 0, 1][..], b"e"].concat(),
        ..get(&image, 4096, &[(9, 1)])
    });
    let answer = device.next_publish();
    assert_eq!((&*answer.topic, understand(&answer.payload)), ("e", Heard::Error(3)));
}

#[test]
fn nobody_gets_bytes_of_another_image_and_no_nonsense_ends_a_connection() {
    let (one, two) = (image(4, 5000), image(5, 5000));
    let site = Site::new();
    site.drop_file("devices/dev-1/a.bin", &one);
    site.drop_file("devices/dev-2/b.bin", &two);
    let daemon = site.start();
    let name = |bytes: &[u8]| hex::decode(&sha256(bytes)[..16]).unwrap();

    let mut stranger = Client::connect(daemon.mqtt(), &Connect::id("dev-3"));
    // Before any offer, and without having said that it listens.
    for bytes in [&one, &two] {
        stranger.publish(&get(&name(bytes), 1000, &[(0, 5)]));
        assert_eq!(understand(&stranger.next_publish().payload), Heard::Error(2));
    }
    stranger.publish(&Publish::new(UP, vec![1]));
    assert_eq!(understand(&stranger.next_publish().payload), Heard::Nothing);

    let mut onlooker = Client::connect(daemon.mqtt(), &Connect::id("onlooker"));
    onlooker.subscribe_all(&[("#", 0), ("fuota/#", 0), ("fuota/+/down", 0), ("fuota/v1/+", 0)]);
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    let (image, size) = begin(&mut device);
    assert_eq!(image, name(&one));
    device.publish(&get(&name(&two), 1000, &[(0, 5)]));
    assert_eq!(understand(&device.next_publish().payload), Heard::Error(2));
    for nonsense in [
        &b"{\"variable\":\"firmware_request\",\"value\":0}"[..],
        &[],
        &[0xff],
        &[2],
        &[2, 0, 0, 0],
        &[1, 4, 200],
        &[3, 77],
        &[&[2][..], &image, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]].concat(),
        &[&[2][..], &image, &[0xff, 0xff, 1, 0, 0, 0, 0], &[0xff; 600]].concat(),
    ] {
        device.publish(&Publish::new(UP, nonsense));
        assert_eq!(understand(&device.next_publish().payload), Heard::Error(1), "{nonsense:?}");
    }
    // Past the end there is nothing, and what is within comes all the same.
    device.publish(&get(&image, 1000, &[(5, 1_000_000)]));
    assert_eq!(understand(&device.next_publish().payload), Heard::Error(3));
    device.publish(&get(&image, 1000, &[(4, u32::MAX)]));
    let heard = understand(&device.next_publish().payload);
    assert_eq!(
        heard,
        Heard::Block { image: image[..4].into(), offset: 4000, data: one[4000..].into() }
    );
    // Blocks of one byte, and of more than the image.
    device.publish(&get(&image, 1, &[(4999, 1)]));
    assert!(matches!(
        understand(&device.next_publish().payload),
        Heard::Block { offset: 4999, .. }
    ));
    assert!(fetch(&mut device, &image, size, 65_535) == one);
    // What only the server says is refused, and nobody heard anything.
    device.publish(&Publish::new(DOWN, vec![0x81]));
    device.expect_silence();
    onlooker.expect_silence();
}

#[test]
fn simulated_devices_get_the_image_whatever_goes_wrong() {
    let bytes = image(6, 300_000);
    let digest = sha256(&bytes);
    for arguments in [
        &["--devices", "5", "--window", "256"][..],
        &["--devices", "5", "--window", "16", "--protocol", "5", "--block-size", "1000"],
        &[
            "--devices",
            "5",
            "--window",
            "32",
            "--loss",
            "0.05",
            "--duplicates",
            "0.1",
            "--reconnect-every",
            "40",
            "--reboots",
            "1",
            "--retry-after",
            "300ms",
            "--block-size",
            "777",
        ],
    ] {
        let site = Site::new();
        site.drop_file("pump-1.4.2.bin", &bytes);
        let daemon = site.start();
        let broker = daemon.mqtt().to_string();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fuotad"));
        command
            .args(["simulate", "--broker", &broker, "--dialect", "native", "--report"])
            .args(["--timeout", "120s", "--expect-sha256", &digest])
            .args(arguments);
        let ended = crate::support::daemon::run_to_end(command);
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}\n{}", ended.log.join("\n"));
        for row in daemon.admin().rows("devices") {
            assert_eq!(
                (&row["dialect"], &row["state"]),
                (&"native".into(), &"updated".into()),
                "{row}"
            );
        }
    }
    assert_eq!(castagnoli(b"123456789"), 0xE306_9283);
}
