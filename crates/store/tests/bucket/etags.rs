//! Servers that tell ETags in listings, as most do; in answers alone; and not at all.

use std::time::{Duration, SystemTime};

use store::{Change, Digest};

use super::s3::{S3Server, Tags};
use super::support::{Site, known};
use super::{bucket, hasty, s3};

const HOUR: Duration = Duration::from_secs(3600);

/// An image all of whose bytes are these. Two of its parts are asked for together, and the third
/// when the first is there.
fn image(byte: u8) -> Vec<u8> {
    vec![byte; (8 << 20) + 1]
}

#[tokio::test]
async fn where_listings_tell_etags_nobody_asks_about_an_object_that_stays() {
    let server = S3Server::start().await;
    server.set_tags(Tags::Everywhere);
    server.put("site/all/pump.bin", b"image-1");
    server.put("site/all/pump.bin.toml", b"model = 'm1'");
    server.put("site/fan.bin", b"fan");
    let mut site = Site::prepare(bucket(&server, "site"), |_| {}, vec![]);
    let told = site.batch().await;
    // Once each, when it was read.
    assert_eq!(server.heads(), 2);
    let (sent, listings) = (server.sent(), server.listings());
    for _ in 0..3 {
        site.store.rescanned().await;
    }
    assert!(server.listings() >= listings + 3);
    assert_eq!((server.heads(), server.sent()), (2, sent));

    // Nor over a restart, where companions are read once more.
    let remembered = told.iter().map(|change| match change {
        Change::Present(dropped) => known(dropped),
        change => panic!("{change:?}"),
    });
    let mut site = site.restart(remembered.collect(), |_| {}).await;
    assert_eq!(site.batch().await, told);
    assert_eq!(server.heads(), 2);
    assert_eq!(server.sent(), sent + b"model = 'm1'".len() as u64);
}

#[tokio::test]
async fn with_etags_other_bytes_are_told_and_the_same_bytes_again_are_not() {
    for tags in [Tags::Everywhere, Tags::Answers] {
        let server = S3Server::start().await;
        server.set_tags(tags);
        server.put("pump.bin", b"image-1");
        server.date("pump.bin", SystemTime::now() - HOUR);
        let mut site = Site::prepare(bucket(&server, ""), |_| {}, vec![]);
        assert_eq!(site.present().await.digest, Digest::of(b"image-1"), "{tags:?}");
        let sent = server.sent();
        server.put("pump.bin", b"image-1");
        site.store.rescanned().await;
        assert_eq!(server.sent(), sent, "{tags:?}: not even read");
        // Of the same size and date.
        server.put("pump.bin", b"image-2");
        server.date("pump.bin", SystemTime::now() - HOUR);
        assert_eq!(site.present().await.digest, Digest::of(b"image-2"), "{tags:?}");
    }
}

#[tokio::test]
async fn an_object_that_is_overwritten_between_two_parts_is_read_again_from_its_beginning() {
    for tags in [Tags::Everywhere, Tags::Answers, Tags::Nowhere] {
        let server = S3Server::start().await;
        server.set_tags(tags);
        let mut site = Site::prepare(hasty(&server), |_| {}, vec![]);
        assert_eq!(site.batch().await, []);
        server.put_amid_reading("pump.bin", &image(2));
        server.put("pump.bin", &image(1));
        assert_eq!(site.present().await.digest, Digest::of(&image(2)), "{tags:?}");
        assert_eq!(server.unmet() > 0, tags == Tags::Everywhere, "{tags:?}");
        assert_eq!(site.store.status().copies, 1, "{tags:?}");
    }
}

#[tokio::test]
async fn without_etags_nothing_is_read_in_the_second_in_which_it_may_change_unseen() {
    let server = S3Server::start().await;
    server.set_tags(Tags::Nowhere);
    server.put("pump.bin", b"image-1");
    let mut site = Site::prepare(bucket(&server, ""), |_| {}, vec![]);
    assert_eq!(site.present().await.digest, Digest::of(b"image-1"));
    let requests = server.requests();
    let first = |method: &str| {
        let is_it = |it: &&s3::Request| it.method == method && it.path.ends_with("pump.bin");
        requests.iter().find(is_it).unwrap().at
    };
    let waited = first("GET") - first("HEAD");
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
}

#[tokio::test]
async fn what_nothing_tells_apart_is_refused() {
    let server = S3Server::start().await;
    server.put("fan.bin", b"fan");
    let mut site = Site::prepare(bucket(&server, ""), |_| {}, vec![]);
    site.present().await;
    server.set_tags(Tags::NorDates);
    server.put("pump.bin", b"image-1");
    let is_refused = |change: &Change| match change {
        Change::Refused { path, reason } => path == "pump.bin" && reason.contains("neither ETag"),
        _ => false,
    };
    while !site.batch().await.iter().any(is_refused) {}
    assert_eq!(site.store.status().available, Ok(()));
    server.set_tags(Tags::Everywhere);
    let is_told =
        |it: &Change| matches!(it, Change::Present(dropped) if dropped.path == "pump.bin");
    while !site.batch().await.iter().any(is_told) {}
}
