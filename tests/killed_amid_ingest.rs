//! `kill -9` while firmware is taken in: what was copied and not written down, and what was copied
//! in half. Rules 6, 7 and 10.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use support::{Connect, Device, Site, eventually, image, sha256};

/// The copies that there are, by their names.
fn copies(site: &Site) -> Vec<String> {
    let objects = site.path().join("data/objects/sha256");
    let folders = fs::read_dir(objects).into_iter().flatten().map(|it| it.unwrap().path());
    let mut names: Vec<String> = folders.flat_map(|folder| names(&folder)).collect();
    names.sort();
    names
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn incoming(site: &Site) -> PathBuf {
    site.path().join("data/objects/incoming")
}

/// Kills the broker when it has copied the one file and not the other, which are dropped together
/// and so written down together. `None` where the kill came too late for that.
fn kill_amid(large: usize) -> Option<()> {
    let site = Site::new();
    let old = image(1, 9_000);
    // Watched from the start, so that what is renamed into it is complete at once.
    fs::create_dir_all(site.firmware().join("devices/large")).unwrap();
    site.drop_file("devices/small/pump-1.0.0.bin", &old);
    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("small"));
    device.expect_update(&old);

    let (new, large) = (image(2, 9_000), image(3, large));
    site.drop_file("devices/large/pump-2.0.0.bin", &large);
    site.drop_file("devices/small/pump-1.0.0.bin", &new);
    eventually("the copy of the small one", || copies(&site).contains(&sha256(&new)).then_some(()));
    daemon.kill();
    if names(&incoming(&site)).is_empty() {
        return None;
    }
    assert!(!copies(&site).contains(&sha256(&large)));

    let daemon = site.start();
    let rows = || daemon.admin().rows("firmware");
    let accepted = |path: &str, bytes: &[u8]| {
        let digest = sha256(bytes);
        rows().iter().any(|row| {
            row["path"] == path && row["state"] == "accepted" && row["digest"] == *digest
        })
    };
    eventually("both are taken in", || {
        let small = accepted("devices/small/pump-1.0.0.bin", &new);
        (small && accepted("devices/large/pump-2.0.0.bin", &large)).then_some(())
    });
    assert_eq!(names(&incoming(&site)), [""; 0], "what was copied in half is gone");
    // It was overwritten, as if nothing had happened between.
    let replaced = rows().into_iter().filter(|row| row["state"] == "replaced");
    assert_eq!(replaced.map(|row| row["digest"].clone()).collect::<Vec<_>>(), [sha256(&old)]);
    let mut states: Vec<String> = (daemon.admin().rows("deployments").iter())
        .map(|row| row["state"].as_str().unwrap().to_owned())
        .collect();
    states.sort();
    assert_eq!(states, ["ended", "running", "running"]);
    // Both copies are whole, and reach their devices.
    for name in copies(&site) {
        let path = site.path().join("data/objects/sha256").join(&name[..2]).join(&name);
        assert_eq!(sha256(&fs::read(path).unwrap()), name);
    }
    Device::connect(daemon.mqtt(), &Connect::id("small")).expect_update(&new);
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("large"));
    let manifest = device.manifest();
    assert_eq!(manifest.sha256, sha256(&large));
    assert!(device.fetch(0) == large[..4096]);
    Some(())
}

#[test]
fn nothing_is_lost_or_half_when_the_broker_is_killed_between_copy_and_catalog() {
    // How long the large one takes depends on the machine.
    let mut sizes = [24, 48, 96, 192].map(|millions| millions * 1_000_000).into_iter();
    assert!(sizes.any(|size| kill_amid(size).is_some()), "every kill came too late");
}
