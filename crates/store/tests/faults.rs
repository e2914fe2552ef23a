//! What is not accepted, what is damaged, and what goes away.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use store::{Change, Digest, Event, FirmwareStore, Known, ReadErrorKind, StoreError};
use support::{Site, files, known};

fn fast_poll(settings: &mut store::Settings) {
    settings.poll_interval = Duration::from_millis(200);
}

#[tokio::test]
async fn what_is_no_firmware_is_refused_with_a_reason() {
    let mut site = Site::start_with(|settings| settings.max_size = 100).await;
    let outside = site.dir().join("secret");
    fs::write(&outside, b"secret").unwrap();

    site.rename_in("empty.bin", b"");
    let (path, reason) = site.refused().await;
    assert_eq!(path, "empty.bin");
    assert!(reason.contains("empty"), "{reason}");

    site.rename_in("large.bin", &[0; 101]);
    let (_, reason) = site.refused().await;
    assert!(reason.contains("store.max_size"), "{reason}");

    symlink(&outside, site.path("link.bin")).unwrap();
    let (_, reason) = site.refused().await;
    assert!(reason.contains("out of the watched directory"), "{reason}");

    symlink("/", site.path("devices/d")).unwrap();
    let (path, reason) = site.refused().await;
    assert_eq!(path, "devices/d");
    assert!(reason.contains("out of the watched directory"), "{reason}");

    symlink("nowhere", site.path("dangling.bin")).unwrap();
    let (_, reason) = site.refused().await;
    assert!(reason.contains("leads nowhere"), "{reason}");

    fs::write(site.root.join(OsStr::from_bytes(b"pump-\xff.bin")), b"x").unwrap();
    let (path, reason) = site.refused().await;
    assert_eq!(path, "pump-\\xff.bin");
    assert!(reason.contains("UTF-8"), "{reason}");

    site.rename_in("all/main/pump.bin", b"x");
    let (path, reason) = site.refused().await;
    assert_eq!(path, "all/main");
    assert!(reason.contains("one component, `main`, for now"), "{reason}");

    assert_eq!(site.store.status().refused, 7);
    site.silence("marker").await;

    // Removed, the refusal goes too.
    fs::remove_file(site.path("link.bin")).unwrap();
    assert_eq!(site.change().await, Change::Removed { path: "link.bin".into() });
}

#[tokio::test]
async fn a_fifo_is_never_opened() {
    let mut site = Site::start().await;
    let fifo = site.path("pump.bin");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let (path, reason) = site.refused().await;
    assert_eq!(path, "pump.bin");
    assert!(reason.contains("regular file"), "{reason}");
    // A writer that does not wait is turned away as long as nobody reads.
    let written = Command::new("sh")
        .args(["-c", "exec timeout 1 sh -c 'echo x > \"$0\"' \"$0\""])
        .arg(&fifo)
        .status()
        .unwrap();
    assert!(!written.success(), "somebody read from the FIFO");
    site.silence("marker").await;
}

#[tokio::test]
async fn a_device_file_is_never_opened() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let mut site = Site::start().await;
    // The null device, in the folder.
    let path = site.path("pump.bin");
    let made = mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR, makedev(1, 3));
    if made.is_err() {
        eprintln!("skipped: only the superuser may make one");
        return;
    }
    let (path, reason) = site.refused().await;
    assert_eq!(path, "pump.bin");
    assert!(reason.contains("regular file"), "{reason}");
    site.silence("marker").await;
}

