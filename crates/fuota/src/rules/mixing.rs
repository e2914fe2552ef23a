//! No device ever gets blocks of two images as one (rule 15), whatever is lost with a connection.

use std::{sync::atomic::Ordering, time::Duration};

use crate::{
    Act,
    harness::{Session, Site, TOPIC, token_request},
};

/// Ten blocks, of `seed` alone.
fn image(seed: u8) -> Vec<u8> {
    vec![seed; 1000]
}

/// The device comes back and goes on where it was with the image before: it hears of the other
/// one first, and goes on with that over a further reconnect.
async fn gets_the_new_one(site: &Site, at: u32, version: &str, new: &[u8]) {
    let mut device = site.listening("dev-1").await;
    device.ask(at);
    assert_eq!(device.manifest().await["version"], version);
    let mut got = device.download(0, 4).await;
    device.end();
    let mut device = site.listening("dev-1").await;
    got.extend(device.download(4, 10).await);
    assert_eq!(got, new);
    device.nothing();
}

/// It has three blocks of a file that holds other bytes by now.
async fn amid_an_overwritten_one(site: &Site) -> Session {
    site.drop_file("fw.bin", &image(1)).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.download(0, 3).await;
    site.drop_file("fw.bin", &image(2)).await;
    device
}

#[tokio::test]
async fn rule_15_the_last_block_and_the_next_manifest_are_lost_together() {
    let site = Site::start().await;
    site.drop_file("fw-1.0.0.bin", &image(1)).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.download(0, 9).await;
    site.drop_file("fw-2.0.0.bin", &image(2)).await;
    // Written, and lost: its connection is dead already.
    device.download(9, 10).await;
    device.manifest().await;
    device.end();
    gets_the_new_one(&site, 9, "2.0.0", &image(2)).await;
}

