//! Offers of which their device has not asked for anything yet. What changed since counts for
//! them, as for one that is still to be made (rules 8, 9, 12, 13, 21 and 22); what has begun
//! finishes.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    db::Op,
    device::{Device, DeviceState},
    engine::Engine,
    fleet::target::Target,
    link::LinkState,
    policy::{self, Decision},
    state::{Happened, UpdateState},
    transfer::Transfer,
};

impl Engine {
    /// What the device is being given. An offer that is not for it any more, and that it has not
    /// begun, is taken back first.
    pub fn running(&self, device: &Arc<Device>, state: &mut DeviceState) -> Option<Arc<Transfer>> {
        let transfer = state.transfer.clone().filter(|transfer| transfer.state().is_running())?;
        let why = if transfer.has_begun() { None } else { self.misfit(device, state, &transfer) };
        match why {
            None => Some(transfer),
            Some(why) => {
                self.take_offer_back(device, state, &transfer, why);
                None
            }
        }
    }

    /// Why an offer is not for this device any more.
    fn misfit(&self, device: &Device, state: &DeviceState, transfer: &Transfer) -> Option<String> {
        let catalog = self.catalog.load();
        let release = catalog.file(transfer.pin.file?)?;
        let downgrade = {
            let fleet = self.fleet.lock();
            let deployment = fleet.deployments.get(&transfer.pin.deployment?)?;
            let target = &deployment.target;
            if !matches!(target, Target::Rollback(_)) && !target.means(&device.id, state) {
                return Some(format!("deployment {} is not for it any more", deployment.id));
            }
            deployment.downgrade
        };
        policy::misfit(release, downgrade, &state.facts(&device.id), &catalog)
    }

    /// Ends an offer that its device has not begun. It does not count as an attempt, and the
    /// device's place in the wave is another one's.
    fn take_offer_back(
        &self,
        device: &Arc<Device>,
        state: &mut DeviceState,
        transfer: &Arc<Transfer>,
        why: String,
    ) {
        let Some(next) = transfer.happened(&Happened::Cancelled) else { return };
        let pin = &transfer.pin;
        tracing::info!(device = %device.id, path = %pin.path, version = %pin.version, why, "an offer is taken back");
        let history = state.history.entry(pin.digest).or_default();
        history.offers = pin.attempt.saturating_sub(1);
        let mut ops = vec![Op::History(device.history_row(pin.digest, *history))];
        ops.extend(self.moving(device, state, transfer, &next));
        if let Some(id) = pin.deployment {
            ops.extend(self.fleet.lock().take_back(id, &device.id));
            self.rollouts.notify_one();
        }
        self.write(device, state, ops);
        state.why = Some(why);
    }

    /// Whether a device should run another image by now than one that it was offered and has not
    /// asked for, or that it asks no more for. It is treated as an overwritten file: nothing is
    /// lost, and a device that ignores one image would otherwise never hear of the next, nor end
    /// its place in the next one's wave.
    pub fn is_outbid(&self, device: &Device, state: &DeviceState, transfer: &Transfer) -> bool {
        matches!(transfer.state(), UpdateState::Offered | UpdateState::Stalled)
            && matches!(
                self.decide(device, state),
                Decision::Run(release) if release.digest != transfer.pin.digest
            )
    }

    /// Why this offer's manifest does not go out now: its device has not begun, and a pause, a
    /// freeze or the end of a window came in between.
    pub fn held_back(&self, transfer: &Transfer) -> Option<String> {
        (!transfer.has_begun()).then(|| self.holds_back(transfer.pin.deployment)).flatten()
    }

    /// Why its device may not begin it now. Windows gate the manifest alone.
    pub fn may_not_begin(&self, transfer: &Transfer) -> Option<String> {
        (!transfer.has_begun()).then(|| self.paused(transfer.pin.deployment)).flatten()
    }
}

impl LinkState {
    /// Whether the device was told of it on this connection, or asked, and waits for nothing: a
    /// manifest of something else begins no second chain of requests.
    pub fn is_quiet(&self, transfer: &Transfer) -> bool {
        (self.asked || self.announced.contains(&transfer.pin.digest))
            && self.window.open == 0
            && !self.waiting
            && self.pending.is_empty()
    }
}

impl Transfer {
    /// Whether its device asked for any of it.
    pub fn has_begun(&self) -> bool {
        match self.state() {
            UpdateState::Offered => false,
            UpdateState::Stalled => self.sent() > 0,
            _ => true,
        }
    }

    /// The next answer is another image's manifest, if there is one for the device.
    pub fn outdate(&self) {
        self.overwritten.store(true, Ordering::Relaxed);
    }
}
