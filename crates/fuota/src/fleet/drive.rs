//! From what devices do to how deployments stand, and from that to the next wave or a pause
//! (rules 20 and 21).

use std::sync::Arc;

use super::{
    deployment::{Deployment, DeploymentState},
    events::Change,
    rollout::Step,
};
use crate::{
    db::Op,
    device::{Device, DeviceState},
    engine::Engine,
    pin::Pin,
    state::UpdateState,
    transfer::{Transfer, unix_now},
};

/// Devices that are looked at before others may run.
const BREATH: usize = 64;

/// How a rollout was found, and what follows from that.
pub struct Look {
    wave: usize,
    size: usize,
    step: Step,
}

/// A device that is to get a deployment and is not in yet.
pub struct Candidate {
    device: Arc<Device>,
    online: bool,
    /// Whether its label says `canary`.
    canary: bool,
    /// Whether it is being given something else.
    busy: bool,
}

impl Engine {
    /// A transfer moved: its deployment takes that over. The device is locked by the caller.
    pub fn track(
        &self,
        device: &Device,
        state: &mut DeviceState,
        transfer: &Transfer,
    ) -> Option<Op> {
        let now = transfer.state();
        if matches!(now, UpdateState::Updated | UpdateState::UpdatedUnconfirmed) {
            state.confirmed = transfer.pin.file.or(state.confirmed);
        }
        self.tell_device(device, transfer);
        let op = {
            let mut fleet = self.fleet.lock();
            if !now.is_under_way() {
                fleet.starts.end(&device.id);
            }
            fleet.change(transfer.pin.deployment?, &device.id, |member| member.moved(now))
        };
        self.rollouts.notify_one();
        op
    }

    /// The transfer of a device that is back goes on: it is under way again. The device is locked
    /// by the caller.
    pub fn goes_on(&self, device: &Device, state: &DeviceState, deployment: i64) {
        self.fleet.lock().starts.go_on(&device.id, deployment, &state.groups);
    }

    /// Tells whoever listens where a device stands.
    pub fn tell_device(&self, device: &Device, transfer: &Transfer) {
        let state = transfer.state();
        self.events.tell(Change::Device {
            at: unix_now(),
            device: device.id.to_string(),
            state: state.name(),
            reason: state.reason().map(str::to_owned),
            deployment: transfer.pin.deployment.map(|id| id.to_string()),
            version: transfer.pin.version.clone(),
        });
    }

    /// Its device asked for the first block. That is written with the progress.
    pub fn begun(&self, device: &Device, transfer: &Transfer) {
        self.tell_device(device, transfer);
        let Some(id) = transfer.pin.deployment else { return };
        let now = transfer.state();
        drop(self.fleet.lock().change(id, &device.id, |member| member.moved(now)));
        self.rollouts.notify_one();
    }

    /// All blocks were served to a member. Written with what follows.
    pub fn delivered_member(&self, device: &Device, pin: &Pin) {
        let Some(id) = pin.deployment else { return };
        drop(self.fleet.lock().change(id, &device.id, |member| {
            member.history.deliveries += 1;
            member.history.differs = false;
        }));
    }

    /// A member reports another version than it was given. Written with what follows.
    pub fn differs_member(&self, device: &Device, pin: &Pin) {
        let Some(id) = pin.deployment else { return };
        drop(self.fleet.lock().change(id, &device.id, |member| member.history.differs = true));
    }

    /// An offer is being written: what its deployment, and the one of the transfer `before`, note
    /// of the device.
    pub fn offering(
        &self,
        device: &Arc<Device>,
        pin: &Pin,
        confirmed: Option<i64>,
        before: Option<&Transfer>,
    ) -> Vec<Op> {
        let Some(id) = pin.deployment else { return Vec::new() };
        let mut fleet = self.fleet.lock();
        let mut ops = Vec::from_iter(fleet.change(id, &device.id, |member| {
            member.moved(UpdateState::Offered);
            member.history.offers = pin.attempt;
            member.before = member.before.or(confirmed.filter(|file| Some(*file) != pin.file));
        }));
        // What the device was given before has no outcome any more that could be waited for.
        let other = before.filter(|before| !before.state().is_settled());
        if let Some(old) = other.and_then(|before| before.pin.deployment).filter(|old| *old != id)
            && let Some(deployment) = fleet.deployments.get_mut(&old)
            && let Some(mut member) = deployment.take(&device.id)
        {
            if member.reached {
                member.counts = false;
                ops.push(Op::Member(member.row(old, &device.id)));
                deployment.put(&device.id, member);
            } else {
                ops.push(Op::MemberGone(old, device.id.to_string()));
            }
            fleet.due.insert(old);
        }
        drop(fleet);
        self.rollouts.notify_one();
        ops
    }

