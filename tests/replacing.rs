//! A file that is replaced while devices download it: rules 10, 14 and 15.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    collections::BTreeSet,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use support::{Connect, Device, Manifest, Site, device::Message, image, sha256};

const DEVICES: usize = 20;
const REPLACEMENTS: u64 = 100;
/// Blocks of all devices together between two replacements: less than one image for each.
const BLOCKS_BETWEEN: usize = 10 * DEVICES;
/// Odd sizes, so that two images never have their chunks in common by chance.
const SIZE: usize = 40 * 1024 + 13;

/// What a device did until it had the last image.
struct Story {
    manifests: Vec<Manifest>,
    /// Digest of each image that it put together.
    completed: Vec<String>,
}

/// Downloads until the image with this digest is there.
fn live(mut device: Device, last: &str, blocks: &Sender<()>) -> Story {
    let mut story = Story { manifests: vec![device.manifest()], completed: Vec::new() };
    let mut bytes = Vec::new();
    let mut next = 0;
    loop {
        let manifest = story.manifests.last().expect("the first").clone();
        if next < manifest.chunks {
            device.request(next);
        } else {
            // As a device does: what it assembled must be what its last manifest named.
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
                // The replacer may have finished already.
                let _ = blocks.send(());
            }
            Message::Manifest(newer) => {
                assert_ne!(newer.sha256, manifest.sha256, "another image");
                story.manifests.push(newer);
                bytes.clear();
                next = 0;
            }
            other => panic!("expected a block or a manifest, got {other:?}"),
        }
    }
}

/// Replaces the file again and again, each time after the devices got some more blocks.
fn replace(site: &Site, blocks: &Receiver<()>) {
    for seed in 1..=REPLACEMENTS {
        for _ in 0..BLOCKS_BETWEEN {
            blocks.recv_timeout(support::PATIENCE).expect("the downloads go on");
        }
        site.drop_file("pump.bin", &image(seed, SIZE));
    }
}

#[test]
fn every_device_ends_with_exactly_one_image() {
    let mut site = Site::new();
    site.set("fuota.chunk_size", "512");
    site.drop_file("pump.bin", &image(0, SIZE));
    let daemon = site.start();
    let last = sha256(&image(REPLACEMENTS, SIZE));
    let (sender, receiver) = channel();
    let devices: Vec<_> = (0..DEVICES)
        .map(|number| {
            let device =
                Device::connect(daemon.mqtt(), &Connect::token(&format!("field-token-{number}")));
            let (last, sender) = (last.clone(), sender.clone());
            thread::spawn(move || live(device, &last, &sender))
        })
        .collect();
    drop(sender);
    replace(&site, &receiver);
    let mut seen = BTreeSet::new();
    for device in devices {
        let story = device.join().expect("a device that got what it was promised");
        assert_eq!(story.completed.last(), Some(&last));
        seen.extend(story.manifests.into_iter().map(|manifest| manifest.sha256));
    }
    assert!(
        seen.len() > 10,
        "only {} images were seen: nothing was replaced on the way",
        seen.len()
    );
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
                Lost::AfterItWasHeard => drop(device.manifest()),
            }
            device.client.break_off();

            let mut device = Device::connect(daemon.mqtt(), &Connect::id(&id));
            device.request(1);
            let manifest = device.manifest();
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
