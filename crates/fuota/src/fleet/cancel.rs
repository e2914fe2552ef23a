//! Ending what runs before it is done: whole deployments, or one device of one (rule 10).

use std::sync::Arc;

use super::{
    Fleet,
    deployment::{Deployment, DeploymentState},
    operate::unknown,
    target::Target,
};
use crate::{
    db::{DbError, Op},
    device::{Device, DeviceState},
    engine::Engine,
    files::Files,
    state::UpdateState,
    transfer::unix_now,
    views::{Actor, ServiceError},
};

impl Fleet {
    /// These are over. Returns what is to be written.
    pub fn cancel(&mut self, ids: &[i64], reason: &str, files: &mut Files) -> Vec<Op> {
        let mut ops = Vec::new();
        for id in ids {
            let Some(deployment) = self.deployments.get_mut(id) else { continue };
            // One whose file is gone may still have running transfers.
            let seq = deployment.ended.unwrap_or_else(|| files.take_seq());
            deployment.end(DeploymentState::Cancelled, reason.into(), seq);
            ops.push(Op::Deployment(deployment.row()));
        }
        ops
    }
}

impl Engine {
    /// Ends a deployment for good, and every transfer of it that is not complete. Gives what
    /// waits for the one job in which that and `ops` are written.
    pub fn cancel(
        self: &Arc<Self>,
        id: i64,
        reason: &str,
        mut ops: Vec<Op>,
    ) -> Result<impl Future<Output = Result<(), DbError>> + use<>, ServiceError> {
        let written = {
            let mut files = self.files.lock();
            let mut fleet = self.fleet.lock();
            let deployment = fleet.deployments.get(&id).ok_or_else(|| unknown(id))?;
            if deployment.state == DeploymentState::Cancelled {
                return Err(ServiceError::Conflict(format!(
                    "deployment {id}: it is cancelled already"
                )));
            }
            ops.extend(fleet.cancel(&[id], reason, &mut files));
            // Before its devices: were they written and it not, their waves would go on.
            self.keep(ops)
        };
        self.stop_transfers(&[id]);
        Ok(written)
    }

    /// The next request gets an error that says so.
    pub fn stop_transfers(self: &Arc<Self>, ids: &[i64]) {
        let mut devices = self.registry.all();
        // Sessions without identity are in no registry.
        let others = self.registry.links();
        let others = others.iter().filter_map(|link| link.state.lock().device.clone());
        devices.extend(others.filter(|device| !device.stored));
        for device in devices {
            let mut state = device.state.lock();
            let Some(transfer) = state.transfer.clone() else { continue };
            if !transfer.pin.deployment.is_some_and(|id| ids.contains(&id)) {
                continue;
            }
            match transfer.stop() {
                Some(next) => self.moved(&device, &mut state, &transfer, &next),
                None => self.leave(&state, &transfer),
            }
        }
    }

    /// Takes one device out of a deployment: its transfer ends, and it is offered this no more
    /// until an operator retries it for this device. The others go on.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; [`ServiceError::Conflict`] where there is nothing to end;
    /// [`ServiceError::Unavailable`] where it is done and not written yet.
    pub async fn cancel_device(
        self: &Arc<Self>,
        id: i64,
        name: &str,
        actor: &Actor,
    ) -> Result<(), ServiceError> {
        let gone = || ServiceError::NotFound(format!("there is no device {name}"));
        let device = self.registry.get(name).ok_or_else(gone)?;
        let written = self.take_out(id, &device, actor)?;
        tracing::info!(
            deployment = id,
            device = name,
            by = actor.shown(),
            "cancelled for a device"
        );
        self.tell_deployments(&[id]);
        // Its place is another one's, and it may be given something else.
        self.rollouts.notify_one();
        self.consider(&device);
        written.await.map_err(|error| ServiceError::Unavailable(error.to_string()))
    }

    /// Gives what waits for the one job in which all of it is written.
    fn take_out(
        self: &Arc<Self>,
        id: i64,
        device: &Arc<Device>,
        actor: &Actor,
    ) -> Result<impl Future<Output = Result<(), DbError>> + use<>, ServiceError> {
        let state = &mut *device.state.lock();
        if state.gone {
            return Err(ServiceError::NotFound(format!("there is no device {}", device.id)));
        }
        let own = state.transfer.clone().filter(|own| own.pin.deployment == Some(id));
        let now = own.as_ref().map(|own| own.state());
        {
            let mut fleet = self.fleet.lock();
            let deployment = fleet.deployments.get_mut(&id).ok_or_else(|| unknown(id))?;
            // An offer that is just being written ends when it is (`cancelled_meanwhile`).
            let now = now.as_ref().filter(|_| state.pinning.is_none());
            may_take_out(deployment, device, state, now)
                .map_err(|why| ServiceError::Conflict(format!("deployment {id}: {why}")))?;
            deployment.take_out(&device.id, actor.shown());
            if deployment.is_staged() {
                fleet.due.insert(id);
            }
        }
        let mut ops = vec![Op::Device(device.row(state))];
        let next = own.as_ref().and_then(|own| own.stop());
        match (own, next) {
            (Some(own), Some(next)) => ops.extend(self.moving(device, state, &own, &next)),
            // It was offered nothing yet, or it failed: that it did is still to be seen.
            _ => {
                let stays = now.filter(|now| matches!(now, UpdateState::Failed(_)));
                let mut fleet = self.fleet.lock();
                ops.extend(fleet.change(id, &device.id, |member| {
                    member.state = Some(stays.unwrap_or(UpdateState::Cancelled));
                    member.at = unix_now();
                }));
                ops.push(Engine::happening(&device.id, "cancelled", None, Some(id)));
            }
        }
        let subject = format!("deployment {id}");
        ops.push(Engine::audit_by(actor, &subject, "cancel", Some(device.id.to_string())));
        // Queued before anybody else can change the device.
        Ok(self.keep(ops))
    }
}

/// Whether there is anything to end; `now` is where the device stands with it.
fn may_take_out(
    deployment: &Deployment,
    device: &Device,
    state: &DeviceState,
    now: Option<&UpdateState>,
) -> Result<(), String> {
    let name = &device.id;
    if deployment.state.is_over() {
        return Err("it is over".into());
    }
    match deployment.members.get(name) {
        Some(member) if member.cancelled.is_some() => {
            Err(format!("it is cancelled for {name} already"))
        }
        Some(member) if now.or(member.state.as_ref()).is_some_and(UpdateState::has_image) => {
            Err(format!("{name} has the image already; a rollback takes it back"))
        }
        Some(_) => Ok(()),
        None if matches!(deployment.target, Target::Rollback(_))
            || !deployment.target.means(name, state) =>
        {
            Err(format!("it is not for {name}"))
        }
        None => Ok(()),
    }
}
