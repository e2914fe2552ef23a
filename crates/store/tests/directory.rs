//! What is dropped into a real directory, and what is told of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use store::{Change, Digest, Target};
use support::{Site, files, known};
use tokio::time::sleep;

#[tokio::test]
async fn a_dropped_file_is_told_and_copied() {
    let mut site = Site::start().await;
    site.write("devices/d-1/pump-1.2.3.bin", b"image");
    let dropped = site.present().await;
    assert_eq!(dropped.path, "devices/d-1/pump-1.2.3.bin");
    assert_eq!(dropped.target, Target::Device("d-1".into()));
    assert_eq!((dropped.digest, dropped.size), (Digest::of(b"image"), 5));
    assert_eq!(dropped.from_name.title.as_deref(), Some("pump"));
    assert_eq!(dropped.from_name.version.as_deref(), Some("1.2.3"));
    assert_eq!(dropped.sidecar, None);
    assert_eq!(fs::read(site.copy_of(dropped.digest)).unwrap(), b"image");
    assert_eq!(site.store.status().files, 1);
    assert_eq!(site.store.status().available, Ok(()));
}

#[tokio::test]
async fn a_file_renamed_into_place_does_not_settle() {
    let mut site = Site::start_with(|settings| settings.settle = Duration::from_secs(3600)).await;
    site.rename_in("pump.bin", b"image");
    assert_eq!(site.present().await.digest, Digest::of(b"image"));
}

#[tokio::test]
async fn a_matching_sum_spares_a_file_the_settling() {
    let mut site = Site::start_with(|settings| settings.settle = Duration::from_secs(3600)).await;
    site.write("pump.bin", b"image");
    site.write("pump.bin.sha256", format!("{}  pump.bin\n", Digest::of(b"image")).as_bytes());
    assert_eq!(site.present().await.digest, Digest::of(b"image"));
}

#[tokio::test]
async fn a_sum_that_does_not_match_refuses_the_file_once_it_stands_still() {
    let mut site = Site::start().await;
    site.write("pump.bin.sha256", Digest::of(b"other").to_string().as_bytes());
    site.write("pump.bin", b"image");
    let (path, reason) = site.refused().await;
    assert_eq!(path, "pump.bin");
    assert!(reason.contains(&Digest::of(b"image").to_string()), "{reason}");
    assert!(!site.copy_of(Digest::of(b"image")).exists());
    // Corrected, it is accepted as it is.
    site.write("pump.bin.sha256", Digest::of(b"image").to_string().as_bytes());
    assert_eq!(site.present().await.digest, Digest::of(b"image"));
}

#[tokio::test]
async fn a_slow_copy_is_never_taken_in_half() {
    // The pauses are shorter than `settle`, the copy takes much longer. Each part is closed,
    // as by a program that opens the file anew to append: the worst case.
    let settle = Duration::from_secs(1);
    let mut site = Site::start_with(|settings| settings.settle = settle).await;
    let path = site.path("pump.bin");
    let mut image = Vec::new();
    let begin = Instant::now();
    for part in 0..10u8 {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
        file.write_all(&[part; 1000]).unwrap();
        image.extend_from_slice(&[part; 1000]);
        drop(file);
        sleep(settle / 4).await;
    }
    assert!(begin.elapsed() > 2 * settle);
    assert_eq!(site.present().await.digest, Digest::of(&image));
}

#[tokio::test]
async fn a_file_that_is_held_open_is_not_complete_however_long_it_stands() {
    let mut site = Site::start_with(|settings| settings.settle = Duration::from_millis(20)).await;
    let mut file = fs::File::create(site.path("pump.bin")).unwrap();
    file.write_all(b"first-half,").unwrap();
    // Others settle and are told meanwhile.
    for marker in ["a", "b", "c"] {
        site.write(marker, marker.as_bytes());
        assert_eq!(site.present().await.path, marker);
    }
    file.write_all(b"second-half").unwrap();
    drop(file);
    assert_eq!(site.present().await.digest, Digest::of(b"first-half,second-half"));
}

