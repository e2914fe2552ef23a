//! What holds for devices with a connection holds for those that fetch over HTTP (rules 20, 21
//! and 23).

use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::{
    Act, DevicePatch, DropRollout, Limits, NewDevice, Windows,
    download::{Caller, Fetch, Image},
    harness::{Site, ann},
};

async fn fetch(site: &Site, id: &str) -> Fetch {
    let caller = Caller::Device { id, user: None, token: None };
    site.service.caller(caller, None).await.unwrap()
}

/// What the device is told: a version, nothing, or why not now.
async fn told(site: &Site, id: &str) -> String {
    match fetch(site, id).await.image().await {
        Ok(Some(image)) => image.version().to_owned(),
        Ok(None) => "nothing".into(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn rule_21_a_freeze_a_pause_and_a_wave_hold_downloads() {
    let site = Site::with(|settings| settings.drop_rollout = Some(DropRollout::Canary)).await;
    site.service.freeze(true, &ann()).await.unwrap();
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    assert_eq!(told(&site, "dev-1").await, "nothing");
    site.service.freeze(false, &ann()).await.unwrap();
    drop(site.act(1, Act::Pause).await);
    assert_eq!(told(&site, "dev-1").await, "nothing");
    drop(site.act(1, Act::Resume).await);
    assert_eq!(told(&site, "dev-1").await, "1.0.0");
    assert_eq!(told(&site, "dev-2").await, "nothing", "dev-1 is the canary");
}

#[tokio::test]
async fn rule_23_a_window_holds_downloads() {
    let site = Site::with(|settings| {
        settings.windows = Windows::parse(&["mon-fri 22:00-04:00 Europe/Berlin"]).unwrap();
    })
    .await;
    let clock = |shows: &str| {
        let shows = shows.parse::<jiff::Timestamp>().unwrap();
        site.service.0.wall.set(shows.as_second() as u64);
    };
    clock("2026-11-27T12:00:00Z");
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    assert_eq!(told(&site, "dev-1").await, "nothing");
    clock("2026-11-27T21:30:00Z");
    assert_eq!(told(&site, "dev-1").await, "1.0.0");
}

#[tokio::test]
async fn rule_20_a_cap_on_transfers_holds_downloads() {
    let limits = Limits { transfers: Some(1), ..Limits::default() };
    let site = Site::with(|settings| settings.limits = limits).await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    let image = fetch(&site, "dev-1").await.image().await.unwrap().expect("an image");
    assert_eq!(told(&site, "dev-2").await, "nothing");
    let parts: Vec<_> = image.read(0, 250).collect().await;
    drop(parts);
    site.until_state("dev-1", "downloaded").await;
    assert_eq!(told(&site, "dev-2").await, "1.0.0");
}

#[tokio::test]
async fn rule_20_a_cap_on_starts_holds_downloads() {
    let limits = Limits { starts_per_minute: Some(1), ..Limits::default() };
    let site = Site::with(|settings| settings.limits = limits).await;
    site.drop_file("pump-1.0.0.bin", &[1; 250]).await;
    assert_eq!(told(&site, "dev-1").await, "1.0.0");
    assert_eq!(told(&site, "dev-2").await, "nothing");
    assert_eq!(told(&site, "dev-1").await, "1.0.0", "it has begun");
}

/// On a clock that only goes on when everybody waits.
#[tokio::test]
async fn rule_20_the_cap_on_bytes_a_second_holds_for_downloads() {
    const SIZE: u64 = 6_400_000;
    let mut site = Site::start().await;
    site.drop_file("pump-1.0.0.bin", &vec![1; SIZE as usize]).await;
    let image =
        async |site: &Site, id| fetch(site, id).await.image().await.unwrap().expect("an image");
    let read = async |image: Image| {
        let parts: Vec<_> = image.read(0, SIZE).collect().await;
        parts.into_iter().map(|part| part.unwrap().len() as u64).sum::<u64>()
    };
    // What is read once is in the cache, so nothing waits for a disk; and an offer, which waits for
    // the database, is there before the clock stands still.
    assert_eq!(read(image(&site, "warm").await).await, SIZE);
    let limits = Limits { bytes_per_second: Some(640_000), ..Limits::default() };
    site.configure(|settings| settings.limits = limits).await;
    let offered = image(&site, "dev-1").await;
    tokio::time::pause();
    let began = Instant::now();
    assert_eq!(read(offered).await, SIZE);
    let rate = SIZE as f64 / began.elapsed().as_secs_f64();
    tokio::time::resume();
    assert!((600_000.0..690_000.0).contains(&rate), "{rate} bytes a second");
}

/// No two parts of it are equal.
fn varied(size: usize) -> Vec<u8> {
    (0..size / 4 + 1).flat_map(|word| (word as u32).to_be_bytes()).take(size).collect()
}

async fn body(image: Image, from: u64, to: u64) -> Vec<u8> {
    let parts: Vec<_> = image.read(from, to).collect().await;
    parts.into_iter().flat_map(|part| part.expect("a part")).collect()
}

/// More parts than wait to be sent, with all of them in memory.
#[tokio::test]
async fn a_long_body_is_the_image_in_its_order() {
    let site = Site::start().await;
    let bytes = varied(3_000_000);
    site.drop_file("pump-1.0.0.bin", &bytes).await;
    for turn in 0..3 {
        let image = fetch(&site, &format!("dev-{turn}")).await.image().await.unwrap().unwrap();
        assert!(body(image, 0, 3_000_000).await == bytes, "turn {turn}");
    }
}

/// The end is in memory, and what comes before it is not.
#[tokio::test]
async fn a_body_is_the_image_in_its_order_whatever_is_in_memory() {
    let site = Site::start().await;
    let bytes = varied(1_100_000);
    site.drop_file("pump-1.0.0.bin", &bytes).await;
    let image = async || fetch(&site, "dev-1").await.image().await.unwrap().unwrap();
    let end = body(image().await, 1_060_000, 1_060_100).await;
    assert!(end == bytes[1_060_000..1_060_100]);
    assert!(body(image().await, 0, 1_100_000).await == bytes);
}

/// Its response ends with that, wherever the parts are that were not sent: with the queue full, all
/// of them admitted or not, or waiting under a cap.
#[tokio::test]
async fn rule_10_one_whose_update_is_stopped_hears_so_amid_a_body() {
    for (size, capped) in [(3_000_000, false), (6_400_000, false), (900_000, true)] {
        let mut site = Site::start().await;
        let firmware = site.upload("pump-1.0.0.bin", &varied(size)).await;
        let id = site.deploy(&firmware, r#"{"all":true}"#, r#""all""#).await;
        let image = fetch(&site, "warm").await.image().await.unwrap().unwrap();
        assert_eq!(body(image, 0, size as u64).await.len(), size);
        if capped {
            site.configure(|settings| settings.device_bytes_per_second = Some(2 * 64 * 1024)).await;
        }
        for begins in [false, true] {
            let device = format!("dev-{begins}");
            let image = fetch(&site, &device).await.image().await.unwrap().unwrap();
            let mut parts = std::pin::pin!(image.read(0, size as u64));
            if begins {
                parts.next().await.unwrap().unwrap();
            }
            let who = ann();
            site.service.act_on_deployment(id, Act::Cancel, Some(&device), &who).await.unwrap();
            let mut ends = None;
            while let Some(part) = parts.next().await {
                ends = part.err();
            }
            let ends = ends.expect("an end before its end").to_string();
            assert!(ends.contains("cancelled by an operator"), "{size} {begins}: {ends}");
        }
    }
}

/// A response is a connection of its device, and ends with the others: what is read of a large image
/// after that is what was on its way.
#[tokio::test]
async fn rule_28_a_download_ends_with_what_its_device_has_proven() {
    const SIZE: usize = 6_400_000;
    const TOKEN: &str = "token-of-dev-1-0123456789";
    let site = Site::start().await;
    site.drop_file("pump-1.0.0.bin", &varied(SIZE)).await;
    let register =
        NewDevice { id: "dev-1".into(), token: Some(TOKEN.into()), ..NewDevice::default() };
    let cut = DevicePatch { rotate_token: true, now: true, ..DevicePatch::default() };
    let mut token = None;
    for change in ["registered", "cut off", "removed"] {
        let caller = Caller::Device { id: "dev-1", user: None, token: token.as_deref() };
        let fetch = site.service.caller(caller, None).await.unwrap();
        let image = fetch.image().await.unwrap().unwrap_or_else(|| panic!("an image, {change}"));
        let mut parts = std::pin::pin!(image.read(0, SIZE as u64));
        parts.next().await.unwrap().unwrap();
        token = match change {
            "registered" => {
                let added = site.service.add_device(register.clone(), None, &ann()).await;
                Some(added.unwrap().0.token)
            }
            "cut off" => site.service.set_device("dev-1", cut.clone(), &ann()).await.unwrap().token,
            _ => {
                site.service.remove_device("dev-1", &ann()).await.unwrap();
                None
            }
        };
        let rest: Vec<_> = parts.collect().await;
        let Some(Err(end)) = rest.last() else { panic!("{change}: all of it came") };
        let end = end.to_string();
        let word = if change == "removed" { "removed" } else { "log in" };
        assert!(end.contains(word), "{change}: {end}");
        assert!(rest.len() < 40, "{change}: {} parts", rest.len());
    }
}
