//! What comes back as it was: a file that is refused or unreadable for a while keeps its
//! deployments and what operators said of them (rules 6, 10 and 12).

use std::{fs, path::Path};

use crate::{
    Act, FirmwareState, FirmwareView, Settings,
    harness::{Site, ann},
    settings::OnExisting,
};

fn view(site: &Site, path: &str) -> FirmwareView {
    site.service.firmware().into_iter().find(|view| view.path == path).unwrap()
}

/// Puts something into the watched directory and waits until the catalog shows what came of it.
async fn put(site: &Site, path: &str, text: &str, of: &str, state: FirmwareState) {
    fs::write(site.dir.path().join("firmware").join(path), text).unwrap();
    site.store.rescan();
    site.until(path, |site| view(site, of).state == state).await;
}

const FILE: &str = "pump-2.0.0.bin";
const SIDECAR: &str = "pump-2.0.0.bin.toml";

async fn break_it(site: &Site) {
    put(site, SIDECAR, "colour = \"red\"\n", FILE, FirmwareState::Refused).await;
}

#[tokio::test]
async fn rule_12_what_is_refused_for_a_while_brings_no_older_one_back_and_waits() {
    let site = Site::start().await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    site.drop_file(FILE, &[2; 250]).await;
    let mut offered = site.listening("dev-1").await;
    assert_eq!(offered.manifest().await["version"], "2.0.0");
    let mut busy = site.listening("dev-2").await;
    busy.manifest().await;
    busy.download(0, 1).await;

    break_it(&site).await;
    assert_eq!(site.service.deployment(2).unwrap().state, "running");
    let why = site.service.deployment(2).unwrap().reason.unwrap();
    assert!(why.contains("colour"), "{why}");
    let mut late = site.listening("dev-3").await;
    late.ask(0);
    let error = late.error().await;
    assert!(error.contains("colour"), "{error}");
    // What was offered and has not begun waits, what runs goes on.
    offered.ask(0);
    let error = offered.error().await;
    assert!(error.contains("refused"), "{error}");
    assert_eq!(busy.download(1, 3).await, [2; 150]);

    put(&site, SIDECAR, "notes = \"quieter\"\n", FILE, FirmwareState::Accepted).await;
    assert_eq!(late.manifest().await["version"], "2.0.0");
    assert_eq!(offered.manifest().await["version"], "2.0.0");
    assert_eq!(site.service.deployments(None, None, 9).len(), 2);
}

#[tokio::test]
async fn rule_6_what_an_operator_stopped_stays_stopped_when_its_file_comes_back() {
    for (act, state, then) in [
        (Act::Pause, "paused", FirmwareState::Accepted),
        (Act::Cancel, "cancelled", FirmwareState::Catalogued),
    ] {
        let site = Site::start().await;
        site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
        site.drop_file(FILE, &[2; 250]).await;
        site.act(2, act).await;
        break_it(&site).await;
        // Also over a restart.
        let site = site.crash().await;
        assert_eq!(view(&site, FILE).state, FirmwareState::Refused);
        put(&site, SIDECAR, "notes = \"quieter\"\n", FILE, then).await;
        assert_eq!(site.service.deployments(None, None, 9).len(), 2, "{state}");
        assert_eq!(site.service.deployment(2).unwrap().state, state);
        site.listening("dev-1").await.nothing();
    }
}

#[tokio::test]
async fn rule_10_deleting_what_is_refused_ends_its_deployment() {
    let site = Site::start().await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    site.drop_file(FILE, &[2; 250]).await;
    break_it(&site).await;
    site.remove_file(FILE).await;
    assert_eq!(site.service.deployment(2).unwrap().state, "ended");
    site.listening("dev-1").await.nothing();
}

