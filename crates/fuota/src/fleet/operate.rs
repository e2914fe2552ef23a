//! What operators do: make, approve, pause and resume deployments, withdraw firmware, freeze the
//! site.

use std::{collections::HashSet, pin::Pin, sync::Arc};

use super::{
    Frozen,
    conditions::Conditions,
    deployment::{Deployment, DeploymentState},
    events::Change,
    rollout::Plan,
    target::Target,
    views::{Act, Excluded, NewDeployment},
};
use crate::{
    Windows,
    catalog::firmware_id,
    db::{DbError, FileRow, Op},
    engine::Engine,
    registration::invalid,
    transfer::unix_now,
    views::{Actor, ServiceError},
};

/// Deployments that are not over, at most.
const MAX_LIVE: usize = 10_000;

/// What waits until an act is written.
type Written = Pin<Box<dyn Future<Output = Result<(), DbError>> + Send>>;

/// What came of an act beside the deployment itself.
#[derive(Default)]
pub struct Outcome {
    pub retried: Option<usize>,
    pub rollbacks: Option<Vec<i64>>,
    pub left: Option<Vec<Excluded>>,
}

impl Engine {
    /// Makes a deployment. `key` names the request: a second one with the same key gives the
    /// first one's deployment. Returns its id, and whether it is new.
    pub async fn create_deployment(
        self: &Arc<Self>,
        new: &NewDeployment,
        key: Option<String>,
        actor: &Actor,
    ) -> Result<(i64, bool), ServiceError> {
        self.create_deployment_from(new, key, actor, None).await
    }

