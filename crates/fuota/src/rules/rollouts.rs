//! Waves, and bad images that stop in them (rules 5, 20 and 21).

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures_util::FutureExt;

use crate::{
    Act, Actor, DevicePatch, NewDevice,
    harness::{Session, Site, TOPIC, ann, token_request},
    settings::DropRollout,
};

const CHUNKS: u32 = 2;

fn report(version: &str) -> String {
    format!(r#"{{"variable":"firmware_status","metadata":{{"version":"{version}"}}}}"#)
}

/// A field of devices that are all online, and which of them an image would silence.
struct Field {
    devices: Vec<Option<Session>>,
    doomed: HashSet<usize>,
}

impl Field {
    async fn new(site: &Site, number: usize, doomed: impl Fn(usize) -> bool) -> Field {
        let mut devices = Vec::new();
        for index in 0..number {
            let mut device = site.connect(&name(index)).await;
            device.subscribe(TOPIC);
            devices.push(Some(device));
        }
        Field { devices, doomed: (0..number).filter(|index| doomed(*index)).collect() }
    }

    /// Devices that were offered anything by now do what they would: download, then fall silent
    /// or report. Returns how many did.
    async fn react(&mut self, site: &Site, version: &str) -> usize {
        let mut number = 0;
        for index in 0..self.devices.len() {
            let Some(mut device) = self.devices[index].take() else { continue };
            if device.is_empty() {
                self.devices[index] = Some(device);
                continue;
            }
            device.manifest().await;
            device.ask(0);
            let answer = device.next().await;
            if answer["variable"] == "fuota_error" {
                // Those before it have stopped it.
                assert!(answer["value"].as_str().unwrap().contains("is paused"), "{answer}");
                self.devices[index] = Some(device);
                continue;
            }
            device.download(1, CHUNKS).await;
            device.end();
            number += 1;
            if !self.doomed.contains(&index) {
                let mut device = site.connect(&name(index)).await;
                device.subscribe(TOPIC);
                device.publish(report(version));
                self.devices[index] = Some(device);
            }
        }
        number
    }

    /// Waits until so many devices have a message to read.
    async fn until_offered(&self, site: &Site, number: usize) {
        site.until("offers", |_| {
            let devices = self.devices.iter().flatten();
            devices.filter(|device| !device.is_empty()).count() == number
        })
        .await;
    }

    fn nothing(&mut self) {
        self.devices.iter_mut().flatten().for_each(Session::nothing);
    }
}

/// Lets others run; only a failing test waits for the end.
async fn breath(began: Instant) {
    assert!(began.elapsed() < Duration::from_secs(60), "the rollout never comes to its end");
    tokio::time::sleep(Duration::from_millis(2)).await;
}

fn name(index: usize) -> String {
    format!("dev-{index:03}")
}

fn canary(settings: &mut crate::Settings) {
    settings.drop_rollout = Some(DropRollout::Canary);
    settings.confirm_within = Duration::from_millis(50);
}

#[tokio::test]
async fn rule_21_an_image_that_silences_every_device_takes_exactly_the_canary() {
    let site = Site::with(canary).await;
    let mut field = Field::new(&site, 30, |_| true).await;
    site.drop_file("pump-2.0.0.bin", &[7; 150]).await;
    field.until_offered(&site, 1).await;
    assert_eq!(field.react(&site, "2.0.0").await, 1);
    let view = site.until_deployment(1, "paused").await;
    assert_eq!(view.counts["silent"], 1);
    assert!(view.reason.unwrap().contains("1 of 1 devices of wave 1"));
    assert_eq!(field.react(&site, "2.0.0").await, 0, "nobody else was offered it");
    // Neither a crash nor new connections change that, once it is written.
    drop(field);
    site.service.0.db.commit(Vec::new()).await.unwrap();
    let site = site.crash().await;
    let mut field = Field::new(&site, 30, |_| true).await;
    site.until_deployment(1, "paused").await;
    field.nothing();
    let why = site.service.why("dev-007").unwrap().sentence;
    assert!(why.contains("deployment 1 is paused"), "{why}");
}

#[tokio::test]
async fn rule_21_an_image_that_silences_a_tenth_stops_in_the_wave_after_the_canary() {
    let site = Site::with(canary).await;
    // The canary is the first by name and survives; every tenth from the fifth on does not.
    let mut field = Field::new(&site, 100, |index| index % 10 == 5).await;
    site.drop_file("pump-2.0.0.bin", &[7; 150]).await;
    let (mut lost, mut reached, began) = (0, 0, Instant::now());
    while site.service.deployment(1).unwrap().state == "running" {
        let number = field.react(&site, "2.0.0").await;
        reached += number;
        if number == 0 {
            breath(began).await;
        }
        lost = field.devices.iter().filter(|device| device.is_none()).count();
    }
    assert_eq!(lost, 1, "of the ten that the second wave reaches, one is doomed");
    assert_eq!(reached, 10);
    let view = site.service.deployment(1).unwrap();
    assert_eq!((view.wave, view.wave_size), (2, 10));
    assert_eq!((view.counts["updated"], view.counts["silent"]), (9, 1));
    field.nothing();
    // Who resumes it knows of that one; the rest follows, and the next failures stop it again.
    site.act(1, Act::Resume).await;
    site.until("the last wave", |site| site.service.deployment(1).unwrap().wave == 3).await;
    while site.service.deployment(1).unwrap().state == "running" {
        if field.react(&site, "2.0.0").await == 0 {
            breath(began).await;
        }
    }
    let view = site.service.deployment(1).unwrap();
    assert!(view.reason.unwrap().contains("of 90 devices of wave 3"));
    assert!(view.counts["silent"] >= 5);
}

#[tokio::test]
async fn rule_21_a_good_image_goes_through_all_waves_and_a_restart() {
    // Nobody is lost, however long the restart takes.
    let patient = |settings: &mut crate::Settings| {
        canary(settings);
        settings.confirm_within = Duration::from_secs(3600);
    };
    let site = Site::with(patient).await;
    let mut field = Field::new(&site, 30, |_| false).await;
    site.drop_file("pump-2.0.0.bin", &[7; 150]).await;
    field.until_offered(&site, 1).await;
    field.nothing_but(&name(0));
    assert_eq!(field.react(&site, "2.0.0").await, 1);
    // Of 30, the second wave has 3; the canary is one of them.
    field.until_offered(&site, 2).await;
    drop(field);
    let site = site.crash().await;
    assert_eq!(site.count(1, "offered"), 2);
    assert_eq!(site.count(1, "updated"), 1);
    let mut field = Field::new(&site, 30, |_| false).await;
    let began = Instant::now();
    while site.count(1, "updated") < 30 {
        if field.react(&site, "2.0.0").await == 0 {
            breath(began).await;
        }
    }
    assert_eq!(site.service.deployment(1).unwrap().complete, Some(true));
}

impl Field {
    /// Only this device was offered anything.
    fn nothing_but(&mut self, id: &str) {
        for device in self.devices.iter_mut().flatten() {
            if &*device.client.id != id {
                device.nothing();
            }
        }
    }
}

#[tokio::test]
async fn rule_21_the_label_canary_goes_first_and_who_is_away_gives_its_place_away() {
    let site = Site::with(canary).await;
    let mut field = Field::new(&site, 5, |_| false).await;
    let labels = Some([("canary".to_owned(), String::new())].into());
    let patch = DevicePatch { labels, ..DevicePatch::default() };
    site.service.set_device(&name(3), patch, &Actor::default()).await.unwrap();
    site.drop_file("pump-2.0.0.bin", &[7; 150]).await;
    field.until_offered(&site, 1).await;
    field.nothing_but(&name(3));
    assert_eq!(field.devices[3].as_mut().unwrap().manifest().await["version"], "2.0.0");
    // An approval opens the next wave without waiting.
    site.act(1, Act::Approve).await;
    site.act(1, Act::Approve).await;
    field.until_offered(&site, 4).await;
    assert_eq!(site.count(1, "offered"), 5);
}

#[tokio::test]
async fn rule_21_a_canary_that_is_given_something_else_is_replaced() {
    let site = Site::with(canary).await;
    let mut field = Field::new(&site, 3, |_| false).await;
    site.drop_file("pump-2.0.0.bin", &[7; 150]).await;
    field.devices[0].as_mut().unwrap().manifest().await;
    // A file for this device alone goes first; it has not asked for the other.
    site.drop_file("devices/dev-000/pump-2.5.0.bin", &[8; 150]).await;
    let canary = field.devices[0].as_mut().unwrap();
    canary.ask(0);
    assert_eq!(canary.manifest().await["version"], "2.5.0");
    site.until("another canary", |site| site.count(1, "offered") == 1).await;
    assert_eq!(field.devices[1].as_mut().unwrap().manifest().await["version"], "2.0.0");
    field.devices[2].as_mut().unwrap().nothing();
}

#[tokio::test]
async fn rule_5_devices_without_registration_come_last_and_count_in_nothing() {
    let site = Site::with(canary).await;
    let token = "0123456789abcdef-one";
    let device =
        NewDevice { id: "reg-1".into(), token: Some(token.into()), ..NewDevice::default() };
    site.service.add_device(device, None, &Actor::default()).await.unwrap();
    let mut stranger = site.connect("stranger").await;
    stranger.subscribe(TOPIC);
    site.drop_file("pump-2.0.0.bin", &[7; 150]).await;
    stranger.ask(0);
    assert!(stranger.error().await.contains("without registration come last"));
    let mut registered = site.connect_as(token_request(token)).await.unwrap();
    registered.subscribe(TOPIC);
    registered.manifest().await;
    registered.download(0, CHUNKS).await;
    stranger.nothing();
    registered.publish(report("2.0.0"));
    assert_eq!(stranger.manifest().await["version"], "2.0.0");
    // Its silence pauses nothing.
    stranger.download(0, CHUNKS).await;
    stranger.end();
    site.until_state("stranger", "silent").await;
    assert_eq!(site.service.deployment(1).unwrap().state, "running");
    assert_eq!(site.count(1, "silent"), 1);
}

#[tokio::test]
async fn rule_21_an_approval_amid_the_automatic_step_skips_no_wave() {
    let site = Site::with(canary).await;
    let mut field = Field::new(&site, 30, |_| false).await;
    site.drop_file("pump-2.0.0.bin", &[7; 150]).await;
    field.until_offered(&site, 1).await;
    let engine = &site.service.0;
    // The canary is fine, and the next wave is to open ...
    {
        let mut canary = field.devices[0].take().unwrap();
        canary.manifest().await;
        canary.download(0, CHUNKS).await;
        canary.publish(report("2.0.0"));
        field.devices[0] = Some(canary);
    }
    let look = engine.look(1).unwrap();
    // ... when an operator opens it.
    let ann = ann();
    let approval = site.service.act_on_deployment(1, Act::Approve, None, &ann);
    assert!(approval.now_or_never().is_none(), "it waits for its commit");
    let candidates = engine.candidates(1).await;
    let chosen = engine.follow(1, &look, candidates).unwrap();
    assert!(chosen.is_empty());
    field.until_offered(&site, 2).await;
    let view = site.service.deployment(1).unwrap();
    assert_eq!((view.wave, view.wave_size), (2, 3));
}

#[tokio::test]
async fn rule_21_a_canary_that_fails_after_its_wave_pauses_the_rollout() {
    let site = Site::with(|settings| {
        canary(settings);
        settings.confirm_after = Duration::from_millis(1);
        settings.confirm_within = Duration::from_secs(3600);
    })
    .await;
    let mut field = Field::new(&site, 30, |_| false).await;
    site.drop_file("pump-2.0.0.bin", &[7; 150]).await;
    field.until_offered(&site, 1).await;
    let mut canary = field.devices[0].take().unwrap();
    canary.manifest().await;
    canary.download(0, CHUNKS).await;
    // It was heard for long enough, and the next wave opens.
    site.until_state(&name(0), "updated_unconfirmed").await;
    field.until_offered(&site, 2).await;
    // Then its boot loader takes it back.
    canary.end();
    let mut canary = site.connect(&name(0)).await;
    canary.subscribe(TOPIC);
    canary.publish(report("1.0.0"));
    let view = site.until_deployment(1, "paused").await;
    assert!(view.reason.unwrap().contains("1 of 1 devices of wave 1"));
    // Whoever resumes it knows that, also after a crash.
    site.act(1, Act::Resume).await;
    let site = site.crash().await;
    site.until("the rollout was looked at", |site| site.service.0.fleet.lock().due.is_empty())
        .await;
    let view = site.service.deployment(1).unwrap();
    assert_eq!((view.state, view.wave), ("running", 2));
}
