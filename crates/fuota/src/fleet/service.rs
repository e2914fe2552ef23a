//! Deployments for the admin interface.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::Stream;

use super::{
    change::DeploymentPatch,
    deployment::{Deployment, DeploymentState},
    events::{Alerts, From, Listener},
    operate::Outcome,
    views::{
        Act, Acted, AuditView, DeployedFirmware, DeploymentView, Excluded, FreezeView,
        HappeningView, MemberView, NewDeployment, PlanReport, WhyView,
    },
};
use crate::{
    Service,
    catalog::{Release, facts_text, firmware_id, signature_text, upload_text},
    db::FileRow,
    device::{Device, DeviceState},
    fleet::{Dropping, rollout::Plan},
    ingest::Applied,
    policy::Decision,
    registration::invalid,
    requests,
    state::UpdateState,
    transfer::unix_now,
    views::{Actor, FirmwareView, ServiceError},
};

/// Where uploads lie among the paths: a folder that the watched place cannot have.
const UPLOADS: &str = "uploads/";
/// The longest title, version, model or file name of an upload, in bytes.
const LONGEST_NAME: usize = 128;

/// What an upload says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upload {
    /// The name of its file.
    pub file_name: String,
    /// Its title, where that is not in the name.
    pub name: Option<String>,
    /// Its version, likewise.
    pub version: Option<String>,
    /// The model that it is for.
    pub model: Option<String>,
    /// Notes for people.
    pub notes: Option<String>,
    /// Its detached signature, as `FILE.minisig` holds it.
    pub signature: Option<String>,
}

/// A device that is meant by a deployment and was not offered it.
struct Rest {
    device: Arc<Device>,
    /// Whether it will be: only its absence, a wave, a window or a cap is in the way.
    waits: bool,
}

/// Bytes of an upload that were copied.
#[derive(Debug)]
pub struct UploadedBytes(store::Ingested);

impl UploadedBytes {
    /// Their digest.
    pub(crate) fn digest(&self) -> store::Digest {
        self.0.digest
    }

    /// The same bytes, which lie where they were copied to.
    pub(crate) fn again(&self) -> UploadedBytes {
        UploadedBytes(self.0.clone())
    }
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
            crate::catalog::Catalog::build(&files.rows, all, &files.refused, site)
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

    /// Copies the bytes of an upload, which are for nobody yet.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`] where they are none, too many, or break off;
    /// [`ServiceError::Unavailable`] where they cannot be written.
    pub async fn take_upload(
        &self,
        bytes: impl Stream<Item = std::io::Result<Bytes>> + Send,
    ) -> Result<UploadedBytes, ServiceError> {
        let taken = self.0.store.ingest_stream(bytes).await.map_err(|error| match error {
            store::IngestError::Write(_) => ServiceError::Unavailable(error.to_string()),
            _ => invalid("file", error.to_string()),
        })?;
        Ok(UploadedBytes(taken))
    }

