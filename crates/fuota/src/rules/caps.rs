//! Caps on transfers, on new starts and on bytes a second (rules 17 and 20).

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    DevicePatch, Limits,
    harness::{Session, Site, ann, deployment},
};

fn offered(devices: &[Session]) -> Vec<usize> {
    (0..devices.len()).filter(|index| !devices[*index].is_empty()).collect()
}

async fn until_offered(site: &Site, devices: &[Session], number: usize) -> Vec<usize> {
    site.until("offers", |_| offered(devices).len() >= number).await;
    // Whoever else is offered something is offered it before this is done.
    site.service.0.db.commit(Vec::new()).await.unwrap();
    let offered = offered(devices);
    assert_eq!(offered.len(), number, "{offered:?}");
    offered
}

fn transfers(number: u32) -> Limits {
    Limits { transfers: Some(number), ..Limits::default() }
}

#[tokio::test]
async fn rule_20_so_many_transfers_at_once_and_the_next_when_one_has_ended() {
    let site = Site::with(|settings| settings.limits = transfers(2)).await;
    let mut devices = site.field(5).await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let first = until_offered(&site, &devices, 2).await;
    let waits = (0..5).find(|index| !first.contains(index)).unwrap();
    let why = site.service.why(&format!("dev-{waits}")).unwrap().sentence;
    assert!(why.contains("2 transfers are under way, and fuota.limits.transfers"), "{why}");
    devices[waits].ask(0);
    assert!(devices[waits].error().await.contains("2 transfers are under way"));
    // One has everything, the other goes away: two others begin.
    let [one, other] = first[..] else { panic!() };
    devices[one].manifest().await;
    devices[one].download(0, 3).await;
    until_offered(&site, &devices, 2).await;
    let gone = std::mem::replace(&mut devices[other], site.listening("another").await);
    gone.end();
    site.until("the next", |_| offered(&devices).len() == 2).await;
    // Who had begun goes on when it is back, whatever the cap says.
    let mut back = site.listening(&format!("dev-{other}")).await;
    back.manifest().await;
    back.ask(0);
    back.block().await;
    assert_eq!(site.count(1, "failed") + site.count(1, "silent"), 0);
    assert_eq!(site.count(1, "downloaded"), 1);
}

