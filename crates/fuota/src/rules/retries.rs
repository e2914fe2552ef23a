//! What waits between two attempts at one image (rule 13).

use std::time::Duration;

use crate::{
    Act,
    harness::{Session, Site, ann},
};

const ALL: &str = r#"{"all":true}"#;
const HOUR: Duration = Duration::from_secs(3600);

/// It is offered the image, and says that it failed.
async fn fails(site: &Site, id: &str) {
    let mut device = site.listening(id).await;
    device.manifest().await;
    device.publish(
        r#"{"variable":"firmware_status","value":"failed","metadata":{"reason":"flash"}}"#,
    );
    site.until_state(id, "failed").await;
    device.end();
}

/// An offer would be there once it is written.
async fn silence(site: &Site, device: &mut Session) {
    site.service.0.db.commit(Vec::new()).await.unwrap();
    device.nothing();
}

fn next_attempt(site: &Site) -> Option<u64> {
    site.service.device("dev-1").unwrap().next_attempt
}

#[tokio::test]
async fn rule_13_the_next_attempt_waits_over_a_crash_and_an_operator_need_not() {
    let site = Site::with(|settings| settings.retry_after = HOUR).await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let id = site.deploy(&firmware, ALL, r#""all""#).await;
    let began = crate::transfer::unix_now();
    assert_eq!(next_attempt_of(&site, "dev-1"), None);
    fails(&site, "dev-1").await;
    let at = next_attempt(&site).unwrap();
    assert!((began + 3600..began + 5400 + 60).contains(&at), "{began} {at}");
    let mut device = site.listening("dev-1").await;
    silence(&site, &mut device).await;
    device.ask(0);
    let error = device.error().await;
    assert!(error.contains("attempt 2 of 3 comes at 20"), "{error}");
    let why = site.service.why("dev-1").unwrap().sentence;
    assert!(why.contains("waits: attempt 2 of 3 comes at 20"), "{why}");
    site.until_written("dev-1", "failed").await;
    let site = site.crash().await;
    assert_eq!(next_attempt(&site), Some(at), "neither lost nor shorter");
    let mut device = site.listening("dev-1").await;
    silence(&site, &mut device).await;
    let acted = site.service.act_on_deployment(id, Act::Retry, Some("dev-1"), &ann()).await;
    assert_eq!(acted.unwrap().retried, Some(1));
    device.manifest().await;
    assert_eq!(next_attempt(&site), None);
    assert_eq!(device.download(0, 3).await, [1; 250]);
}

fn next_attempt_of(site: &Site, id: &str) -> Option<u64> {
    site.service.device(id).and_then(|device| device.next_attempt)
}

#[tokio::test]
async fn rule_13_it_comes_by_itself_when_the_wait_is_over() {
    let site = Site::with(|settings| settings.retry_after = Duration::from_millis(300)).await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    fails(&site, "dev-1").await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    assert_eq!(site.service.device("dev-1").unwrap().firmware.unwrap().attempt, 2);
    assert_eq!(device.download(0, 3).await, [1; 250]);
}

#[tokio::test]
async fn what_is_not_to_come_has_no_time() {
    let site = Site::with(|settings| {
        settings.retry_after = HOUR;
        settings.max_attempts = 1;
    })
    .await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    fails(&site, "dev-1").await;
    assert_eq!(next_attempt(&site), None, "that was the last one");
    let why = site.service.why("dev-1").unwrap().sentence;
    assert!(why.contains("1 times without success"), "{why}");
    let site = site.restart(|settings| settings.max_attempts = 3).await;
    let firmware = site.upload("pump-2.0.0.bin", &[2; 250]).await;
    let id = site.deploy(&firmware, ALL, r#""all""#).await;
    fails(&site, "dev-1").await;
    assert!(next_attempt(&site).is_some());
    site.service.act_on_deployment(id, Act::Cancel, Some("dev-1"), &ann()).await.unwrap();
    assert_eq!(next_attempt(&site), None, "an operator said so");
}

#[tokio::test]
async fn rule_12_another_image_does_not_wait_and_nothing_older_slips_in() {
    let site = Site::with(|settings| settings.retry_after = HOUR).await;
    let old = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let new = site.upload("pump-2.0.0.bin", &[2; 250]).await;
    site.deploy(&old, ALL, r#""all""#).await;
    site.deploy(&new, ALL, r#""all""#).await;
    fails(&site, "dev-1").await;
    let mut device = site.listening("dev-1").await;
    silence(&site, &mut device).await;
    let newest = site.upload("pump-3.0.0.bin", &[3; 250]).await;
    site.deploy(&newest, ALL, r#""all""#).await;
    assert_eq!(device.manifest().await["version"], "3.0.0");
}

#[tokio::test]
async fn one_that_goes_down_by_an_operator_does_not_wait_for_what_failed_before() {
    let site = Site::with(|settings| settings.retry_after = HOUR).await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    site.deploy(&firmware, ALL, r#""all""#).await;
    fails(&site, "dev-1").await;
    let mut down = crate::harness::deployment(&firmware, ALL, r#""all""#);
    down.downgrade = true;
    site.service.create_deployment(down, None, &ann()).await.unwrap();
    fails(&site, "dev-1").await;
    let mut device = site.listening("dev-1").await;
    silence(&site, &mut device).await;
    let why = site.service.why("dev-1").unwrap().sentence;
    assert!(why.contains("attempt 2 of 3"), "{why}");
}