#[tokio::test]
async fn rule_15_a_lost_manifest_after_a_cancelled_or_failed_update() {
    for fails in [false, true] {
        let site = Site::start().await;
        site.drop_file("fw-1.0.0.bin", &image(1)).await;
        let mut device = site.listening("dev-1").await;
        device.manifest().await;
        device.download(0, 3).await;
        if fails {
            device.publish(r#"{"variable":"firmware_status","value":"failed"}"#);
        } else {
            drop(site.act(1, Act::Cancel).await);
        }
        site.drop_file("fw-2.0.0.bin", &image(2)).await;
        device.manifest().await;
        device.end();
        gets_the_new_one(&site, 3, "2.0.0", &image(2)).await;
    }
}

#[tokio::test]
async fn rule_15_a_lost_manifest_of_an_overwritten_file_also_after_a_long_absence() {
    let site = Site::with(|settings| settings.confirm_within = Duration::from_millis(50)).await;
    let mut device = amid_an_overwritten_one(&site).await;
    device.ask(3);
    let version = device.manifest().await["version"].as_str().unwrap().to_owned();
    device.end();
    site.until_written("dev-1", "silent").await;
    // Nor is it forgotten with a crash.
    let site = site.crash().await;
    gets_the_new_one(&site, 3, &version, &image(2)).await;
}

#[tokio::test]
async fn rule_15_blocks_that_follow_a_lost_manifest_prove_nothing() {
    let site = Site::start().await;
    let mut device = amid_an_overwritten_one(&site).await;
    // Asked for together: the others were on their way when the manifest left.
    device.ask(3);
    device.ask(4);
    let version = device.manifest().await["version"].as_str().unwrap().to_owned();
    device.ask(5);
    device.block().await;
    device.end();
    gets_the_new_one(&site, 3, &version, &image(2)).await;
}

#[tokio::test]
async fn rule_15_asking_for_the_first_block_again_proves_nothing() {
    let site = Site::start().await;
    site.drop_file("fw.bin", &image(1)).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    site.drop_file("fw.bin", &image(2)).await;
    // Nothing of this arrives.
    device.ask(0);
    let version = device.manifest().await["version"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        device.ask(0);
        device.block().await;
    }
    device.end();
    gets_the_new_one(&site, 0, &version, &image(2)).await;
}

#[tokio::test]
async fn rule_15_a_device_that_connects_for_each_request_gets_its_update() {
    let site = Site::start().await;
    let mut device = amid_an_overwritten_one(&site).await;
    device.ask(3);
    device.manifest().await;
    device.end();
    for _ in 0..2 {
        let mut device = site.listening("dev-1").await;
        device.ask(0);
        device.manifest().await;
        device.end();
    }
    let mut got = Vec::new();
    for index in 0..10 {
        let mut device = site.listening("dev-1").await;
        got.extend(device.download(index, index + 1).await);
        device.end();
    }
    assert_eq!(got, image(2));
}

#[tokio::test]
async fn rule_3_what_one_session_heard_the_other_did_not() {
    let site = Site::start().await;
    let token = "0123456789abcdef-token";
    site.drop_file("fw.bin", &image(1)).await;
    let mut first = site.connect_as(token_request(token)).await.unwrap();
    first.subscribe(TOPIC);
    first.manifest().await;
    first.download(0, 3).await;
    let mut second = site.connect_as(token_request(token)).await.unwrap();
    second.subscribe(TOPIC);
    site.drop_file("fw.bin", &image(2)).await;
    second.ask(0);
    second.manifest().await;
    second.download(0, 2).await;
    first.ask(3);
    first.manifest().await;
    assert_eq!(first.download(0, 10).await, image(2));
    assert_eq!(second.download(2, 10).await, image(2)[200..]);
}

#[tokio::test]
async fn rule_15_a_request_before_the_subscription_is_answered_with_the_manifest_too() {
    let site = Site::start().await;
    let mut device = amid_an_overwritten_one(&site).await;
    device.ask(3);
    device.manifest().await;
    device.end();
    let mut device = site.connect("dev-1").await;
    device.ask(3);
    device.manifest().await;
    device.subscribe(TOPIC);
    assert_eq!(device.download(0, 10).await, image(2));
    device.nothing();
}

#[tokio::test]
async fn rule_15_no_block_overtakes_a_manifest_that_the_outbox_has_no_room_for() {
    let site = Site::start().await;
    site.drop_file("fw-1.0.0.bin", &image(1)).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.download(0, 9).await;
    site.drop_file("fw-2.0.0.bin", &image(2)).await;
    device.ask(9);
    let last = device.unwritten().await;
    device.sink.room.store(0, Ordering::Relaxed);
    let (receipt, tag) = last.receipt.unwrap();
    receipt.written(tag);
    site.until("2.0.0 is offered", |site| {
        let device = site.service.device("dev-1").unwrap();
        device.firmware.is_some_and(|firmware| firmware.version == "2.0.0")
    })
    .await;
    // It did not get that one, and asks again.
    device.ask(9);
    device.nothing();
    device.sink.room.store(usize::MAX, Ordering::Relaxed);
    assert_eq!(device.manifest().await["version"], "2.0.0");
    assert_eq!(device.download(0, 10).await, image(2));
}

/// The device has three blocks of an image that was cancelled, is away, and there is another one.
async fn amid_a_cancelled_one() -> Site {
    let site = Site::start().await;
    site.drop_file("fw-1.0.0.bin", &image(1)).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.download(0, 3).await;
    device.end();
    drop(site.act(1, Act::Cancel).await);
    site.drop_file("fw-2.0.0.bin", &image(2)).await;
    site
}

#[tokio::test]
async fn rule_15_asking_again_and_again_on_one_connection_is_no_proof() {
    let site = amid_a_cancelled_one().await;
    let mut device = site.connect("dev-1").await;
    device.sink.room.store(0, Ordering::Relaxed);
    device.subscribe(TOPIC);
    site.until_state("dev-1", "offered").await;
    for _ in 0..4 {
        device.ask(0);
    }
    device.sink.room.store(usize::MAX, Ordering::Relaxed);
    device.ask(0);
    assert_eq!(device.manifest().await["version"], "2.0.0");
    assert_eq!(device.download(0, 10).await, image(2));
}

#[tokio::test]
async fn rule_15_a_request_that_waited_for_an_offer_is_answered_by_its_manifest_alone() {
    let site = amid_a_cancelled_one().await;
    // It goes on with the one before while the offer that it gets now is written.
    let mut device = site.listening("dev-1").await;
    device.ask(3);
    assert_eq!(device.manifest().await["version"], "2.0.0");
    site.service.0.db.commit(Vec::new()).await.unwrap();
    // A block would begin a second chain of requests.
    device.nothing();
    assert_eq!(device.download(0, 10).await, image(2));
}
