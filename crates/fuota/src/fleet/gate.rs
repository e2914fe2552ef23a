//! What the policy asks the fleet about one device.

use std::{cell::Cell, collections::HashMap, sync::Arc};

use parking_lot::MutexGuard;
use store::Digest;
use tokio::time::Instant;

use super::{Fleet, deployment::Member, starts::Cap};
use crate::{
    catalog::{Catalog, Release},
    device::{Device, DeviceState},
    engine::Engine,
    policy::{Decision, Gate, History, decide, describe},
    settings::Settings,
    state::UpdateState,
    transfer::Transfer,
};

/// What a device hears before the first scan.
pub const UNREAD: &str = "the firmware store is not read yet; try again";

/// What a device waits for, where nothing else holds it back.
#[derive(Default)]
pub struct Held {
    /// The cap that holds the best one back.
    pub cap: Option<Cap>,
    /// When the first of its next attempts may come.
    pub until: Option<Instant>,
}

/// The fleet as one device sees it.
struct Door<'a> {
    fleet: MutexGuard<'a, Fleet>,
    device: &'a str,
    counts: bool,
    groups: &'a [String],
    settings: &'a Settings,
    engine: &'a Engine,
    history: &'a HashMap<Digest, History>,
    /// What holds back that nothing else does.
    held: Cell<Held>,
    /// A deployment whose waves are all taken as open.
    free: Option<i64>,
}

impl Gate for Door<'_> {
    fn lists(&self, release: &Release) -> bool {
        let deployment = self.fleet.deployments.get(&release.deployment);
        deployment.is_some_and(|one| one.members.contains_key(self.device))
    }

    fn holds(&self, release: &Release) -> Option<String> {
        let deployment = self.fleet.deployments.get(&release.deployment);
        let member = deployment.and_then(|one| one.members.get(self.device));
        if let Some(by) = member.and_then(|member| member.cancelled.as_deref()) {
            let id = release.deployment;
            return Some(format!(
                "{by} cancelled it for this device; `fuotad deployment retry {id} --device {}` offers it again",
                self.device
            ));
        }
        if self.free == Some(release.deployment) {
            return None;
        }
        if let Some(frozen) = &self.fleet.frozen {
            return Some(format!("{} froze all offers of the site", frozen.by));
        }
        let Some(deployment) = deployment else {
            return Some("its deployment is gone".into());
        };
        if let Err(reason) = deployment.admits(self.device, self.counts) {
            return Some(reason);
        }
        if let Some(reason) = self.engine.window_closed(deployment, self.settings) {
            return Some(reason);
        }
        let now = Instant::now();
        let mut held = self.held.take();
        let reason = self.waits(release, member, now).map(|(until, reason)| {
            held.until = Some(held.until.map_or(until, |other| other.min(until)));
            reason
        });
        let reason = reason.or_else(|| {
            let starts = &self.fleet.starts;
            let (cap, reason) =
                starts.blocked(self.settings, deployment, self.device, self.groups, now)?;
            held.cap.get_or_insert(cap);
            Some(reason)
        });
        self.held.set(held);
        reason
    }

    fn history(&self, release: &Release) -> Option<History> {
        let deployment = self.fleet.deployments.get(&release.deployment);
        let member = deployment.and_then(|one| one.members.get(self.device));
        // What it had before, it may be given again by this one.
        release.downgrade.then(|| member.map(|member| member.history).unwrap_or_default())
    }
}

impl Door<'_> {
    /// Until when, and why, its next attempt at this waits.
    fn waits(
        &self,
        release: &Release,
        member: Option<&Member>,
        now: Instant,
    ) -> Option<(Instant, String)> {
        let history = self.history.get(&release.digest)?;
        let wait = history.wait?;
        wait.left(now)?;
        // What failed before an operator sent it down to this does not count.
        if release.downgrade && member.is_none_or(|member| member.history.offers == 0) {
            return None;
        }
        let (next, most) = (history.offers + 1, self.settings.max_attempts);
        let at = moment(wait.until);
        Some((wait.ends(), format!("attempt {next} of {most} comes at {at}, or later")))
    }
}

/// A time for people.
fn moment(unix: u64) -> String {
    let at = i64::try_from(unix).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
    at.map(|at| at.to_string()).unwrap_or_default()
}

impl Engine {
    /// Which image a device should be offered now, and why not.
    pub fn decide(&self, device: &Device, state: &DeviceState) -> Decision {
        self.decide_now(device, state).0
    }

    /// The same, with what the device would have to wait for.
    pub fn decide_now(&self, device: &Device, state: &DeviceState) -> (Decision, Held) {
        let (decision, held) = self.decide_with(&self.catalog.load(), device, state, None);
        match decision {
            Decision::Run(release) if !self.may_offer_file(release.file) => {
                let why = match &*self.store_problem.lock() {
                    Some(problem) => format!("{} waits: {problem}", describe(&release)),
                    None => UNREAD.into(),
                };
                (Decision::Nothing(why), Held::default())
            }
            decision => (decision, held),
        }
    }

    /// Whether it should be offered what this deployment offers, as far as waves, pauses and
    /// freezes do not matter.
    pub fn would_run(&self, deployment: i64, device: &Device, state: &DeviceState) -> bool {
        matches!(
            self.decide_in(&self.catalog.load(), device, state, deployment),
            Decision::Run(release) if release.deployment == deployment
        )
    }

