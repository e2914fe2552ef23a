//! Random sequences of what operators and devices do, with faults and restarts in between,
//! against a simple model of what must hold. A failing sequence is shortened before it is shown.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::Value;

use crate::{
    Act, ServiceError,
    harness::{Session, Site, TOPIC, ann, deployment},
};

const DEVICES: usize = 8;
const CASES: u32 = 96;
const LOSSY_CASES: u32 = 32;
const LONGEST: usize = 80;
const WINDOW: &str = "01:00-02:00 UTC";
/// Half past one, on a day in 2026.
const IN_WINDOW: u64 = 20_600 * 86_400 + 5_400;

/// One step: what is done, to which of what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A new image is uploaded and deployed: to whom, and how.
    Deploy {
        target: u8,
        canary: bool,
    },
    /// A file is dropped over the one before, for everybody at once.
    Overwrite,
    /// An earlier image again, below what newer ones say.
    Downgrade {
        image: u8,
    },
    Act {
        deployment: u8,
        act: u8,
    },
    /// One device is taken out of a deployment, or brought back.
    CancelOne {
        deployment: u8,
        device: u8,
    },
    RetryOne {
        deployment: u8,
        device: u8,
    },
    Withdraw {
        image: u8,
    },
    Freeze(bool),
    /// The site's maintenance window opens or closes.
    Window(bool),
    Connect(u8),
    Disconnect(u8),
    /// One that is at an image asks for its next block, and gets that and all that follows on its
    /// connection no more, though it is written.
    Lose(u8),
    /// One of those connects anew and goes on at once, before it hears anything.
    ComeBack(u8),
    /// The device asks for its next block, or restarts into an image that it has whole.
    GoOn(u8),
    /// It asks for any block.
    AskWildly(u8, u8),
    ReportFailure(u8),
    Crash,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0..DEVICES as u8;
    prop_oneof![
        2 => (any::<u8>(), any::<bool>()).prop_map(|(target, canary)| Step::Deploy { target, canary }),
        2 => Just(Step::Overwrite),
        1 => any::<u8>().prop_map(|image| Step::Downgrade { image }),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(deployment, act)| Step::Act { deployment, act }),
        4 => (any::<u8>(), device.clone())
            .prop_map(|(deployment, device)| Step::CancelOne { deployment, device }),
        2 => (any::<u8>(), device.clone())
            .prop_map(|(deployment, device)| Step::RetryOne { deployment, device }),
        1 => any::<u8>().prop_map(|image| Step::Withdraw { image }),
        1 => any::<bool>().prop_map(Step::Freeze),
        2 => any::<bool>().prop_map(Step::Window),
        6 => device.clone().prop_map(Step::Connect),
        3 => device.clone().prop_map(Step::Disconnect),
        5 => any::<u8>().prop_map(Step::Lose),
        4 => any::<u8>().prop_map(Step::ComeBack),
        24 => device.clone().prop_map(Step::GoOn),
        2 => (device, any::<u8>()).prop_map(|(device, index)| Step::AskWildly(device, index)),
        5 => any::<u8>().prop_map(Step::ReportFailure),
        1 => Just(Step::Crash),
        1 => Just(Step::Restart),
    ]
}

struct Image {
    version: String,
    bytes: Vec<u8>,
    firmware: String,
    withdrawn: bool,
    /// Its version is its digest, and the next one takes its place.
    dropped: bool,
}

/// What the model knows of a deployment.
struct Known {
    digest: String,
    canary: bool,
    downgrade: bool,
    /// Devices that heard a manifest of it, and those that ran it.
    heard: BTreeSet<usize>,
    ran: BTreeSet<usize>,
    /// Devices that an operator took out.
    out: BTreeSet<usize>,
    /// An operator opened its waves by hand.
    opened: bool,
}

#[derive(Default)]
struct Device {
    session: Option<Session>,
    /// Its connection is half dead: what the server writes is lost.
    deaf: bool,
    /// What the last manifest of this life announced.
    digest: Option<String>,
    got: BTreeMap<u32, Vec<u8>>,
    total: u32,
    runs: Option<String>,
    /// Images that failed in it and that nobody said to retry, each with the deployment.
    failed: BTreeMap<String, i64>,
}

impl Device {
    /// Whether it is connected and was told of an image that it does not run yet.
    fn is_at_one(&self) -> bool {
        self.session.is_some() && self.digest.is_some()
    }

