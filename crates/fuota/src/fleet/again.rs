//! Once more, and back: retries and rollbacks (rules 13 and 22).

use std::{collections::BTreeMap, sync::Arc};

use super::{
    conditions::Conditions,
    deployment::{Deployment, DeploymentState, Member},
    operate::{Outcome, by, unknown},
    rollout::Plan,
    target::Target,
    views::Excluded,
};
use crate::{
    catalog::Catalog,
    db::{DbError, FileRow, Op},
    engine::Engine,
    policy::History,
    state::UpdateState,
    transfer::unix_now,
    views::{Actor, ServiceError},
};

impl Engine {
    /// Devices that it failed for may be offered it again; or one that is named, also where an
    /// operator had cancelled it for that one.
    pub fn retry(&self, id: i64, only: Option<&str>) -> Result<(usize, Vec<Op>), ServiceError> {
        let members: Vec<Arc<str>> = {
            let fleet = self.fleet.lock();
            let deployment = fleet.deployments.get(&id).ok_or_else(|| unknown(id))?;
            if deployment.state.is_over() {
                return Err(ServiceError::Conflict(format!("deployment {id}: it is over")));
            }
            let again = deployment.members.iter().filter(|(device, member)| match only {
                Some(only) => {
                    only == &***device && (may_retry(member) || member.cancelled.is_some())
                }
                None => may_retry(member) && member.cancelled.is_none(),
            });
            again.map(|(device, _)| Arc::clone(device)).collect()
        };
        if let Some(only) = only.filter(|_| members.is_empty()) {
            return Err(ServiceError::Conflict(format!(
                "deployment {id}: nothing failed or was cancelled for {only}"
            )));
        }
        let mut ops = Vec::new();
        for name in &members {
            let Some(device) = self.registry.get(name) else { continue };
            let mut state = device.state.lock();
            let own = state.transfer.clone().filter(|own| own.pin.deployment == Some(id));
            let cancelled = {
                let fleet = self.fleet.lock();
                let member = fleet.deployments.get(&id).and_then(|one| one.members.get(name));
                member.is_some_and(|member| member.cancelled.is_some())
            };
            if own.is_none() && !cancelled {
                continue; // it is being given something else by now
            }
            ops.push(Op::Device(device.row(&state)));
            if let Some(digest) = own.map(|own| own.pin.digest) {
                let fresh = History::default();
                state.history.insert(digest, fresh);
                ops.push(Op::History(device.history_row(digest, fresh)));
                for link in &state.links {
                    let mut link = link.state.lock();
                    link.announced.retain(|announced| *announced != digest);
                    // One that asked for a part and no more hears the manifest again.
                    link.asked = false;
                }
            }
            ops.extend(self.fleet.lock().again(id, name));
            ops.push(Engine::happening(name, "retry", None, Some(id)));
        }
        Ok((members.len(), ops))
    }

    /// Rule 22. Returns the deployments that it makes and the devices that it leaves, and what
    /// waits for the job in which that and `ops` are written.
    pub fn roll_back(
        self: &Arc<Self>,
        id: i64,
        actor: &Actor,
        mut ops: Vec<Op>,
    ) -> Result<(Outcome, impl Future<Output = Result<(), DbError>> + use<>), ServiceError> {
        let over = {
            let fleet = self.fleet.lock();
            let deployment = fleet.deployments.get(&id).ok_or_else(|| unknown(id))?;
            if matches!(deployment.target, Target::Rollback(_)) {
                return Err(ServiceError::Conflict(format!(
                    "deployment {id} is a rollback itself; deploy what devices should run"
                )));
            }
            if fleet.deployments.values().any(|one| one.target == Target::Rollback(id)) {
                return Err(ServiceError::Conflict(format!(
                    "deployment {id} was rolled back already"
                )));
            }
            deployment.state == DeploymentState::Cancelled
        };
        if !over {
            // Written before what follows; where it is not, it is written with the next interval.
            drop(self.cancel(id, &by("rolled back", actor), Vec::new())?);
        }
        let catalog = self.catalog.load();
        let mut files = self.files.lock();
        let mut fleet = self.fleet.lock();
        let Some(bad) = fleet.deployments.get(&id) else { return Err(unknown(id)) };
        let (tier, mut left) = (bad.tier, Vec::new());
        let conditions = Conditions { url: None, asked: None, ..bad.conditions.clone() };
        let mut back: BTreeMap<i64, Vec<Arc<str>>> = BTreeMap::new();
        for (device, member) in bad.members.iter().filter(|(_, member)| member.reached) {
            match member.before.ok_or("what it ran before is not known") {
                Ok(file) if catalog.file(file).is_none() => {
                    left.push(excluded(device, "what it ran before is forgotten"));
                }
                Ok(file) if is_withdrawn(&files.rows, file) => {
                    left.push(excluded(device, "what it ran before was withdrawn"));
                }
                Ok(file) if let Some(why) = forbidden(&catalog, bad.file, file) => {
                    left.push(excluded(device, &why));
                }
                Ok(file) => back.entry(file).or_default().push(Arc::clone(device)),
                Err(reason) => left.push(excluded(device, reason)),
            }
        }
        left.sort_by(|a, b| a.device.cmp(&b.device));
        let mut made = Vec::new();
        for (file, devices) in back {
            let number = fleet.next_id();
            let mut deployment = Deployment {
                tier,
                plan: Plan::canary(),
                downgrade: true,
                created_by: actor.shown().into(),
                conditions: conditions.clone(),
                ..Deployment::new(number, file, Target::Rollback(id), files.take_seq())
            };
            ops.push(Op::Deployment(deployment.row()));
            for device in devices {
                let member = Member { counts: true, at: unix_now(), ..Member::default() };
                ops.push(Op::Member(member.row(number, &device)));
                deployment.put(&device, member);
            }
            fleet.deployments.insert(number, deployment);
            fleet.due.insert(number);
            made.push(number);
        }
        let outcome = Outcome { rollbacks: Some(made), left: Some(left), ..Outcome::default() };
        Ok((outcome, self.keep(ops)))
    }
}

fn is_withdrawn(rows: &[FileRow], file: i64) -> bool {
    let digest = rows.iter().find(|row| row.id == file).map(|row| row.digest);
    rows.iter().any(|row| Some(row.digest) == digest && row.withdrawn.is_some())
}

/// Why the boot loader of a device that got `bad` would refuse `file`.
fn forbidden(catalog: &Catalog, bad: i64, file: i64) -> Option<String> {
    let why = catalog.file(file)?.counter_forbids(catalog.file(bad)?)?;
    Some(format!("of what it ran before, {why}"))
}

fn may_retry(member: &Member) -> bool {
    matches!(
        member.state,
        Some(UpdateState::Failed(_) | UpdateState::Silent | UpdateState::Stalled)
    )
}

fn excluded(device: &str, reason: &str) -> Excluded {
    Excluded { device: device.into(), reason: reason.into() }
}