#[tokio::test]
async fn rule_10_overwriting_through_a_refusal_is_overwriting() {
    let site = Site::start().await;
    site.drop_file(FILE, &[1; 250]).await;
    let mut busy = site.listening("dev-1").await;
    busy.manifest().await;
    busy.download(0, 1).await;
    put(&site, FILE, "", FILE, FirmwareState::Refused).await;
    site.drop_file(FILE, &[2; 250]).await;
    assert_eq!(site.service.deployment(1).unwrap().state, "ended");
    let of_it: Vec<_> = site.service.firmware().into_iter().map(|view| view.state).collect();
    assert_eq!(of_it, [FirmwareState::Replaced, FirmwareState::Accepted]);
    let warning = view_of(&site, &[2; 250]).reason.unwrap();
    assert!(warning.contains("still names version 2.0.0"), "{warning}");
    // The device that runs hears of the new bytes at its next request (rule 15).
    busy.ask(1);
    busy.manifest().await;
    assert_eq!(busy.download(0, 3).await, [2; 250]);
}

fn view_of(site: &Site, bytes: &[u8]) -> FirmwareView {
    let digest = Some(store::Digest::of(bytes).to_string());
    site.service.firmware().into_iter().find(|view| view.digest == digest).unwrap()
}

#[tokio::test]
async fn rule_6_a_lost_copy_that_cannot_be_made_now_changes_nothing() {
    let site = Site::start().await;
    site.drop_file(FILE, &[2; 250]).await;
    site.act(1, Act::Pause).await;
    let objects = site.dir.path().join("data/objects");
    fs::remove_dir_all(objects.join("sha256")).unwrap();
    fs::remove_dir(objects.join("incoming")).unwrap();
    site.store.rescan();
    site.until("the trouble is shown", |site| !view(site, FILE).warnings.is_empty()).await;
    let shown = view(&site, FILE);
    assert_eq!(shown.state, FirmwareState::Accepted);
    assert!(shown.reason.unwrap().contains("data_dir"), "{:?}", shown.warnings);
    assert_eq!(site.service.firmware_store().troubled, 1);
    fs::create_dir(objects.join("incoming")).unwrap();
    site.until("the copy is there", |site| view(site, FILE).warnings.is_empty()).await;
    assert_eq!(site.service.deployment(1).unwrap().state, "paused");
    site.service.act_on_deployment(1, Act::Resume, None, &ann()).await.unwrap();
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    assert_eq!(device.download(0, 3).await, [2; 250]);
}