    /// The same, of an image from the address `url`, which is shown.
    pub async fn create_deployment_from(
        self: &Arc<Self>,
        new: &NewDeployment,
        key: Option<String>,
        actor: &Actor,
        url: Option<&str>,
    ) -> Result<(i64, bool), ServiceError> {
        let (file, mut deployment) = self.draft(new)?;
        deployment.conditions.url = url.map(str::to_owned);
        let (id, written) = 'made: {
            let mut files = self.files.lock();
            let mut fleet = self.fleet.lock();
            if let Some(key) = &key
                && let Some(known) =
                    fleet.deployments.values().find(|one| one.key.as_ref() == Some(key))
            {
                let same = known.file == deployment.file
                    && known.target == deployment.target
                    && known.asked() == deployment.asked()
                    && known.conditions.url == deployment.conditions.url
                    && known.downgrade == deployment.downgrade;
                if same {
                    break 'made (known.id, None);
                }
                return Err(ServiceError::Conflict(format!(
                    "the Idempotency-Key was used for another request, which made deployment {}",
                    known.id
                )));
            }
            // They are over whatever becomes of this request.
            let ended = fleet.end_orders(&deployment, &mut files);
            if !ended.is_empty() {
                drop(self.keep(ended));
            }
            let live = || fleet.deployments.values().filter(|one| !one.state.is_over());
            let twin = live().find(|one| {
                one.file == deployment.file
                    && one.target == deployment.target
                    && !deployment.downgrade
            });
            if let Some(twin) = twin {
                return Err(ServiceError::Conflict(format!(
                    "deployment {} does this already, and is {}",
                    twin.id,
                    twin.state.name()
                )));
            }
            if live().count() >= MAX_LIVE {
                return Err(ServiceError::Conflict(format!(
                    "there are {MAX_LIVE} deployments that are not over; cancel some"
                )));
            }
            let id = fleet.next_id();
            let deployment = Deployment {
                id,
                created: files.take_seq(),
                created_by: actor.shown().into(),
                key,
                ..deployment
            };
            let detail = format!("{} for {}", file.path, deployment.target);
            let subject = format!("deployment {id}");
            let ops = vec![
                Op::Deployment(deployment.row()),
                Engine::audit_by(actor, &subject, "created", Some(detail)),
            ];
            // Nothing offers it before the catalog is rebuilt, which is after the commit.
            fleet.deployments.insert(id, deployment);
            (id, Some(self.keep(ops)))
        };
        let Some(written) = written else {
            // The request that made it may not be done yet.
            self.settled().await?;
            return Ok((id, false));
        };
        if let Err(error) = written.await {
            let mut fleet = self.fleet.lock();
            fleet.deployments.remove(&id);
            // It may have been written again meanwhile.
            drop(self.db.submit(vec![Op::DeploymentGone(id)], None));
            return Err(ServiceError::Unavailable(error.to_string()));
        }
        tracing::info!(deployment = id, path = file.path, by = actor.shown(), "deployment created");
        self.tell_deployments(&[id]);
        self.rebuild_catalog();
        self.reconsider_all().await;
        Ok((id, true))
    }

    /// A deployment without its number and its place in the order.
    pub fn draft(&self, new: &NewDeployment) -> Result<(FileRow, Deployment), ServiceError> {
        let target =
            Target::from_view(&new.target).map_err(|problem| invalid("target", problem))?;
        let plan = match &new.rollout {
            Some(view) => Plan::from_view(view).map_err(|problem| invalid("rollout", problem))?,
            None if matches!(target, Target::Device(_)) => Plan::all(),
            None => self.settings().drop_plan(),
        };
        let file = self
            .files
            .lock()
            .rows
            .iter()
            .find(|row| row.removed_seq.is_none() && firmware_id(row) == new.firmware)
            .cloned();
        let file = file.ok_or_else(|| {
            invalid("firmware", format!("there is no firmware {:?}", new.firmware))
        })?;
        use crate::views::FirmwareState::{Conflict, Refused, Withdrawn};
        let catalog = self.catalog.load();
        let view = catalog.views().iter().find(|view| view.id == new.firmware);
        if let Some(view) = view.filter(|view| matches!(view.state, Conflict | Refused | Withdrawn))
        {
            let reason = view.reason.clone().unwrap_or_default();
            return Err(ServiceError::Conflict(format!(
                "{} cannot be deployed: {reason}",
                file.path
            )));
        }
        if let Some(release) = catalog.file(file.id)
            && let Err(reason) = catalog.fits_site(release, &target)
        {
            return Err(invalid("target", reason));
        }
        new.limits.check().map_err(|problem| invalid("limits", problem))?;
        let windows = new.windows.as_deref().map(Windows::parse).transpose();
        let windows = windows.map_err(|error| invalid("windows", error.to_string()))?;
        let conditions =
            Conditions { windows, limits: new.limits.clone(), ..Conditions::default() };
        let deployment = Deployment {
            plan,
            downgrade: new.downgrade,
            conditions,
            ..Deployment::new(0, file.id, target, 0)
        };
        Ok((file, deployment))
    }

    /// Does what an operator says with a deployment.
    pub async fn act(
        self: &Arc<Self>,
        id: i64,
        act: Act,
        device: Option<&str>,
        actor: &Actor,
    ) -> Result<Outcome, ServiceError> {
        let unwritten = |error: DbError| ServiceError::Unavailable(error.to_string());
        let (outcome, written) = match self.begin_act(id, act, device, actor) {
            // Nobody is to believe an earlier act whose writing failed, or is not done yet.
            Err(ServiceError::Conflict(why)) => {
                let written = {
                    let fleet = self.fleet.lock();
                    let deployment = fleet.deployments.get(&id).ok_or_else(|| unknown(id))?;
                    self.keep(vec![Op::Deployment(deployment.row())])
                };
                written.await.map_err(unwritten)?;
                return Err(ServiceError::Conflict(why));
            }
            begun => begun?,
        };
        tracing::info!(deployment = id, act = act.name(), by = actor.shown(), "an operator's act");
        self.tell_deployments(&[id]);
        self.tell_deployments(outcome.rollbacks.as_deref().unwrap_or_default());
        let written = written.await;
        self.rebuild_catalog();
        self.reconsider_all().await;
        written.map_err(unwritten)?;
        Ok(outcome)
    }

    /// Does it in memory, and queues what is to be written before anybody else can change it.
    fn begin_act(
        self: &Arc<Self>,
        id: i64,
        act: Act,
        device: Option<&str>,
        actor: &Actor,
    ) -> Result<(Outcome, Written), ServiceError> {
        let mut outcome = Outcome::default();
        let subject = format!("deployment {id}");
        let mut ops =
            vec![Engine::audit_by(actor, &subject, act.name(), device.map(str::to_owned))];
        let written: Written = match act {
            Act::Approve | Act::Pause | Act::Resume => {
                let mut fleet = self.fleet.lock();
                let deployment = fleet.deployments.get_mut(&id).ok_or_else(|| unknown(id))?;
                let more = self.steer(deployment, act, actor)?;
                ops.push(Op::Deployment(deployment.row()));
                ops.extend(more);
                fleet.due.insert(id);
                Box::pin(self.keep(ops))
            }
            Act::Cancel => Box::pin(self.cancel(id, &by("cancelled", actor), ops)?),
            Act::Retry => {
                let (number, written) = self.retry(id, device, ops)?;
                outcome.retried = Some(number);
                Box::pin(written)
            }
            Act::Rollback => {
                let written;
                (outcome, written) = self.roll_back(id, actor, ops)?;
                Box::pin(written)
            }
        };
        Ok((outcome, written))
    }

    /// Returns what is to be written beside the deployment.
    fn steer(
        &self,
        deployment: &mut Deployment,
        act: Act,
        actor: &Actor,
    ) -> Result<Vec<Op>, ServiceError> {
        use DeploymentState::{Held, Paused, Running};
        match (act, deployment.state) {
            (Act::Approve, Held) => {
                deployment.state = Running;
                deployment.reason = None;
            }
            (Act::Approve, Running) if !deployment.plan.is_last(deployment.wave) => {
                // Its size is computed when it opens.
                deployment.open_wave(deployment.wave + 1, 0);
                deployment.size = 0;
            }
            (Act::Pause, Running) => {
                deployment.state = Paused;
                deployment.reason = Some(by("paused", actor));
            }
            (Act::Resume, Paused) => {
                deployment.state = Running;
                deployment.reason = None;
                return Ok(deployment.forgive());
            }
            (act, state) => {
                let why = match (act, state) {
                    (Act::Approve, Running) => "its last wave is open: there is nothing to approve",
                    (Act::Approve, Paused) => "it is paused: resume it",
                    (Act::Resume, Running) => "it is running already",
                    (Act::Resume, Held) => "it waits for its approval: approve it",
                    (Act::Pause, Paused) => "it is paused already",
                    (Act::Pause, Held) => "it waits for its approval and offers nothing",
                    _ => "it is over",
                };
                return Err(ServiceError::Conflict(format!("deployment {}: {why}", deployment.id)));
            }
        }
        Ok(Vec::new())
    }

    /// Rule 10: these bytes are never offered again, and every transfer of them ends. `firmware` is
    /// an id or a digest, also of a file that is gone: a rollback could give it out.
    pub async fn withdraw(
        self: &Arc<Self>,
        firmware: &str,
        actor: &Actor,
    ) -> Result<(), ServiceError> {
        let (written, ids) = {
            let files = &mut *self.files.lock();
            let known = files
                .rows
                .iter()
                .find(|row| firmware_id(row) == firmware || row.digest.to_string() == firmware);
            let Some(digest) = known.map(|row| row.digest) else {
                return Err(ServiceError::NotFound(format!("there is no firmware {firmware:?}")));
            };
            let mut ops = Vec::new();
            let mut withdrawn = HashSet::new();
            for row in files.rows.iter_mut().filter(|row| row.digest == digest) {
                row.withdrawn = Some(actor.shown().into());
                ops.push(Op::File(row.clone()));
                ops.push(Engine::audit_by(actor, &row.path, "withdrawn", Some(digest.to_string())));
                withdrawn.insert(row.id);
            }
            let fleet = &mut *self.fleet.lock();
            let live = fleet.deployments.values().filter(|one| {
                withdrawn.contains(&one.file) && one.state != DeploymentState::Cancelled
            });
            let ids: Vec<i64> = live.map(|one| one.id).collect();
            ops.extend(fleet.cancel(&ids, &by("withdrawn", actor), files));
            self.store.give_up(files.withdrawn());
            (self.keep(ops), ids)
        };
        self.stop_transfers(&ids);
        let written = written.await;
        self.rebuild_catalog();
        self.reconsider_all().await;
        written.map_err(|error| {
            ServiceError::Unavailable(format!("it is withdrawn, and not written yet: {error}"))
        })
    }

    /// Stops all offers of the site, or lets them go on.
    pub async fn freeze(self: &Arc<Self>, frozen: bool, actor: &Actor) -> Result<(), ServiceError> {
        let action = if frozen { "frozen" } else { "unfrozen" };
        let (written, changed) = {
            let mut fleet = self.fleet.lock();
            let changed = fleet.frozen.is_some() != frozen;
            let mut audit = None;
            if changed {
                fleet.frozen = frozen.then(|| Frozen { at: unix_now(), by: actor.shown().into() });
                audit = Some(Engine::audit_by(actor, "site", action, None));
            }
            // Also where it is so already: that may not be written yet.
            let ops = [Some(fleet.frozen_op()), audit].into_iter().flatten().collect();
            (self.keep(ops), changed)
        };
        if changed {
            tracing::warn!(by = actor.shown(), "all offers of the site are {action}");
            self.tell_site();
        }
        let written = written.await;
        if changed {
            self.reconsider_all().await;
        }
        written.map_err(|error| {
            ServiceError::Unavailable(format!(
                "the site is {action}, and that is not written yet: {error}"
            ))
        })
    }

    /// Tells whoever listens how the site is.
    pub fn tell_site(&self) {
        let frozen = self.fleet.lock().frozen.is_some();
        let store_problem = self.store_problem.lock().clone();
        self.events.tell(Change::Site { at: unix_now(), frozen, store_problem });
    }

    pub fn tell_deployments(&self, ids: &[i64]) {
        let fleet = self.fleet.lock();
        for deployment in ids.iter().filter_map(|id| fleet.deployments.get(id)) {
            self.events.tell(Change::of(deployment));
        }
    }
}

pub fn by(what: &str, actor: &Actor) -> String {
    format!("{what} by {}", actor.shown())
}

pub fn unknown(id: i64) -> ServiceError {
    ServiceError::NotFound(format!("there is no deployment {id}"))
}