#[tokio::test]
async fn the_longest_names_and_paths_are_no_trouble() {
    use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
    let mut site = Site::start_with(fast_poll).await;
    // Nothing fits beside a name of the longest kind.
    let long = "x".repeat(255);
    site.rename_in(&long, b"image");
    assert_eq!(site.present().await.path, long);
    site.store.publish_status(long, Some(b"{}".to_vec())).await;

    // More than 4 KB of folders, which no system call takes in one piece.
    fs::create_dir(site.path("all")).unwrap();
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let mut at = open(site.path("all"), flags, Mode::empty()).unwrap();
    let name = "d".repeat(200);
    for _ in 0..25 {
        mkdirat(&at, &*name, Mode::RWXU).unwrap();
        at = openat(&at, &*name, flags, Mode::empty()).unwrap();
    }
    let file = openat(&at, "pump.bin", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
    drop(file);
    let (path, reason) = site.refused().await;
    assert_eq!(path, format!("all/{name}"));
    assert!(reason.contains("deeper folders"), "{reason}");
    site.silence("marker").await;
}

#[tokio::test]
async fn a_link_within_the_root_is_followed() {
    let mut site = Site::start_with(fast_poll).await;
    site.rename_in("all/pump.bin", b"image");
    site.present().await;
    symlink("../../all/pump.bin", site.path("devices/d/pump.bin")).unwrap();
    let dropped = site.present().await;
    assert_eq!(dropped.path, "devices/d/pump.bin");
    assert_eq!(dropped.digest, Digest::of(b"image"));
}

#[tokio::test]
async fn an_unreadable_file_is_refused_and_does_not_hold_up_others() {
    let mut site = Site::start_with(fast_poll).await;
    site.rename_in("pump.bin", b"image");
    site.present().await;
    fs::set_permissions(site.path("pump.bin"), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(site.path("pump.bin")).is_ok() {
        eprintln!("skipped: the superuser may read everything");
        return;
    }
    let (_, reason) = site.refused().await;
    assert!(reason.contains("cannot be read"), "{reason}");
    site.silence("marker").await;
    fs::set_permissions(site.path("pump.bin"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(site.present().await.digest, Digest::of(b"image"));
}

#[tokio::test]
async fn a_root_that_goes_and_comes_back_loses_nothing() {
    let mut site = Site::start_with(fast_poll).await;
    site.rename_in("a.bin", b"a");
    site.present().await;
    site.rename_in("b.bin", b"b");
    site.present().await;

    let aside = site.dir().join("aside");
    fs::rename(&site.root, &aside).unwrap();
    let reason = site.unavailable().await;
    assert!(reason.contains("missing"), "{reason}");
    assert_eq!(site.store.status().available, Err(reason));

    // The empty directory that a mount leaves.
    fs::create_dir(&site.root).unwrap();
    site.store.rescan();
    let looked = async {
        while !site.store.status().available.is_err_and(|reason| reason.contains("is empty")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looked).await.expect("a look");
    fs::remove_dir(&site.root).unwrap();

    fs::rename(&aside, &site.root).unwrap();
    assert_eq!(site.event().await, Event::Available);
    // Nothing is told anew, and it is listened to again.
    site.silence("marker").await;
    assert_eq!(site.store.status().files, 3);
}

#[tokio::test]
async fn an_empty_directory_at_start_is_no_deletion() {
    let remembered = Known {
        path: "pump.bin".into(),
        fingerprint: store::Fingerprint::new("1"),
        digest: Digest::of(b"image"),
        size: 5,
        facts: Some(store::Facts::default()),
    };
    let fill = |root: &Path| fs::create_dir(root).unwrap();
    let mut site = Site::prepare(|_| {}, fill, vec![remembered]);
    let reason = site.unavailable().await;
    assert!(reason.contains("is empty"), "{reason}");
    site.rename_in("pump.bin", b"image");
    assert_eq!(site.event().await, Event::Available);
    assert_eq!(site.present().await.digest, Digest::of(b"image"));
}

#[tokio::test]
async fn a_missing_root_at_start_is_waited_for() {
    let mut site = Site::prepare(fast_poll, |_| {}, vec![]);
    assert!(site.unavailable().await.contains("missing"));
    fs::create_dir(&site.root).unwrap();
    assert_eq!(site.event().await, Event::Available);
    assert_eq!(site.batch().await, []);
    site.silence("marker").await;
}

#[tokio::test]
async fn a_file_in_place_of_the_root_is_named() {
    let mut site = Site::prepare(|_| {}, |root| fs::write(root, b"").unwrap(), vec![]);
    assert!(site.unavailable().await.contains("not a directory"));
}

#[tokio::test]
async fn what_is_in_a_folder_that_cannot_be_listed_at_start_is_not_gone() {
    let mut site = Site::start_with(fast_poll).await;
    site.rename_in("a.bin", b"a");
    let a = known(&site.present().await);
    site.rename_in("models/px/b.bin", b"b");
    let b = known(&site.present().await);
    let shut = |root: &Path| {
        let folder = root.join("models/px");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o000)).unwrap();
    };
    let mut site = site.restart(vec![a, b], shut).await;
    if fs::read_dir(site.path("models/px")).is_ok() {
        eprintln!("skipped: the superuser may read everything");
        return;
    }
    let changes = site.batch().await;
    let [Change::Refused { path, reason }, Change::Present(told)] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!((&**path, &*told.path), ("models/px", "a.bin"));
    assert!(reason.contains("stays as it was"), "{reason}");
    assert_eq!(site.store.status().files, 2);
    // What went meanwhile is gone as soon as that can be seen.
    fs::set_permissions(site.root.join("models/px"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(site.root.join("models/px/b.bin")).unwrap();
    let gone = |path: &str| Change::Removed { path: path.into() };
    assert_eq!(site.batch().await, [gone("models/px"), gone("models/px/b.bin")]);
}

/// Only whoever has mounts of its own may mount, so this runs in a process of its own: this test
/// binary again, with that test.
#[cfg(target_os = "linux")]
fn with_own_mounts(child: &str) {
    let unshare = |command: &[&str]| {
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount"])
            .args(command)
            .output()
    };
    if !unshare(&["true"]).is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this user may not mount");
        return;
    }
    let own = std::env::current_exe().unwrap();
    let output = unshare(&[own.to_str().unwrap(), "--exact", child, "--ignored"]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn run(command: &[&str], path: &Path) {
    let status = Command::new(command[0]).args(&command[1..]).arg(path).status().unwrap();
    assert!(status.success(), "{command:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_gets_room_where_something_can_go() {
    with_own_mounts("child_with_a_small_disk");
}

#[tokio::test]
#[ignore = "run by a_full_disk_gets_room_where_something_can_go"]
async fn child_with_a_small_disk() {
    let fill = |root: &Path| {
        fs::create_dir(root).unwrap();
        let data = root.with_file_name("data");
        fs::create_dir(&data).unwrap();
        run(&["mount", "-t", "tmpfs", "-o", "size=5m", "none"], &data);
    };
    let mut site = Site::prepare(fast_poll, fill, vec![]);
    assert_eq!(site.batch().await, []);
    let bytes = Ok(bytes::Bytes::from(vec![1; 3 << 20]));
    let upload = site.store.ingest_stream(futures_util::stream::iter([bytes])).await.unwrap();
    // Of an earlier run, so that nobody is about to name it.
    let mut site = site.restart(vec![], |_| {}).await;
    assert_eq!(site.batch().await, []);
    site.store.need([upload.digest].into());
    site.rename_in("pump.bin", &[2; 3 << 20]);
    let (_, reason) = site.refused().await;
    assert!(reason.contains("free some space there"), "{reason}");
    assert!(site.copy_of(upload.digest).exists());
    // Nothing needs it any more. The next try finds no room yet, and makes some.
    site.store.need([].into());
    assert_eq!(site.present().await.size, 3 << 20);
    assert!(!site.copy_of(upload.digest).exists());
    assert_eq!(site.store.status().copies, 1);
}

#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_is_not_mounted_loses_nothing() {
    with_own_mounts("child_with_a_mount");
}

#[tokio::test]
#[ignore = "run by a_folder_that_is_not_mounted_loses_nothing"]
async fn child_with_a_mount() {
    let fill = |root: &Path| {
        fs::create_dir_all(root.join("models")).unwrap();
        fs::write(root.join("a.bin"), b"a").unwrap();
        let source = root.with_file_name("disk");
        fs::create_dir(&source).unwrap();
        run(&["mount", "-t", "tmpfs", "none"], &source);
        fs::create_dir_all(source.join("m")).unwrap();
        fs::write(source.join("m/b.bin"), b"b").unwrap();
        fs::write(source.join("m/c.bin"), b"c").unwrap();
        run(&["mount", "--bind", source.to_str().unwrap()], &root.join("models"));
    };
    let mut site = Site::prepare(fast_poll, fill, vec![]);
    let told: Vec<_> = (site.batch().await.into_iter())
        .map(|change| match change {
            Change::Present(dropped) => dropped,
            change => panic!("{change:?}"),
        })
        .collect();
    assert_eq!(told.len(), 3);
    let all: Vec<_> = told.iter().map(known).collect();
    let (mount, disk) = (site.root.join("models"), site.dir().join("disk"));
    let troubled = |changes: Vec<Change>| {
        let paths: Vec<_> = (changes.into_iter())
            .filter_map(|change| match change {
                Change::Troubled { path, reason } if reason.contains("not mounted") => Some(path),
                Change::Present(_) => None,
                change => panic!("{change:?}"),
            })
            .collect();
        assert_eq!(paths, ["models/m/b.bin", "models/m/c.bin"]);
    };
    // While it runs, and at a start.
    run(&["umount"], &mount);
    troubled(site.batch().await);
    let mut site = site.restart(all.clone(), |_| {}).await;
    troubled(site.batch().await);
    assert_eq!(site.store.status().files, 3);
    run(&["mount", "--bind", disk.to_str().unwrap()], &mount);
    let back = site.batch().await;
    let digests: Vec<_> = files(&back).into_iter().map(|(_, digest)| digest).collect();
    assert_eq!(digests, [Digest::of(b"b"), Digest::of(b"c")]);
    // Deleted on the mount, and given up without it.
    fs::remove_file(mount.join("m/c.bin")).unwrap();
    assert_eq!(site.change().await, Change::Removed { path: "models/m/c.bin".into() });
    run(&["umount"], &mount);
    assert!(matches!(site.change().await, Change::Troubled { .. }));
    site.store.give_up([Digest::of(b"b")].into());
    assert_eq!(site.change().await, Change::Removed { path: "models/m/b.bin".into() });
}

#[tokio::test]
async fn what_was_said_of_a_file_goes_with_it_while_nobody_watches() {
    let mut site = Site::start_with(fast_poll).await;
    site.rename_in("a.bin", b"a");
    let a = known(&site.present().await);
    site.rename_in("models/m/b.bin", b"");
    site.refused().await;
    let status = |site: &Site, path: &str| site.root.join(format!("{path}.status.json"));
    for path in ["a.bin", "models/m/b.bin"] {
        let text = format!("{{\"path\": \"{path}\", \"state\": \"refused\"}}");
        site.store.publish_status(path.into(), Some(text.into())).await;
    }
    fs::write(site.root.join("mine.status.json"), "{}").unwrap();
    let gone = |root: &Path| fs::remove_file(root.join("models/m/b.bin")).unwrap();
    let mut site = site.restart(vec![a], gone).await;
    site.present().await;
    assert!(!status(&site, "models/m/b.bin").exists());
    assert!(status(&site, "a.bin").exists() && status(&site, "mine").exists());
}

#[tokio::test]
async fn what_is_said_of_a_name_that_cannot_be_used_is_refused_never() {
    let mut site = Site::start_with(fast_poll).await;
    let names = ["pump\n1.bin", "pump\u{1}.bin", "all/pump\t.bin", "\u{7f}pump.bin"];
    let say = async |site: &Site, path: &str| {
        let path_text = serde_json::to_string(path).unwrap();
        let text = format!("{{\"path\": {path_text}, \"state\": \"refused\"}}");
        site.store.publish_status(path.into(), Some(text.into())).await;
    };
    let status = |site: &Site, path: &str| site.root.join(format!("{path}.status.json"));
    for name in names {
        site.rename_in(name, b"image");
        let (path, reason) = site.refused().await;
        assert_eq!(path, name);
        assert!(reason.contains("characters"), "{reason}");
        say(&site, name).await;
    }
    // A folder likewise, and what stands beside a file.
    site.rename_in("all/x\ny/pump.bin", b"image");
    assert_eq!(site.refused().await.0, "all/x\ny");
    say(&site, "all/x\ny").await;
    for ending in ["toml", "sha256", "minisig", "status.json.status.json"] {
        site.write(&format!("pump\n1.bin.{ending}"), b"{}");
    }
    site.store.rescanned().await;
    site.silence("marker").await;
    // With the file goes what was said of it, also while nobody watches.
    let gone = |root: &Path| {
        for name in names {
            fs::remove_file(root.join(name)).unwrap();
        }
        fs::remove_dir_all(root.join("all/x\ny")).unwrap();
    };
    let mut site = site.restart(vec![], gone).await;
    site.batch().await;
    for name in names.iter().chain(&["all/x\ny"]) {
        assert!(!status(&site, name).exists(), "{name:?}");
    }
}

#[tokio::test]
async fn a_lost_copy_is_made_again() {
    let mut site = Site::start().await;
    site.rename_in("pump.bin", &vec![7; 3 << 20]);
    let dropped = site.present().await;
    let copy = site.copy_of(dropped.digest);
    fs::remove_file(&copy).unwrap();
    let image = site.store.image(dropped.digest, dropped.size);
    let error = image.read(0, 10).await.unwrap_err();
    assert_eq!((error.kind, error.retry), (ReadErrorKind::Missing, true));
    eventually_reads(&image, 7).await;
    assert!(copy.exists());
    // It was not dropped anew, so nothing is told.
    site.silence("marker").await;
}

#[tokio::test]
async fn a_damaged_copy_is_never_served_and_made_again() {
    let mut site = Site::start().await;
    site.rename_in("pump.bin", &vec![7; 3 << 20]);
    let dropped = site.present().await;
    let copy = site.copy_of(dropped.digest);

    // Before it was first read, and again after it was verified and partly read.
    for offset in [0, 2 << 20] {
        let file = fs::OpenOptions::new().write(true).open(&copy).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"x", 2 << 20).unwrap();
        let image = site.store.image(dropped.digest, dropped.size);
        let error = image.read(offset, 10).await.unwrap_err();
        assert_eq!((error.kind, error.retry), (ReadErrorKind::Corrupt, true));
        eventually_reads(&image, 7).await;
    }
    // Cut off.
    let image = site.store.image(dropped.digest, dropped.size);
    fs::OpenOptions::new().write(true).open(&copy).unwrap().set_len(1 << 20).unwrap();
    let error = image.read(2 << 20, 10).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Corrupt);
    eventually_reads(&image, 7).await;
    site.silence("marker").await;
}

/// Reads the first bytes of an image until its copy is there again.
async fn eventually_reads(image: &store::Image, byte: u8) {
    let reading = async {
        loop {
            match image.read(0, 10).await {
                Ok(bytes) => break assert_eq!(bytes, vec![byte; 10]),
                Err(error) => assert!(error.retry, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("a new copy");
}

#[tokio::test]
async fn a_place_for_copies_that_cannot_be_written_is_refused_and_retried() {
    let mut site = Site::start_with(fast_poll).await;
    let incoming = site.settings.data_dir.join("objects/incoming");
    fs::remove_dir(&incoming).unwrap();
    site.rename_in("pump.bin", b"image");
    let (_, reason) = site.refused().await;
    assert!(reason.contains("data_dir"), "{reason}");
    fs::create_dir(&incoming).unwrap();
    assert_eq!(site.present().await.digest, Digest::of(b"image"));
}

#[test]
fn wrong_settings_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for url in ["firmware", "file:", "http://x", "s3://", "s3:///prefix", ""] {
        let mut settings = support::settings(dir.path());
        settings.url = url.into();
        let error = FirmwareStore::open(settings).unwrap_err();
        assert!(matches!(error, StoreError::Url { .. }), "{url}: {error}");
    }
    let mut settings = support::settings(dir.path());
    settings.url = "s3://bucket".into();
    settings.s3.access_key_id = Some("id".into());
    let error = FirmwareStore::open(settings.clone()).unwrap_err();
    assert!(error.to_string().contains("secret_access_key"), "{error}");
    settings.s3.access_key_id = None;
    settings.s3.endpoint = Some("http://localhost:1".into());
    let error = FirmwareStore::open(settings).unwrap_err();
    assert!(error.to_string().contains("allow_http"), "{error}");

    let mut settings = support::settings(dir.path());
    settings.data_dir = dir.path().join("file");
    fs::write(&settings.data_dir, b"").unwrap();
    let error = FirmwareStore::open(settings).unwrap_err();
    assert!(matches!(error, StoreError::DataDir { .. }), "{error}");
}
