//! A deployment that exists is changed, and goes on by that at once (rules 20, 21 and 23).

use std::time::Duration;

use crate::{
    DeploymentPatch, Limits, ServiceError,
    harness::{Session, Site, ann, deployment},
};

const ALL: &str = r#"{"all":true}"#;
/// Half past one, on a day in 2026.
const HALF_PAST_ONE: u64 = 20_600 * 86_400 + 5_400;

/// Deploys with these limits and waves; gives its number.
async fn deploy(site: &Site, limits: Limits, rollout: &str) -> i64 {
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let mut new = deployment(&firmware, ALL, rollout);
    new.limits = limits;
    let (view, _) = site.service.create_deployment(new, None, &ann()).await.unwrap();
    view.id.parse().unwrap()
}

async fn change(site: &Site, id: i64, patch: &str) -> Result<crate::DeploymentView, ServiceError> {
    let patch: DeploymentPatch = serde_json::from_str(patch).unwrap();
    site.service.change_deployment(id, &patch, &ann()).await
}

fn begun(devices: &[Session]) -> Vec<usize> {
    (0..devices.len()).filter(|index| !devices[*index].is_empty()).collect()
}

/// Waits until so many were offered it and have not read that yet, and no more were.
async fn until_begun(site: &Site, devices: &[Session], number: usize) -> Vec<usize> {
    site.until("offers", |_| begun(devices).len() >= number).await;
    site.service.0.db.commit(Vec::new()).await.unwrap();
    let begun = begun(devices);
    assert_eq!(begun.len(), number, "{begun:?}");
    begun
}