    /// That offer could not be written; it is tried again.
    pub fn offering_failed(&self, device: &Device, pin: &Pin) {
        let Some(id) = pin.deployment else { return };
        let mut fleet = self.fleet.lock();
        fleet.starts.end(&device.id);
        drop(fleet.change(id, &device.id, |member| {
            member.state = None;
            member.history.offers = pin.attempt.saturating_sub(1);
        }));
    }

    /// Whether its deployment was cancelled, or cancelled for this device, while the offer was
    /// written; then so is it.
    pub fn cancelled_meanwhile(
        &self,
        device: &Arc<Device>,
        state: &mut DeviceState,
        transfer: &Arc<Transfer>,
    ) -> bool {
        let cancelled = transfer
            .pin
            .deployment
            .is_some_and(|id| self.fleet.lock().has_stopped(id, &device.id).unwrap_or(true));
        if cancelled && let Some(next) = transfer.stop() {
            self.moved(device, state, transfer, &next);
        }
        cancelled
    }

    /// A device went away that was let into a wave and not offered anything yet.
    pub fn release_places(&self, device: &Arc<Device>) {
        let mut fleet = self.fleet.lock();
        fleet.release(&device.id);
        fleet.starts.end(&device.id);
        drop(fleet);
        self.rollouts.notify_one();
    }

    /// Looks at the rollouts that may go on, or must not.
    pub async fn drive(self: &Arc<Self>) {
        if !self.may_offer() {
            return;
        }
        loop {
            let (id, file) = {
                let mut fleet = self.fleet.lock();
                let Some(id) = fleet.due.pop_first() else { return };
                (id, fleet.deployments.get(&id).map(|one| one.file))
            };
            // The others are looked at again after the first scan.
            if file.is_some_and(|file| self.may_offer_file(file)) {
                self.advance(id).await;
            }
        }
    }

    async fn advance(self: &Arc<Self>, id: i64) {
        // One that was made just now finds no devices before the catalog knows it; then every
        // rollout is looked at again. A wave that opened for nobody would go to whoever is first.
        if !self.catalog.load().offers(id) {
            return;
        }
        let Some(look) = self.look(id) else { return };
        let candidates = self.candidates(id).await;
        match self.follow(id, &look, candidates) {
            Some(chosen) => chosen.iter().for_each(|device| self.consider(device)),
            None => self.reconsider_all().await,
        }
    }

    /// What follows for a rollout, if it needs devices; a pause follows at once.
    pub fn look(&self, id: i64) -> Option<Look> {
        let mut fleet = self.fleet.lock();
        let deployment = fleet.deployments.get_mut(&id)?;
        if deployment.state != DeploymentState::Running || !deployment.is_staged() {
            return None;
        }
        let step = match deployment.plan.step(&deployment.standing()) {
            Step::Pause(reason) => {
                tracing::warn!(deployment = id, reason, "the rollout is paused");
                deployment.state = DeploymentState::Paused;
                deployment.reason = Some(reason.clone());
                let subject = format!("deployment {id}");
                let audit = Engine::audit(&subject, "paused", Some(reason));
                self.store(deployment, vec![audit]);
                return None;
            }
            // It is not open yet: nobody knows for how many it is.
            _ if deployment.size == 0 => Step::Stay,
            Step::Stay => return None,
            step => step,
        };
        Some(Look { wave: deployment.wave, size: deployment.size, step })
    }

    /// Does what was seen to follow, for these devices. Returns whom to consider; `None`:
    /// everybody.
    pub fn follow(
        &self,
        id: i64,
        look: &Look,
        candidates: Vec<Candidate>,
    ) -> Option<Vec<Arc<Device>>> {
        let mut fleet = self.fleet.lock();
        let nobody = Some(Vec::new());
        let Some(deployment) = fleet.deployments.get_mut(&id) else { return nobody };
        if deployment.state != DeploymentState::Running {
            return nobody;
        }
        // The candidates took a while. An operator may have opened the next wave meanwhile, and
        // what is in counts only as far as it did then.
        let same = (deployment.wave, deployment.size) == (look.wave, look.size);
        if !same || deployment.size > 0 && deployment.plan.step(&deployment.standing()) != look.step
        {
            fleet.due.insert(id);
            return nobody;
        }
        let before = deployment.wave;
        let chosen = self.go_on(deployment, &look.step, candidates);
        if deployment.wave != before {
            // It may be full of devices of the waves before.
            fleet.due.insert(id);
        }
        chosen
    }