#[tokio::test]
async fn files_that_are_dropped_together_are_told_together() {
    let mut site = Site::start().await;
    site.write("a.bin", b"a");
    site.write("groups/north/b.bin", b"b");
    site.write("models/m/c.bin", b"c");
    let changes = site.batch().await;
    assert_eq!(
        files(&changes),
        [
            ("a.bin", Digest::of(b"a")),
            ("groups/north/b.bin", Digest::of(b"b")),
            ("models/m/c.bin", Digest::of(b"c")),
        ]
    );
    site.rename_in("d.bin", b"d");
    site.rename_in("e.bin", b"e");
    assert_eq!(site.batch().await.len(), 2);
}

#[tokio::test]
async fn the_first_batch_is_everything() {
    let fill = |root: &std::path::Path| {
        fs::create_dir_all(root.join("all")).unwrap();
        for number in 0..20 {
            fs::write(root.join(format!("all/{number}.bin")), [number]).unwrap();
        }
        fs::write(root.join("empty.bin"), b"").unwrap();
    };
    let mut site = Site::prepare(|_| {}, fill, vec![]);
    let changes = site.batch().await;
    assert_eq!(changes.len(), 21);
    let refused = changes.iter().filter(|change| matches!(change, Change::Refused { .. }));
    assert_eq!(refused.count(), 1);
}

#[tokio::test]
async fn a_file_that_is_being_written_at_start_comes_after_the_first_batch() {
    let mut writer = None;
    let fill = |root: &std::path::Path| {
        fs::create_dir(root).unwrap();
        fs::write(root.join("whole.bin"), b"whole").unwrap();
        let mut file = fs::File::create(root.join("half.bin")).unwrap();
        file.write_all(b"half").unwrap();
        writer = Some(file);
    };
    let mut site = Site::prepare(|settings| settings.settle = Duration::from_secs(1), fill, vec![]);
    let mut writer = writer.unwrap();
    let appending = tokio::spawn(async move {
        let mut image = b"half".to_vec();
        for _ in 0..20 {
            writer.write_all(b",more").unwrap();
            image.extend_from_slice(b",more");
            sleep(Duration::from_millis(100)).await;
        }
        image
    });
    let first = site.batch().await;
    assert_eq!(files(&first), [("whole.bin", Digest::of(b"whole"))]);
    let image = appending.await.unwrap();
    assert_eq!(site.present().await.digest, Digest::of(&image));
}

#[tokio::test]
async fn the_same_bytes_again_are_no_news() {
    let mut site = Site::start().await;
    site.rename_in("pump.bin", b"image");
    let first = site.present().await;
    site.store.rescan();
    site.silence("marker").await;
    // Copied over itself: another state of the file, told with the same digest.
    site.rename_in("pump.bin", b"image");
    let again = site.present().await;
    assert_eq!(again.digest, first.digest);
    assert_ne!(again.fingerprint, first.fingerprint);
}

#[tokio::test]
async fn a_restart_hashes_nothing_twice_and_tells_what_is_gone() {
    let mut site = Site::start().await;
    site.rename_in("kept.bin", b"kept");
    let kept = site.present().await;
    site.rename_in("gone.bin", b"gone");
    let gone = site.present().await;

    // A digest that no reading could give shows that the file was not read again.
    let never = Digest::from_bytes([7; 32]);
    let copy = site.copy_of(never);
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::write(copy, b"kept").unwrap();
    let mut remembered = known(&kept);
    remembered.digest = never;
    let meanwhile = |root: &std::path::Path| fs::remove_file(root.join("gone.bin")).unwrap();
    let mut site = site.restart(vec![remembered, known(&gone)], meanwhile).await;
    let changes = site.batch().await;
    assert_eq!(changes[0], Change::Removed { path: "gone.bin".into() });
    assert_eq!(files(&changes[1..]), [("kept.bin", never)]);

    // Without its copy it is.
    fs::remove_file(site.copy_of(kept.digest)).unwrap();
    let mut site = site.restart(vec![known(&kept)], |_| {}).await;
    assert_eq!(files(&site.batch().await), [("kept.bin", kept.digest)]);
    assert!(site.copy_of(kept.digest).exists());
}

