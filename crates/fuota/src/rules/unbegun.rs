//! An offer of which its device has not asked for anything: what becomes of it when something
//! changes (rules 8, 9, 13, 15, 21 and 22).

use std::time::Duration;

use crate::{
    Act, DevicePatch,
    harness::{Session, Site, TOPIC, ann},
};

const ALL: &str = r#"{"all":true}"#;

fn report(version: &str) -> String {
    format!(r#"{{"variable":"firmware_status","metadata":{{"version":"{version}"}}}}"#)
}

async fn set_model(site: &Site, model: &str) {
    let patch = DevicePatch { model: Some(model.into()), ..DevicePatch::default() };
    site.service.set_device("dev-1", patch, &ann()).await.unwrap();
}

/// With this in it already, a file for the model `pump` is dropped beside its sidecar.
async fn drop_for(site: &Site, path: &str, sidecar: &str, bytes: &[u8]) {
    std::fs::write(site.dir.path().join("firmware").join(format!("{path}.toml")), sidecar).unwrap();
    site.drop_file(path, bytes).await;
}

/// It hears nothing, and is told why when it asks.
async fn is_refused(site: &Site, device: &mut Session, why: &str) {
    site.service.0.db.commit(Vec::new()).await.unwrap();
    device.nothing();
    device.ask(0);
    let error = device.error().await;
    assert!(error.contains(why), "{error}");
    let sentence = site.service.why("dev-1").unwrap().sentence;
    assert!(sentence.contains(why), "{sentence}");
}

#[tokio::test]
async fn rule_8_a_corrected_model_takes_the_offer_back() {
    let site = Site::with(|settings| settings.resume_grace = Duration::ZERO).await;
    site.listening("dev-1").await.end();
    set_model(&site, "pump").await;
    drop_for(&site, "pump.bin", "model = \"pump\"", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    // On the connection that heard of it, and on the next.
    set_model(&site, "fan").await;
    is_refused(&site, &mut device, "is for model pump, this device is a fan").await;
    device.end();
    let mut device = site.listening("dev-1").await;
    is_refused(&site, &mut device, "is for model pump, this device is a fan").await;
    assert_eq!(site.service.deployment(1).unwrap().counts.values().sum::<usize>(), 0);
    // It is not counted as an attempt.
    set_model(&site, "pump").await;
    device.end();
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    assert_eq!(site.service.device("dev-1").unwrap().firmware.unwrap().attempt, 1);
    // What has begun finishes.
    device.download(0, 1).await;
    set_model(&site, "fan").await;
    assert_eq!(device.download(1, 3).await, [1; 150]);
}

#[tokio::test]
async fn rule_9_a_late_sidecar_takes_the_offer_back() {
    let site = Site::with(|settings| settings.resume_grace = Duration::ZERO).await;
    site.drop_file("fw-1.1.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.end();
    let batches = site.service.status().batches;
    let sidecar = site.dir.path().join("firmware/fw-1.1.0.bin.toml");
    std::fs::write(sidecar, "min_version = \"1.0.0\"").unwrap();
    site.store.rescan();
    site.until("the sidecar", |site| site.service.status().batches > batches).await;
    // It asks before it hears anything, or listens only.
    let mut device = site.connect("dev-1").await;
    device.ask(0);
    let error = device.error().await;
    assert!(error.contains("needs version 1.0.0 first"), "{error}");
    device.subscribe(TOPIC);
    is_refused(&site, &mut device, "needs version 1.0.0 first").await;
}

#[tokio::test]
async fn rule_13_a_higher_version_that_came_by_cable_takes_the_offer_back() {
    let site = Site::with(|settings| settings.resume_grace = Duration::ZERO).await;
    site.drop_file("fw-1.1.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.end();
    let mut device = site.connect("dev-1").await;
    device.publish(report("2.0.0"));
    device.subscribe(TOPIC);
    is_refused(&site, &mut device, "it runs 2.0.0, which is higher").await;
}

#[tokio::test]
async fn rule_12_a_paused_offer_that_was_not_begun_is_superseded_like_any_other() {
    let site = Site::with(|settings| {
        settings.resume_grace = Duration::ZERO;
        settings.nudge_after = Duration::from_millis(50);
    })
    .await;
    site.drop_file("fw-1.1.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    drop(site.act(1, Act::Pause).await);
    site.drop_file("fw-1.2.0.bin", &[2; 250]).await;
    // It does not ask by itself: where a nudge would come, the newer one does.
    while device.manifest().await["version"] != "1.2.0" {}
    assert_eq!(device.download(0, 3).await, [2; 250]);
}

#[tokio::test]
async fn rule_12_nor_does_it_keep_the_newer_one_from_a_device_that_comes_back() {
    let site = Site::with(|settings| settings.resume_grace = Duration::ZERO).await;
    site.drop_file("fw-1.1.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.end();
    drop(site.act(1, Act::Pause).await);
    site.drop_file("fw-1.2.0.bin", &[2; 250]).await;
    let mut device = site.listening("dev-1").await;
    assert_eq!(device.manifest().await["version"], "1.2.0");
    assert_eq!(device.download(0, 3).await, [2; 250]);
}

#[tokio::test]
async fn rule_21_a_canary_that_ignored_the_one_before_is_offered_the_new_one() {
    let site = Site::with(|settings| settings.nudge_after = Duration::from_millis(20)).await;
    let old = site.upload("fw-1.0.0.bin", &[1; 250]).await;
    let new = site.upload("fw-2.0.0.bin", &[2; 250]).await;
    site.deploy(&old, ALL, r#""all""#).await;
    let mut device = site.listening("dev-1").await;
    for _ in 0..4 {
        device.manifest().await;
    }
    site.until_state("dev-1", "silent").await;
    let id = site.deploy(&new, ALL, r#""canary""#).await;
    assert_eq!(device.manifest().await["version"], "2.0.0");
    assert_eq!(device.download(0, 3).await, [2; 250]);
    device.publish(report("2.0.0"));
    site.until("it is complete", |site| {
        site.service.deployment(id).unwrap().complete == Some(true)
    })
    .await;
}

#[tokio::test]
async fn rule_21_a_pause_or_a_freeze_holds_what_a_device_asks_for_first() {
    for freezes in [false, true] {
        let site = Site::with(|settings| settings.resume_grace = Duration::ZERO).await;
        site.drop_file("fw-1.0.0.bin", &[1; 250]).await;
        let mut begun = site.listening("dev-1").await;
        let mut device = site.listening("dev-2").await;
        begun.manifest().await;
        device.manifest().await;
        begun.download(0, 1).await;
        if freezes {
            site.service.freeze(true, &ann()).await.unwrap();
        } else {
            drop(site.act(1, Act::Pause).await);
        }
        assert_eq!(begun.download(1, 3).await, [1; 150], "what has begun finishes");
        let why = if freezes { "froze all offers" } else { "deployment 1 is paused" };
        device.ask(0);
        let error = device.error().await;
        assert!(error.contains(why), "{error}");
        device.end();
        let mut device = site.listening("dev-2").await;
        device.ask(0);
        let error = device.error().await;
        assert!(error.contains(why), "{error}");
        // It hears of it when it may begin.
        if freezes {
            site.service.freeze(false, &ann()).await.unwrap();
        } else {
            drop(site.act(1, Act::Resume).await);
        }
        device.manifest().await;
        assert_eq!(device.download(0, 3).await, [1; 250]);
    }
}

#[tokio::test]
async fn rule_17_many_blocks_asked_for_go_on_where_the_new_file_is_not_for_the_device() {
    let site = Site::with(|settings| settings.max_window = 2).await;
    site.drop_file("fw.bin", &[1; 1000]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.publish(r#"{"variable":"firmware_request","value":0,"metadata":{"count":10}}"#);
    let (first, second) = (device.unwritten().await, device.unwritten().await);
    drop_for(&site, "fw.bin", "model = \"pump\"", &[2; 700]).await;
    for message in [first, second] {
        let (receipt, tag) = message.receipt.unwrap();
        receipt.written(tag);
    }
    for index in 2..10 {
        assert_eq!(device.block().await, (index, vec![1; 100]));
    }
    device.nothing();
    site.until_state("dev-1", "downloaded").await;
}

#[tokio::test]
async fn rule_10_many_blocks_asked_for_end_with_one_error_when_it_is_cancelled() {
    let site = Site::with(|settings| settings.max_window = 2).await;
    site.drop_file("fw.bin", &[1; 1000]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.publish(r#"{"variable":"firmware_request","value":0,"metadata":{"count":10}}"#);
    let (first, second) = (device.unwritten().await, device.unwritten().await);
    drop(site.act(1, Act::Cancel).await);
    for message in [first, second] {
        let (receipt, tag) = message.receipt.unwrap();
        receipt.written(tag);
    }
    assert!(device.error().await.contains("cancelled by an operator"));
    device.nothing();
}
