//! An object waits for what belongs beside it.
//!
//! Where nothing is to be taken yet the settle time is an hour; then it is over at once.

use std::time::{Duration, SystemTime};

use store::{Digest, Tuning};
use tokio::sync::mpsc::error::TryRecvError;

use super::bucket;
use super::s3::{S3Server, Tags};
use super::support::Site;

const HOUR: Duration = Duration::from_secs(3600);

/// A site for which nothing settles for an hour.
fn patient(server: &S3Server) -> Site {
    let bucket = bucket(server, "");
    let settings = |settings: &mut store::Settings| {
        bucket(settings);
        settings.settle = HOUR;
        settings.poll_interval = Duration::from_millis(20);
    };
    Site::prepare(settings, |_| {}, vec![])
}

/// It has looked at what is there now, and told nothing.
async fn looks_and_waits(site: &mut Site, server: &S3Server) {
    let before = server.listings();
    // The first of them may have begun before now, and what the second saw is told before the third.
    let looked = async {
        while server.listings() < before + 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looked).await.expect("it looks");
    assert_eq!(site.events.try_recv(), Err(TryRecvError::Empty));
}

/// The hour is over.
fn settle(site: &Site) {
    site.store.tune(Tuning { settle: Duration::ZERO, ..site.store.tuning() });
}

#[tokio::test]
async fn a_sidecar_that_comes_a_moment_later_counts_from_the_beginning() {
    for tags in [Tags::Everywhere, Tags::Answers, Tags::Nowhere] {
        let server = S3Server::start().await;
        server.set_tags(tags);
        let mut site = patient(&server);
        assert_eq!(site.batch().await, []);
        server.put("pump.bin", b"image");
        looks_and_waits(&mut site, &server).await;
        server.put("pump.bin.toml", b"model = 'px'");
        looks_and_waits(&mut site, &server).await;
        settle(&site);
        let sidecar = site.present().await.sidecar.expect("a sidecar");
        assert_eq!(sidecar.model.as_deref(), Some("px"), "{tags:?}");
    }
}

#[tokio::test]
async fn an_image_and_its_sidecar_are_replaced_together() {
    let server = S3Server::start().await;
    let old = SystemTime::now() - 2 * HOUR;
    for (path, bytes) in [("pump.bin", &b"image-1"[..]), ("pump.bin.toml", b"version = '1.0.0'")] {
        server.put(path, bytes);
        server.date(path, old);
    }
    let mut site = patient(&server);
    assert_eq!(site.present().await.digest, Digest::of(b"image-1"), "it stood there for long");
    // The small one is there first.
    server.put("pump.bin.toml", b"version = '2.0.0'");
    looks_and_waits(&mut site, &server).await;
    server.put("pump.bin", b"image-2");
    looks_and_waits(&mut site, &server).await;
    settle(&site);
    let new = site.present().await;
    assert_eq!(new.digest, Digest::of(b"image-2"));
    assert_eq!(new.sidecar.unwrap().version.as_deref(), Some("2.0.0"));
}

#[tokio::test]
async fn what_was_put_just_before_the_start_waits_too() {
    let server = S3Server::start().await;
    server.put("old.bin", b"old");
    server.date("old.bin", SystemTime::now() - 2 * HOUR);
    server.put("pump.bin", b"image");
    let mut site = patient(&server);
    looks_and_waits(&mut site, &server).await;
    server.put("pump.bin.toml", b"model = 'px'");
    settle(&site);
    let told = site.batch().await;
    let store::Change::Present(pump) = &told[1] else { panic!("{told:?}") };
    assert_eq!(pump.sidecar.as_ref().unwrap().model.as_deref(), Some("px"), "told together");
}

#[tokio::test]
async fn the_answer_to_a_question_waits_for_what_settles() {
    let server = S3Server::start().await;
    let bucket = bucket(&server, "");
    let settings = |settings: &mut store::Settings| {
        bucket(settings);
        settings.settle = Duration::from_millis(300);
        settings.poll_interval = HOUR;
    };
    let mut site = Site::prepare(settings, |_| {}, vec![]);
    assert_eq!(site.batch().await, []);
    for number in 1..=3 {
        server.put(&format!("{number}.bin"), &[number as u8]);
        site.store.rescanned().await;
        assert_eq!(site.store.status().files, number);
        site.present().await;
    }
}
