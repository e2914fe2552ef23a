//! What holds for devices with a connection holds for those that fetch over HTTP (rules 20, 21
//! and 23).

use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::{
    Act, DropRollout, Limits, Windows,
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
