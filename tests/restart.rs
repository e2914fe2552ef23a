//! The daemon stops, or dies, and comes back: rules 13, 14 and 16.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{Client, Connect, Daemon, Device, Site, TOPIC, eventually, image, sha256};

/// How a daemon ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Orderly,
    Killed,
}

fn restart(site: &Site, daemon: Daemon, end: End) -> Daemon {
    match end {
        End::Orderly => drop(daemon.stop()),
        End::Killed => drop(daemon.kill()),
    }
    site.start()
}

/// Waits until the catalog holds the image.
fn catalogued(daemon: &Daemon, image: &[u8]) {
    let digest = sha256(image);
    eventually("the file is in the catalog", || {
        daemon.admin().get("/api/v1/firmware").to_string().contains(&digest).then_some(())
    });
}

#[test]
fn a_request_after_a_restart_is_answered_from_the_pin() {
    for end in [End::Orderly, End::Killed] {
        for identity in [Connect::id("pump-1"), Connect::token("a-token-of-the-field")] {
            let mut site = Site::new();
            // Long enough that only the device's request can be what is answered.
            site.set("fuota.chunk_size", "1000").set("fuota.resume_grace", "\"30s\"");
            let image = image(1, 9_500);
            site.drop_file("pump-1.0.0.bin", &image);
            let daemon = site.start();
            let mut device = Device::connect(daemon.mqtt(), &identity);
            let manifest = device.manifest();
            assert_eq!((manifest.chunk_size, manifest.chunks), (1000, 10));
            let mut bytes: Vec<u8> = (0..4).flat_map(|index| device.fetch(index)).collect();

            site.set("fuota.chunk_size", "512");
            let daemon = restart(&site, daemon, end);
            let mut device = Device::connect(daemon.mqtt(), &identity);
            for index in 4..10 {
                bytes.extend(device.fetch(index));
            }
            assert!(bytes == image, "{end:?} {identity:?}");
            device.client.expect_silence();
        }
    }
}

#[test]
fn a_silent_device_gets_the_pinned_manifest_after_the_grace() {
    let mut site = Site::new();
    site.set("fuota.chunk_size", "1000");
    let image = image(2, 5_500);
    site.drop_file("pump-1.0.0.bin", &image);
    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    let before = device.manifest();
    device.fetch(0);

    site.set("fuota.chunk_size", "512");
    let daemon = restart(&site, daemon, End::Killed);
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    device.client.expect_silence();
    assert_eq!(device.manifest(), before, "same digest, same chunk size");
    assert!(device.download(before).1 == image);
}

#[test]
fn a_changed_chunk_size_applies_to_new_offers() {
    let mut site = Site::new();
    site.set("fuota.chunk_size", "1000");
    let image = image(3, 5_500);
    let daemon = site.start();
    site.set("fuota.chunk_size", "512");
    let daemon = restart(&site, daemon, End::Orderly);
    site.drop_file("pump-1.0.0.bin", &image);
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    assert_eq!(device.expect_update(&image).chunk_size, 512);
}

#[test]
fn the_pin_holds_when_the_file_was_replaced_while_the_daemon_was_away() {
    let mut site = Site::new();
    site.set("fuota.chunk_size", "1000").set("fuota.resume_grace", "\"30s\"");
    let (old, new) = (image(4, 5_000), image(5, 5_000));
    site.drop_file("pump.bin", &old);
    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    device.manifest();
    device.fetch(0);
    daemon.kill();
    site.drop_file("pump.bin", &new);
    let daemon = site.start();
    catalogued(&daemon, &new);
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    // An overwritten file is one of the two exceptions of rule 15: the answer is its manifest,
    // and never a block of the new image in the old transfer.
    device.request(1);
    let (manifest, bytes) = device.update();
    assert_eq!(manifest.sha256, sha256(&new));
    assert!(bytes == new);
}

#[test]
fn an_offline_device_gets_its_manifest_when_it_connects() {
    for end in [None, Some(End::Orderly), Some(End::Killed)] {
        let site = Site::new();
        let mut daemon = site.start();
        // Known since it subscribed once.
        Device::connect(daemon.mqtt(), &Connect::id("pump-1")).client.disconnect();
        let image = image(6, 10_000);
        site.drop_file("devices/pump-1/image.bin", &image);
        catalogued(&daemon, &image);
        if let Some(end) = end {
            daemon = restart(&site, daemon, end);
        }
        let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
        device.expect_update(&image);
    }
}

#[test]
fn a_resumed_session_gets_its_manifest_without_a_subscribe() {
    for connect in [Connect::id("pump-1").persistent(), Connect::id("pump-1").persistent().v5()] {
        let site = Site::new();
        let daemon = site.start();
        let mut client = Client::connect(daemon.mqtt(), &connect);
        assert_eq!(client.subscribe(TOPIC, 1), 1);
        client.disconnect();
        let image = image(7, 10_000);
        site.drop_file("all/pump-1.0.0.bin", &image);
        catalogued(&daemon, &image);
        let (client, present) = Client::connect_session(daemon.mqtt(), &connect);
        assert!(present, "the session waited");
        let mut device = Device { client };
        device.expect_update(&image);
        // One manifest for the connection, and nothing waited in an offline queue beside it.
        device.client.expect_silence();
    }
}

#[test]
fn what_was_delivered_is_remembered() {
    let site = Site::new();
    let image = image(8, 10_000);
    site.drop_file("pump-1.0.0.bin", &image);
    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    device.expect_update(&image);
    eventually("the delivery is recorded", || {
        (daemon.admin().get("/api/v1/devices/pump-1")["state"] == "downloaded").then_some(())
    });
    let mut daemon = daemon;
    for end in [End::Orderly, End::Killed] {
        daemon = restart(&site, daemon, end);
        let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
        device.client.expect_silence();
        // Another device, which is new, is offered the same file meanwhile.
        let mut other = Device::connect(daemon.mqtt(), &Connect::id(&format!("other-{end:?}")));
        other.expect_update(&image);
        device.client.expect_silence();
    }
}

#[test]
fn a_device_gets_blocks_only_of_what_it_was_offered() {
    let site = Site::new();
    site.drop_file("devices/other/image.bin", &image(9, 10_000));
    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    device.request(0);
    let text = device.error();
    assert!(text.len() > 10, "says why: {text:?}");
    device.client.expect_silence();
}
