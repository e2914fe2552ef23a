//! What operators said, and what came of it, outlasts a disk that was full for a while.

use crate::{
    Act, ServiceError,
    harness::{Site, ann},
};

const ALL: &str = r#"{"all":true}"#;

fn unavailable<T: std::fmt::Debug>(result: Result<T, ServiceError>) {
    match result {
        Err(ServiceError::Unavailable(_)) => {}
        other => panic!("it is not written: {other:?}"),
    }
}

async fn act(site: &Site, id: i64, act: Act) -> Result<crate::Acted, ServiceError> {
    site.service.act_on_deployment(id, act, None, &ann()).await
}

#[tokio::test]
async fn a_pause_and_a_freeze_that_were_not_written_hold_after_a_crash() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let id = site.deploy(&firmware, ALL, r#""all""#).await;
    site.forbid_writing(&[]);
    for _ in 0..2 {
        // Twice: nobody is told that it is so already while a crash would undo it.
        unavailable(act(&site, id, Act::Pause).await);
        unavailable(site.service.freeze(true, &ann()).await);
        // What tries it again fails as well.
        site.until_jobs(6).await;
    }
    site.allow_writing();
    site.until_all_is_written().await;
    let site = site.crash().await;
    assert_eq!(site.service.deployment(id).unwrap().state, "paused");
    assert!(site.service.frozen().frozen);
    site.service.freeze(false, &ann()).await.unwrap();
    site.listening("dev-1").await.nothing();
}

#[tokio::test]
async fn what_was_unfrozen_while_that_was_not_written_is_not_frozen_again() {
    let site = Site::start().await;
    site.service.freeze(true, &ann()).await.unwrap();
    site.forbid_writing(&["run"]);
    unavailable(site.service.freeze(false, &ann()).await);
    unavailable(site.service.freeze(false, &ann()).await);
    site.allow_writing();
    site.until_all_is_written().await;
    assert!(!site.crash().await.service.frozen().frozen);
}

#[tokio::test]
async fn rule_22_a_rollback_that_was_not_written_knows_its_devices_after_a_crash() {
    let site = Site::start().await;
    for (version, byte) in [("1.0.0", 1), ("2.0.0", 2)] {
        site.drop_file(&format!("pump-{version}.bin"), &[byte; 250]).await;
        for id in ["dev-1", "dev-2"] {
            let mut device = site.listening(id).await;
            assert_eq!(device.manifest().await["version"], version);
            device.download(0, 3).await;
            device.end();
            let mut device = site.listening(id).await;
            let report =
                format!(r#"{{"variable":"firmware_status","metadata":{{"version":"{version}"}}}}"#);
            device.publish(report);
            site.until_state(id, "updated").await;
            device.end();
        }
    }
    site.forbid_writing(&["deployment", "member"]);
    unavailable(act(&site, 2, Act::Rollback).await);
    site.until_jobs(3).await;
    site.allow_writing();
    site.until_all_is_written().await;
    let site = site.crash().await;
    assert_eq!(site.service.deployment(2).unwrap().state, "cancelled");
    for id in ["dev-1", "dev-2"] {
        let mut device = site.listening(id).await;
        assert_eq!(device.manifest().await["version"], "1.0.0");
        device.download(0, 3).await;
        device.publish(r#"{"variable":"firmware_status","metadata":{"version":"1.0.0"}}"#);
    }
}

#[tokio::test]
async fn a_file_that_came_while_nothing_could_be_written_is_offered_when_it_can() {
    let site = Site::start().await;
    let mut device = site.listening("dev-1").await;
    site.forbid_writing(&[]);
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    device.ask(0);
    assert!(device.error().await.contains("could not write"));
    site.allow_writing();
    assert_eq!(device.manifest().await["version"], "1.0.0");
    device.download(0, 3).await;
    site.until_all_is_written().await;
    site.until_written("dev-1", "downloaded").await;
    let site = site.crash().await;
    assert_eq!(site.service.deployment(1).unwrap().counts["downloaded"], 1);
    assert_eq!(site.service.firmware()[0].state, crate::FirmwareState::Accepted);
}

/// Then nothing has changed: it is not as one that was never offered anything.
#[tokio::test]
async fn rule_13_a_device_that_could_not_be_removed_knows_what_it_experienced() {
    let site = Site::start().await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.download(0, 3).await;
    site.until_state("dev-1", "downloaded").await;
    device.end();
    site.service.0.flush();
    site.until_all_is_written().await;
    site.forbid_writing(&["device"]);
    unavailable(site.service.remove_device("dev-1", &ann()).await);
    site.allow_writing();
    let is_as_before = async |site: &Site| {
        assert_eq!(site.service.device("dev-1").unwrap().state.as_deref(), Some("downloaded"));
        assert_eq!(site.count(1, "downloaded"), 1);
        let mut device = site.listening("dev-1").await;
        device.nothing();
        device.end();
    };
    is_as_before(&site).await;
    is_as_before(&site.crash().await).await;
}
