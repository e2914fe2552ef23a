//! Deployments for the admin interface.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    change::DeploymentPatch,
    deployment::{Deployment, DeploymentState},
    operate::Outcome,
    views::{
        Act, Acted, DeployedFirmware, DeploymentView, Excluded, MemberView, NewDeployment,
        PlanReport,
    },
};
use crate::{
    Service,
    catalog::Release,
    device::{Device, DeviceState},
    policy::Decision,
    requests,
    state::UpdateState,
    views::{Actor, ServiceError},
};

/// A device that is meant by a deployment and was not offered it.
struct Rest {
    device: Arc<Device>,
    /// Whether it will be: only its absence, a wave, a window or a cap is in the way.
    waits: bool,
}

impl Service {
    /// Deployments by number, the newest first: those with a lower number than `before`, in
    /// this state if one is named, `limit` at most.
    pub fn deployments(
        &self,
        before: Option<i64>,
        state: Option<&str>,
        limit: usize,
    ) -> Vec<DeploymentView> {
        let fleet = self.0.fleet.lock();
        let found = fleet.deployments.values().rev();
        let found = found.filter(|one| {
            before.is_none_or(|before| one.id < before)
                && state.is_none_or(|state| state == one.state.name())
        });
        found.take(limit).map(|one| self.deployment_view(one)).collect()
    }

    /// One deployment, with how many devices it has still to reach.
    pub fn deployment(&self, id: i64) -> Option<DeploymentView> {
        let mut view = self.deployment_view(self.0.fleet.lock().deployments.get(&id)?);
        let running = view.state == DeploymentState::Running.name();
        let rest = self.rest(id, None);
        let open: usize = UpdateState::NAMES[..5].iter().map(|name| view.counts[name]).sum();
        let waiting = rest.iter().any(|one| one.waits);
        view.not_offered = Some(rest.len());
        view.complete = Some(!running || (open == 0 && !waiting));
        Some(view)
    }

    /// The devices of a deployment, by id: those after `after`, `limit` at most. Those that
    /// were not offered it come with the reason.
    pub fn deployment_devices(
        &self,
        id: i64,
        after: Option<&str>,
        limit: usize,
    ) -> Option<Vec<MemberView>> {
        let mut all: Vec<(String, Option<MemberView>)> = Vec::new();
        {
            let fleet = self.0.fleet.lock();
            let members = &fleet.deployments.get(&id)?.members;
            let later =
                members.iter().filter(|(name, _)| after.is_none_or(|after| &***name > after));
            for (device, member) in later {
                let Some(state) = &member.state else { continue };
                let view = MemberView {
                    device: device.to_string(),
                    state: Some(state.name()),
                    reason: state.reason().map(str::to_owned),
                    wave: member.wave.map(|wave| wave + 1),
                    at: Some(member.at),
                };
                all.push((view.device.clone(), Some(view)));
            }
        }
        all.extend(self.rest(id, after).into_iter().map(|rest| (rest.device.id.to_string(), None)));
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all.truncate(limit);
        // Only for what is shown a reason is looked for.
        let view = |(device, view): (String, Option<MemberView>)| {
            view.unwrap_or_else(|| {
                let known = self.0.registry.get(&device);
                let reason = known.and_then(|known| self.reason(id, &known, &known.state.lock()));
                let reason = reason.unwrap_or_else(|| "it is offered it when it connects".into());
                MemberView { device, state: None, reason: Some(reason), wave: None, at: None }
            })
        };
        Some(all.into_iter().map(view).collect())
    }

    /// Known devices after this id that are meant and were not offered it.
    fn rest(&self, id: i64, after: Option<&str>) -> Vec<Rest> {
        let engine = &self.0;
        let Some(target) = engine.fleet.lock().deployments.get(&id).map(|one| one.target.clone())
        else {
            return Vec::new();
        };
        let mut rest = Vec::new();
        for device in engine.registry.all() {
            if after.is_some_and(|after| &*device.id <= after) {
                continue;
            }
            let state = device.state.lock();
            let listed = {
                let fleet = engine.fleet.lock();
                let member = fleet.deployments.get(&id).and_then(|one| one.members.get(&device.id));
                match member {
                    Some(member) if member.state.is_some() => continue,
                    Some(_) => true,
                    None => false,
                }
            };
            if listed || target.means(&device.id, &state) {
                let waits = engine.would_run(id, &device, &state);
                drop(state);
                rest.push(Rest { device, waits });
            }
        }
        rest
    }

    /// Why a device is not offered this deployment; `None` where it is as soon as it can be.
    fn reason(&self, id: i64, device: &Device, state: &DeviceState) -> Option<String> {
        match self.0.decide(device, state) {
            Decision::Run(release) if release.deployment == id => None,
            Decision::Run(release) => {
                Some(format!("{} goes first", crate::policy::describe(&release)))
            }
            Decision::Nothing(why) => Some(why),
        }
    }

