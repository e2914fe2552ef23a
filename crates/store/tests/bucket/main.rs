//! The same as for a directory, against a real S3 server with signatures checked.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod credentials;
mod etags;
#[path = "../../../../tests/support/s3.rs"]
mod s3;
mod settling;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use object_store::ObjectStoreExt as _;
use object_store::aws::AmazonS3Builder;
use s3::Fault;
use store::{Change, Digest, Dropped, Event, ReadErrorKind, S3Settings, Settings, Target};
use support::{Site, files, known};

fn bucket(server: &s3::S3Server, prefix: &str) -> impl FnOnce(&mut Settings) + use<> {
    let url = format!("s3://{}/{prefix}", s3::BUCKET);
    let access = S3Settings {
        endpoint: Some(server.endpoint()),
        region: Some("garage".into()),
        access_key_id: Some(s3::ACCESS_KEY_ID.into()),
        secret_access_key: Some(s3::SECRET_ACCESS_KEY.into()),
        allow_http: true,
        ..S3Settings::default()
    };
    move |settings| {
        settings.url = url;
        settings.s3 = access;
        settings.poll_interval = Duration::from_millis(200);
        // What it is for is in `settling`.
        settings.settle = Duration::ZERO;
    }
}

/// Neither the key nor what was signed with it.
fn shows_no_secret(text: &str) -> bool {
    [s3::ACCESS_KEY_ID, s3::SECRET_ACCESS_KEY, "AWS4"].iter().all(|secret| !text.contains(secret))
}

#[tokio::test]
async fn objects_are_told_copied_overwritten_and_deleted() {
    let server = s3::S3Server::start().await;
    // More than one part, and not a whole number of them.
    let image: Vec<u8> = (0..9_000_001u32).map(|n| (n % 251) as u8).collect();
    server.put("site/devices/d/pump-1.0.0.bin", &image);
    server.put("site/devices/d/pump-1.0.0.bin.toml", b"model = 'm1'");
    server.put("site/all/.hidden", b"x");
    server.put("elsewhere.bin", b"below no prefix of ours");
    let mut site = Site::prepare(bucket(&server, "site"), |_| {}, vec![]);
    let dropped = site.present().await;
    assert_eq!(dropped.path, "devices/d/pump-1.0.0.bin");
    assert_eq!(dropped.target, Target::Device("d".into()));
    assert_eq!(dropped.digest, Digest::of(&image));
    assert_eq!(dropped.from_name.version.as_deref(), Some("1.0.0"));
    assert_eq!(dropped.sidecar.unwrap().model.as_deref(), Some("m1"));
    let read = site.store.image(dropped.digest, dropped.size);
    assert_eq!(read.read(9_000_000, 1).await.unwrap(), &image[9_000_000..]);

    // Of the same size and within the same second: only the ETag tells.
    server.put("site/pump.bin", b"image-1");
    assert_eq!(site.present().await.digest, Digest::of(b"image-1"));
    server.put("site/pump.bin", b"image-2");
    assert_eq!(site.present().await.digest, Digest::of(b"image-2"));

    server.put("site/groups/north/main/a.bin", b"x");
    let (path, reason) = site.refused().await;
    assert_eq!(path, "groups/north/main");
    assert!(reason.contains("one component"), "{reason}");

    server.delete("site/pump.bin");
    assert_eq!(site.change().await, Change::Removed { path: "pump.bin".into() });
}

#[tokio::test]
async fn a_bucket_without_a_prefix_and_a_restart() {
    let server = s3::S3Server::start().await;
    server.put("a.bin", b"a");
    server.put("all/b.bin", b"b");
    let mut site = Site::prepare(bucket(&server, ""), |_| {}, vec![]);
    let changes = site.batch().await;
    let told = [("a.bin", Digest::of(b"a")), ("all/b.bin", Digest::of(b"b"))];
    assert_eq!(files(&changes), told);
    let remembered = changes.iter().map(|change| match change {
        Change::Present(dropped) => known(dropped),
        change => panic!("{change:?}"),
    });
    let mut site = site.restart(remembered.collect(), |_| {}).await;
    assert_eq!(files(&site.batch().await), told);
}