#[tokio::test]
async fn rule_20_caps_of_a_group_and_of_a_deployment() {
    let site = Site::with(|settings| {
        settings.group_limits.insert("hall-2".into(), transfers(1));
    })
    .await;
    let devices = site.field(4).await;
    for id in ["dev-0", "dev-1"] {
        let patch = DevicePatch { groups: Some(vec!["hall-2".into()]), ..DevicePatch::default() };
        site.service.set_device(id, patch, &ann()).await.unwrap();
    }
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let mut new = deployment(&firmware, r#"{"all":true}"#, r#""all""#);
    new.limits = transfers(2);
    site.service.create_deployment(new, None, &ann()).await.unwrap();
    let begun = until_offered(&site, &devices, 2).await;
    let sentences: Vec<String> = (0..4)
        .filter(|index| !begun.contains(index))
        .map(|index| site.service.why(&format!("dev-{index}")).unwrap().sentence)
        .collect();
    assert!(
        sentences
            .iter()
            .all(|why| why.contains("in group hall-2") || why.contains("deployment 1 are")),
        "{sentences:?}"
    );
    // Without the deployment's own, the group's is left.
    let site = {
        drop(devices);
        site.restart(|settings| settings.limits = Limits::default()).await
    };
    assert_eq!(site.service.deployments(None, None, 1)[0].limits, transfers(2), "it is stored");
    let mut zero = deployment(&firmware, r#"{"device":"dev-3"}"#, r#""all""#);
    zero.limits = transfers(0);
    let refused = site.service.create_deployment(zero, None, &ann()).await.unwrap_err();
    assert!(refused.to_string().starts_with("limits: transfers is 0"), "{refused}");
}

#[tokio::test]
async fn rule_20_a_group_with_its_places_taken_holds_back_its_members_alone() {
    let site = Site::with(|settings| {
        settings.group_limits.insert("hall-2".into(), transfers(1));
    })
    .await;
    let mut devices = site.field(6).await;
    for index in 0..4 {
        let patch = DevicePatch { groups: Some(vec!["hall-2".into()]), ..DevicePatch::default() };
        site.service.set_device(&format!("dev-{index}"), patch, &ann()).await.unwrap();
    }
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let mut begun = until_offered(&site, &devices, 3).await;
    assert!(begun.contains(&4) && begun.contains(&5), "{begun:?}");
    // One after the other of the hall, and none of them twice.
    for last in [false, false, false, true] {
        let at = *begun.iter().find(|index| **index < 4).unwrap();
        devices[at].manifest().await;
        devices[at].download(0, 3).await;
        if !last {
            begun = until_offered(&site, &devices, 3).await;
        }
    }
    assert_eq!(site.count(1, "downloaded"), 4);
}

#[tokio::test]
async fn rule_20_new_starts_come_one_after_the_other() {
    let rate = |per_minute| Limits { starts_per_minute: per_minute, ..Limits::default() };
    let mut site = Site::with(|settings| settings.limits = rate(Some(1))).await;
    let devices = site.field(4).await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let first = until_offered(&site, &devices, 1).await[0];
    let why = site.service.why(&format!("dev-{}", (first + 1) % 4)).unwrap().sentence;
    assert!(why.contains("one after the other, 1 a minute"), "{why}");
    // As fast as that: the timer brings the others.
    site.configure(|settings| settings.limits = rate(Some(6000))).await;
    site.until("the timer", |_| offered(&devices).len() == 1).await;
    site.configure(|settings| settings.limits = rate(None)).await;
    until_offered(&site, &devices, 4).await;
}

#[tokio::test]
async fn rule_20_the_timer_of_a_rate_brings_everybody() {
    let site = Site::with(|settings| {
        settings.limits = Limits { starts_per_minute: Some(6000), ..Limits::default() };
    })
    .await;
    let devices = site.field(5).await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    until_offered(&site, &devices, 5).await;
}

#[tokio::test]
async fn rule_20_jitter_spreads_what_is_for_many_and_nothing_that_is_for_one() {
    let mut site = Site::with(|settings| settings.jitter = Duration::from_secs(1_000_000)).await;
    let mut devices = site.field(3).await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let why = site.service.why("dev-0").unwrap().sentence;
    assert!(why.contains("not all begin at one moment (fuota.limits.jitter)"), "{why}");
    devices.iter_mut().for_each(Session::nothing);
    site.drop_file("devices/dev-1/pump-2.0.0.bin", &[2; 250]).await;
    assert_eq!(devices[1].manifest().await["version"], "2.0.0");
    // Who asks by itself is one already.
    devices[2].ask(0);
    devices[2].manifest().await;
    site.configure(|settings| settings.jitter = Duration::ZERO).await;
    devices[0].manifest().await;
}

/// Downloads an image of 100 blocks of 1000 bytes on every device at once, on a clock that only
/// goes on when everybody waits, and gives the bytes and how long that took on it.
async fn race(site: &Site, devices: Vec<Session>, window: u32) -> (u64, Duration) {
    // What is read once is in the cache, so nothing waits for a disk.
    tokio::time::pause();
    let began = Instant::now();
    let mut running = Vec::new();
    for mut device in devices {
        running.push(tokio::spawn(async move {
            let (mut asked, mut got) = (0, vec![false; 100]);
            while got.iter().any(|got| !got) {
                while asked < 100 && asked < got.iter().filter(|got| **got).count() as u32 + window
                {
                    device.ask(asked);
                    asked += 1;
                }
                let (index, data) = device.block().await;
                assert_eq!(data, [1; 1000]);
                assert!(!std::mem::replace(&mut got[index as usize], true), "{index} comes twice");
            }
            device
        }));
    }
    let mut bytes = 0;
    for device in running {
        drop(device.await.unwrap());
        bytes += 100_000;
    }
    let took = began.elapsed();
    tokio::time::resume();
    assert_eq!(site.service.status().errors, 0, "nothing was refused or dropped");
    (bytes, took)
}

async fn warmed(change: impl FnOnce(&mut crate::Settings), devices: usize) -> (Site, Vec<Session>) {
    let site = Site::with(|settings| {
        settings.chunk_size = 1000;
        settings.nudge_after = Duration::from_secs(1_000_000);
        change(settings);
    })
    .await;
    site.drop_file("pump-1.0.0.bin", &[1; 100_000]).await;
    let mut field = site.field(devices).await;
    for device in &mut field {
        device.manifest().await;
    }
    let mut first = site.listening("first").await;
    first.manifest().await;
    first.download(0, 100).await;
    (site, field)
}

fn bandwidth(rate: u64) -> Limits {
    Limits { bytes_per_second: Some(rate), ..Limits::default() }
}

/// Whether so many bytes took as long as this rate says, within a twentieth.
fn at_rate((bytes, took): (u64, Duration), rate: f64) {
    let measured = bytes as f64 / took.as_secs_f64();
    assert!((rate * 0.95..rate * 1.05).contains(&measured), "{measured} instead of {rate}");
}

#[tokio::test]
async fn rule_20_the_cap_on_bytes_a_second_holds_for_the_site_and_drops_nothing() {
    let (mut site, devices) = warmed(|_| {}, 20).await;
    site.configure(|settings| settings.limits = bandwidth(100_000)).await;
    at_rate(race(&site, devices, 1).await, 100_000.0);
    let (mut site, devices) = warmed(|_| {}, 20).await;
    site.configure(|settings| settings.limits = bandwidth(100_000)).await;
    at_rate(race(&site, devices, 16).await, 100_000.0);
}

#[tokio::test]
async fn rule_20_the_cap_on_bytes_a_second_of_a_device_and_of_a_group() {
    let (mut site, devices) = warmed(|_| {}, 5).await;
    site.configure(|settings| settings.device_bytes_per_second = Some(10_000)).await;
    at_rate(race(&site, devices, 4).await, 50_000.0);

    let (mut site, devices) = warmed(|_| {}, 5).await;
    for index in 0..5 {
        let patch = DevicePatch { groups: Some(vec!["hall-2".into()]), ..DevicePatch::default() };
        site.service.set_device(&format!("dev-{index}"), patch, &ann()).await.unwrap();
    }
    site.configure(|settings| {
        settings.group_limits.insert("hall-2".into(), bandwidth(20_000));
        settings.limits = bandwidth(1_000_000);
    })
    .await;
    at_rate(race(&site, devices, 4).await, 20_000.0);
}

#[tokio::test]
async fn rule_20_a_cap_that_is_raised_counts_for_who_waits_already() {
    let (mut site, mut devices) = warmed(|_| {}, 1).await;
    site.configure(|settings| settings.limits = bandwidth(1)).await;
    let device = &mut devices[0];
    for index in 0..4 {
        device.ask(index);
    }
    device.block().await;
    device.nothing();
    // The same again is answered once.
    device.ask(3);
    site.configure(|settings| settings.limits = bandwidth(1_000_000)).await;
    for index in 1..4 {
        assert_eq!(device.block().await.0, index);
    }
    device.nothing();
    site.configure(|settings| settings.limits = Limits::default()).await;
    device.ask(4);
    device.block().await;
}

#[tokio::test]
async fn without_a_cap_a_block_waits_for_nothing() {
    let (site, devices) = warmed(|_| {}, 5).await;
    let (_, took) = race(&site, devices, 16).await;
    assert_eq!(took, Duration::ZERO, "on a clock that goes on when everybody waits");
}
