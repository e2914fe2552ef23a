//! What a large site costs: `cargo test -p fuota --release --lib numbers -- --ignored --nocapture`
//! prints the figures and fails where one is not reached. A debug build only prints them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    DeviceQuery,
    harness::{Session, Site, TOPIC, ann, deployment},
};

const DEVICES: usize = 10_000;
const UPDATING: usize = 1_000;
const LISTING: Duration = Duration::from_millis(50);
const OFFERED: Duration = Duration::from_secs(5);
const CHUNKS: u32 = 40;

fn name(index: usize) -> String {
    format!("dev-{index:05}")
}

fn report(version: &str) -> String {
    format!(r#"{{"variable":"firmware_status","metadata":{{"version":"{version}"}}}}"#)
}

/// The median of several runs, printed and held to a bound.
fn measure<T>(what: &str, most: Duration, mut run: impl FnMut() -> T) -> T {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..11 {
        let began = Instant::now();
        last = Some(run());
        times.push(began.elapsed());
    }
    times.sort();
    reached(what, times[times.len() / 2], most);
    last.unwrap()
}

fn reached(what: &str, took: Duration, most: Duration) {
    println!("{what}: {:.1} ms", took.as_secs_f64() * 1000.0);
    assert!(cfg!(debug_assertions) || took < most, "{what}: {took:?}");
}

#[tokio::test]
#[ignore = "takes a while, and its figures mean something in a release build alone"]
async fn numbers_of_a_site_of_ten_thousand() {
    let site = Site::with(|settings| {
        settings.max_unregistered = 2 * DEVICES;
        settings.confirm_within = Duration::from_millis(50);
        settings.flush_interval = Duration::from_secs(1);
    })
    .await;
    let image: Vec<u8> = (0..CHUNKS * 100).map(|at| (at * 31) as u8).collect();
    let firmware = site.upload("pump-2.0.0.bin", &image).await;
    let mut devices: Vec<Option<Session>> = Vec::new();
    for index in 0..DEVICES {
        let mut device = site.connect(&name(index)).await;
        device.subscribe(TOPIC);
        devices.push(Some(device));
    }

    // To all of them, planned and offered.
    let new = || deployment(&firmware, r#"{"all":true}"#, r#""all""#);
    let began = Instant::now();
    let plan = site.service.plan_deployment(&new()).unwrap();
    reached("planned for all", began.elapsed(), OFFERED);
    assert_eq!(plan.devices.len(), DEVICES);
    site.service.create_deployment(new(), None, &ann()).await.unwrap();
    while devices.iter().flatten().any(Session::is_empty) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    reached("planned, decided, written and announced to all", began.elapsed(), OFFERED);

    // A thousand at once, each a step further in turn; of the others some fail and some leave.
    for device in devices.iter_mut().flatten() {
        assert_eq!(device.manifest().await["total_chunks"], CHUNKS);
    }
    let began = Instant::now();
    for index in 0..CHUNKS {
        for device in devices[..UPDATING].iter_mut().flatten() {
            device.ask(index);
        }
        for device in devices[..UPDATING].iter_mut().flatten() {
            let (got, data) = device.block().await;
            let start = index as usize * 100;
            assert_eq!((got, &data[..]), (index, &image[start..start + 100]));
            device.nothing();
        }
    }
    let took = began.elapsed();
    println!("{} blocks to {UPDATING} devices: {took:?}", UPDATING * CHUNKS as usize);
    for (index, slot) in devices.iter_mut().enumerate() {
        let device = slot.as_mut().unwrap();
        match (index < UPDATING, index % 5) {
            (true, 0) | (false, 1) => slot.take().unwrap().end(),
            (true, _) => drop(device.publish(report("2.0.0"))),
            (false, 2) => {
                drop(device.publish(r#"{"variable":"firmware_status","value":"failed"}"#));
            }
            (false, 3) => {
                device.ask(0);
                device.block().await;
            }
            _ => {}
        }
    }
    let expected: BTreeMap<&str, usize> = [
        ("updated", UPDATING - UPDATING / 5),
        ("silent", UPDATING / 5 + (DEVICES - UPDATING) / 5),
        ("failed", (DEVICES - UPDATING) / 5),
        ("downloading", (DEVICES - UPDATING) / 5),
        ("offered", (DEVICES - UPDATING) / 5 * 2),
    ]
    .into();
    site.until("every outcome", |site| site.service.status().states == expected).await;

    // What every transfer says is what its deployment counts.
    let counts = site.service.deployment(1).unwrap().counts;
    for (state, number) in counts.into_iter().filter(|(_, number)| *number > 0) {
        assert_eq!(expected.get(state), Some(&number), "{state}");
    }
    let engine = &site.service.0;
    for device in engine.registry.all() {
        let state = device.state.lock();
        let transfer = state.transfer.as_ref().unwrap();
        let fleet = engine.fleet.lock();
        let member = fleet.deployments[&1].members[&device.id].state.clone();
        assert_eq!(member, Some(transfer.state()), "{}", device.id);
        let whole = transfer.sent() == CHUNKS;
        assert_eq!(whole, *device.id < *name(UPDATING), "{}", device.id);
    }

    // Listing and counting.
    let page = |query: DeviceQuery| site.service.devices(&query).len();
    let all = || DeviceQuery::default();
    assert_eq!(measure("list 1,000 devices", LISTING, || page(all())), 1000);
    let last = DeviceQuery { after: Some(name(9_000)), ..all() };
    assert_eq!(measure("list the last page", LISTING, || page(last.clone())), 999);
    let failed = DeviceQuery { state: Some("failed".into()), ..all() };
    assert_eq!(measure("list those that failed", LISTING, || page(failed.clone())), 1000);
    let none = DeviceQuery { search: Some("nobody".into()), ..all() };
    assert_eq!(measure("search in vain", LISTING, || page(none.clone())), 0);
    let status = measure("count all states", LISTING, || site.service.status());
    assert_eq!((status.devices.total, status.states), (DEVICES, expected));
    let one = measure("one deployment", LISTING, || site.service.deployment(1).unwrap());
    assert_eq!(one.not_offered, Some(0));
    let members = || site.service.deployment_devices(1, None, 1000).unwrap().len();
    assert_eq!(measure("its devices", LISTING, members), 1000);
    let waits = site.upload("pump-3.0.0.bin", &[8; 100]).await;
    site.service.freeze(true, &ann()).await.unwrap();
    site.deploy(&waits, r#"{"all":true}"#, r#""canary""#).await;
    let held = measure("one deployment that all wait for", LISTING, || {
        site.service.deployment(2).unwrap()
    });
    assert_eq!((held.not_offered, held.complete), (Some(DEVICES), Some(false)));
    let list = || site.service.deployments(None, None, 100).len();
    assert_eq!(measure("list deployments", LISTING, list), 2);
}

#[tokio::test]
async fn a_block_writes_nothing_to_the_database() {
    let site = Site::with(|settings| settings.flush_interval = Duration::from_secs(3600)).await;
    let image = vec![5; CHUNKS as usize * 100];
    site.drop_file("pump-2.0.0.bin", &image).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    let written = || site.service.0.db.jobs();
    let before = written();
    for index in 0..CHUNKS - 1 {
        device.ask(index);
        device.block().await;
    }
    assert_eq!(written(), before, "it is with the flush that progress is written");
    device.ask(CHUNKS - 1);
    device.block().await;
    assert!(written() > before, "the last one brings the outcome");
}