#[tokio::test]
async fn an_outage_or_an_emptied_bucket_is_no_deletion() {
    let mut server = s3::S3Server::start().await;
    server.put("a.bin", b"a");
    let mut site = Site::prepare(bucket(&server, ""), |_| {}, vec![]);
    let dropped = site.present().await;

    server.stop().await;
    let reason = site.unavailable().await;
    assert!(reason.contains("cannot list s3://"), "{reason}");
    assert!(!reason.contains(s3::SECRET_ACCESS_KEY), "{reason}");
    // What was copied is served on.
    let image = site.store.image(dropped.digest, dropped.size);
    assert_eq!(image.read(0, 1).await.unwrap(), "a");
    server.resume().await;
    assert_eq!(site.event().await, Event::Available);

    server.delete("a.bin");
    let reason = site.unavailable().await;
    assert!(reason.contains("is empty"), "{reason}");
    server.put("a.bin", b"a");
    assert_eq!(site.event().await, Event::Available);
    server.put("b.bin", b"b");
    let changes = site.batch().await;
    assert!(files(&changes).contains(&("b.bin", Digest::of(b"b"))), "{changes:?}");
}

#[tokio::test]
async fn a_look_that_was_asked_for_has_seen_what_was_there() {
    let server = s3::S3Server::start().await;
    let seldom = |settings: &mut Settings| {
        bucket(&server, "site")(settings);
        settings.poll_interval = Duration::from_secs(3600);
    };
    let mut site = Site::prepare(seldom, |_| {}, vec![]);
    // The first look waits for what is still coming.
    site.store.rescan();
    drop(site.event().await);
    for number in 1..=3 {
        server.put(&format!("site/{number}.bin"), &[number as u8]);
        site.store.rescanned().await;
        assert_eq!(site.store.status().files, number);
        site.present().await;
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_used_is_refused_alone() {
    let server = s3::S3Server::start().await;
    // Around it what fits, and more than a page's worth behind it.
    server.put("site/a.bin", b"a");
    server.put("site/b\u{7f}b.bin", b"b");
    for number in 0..1100 {
        server.put(&format!("site/groups/g/{number}.bin"), b"c");
    }
    server.put("site/z\u{7f}/z.bin", b"z");
    let mut site = Site::prepare(bucket(&server, "site"), |_| {}, vec![]);
    let mut refused = Vec::new();
    let mut present = 0;
    for change in site.batch().await {
        match change {
            Change::Refused { path, reason } => refused.push((path, reason)),
            _ => present += 1,
        }
    }
    assert_eq!(present, 1101);
    let paths: Vec<_> = refused.iter().map(|(path, _)| &**path).collect();
    assert_eq!(paths, ["b\\u{7f}b.bin", "z\\u{7f}/z.bin"]);
    assert!(refused.iter().all(|(_, reason)| reason.contains("rename it")), "{refused:?}");
    server.delete("site/b\u{7f}b.bin");
    assert_eq!(site.change().await, Change::Removed { path: "b\\u{7f}b.bin".into() });
}

#[tokio::test]
async fn many_keys_that_cannot_be_used_keep_no_other_out() {
    let server = s3::S3Server::start().await;
    for number in 0..120 {
        server.put(&format!("b\u{7f}{number}.bin"), b"b");
    }
    server.put("z.bin", b"z");
    let mut site = Site::prepare(bucket(&server, ""), |_| {}, vec![]);
    let changes = site.batch().await;
    let (present, refused): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|change| matches!(change, Change::Present(_)));
    assert_eq!(files(&present), [("z.bin", Digest::of(b"z"))]);
    assert_eq!(refused.len(), 100, "so many are told of");
}

#[tokio::test]
async fn a_server_that_errs_gets_one_status_for_each_file_and_is_asked_again() {
    for (fault, says) in [
        (Fault::Status(403), "store.s3.secret_access_key"),
        (Fault::Status(404), "not what was listed"),
        (Fault::Status(500), "500"),
        (Fault::HeadStatus(403), "cannot be looked at"),
        (Fault::HeadStatus(500), "cannot be looked at"),
        (Fault::HalfBody, "cannot be read"),
        (Fault::ShortBody, "not what was listed"),
        (Fault::LongBody, "not what was listed"),
    ] {
        let server = s3::S3Server::start().await;
        let fast = |settings: &mut Settings| {
            bucket(&server, "")(settings);
            settings.s3.retry_for = Duration::from_millis(300);
        };
        server.put("known.bin", b"known");
        let mut site = Site::prepare(fast, |_| {}, vec![]);
        site.present().await;
        let image = vec![7; 300_000];
        server.set_fault(fault);
        server.put("pump.bin", &image);
        let (path, reason) = site.refused().await;
        assert_eq!(path, "pump.bin", "{fault:?}");
        assert!(reason.contains(says), "{fault:?}: {reason}");
        assert!(shows_no_secret(&reason), "{fault:?}: {reason}");
        // It is the file's trouble, not the store's, nor that of what is known.
        assert_eq!(site.store.status().available, Ok(()));
        assert_eq!((site.store.status().files, site.store.status().copies), (1, 1));
        server.set_fault(Fault::None);
        assert_eq!(site.present().await.digest, Digest::of(&image), "{fault:?}");
    }
}

/// A bucket that is looked at often and asked in vain for a short time.
fn hasty(server: &s3::S3Server) -> impl FnOnce(&mut Settings) {
    let bucket = bucket(server, "");
    move |settings| {
        bucket(settings);
        settings.s3.retry_for = Duration::from_millis(300);
    }
}

/// What is told of `pump.bin`, which is one thing.
fn of_the_pump(changes: Vec<Change>) -> Change {
    let path = |change: &Change| match change {
        Change::Present(dropped) => dropped.path.clone(),
        Change::Removed { path } | Change::Refused { path, .. } | Change::Troubled { path, .. } => {
            path.clone()
        }
    };
    let mut of_it: Vec<_> =
        changes.into_iter().filter(|change| path(change).starts_with("pump")).collect();
    assert_eq!(of_it.len(), 1, "{of_it:?}");
    assert_eq!(path(&of_it[0]), "pump.bin");
    of_it.remove(0)
}

fn reason(change: Change) -> String {
    match change {
        Change::Troubled { reason, .. } => reason,
        change => panic!("{change:?} instead of trouble"),
    }
}

/// Whether the same is told, at whatever look.
fn is_again(told: &Dropped, first: &Dropped) -> bool {
    Dropped { found: first.found, ..told.clone() } == *first
}

#[tokio::test]
async fn what_was_told_stands_while_nothing_can_be_read() {
    let server = s3::S3Server::start().await;
    server.put("pump.bin", b"image");
    server.put("pump.bin.toml", b"model = \"px\"");
    server.put("steady.bin", b"always-answered");
    let mut site = Site::prepare(hasty(&server), |_| {}, vec![]);
    let told = site.batch().await;
    let Change::Present(steady) = &told[1] else { panic!("{told:?}") };
    let steady = known(steady);
    let Change::Present(first) = of_the_pump(told) else { panic!("no file") };

    for fault in [Fault::Status(500), Fault::HeadStatus(500), Fault::HeadStatus(403)] {
        // While it runs: only what cannot even be looked at is noticed.
        if fault != Fault::Status(500) {
            server.set_fault(fault);
            let reason = reason(of_the_pump(site.batch().await));
            assert!(reason.contains("cannot be looked at"), "{reason}");
            assert_eq!((site.store.status().files, site.store.status().troubled), (2, 1));
            server.set_fault(Fault::None);
            assert!(is_again(&site.present().await, &first));
        }
        // Over a restart, when the companions are read again.
        let told = vec![known(&first), steady.clone()];
        site = site.restart(told, |_| server.set_fault(fault)).await;
        reason(of_the_pump(site.batch().await));
        let status = site.store.status();
        assert_eq!((status.files, status.refused, status.troubled), (2, 0, 1), "{fault:?}");
        server.set_fault(Fault::None);
        assert!(is_again(&site.present().await, &first), "{fault:?}");
        assert_eq!(site.store.status().troubled, 0);
    }
    // It may also go while nothing is known of it.
    server.set_fault(Fault::HeadStatus(500));
    let mut site = site.restart(vec![known(&first), steady], |_| {}).await;
    reason(of_the_pump(site.batch().await));
    server.delete("pump.bin.toml");
    server.delete("pump.bin");
    assert_eq!(of_the_pump(site.batch().await), Change::Removed { path: "pump.bin".into() });
}

#[tokio::test]
async fn a_sidecar_that_cannot_be_looked_at_is_not_taken_for_none() {
    let server = s3::S3Server::start().await;
    server.put("steady.bin", b"always-answered");
    let mut site = Site::prepare(hasty(&server), |_| {}, vec![]);
    site.present().await;
    server.set_fault(Fault::HeadOf("pump.bin.toml"));
    server.put("pump.bin.toml", b"model = \"px\"");
    server.put("pump.bin", b"image");
    let (path, reason) = site.refused().await;
    assert_eq!(path, "pump.bin");
    assert!(reason.contains("pump.bin.toml: "), "{reason}");
    server.set_fault(Fault::None);
    assert_eq!(site.present().await.sidecar.unwrap().model.as_deref(), Some("px"));
}

#[tokio::test]
async fn what_may_be_another_by_now_is_refused_while_it_cannot_be_read() {
    let server = s3::S3Server::start().await;
    server.put("pump.bin", b"image");
    server.put("pump.bin.toml", b"notes = \"for all\"");
    let mut site = Site::prepare(hasty(&server), |_| {}, vec![]);
    let first = site.present().await;
    let narrow = || server.put("pump.bin.toml", b"model = \"px\"");
    // Its sidecar may narrow it.
    server.set_fault(Fault::Status(500));
    narrow();
    assert!(site.refused().await.1.contains("pump.bin.toml cannot be read"));
    server.set_fault(Fault::None);
    assert_eq!(site.present().await.digest, first.digest);
    // The same while nobody looked.
    let meanwhile = |_: &Path| {
        server.put("pump.bin.toml", b"model = \"py\"");
        server.set_fault(Fault::Status(500));
    };
    let mut site = site.restart(vec![known(&first)], meanwhile).await;
    assert_eq!(site.refused().await.0, "pump.bin");
    server.set_fault(Fault::None);
    let sidecar = site.present().await.sidecar.unwrap();
    assert_eq!(sidecar.model.as_deref(), Some("py"));
}

#[tokio::test]
async fn a_server_that_errs_about_everything_is_unavailable_and_nothing_is_gone() {
    let server = s3::S3Server::start().await;
    server.put("pump.bin", b"image");
    let fast = |settings: &mut Settings| {
        bucket(&server, "")(settings);
        settings.s3.retry_for = Duration::from_millis(300);
    };
    let mut site = Site::prepare(fast, |_| {}, vec![]);
    let dropped = site.present().await;
    for status in [403, 404, 500, 503] {
        server.set_fault(Fault::EveryStatus(status));
        let reason = site.unavailable().await;
        assert!(reason.contains("cannot list s3://"), "{status}: {reason}");
        assert!(shows_no_secret(&reason), "{status}: {reason}");
        let image = site.store.image(dropped.digest, dropped.size);
        assert_eq!(image.read(0, 5).await.unwrap(), "image");
        server.set_fault(Fault::None);
        assert_eq!(site.event().await, Event::Available);
    }
}

#[tokio::test]
async fn a_thousand_devices_on_a_cold_image_read_each_byte_once() {
    let server = s3::S3Server::start().await;
    let image: Vec<u8> = (0..5_000_001u32).map(|n| (n % 251) as u8).collect();
    server.put("pump.bin", &image);
    let mut site = Site::prepare(bucket(&server, ""), |_| {}, vec![]);
    let dropped = site.present().await;
    let read = site.store.image(dropped.digest, dropped.size);
    let devices = (0..1000u64).map(|device| {
        let (read, image) = (read.clone(), &image);
        async move {
            for block in 0..20 {
                let at = (device * 4_999 + block * 249_997) % 4_995_000;
                let bytes = read.read(at, 4096).await.unwrap();
                assert!(bytes == image[at as usize..at as usize + 4096]);
            }
        }
    });
    futures_util::future::join_all(devices).await;
    // From the server, once, when it was taken in; and never again.
    assert_eq!(server.sent(), image.len() as u64);
}

#[tokio::test]
async fn a_damaged_copy_is_fetched_again() {
    let mut server = s3::S3Server::start().await;
    let image = vec![7; 3 << 20];
    server.put("pump.bin", &image);
    let mut site = Site::prepare(hasty(&server), |_| {}, vec![]);
    let dropped = site.present().await;
    let damage = || {
        let file = fs::OpenOptions::new().write(true).open(site.copy_of(dropped.digest)).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"x", 2 << 20).unwrap();
    };
    let read = site.store.image(dropped.digest, dropped.size);
    // Before it was first read, and again after it was verified and partly read.
    for (offset, sent) in [(0, 2), (2 << 20, 3)] {
        damage();
        let error = read.read(offset, 10).await.unwrap_err();
        assert_eq!((error.kind, error.retry), (ReadErrorKind::Corrupt, true));
        read.renewed().await;
        assert_eq!(read.read(0, 10).await.unwrap(), vec![7; 10]);
        assert_eq!(server.sent(), sent * image.len() as u64, "fetched once");
    }
    damage();
    server.stop().await;
    for kind in [ReadErrorKind::Corrupt, ReadErrorKind::Missing] {
        let error = read.read(2 << 20, 10).await.unwrap_err();
        assert_eq!((error.kind, error.retry), (kind, true));
    }
    server.resume().await;
    while read.read(2 << 20, 10).await.is_err() {
        read.renewed().await;
    }
}

