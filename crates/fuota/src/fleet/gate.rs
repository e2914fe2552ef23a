//! What the policy asks the fleet about one device.

use parking_lot::MutexGuard;

use super::Fleet;
use crate::{
    catalog::{Catalog, Release},
    device::{Device, DeviceState},
    engine::Engine,
    policy::{Decision, Gate, History, decide},
};

/// The fleet as one device sees it.
struct Door<'a> {
    fleet: MutexGuard<'a, Fleet>,
    device: &'a str,
    counts: bool,
    /// A deployment whose waves are all taken as open.
    free: Option<i64>,
}

impl Gate for Door<'_> {
    fn lists(&self, release: &Release) -> bool {
        let deployment = self.fleet.deployments.get(&release.deployment);
        deployment.is_some_and(|one| one.members.contains_key(self.device))
    }

    fn holds(&self, release: &Release) -> Option<String> {
        if self.free == Some(release.deployment) {
            return None;
        }
        if let Some(frozen) = &self.fleet.frozen {
            return Some(format!("{} froze all offers of the site", frozen.by));
        }
        match self.fleet.deployments.get(&release.deployment) {
            Some(deployment) => deployment.admits(self.device, self.counts).err(),
            None => Some("its deployment is gone".into()),
        }
    }

    fn history(&self, release: &Release) -> Option<History> {
        let deployment = self.fleet.deployments.get(&release.deployment);
        let member = deployment.and_then(|one| one.members.get(self.device));
        // What it had before, it may be given again by this one.
        release.downgrade.then(|| member.map(|member| member.history).unwrap_or_default())
    }
}

impl Engine {
    /// Which image a device should be offered now, and why not.
    pub fn decide(&self, device: &Device, state: &DeviceState) -> Decision {
        self.decide_with(device, state, None)
    }

    /// Whether it should be offered what this deployment offers, as far as waves, pauses and
    /// freezes do not matter.
    pub fn would_run(&self, deployment: i64, device: &Device, state: &DeviceState) -> bool {
        matches!(
            self.decide_with(device, state, Some(deployment)),
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
        let counts = self.counts(device, state);
        let gate = Door { fleet: self.fleet.lock(), device: &device.id, counts, free: Some(free) };
        decide(catalog, &state.facts(&device.id), self.settings().max_attempts, &gate)
    }

    fn decide_with(&self, device: &Device, state: &DeviceState, free: Option<i64>) -> Decision {
        // Before the fleet's lock: it looks at the registry.
        let counts = self.counts(device, state);
        let gate = Door { fleet: self.fleet.lock(), device: &device.id, counts, free };
        decide(&self.catalog.load(), &state.facts(&device.id), self.settings().max_attempts, &gate)
    }

    /// Whether a device counts in waves and thresholds (rule 5).
    pub fn counts(&self, device: &Device, state: &DeviceState) -> bool {
        device.stored && (state.registered || !self.registry.has_registered())
    }

    /// Why a transfer that its device has not begun is not announced now; running ones finish.
    pub fn holds_back(&self, deployment: Option<i64>) -> Option<String> {
        let fleet = self.fleet.lock();
        if let Some(frozen) = &fleet.frozen {
            return Some(format!("{} froze all offers of the site", frozen.by));
        }
        let deployment = fleet.deployments.get(&deployment?)?;
        use super::deployment::DeploymentState::{Held, Paused};
        matches!(deployment.state, Held | Paused).then(|| {
            let reason = deployment.reason.as_deref().unwrap_or("an operator stopped it");
            format!("deployment {} is {}: {reason}", deployment.id, deployment.state.name())
        })
    }
}