#[tokio::test]
async fn rule_6_a_place_that_is_empty_for_good_is_left_by_withdrawing() {
    let site = Site::start().await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    site.drop_file("devices/dev-2/pump-2.0.0.bin", &[2; 250]).await;
    let firmware = site.upload("pump-9.0.0.bin", &[8; 250]).await;
    let empty = |root: &Path| {
        fs::remove_file(root.join("pump-1.0.0.bin")).unwrap();
        fs::remove_file(root.join("devices/dev-2/pump-2.0.0.bin")).unwrap();
    };
    let site = site.restart_after(empty).await;
    let problem = |site: &Site| site.service.status().store_problem;
    site.until("the store is unavailable", |site| problem(site).is_some()).await;
    assert!(problem(&site).unwrap().contains("withdraw them"));

    // Of an upload everything is known; of the others nobody knows what lies there by now.
    let mut device = site.listening("dev-1").await;
    let mut other = site.listening("dev-2").await;
    other.ask(0);
    assert!(other.error().await.contains("not read yet"));
    site.deploy(&firmware, r#"{"all":true}"#, r#""canary""#).await;
    assert_eq!(device.manifest().await["version"], "9.0.0");
    assert_eq!(device.download(0, 3).await, [8; 250]);
    other.nothing();

    for path in ["pump-1.0.0.bin", "devices/dev-2/pump-2.0.0.bin"] {
        assert!(!site.service.status().ready && problem(&site).is_some());
        site.service.withdraw_firmware(&site.firmware_id(path), &ann()).await.unwrap();
    }
    site.until("the store is there", |site| site.service.status().ready).await;
    assert_eq!(problem(&site), None);
    let paths: Vec<_> = site.service.firmware().into_iter().map(|view| view.path).collect();
    assert_eq!(paths, ["uploads/pump-9.0.0.bin"]);
    // For good.
    site.restart(|_| {}).await;
}

#[tokio::test]
async fn rule_6_what_is_withdrawn_while_nothing_can_be_read_is_not_missed_at_the_next_start() {
    let site = Site::start().await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let firmware = site.firmware_id("pump-1.0.0.bin");
    site.service.withdraw_firmware(&firmware, &ann()).await.unwrap();
    let empty = |root: &Path| fs::remove_file(root.join("pump-1.0.0.bin")).unwrap();
    let site = site.restart_after(empty).await;
    site.until("the first scan", |site| site.service.status().ready).await;
    assert!(site.service.firmware().is_empty());
}

#[tokio::test]
async fn rule_6_a_first_start_on_nothing_is_no_first_start() {
    let hold = |settings: &mut Settings| settings.on_existing = Some(OnExisting::Hold);
    let site = Site::with(hold).await;
    let fill = |root: &Path| {
        fs::write(root.join("pump-1.0.0.bin"), [1; 250]).unwrap();
        fs::write(root.join(FILE), [2; 250]).unwrap();
        fs::write(root.join(SIDECAR), "colour = \"red\"\n").unwrap();
    };
    let site = site.restart_after(fill).await;
    site.until("the first scan", |site| site.service.status().ready).await;
    assert_eq!(view(&site, "pump-1.0.0.bin").state, FirmwareState::Held);
    // It was there, whatever was wrong beside it.
    assert_eq!(view(&site, FILE).state, FirmwareState::Refused);
    put(&site, SIDECAR, "notes = \"quieter\"\n", FILE, FirmwareState::Held).await;
    site.drop_file("pump-3.0.0.bin", &[3; 250]).await;
    let mut device = site.listening("dev-1").await;
    assert_eq!(device.manifest().await["version"], "3.0.0");
    device.end();
    let late = |root: &Path| fs::write(root.join("pump-4.0.0.bin"), [4; 250]).unwrap();
    let site = site.restart_after(late).await;
    site.until("the first scan", |site| site.service.status().ready).await;
    assert_eq!(view(&site, "pump-4.0.0.bin").state, FirmwareState::Accepted);
}

/// The very first start goes on, and what it holds is no matter of a reload.
#[tokio::test]
async fn rule_6_what_was_there_is_held_whatever_is_configured_meanwhile() {
    let hold = |settings: &mut Settings| settings.on_existing = Some(OnExisting::Hold);
    let site = Site::with(hold).await;
    let fill = |root: &Path| {
        fs::write(root.join(FILE), [2; 250]).unwrap();
        fs::write(root.join(SIDECAR), "colour = \"red\"\n").unwrap();
    };
    let mut site = site.restart_after(fill).await;
    site.until("the first scan", |site| site.service.status().ready).await;
    assert_eq!(view(&site, FILE).state, FirmwareState::Refused);
    let deploy = |settings: &mut Settings| settings.on_existing = Some(OnExisting::Deploy);
    site.configure(deploy).await;
    put(&site, SIDECAR, "notes = \"quieter\"\n", FILE, FirmwareState::Held).await;
}

#[tokio::test]
async fn rule_6_what_is_dropped_into_an_empty_place_is_not_held() {
    let hold = |settings: &mut Settings| settings.on_existing = Some(OnExisting::Hold);
    let site = Site::with(hold).await;
    site.drop_file(FILE, &[2; 250]).await;
    let mut device = site.listening("dev-1").await;
    assert_eq!(device.manifest().await["version"], "2.0.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_that_was_asked_for_ends_when_the_catalog_knows_what_it_found() {
    let site = Site::start().await;
    for number in 1..=20 {
        let path = format!("pump-{number}.0.0.bin");
        fs::write(site.dir.path().join("firmware").join(&path), [number; 250]).unwrap();
        site.service.rescan().await.unwrap();
        assert_eq!(view(&site, &path).state, FirmwareState::Accepted);
    }
}
