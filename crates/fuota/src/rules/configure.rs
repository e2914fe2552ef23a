//! Settings that change while the engine runs.

use std::time::Duration;

use hook::{Identity, Role};

use crate::harness::{Site, request};

#[tokio::test]
async fn a_chunk_size_applies_to_new_offers_and_a_pin_stays() {
    let mut site = Site::start().await;
    site.drop_file("fw-1.0.0.bin", &[1; 250]).await;
    let mut first = site.listening("dev-1").await;
    assert_eq!(first.manifest().await["chunk_size"], 100);
    site.configure(|settings| settings.chunk_size = 50).await;
    let mut second = site.listening("dev-2").await;
    assert_eq!(second.manifest().await["chunk_size"], 50);
    assert_eq!(first.download(0, 3).await, [1; 250]);
    assert_eq!(second.download(0, 5).await, [1; 250]);
}

#[tokio::test]
async fn times_apply_to_what_is_being_waited_for() {
    let mut site = Site::start().await;
    site.drop_file("fw-1.0.0.bin", &[1; 150]).await;
    let (mut stays, mut leaves) = (site.listening("stays").await, site.listening("leaves").await);
    for device in [&mut stays, &mut leaves] {
        device.manifest().await;
        device.download(0, 2).await;
    }
    leaves.end();
    site.until_state("stays", "downloaded").await;
    site.until_state("leaves", "downloaded").await;
    site.configure(|settings| {
        settings.confirm_after = Duration::from_millis(20);
        settings.confirm_within = Duration::from_millis(20);
    })
    .await;
    site.until_state("stays", "updated_unconfirmed").await;
    site.until_state("leaves", "silent").await;
}

#[tokio::test]
async fn more_attempts_make_an_offer_possible_again() {
    let mut site = Site::with(|settings| settings.max_attempts = 1).await;
    site.drop_file("fw-1.0.0.bin", &[1; 150]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.publish(r#"{"variable":"firmware_status","value":"failed"}"#);
    device.end();
    site.until_state("dev-1", "failed").await;
    let mut device = site.listening("dev-1").await;
    device.nothing();
    site.configure(|settings| settings.max_attempts = 2).await;
    device.manifest().await;
}

#[tokio::test]
async fn rules_decide_from_now_on_and_the_mode_stays() {
    let mut site = Site::start().await;
    let identity = Identity { name: Some("s".into()), role: Role::Service };
    let service = site.session(request("s"), identity, u32::MAX, &[]);
    assert!(service.may_publish("plant/1") && service.may_subscribe("#"));
    site.configure(|settings| {
        settings.rules = vec!["deny service publish plant/#".parse().unwrap()];
        settings.mode = crate::AuthMode::Token;
    })
    .await;
    assert!(!service.may_publish("plant/1") && service.may_subscribe("#"));
    assert!(site.connect_as(request("nobody")).await.is_ok(), "the mode needs a restart");
    site.configure(|settings| {
        settings.rules = Vec::new();
        settings.strict = true;
    })
    .await;
    assert!(service.may_publish("plant/1"), "strict is for devices");
    let device = site.listening("dev-1").await;
    assert!(!device.may_publish("plant/1"));
}

#[tokio::test]
async fn what_cannot_work_changes_nothing() {
    let site = Site::start().await;
    let broken = crate::Settings { chunk_size: 0, ..crate::Settings::default() };
    assert!(site.fuota.configure(broken).await.is_err());
    site.drop_file("fw-1.0.0.bin", &[1; 150]).await;
    let mut device = site.listening("dev-1").await;
    assert_eq!(device.manifest().await["chunk_size"], 100);
}
