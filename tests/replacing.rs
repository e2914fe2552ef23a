//! A file that is replaced while devices download it: rules 10, 14 and 15.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::thread;

use support::{Connect, Device, Site, device::Message, image, sha256};

const DEVICES: usize = 20;
const REPLACEMENTS: u64 = 100;
const CHUNK: usize = 512;
/// So many chunks that the next file is there before the devices have this one. The last one is
/// odd, so that two images never have their chunks in common by chance.
const SIZE: usize = 400 * CHUNK + 13;

/// What a device did until it had the last image.
struct Story {
    /// Digest of each image that it put together.
    completed: Vec<String>,
    /// Manifests that came while it had a part of another image.
    interruptions: usize,
}

/// Downloads as the reference device does, until the image with this digest is there.
fn live(mut device: Device, last: &str) -> Story {
    let mut story = Story { completed: Vec::new(), interruptions: 0 };
    let mut manifest = device.manifest();
    let mut bytes = Vec::new();
    let mut next = 0;
    loop {
        if next < manifest.chunks {
            device.request(next);
        } else {
            let digest = sha256(&bytes);
            assert_eq!(digest, manifest.sha256, "the bytes of one image and no other");
            story.completed.push(digest.clone());
            if digest == last {
                return story;
            }
        }
        // The next thing is the block, or a manifest (pushed, or instead of the block).
        match device.next() {
            Message::Block { index, bytes: block, .. } => {
                assert_eq!(index, next);
                bytes.extend(block);
                next += 1;
            }
            Message::Manifest(newer) => {
                assert_ne!(newer.sha256, manifest.sha256, "another image");
                story.interruptions += usize::from(0 < next && next < manifest.chunks);
                manifest = newer;
                bytes.clear();
                next = 0;
            }
            other => panic!("expected a block or a manifest, got {other:?}"),
        }
    }
}

#[test]
fn every_device_ends_with_exactly_one_image() {
    let mut site = Site::new();
    site.set("fuota.chunk_size", &CHUNK.to_string());
    site.drop_file("pump.bin", &image(0, SIZE));
    let daemon = site.start();
    let last = sha256(&image(REPLACEMENTS, SIZE));
    let devices: Vec<_> = (0..DEVICES)
        .map(|number| {
            let token = format!("a-token-of-the-field-{number}");
            let device = Device::connect(daemon.mqtt(), &Connect::token(&token));
            let last = last.clone();
            thread::spawn(move || live(device, &last))
        })
        .collect();
    for seed in 1..=REPLACEMENTS {
        let bytes = image(seed, SIZE);
        site.drop_file("pump.bin", &bytes);
        // Each of the hundred is taken in, and none is passed over for the next.
        daemon.expect_log(&["firmware accepted", &sha256(&bytes)]);
    }
    let mut interruptions = 0;
    for device in devices {
        let story = device.join().expect("a device that got what it was promised");
        assert_eq!(story.completed.last(), Some(&last));
        interruptions += story.interruptions;
    }
    let expected = usize::try_from(REPLACEMENTS).unwrap();
    assert!(interruptions > expected, "{interruptions} downloads were interrupted: too few");
}

#[test]
fn the_answer_to_the_next_request_is_the_new_manifest() {
    let mut site = Site::new();
    site.set("fuota.chunk_size", "512");
    let (old, new) = (image(1, 8 * 512), image(2, 9 * 512));
    site.drop_file("pump.bin", &old);
    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    device.manifest();
    assert!(device.fetch(0) == old[..512]);
    site.drop_file("pump.bin", &new);
    support::eventually("the new file is in the catalog", || {
        daemon.admin().get("/api/v1/firmware").to_string().contains(&sha256(&new)).then_some(())
    });
    // No manifest is pushed beside an outstanding request, and none before one: the device is
    // in the middle of its chain, and only its next request is answered otherwise.
    device.client.expect_silence();
    device.request(1);
    let (_, bytes) = device.update();
    assert!(bytes == new);
    device.client.expect_silence();
}