#[tokio::test]
async fn a_wrong_secret_is_turned_away() {
    let server = s3::S3Server::start().await;
    server.put("a.bin", b"a");
    let right = bucket(&server, "");
    let wrong = |settings: &mut Settings| {
        right(settings);
        settings.s3.secret_access_key = Some("guessed".into());
    };
    let mut site = Site::prepare(wrong, |_| {}, vec![]);
    let reason = site.unavailable().await;
    assert!(reason.contains("store.s3.secret_access_key"), "{reason}");
    assert!(!reason.contains("guessed"), "{reason}");
}

#[tokio::test]
async fn what_an_ordinary_client_uploads_is_told() {
    let server = s3::S3Server::start().await;
    let client = AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_bucket_name(s3::BUCKET)
        .with_access_key_id(s3::ACCESS_KEY_ID)
        .with_secret_access_key(s3::SECRET_ACCESS_KEY)
        .with_allow_http(true);
    let mut site = Site::prepare(bucket(&server, "site"), |_| {}, vec![]);
    assert_eq!(site.batch().await, []);
    let client = client.build().unwrap();
    for image in ["image-1", "image-2"] {
        client.put(&"site/groups/north/pump.bin".into(), image.into()).await.unwrap();
        let dropped = site.present().await;
        assert_eq!(dropped.target, Target::Group("north".into()));
        assert_eq!(dropped.digest, Digest::of(image.as_bytes()));
    }
    // A large object comes in parts, and its ETag is no digest.
    let mut upload = client.put_multipart(&"site/large.bin".into()).await.unwrap();
    let part = vec![7; 6 << 20];
    for _ in 0..2 {
        upload.put_part(part.clone().into()).await.unwrap();
    }
    upload.complete().await.unwrap();
    assert_eq!(site.present().await.digest, Digest::of(&part.repeat(2)));
}
