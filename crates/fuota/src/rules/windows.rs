//! Maintenance windows through the engine (rule 23). `window_tests.rs` has the clocks' changes.

use crate::{
    DevicePatch, Windows,
    harness::{Site, ann, deployment},
};

/// 2026-11-27 is a Friday; Berlin is an hour ahead of UTC.
const OPEN: &str = "2026-11-27T21:30:00Z";
const CLOSED: &str = "2026-11-27T12:00:00Z";

fn nights(settings: &mut crate::Settings) {
    settings.windows = Windows::parse(&["mon-fri 22:00-04:00 Europe/Berlin"]).unwrap();
}

fn clock(site: &Site, shows: &str) {
    site.service.0.wall.set(shows.parse::<jiff::Timestamp>().unwrap().as_second() as u64);
}

#[tokio::test]
async fn rule_23_a_window_gates_the_manifest_and_a_running_transfer_finishes() {
    let site = Site::with(nights).await;
    clock(&site, CLOSED);
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    device.nothing();
    let closed = "is closed until Fri 2026-11-27 22:00 CET";
    let why = site.service.why("dev-1").unwrap().sentence;
    assert!(why.contains("pump 1.0.0 (pump-1.0.0.bin) waits") && why.contains(closed), "{why}");
    assert!(site.service.deployment(1).unwrap().reason.unwrap().ends_with(closed));
    assert!(site.service.status().window_closed.unwrap().ends_with(closed));
    // A device that asks by itself would flash as well.
    device.ask(0);
    assert!(device.error().await.contains(closed));
    // It opens by the clock alone.
    clock(&site, OPEN);
    device.manifest().await;
    assert_eq!(site.service.status().window_closed, None);
    device.ask(0);
    device.block().await;
    clock(&site, "2026-11-28T03:00:00Z");
    assert_eq!(device.download(1, 3).await, [1; 150]);
    assert_eq!(site.count(1, "downloaded"), 1);
    // To be held back is no failure (rule 20).
    let mut late = site.listening("dev-2").await;
    late.nothing();
    assert!(site.service.why("dev-2").unwrap().sentence.contains("until Mon 2026-11-30 22:00 CET"));
    assert_eq!(site.count(1, "failed") + site.count(1, "silent"), 0);
}

#[tokio::test]
async fn rule_23_who_has_not_begun_when_it_closes_waits_for_the_next_one() {
    let site = Site::with(|settings| {
        nights(settings);
        settings.resume_grace = std::time::Duration::ZERO;
        settings.confirm_within = std::time::Duration::from_millis(30);
    })
    .await;
    clock(&site, OPEN);
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.end();
    clock(&site, CLOSED);
    let site = {
        site.until_written("dev-1", "offered").await;
        let site = site.crash().await;
        clock(&site, CLOSED);
        site
    };
    // It stays away for long, which says nothing while it is not to come.
    tokio::time::timeout(
        std::time::Duration::from_millis(200),
        site.until("silence", |site| site.count(1, "silent") > 0),
    )
    .await
    .expect_err("it counts as silent");
    let mut device = site.listening("dev-1").await;
    device.nothing();
    let why = site.service.why("dev-1").unwrap().sentence;
    assert!(why.contains("has not begun: its maintenance window"), "{why}");
    clock(&site, OPEN);
    device.manifest().await;
    assert_eq!(site.service.device("dev-1").unwrap().firmware.unwrap().attempt, 1);
}

#[tokio::test]
async fn rule_23_a_deployment_has_windows_of_its_own_instead_of_the_sites() {
    let site = Site::with(nights).await;
    clock(&site, CLOSED);
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let create = async |windows: &str, target: &str| {
        let mut new = deployment(&firmware, target, r#""all""#);
        new.windows = Some(serde_json::from_str(windows).unwrap());
        site.service.create_deployment(new, None, &ann()).await
    };
    let wrong = create(r#"["whenever"]"#, r#"{"all":true}"#).await.unwrap_err().to_string();
    assert!(wrong.starts_with("windows: \"whenever\" is no maintenance window"), "{wrong}");
    create("[]", r#"{"device":"dev-1"}"#).await.unwrap();
    create(r#"["fri 13:00-14:00 Europe/Berlin"]"#, r#"{"group":"early"}"#).await.unwrap();
    let (mut urgent, mut early) = (site.listening("dev-1").await, site.listening("dev-2").await);
    let patch = DevicePatch { groups: Some(vec!["early".into()]), ..DevicePatch::default() };
    site.service.set_device("dev-2", patch, &ann()).await.unwrap();
    // At any time; from 13:00, which it is; and a window that is empty is none.
    urgent.manifest().await;
    early.manifest().await;
    // They are known after a restart.
    let site = site.restart(|_| {}).await;
    let views = site.service.deployments(None, None, 10);
    assert_eq!(
        serde_json::to_value(&views[0].windows).unwrap()[0],
        "fri 13:00-14:00 Europe/Berlin"
    );
    assert_eq!(views[1].windows, Some(Windows::default()));
}

#[tokio::test]
async fn rule_23_a_clock_that_was_not_set_keeps_windows_closed_and_the_status_says_so() {
    let site = Site::with(|settings| {
        settings.windows = Windows::parse(&["00:00-24:00 UTC"]).unwrap();
    })
    .await;
    site.service.0.wall.set(3600);
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    device.nothing();
    let status = site.service.status();
    let shows = "the server's clock shows 1970-01-01T01:00:00Z";
    assert!(status.clock_problem.unwrap().contains(shows));
    assert!(status.window_closed.unwrap().contains(shows));
    assert!(site.service.why("dev-1").unwrap().sentence.contains(shows));
    clock(&site, OPEN);
    device.manifest().await;
    assert_eq!(site.service.status().clock_problem, None);
}
