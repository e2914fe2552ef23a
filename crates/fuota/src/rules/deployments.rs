//! What operators do with deployments (rules 6, 10 to 13 and 22).

use crate::{
    Act, Actor, DevicePatch, FirmwareState, ListenFrom, ServiceError, Settings,
    harness::{Session, Site, ann, deployment},
    settings::OnExisting,
};

const ALL: &str = r#"{"all":true}"#;

fn report(version: &str) -> String {
    format!(r#"{{"variable":"firmware_status","metadata":{{"version":"{version}"}}}}"#)
}

fn conflict<T: std::fmt::Debug>(result: Result<T, ServiceError>) -> String {
    match result {
        Err(ServiceError::Conflict(why)) => why,
        other => panic!("no conflict: {other:?}"),
    }
}

#[tokio::test]
async fn rule_11_an_upload_reaches_nobody_before_its_deployment() {
    let site = Site::start().await;
    let mut device = site.listening("dev-1").await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    assert_eq!(site.upload("pump-1.0.0.bin", &[1; 250]).await, firmware, "the same is the same");
    device.nothing();
    let id = site.deploy(&firmware, ALL, r#""all""#).await;
    assert_eq!(device.manifest().await["version"], "1.0.0");
    assert_eq!(device.download(0, 3).await, [1; 250]);
    assert_eq!(site.count(id, "downloaded"), 1);
    site.until_written("dev-1", "downloaded").await;
    // Devices that join later are meant too, also after a crash.
    let site = site.crash().await;
    let mut later = site.listening("dev-2").await;
    assert_eq!(later.manifest().await["version"], "1.0.0");
    let view = site.service.deployment(id).unwrap();
    assert_eq!((view.counts["offered"], view.counts["downloaded"]), (1, 1));
    assert_eq!((&*view.created_by, view.complete), ("ann", Some(false)));
}

#[tokio::test]
async fn rule_10_an_upload_of_other_bytes_under_one_version_is_a_conflict() {
    let site = Site::start().await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let upload = crate::Upload { file_name: "pump-1.0.0.bin".into(), ..Default::default() };
    let other = futures_util::stream::iter([Ok(bytes::Bytes::from_static(&[2; 250]))]);
    let other = site.service.take_upload(other).await.unwrap();
    let refused = conflict(site.service.add_firmware(upload, other, None, &ann()).await);
    assert!(refused.contains("pump-1.0.0.bin already is pump 1.0.0"), "{refused}");
    assert_eq!(site.service.firmware().len(), 1);
}

#[tokio::test]
async fn a_deployment_is_for_a_label_expression_and_for_who_comes_to_it_later() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let id = site.deploy(&firmware, r#"{"labels":"hall=2 and not spare"}"#, r#""all""#).await;
    let mut device = site.listening("dev-1").await;
    device.nothing();
    let labels = |labels: &[(&str, &str)]| DevicePatch {
        labels: Some(labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()),
        ..DevicePatch::default()
    };
    site.service
        .set_device("dev-1", labels(&[("hall", "2"), ("spare", "")]), &Actor::default())
        .await
        .unwrap();
    device.nothing();
    site.service.set_device("dev-1", labels(&[("hall", "2")]), &Actor::default()).await.unwrap();
    device.manifest().await;
    assert_eq!(site.count(id, "offered"), 1);
}

#[tokio::test]
async fn a_request_with_a_key_may_be_repeated() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let key = || Some("job-17".to_owned());
    let new = || deployment(&firmware, ALL, r#""canary""#);
    let (first, is_new) = site.service.create_deployment(new(), key(), &ann()).await.unwrap();
    assert!(is_new);
    let site = site.crash().await;
    let (again, is_new) = site.service.create_deployment(new(), key(), &ann()).await.unwrap();
    assert_eq!((again.id, is_new), (first.id.clone(), false));
    let other = deployment(&firmware, ALL, r#""all""#);
    let refused = conflict(site.service.create_deployment(other, key(), &ann()).await);
    assert!(refused.contains("another request"), "{refused}");
    let twin = conflict(site.service.create_deployment(new(), None, &ann()).await);
    assert!(twin.contains(&format!("deployment {} does this already", first.id)), "{twin}");
}

#[tokio::test]
async fn a_repeated_request_is_not_answered_before_the_first_is_written() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let operator = ann();
    let make = || {
        let new = deployment(&firmware, ALL, r#""all""#);
        site.service.create_deployment(new, Some("job-17".into()), &operator)
    };
    site.forbid_writing(&["deployment"]);
    let (first, second) = tokio::join!(make(), make());
    for refused in [first, second] {
        assert!(matches!(refused, Err(ServiceError::Unavailable(_))), "{refused:?}");
    }
    site.allow_writing();
    site.until_all_is_written().await;
    assert!(make().await.unwrap().1, "nothing was made before");
    assert_eq!(site.crash().await.service.deployments(None, None, 9).len(), 1);
}

#[tokio::test]
async fn what_cannot_be_deployed_says_why() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    for (firmware, target, rollout, why) in [
        ("nothing", ALL, r#""all""#, "there is no firmware \"nothing\""),
        (&*firmware, r#"{"labels":"a="}"#, r#""all""#, "ends where a value"),
        (&*firmware, "{}", r#""all""#, "exactly one"),
        (&*firmware, ALL, r#"{"waves":[{"count":1}]}"#, "last wave"),
    ] {
        let new = deployment(firmware, target, rollout);
        let error = site.service.create_deployment(new, None, &ann()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    // Rule 8: two models are known.
    for (id, model) in [("dev-1", "m1"), ("dev-2", "m2")] {
        site.listening(id).await;
        let patch = DevicePatch { model: Some(model.into()), ..DevicePatch::default() };
        site.service.set_device(id, patch, &Actor::default()).await.unwrap();
    }
    let new = deployment(&firmware, ALL, r#""all""#);
    let error = site.service.create_deployment(new, None, &ann()).await.unwrap_err();
    assert!(error.to_string().contains("which model?"), "{error}");
    site.deploy(&firmware, r#"{"model":"m1"}"#, r#""all""#).await;
}

#[tokio::test]
async fn rule_10_cancelling_stops_at_once_and_says_so() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let id = site.deploy(&firmware, ALL, r#""all""#).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.download(0, 2).await;
    site.act(id, Act::Cancel).await;
    assert_eq!(site.count(id, "cancelled"), 1);
    site.until_written("dev-1", "cancelled").await;
    device.ask(2);
    assert!(device.error().await.contains("cancelled by an operator"));
    device.nothing();
    let site = site.crash().await;
    let mut device = site.listening("dev-1").await;
    device.ask(2);
    assert!(device.error().await.contains("cancelled by an operator"));
    assert_eq!(site.service.device("dev-1").unwrap().state.as_deref(), Some("cancelled"));
    let again = site.service.act_on_deployment(id, Act::Resume, None, &ann()).await;
    assert!(conflict(again).contains("it is over"));
}

#[tokio::test]
async fn rule_10_withdrawn_firmware_is_gone_for_good() {
    let site = Site::start().await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.download(0, 1).await;
    site.service.withdraw_firmware(&site.firmware_id("pump-1.0.0.bin"), &ann()).await.unwrap();
    device.ask(1);
    assert!(device.error().await.contains("cancelled"));
    // Neither a restart nor a move to another folder brings the bytes back.
    let site = site.crash().await;
    site.drop_file("all/pump-1.0.0.bin", &[1; 250]).await;
    let mut other = site.listening("dev-2").await;
    other.nothing();
    other.ask(0);
    assert!(other.error().await.contains("no firmware"));
    let views = site.service.firmware();
    assert!(views.iter().all(|view| view.state == crate::FirmwareState::Withdrawn), "{views:?}");
    let new = deployment(&site.firmware_id("all/pump-1.0.0.bin"), ALL, r#""all""#);
    let refused = conflict(site.service.create_deployment(new, None, &ann()).await);
    assert!(refused.contains("ann withdrew"), "{refused}");
}

#[tokio::test]
async fn a_paused_deployment_begins_nothing_and_finishes_what_runs() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let id = site.deploy(&firmware, ALL, r#""all""#).await;
    let mut running = site.listening("dev-1").await;
    running.manifest().await;
    running.download(0, 1).await;
    let mut offered = site.listening("dev-2").await;
    offered.manifest().await;
    offered.end();
    site.act(id, Act::Pause).await;
    assert_eq!(running.download(1, 3).await.len(), 150);
    let mut offered = site.listening("dev-2").await;
    let mut new = site.listening("dev-3").await;
    new.nothing();
    let why = site.service.why("dev-3").unwrap().sentence;
    assert!(why.contains("paused by ann"), "{why}");
    let site = {
        // It stays so after a crash.
        offered.nothing();
        offered.end();
        new.end();
        site.crash().await
    };
    let mut new = site.listening("dev-3").await;
    new.nothing();
    site.act(id, Act::Resume).await;
    assert_eq!(new.manifest().await["version"], "1.0.0");
}

#[tokio::test]
async fn rule_22_a_frozen_site_offers_nothing_until_it_thaws() {
    let site = Site::start().await;
    site.service.freeze(true, &ann()).await.unwrap();
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    device.nothing();
    device.ask(0);
    assert!(device.error().await.contains("ann froze all offers"));
    device.end();
    let site = site.crash().await;
    let mut device = site.listening("dev-1").await;
    device.nothing();
    assert!(site.service.frozen().frozen);
    site.service.freeze(false, &ann()).await.unwrap();
    device.manifest().await;
}

#[tokio::test]
async fn rule_6_what_is_there_at_the_very_first_start_may_be_held() {
    let hold = |settings: &mut Settings| settings.on_existing = Some(OnExisting::Hold);
    let site = Site::with_files(&[("pump-2.0.0.bin", &[1; 250])], hold).await;
    let mut device = site.listening("dev-1").await;
    device.nothing();
    let view = site.service.firmware().remove(0);
    let id: i64 = view.deployments[0].parse().unwrap();
    let command = format!("`fuotad deployment approve {id}`");
    assert!(view.reason.unwrap().contains(&command));
    assert_eq!(view.state, crate::FirmwareState::Held);
    // A second start is not the first.
    let site = site.crash().await;
    assert_eq!(site.service.deployment(id).unwrap().state, "held");
    site.drop_file("other-1.0.0.bin", &[2; 250]).await;
    let mut device = site.listening("dev-1").await;
    assert_eq!(device.manifest().await["total_size"], 250);
    assert_eq!(device.download(0, 3).await, [2; 250]);
    site.act(id, Act::Approve).await;
    assert_eq!(device.manifest().await["version"], "2.0.0");
    assert_eq!(device.download(0, 3).await, [1; 250]);
}

#[tokio::test]
async fn on_drop_catalog_waits_for_an_operator() {
    let site = Site::with(|settings| settings.deploy_drops = false).await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let mut device = site.listening("dev-1").await;
    device.nothing();
    let view = site.service.firmware().remove(0);
    assert_eq!(view.state, crate::FirmwareState::Catalogued);
    let id = site.deploy(&view.id, ALL, r#""all""#).await;
    device.manifest().await;
    // Deleting the file ends the deployment as it ends that of a drop.
    site.remove_file("pump-1.0.0.bin").await;
    assert_eq!(site.service.deployment(id).unwrap().state, "ended");
    assert_eq!(device.download(0, 3).await, [1; 250], "and what runs finishes");
}

#[tokio::test]
async fn rule_13_a_retry_offers_again_what_failed() {
    let site = Site::with(|settings| settings.max_attempts = 1).await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let id = site.deploy(&firmware, ALL, r#""all""#).await;
    let mut device = site.listening("dev-1").await;
    device.manifest().await;
    device.publish(r#"{"variable":"firmware_status","value":"failed"}"#);
    site.until_state("dev-1", "failed").await;
    device.ask(0);
    assert!(device.error().await.contains("1 times without success"));
    assert_eq!(site.act(id, Act::Retry).await.retried, Some(1));
    device.manifest().await;
    assert_eq!(device.download(0, 3).await, [1; 250]);
    assert_eq!(site.act(id, Act::Retry).await.retried, Some(0), "nothing failed any more");
    let one = site.service.act_on_deployment(id, Act::Retry, Some("dev-9"), &ann()).await;
    assert!(conflict(one).contains("nothing failed or was cancelled for dev-9"));
}

/// Gives the device an image and lets it report the version after a restart.
async fn update(site: &Site, id: &str, version: &str) -> Session {
    let mut device = site.listening(id).await;
    let manifest = device.manifest().await;
    assert_eq!(manifest["version"], version);
    device.download(0, manifest["total_chunks"].as_u64().unwrap() as u32).await;
    device.end();
    let mut device = site.listening(id).await;
    device.publish(report(version));
    site.until_state(id, "updated").await;
    device
}

#[tokio::test]
async fn rule_22_a_rollback_gives_back_what_each_had_and_lists_who_had_nothing() {
    let site = Site::start().await;
    let one = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let two = site.upload("pump-2.0.0.bin", &[2; 250]).await;
    site.deploy(&one, r#"{"device":"dev-1"}"#, r#""all""#).await;
    site.deploy(&one, r#"{"device":"dev-2"}"#, r#""all""#).await;
    for id in ["dev-1", "dev-2"] {
        update(&site, id, "1.0.0").await.end();
    }
    // The deployments to single devices go before that to all, so they end first.
    for id in [1, 2] {
        site.act(id, Act::Cancel).await;
    }
    let bad = site.deploy(&two, ALL, r#""all""#).await;
    let before = conflict(site.service.act_on_deployment(bad, Act::Approve, None, &ann()).await);
    assert!(before.contains("nothing to approve"), "{before}");
    let mut devices = Vec::new();
    for id in ["dev-1", "dev-2", "new-3"] {
        devices.push(update(&site, id, "2.0.0").await);
    }
    let mut untouched = site.listening("new-4").await;
    untouched.manifest().await;

    let acted = site.act(bad, Act::Rollback).await;
    assert_eq!(acted.deployment.state, "cancelled");
    let left: Vec<_> = acted.left.unwrap().into_iter().map(|one| one.device).collect();
    assert_eq!(left, ["new-3"], "it ran nothing of ours before");
    let back: i64 = acted.rollbacks.unwrap()[0].parse().unwrap();
    // The canary first: one of the two, and only then the other.
    let manifest = devices[0].manifest().await;
    assert_eq!(manifest["version"], "1.0.0");
    devices[1].nothing();
    assert_eq!(devices[0].download(0, 3).await, [1; 250]);
    devices[1].nothing();
    devices[0].publish(report("1.0.0"));
    assert_eq!(devices[1].manifest().await["version"], "1.0.0");
    assert_eq!(devices[1].download(0, 3).await, [1; 250]);
    devices[1].publish(report("1.0.0"));
    site.until("both are back", |site| site.count(back, "updated") == 2).await;
    for device in &mut devices {
        device.nothing();
    }
    untouched.ask(0);
    assert!(untouched.error().await.contains("cancelled"), "what it was offered is gone");
    let again = conflict(site.service.act_on_deployment(bad, Act::Rollback, None, &ann()).await);
    assert!(again.contains("rolled back already"), "{again}");
    // Rule 12: what is newer than both goes on.
    let site = site.crash().await;
    site.drop_file("pump-3.0.0.bin", &[3; 250]).await;
    let mut device = site.listening("dev-1").await;
    assert_eq!(device.manifest().await["version"], "3.0.0");
}

#[tokio::test]
async fn rule_10_what_a_rollback_could_give_out_is_listed_and_can_be_withdrawn() {
    let site = Site::start().await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    update(&site, "dev-1", "1.0.0").await.end();
    // The file goes in one of two ways.
    site.drop_file("pump-1.0.0.bin", &[3; 250]).await;
    let digest = store::Digest::of(&[1; 250]).to_string();
    let shown = |site: &Site| {
        let views = site.service.firmware();
        views.into_iter().find(|view| view.digest.as_deref() == Some(&*digest)).unwrap()
    };
    assert_eq!(shown(&site).state, FirmwareState::Replaced);
    site.remove_file("pump-1.0.0.bin").await;
    site.drop_file("pump-2.0.0.bin", &[2; 250]).await;
    update(&site, "dev-1", "2.0.0").await.end();
    let site = site.crash().await;
    assert_eq!(shown(&site).state, FirmwareState::Replaced);
    let file = site.dir.path().join("firmware/pump-1.0.0.bin");
    assert!(!file.with_extension("bin.status.json").exists());
    let nobody = site.service.withdraw_firmware(&"0".repeat(64), &ann()).await;
    assert!(matches!(nobody, Err(ServiceError::NotFound(_))), "{nobody:?}");
    // By its digest and by its id.
    site.service.withdraw_firmware(&digest, &ann()).await.unwrap();
    site.service.withdraw_firmware(&shown(&site).id, &ann()).await.unwrap();
    assert_eq!(shown(&site).state, FirmwareState::Withdrawn);
    let bad = site.service.deployments(None, None, 9).into_iter().map(|one| one.id);
    let bad = bad.map(|id| id.parse().unwrap()).max().unwrap();
    let acted = site.act(bad, Act::Rollback).await;
    assert!(acted.rollbacks.unwrap().is_empty());
    assert!(acted.left.unwrap()[0].reason.contains("withdrawn"));
}

#[tokio::test]
async fn rule_22_the_copy_that_a_rollback_gives_is_kept_while_it_runs() {
    let site = Site::start().await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    update(&site, "dev-1", "1.0.0").await.end();
    site.drop_file("pump-2.0.0.bin", &[2; 250]).await;
    update(&site, "dev-1", "2.0.0").await.end();
    site.act(2, Act::Rollback).await;
    site.remove_file("pump-1.0.0.bin").await;
    // Before it goes back it is given another title, which asks for another copy to be kept.
    site.drop_file("devices/dev-1/boot-9.0.0.bin", &[8; 250]).await;
    let mut device = site.listening("dev-1").await;
    let version = device.manifest().await["version"].clone();
    assert_eq!(version, "9.0.0");
    device.download(0, 3).await;
    device.end();
    let mut device = site.listening("dev-1").await;
    device.publish(report("9.0.0"));
    site.until_state("dev-1", "updated").await;
    let needed = site.service.0.needed_images();
    assert!(needed.contains(&store::Digest::of(&[1; 250])));
}

#[tokio::test]
async fn rule_22_a_rollback_leaves_devices_that_have_moved_on() {
    let site = Site::start().await;
    let [one, bad, fix] = ["1.0.0", "1.1.0", "1.2.0"].map(|version| version.to_owned());
    site.drop_file(&format!("pump-{one}.bin"), &[1; 250]).await;
    for id in ["dev-1", "dev-2", "dev-3"] {
        update(&site, id, &one).await.end();
    }
    site.drop_file(&format!("pump-{bad}.bin"), &[2; 250]).await;
    for id in ["dev-1", "dev-2", "dev-3"] {
        update(&site, id, &bad).await.end();
    }
    for id in ["dev-1", "dev-2"] {
        site.drop_file(&format!("devices/{id}/pump-{fix}.bin"), &[3; 250]).await;
    }
    let mut fixed = update(&site, "dev-1", &fix).await;
    let mut fixing = site.listening("dev-2").await;
    assert_eq!(fixing.manifest().await["version"], fix);
    let acted = site.act(2, Act::Rollback).await;
    let left: Vec<_> =
        acted.left.unwrap().into_iter().map(|one| (one.device, one.reason)).collect();
    let since = |id: &str| (id.to_owned(), format!("it was given {fix} since"));
    assert_eq!(left, [since("dev-1"), since("dev-2")]);
    // Only the one that still runs it goes back.
    let mut still = site.listening("dev-3").await;
    assert_eq!(still.manifest().await["version"], one);
    still.download(0, 3).await;
    still.publish(report(&one));
    fixing.download(0, 3).await;
    fixing.publish(report(&fix));
    site.until_state("dev-2", "updated").await;
    site.service.0.db.commit(Vec::new()).await.unwrap();
    for device in [&mut fixed, &mut fixing] {
        device.nothing();
    }
}

#[tokio::test]
async fn rule_22_a_device_whose_last_block_was_on_its_way_goes_back_too() {
    let site = Site::start().await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let mut first = update(&site, "dev-1", "1.0.0").await;
    let second = update(&site, "dev-2", "1.0.0").await;
    // Another one ran something else before.
    site.drop_file("devices/dev-3/pump-0.9.0.bin", &[8; 250]).await;
    let third = update(&site, "dev-3", "0.9.0").await;
    site.remove_file("devices/dev-3/pump-0.9.0.bin").await;
    site.drop_file("pump-2.0.0.bin", &[2; 250]).await;
    let bad = 3;
    assert_eq!(first.manifest().await["version"], "2.0.0");
    first.download(0, 3).await;
    first.publish(report("2.0.0"));
    let mut late = Vec::new();
    for mut device in [second, third] {
        assert_eq!(device.manifest().await["version"], "2.0.0");
        device.download(0, 2).await;
        device.ask(2);
        late.push((device.unwritten().await, device));
    }
    let acted = site.act(bad, Act::Rollback).await;
    assert_eq!(acted.rollbacks.unwrap().len(), 1, "of them, one has it by now");
    let mut restarted = Vec::new();
    for (message, device) in late {
        let (receipt, tag) = message.receipt.unwrap();
        receipt.written(tag);
        let id = device.client.id.clone();
        device.end();
        let mut device = site.listening(&id).await;
        device.publish(report("2.0.0"));
        restarted.push(device);
    }
    let [second, third] = &mut restarted[..] else { unreachable!() };
    assert_eq!(third.manifest().await["version"], "0.9.0", "a canary of its own");
    // The other goes after the canary, on the same list.
    assert_eq!(first.manifest().await["version"], "1.0.0");
    first.download(0, 3).await;
    second.nothing();
    site.until_written("dev-3", "offered").await;
    drop(restarted);
    let site = site.crash().await;
    first = site.listening("dev-1").await;
    first.publish(report("1.0.0"));
    let mut second = site.listening("dev-2").await;
    assert_eq!(second.manifest().await["version"], "1.0.0");
}

#[tokio::test]
async fn rule_22_a_rollback_lists_whom_a_security_counter_keeps() {
    let site = Site::start().await;
    let fixture = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../store/tests/fixtures/formats/");
        std::fs::read(format!("{folder}{name}")).unwrap()
    };
    let one = site.upload("app.bin", &fixture("mcuboot.bin")).await;
    let two = site.upload("counted.bin", &fixture("mcuboot-counter.bin")).await;
    let first = site.deploy(&one, ALL, r#""all""#).await;
    update(&site, "dev-1", "1.2.3+4").await.end();
    site.act(first, Act::Cancel).await;
    let bad = site.deploy(&two, ALL, r#""all""#).await;
    let mut device = update(&site, "dev-1", "2.0.0").await;
    let acted = site.act(bad, Act::Rollback).await;
    let left = acted.left.unwrap();
    assert_eq!(left.len(), 1);
    assert!(left[0].reason.contains("security counter is 0"), "{}", left[0].reason);
    assert!(acted.rollbacks.unwrap().is_empty());
    device.nothing();
}

#[tokio::test]
async fn a_plan_says_who_would_get_it_and_who_not() {
    let site = Site::start().await;
    site.drop_file("devices/dev-1/pump-1.0.0.bin", &[1; 250]).await;
    drop(update(&site, "dev-1", "1.0.0").await);
    let mut other = site.listening("dev-2").await;
    other.publish(report("9.0.0"));
    site.listening("dev-3").await;
    let two = site.upload("pump-2.0.0.bin", &[2; 250]).await;
    let plan = site.service.plan_deployment(&deployment(&two, ALL, r#""canary""#)).unwrap();
    assert_eq!(plan.devices, ["dev-3"]);
    let reasons: Vec<_> = plan.excluded.iter().map(|one| (&*one.device, &*one.reason)).collect();
    assert_eq!(reasons.len(), 2);
    assert!(reasons[0].0 == "dev-1" && reasons[0].1.contains("it runs"), "{reasons:?}");
    assert!(reasons[1].1.contains("higher than"), "{reasons:?}");
    assert_eq!((plan.bytes, &plan.waves[..]), (250, &[1, 1, 1][..]));
    assert!(plan.seconds.is_some(), "one transfer was measured");
    assert!(site.service.deployments(None, None, 9).iter().all(|one| one.firmware.id != two));
}

#[tokio::test]
async fn whoever_listens_hears_of_every_change() {
    let site = Site::start().await;
    let mut listener = site.service.listen(ListenFrom::Now);
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let id = site.deploy(&firmware, ALL, r#""all""#).await;
    drop(update(&site, "dev-1", "1.0.0").await);
    site.act(id, Act::Cancel).await;
    site.service.freeze(true, &ann()).await.unwrap();
    let mut heard = Vec::new();
    loop {
        let change = serde_json::to_value(listener.next().await.unwrap()).unwrap();
        let text = |name: &str| change[name].as_str().unwrap_or_default().to_owned();
        if change["type"] == "known" {
            heard.push(format!("known {}", text("what")));
            continue;
        }
        heard.push(format!("{} {}", text("type"), text("state")));
        if change["frozen"] == true {
            break;
        }
    }
    let expected = [
        "firmware catalogued",
        "deployment running",
        "firmware accepted",
        "known online",
        "device offered",
        "device downloading",
        "device downloaded",
        "known offline",
        "known online",
        "device updated",
        "deployment cancelled",
        "firmware catalogued",
        "site ",
    ];
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn what_happened_is_told_per_device_and_per_act() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let id = site.deploy(&firmware, ALL, r#""all""#).await;
    drop(update(&site, "dev-1", "1.0.0").await);
    site.act(id, Act::Cancel).await;
    let lines = site.service.timeline("dev-1", None, 10).await.unwrap();
    let actions: Vec<_> = lines.iter().rev().map(|line| &*line.action).collect();
    assert_eq!(actions, ["offered", "downloaded", "updated"]);
    assert!(lines.iter().all(|line| line.deployment == Some(id.to_string())));
    let audit = site.service.audit(None, 10).await.unwrap();
    let acts: Vec<_> = audit
        .iter()
        .rev()
        .filter(|line| line.actor.is_some())
        .map(|line| (&*line.action, line.actor.as_deref(), line.origin.as_deref()))
        .collect();
    let by_ann = |action| (action, Some("ann"), Some("192.0.2.1"));
    assert_eq!(acts, [by_ann("uploaded"), by_ann("created"), by_ann("cancel")]);
}

#[tokio::test]
async fn a_deployment_that_is_over_is_forgotten_when_it_is_old_and_nothing_needs_it() {
    let site = Site::start().await;
    let first = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let second = site.upload("pump-2.0.0.bin", &[2; 250]).await;
    let over = site.deploy(&first, r#"{"device":"dev-1"}"#, r#""all""#).await;
    site.act(over, Act::Cancel).await;
    let runs = site.deploy(&second, ALL, r#""all""#).await;
    let keeps_out = site.deploy(&first, r#"{"device":"dev-2"}"#, r#""all""#).await;
    site.act(keeps_out, Act::Cancel).await;
    let engine = &site.service.0;
    assert!(engine.fleet.lock().forget(1_000_000_000).is_empty(), "they are not that old");
    let ops = engine.fleet.lock().forget(u64::MAX);
    engine.db.commit(ops).await.unwrap();
    assert!(site.service.deployment(over).is_none());
    assert!(site.service.deployment(runs).is_some());
    assert!(site.service.deployment(keeps_out).is_some(), "an older one runs");
    let site = site.crash().await;
    assert!(site.service.deployment(over).is_none() && site.service.deployment(runs).is_some());
}