#[tokio::test]
async fn a_hundred_overwrites_end_with_the_last() {
    let mut site = Site::start().await;
    let last = Digest::of(b"image-99");
    for number in 0..100 {
        let image = format!("image-{number}");
        if number % 2 == 0 {
            site.write("pump.bin", image.as_bytes());
        } else {
            site.rename_in("pump.bin", image.as_bytes());
        }
        tokio::task::yield_now().await;
    }
    let possible: Vec<Digest> =
        (0..100).map(|number| Digest::of(format!("image-{number}").as_bytes())).collect();
    let mut position = 0;
    loop {
        let digest = match site.change().await {
            Change::Present(dropped) => dropped.digest,
            // A writer that the system stopped between truncating and writing left it empty for
            // longer than `settle`: that is said, and taken back by what comes.
            Change::Refused { reason, .. } if reason.contains("empty") => continue,
            change => panic!("{change:?} instead of a file"),
        };
        let found = possible.iter().position(|possible| *possible == digest);
        let found = found.expect("the bytes of one image, not of two");
        assert!(found >= position, "an older image after a newer");
        position = found;
        if digest == last {
            break;
        }
    }
    site.silence("marker").await;
}

#[tokio::test]
async fn deleting_and_moving() {
    let mut site = Site::start().await;
    site.rename_in("a.bin", b"a");
    site.present().await;
    site.rename_in("b.bin", b"b");
    site.present().await;
    fs::rename(site.path("a.bin"), site.path("devices/d/a.bin")).unwrap();
    let changes = site.batch().await;
    assert_eq!(changes[0], Change::Removed { path: "a.bin".into() });
    let moved = files(&changes[1..]);
    assert_eq!(moved, [("devices/d/a.bin", Digest::of(b"a"))]);
    // The last file too may be deleted, as each deletion is notified; folders likewise.
    fs::remove_file(site.path("b.bin")).unwrap();
    assert_eq!(site.change().await, Change::Removed { path: "b.bin".into() });
    fs::remove_dir_all(site.root.join("devices")).unwrap();
    assert_eq!(site.change().await, Change::Removed { path: "devices/d/a.bin".into() });
    assert_eq!(site.store.status().files, 0);
}

#[tokio::test]
async fn a_folder_that_is_moved_in_is_looked_through() {
    let mut site = Site::start().await;
    let outside = site.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("a.bin"), b"a").unwrap();
    fs::create_dir(site.root.join("groups")).unwrap();
    fs::rename(outside, site.root.join("groups/north")).unwrap();
    assert_eq!(site.present().await.target, Target::Group("north".into()));
    // And from then on listened to.
    site.write("groups/north/b.bin", b"b");
    assert_eq!(site.present().await.path, "groups/north/b.bin");
    // Replaced by another folder of the same name, too.
    fs::remove_dir_all(site.root.join("groups/north")).unwrap();
    assert_eq!(site.batch().await.len(), 2);
    site.write("groups/north/c.bin", b"c");
    assert_eq!(site.present().await.path, "groups/north/c.bin");
}

#[tokio::test]
async fn a_sidecar_may_come_late_change_and_go() {
    let mut site = Site::start().await;
    site.rename_in("pump.bin", b"image");
    assert_eq!(site.present().await.sidecar, None);

    site.write("pump.bin.toml", b"name = 'pump'\nmodel = 'm1'\n");
    let dropped = site.present().await;
    let sidecar = dropped.sidecar.unwrap();
    assert_eq!(sidecar.model.as_deref(), Some("m1"));
    assert_eq!(dropped.digest, Digest::of(b"image"));

    site.write("pump.bin.toml", b"modle = 'm2'\n");
    let (path, reason) = site.refused().await;
    assert_eq!(path, "pump.bin");
    assert!(reason.contains("modle") && reason.contains("pump.bin.toml"), "{reason}");

    site.write("pump.bin.toml", b"version = 3\n");
    let (_, reason) = site.refused().await;
    assert!(reason.contains("version"), "{reason}");

    site.write("pump.bin.toml", b"model = 'm2'\n");
    assert_eq!(site.present().await.sidecar.unwrap().model.as_deref(), Some("m2"));

    fs::remove_file(site.path("pump.bin.toml")).unwrap();
    assert_eq!(site.present().await.sidecar, None);
}