    /// Opens the wave, or the next one, for these devices, and lets in those that are online.
    /// Returns whom to consider; `None`: everybody.
    fn go_on(
        &self,
        deployment: &mut Deployment,
        step: &Step,
        candidates: Vec<Candidate>,
    ) -> Option<Vec<Arc<Device>>> {
        let standing = deployment.standing();
        let total = standing.admitted + candidates.len();
        let on = *step == Step::Next
            || (*step == Step::Fill && candidates.is_empty() && standing.admitted > 0);
        let wave = if on { deployment.wave + 1 } else { deployment.wave };
        let before = (deployment.wave, deployment.size);
        deployment.open_wave(wave, total);
        if before != (deployment.wave, deployment.size) {
            tracing::info!(
                deployment = deployment.id,
                wave = wave + 1,
                devices = deployment.size,
                of = total,
                "a wave of the rollout is open"
            );
            let detail = format!("wave {}: {} of {total} devices", wave + 1, deployment.size);
            let subject = format!("deployment {}", deployment.id);
            self.store(deployment, vec![Engine::audit(&subject, "wave opened", Some(detail))]);
        }
        if deployment.plan.is_last(wave) {
            // Opened just now, it is for those as well that count in no wave.
            return if on { None } else { Some(Vec::new()) };
        }
        let mut chosen = Vec::new();
        for candidate in candidates.into_iter().filter(|candidate| candidate.online) {
            if deployment.admit(&candidate.device.id, true).is_err() {
                break;
            }
            chosen.push(candidate.device);
        }
        Some(chosen)
    }

    /// Writes a deployment's row. The fleet is locked by the caller.
    fn store(&self, deployment: &Deployment, more: Vec<Op>) {
        self.events.tell(Change::of(deployment));
        let mut ops = vec![Op::Deployment(deployment.row())];
        ops.extend(more);
        drop(self.keep(ops));
    }

    /// The devices that count and would be offered this, were its waves all open, in the order
    /// in which they are taken.
    pub async fn candidates(self: &Arc<Self>, id: i64) -> Vec<Candidate> {
        let mut found = Vec::new();
        for (number, device) in self.registry.all().into_iter().enumerate() {
            if let Some(candidate) = self.candidate(id, &device) {
                found.push(candidate);
            }
            if number % BREATH == BREATH - 1 {
                tokio::task::yield_now().await;
            }
        }
        found.sort_by(|a, b| {
            let key = |one: &Candidate| (!one.online, !one.canary, one.busy);
            key(a).cmp(&key(b)).then_with(|| a.device.id.cmp(&b.device.id))
        });
        found
    }

    fn candidate(&self, id: i64, device: &Arc<Device>) -> Option<Candidate> {
        let state = device.state.lock();
        let is_in = {
            let fleet = self.fleet.lock();
            let member = fleet.deployments.get(&id)?.members.get(&device.id);
            member.is_some_and(|member| member.wave.is_some())
        };
        // One that was never seen is only a name so far.
        if is_in || device.last_seen().is_none() || !self.counts(device, &state) {
            return None;
        }
        if !self.would_run(id, device, &state) {
            return None;
        }
        let running = |transfer: &Arc<Transfer>| transfer.state().is_running();
        Some(Candidate {
            device: Arc::clone(device),
            online: state.newest_downlink().is_some(),
            canary: state.labels.contains_key("canary"),
            busy: state.pinning.is_some() || state.transfer.as_ref().is_some_and(running),
        })
    }

    /// Every rollout is looked at: devices or files changed.
    pub fn drive_all(&self) {
        let mut fleet = self.fleet.lock();
        let running = fleet
            .deployments
            .values()
            .filter(|one| one.state == DeploymentState::Running && one.is_staged());
        let ids: Vec<i64> = running.map(|one| one.id).collect();
        fleet.due.extend(ids);
        drop(fleet);
        self.rollouts.notify_one();
    }
}