    /// The same in another catalog than the present one, as far as the waves of the deployment
    /// `free` do not matter.
    pub fn decide_in(
        &self,
        catalog: &Catalog,
        device: &Device,
        state: &DeviceState,
        free: i64,
    ) -> Decision {
        self.decide_with(catalog, device, state, Some(free)).0
    }

    fn decide_with(
        &self,
        catalog: &Catalog,
        device: &Device,
        state: &DeviceState,
        free: Option<i64>,
    ) -> (Decision, Held) {
        // Before the fleet's lock: it looks at the registry.
        let counts = self.counts(device, state);
        let settings = self.settings();
        let gate = Door {
            fleet: self.fleet.lock(),
            device: &device.id,
            counts,
            groups: &state.groups,
            settings: &settings,
            engine: self,
            history: &state.history,
            held: Cell::default(),
            free,
        };
        let decision = decide(catalog, &state.facts(&device.id), settings.max_attempts, &gate);
        (decision, gate.held.take())
    }

    /// Whether a device counts in waves and thresholds (rule 5).
    pub fn counts(&self, device: &Device, state: &DeviceState) -> bool {
        device.stored && (state.registered || !self.registry.has_registered())
    }

    /// Why a transfer that its device has not begun is not announced now; running ones finish.
    pub fn holds_back(&self, deployment: Option<i64>) -> Option<String> {
        self.paused(deployment).or_else(|| {
            let fleet = self.fleet.lock();
            self.window_closed(fleet.deployments.get(&deployment?)?, &self.settings())
        })
    }

    /// The same, but for windows.
    pub fn paused(&self, deployment: Option<i64>) -> Option<String> {
        let fleet = self.fleet.lock();
        if let Some(frozen) = &fleet.frozen {
            return Some(format!("{} froze all offers of the site", frozen.by));
        }
        let deployment = fleet.deployments.get(&deployment?)?;
        use super::deployment::DeploymentState::{Held, Paused};
        if matches!(deployment.state, Held | Paused) {
            let (id, state) = (deployment.id, deployment.state.name());
            let reason = deployment.reason.as_deref().unwrap_or("an operator stopped it");
            return Some(format!("deployment {id} is {state}: {reason}"));
        }
        let id = deployment.id;
        drop(fleet);
        let catalog = self.catalog.load();
        catalog.suspended(id).map(|reason| format!("its file is refused now: {reason}"))
    }

    /// The version of what a device was confirmed with last, which it runs where it reports none.
    pub fn inferred_version(&self, device: &Device) -> Option<String> {
        let confirmed = device.state.lock().confirmed?;
        let catalog = self.catalog.load();
        Some(catalog.file(confirmed)?.version.text.clone())
    }

    /// When what failed for a device is offered again at the earliest, in seconds since 1970;
    /// `None` where it may be at any time, or is not.
    pub fn next_attempt(&self, device: &Device) -> Option<u64> {
        let state = device.state.lock();
        let transfer = state.transfer.as_ref()?;
        if !matches!(transfer.state(), UpdateState::Failed(_)) {
            return None;
        }
        let wait = state.history.get(&transfer.pin.digest)?.wait?;
        wait.left(Instant::now())?;
        let fleet = self.fleet.lock();
        let deployment = fleet.deployments.get(&transfer.pin.deployment?)?;
        let member = deployment.members.get(&device.id);
        let ended =
            deployment.state.is_over() || member.is_some_and(|member| member.cancelled.is_some());
        (!ended).then_some(wait.until)
    }

    /// One sentence about a device: what it should run, and why it is or is not offered it.
    pub fn why(&self, device: &Arc<Device>) -> (String, Option<i64>, Option<UpdateState>) {
        let state = device.state.lock();
        let transfer = state.transfer.clone();
        let update = transfer.as_ref().map(|transfer| transfer.state());
        let running = |transfer: &&Arc<Transfer>| transfer.state().is_running();
        let id = &device.id;
        if let Some(transfer) = transfer.as_ref().filter(running) {
            let pin = &transfer.pin;
            let (what, sent) = (format!("{} ({})", pin.version, pin.path), transfer.sent());
            let held = self.holds_back(pin.deployment).filter(|_| sent == 0);
            let stalled = update == Some(UpdateState::Stalled);
            let sentence = match (held, state.links.is_empty()) {
                (Some(reason), _) => format!("{id} was offered {what} and has not begun: {reason}"),
                (None, away) if stalled => {
                    let how = if away { "went away" } else { "stopped asking" };
                    format!(
                        "{id} was being given {what} and {how} after {sent} of {} blocks; it goes on when it asks again",
                        pin.total
                    )
                }
                (None, true) => {
                    format!(
                        "{id} is being given {what}, {sent} of {} blocks, and is away",
                        pin.total
                    )
                }
                (None, false) => {
                    let stall = self.stall(&state, transfer);
                    let stall = stall.map(|why| format!("; {why}")).unwrap_or_default();
                    format!("{id} is being given {what}, {sent} of {} blocks{stall}", pin.total)
                }
            };
            return (sentence, pin.deployment, update);
        }
        match self.decide(device, &state) {
            Decision::Run(release) => {
                let what = describe(&release);
                let waits = if state.newest_downlink().is_some() {
                    state.why.clone().unwrap_or_else(|| "it is offered it in a moment".into())
                } else if state.links.is_empty() {
                    "it is away, and is offered it when it comes back".into()
                } else {
                    "it has not subscribed to its downlink".into()
                };
                (format!("{id} should run {what}: {waits}"), Some(release.deployment), update)
            }
            Decision::Nothing(why) => (format!("{id} is offered nothing: {why}"), None, update),
        }
    }
}