/// A manifest may be lost with its connection at any moment: before it is written, after it, and
/// while its offer is written down. However that goes, blocks of the new image never follow those
/// of the old one without the new manifest between.
#[test]
fn a_new_manifest_that_was_lost_is_given_to_the_first_request() {
    let mut site = Site::new();
    site.set("fuota.chunk_size", "512").set("fuota.resume_grace", "\"30s\"");
    let daemon = site.start();
    let mut seed = 100;
    for moment in [Lost::AtOnce, Lost::AfterAPing, Lost::AfterItWasHeard] {
        for round in 0..5 {
            let id = format!("pump-{moment:?}-{round}");
            let path = format!("devices/{id}/pump.bin");
            seed += 2;
            let (old, new) = (image(seed, 8 * 512), image(seed + 1, 9 * 512));
            site.drop_file(&path, &old);
            let mut device = Device::connect(daemon.mqtt(), &Connect::id(&id));
            device.manifest();
            assert!(device.fetch(0) == old[..512]);
            site.drop_file(&path, &new);
            support::eventually("the new file is in the catalog", || {
                let catalog = daemon.admin().get("/api/v1/firmware").to_string();
                catalog.contains(&sha256(&new)).then_some(())
            });
            device.request(1);
            match moment {
                Lost::AtOnce => {}
                Lost::AfterAPing => device.client.ping(),
                // By the test, not by the device, which was already without power.
                Lost::AfterItWasHeard => {
                    // The catalog may show the file a moment before the transfer knows.
                    while let Message::Block { bytes, .. } = device.next() {
                        assert!(bytes == old[512..1024], "a block of the old image until then");
                        device.request(1);
                    }
                }
            }
            device.client.break_off();

            let mut device = Device::connect(daemon.mqtt(), &Connect::id(&id));
            device.request(1);
            // As above, the transfer may not know yet; what is sent until then is of the old image.
            let manifest = loop {
                match device.next() {
                    Message::Manifest(manifest) => break manifest,
                    Message::Block { bytes, .. } => assert!(bytes == old[512..1024], "{moment:?}"),
                    other => panic!("{other:?}"),
                }
                device.request(1);
            };
            assert_eq!(manifest.sha256, sha256(&new), "{moment:?}");
            // Where the manifest was sent before that request came, its answer follows; a second
            // request for the same block is answered too, so one more of each does no harm.
            let mut chunks = vec![None; manifest.chunks];
            (0..manifest.chunks).for_each(|index| device.request(index));
            while chunks.iter().any(Option::is_none) {
                match device.next() {
                    Message::Block { index, bytes, .. } => chunks[index] = Some(bytes),
                    other => panic!("expected a block, got {other:?}"),
                }
            }
            let bytes: Vec<u8> = chunks.into_iter().flatten().flatten().collect();
            assert!(bytes == new, "{moment:?}: no byte of the old image");
        }
    }
}

/// When the connection breaks that the new manifest goes to.
#[derive(Clone, Copy, Debug)]
enum Lost {
    AtOnce,
    AfterAPing,
    AfterItWasHeard,
}

#[test]
fn another_newer_file_waits_for_the_end_of_the_transfer() {
    let mut site = Site::new();
    site.set("fuota.chunk_size", "512");
    let (old, new) = (image(5, 4 * 512), image(6, 4 * 512));
    site.drop_file("pump-1.0.0.bin", &old);
    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    let manifest = device.manifest();
    assert!(device.fetch(0) == old[..512]);
    site.drop_file("pump-1.1.0.bin", &new);
    support::eventually("the new file is in the catalog", || {
        daemon.admin().get("/api/v1/firmware").to_string().contains(&sha256(&new)).then_some(())
    });
    for index in 1..manifest.chunks {
        assert!(
            device.fetch(index) == old[index * 512..(index + 1) * 512],
            "the digest is finished"
        );
    }
    assert_eq!(device.expect_update(&new).version, "1.1.0");
}

/// The same where the broker itself is killed between the lost manifest and the next connection:
/// that the image took the place of another is remembered.
#[test]
fn a_lost_manifest_comes_first_after_the_broker_was_killed_too() {
    let mut site = Site::new();
    site.set("fuota.chunk_size", "512").set("fuota.resume_grace", "\"30s\"");
    let daemon = site.start();
    let (old, new) = (image(200, 8 * 512), image(201, 9 * 512));
    site.drop_file("pump.bin", &old);
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    device.manifest();
    assert!(device.fetch(0) == old[..512]);
    site.drop_file("pump.bin", &new);
    support::eventually("the new file is in the catalog", || {
        daemon.admin().get("/api/v1/firmware").to_string().contains(&sha256(&new)).then_some(())
    });
    device.request(1);
    drop(device.manifest());
    device.client.break_off();
    daemon.kill();

    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    device.request(1);
    assert_eq!(device.manifest().sha256, sha256(&new), "no block of the new image before it");
    assert!(device.fetch(0) == new[..512]);
}