    /// What was written to a half dead connection is gone.
    fn lose(&mut self) {
        if let Some(session) = self.session.as_mut().filter(|_| self.deaf) {
            session.lose();
        }
    }

    /// Asks for the first block that it lacks of what it is at, if it lacks any.
    fn ask(&mut self) -> bool {
        let (Some(session), Some(_)) = (&mut self.session, &self.digest) else { return false };
        let missing = (0..self.total).find(|block| !self.got.contains_key(block));
        if let Some(missing) = missing {
            session.ask(missing);
        }
        missing.is_some()
    }
}

struct World {
    site: Option<Site>,
    devices: Vec<Device>,
    images: Vec<(String, Image)>,
    deployments: HashMap<i64, Known>,
    frozen: bool,
    open: bool,
    /// Whether the next attempt comes only when somebody says so.
    patient: bool,
}

/// Three blocks.
fn bytes_of(number: usize) -> Vec<u8> {
    (0..250).map(|at| (at * number) as u8 ^ number as u8).collect()
}

fn name(device: usize) -> String {
    format!("dev-{device}")
}

impl World {
    async fn new(patient: bool) -> World {
        let long = std::time::Duration::from_secs(3600);
        let site = Site::with(|settings| {
            // Only what a step does makes anything happen.
            settings.resume_grace = std::time::Duration::ZERO;
            settings.nudge_after = long;
            settings.retry_after = if patient { long } else { std::time::Duration::ZERO };
            settings.confirm_after = long;
            settings.confirm_within = long;
            settings.windows = crate::Windows::parse(&[WINDOW]).unwrap();
        })
        .await;
        let devices = (0..DEVICES).map(|_| Device::default()).collect();
        World {
            site: Some(site),
            devices,
            images: Vec::new(),
            deployments: HashMap::new(),
            frozen: false,
            open: true,
            patient,
        }
    }

    fn site(&self) -> &Site {
        self.site.as_ref().unwrap()
    }

    /// Waits until nothing follows any more from what was done.
    async fn settle(&self) {
        let engine = &self.site().service.0;
        let (mut calm, mut rounds) = (0, 0);
        while calm < 3 {
            rounds += 1;
            assert!(rounds < 10_000, "it never comes to rest");
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            engine.db.commit(Vec::new()).await.unwrap();
            let pinning = |device: &std::sync::Arc<crate::device::Device>| {
                device.state.lock().pinning.is_some()
            };
            let busy =
                !engine.fleet.lock().due.is_empty() || engine.registry.all().iter().any(pinning);
            calm = if busy { 0 } else { calm + 1 };
        }
    }

