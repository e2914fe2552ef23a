//! The way back: each device gets what it ran before (rule 22).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Fleet,
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
    device::Device,
    engine::Engine,
    files::Files,
    transfer::unix_now,
    views::{Actor, ServiceError},
};

impl Fleet {
    /// A deployment that takes `bad` back and gives its devices this file.
    fn rollback_to(&mut self, bad: i64, file: i64, by: &str, files: &mut Files) -> Option<i64> {
        let bad = self.deployments.get(&bad)?;
        let (tier, target) = (bad.tier, Target::Rollback(bad.id));
        let conditions = Conditions { url: None, asked: None, ..bad.conditions.clone() };
        let number = self.next_id();
        let deployment = Deployment {
            tier,
            plan: Plan::canary(),
            downgrade: true,
            created_by: by.into(),
            conditions,
            ..Deployment::new(number, file, target, files.take_seq())
        };
        self.deployments.insert(number, deployment);
        Some(number)
    }

    /// Puts a device on the list of a rollback: its row.
    fn list(&mut self, number: i64, device: &Arc<str>) -> Option<Op> {
        let deployment = self.deployments.get_mut(&number)?;
        let member = Member { counts: true, at: unix_now(), ..Member::default() };
        let row = member.row(number, device);
        deployment.put(device, member);
        self.due.insert(number);
        Some(Op::Member(row))
    }
}

impl Engine {
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
        let mut moved_on = self.moved_on(id);
        let catalog = self.catalog.load();
        let mut files = self.files.lock();
        let mut fleet = self.fleet.lock();
        let Some(bad) = fleet.deployments.get(&id) else { return Err(unknown(id)) };
        let mut left = Vec::new();
        let mut back: BTreeMap<i64, Vec<Arc<str>>> = BTreeMap::new();
        for (device, member) in bad.members.iter().filter(|(_, member)| member.reached) {
            let way = match moved_on.remove(device) {
                Some(reason) => Err(reason),
                None => way_back(&catalog, &files.rows, bad.file, member),
            };
            match way {
                Ok(file) => back.entry(file).or_default().push(Arc::clone(device)),
                Err(reason) => left.push(Excluded { device: device.to_string(), reason }),
            }
        }
        left.sort_by(|a, b| a.device.cmp(&b.device));
        let mut made = Vec::new();
        for (file, devices) in back {
            let number = fleet.rollback_to(id, file, actor.shown(), &mut files);
            let Some(number) = number else { continue };
            ops.extend(fleet.deployments.get(&number).map(|one| Op::Deployment(one.row())));
            ops.extend(devices.iter().filter_map(|device| fleet.list(number, device)));
            made.push(number);
        }
        let outcome = Outcome { rollbacks: Some(made), left: Some(left), ..Outcome::default() };
        Ok((outcome, self.keep(ops)))
    }

    /// Of the devices that a deployment reached, those that do not run its image any more, or are
    /// being given another, each with the reason.
    fn moved_on(&self, id: i64) -> HashMap<Arc<str>, String> {
        let (bad, reached) = {
            let fleet = self.fleet.lock();
            let Some(deployment) = fleet.deployments.get(&id) else { return HashMap::new() };
            let reached = deployment.members.iter().filter(|(_, member)| member.reached);
            let reached = reached.map(|(device, member)| (Arc::clone(device), member.before));
            (deployment.file, reached.collect::<Vec<_>>())
        };
        let catalog = self.catalog.load();
        let digest = catalog.file(bad).map(|file| file.digest);
        let mut moved_on = HashMap::new();
        for (name, before) in reached {
            let Some(device) = self.registry.get(&name) else { continue };
            let state = device.state.lock();
            let Some(newest) = &state.transfer else { continue };
            if Some(newest.pin.digest) == digest || newest.pin.deployment == Some(id) {
                continue;
            }
            let now = newest.state();
            let other = state.confirmed.is_some_and(|file| file != bad && Some(file) != before);
            if now.is_running() || now.has_image() {
                let reason = format!("it was given {} since", newest.pin.version);
                moved_on.insert(name, reason);
            } else if other {
                moved_on.insert(name, "it was confirmed with another image since".into());
            }
        }
        moved_on
    }

    /// A device has the image of its deployment, whose last blocks were on their way when that was
    /// rolled back: it goes back with the others. No lock may be held by the caller.
    pub fn goes_back_too(self: &Arc<Self>, device: &Device, deployment: Option<i64>) {
        let Some(id) = deployment.filter(|id| self.was_rolled_back(*id)) else { return };
        let catalog = self.catalog.load();
        let is_new = {
            let mut files = self.files.lock();
            let mut fleet = self.fleet.lock();
            let Some(bad) = fleet.deployments.get(&id) else { return };
            let Some(member) = bad.members.get(&device.id).filter(|member| member.reached) else {
                return;
            };
            let way = way_back(&catalog, &files.rows, bad.file, member);
            let rollbacks =
                || fleet.deployments.values().filter(|one| one.target == Target::Rollback(id));
            if rollbacks().any(|one| one.members.contains_key(&device.id)) {
                return;
            }
            let file = match way {
                Ok(file) => file,
                Err(reason) => {
                    tracing::warn!(device = %device.id, deployment = id, reason, "it got the image after the rollback, and is left");
                    return;
                }
            };
            let by = rollbacks().next().map(|one| one.created_by.clone()).unwrap_or_default();
            let same = rollbacks().find(|one| one.file == file);
            if same.is_some_and(|same| same.state.is_over()) {
                return;
            }
            let same = same.map(|same| same.id);
            let Some(number) = same.or_else(|| fleet.rollback_to(id, file, &by, &mut files)) else {
                return;
            };
            let row = fleet.deployments.get(&number).map(|one| Op::Deployment(one.row()));
            let ops = [row, fleet.list(number, &device.id)].into_iter().flatten().collect();
            tracing::info!(device = %device.id, deployment = number, "it goes back too");
            drop(self.keep(ops));
            same.is_none()
        };
        if is_new {
            self.rebuild_catalog();
        }
        self.rollouts.notify_one();
    }

    fn was_rolled_back(&self, id: i64) -> bool {
        let fleet = self.fleet.lock();
        fleet.deployments.get(&id).is_some_and(|one| one.state == DeploymentState::Cancelled)
            && fleet.deployments.values().any(|one| one.target == Target::Rollback(id))
    }
}

/// The file that a device ran before it was given `bad`.
fn way_back(catalog: &Catalog, rows: &[FileRow], bad: i64, member: &Member) -> Result<i64, String> {
    let file = member.before.ok_or("what it ran before is not known")?;
    if catalog.file(file).is_none() {
        return Err("what it ran before is forgotten".into());
    }
    if is_withdrawn(rows, file) {
        return Err("what it ran before was withdrawn".into());
    }
    forbidden(catalog, bad, file).map_or(Ok(file), Err)
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
