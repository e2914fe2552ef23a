//! One device is taken out of a deployment, and the others go on (rules 10 and 21).

use std::time::Duration;

use futures_util::StreamExt;

use crate::{
    Act, ServiceError,
    download::Caller,
    harness::{Session, Site, ann},
};

const ALL: &str = r#"{"all":true}"#;
const CANARY: &str = r#""canary""#;

/// An offer would be there once it is written.
async fn silence(site: &Site, device: &mut Session) {
    site.service.0.db.commit(Vec::new()).await.unwrap();
    device.nothing();
}

async fn cancel(site: &Site, id: i64, device: &str) -> Result<crate::Acted, ServiceError> {
    site.service.act_on_deployment(id, Act::Cancel, Some(device), &ann()).await
}

async fn refused(site: &Site, id: i64, device: &str) -> String {
    match cancel(site, id, device).await {
        Err(ServiceError::Conflict(why) | ServiceError::NotFound(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn report(version: &str) -> String {
    format!(r#"{{"variable":"firmware_status","metadata":{{"version":"{version}"}}}}"#)
}

#[tokio::test]
async fn rule_10_one_device_stops_and_the_others_go_on() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let id = site.deploy(&firmware, ALL, r#""all""#).await;
    let mut one = site.listening("dev-1").await;
    let mut other = site.listening("dev-2").await;
    one.manifest().await;
    other.manifest().await;
    one.download(0, 1).await;
    let acted = cancel(&site, id, "dev-1").await.unwrap();
    assert_eq!((acted.deployment.state, acted.deployment.counts["cancelled"]), ("running", 1));
    one.ask(1);
    assert!(one.error().await.contains("cancelled by an operator"));
    assert_eq!(other.download(0, 3).await, [1; 250]);
    let why = site.service.why("dev-1").unwrap().sentence;
    assert!(why.contains("ann cancelled it for this device"), "{why}");
    let line = site.service.timeline("dev-1", None, 1).await.unwrap().remove(0);
    assert_eq!((&*line.action, line.deployment), ("cancelled", Some(id.to_string())));
    let line = site.service.audit(None, 1).await.unwrap().remove(0);
    assert_eq!((&*line.action, line.detail.as_deref()), ("cancel", Some("dev-1")));
    assert_eq!(line.actor.as_deref(), Some("ann"));
    site.until_written("dev-2", "downloaded").await;
    // Not on another connection either, nor after a crash, nor by a retry that names nobody.
    let site = site.crash().await;
    assert_eq!(site.act(id, Act::Retry).await.retried, Some(0));
    let mut one = site.listening("dev-1").await;
    silence(&site, &mut one).await;
    one.ask(1);
    assert!(one.error().await.contains("cancelled by an operator"));
    assert_eq!(site.service.device("dev-1").unwrap().state.as_deref(), Some("cancelled"));
    let retried = site.service.act_on_deployment(id, Act::Retry, Some("dev-1"), &ann()).await;
    assert_eq!(retried.unwrap().retried, Some(1));
    assert_eq!(one.manifest().await["version"], "1.0.0");
    assert_eq!(one.download(0, 3).await, [1; 250]);
    assert_eq!(site.count(id, "downloaded"), 2);
}

#[tokio::test]
async fn rule_12_nothing_older_comes_back_for_it() {
    let site = Site::start().await;
    let old = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let new = site.upload("pump-2.0.0.bin", &[2; 250]).await;
    site.deploy(&old, ALL, r#""all""#).await;
    let id = site.deploy(&new, ALL, r#""all""#).await;
    let mut device = site.listening("dev-1").await;
    assert_eq!(device.manifest().await["version"], "2.0.0");
    cancel(&site, id, "dev-1").await.unwrap();
    device.end();
    let mut device = site.listening("dev-1").await;
    silence(&site, &mut device).await;
    // What is newer than both does come.
    let newest = site.upload("pump-3.0.0.bin", &[3; 250]).await;
    site.deploy(&newest, ALL, r#""all""#).await;
    assert_eq!(device.manifest().await["version"], "3.0.0");
}

#[tokio::test]
async fn rule_21_the_place_of_a_cancelled_canary_is_another_ones() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let mut devices = Vec::new();
    for id in ["dev-1", "dev-2", "dev-3"] {
        devices.push(site.listening(id).await);
    }
    let id = site.deploy(&firmware, ALL, CANARY).await;
    devices[0].manifest().await;
    cancel(&site, id, "dev-1").await.unwrap();
    // It proved nothing: the wave takes another device, and neither pauses nor goes on.
    devices[1].manifest().await;
    silence(&site, &mut devices[2]).await;
    let view = site.service.deployment(id).unwrap();
    assert_eq!((view.state, view.wave, view.complete), ("running", 1, Some(false)));
    devices[1].download(0, 3).await;
    devices[1].publish(report("1.0.0"));
    devices[2].manifest().await;
    devices[2].download(0, 3).await;
    devices[2].publish(report("1.0.0"));
    site.until("it is complete", |site| {
        site.service.deployment(id).unwrap().complete == Some(true)
    })
    .await;
    let view = site.service.deployment(id).unwrap();
    assert_eq!((view.counts["updated"], view.counts["cancelled"]), (2, 1));
    silence(&site, &mut devices[0]).await;
}

#[tokio::test]
async fn one_that_was_offered_nothing_yet_is_not_offered_it() {
    let site = Site::start().await;
    site.listening("dev-1").await.end();
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let id = site.deploy(&firmware, ALL, r#""all""#).await;
    cancel(&site, id, "dev-1").await.unwrap();
    let shown = site.service.deployment_devices(id, None, 10).unwrap().remove(0);
    assert_eq!((&*shown.device, shown.state), ("dev-1", Some("cancelled")));
    assert_eq!(site.service.deployment(id).unwrap().complete, Some(true));
    let site = site.crash().await;
    let mut device = site.listening("dev-1").await;
    silence(&site, &mut device).await;
    let retried = site.service.act_on_deployment(id, Act::Retry, Some("dev-1"), &ann()).await;
    assert_eq!(retried.unwrap().retried, Some(1));
    device.manifest().await;
}

#[tokio::test]
async fn rule_21_one_that_failed_is_offered_it_no_more_and_still_counts_as_failed() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    let id = site.deploy(&firmware, ALL, CANARY).await;
    device.manifest().await;
    device.publish(r#"{"variable":"firmware_status","value":"failed"}"#);
    site.until_deployment(id, "paused").await;
    cancel(&site, id, "dev-1").await.unwrap();
    assert_eq!(site.count(id, "failed"), 1);
    site.act(id, Act::Resume).await;
    device.end();
    let mut device = site.listening("dev-1").await;
    silence(&site, &mut device).await;
    let why = site.service.why("dev-1").unwrap().sentence;
    assert!(why.contains("ann cancelled it for this device"), "{why}");
}

#[tokio::test]
async fn what_cannot_be_cancelled_for_a_device_says_why() {
    let site = Site::with(|settings| settings.confirm_after = Duration::from_secs(3600)).await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    site.listening("dev-2").await.end();
    let id = site.deploy(&firmware, r#"{"device":"dev-1"}"#, r#""all""#).await;
    assert!(refused(&site, id + 1, "dev-1").await.contains("there is no deployment"));
    assert!(refused(&site, id, "dev-9").await.contains("there is no device dev-9"));
    assert!(refused(&site, id, "dev-2").await.contains("it is not for dev-2"));
    device.manifest().await;
    device.download(0, 3).await;
    site.until_state("dev-1", "downloaded").await;
    assert!(refused(&site, id, "dev-1").await.contains("dev-1 has the image already"));
    let other = site.upload("pump-2.0.0.bin", &[2; 250]).await;
    let id = site.deploy(&other, r#"{"device":"dev-1"}"#, r#""all""#).await;
    device.manifest().await;
    cancel(&site, id, "dev-1").await.unwrap();
    assert!(refused(&site, id, "dev-1").await.contains("cancelled for dev-1 already"));
    site.act(id, Act::Cancel).await;
    assert!(refused(&site, id, "dev-1").await.contains("it is over"));
}

#[tokio::test]
async fn rule_21_a_cancel_that_a_crash_cut_short_opens_no_wave() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let mut canary = site.listening("dev-1").await;
    let id = site.deploy(&firmware, ALL, CANARY).await;
    canary.manifest().await;
    // Of the two halves of a cancel, its devices are written and it is not.
    site.forbid_writing(&["deployment"]);
    let cancelled = site.service.act_on_deployment(id, Act::Cancel, None, &ann()).await;
    assert!(matches!(cancelled, Err(ServiceError::Unavailable(_))), "{cancelled:?}");
    site.until_written("dev-1", "cancelled").await;
    drop(canary);
    let site = site.crash().await;
    let mut others = Vec::new();
    for id in ["dev-2", "dev-3"] {
        others.push(site.listening(id).await);
    }
    let mut canary = site.listening("dev-1").await;
    assert_eq!(canary.manifest().await["version"], "1.0.0");
    for other in &mut others {
        silence(&site, other).await;
    }
    let view = site.service.deployment(id).unwrap();
    assert_eq!((view.state, view.wave), ("running", 1));
}

/// The device has all of it as far as the server knows, but its last blocks were lost.
#[tokio::test]
async fn rule_10_what_was_stopped_is_served_no_more_to_one_that_has_it() {
    for withdraws in [false, true] {
        let site = Site::start().await;
        let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
        let id = site.deploy(&firmware, ALL, r#""all""#).await;
        let mut device = site.listening("dev-1").await;
        device.manifest().await;
        device.download(0, 3).await;
        site.until_state("dev-1", "downloaded").await;
        if withdraws {
            site.service.withdraw_firmware(&firmware, &ann()).await.unwrap();
        } else {
            drop(site.act(id, Act::Cancel).await);
        }
        device.ask(1);
        assert!(device.error().await.contains("cancelled by an operator"));
        device.end();
        let mut device = site.listening("dev-1").await;
        device.ask(2);
        assert!(device.error().await.contains("cancelled by an operator"));
        site.until_written("dev-1", "downloaded").await;
        let site = site.crash().await;
        let mut device = site.listening("dev-1").await;
        device.ask(2);
        assert!(device.error().await.contains("cancelled by an operator"));
        let device = site.service.device("dev-1").unwrap();
        assert_eq!(device.state.as_deref(), Some("downloaded"), "what it has is no lie");
    }
}

/// No block is on its way whose receipt could bring the answer.
#[tokio::test]
async fn rule_10_a_request_that_waits_for_its_turn_is_answered() {
    let site = Site::with(|settings| settings.device_bytes_per_second = Some(100)).await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let id = site.deploy(&firmware, ALL, r#""all""#).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.ask(0);
    device.block().await;
    device.ask(1);
    device.ask(2);
    device.nothing();
    drop(site.act(id, Act::Cancel).await);
    assert!(device.error().await.contains("cancelled by an operator"));
    // One answer is enough for both.
    silence(&site, &mut device).await;
}

#[tokio::test]
async fn rule_10_nor_is_it_offered_over_http() {
    let site = Site::with(|settings| settings.confirm_after = Duration::from_secs(3600)).await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    site.deploy(&firmware, ALL, r#""all""#).await;
    let fetch = async || {
        let caller = Caller::Device { id: "dev-1", user: None, token: None };
        site.service.caller(caller, None).await.unwrap()
    };
    let image = fetch().await.image().await.unwrap().expect("an image");
    let parts: Vec<_> = image.read(0, 250).collect().await;
    assert_eq!(parts.len(), 1);
    drop(parts);
    site.until_state("dev-1", "downloaded").await;
    // One that has lost it gets it again, until it is withdrawn.
    assert!(fetch().await.image().await.unwrap().is_some());
    site.service.withdraw_firmware(&firmware, &ann()).await.unwrap();
    assert!(fetch().await.image().await.unwrap().is_none());
}