    async fn run(&mut self, step: Step) {
        let service = self.site().service.clone();
        let pick = |number: u8, from: usize| (from > 0).then(|| usize::from(number) % from);
        match step {
            Step::Deploy { target, canary } => {
                let number = self.images.len() + 1;
                let bytes = bytes_of(number);
                let version = format!("{number}.0.0");
                let firmware = self.site().upload(&format!("fw-{version}.bin"), &bytes).await;
                let digest = store::Digest::of(&bytes).to_string();
                let firmware_id = firmware.clone();
                let image = Image {
                    version,
                    bytes,
                    firmware: firmware_id,
                    withdrawn: false,
                    dropped: false,
                };
                self.images.push((digest.clone(), image));
                let target = match target % 4 {
                    0 => format!(r#"{{"device":"{}"}}"#, name(usize::from(target) % DEVICES)),
                    _ => r#"{"all":true}"#.into(),
                };
                let rollout = if canary { r#""canary""# } else { r#""all""# };
                let id = self.site().deploy(&firmware, &target, rollout).await;
                self.learn(id, digest, canary, false);
            }
            Step::Overwrite => {
                const PATH: &str = "fw.bin";
                let bytes = bytes_of(self.images.len() + 1);
                self.site().drop_file(PATH, &bytes).await;
                let digest = store::Digest::of(&bytes);
                let firmware = self.site().firmware_id(PATH);
                let version = digest.short().to_string();
                let image = Image { version, bytes, firmware, withdrawn: false, dropped: true };
                let digest = digest.to_string();
                self.images.push((digest.clone(), image));
                let all = service.deployments(None, None, 1000);
                let own = all.iter().find(|view| view.firmware.digest == digest);
                let id = own.expect("a deployment").id.parse().unwrap();
                self.learn(id, digest, false, false);
            }
            Step::Downgrade { image } => {
                let Some(image) = pick(image, self.images.len()) else { return };
                let (digest, image) = &self.images[image];
                let mut new = deployment(&image.firmware, r#"{"all":true}"#, r#""all""#);
                new.downgrade = true;
                let digest = digest.clone();
                match service.create_deployment(new, None, &ann()).await {
                    Ok((view, _)) => self.learn(view.id.parse().unwrap(), digest, false, true),
                    Err(ServiceError::Conflict(_)) => {}
                    Err(ServiceError::Invalid { .. }) if image.dropped => {}
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Act { deployment, act } => {
                let ids = self.ids();
                let Some(at) = pick(deployment, ids.len()) else { return };
                let acts = [
                    Act::Approve,
                    Act::Pause,
                    Act::Resume,
                    Act::Resume,
                    Act::Cancel,
                    Act::Retry,
                    Act::Rollback,
                ];
                let act = acts[usize::from(act) % acts.len()];
                match service.act_on_deployment(ids[at], act, None, &ann()).await {
                    Ok(acted) => {
                        let known = self.deployments.get_mut(&ids[at]).unwrap();
                        known.opened |= matches!(act, Act::Approve | Act::Resume);
                        if act == Act::Retry {
                            let digest = known.digest.clone();
                            for device in &mut self.devices {
                                device.failed.remove(&digest);
                            }
                        }
                        for made in acted.rollbacks.unwrap_or_default() {
                            let view = service.deployment(made.parse().unwrap()).unwrap();
                            self.learn(view.id.parse().unwrap(), view.firmware.digest, true, true);
                            self.listed(ids[at], made.parse().unwrap());
                        }
                    }
                    Err(ServiceError::Conflict(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            Step::CancelOne { deployment, device } | Step::RetryOne { deployment, device } => {
                let cancels = matches!(step, Step::CancelOne { .. });
                let act = if cancels { Act::Cancel } else { Act::Retry };
                let who = name(usize::from(device));
                // What it is being given, or any other.
                let ids = self.ids();
                let own = service
                    .0
                    .registry
                    .get(&who)
                    .and_then(|device| device.state.lock().transfer.as_ref()?.pin.deployment);
                let any = pick(deployment, ids.len()).map(|at| ids[at]);
                let Some(id) = own.filter(|_| deployment % 3 > 0).or(any) else { return };
                match service.act_on_deployment(id, act, Some(&who), &ann()).await {
                    Ok(_) if cancels => {
                        let index = usize::from(device);
                        self.deployments.get_mut(&id).unwrap().out.insert(index);
                        // Only another connection may hear of the same again.
                        if self.devices[index].session.is_some() {
                            self.disconnect(index);
                            self.connect(index).await;
                        }
                    }
                    Ok(_) => {
                        let out = &mut self.deployments.get_mut(&id).unwrap().out;
                        out.remove(&usize::from(device));
                        let digest = &self.deployments[&id].digest;
                        self.devices[usize::from(device)].failed.remove(digest);
                    }
                    // It was never seen, has the image, or nothing failed for it.
                    Err(ServiceError::Conflict(_) | ServiceError::NotFound(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Withdraw { image } => {
                let Some(image) = pick(image, self.images.len()) else { return };
                let image = &mut self.images[image].1;
                match service.withdraw_firmware(&image.firmware, &ann()).await {
                    Ok(_) => image.withdrawn = true,
                    Err(ServiceError::NotFound(_)) if image.dropped => {}
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Freeze(frozen) => {
                service.freeze(frozen, &ann()).await.unwrap();
                self.frozen = frozen;
            }
            Step::Window(open) => {
                self.open = open;
                self.set_clock().await;
            }
            Step::Connect(device) => {
                if self.devices[usize::from(device)].session.is_none() {
                    self.connect(device.into()).await;
                }
            }
            Step::Disconnect(device) => self.disconnect(usize::from(device)),
            Step::Lose(number) => {
                let Some(index) = self.pick_device(number, |one| !one.deaf && one.is_at_one())
                else {
                    return;
                };
                let device = &mut self.devices[index];
                device.deaf = true;
                device.ask();
            }
            Step::ComeBack(number) => {
                let Some(index) = self.pick_device(number, |one| one.deaf) else { return };
                self.disconnect(index);
                self.connect(index).await;
                self.devices[index].ask();
            }
            Step::GoOn(device) => self.go_on(usize::from(device)).await,
            Step::AskWildly(device, index) => {
                if let Some(session) = &mut self.devices[usize::from(device)].session {
                    session.ask(u32::from(index % 4));
                }
            }
            Step::ReportFailure(number) => {
                let Some(index) = self.pick_device(number, Device::is_at_one) else { return };
                self.report_failure(index).await;
            }
            Step::Crash | Step::Restart => self.restart(matches!(step, Step::Crash)).await,
        }
    }

    /// One of the devices that are so.
    fn pick_device(&self, number: u8, is_so: impl Fn(&Device) -> bool) -> Option<usize> {
        let found: Vec<_> = (0..DEVICES).filter(|index| is_so(&self.devices[*index])).collect();
        found.get(usize::from(number) % found.len().max(1)).copied()
    }

    async fn report_failure(&mut self, index: usize) {
        let session = self.devices[index].session.as_mut().unwrap();
        session.publish(r#"{"variable":"firmware_status","value":"failed"}"#);
        let view = self.site().service.device(&name(index)).unwrap();
        if view.state.as_deref() != Some("failed") {
            return;
        }
        let known = self.site().service.0.registry.get(&name(index)).unwrap();
        let pin = known.state.lock().transfer.as_ref().unwrap().pin.clone();
        let id = pin.deployment.unwrap();
        let device = &mut self.devices[index];
        device.failed.insert(view.firmware.unwrap().digest, id);
        if self.patient {
            // It comes back, and hears nothing of that yet.
            (device.digest, device.got) = (None, BTreeMap::new());
            self.disconnect(index);
            self.connect(index).await;
        }
    }

    fn ids(&self) -> Vec<i64> {
        let all = self.site().service.deployments(None, None, 1000);
        all.iter().map(|one| one.id.parse().unwrap()).collect()
    }

    fn learn(&mut self, id: i64, digest: String, canary: bool, downgrade: bool) {
        let known = Known {
            digest,
            canary,
            downgrade,
            heard: BTreeSet::new(),
            ran: BTreeSet::new(),
            out: BTreeSet::new(),
            opened: false,
        };
        assert!(self.deployments.insert(id, known).is_none(), "a number is used twice");
    }

    /// A rollback lists nobody who runs something newer, unless it has just been given what the
    /// rollback takes back.
    fn listed(&self, bad: i64, rollback: i64) {
        let digest = &self.deployments[&bad].digest;
        let bad = &self.images.iter().find(|(known, _)| known == digest).unwrap().1.version;
        let number = |version: &str| version.strip_suffix(".0.0")?.parse::<u32>().ok();
        for listed in self.site().service.deployment_devices(rollback, None, 100).unwrap() {
            let index = (0..DEVICES).find(|index| name(*index) == listed.device).unwrap();
            let device = &self.devices[index];
            if let (Some(runs), Some(bad)) = (device.runs.as_deref().and_then(number), number(bad))
            {
                let given = device.digest.as_ref() == Some(digest);
                assert!(runs <= bad || given, "{} runs {runs}, and goes back", listed.device);
            }
        }
    }

    async fn connect(&mut self, device: usize) {
        let mut session = self.site().connect(&name(device)).await;
        session.subscribe(TOPIC);
        self.devices[device].session = Some(session);
    }

    fn disconnect(&mut self, device: usize) {
        self.devices[device].lose();
        self.devices[device].deaf = false;
        if let Some(session) = self.devices[device].session.take() {
            session.end();
        }
    }

    /// The device goes on with what it is at.
    async fn go_on(&mut self, index: usize) {
        let device = &mut self.devices[index];
        if device.ask() || device.session.is_none() {
            return;
        }
        let Some(digest) = device.digest.clone() else { return };
        // It restarts into the image and says so.
        let image = &self.images.iter().find(|(known, _)| *known == digest).unwrap().1;
        let whole: Vec<u8> = device.got.values().flatten().copied().collect();
        assert_eq!(whole, image.bytes, "{}: {} is spoilt", name(index), image.version);
        device.runs = Some(image.version.clone());
        (device.digest, device.got) = (None, BTreeMap::new());
        let version = image.version.clone();
        self.disconnect(index);
        let mut session = self.site().connect(&name(index)).await;
        session.subscribe(TOPIC);
        session.publish(format!(
            r#"{{"variable":"firmware_status","metadata":{{"version":"{version}"}}}}"#
        ));
        self.devices[index].session = Some(session);
        for known in self.deployments.values_mut().filter(|known| known.digest == digest) {
            known.ran.insert(index);
        }
    }

    /// Nothing that was decided is lost or different afterwards.
    async fn restart(&mut self, crash: bool) {
        let decided = |site: &Site| {
            let views = site.service.deployments(None, None, 1000);
            views.into_iter().map(|view| (view.id.clone(), view)).collect::<BTreeMap<_, _>>()
        };
        let offered = |site: &Site| {
            let pin = |index| site.service.device(&name(index))?.firmware;
            (0..DEVICES).map(pin).collect::<Vec<_>>()
        };
        let (before, pins) = (decided(self.site()), offered(self.site()));
        (0..DEVICES).for_each(|device| self.disconnect(device));
        let site = self.site.take().unwrap();
        let site = if crash { site.crash().await } else { site.restart(|_| {}).await };
        let after = decided(&site);
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        for (id, before) in before {
            let after = &after[&id];
            assert!(
                before.state == after.state || (before.state, after.state) == ("running", "paused"),
                "deployment {id} was {} and is {}",
                before.state,
                after.state
            );
            assert_eq!(before.wave, after.wave, "deployment {id}");
        }
        assert_eq!(site.service.frozen().frozen, self.frozen);
        for (device, (before, after)) in pins.into_iter().zip(offered(&site)).enumerate() {
            assert_eq!(before, after, "{} was offered this before the restart", name(device));
        }
        self.site = Some(site);
        self.set_clock().await;
    }

    /// The clock shows a time in the window, or one that is not; that is noticed at once.
    async fn set_clock(&self) {
        let engine = &self.site().service.0;
        engine.wall.set(if self.open { IN_WINDOW } else { IN_WINDOW + 7200 });
        if engine.window_opened() {
            engine.reconsider_all().await;
        }
    }

    /// Reads what every device heard, and compares it with what it may hear.
    async fn listen(&mut self) {
        for index in 0..DEVICES {
            self.devices[index].lose();
            while self.devices[index].session.as_ref().is_some_and(|session| !session.is_empty()) {
                let session = self.devices[index].session.as_mut().unwrap();
                let message = session.next().await;
                match message["variable"].as_str().unwrap() {
                    "firmware_manifest" => self.heard_manifest(index, &message["metadata"]),
                    "firmware_block" => self.heard_block(index, &message),
                    "fuota_error" => {}
                    other => panic!("{other}"),
                }
            }
        }
    }

    fn heard_manifest(&mut self, index: usize, metadata: &Value) {
        let who = name(index);
        let digest = metadata["sha256"].as_str().unwrap().to_owned();
        let (id, begun) = {
            let device = self.site().service.0.registry.get(&who).unwrap();
            let state = device.state.lock();
            let transfer = state.transfer.as_ref().unwrap();
            assert_eq!(transfer.pin.sha256, digest, "{who}: the manifest is not of its offer");
            assert!(transfer.pin.attempt <= 3, "{who}: attempt {}", transfer.pin.attempt);
            (transfer.pin.deployment.unwrap(), transfer.state().name() != "offered")
        };
        let view = self.site().service.deployment(id).unwrap();
        let image = &self.images.iter().find(|(known, _)| *known == digest).unwrap().1;
        assert!(!image.withdrawn, "{who}: {} is withdrawn", image.version);
        assert!(begun || !self.frozen, "{who}: the site is frozen");
        assert!(begun || self.open, "{who}: the window is closed");
        // What was offered before its file was overwritten may be begun.
        let offers = matches!(view.state, "running" | "ended");
        assert!(begun || offers, "{who}: deployment {id} is {}", view.state);
        let known = self.deployments.get_mut(&id).unwrap();
        assert_eq!(known.digest, digest);
        if let Some(device) = view.target.device {
            assert_eq!(device, who, "deployment {id} is for one device");
        }
        // A digest is neither higher nor lower.
        let number = |version: &str| version.strip_suffix(".0.0")?.parse::<u32>().ok();
        let runs = self.devices[index].runs.as_deref().filter(|_| !known.downgrade);
        if let Some(runs) = runs
            && let (Some(own), Some(new)) = (number(runs), number(&image.version))
        {
            assert!(own < new, "{who} runs {runs}, hears {}", image.version);
        }
        assert!(!known.out.contains(&index), "{who} was taken out of deployment {id}");
        // One that an operator sends down waits only for what failed in itself.
        let failed = self.devices[index].failed.get(&digest);
        let failed = failed.is_some_and(|failed| !known.downgrade || *failed == id);
        assert!(!(self.patient && failed), "{who}: the next attempt is not due");
        known.heard.insert(index);
        if known.canary && !known.opened && known.ran.is_empty() {
            // One that was given something else instead may be followed by another.
            // One that was taken out gave its place to another.
            let members = view.counts.values().sum::<usize>() - view.counts["cancelled"];
            assert!(members <= 1, "deployment {id}: {members} devices before one ran it");
        }
        let device = &mut self.devices[index];
        if device.digest.as_ref() != Some(&digest) {
            device.got.clear();
        }
        device.digest = Some(digest);
        device.total = metadata["total_chunks"].as_u64().unwrap() as u32;
    }

    fn heard_block(&mut self, index: usize, message: &Value) {
        let device = &mut self.devices[index];
        let data = message["metadata"]["data"].as_str().unwrap();
        let data = base64_simd::STANDARD.decode_to_vec(data).unwrap();
        let block = message["value"].as_u64().unwrap() as u32;
        // A wild request may be answered to a device that dropped what it was told.
        let Some(digest) = &device.digest else { return };
        let image = &self.images.iter().find(|(known, _)| known == digest).unwrap().1;
        let start = block as usize * 100;
        let expected = &image.bytes[start..(start + 100).min(image.bytes.len())];
        assert_eq!(data, expected, "{}: block {block} is of another image", name(index));
        device.got.insert(block, data);
    }

    /// What the fleet says of devices is what the devices' own transfers say, and no rollout goes
    /// on over a failure of which nobody knows: with so few devices one is too many in any wave.
    fn compare(&self) {
        let engine = &self.site().service.0;
        for (id, known) in self.deployments.iter().filter(|(_, one)| one.canary && !one.opened) {
            let failed = |(index, device): (usize, &Device)| {
                device.failed.get(&known.digest) == Some(id) && !known.ran.contains(&index)
            };
            let state = self.site().service.deployment(*id).map(|view| view.state);
            let failed = self.devices.iter().enumerate().any(failed);
            assert!(!failed || state != Some("running"), "deployment {id} goes on");
        }
        for device in engine.registry.all() {
            let state = device.state.lock();
            let Some(transfer) = &state.transfer else { continue };
            let fleet = engine.fleet.lock();
            let deployment = &fleet.deployments[&transfer.pin.deployment.unwrap()];
            if let Some(member) =
                deployment.members.get(&device.id).and_then(|member| member.state.clone())
            {
                assert_eq!(member, transfer.state(), "{}", device.id);
            }
        }
    }
}

/// Does this, and looks after each step.
fn play(steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(steps.len().is_multiple_of(2)).await;
        world.set_clock().await;
        for step in steps {
            world.run(step).await;
            world.settle().await;
            world.listen().await;
            world.settle().await;
            world.compare();
        }
    });
}

/// Plays random sequences of these steps.
fn play_all(cases: u32, step: impl Strategy<Value = Step>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let outcome = runner.run(&prop::collection::vec(step, 1..LONGEST), |steps| {
        play(steps);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn whatever_operators_devices_and_faults_do_the_rules_hold() {
    play_all(CASES, step());
}

/// Few devices, many images, and connections that take what was written with them.
#[test]
fn rule_15_whatever_is_lost_no_device_mixes_two_images() {
    let device = || 0..2u8;
    let deploy = Step::Deploy { target: 1, canary: false };
    let lossy = prop_oneof![
        2 => Just(deploy),
        2 => Just(Step::Overwrite),
        1 => any::<u8>().prop_map(|deployment| Step::Act { deployment, act: 4 }),
        1 => any::<u8>().prop_map(Step::ReportFailure),
        4 => device().prop_map(Step::Connect),
        1 => device().prop_map(Step::Disconnect),
        8 => device().prop_map(Step::GoOn),
        5 => any::<u8>().prop_map(Step::Lose),
        4 => any::<u8>().prop_map(Step::ComeBack),
        1 => Just(Step::Crash),
    ];
    play_all(LOSSY_CASES, lossy);
}