#[tokio::test]
async fn a_file_waits_for_a_sidecar_that_is_being_written() {
    let mut site = Site::start().await;
    let mut sidecar = fs::File::create(site.path("pump.bin.toml")).unwrap();
    sidecar.write_all(b"name = 'pump'\n").unwrap();
    site.rename_in("pump.bin", b"image");
    // Complete without the second line it would be for every model.
    site.silence("marker").await;
    sidecar.write_all(b"model = 'm1'\n").unwrap();
    drop(sidecar);
    assert_eq!(site.present().await.sidecar.unwrap().model.as_deref(), Some("m1"));
}

#[tokio::test]
async fn without_notifications_two_equal_scans_decide() {
    // A link's own folder hears nothing of what happens to the file that it leads to.
    let poll = Duration::from_millis(300);
    let mut site = Site::start_with(|settings| {
        settings.settle = Duration::from_millis(50);
        settings.poll_interval = poll;
    })
    .await;
    let hidden = site.path(".staging/pump.bin");
    fs::write(&hidden, b"image").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(".staging/pump.bin", site.path("pump.bin")).unwrap();
    assert_eq!(site.present().await.digest, Digest::of(b"image"));
    let begin = Instant::now();
    fs::write(&hidden, b"another-image").unwrap();
    assert_eq!(site.present().await.digest, Digest::of(b"another-image"));
    assert!(begin.elapsed() >= poll, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_large_file_is_streamed() {
    let mut site = Site::start().await;
    // Sparse: 300 MB that take no space here, and do in the copy.
    let file = fs::File::create(site.path("large.bin")).unwrap();
    file.set_len(300 << 20).unwrap();
    drop(file);
    let dropped = site.present().await;
    assert_eq!(dropped.size, 300 << 20);
    let image = site.store.image(dropped.digest, dropped.size);
    assert_eq!(image.read((300 << 20) - 3, 3).await.unwrap(), &[0; 3][..]);
    #[cfg(target_os = "linux")]
    {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 250 << 10, "{kib} KiB resident at the peak");
    }
}

/// Other settings count at once, also for what was refused before.
#[tokio::test]
async fn settings_change_while_it_watches() {
    let mut site = Site::start_with(|settings| {
        settings.max_size = 100;
        settings.settle = Duration::from_secs(3600);
    })
    .await;
    site.rename_in("large.bin", &[1; 200]);
    assert!(site.refused().await.1.contains("store.max_size"));
    let tuning = store::Tuning::of(&site.settings);
    let trust = site.settings.trust.clone();
    site.store.tune(store::Tuning { max_size: 300, ..tuning });
    assert_eq!(site.present().await.path, "large.bin");

    // A plain copy that would have to stand still for an hour.
    std::fs::write(site.root.join("copied.bin"), [2; 50]).unwrap();
    let settle = Duration::from_millis(100);
    site.store.tune(store::Tuning {
        max_size: 300,
        settle,
        poll_interval: settle,
        trust: trust.clone(),
    });
    assert_eq!(site.present().await.path, "copied.bin");
    // And back: the file that is there stays, a new one is too large.
    site.store.tune(store::Tuning { max_size: 10, settle, poll_interval: settle, trust });
    site.rename_in("another.bin", &[3; 50]);
    assert!(site.refused().await.0.contains("another.bin"));
    assert_eq!(site.store.status().files, 2);
}