#[tokio::test]
async fn rule_20_a_cap_that_is_lowered_is_obeyed_from_then_on_and_one_that_is_gone_holds_nobody() {
    let site = Site::start().await;
    let mut devices = site.field(6).await;
    let id = deploy(&site, Limits { transfers: Some(3), ..Limits::default() }, r#""all""#).await;
    let first = until_begun(&site, &devices, 3).await;
    for index in &first {
        devices[*index].manifest().await;
    }
    let view = change(&site, id, r#"{"limits":{"transfers":1}}"#).await.unwrap();
    assert_eq!(view.limits.transfers, Some(1));
    // What runs finishes; nobody begins while one is under way.
    for index in &first[..2] {
        devices[*index].download(0, 3).await;
        until_begun(&site, &devices, 0).await;
    }
    devices[first[2]].download(0, 3).await;
    until_begun(&site, &devices, 1).await;
    // It is so after a crash as well.
    drop(devices);
    let site = site.crash().await;
    assert_eq!(site.service.deployment(id).unwrap().limits.transfers, Some(1));
    let devices = site.field(6).await;
    change(&site, id, r#"{"limits":{"transfers":null}}"#).await.unwrap();
    site.until("all begin", |site| site.count(id, "offered") == 3).await;
    drop(devices);
}

#[tokio::test]
async fn rule_20_a_rate_that_is_changed_counts_anew() {
    let site = Site::start().await;
    let devices = site.field(4).await;
    let limits = Limits { starts_per_minute: Some(1), ..Limits::default() };
    let id = deploy(&site, limits, r#""all""#).await;
    until_begun(&site, &devices, 1).await;
    change(&site, id, r#"{"limits":{"starts_per_minute":2}}"#).await.unwrap();
    until_begun(&site, &devices, 2).await;
    // The same once more is no change, and lets nobody begin.
    change(&site, id, r#"{"limits":{"starts_per_minute":2}}"#).await.unwrap();
    until_begun(&site, &devices, 2).await;
    change(&site, id, r#"{"limits":{"starts_per_minute":null}}"#).await.unwrap();
    until_begun(&site, &devices, 4).await;
}

#[tokio::test]
async fn rule_20_a_running_transfer_feels_another_bandwidth() {
    let site = Site::start().await;
    let mut device = site.listening("dev-1").await;
    let limits = Limits { bytes_per_second: Some(1), ..Limits::default() };
    let id = deploy(&site, limits, r#""all""#).await;
    device.manifest().await;
    device.ask(0);
    device.ask(1);
    device.block().await;
    device.nothing(); // its turn is in a hundred seconds
    change(&site, id, r#"{"limits":{"bytes_per_second":null}}"#).await.unwrap();
    assert_eq!(device.block().await.0, 1);
    change(&site, id, r#"{"limits":{"bytes_per_second":1}}"#).await.unwrap();
    device.ask(2);
    device.ask(0);
    device.block().await;
    device.nothing();
}

#[tokio::test]
async fn rule_23_its_windows_close_and_open() {
    let site = Site::start().await;
    site.service.0.wall.set(HALF_PAST_ONE);
    let id = deploy(&site, Limits::default(), r#""all""#).await;
    let windows = r#"{"windows":["03:00-04:00 UTC"]}"#;
    let view = change(&site, id, windows).await.unwrap();
    assert!(view.reason.unwrap().contains("03:00-04:00 UTC"));
    let devices = site.field(2).await;
    until_begun(&site, &devices, 0).await;
    change(&site, id, r#"{"windows":["01:00-02:00 UTC"]}"#).await.unwrap();
    until_begun(&site, &devices, 2).await;
    let view = change(&site, id, r#"{"windows":null}"#).await.unwrap();
    assert_eq!(view.windows, None);
    let view = change(&site, id, r#"{"windows":[]}"#).await.unwrap();
    assert!(view.windows.unwrap().is_empty(), "at any time, whatever the site says");
}

#[tokio::test]
async fn rule_21_by_a_lower_threshold_it_pauses_at_once() {
    let site = Site::with(|settings| settings.retry_after = Duration::from_secs(3600)).await;
    let mut devices = site.field(4).await;
    let waves = r#"{"waves":[{"percent":100}],"pause_at_percent":null}"#;
    let id = deploy(&site, Limits::default(), waves).await;
    for device in &mut devices[..2] {
        device.manifest().await;
        device.publish(r#"{"variable":"firmware_status","value":"failed"}"#);
    }
    site.until("they failed", |site| site.count(id, "failed") == 2).await;
    change(&site, id, r#"{"pause_at_percent":75}"#).await.unwrap();
    assert_eq!(site.service.deployment(id).unwrap().state, "running");
    change(&site, id, r#"{"pause_at_percent":50}"#).await.unwrap();
    let view = site.until_deployment(id, "paused").await;
    assert!(view.reason.unwrap().contains("2 of 4 devices"));
}

#[tokio::test]
async fn what_cannot_be_changed_says_why_and_what_was_is_in_the_audit() {
    let site = Site::start().await;
    let id = deploy(&site, Limits::default(), r#""all""#).await;
    for (patch, why) in [
        (r#"{"windows":["sometimes"]}"#, "windows"),
        (r#"{"limits":{"transfers":0}}"#, "transfers is 0"),
        (r#"{"limits":{"bytes_per_second":9007199254740993}}"#, "bytes_per_second is more"),
        (r#"{"pause_at_percent":101}"#, "1 to 100"),
    ] {
        let error = change(&site, id, patch).await.unwrap_err();
        assert!(matches!(error, ServiceError::Invalid { .. }), "{patch}: {error}");
        assert!(error.to_string().contains(why), "{patch}: {error}");
    }
    assert!(matches!(change(&site, 99, "{}").await, Err(ServiceError::NotFound(_))));
    let patch = r#"{"limits":{"transfers":5},"pause_at_percent":20,"windows":[]}"#;
    change(&site, id, patch).await.unwrap();
    change(&site, id, patch).await.unwrap();
    let mut lines = site.service.audit(None, 10).await.unwrap();
    lines.retain(|line| line.actor.is_some());
    let expected = "windows: at any time; transfers: 5, was none; pause_at_percent: 20, was none";
    assert_eq!((&*lines[0].action, lines[0].detail.as_deref()), ("changed", Some(expected)));
    assert_eq!(lines[1].action, "created", "the second time nothing changed");
    site.act(id, crate::Act::Cancel).await;
    let refused = change(&site, id, "{}").await.unwrap_err();
    assert!(refused.to_string().contains("it is over"), "{refused}");
}

#[tokio::test]
async fn the_request_that_made_it_may_come_again() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let key = || Some("job-17".to_owned());
    let new = || deployment(&firmware, ALL, r#""canary""#);
    let (view, _) = site.service.create_deployment(new(), key(), &ann()).await.unwrap();
    let id = view.id.parse().unwrap();
    for percent in [7, 8] {
        let patch =
            format!(r#"{{"limits":{{"transfers":{percent}}},"pause_at_percent":{percent}}}"#);
        change(&site, id, &patch).await.unwrap();
    }
    let site = site.crash().await;
    let (again, is_new) = site.service.create_deployment(new(), key(), &ann()).await.unwrap();
    assert_eq!((again.id, is_new), (view.id, false));
    assert_eq!(again.rollout.pause_at_percent, Some(8));
}
