//! The same as for a directory, against a real S3 server with signatures checked.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../tests/support/s3.rs"]
mod s3;
mod support;

use std::time::Duration;

use store::{Change, Digest, Event, S3Settings, Settings, Target};
use support::{Site, files, known};

fn bucket(server: &s3::S3Server, prefix: &str) -> impl FnOnce(&mut Settings) + use<> {
    let url = format!("s3://{}/{prefix}", s3::BUCKET);
    let access = S3Settings {
        endpoint: Some(server.endpoint()),
        region: Some("garage".into()),
        access_key_id: Some(s3::ACCESS_KEY_ID.into()),
        secret_access_key: Some(s3::SECRET_ACCESS_KEY.into()),
        allow_http: true,
    };
    move |settings| {
        settings.url = url;
        settings.s3 = access;
        settings.poll_interval = Duration::from_millis(200);
        // Must not matter: objects appear whole.
        settings.settle = Duration::from_secs(3600);
    }
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
    server.put("site/pump.bin", b"image 1");
    assert_eq!(site.present().await.digest, Digest::of(b"image 1"));
    server.put("site/pump.bin", b"image 2");
    assert_eq!(site.present().await.digest, Digest::of(b"image 2"));

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
