//! What is known of a device that reports nothing: its rate, what its download waits for, and
//! what it runs.

use std::{sync::atomic::Ordering, time::Duration};

use crate::{VersionFrom, harness::Site};

/// As if it stood still for a minute: the broker looked a minute ago, and never since.
fn a_minute_ago(site: &Site) {
    let device = site.service.0.registry.get("dev-1").unwrap();
    let transfer = device.state.lock().transfer.clone().unwrap();
    transfer.stand_still(Duration::from_secs(60));
}

fn stalled(site: &Site) -> Option<String> {
    site.service.device("dev-1").unwrap().stalled
}

#[tokio::test]
async fn a_download_has_a_rate_while_it_runs() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 1000]).await;
    let mut device = site.listening("dev-1").await;
    site.deploy(&firmware, r#"{"all":true}"#, r#""all""#).await;
    device.manifest().await;
    let rate = |site: &Site| site.service.device("dev-1").unwrap().progress.bytes_per_second;
    assert_eq!(rate(&site), None, "it has not begun");
    device.download(0, 5).await;
    site.until("a rate", |site| rate(site).is_some_and(|rate| rate > 0)).await;
    assert_eq!(stalled(&site), None);
    device.download(5, 10).await;
    site.until_state("dev-1", "downloaded").await;
    assert_eq!(rate(&site), None, "it is over");
}

#[tokio::test]
async fn one_that_stands_still_says_what_it_waits_for() {
    let site = Site::with(|settings| settings.nudge_after = Duration::from_secs(3600)).await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 1000]).await;
    let mut device = site.listening("dev-1").await;
    let id = site.deploy(&firmware, r#"{"all":true}"#, r#""all""#).await;
    device.manifest().await;
    assert_eq!(stalled(&site), None, "it is given a moment");
    a_minute_ago(&site);
    assert_eq!(stalled(&site).unwrap(), "it has asked for nothing on its present connection");
    device.download(0, 2).await;
    site.until("it was looked at", |site| stalled(site).is_none()).await;
    a_minute_ago(&site);
    let reason = stalled(&site).unwrap();
    assert!(reason.starts_with("it has asked for nothing for "), "{reason}");
    let why = site.service.why("dev-1").unwrap().sentence;
    assert!(why.contains("2 of 10 blocks; it has asked for nothing for"), "{why}");
    // A block that is never written.
    device.ask(2);
    let block = device.unwritten().await;
    assert_eq!(stalled(&site).unwrap(), "its connection takes nothing of what was sent to it");
    drop(block);
    device.sink.room.store(0, Ordering::Relaxed);
    device.end();
    assert_eq!(stalled(&site).unwrap(), "it is away");
    // One that has not begun, and is not to.
    site.act(id, crate::Act::Cancel).await;
    assert_eq!(stalled(&site), None);
    let other = site.upload("pump-2.0.0.bin", &[2; 1000]).await;
    let id = site.deploy(&other, r#"{"all":true}"#, r#""all""#).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    site.act(id, crate::Act::Pause).await;
    assert!(stalled(&site).unwrap().contains("paused by ann"));
}

#[tokio::test]
async fn one_that_waits_for_its_turn_says_so() {
    let site = Site::with(|settings| settings.device_bytes_per_second = Some(1)).await;
    site.drop_file("pump-1.0.0.bin", &[1; 1000]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.ask(0);
    device.ask(1);
    device.block().await;
    a_minute_ago(&site);
    assert!(stalled(&site).unwrap().contains("waits for its turn under a cap"));
}

#[tokio::test]
async fn what_it_runs_is_inferred_until_it_reports() {
    let site = Site::with(|settings| settings.confirm_after = Duration::from_millis(50)).await;
    site.drop_file("pump-1.0.0.bin", &[1; 150]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    let view = site.service.device("dev-1").unwrap();
    assert_eq!((view.version, view.version_from), (None, None));
    device.download(0, 2).await;
    let view = site.until_state("dev-1", "updated_unconfirmed").await;
    assert_eq!(view.version.as_deref(), Some("1.0.0"));
    assert_eq!(view.version_from, Some(VersionFrom::Outcome));
    let query = crate::DeviceQuery { version: Some("1.0.0".into()), ..Default::default() };
    assert_eq!(site.service.devices(&query).len(), 1);
    // What it is given next it does not run yet, nor after a crash.
    site.until_written("dev-1", "updated_unconfirmed").await;
    let firmware = site.upload("pump-2.0.0.bin", &[2; 150]).await;
    site.deploy(&firmware, r#"{"all":true}"#, r#""all""#).await;
    device.manifest().await;
    device.end();
    let site = site.crash().await;
    assert_eq!(site.service.device("dev-1").unwrap().version.as_deref(), Some("1.0.0"));
    let mut device = site.listening("dev-1").await;
    device.publish(r#"{"variable":"firmware_status","metadata":{"version":"0.9.0"}}"#);
    let view = site.service.device("dev-1").unwrap();
    assert_eq!(
        (view.version.as_deref(), view.version_from),
        (Some("0.9.0"), Some(VersionFrom::Report))
    );
}
