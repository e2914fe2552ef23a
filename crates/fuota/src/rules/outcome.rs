use std::{sync::atomic::Ordering, time::Duration};

use crate::harness::{Session, Site, TOPIC};

async fn downloaded(site: &Site, id: &str) -> Session {
    let mut device = site.connect(id).await;
    device.subscribe(TOPIC);
    device.manifest().await;
    device.download(0, 2).await;
    device
}

fn status(version: &str) -> String {
    format!(r#"{{"variable":"firmware_status","metadata":{{"version":"{version}"}}}}"#)
}

#[tokio::test]
async fn rule_19_heard_after_the_last_block_is_unconfirmed() {
    let site = Site::with(|settings| settings.confirm_after = Duration::from_millis(50)).await;
    site.drop_file("fw-1.0.0.bin", &[1; 150]).await;
    site.broker.silent.store(true, Ordering::Relaxed);
    let _device = downloaded(&site, "dev-1").await;
    // A second device is asked about as often; the first is still not confirmed by silence.
    site.until_state("dev-1", "downloaded").await;
    site.broker.silent.store(false, Ordering::Relaxed);
    site.until_state("dev-1", "updated_unconfirmed").await;
}

#[tokio::test]
async fn rule_19_who_does_not_come_back_is_silent() {
    let site = Site::with(|settings| settings.confirm_within = Duration::from_millis(50)).await;
    site.drop_file("fw-1.0.0.bin", &[1; 150]).await;
    let device = downloaded(&site, "dev-1").await;
    device.end();
    site.until_state("dev-1", "silent").await;
}

#[tokio::test]
async fn a_reported_version_is_the_truth() {
    let site = Site::start().await;
    site.drop_file("fw-1.0.0.bin", &[1; 150]).await;
    let mut device = downloaded(&site, "dev-1").await;
    device.publish(status("1.0.0"));
    let view = site.until_state("dev-1", "updated").await;
    assert_eq!(view.version.as_deref(), Some("1.0.0"));
}

#[tokio::test]
async fn rule_13_two_deliveries_and_another_version_are_a_mismatch() {
    let site = Site::start().await;
    site.drop_file("fw-1.0.0.bin", &[1; 150]).await;
    let mut device = downloaded(&site, "dev-1").await;
    device.publish(status("0.9.0"));
    device.nothing();
    assert_eq!(
        site.service.device("dev-1").unwrap().state.as_deref(),
        Some("downloaded"),
        "before it restarted"
    );
    device.end();
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.nothing(); // it may run it by now
    device.publish(status("0.9.0"));
    device.manifest().await;
    device.download(0, 2).await;
    device.end();
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.publish(status("0.9.0"));
    device.nothing();
    let view = site.until_state("dev-1", "failed").await;
    assert!(view.reason.unwrap().contains("version mismatch"));
    device.ask(0);
    assert!(device.error().await.contains("version mismatch"));
}

#[tokio::test]
async fn rule_13_what_was_delivered_is_remembered_across_restarts() {
    let site = Site::start().await;
    site.drop_file("fw-1.0.0.bin", &[1; 150]).await;
    downloaded(&site, "dev-1").await.end();
    let site = site.restart(|_| {}).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.nothing();
    let view = site.service.device("dev-1").unwrap();
    assert_eq!(view.state.as_deref(), Some("downloaded"));
    assert!(view.reason.unwrap().contains("was given"));
}

#[tokio::test]
async fn rule_13_at_most_three_offers_of_one_image() {
    let site = Site::start().await;
    site.drop_file("fw-1.0.0.bin", &[1; 150]).await;
    for attempt in 1..=3 {
        let mut device = site.connect("dev-1").await;
        device.subscribe(TOPIC);
        device.manifest().await;
        let offered = site.service.device("dev-1").unwrap().firmware.unwrap();
        assert_eq!(offered.attempt, attempt);
        device.publish(
            r#"{"variable":"firmware_status","value":"failed","metadata":{"reason":"flash"}}"#,
        );
        assert_eq!(site.service.device("dev-1").unwrap().reason.as_deref(), Some("flash"));
        device.end();
    }
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.nothing();
    device.ask(0);
    assert!(device.error().await.contains("3 times"));
}

#[tokio::test]
async fn rule_19_an_empty_version_says_nothing() {
    let site = Site::start().await;
    site.drop_file("pump-1.0.0.bin", &[1; 150]).await;
    let mut device = downloaded(&site, "dev-1").await;
    site.until_state("dev-1", "downloaded").await;
    for version in ["", " "] {
        device.publish(status(version));
    }
    let view = site.service.device("dev-1").unwrap();
    assert_eq!((view.version, view.state.as_deref()), (None, Some("downloaded")));
    device.publish(status("1.0.0"));
    site.until_state("dev-1", "updated").await;
}

#[tokio::test]
async fn a_model_fills_an_empty_value_only() {
    let site = Site::start().await;
    let with_model = |model: &str| hook::ConnectRequest {
        user_properties: vec![("model".into(), model.into())],
        ..crate::harness::request("dev-1")
    };
    site.drop_file("models/m1/fw.bin", &[1; 150]).await;
    let mut device = site.connect_as(with_model("m1")).await.unwrap();
    device.subscribe(TOPIC);
    device.manifest().await;
    device.publish(r#"{"variable":"firmware_status","metadata":{"model":"m2"}}"#);
    assert_eq!(site.service.device("dev-1").unwrap().model.as_deref(), Some("m1"));
    let mut other = site.connect("dev-2").await;
    other.publish(r#"{"variable":"firmware_status","metadata":{"model":"m2"}}"#);
    assert_eq!(site.service.device("dev-2").unwrap().model.as_deref(), Some("m2"));
    // Rule 8: the site knows two models now.
    site.drop_file("plain.bin", &[2; 150]).await;
    let held = site.service.firmware().into_iter().find(|view| view.path == "plain.bin").unwrap();
    assert!(held.reason.unwrap().contains("which model?"));
}