    fn deployment_view(&self, one: &Deployment) -> DeploymentView {
        let catalog = self.0.catalog.load();
        let mut counts: BTreeMap<&'static str, usize> =
            UpdateState::NAMES.iter().map(|name| (*name, 0)).collect();
        for state in one.members.values().filter_map(|member| member.state.as_ref()) {
            *counts.entry(state.name()).or_default() += 1;
        }
        let blocked = catalog.blocked(one.id).filter(|_| !one.state.is_over()).map(str::to_owned);
        let running = one.state == DeploymentState::Running;
        let closed = || {
            let settings = self.0.settings();
            one.conditions.windows(&settings).closed(self.0.wall.now()).filter(|_| running)
        };
        DeploymentView {
            id: one.id.to_string(),
            state: one.state.name(),
            reason: one.reason.clone().or(blocked).or_else(closed),
            firmware: catalog.file(one.file).map(deployed).unwrap_or_default(),
            target: one.target.view(),
            downgrade: one.downgrade,
            rollout: one.plan.clone(),
            windows: one.conditions.windows.clone(),
            limits: one.conditions.limits.clone(),
            wave: one.wave + 1,
            wave_size: one.size,
            created: one.created_at,
            created_by: one.created_by.clone(),
            counts,
            not_offered: None,
            complete: None,
        }
    }

    /// Makes a deployment; `key` names the request, so that it can be repeated. The second value
    /// says whether it is new.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`]; [`ServiceError::Conflict`] where one does that already, where
    /// the firmware cannot be deployed, or the key was used otherwise;
    /// [`ServiceError::Unavailable`].
    pub async fn create_deployment(
        &self,
        new: NewDeployment,
        key: Option<String>,
        actor: &Actor,
    ) -> Result<(DeploymentView, bool), ServiceError> {
        key.as_deref().map_or(Ok(()), requests::check_key)?;
        let (id, is_new) = self.0.create_deployment(&new, key, actor).await?;
        Ok((self.one_deployment(id)?, is_new))
    }

    /// What a deployment would do. Nothing changes.
    ///
    /// # Errors
    /// As [`Service::create_deployment`].
    pub fn plan_deployment(&self, new: &NewDeployment) -> Result<PlanReport, ServiceError> {
        let engine = &self.0;
        let (file, draft) = engine.draft(new)?;
        let catalog = {
            let files = engine.files.lock();
            let site = engine.registry.site();
            let fleet = engine.fleet.lock();
            let draft = Deployment { created: i64::MAX, ..draft.clone() };
            let all = fleet.deployments.values().chain(std::iter::once(&draft));
            let trust = engine.store.tuning().trust;
            crate::catalog::Catalog::build(&files.rows, all, &files.troubles, site, &trust)
        };
        let (mut devices, mut excluded) = (Vec::new(), Vec::new());
        for device in engine.registry.all() {
            let state = device.state.lock();
            if !draft.target.means(&device.id, &state) {
                continue;
            }
            match engine.decide_in(&catalog, &device, &state, draft.id) {
                Decision::Run(release) if release.deployment == draft.id => {
                    devices.push(device.id.to_string());
                }
                Decision::Run(release) => excluded.push(Excluded {
                    device: device.id.to_string(),
                    reason: format!("{} goes first", crate::policy::describe(&release)),
                }),
                Decision::Nothing(reason) => {
                    excluded.push(Excluded { device: device.id.to_string(), reason });
                }
            }
        }
        devices.sort();
        excluded.sort_by(|a, b| a.device.cmp(&b.device));
        let pace = *engine.pace.lock();
        let waves = 0..draft.plan.waves.len();
        Ok(PlanReport {
            firmware: catalog.file(file.id).map(deployed).unwrap_or_default(),
            bytes: file.size * devices.len() as u64,
            seconds: pace.map(|pace| (file.size as f64 / pace).ceil() as u64),
            waves: waves
                .map(|wave| draft.plan.size(wave, devices.len()).min(devices.len()))
                .collect(),
            devices,
            excluded,
        })
    }

    /// Does what an operator says with a deployment; a cancel or a retry may name one device.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Conflict`] where that makes no sense now,
    /// [`ServiceError::Unavailable`] where it is done and not written yet.
    pub async fn act_on_deployment(
        &self,
        id: i64,
        act: Act,
        device: Option<&str>,
        actor: &Actor,
    ) -> Result<Acted, ServiceError> {
        let outcome = match (act, device) {
            (Act::Cancel, Some(device)) => {
                self.0.cancel_device(id, device, actor).await?;
                Outcome::default()
            }
            _ => self.0.act(id, act, device, actor).await?,
        };
        let rollbacks = outcome.rollbacks;
        Ok(Acted {
            deployment: self.one_deployment(id)?,
            retried: outcome.retried,
            rollbacks: rollbacks.map(|ids| ids.iter().map(ToString::to_string).collect()),
            left: outcome.left,
        })
    }

    /// Changes what is named of a deployment that is not over, at once.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Invalid`], [`ServiceError::Conflict`] where it
    /// is over, [`ServiceError::Unavailable`] where it is done and not written yet.
    pub async fn change_deployment(
        &self,
        id: i64,
        patch: &DeploymentPatch,
        actor: &Actor,
    ) -> Result<DeploymentView, ServiceError> {
        self.0.change_deployment(id, patch, actor).await?;
        self.one_deployment(id)
    }

    fn one_deployment(&self, id: i64) -> Result<DeploymentView, ServiceError> {
        let gone = || ServiceError::NotFound(format!("there is no deployment {id}"));
        self.deployment(id).ok_or_else(gone)
    }
}

fn deployed(file: &Arc<Release>) -> DeployedFirmware {
    DeployedFirmware {
        id: crate::catalog::release_id(file),
        path: file.path.clone(),
        title: file.title.as_ref().map(|title| title.text.clone()),
        version: file.version.text.clone(),
        digest: file.digest.to_string(),
        size: file.size,
    }
}
