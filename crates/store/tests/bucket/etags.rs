//! Servers that tell ETags in listings, as most do; in answers alone; and not at all.

use std::time::{Duration, SystemTime};

use store::{Change, Digest};

use super::bucket;
use super::s3::{S3Server, Tags};
use super::support::{Site, known};

const HOUR: Duration = Duration::from_secs(3600);

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
