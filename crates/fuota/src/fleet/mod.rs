//! The fleet: which deployments there are, how far each is, and whom it may reach next.
//!
//! [`Fleet`] is memory behind one lock, which comes behind those of files, devices and links: none
//! of them is locked under it. What it decides is written by whoever changed it, in one job with
//! what follows: a device's place in a wave with its pin (rule 14).
//!
//! | module | subject |
//! | --- | --- |
//! | `target`, `labels` | whom a deployment is for |
//! | `rollout` | waves and when they pause: pure functions |
//! | `deployment` | one deployment and its devices |
//! | `gate` | what the policy asks the fleet about one device, and its answer in a sentence |
//! | `drive` | what follows from outcomes: next waves, pauses |
//! | `operate`, `change`, `cancel`, `again`, `rollback` | what operators do: create, approve, pause, withdraw, freeze; change; cancel; retry; roll back |
//! | `conditions`, `starts`, `waiting` | windows and caps; who waits for them |
//! | `unwritten` | what the database could not be made to hold, until it does |
//! | `events`, `ring` | changes, told as they happen |
//! | `alerts` | what follows from them for operators |
//! | `service`, `uploads`, `records`, `views` | the same for the admin interface |

mod again;
pub mod alerts;
mod cancel;
mod change;
pub mod conditions;
pub mod deployment;
mod drive;
pub mod events;
pub mod gate;
pub mod labels;
mod operate;
mod records;
mod ring;
mod rollback;
pub mod rollout;
mod service;
pub mod starts;
pub mod target;
pub mod unwritten;
mod uploads;
pub mod views;
pub mod waiting;

pub use change::{DeploymentPatch, LimitsPatch};
pub use uploads::{Upload, UploadedBytes};

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use store::Digest;

use crate::db::{DeploymentRow, FileRow, MemberRow, Op};
use deployment::{Deployment, DeploymentState, Member};
use rollout::Plan;
use starts::Starts;
use target::Target;

/// Who made the deployment of a dropped file.
const A_DROP: &str = "a dropped file";
/// Deployments that are over and remembered all the same, the newest.
const KEPT: usize = 200;
/// Of those that keep an older one from coming back (rule 12), so many.
const MAX_OVER: usize = 1000;

/// See [the module](self).
#[derive(Default)]
pub struct Fleet {
    pub deployments: BTreeMap<i64, Deployment>,
    /// Since when and by whom all offers of the site are stopped.
    pub frozen: Option<Frozen>,
    /// Deployments whose rollout is to be looked at.
    pub due: BTreeSet<i64>,
    /// Transfers under way, and who waits for one.
    pub starts: Starts,
    last_id: i64,
}

/// All offers of the site are stopped.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Frozen {
    /// Seconds since 1970.
    pub at: u64,
    /// Who did it.
    pub by: String,
}

/// What a dropped file means here.
#[derive(Clone, Debug)]
pub struct Dropping {
    /// Whether it is deployed at all.
    pub deploy: bool,
    /// Files whose deployment waits for an operator.
    pub hold: HashSet<i64>,
    pub plan: Plan,
}

impl Fleet {
    /// From the rows of the database.
    pub fn load(
        deployments: &[DeploymentRow],
        members: &[MemberRow],
        frozen: Option<String>,
    ) -> Fleet {
        let mut fleet = Fleet {
            frozen: frozen.and_then(|text| serde_json::from_str(&text).ok()),
            last_id: deployments.iter().map(|row| row.id).max().unwrap_or(0),
            ..Fleet::default()
        };
        for row in deployments {
            match Deployment::from_row(row) {
                Some(deployment) => drop(fleet.deployments.insert(row.id, deployment)),
                None => tracing::error!(deployment = row.id, "its row makes no sense; left out"),
            }
        }
        for row in members {
            if let Some(deployment) = fleet.deployments.get_mut(&row.deployment) {
                deployment.put(&row.device.as_str().into(), Member::from_row(row));
            }
        }
        fleet.due = fleet.deployments.keys().copied().collect();
        fleet
    }

    /// Writes whether the site is frozen.
    pub fn frozen_op(&self) -> Op {
        // A number and a text always serialize.
        let text = self.frozen.as_ref().and_then(|frozen| serde_json::to_string(frozen).ok());
        Op::Frozen(text)
    }

