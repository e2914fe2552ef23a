//! Who waits for a cap or a window, and goes on when there is room or it opens (rules 20 and 23).

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    deployment::{Deployment, DeploymentState},
    starts::Cap,
    target::Target,
};
use crate::{
    catalog::Release,
    device::{Device, DeviceState},
    engine::Engine,
    settings::Settings,
    timers::Event,
    window::Windows,
};

/// The wall clock, which windows are compared with.
#[derive(Default)]
pub struct Wall {
    #[cfg(test)]
    fixed: std::sync::atomic::AtomicU64,
}

impl Wall {
    /// Seconds since 1970.
    pub fn now(&self) -> u64 {
        #[cfg(test)]
        {
            let fixed = self.fixed.load(std::sync::atomic::Ordering::Relaxed);
            if fixed != 0 {
                return fixed;
            }
        }
        hook::clock::unix_now()
    }

    /// It shows this from now on.
    #[cfg(test)]
    pub fn set(&self, unix: u64) {
        self.fixed.store(unix, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Which windows were open when they were looked at last, by their text.
pub type Open = BTreeMap<String, bool>;

impl Engine {
    /// This device waits for this cap.
    pub fn wait_for(&self, cap: Cap, device: &Arc<Device>) {
        self.fleet.lock().starts.wait(cap, &device.id);
        self.arm_starts();
    }

    /// Considers those anew that waited for what has room now.
    pub fn start_waiting(self: &Arc<Self>) {
        loop {
            let next = {
                let fleet = &mut *self.fleet.lock();
                let deployments = &fleet.deployments;
                let limits = |id| deployments.get(&id).map(|one| &one.conditions.limits);
                fleet.starts.next(&self.settings(), limits, Instant::now())
            };
            // Each is taken out of its queue; whom a cap still holds back goes to the end of one.
            let Some(id) = next else { break };
            if let Some(device) = self.registry.get(&id) {
                self.consider(&device);
            }
        }
        self.arm_starts();
    }

    /// The timer of a rate is due.
    pub fn starts_due(self: &Arc<Self>) {
        self.fleet.lock().starts.armed = None;
        self.start_waiting();
    }

    fn arm_starts(&self) {
        let starts = &mut self.fleet.lock().starts;
        let Some(due) = starts.due(Instant::now()) else { return };
        if starts.armed.is_none_or(|armed| due < armed) {
            starts.armed = Some(due);
            self.timers.at(due, Event::Starts);
        }
    }

    /// How long this device waits yet so that not all begin at one moment; `None`: it may begin.
    /// A device that somebody named does not wait. The device is locked by the caller.
    pub fn jitter(
        &self,
        device: &Arc<Device>,
        state: &mut DeviceState,
        release: &Release,
    ) -> Option<Duration> {
        let most = self.settings().jitter;
        if most.is_zero() || matches!(release.target, Target::Device(_)) {
            return None;
        }
        let now = Instant::now();
        let until = match state.turn {
            Some((deployment, until)) if deployment == release.deployment => until,
            _ => {
                let share =
                    RandomState::new().hash_one(release.deployment) as f64 / u64::MAX as f64;
                let until = now + most.mul_f64(share);
                state.turn = Some((release.deployment, until));
                self.timers.at(until, Event::Consider(Arc::downgrade(device)));
                until
            }
        };
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Why a deployment's window holds it back, which is remembered, so that its opening is
    /// noticed however short it was closed. The fleet is locked by the caller.
    pub fn window_closed(&self, deployment: &Deployment, settings: &Settings) -> Option<String> {
        let windows = deployment.conditions.windows(settings);
        let reason = windows.closed(self.wall.now())?;
        self.windows.lock().insert(windows.to_string(), false);
        Some(reason)
    }

    /// Whether a window that was closed is open now. Called again and again, since the wall
    /// clock may be set.
    pub fn window_opened(&self) -> bool {
        let (now, settings) = (self.wall.now(), self.settings());
        let mut open = Open::new();
        let mut look = |windows: &Windows| {
            if !windows.is_empty() {
                open.entry(windows.to_string()).or_insert_with(|| windows.is_open(now));
            }
        };
        look(&settings.windows);
        for deployment in self.fleet.lock().deployments.values() {
            if deployment.state == DeploymentState::Running
                && let Some(own) = &deployment.conditions.windows
            {
                look(own);
            }
        }
        let mut last = self.windows.lock();
        let mut opened = false;
        for (window, is_open) in &open {
            let was = last.get(window);
            if was != Some(is_open) {
                let is = if *is_open { "open" } else { "closed" };
                tracing::info!(window, "the maintenance window is {is}");
            }
            opened |= *is_open && was != Some(&true);
        }
        *last = open;
        opened
    }

    /// Why the wall clock cannot be right, where windows depend on it.
    pub fn clock_problem(&self) -> Option<String> {
        let now = self.wall.now();
        (!hook::clock::is_set(now)).then(|| crate::window::not_set(now))
    }
}
