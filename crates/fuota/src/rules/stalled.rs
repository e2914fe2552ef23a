//! Devices that ignore what they are offered, or leave amid it (rules 16 and 19).

use std::time::Duration;

use crate::{
    harness::{Session, Site, TOPIC},
    settings::DropRollout,
};

#[tokio::test]
async fn rule_16_a_device_that_ignores_its_manifest_and_every_nudge_is_silent_until_it_asks() {
    let site = Site::with(|settings| {
        settings.drop_rollout = Some(DropRollout::Canary);
        settings.nudge_after = Duration::from_millis(20);
        settings.resume_grace = Duration::ZERO;
    })
    .await;
    let (mut first, mut second) = (site.listening("dev-1").await, site.listening("dev-2").await);
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    for _ in 0..4 {
        first.manifest().await;
    }
    // Its wave does not wait for it: the canary failed.
    let view = site.until_deployment(1, "paused").await;
    assert_eq!(view.counts["silent"], 1);
    let why = site.service.why("dev-1").unwrap().sentence;
    assert!(why.contains("has not begun: deployment 1 is paused"), "{why}");
    first.nothing();
    second.nothing();
    // Slow is not dead; but what it has not begun it may not begin while it is paused.
    first.ask(0);
    assert!(first.error().await.contains("deployment 1 is paused"));
    site.act(1, crate::Act::Resume).await;
    first.manifest().await;
    assert_eq!(first.download(0, 3).await, [1; 250]);
    site.until_state("dev-1", "downloaded").await;
    first.publish(r#"{"variable":"firmware_status","metadata":{"version":"1.0.0"}}"#);
    let device = site.until_state("dev-1", "updated").await;
    assert_eq!(device.firmware.unwrap().attempt, 1);
}

#[tokio::test]
async fn rule_16_one_that_stops_in_the_middle_goes_on_where_it_was() {
    let site = Site::with(|settings| settings.nudge_after = Duration::from_millis(20)).await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.download(0, 1).await;
    for _ in 0..3 {
        device.manifest().await;
    }
    site.until_state("dev-1", "silent").await;
    let why = site.service.why("dev-1").unwrap().sentence;
    assert!(why.contains("stopped asking after 1 of 3 blocks"), "{why}");
    // Who says retry has the manifest sent again, to one that asked before as well.
    site.act(1, crate::Act::Retry).await;
    device.manifest().await;
    site.until_state("dev-1", "silent").await;
    // Known after a crash, too, with what it has.
    site.until_written("dev-1", "silent").await;
    let site = site.crash().await;
    assert_eq!(site.service.device("dev-1").unwrap().state.as_deref(), Some("silent"));
    let mut device = site.listening("dev-1").await;
    device.ask(1);
    device.block().await;
    assert_eq!(site.service.device("dev-1").unwrap().state.as_deref(), Some("downloading"));
    device.ask(2);
    device.block().await;
    let device = site.until_state("dev-1", "downloaded").await;
    assert_eq!(device.firmware.unwrap().attempt, 1);
}

#[tokio::test]
async fn rule_19_one_that_stays_away_amid_its_download_is_silent_and_holds_no_wave() {
    let site = Site::with(|settings| {
        settings.drop_rollout = Some(DropRollout::Canary);
        settings.confirm_within = Duration::from_millis(50);
        settings.resume_grace = Duration::ZERO;
    })
    .await;
    let mut device = site.listening("dev-1").await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    device.manifest().await;
    device.download(0, 1).await;
    device.end();
    site.until_deployment(1, "paused").await;
    assert_eq!(site.count(1, "silent"), 1);
    assert!(site.service.why("dev-1").unwrap().sentence.contains("went away after 1 of 3 blocks"));
    // What has begun finishes, and is one offer.
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.download(0, 3).await;
    let device = site.until_state("dev-1", "downloaded").await;
    assert_eq!(device.firmware.unwrap().attempt, 1);
}

#[tokio::test]
async fn rule_10_a_silent_device_hears_that_its_update_was_cancelled() {
    let site = Site::with(|settings| settings.nudge_after = Duration::from_millis(20)).await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    for _ in 0..4 {
        device.manifest().await;
    }
    site.until_state("dev-1", "silent").await;
    site.act(1, crate::Act::Cancel).await;
    device.ask(0);
    assert!(device.error().await.contains("cancelled by an operator"));
}

#[tokio::test]
async fn rule_16_a_canary_that_ignores_a_retry_too_pauses_its_rollout_again() {
    let site = Site::with(|settings| {
        settings.drop_rollout = Some(DropRollout::Canary);
        settings.nudge_after = Duration::from_millis(20);
        settings.resume_grace = Duration::ZERO;
    })
    .await;
    let mut device = site.listening("dev-1").await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    device.manifest().await;
    device.download(0, 1).await;
    site.until_deployment(1, "paused").await;
    site.act(1, crate::Act::Retry).await;
    assert_eq!(site.count(1, "offered"), 1);
    site.act(1, crate::Act::Resume).await;
    site.until_deployment(1, "paused").await;
    // It may go on all the same.
    site.act(1, crate::Act::Retry).await;
    while !device.is_empty() {
        device.manifest().await;
    }
    device.ask(1);
    site.until_state("dev-1", "downloading").await;
}

#[tokio::test]
async fn rule_19_one_that_is_away_when_it_is_retried_is_waited_for_as_long_again() {
    let site = Site::with(|settings| {
        settings.drop_rollout = Some(DropRollout::Canary);
        settings.confirm_within = Duration::from_millis(50);
    })
    .await;
    let mut device = site.listening("dev-1").await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    device.manifest().await;
    device.end();
    site.until_deployment(1, "paused").await;
    site.act(1, crate::Act::Retry).await;
    site.act(1, crate::Act::Resume).await;
    site.until_deployment(1, "paused").await;
    assert_eq!(site.count(1, "silent"), 1);
}

/// The canary got one block, and is back.
async fn amid_its_download(site: &Site) -> Session {
    let mut device = site.listening("dev-1").await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    device.manifest().await;
    device.download(0, 1).await;
    device.end();
    site.connect("dev-1").await
}

fn short(settings: &mut crate::Settings) {
    settings.drop_rollout = Some(DropRollout::Canary);
    settings.confirm_within = Duration::from_millis(100);
}

#[tokio::test]
async fn rule_19_one_that_is_back_and_does_not_listen_holds_no_wave() {
    let site = Site::with(short).await;
    let mut device = amid_its_download(&site).await;
    assert!(site.service.device("dev-1").unwrap().online);
    site.until_deployment(1, "paused").await;
    assert_eq!(site.count(1, "silent"), 1);
    // It goes on when it listens and asks.
    device.subscribe(TOPIC);
    device.download(1, 3).await;
    site.until_state("dev-1", "downloaded").await;
}

#[tokio::test]
async fn rule_19_one_that_asks_for_what_there_is_not_and_then_no_more_holds_no_wave() {
    let site = Site::with(short).await;
    let mut device = amid_its_download(&site).await;
    device.ask(99);
    device.error().await;
    device.subscribe(TOPIC);
    site.until_deployment(1, "paused").await;
    device.nothing();
}

#[tokio::test]
async fn rule_16_a_slow_device_is_waited_for_by_its_own_pace() {
    let mut site = Site::start().await;
    let mut device = site.listening("dev-1").await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    device.manifest().await;
    device.download(0, 1).await;
    // `nudge_after` is a minute: the time for devices that nobody nudges is over long before.
    site.configure(|settings| settings.confirm_within = Duration::from_nanos(1)).await;
    let engine = &site.service.0;
    engine.confirm_due(&engine.registry.get("dev-1").unwrap());
    assert_eq!(site.service.device("dev-1").unwrap().state.as_deref(), Some("downloading"));
}