    /// Catalogues uploaded bytes (rule 11). The second value says whether that is new: the same
    /// bytes under the same name are not, nor is an earlier request with this key.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`]; [`ServiceError::Conflict`] where an earlier file has this
    /// title and version and other bytes, or the key was used otherwise;
    /// [`ServiceError::Unavailable`].
    pub async fn add_firmware(
        &self,
        upload: Upload,
        UploadedBytes(ingested): UploadedBytes,
        key: Option<&str>,
        actor: &Actor,
    ) -> Result<(FirmwareView, bool), ServiceError> {
        let engine = &self.0;
        check_upload(&upload)?;
        let parts = store::NameParts::parse(&upload.file_name);
        let signature = upload.signature.as_deref().map(str::as_bytes);
        let verdict = engine.store.judge_upload(&ingested, signature);
        let verdict = verdict.map_err(|why| invalid("signature", why))?;
        let Upload { file_name, name, version, model, notes, .. } = upload;
        let row = FileRow {
            id: 0,
            path: format!("{UPLOADS}{file_name}"),
            fingerprint: String::new(),
            digest: ingested.digest,
            size: ingested.size,
            target: String::new(),
            sidecar: upload_text(name, version, model, notes),
            name_title: parts.title,
            name_version: parts.version,
            created_seq: 0,
            created_at: unix_now(),
            removed_seq: None,
            uploaded: true,
            withdrawn: None,
            facts: Some(facts_text(&ingested.facts)),
            signature: Some(signature_text(&verdict)),
        };
        let made = 'made: {
            let mut files = engine.files.lock();
            let wanted = (&row.path, &row.sidecar, &row.signature, row.digest.to_string());
            let request = engine.requests.open(&engine.key, "firmware", key, &wanted)?;
            if request.is_done {
                drop(files);
                let view = self.firmware_one(&firmware_id(&row));
                return view.map(|view| (view, false)).ok_or_else(|| requests::gone("firmware"));
            }
            let present = files.rows.iter().find(|other| {
                other.removed_seq.is_none() && other.uploaded && other.path == row.path
            });
            match present {
                Some(same)
                    if (same.digest, &same.sidecar, &same.signature)
                        == (row.digest, &row.sidecar, &row.signature) =>
                {
                    break 'made Err(firmware_id(same));
                }
                Some(other) => {
                    return Err(ServiceError::Conflict(format!(
                        "{} was uploaded already ({}, this is {}): give this upload another file name",
                        other.path,
                        other.digest.short(),
                        row.digest.short(),
                    )));
                }
                None => {}
            }
            check_conflict(&files.rows, &row)?;
            let mut applied = Applied::default();
            let row = files.add(row, &mut applied);
            applied.ops.push(crate::engine::Engine::audit_by(
                actor,
                &row.path,
                "uploaded",
                Some(row.digest.to_string()),
            ));
            let how = Dropping { deploy: false, hold: false, plan: Plan::all() };
            applied.ops.extend(request.op());
            let (ops, _fleet) = engine.take_in(&mut files, applied, &how);
            Ok((row, engine.keep(ops), request))
        };
        let (row, written, request) = match made {
            Ok(made) => made,
            Err(same) => {
                // The upload that brought it may not be done yet.
                engine.settled().await?;
                return Ok((self.listed(&same)?, false));
            }
        };
        if let Err(error) = written.await {
            engine.files.lock().rows.retain(|other| other.id != row.id);
            return Err(ServiceError::Unavailable(error.to_string()));
        }
        engine.requests.done(request);
        engine.rebuild_catalog();
        engine.store.need(engine.needed_images());
        engine.reconsider_all().await;
        Ok((self.listed(&firmware_id(&row))?, true))
    }

    fn listed(&self, id: &str) -> Result<FirmwareView, ServiceError> {
        let gone = || ServiceError::Unavailable("the firmware was just removed".into());
        self.firmware_one(id).ok_or_else(gone)
    }

    /// Withdraws firmware, by its id: its bytes are never offered again, and the transfers of
    /// them end.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Unavailable`].
    pub async fn withdraw_firmware(&self, id: &str, actor: &Actor) -> Result<(), ServiceError> {
        self.0.withdraw(id, actor).await
    }

    /// The role of a user, by name and password.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`] where too many logins failed or are being checked;
    /// [`ServiceError::NotFound`] where there is no such user, or the password is another.
    pub async fn log_in(
        &self,
        name: &str,
        password: &str,
        address: Option<std::net::SocketAddr>,
    ) -> Result<crate::UserRole, ServiceError> {
        self.0.log_in(name, password, address).await.map_err(|(text, later)| match later {
            true => ServiceError::Unavailable(text),
            false => ServiceError::NotFound(text),
        })
    }

    /// Every change from there on.
    pub fn listen(&self, from: From<'_>) -> Listener {
        Listener::new(Arc::clone(&self.0), from)
    }

    /// What operators are to hear, from now on.
    pub fn alerts(&self) -> Alerts {
        Alerts::new(Arc::clone(&self.0))
    }

    /// Writes into the audit what somebody did beside the updates: to a session, to retained
    /// messages. Where that cannot be written, the log has it.
    pub fn note(&self, actor: &Actor, subject: &str, action: &'static str, detail: Option<String>) {
        let line = crate::engine::Engine::audit_by(actor, subject, action, detail.clone());
        if let Err(error) = self.0.db.submit(vec![line], None) {
            tracing::error!(by = actor.shown(), subject, action, detail, %error, "not in the audit");
        }
    }

    /// Whether offers of the site are stopped.
    pub fn frozen(&self) -> FreezeView {
        let frozen = self.0.fleet.lock().frozen.clone();
        FreezeView {
            frozen: frozen.is_some(),
            at: frozen.as_ref().map(|frozen| frozen.at),
            by: frozen.map(|frozen| frozen.by),
        }
    }

    /// Stops all offers of the site, or lets them go on. What runs finishes.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`] where it is done and not written.
    pub async fn freeze(&self, frozen: bool, actor: &Actor) -> Result<FreezeView, ServiceError> {
        self.0.freeze(frozen, actor).await?;
        Ok(self.frozen())
    }

    /// What a device should run, and why it is or is not offered it.
    pub fn why(&self, id: &str) -> Option<WhyView> {
        let device = self.0.registry.get(id)?;
        let (sentence, deployment, state) = self.0.why(&device);
        Some(WhyView {
            device: id.into(),
            sentence,
            deployment: deployment.map(|id| id.to_string()),
            state: state.map(|state| state.name().to_owned()),
        })
    }

    /// What happened to a device, the newest first: lines with a lower number than `before`.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Unavailable`].
    pub async fn timeline(
        &self,
        device: &str,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<HappeningView>, ServiceError> {
        if self.0.registry.get(device).is_none() {
            return Err(ServiceError::NotFound(format!("there is no device {device}")));
        }
        let rows = self.0.db.timeline(device, before.unwrap_or(i64::MAX), limit).await;
        let rows = rows.map_err(|error| ServiceError::Unavailable(error.to_string()))?;
        let view = |row: crate::db::TimelineRow| HappeningView {
            id: row.id.to_string(),
            at: row.at,
            action: row.action,
            detail: row.detail,
            deployment: row.deployment.map(|id| id.to_string()),
        };
        Ok(rows.into_iter().map(view).collect())
    }

    /// Who did what, the newest first: lines with a lower number than `before`.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`].
    pub async fn audit(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<AuditView>, ServiceError> {
        let rows = self.0.db.audit(before.unwrap_or(i64::MAX), limit).await;
        let rows = rows.map_err(|error| ServiceError::Unavailable(error.to_string()))?;
        let view = |row: crate::db::AuditRow| AuditView {
            id: row.id.to_string(),
            at: row.at,
            actor: row.actor,
            origin: row.origin,
            subject: row.subject,
            action: row.action,
            detail: row.detail,
        };
        Ok(rows.into_iter().map(view).collect())
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

fn check_upload(upload: &Upload) -> Result<(), ServiceError> {
    let plain = |text: &str| {
        !text.is_empty() && text.len() <= LONGEST_NAME && !text.chars().any(char::is_control)
    };
    let name = &upload.file_name;
    if !plain(name) || name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(invalid(
            "file",
            format!(
                "its file name must be 1 to {LONGEST_NAME} bytes without '/' and without a '.' in front"
            ),
        ));
    }
    for (field, value) in [("name", &upload.name), ("version", &upload.version)] {
        if value.as_deref().is_some_and(|value| !plain(value)) {
            return Err(invalid(field, format!("use 1 to {LONGEST_NAME} bytes of text")));
        }
    }
    if let Some(model) = upload.model.as_deref().filter(|model| !crate::names::is_name(model)) {
        return Err(invalid("model", crate::names::name_problem("model", model)));
    }
    if upload.notes.as_deref().is_some_and(|notes| notes.len() > 4096) {
        return Err(invalid("notes", "more than 4096 bytes".into()));
    }
    Ok(())
}

/// Rule 10: one title and version is one content.
fn check_conflict(rows: &[FileRow], new: &FileRow) -> Result<(), ServiceError> {
    let release = Release::from_row(new);
    let Some(title) = &release.title else { return Ok(()) };
    let live = rows.iter().filter(|row| row.removed_seq.is_none() && row.digest != new.digest);
    for other in live.map(Release::from_row) {
        let same = other.title.as_ref().is_some_and(|other| other.text == title.text)
            && other.version.text == release.version.text;
        if same {
            return Err(ServiceError::Conflict(format!(
                "{} already is {} {} with other bytes ({}, this is {}): give this another version",
                other.path,
                title.text,
                release.version.text,
                other.digest.short(),
                release.digest.short(),
            )));
        }
    }
    Ok(())
}