    /// The id of the next deployment. Ids are never used twice while a later one is known.
    pub fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    /// The highest place that a deployment has in the order of creations and removals.
    pub fn last_seq(&self) -> i64 {
        let ends = self.deployments.values().map(|one| one.ended.unwrap_or(0).max(one.created));
        ends.max().unwrap_or(0)
    }

    /// Files came and went: what was dropped is deployed, and what is gone offers no more.
    pub fn dropped(&mut self, added: &[FileRow], removed: &[FileRow], how: &Dropping) -> Vec<Op> {
        let mut ops = Vec::new();
        let stopped: HashMap<Digest, (i64, DeploymentState)> =
            removed.iter().filter_map(|row| Some((row.digest, self.stopped(row)?))).collect();
        for row in removed {
            let live = |one: &&mut Deployment| {
                one.file == row.id
                    && !one.state.is_over()
                    // A rollback names what devices had, whether its file is still there or not.
                    && !matches!(one.target, Target::Rollback(_))
            };
            let seq = row.removed_seq.unwrap_or(row.created_seq);
            for deployment in self.deployments.values_mut().filter(live) {
                let reason = format!("{} was deleted or overwritten", row.path);
                deployment.end(DeploymentState::Ended, reason, seq);
                ops.push(Op::Deployment(deployment.row()));
            }
        }
        for row in added.iter().filter(|_| how.deploy) {
            let Some(target) = Target::from_text(&row.target) else { continue };
            let id = self.next_id();
            let mut deployment = Deployment::new(id, row.id, target, row.created_seq);
            deployment.created_by = A_DROP.into();
            if !matches!(deployment.target, Target::Device(_)) {
                deployment.plan = how.plan.clone();
            }
            if how.hold.contains(&row.id) {
                deployment.state = DeploymentState::Held;
                deployment.reason = Some(format!(
                    "it was there at the very first start: `fuotad deployment approve {id}` releases it"
                ));
            }
            if let Some((before, state)) = stopped.get(&row.digest) {
                let (now, act) = match state {
                    DeploymentState::Paused => (DeploymentState::Paused, "resume"),
                    _ => (DeploymentState::Held, "approve"),
                };
                deployment.state = now;
                deployment.reason = Some(format!(
                    "deployment {before} of the same bytes was {} when its file moved here: \
                     `fuotad deployment {act} {id}` starts this one",
                    state.name()
                ));
            }
            ops.push(Op::Deployment(deployment.row()));
            self.deployments.insert(id, deployment);
            self.due.insert(id);
        }
        ops.extend(self.forget(0));
        ops
    }

    /// The deployment that dropping this file made, and how it was stopped, if it was.
    fn stopped(&self, row: &FileRow) -> Option<(i64, DeploymentState)> {
        use DeploymentState::{Cancelled, Held, Paused};
        let of_it = |one: &&Deployment| one.file == row.id && one.created_by == A_DROP;
        let deployment = self.deployments.values().rev().find(of_it)?;
        let is_stopped = matches!(deployment.state, Held | Paused | Cancelled);
        is_stopped.then_some((deployment.id, deployment.state))
    }

    /// Drops deployments that are over and needed no more: those that nothing happened in since
    /// `before`, in seconds since 1970, and all but the newest.
    pub fn forget(&mut self, before: u64) -> Vec<Op> {
        let live = || self.deployments.values().filter(|one| !one.state.is_over());
        let oldest = live().map(|one| one.created).min();
        let mut over: Vec<(i64, i64)> =
            self.deployments.values().filter_map(|one| Some((one.ended?, one.id))).collect();
        over.sort_unstable_by(|a, b| b.cmp(a));
        let mut ops = Vec::new();
        for (number, (ended, id)) in over.into_iter().enumerate() {
            let keeps_out = oldest.is_some_and(|oldest| oldest < ended) && number < MAX_OVER;
            let old = self.deployments.get(&id).is_some_and(|one| one.last_moved() < before);
            if (number >= KEPT || old) && !keeps_out {
                self.deployments.remove(&id);
                self.starts.forget(id);
                ops.push(Op::DeploymentGone(id));
            }
        }
        ops
    }

    /// Files that a deployment or a device's way back needs.
    pub fn files(&self) -> HashSet<i64> {
        let members = self.deployments.values().flat_map(|one| one.members.values());
        let before = members.filter_map(|member| member.before);
        self.deployments.values().map(|one| one.file).chain(before).collect()
    }

    /// Of each device, what it was confirmed with before its newest deployment; and what those are
    /// being given that are on their way back.
    pub fn ways_back(&self) -> HashSet<i64> {
        let mut newest: HashMap<&Arc<str>, i64> = HashMap::new();
        // By number, so that the newest is the last.
        for deployment in self.deployments.values() {
            let reached = deployment.members.iter().filter(|(_, member)| member.reached);
            newest.extend(reached.filter_map(|(device, member)| Some((device, member.before?))));
        }
        let rollbacks = self
            .deployments
            .values()
            .filter(|one| matches!(one.target, Target::Rollback(_)) && !one.state.is_over());
        newest.into_values().chain(rollbacks.map(|one| one.file)).collect()
    }

    /// All that a rollback could give to a device, or is giving.
    pub fn befores(&self) -> HashSet<i64> {
        let members = self.deployments.values().flat_map(|one| one.members.values());
        let rollbacks = self.deployments.values();
        let rollbacks = rollbacks.filter(|one| matches!(one.target, Target::Rollback(_)));
        members.filter_map(|member| member.before).chain(rollbacks.map(|one| one.file)).collect()
    }

    /// Whether this deployment was cancelled, or cancelled for this device; `None` where it is
    /// over for so long that it is forgotten.
    pub fn has_stopped(&self, id: i64, device: &str) -> Option<bool> {
        let deployment = self.deployments.get(&id)?;
        let taken_out = |member: &Member| member.cancelled.is_some();
        let cancelled = deployment.state == DeploymentState::Cancelled;
        Some(cancelled || deployment.members.get(device).is_some_and(taken_out))
    }

    /// A device stands elsewhere: its row, where it is in that deployment.
    pub fn change(
        &mut self,
        id: i64,
        device: &str,
        change: impl FnOnce(&mut Member),
    ) -> Option<Op> {
        let deployment = self.deployments.get_mut(&id)?;
        let member = deployment.members.get_mut(device)?;
        change(member);
        let row = member.row(id, device);
        if deployment.is_staged() {
            self.due.insert(id);
        }
        Some(Op::Member(row))
    }

    /// A device may be offered a deployment again: its row.
    pub fn again(&mut self, id: i64, device: &Arc<str>) -> Option<Op> {
        let deployment = self.deployments.get_mut(&id)?;
        let row = deployment.again(device)?.row(id, device);
        if deployment.is_staged() {
            self.due.insert(id);
        }
        Some(Op::Member(row))
    }

    /// An offer that a device has not begun was taken back: its place goes to another one, unless
    /// it failed in it before, which a wave does not forget.
    pub fn take_back(&mut self, id: i64, device: &Arc<str>) -> Option<Op> {
        let deployment = self.deployments.get_mut(&id)?;
        let known = deployment.members.get(device)?;
        if known.failed || known.reached {
            return None;
        }
        let mut member = deployment.take(device)?;
        self.due.insert(id);
        if !matches!(deployment.target, Target::Rollback(_)) {
            return Some(Op::MemberGone(id, device.to_string()));
        }
        (member.wave, member.state) = (None, None);
        member.history.offers = member.history.offers.saturating_sub(1);
        let row = member.row(id, device);
        deployment.put(device, member);
        Some(Op::Member(row))
    }

    /// The rows of a device, of every deployment that it is in.
    pub fn rows_of(&self, device: &str) -> impl Iterator<Item = Op> {
        self.deployments
            .values()
            .filter_map(move |one| Some(Op::Member(one.members.get(device)?.row(one.id, device))))
    }

    /// Gives places away that a device was let into and not offered anything by.
    pub fn release(&mut self, device: &Arc<str>) {
        for (id, deployment) in &mut self.deployments {
            if deployment.release(device) {
                self.due.insert(*id);
            }
        }
    }

    /// A device is forgotten. Gives its places.
    pub fn remove_device(&mut self, device: &str) -> Vec<(i64, Member)> {
        self.starts.end(device);
        let mut places = Vec::new();
        for (id, deployment) in &mut self.deployments {
            if let Some(member) = deployment.take(device) {
                self.due.insert(*id);
                places.push((*id, member));
            }
        }
        places
    }

    /// It is not: it has its places again.
    pub fn put_back(&mut self, device: &Arc<str>, places: Vec<(i64, Member)>) {
        for (id, member) in places {
            if let Some(deployment) = self.deployments.get_mut(&id) {
                deployment.put(device, member);
                self.due.insert(id);
            }
        }
    }
}
