//! The service: what the admin interface asks and changes. It holds no rule of its own.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use tokio::time::Instant;

use crate::{
    db::Op,
    device::Device,
    engine::Engine,
    names::{is_name, is_reserved, name_problem},
    secret::{MAX_TOKEN, MIN_TOKEN, TokenHash, new_token},
    transfer::unix_now,
    views::{
        AddedDevice, ChangedDevice, DeviceCounts, DevicePatch, DeviceQuery, DeviceView,
        FirmwareState, FirmwareView, NewDevice, ServiceError, SiteStatus,
    },
};

/// Devices in one answer, where the query names no number.
const DEFAULT_LIMIT: usize = 1000;
/// Groups, and labels, of one device.
const MAX_LABELS: usize = 64;

/// See [the module](self). Cheap to clone.
#[derive(Clone)]
pub struct Service(pub(crate) Arc<Engine>);

impl Service {
    /// Devices that match, by id.
    pub fn devices(&self, query: &DeviceQuery) -> Vec<DeviceView> {
        let mut devices = self.0.registry.all();
        devices.retain(|device| query.after.as_deref().is_none_or(|after| *device.id > *after));
        devices.sort_by(|a, b| a.id.cmp(&b.id));
        let limit = if query.limit == 0 { DEFAULT_LIMIT } else { query.limit };
        let views = devices.iter().map(|device| device.view());
        views.filter(|view| matches(query, view)).take(limit).collect()
    }

    /// One device.
    pub fn device(&self, id: &str) -> Option<DeviceView> {
        self.0.registry.get(id).map(|device| device.view())
    }

    /// Whether [`Service::add_device`] would register this device now. Nothing changes.
    ///
    /// # Errors
    /// As [`Service::add_device`].
    pub fn check_device(&self, new: &NewDevice) -> Result<(), ServiceError> {
        check_name("id", "device id", &new.id)?;
        if is_reserved(&new.id) {
            return Err(invalid(
                "id",
                "ids of this form are given to devices without registration".into(),
            ));
        }
        check_groups(&new.groups)?;
        check_labels(&new.labels)?;
        if let Some(model) = &new.model {
            check_name("model", "model", model)?;
        }
        let engine = &self.0;
        if engine.registered(&new.id).is_some() {
            return Err(registered_already(&new.id));
        }
        if engine.accounts.get(&new.id).is_some() {
            return Err(ServiceError::Conflict(format!(
                "{} is a user; a device needs another id",
                new.id
            )));
        }
        if let Some(token) = &new.token {
            check_token(token)?;
            if engine.registry.token_owner(&engine.key.token(token.as_bytes())).is_some() {
                return Err(ServiceError::Conflict("this token is another device's".into()));
            }
        }
        Ok(())
    }

    /// Registers a device; one that was seen before keeps what it experienced. Sessions that
    /// use its id without its token are ended.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`], [`ServiceError::Conflict`] where the id or the token is
    /// registered, [`ServiceError::Unavailable`].
    pub async fn add_device(&self, new: NewDevice) -> Result<AddedDevice, ServiceError> {
        self.check_device(&new)?;
        let token = match new.token {
            Some(token) => token,
            None => new_token().map_err(|error| ServiceError::Unavailable(error.to_string()))?,
        };
        let engine = &self.0;
        let hash = engine.key.token(token.as_bytes());
        let id: Arc<str> = new.id.as_str().into();
        let fresh = Arc::new(Device::new(Arc::clone(&id), true));
        let device = if engine.registry.insert_new(Arc::clone(&fresh)) {
            fresh.state.lock().away_since = Some(Instant::now());
            Arc::clone(&fresh)
        } else {
            engine
                .registry
                .get(&id)
                .ok_or_else(|| ServiceError::Unavailable("the device was just forgotten".into()))?
        };
        let row = {
            let mut state = device.state.lock();
            if state.registered {
                return Err(registered_already(&id));
            }
            let known = !Arc::ptr_eq(&device, &fresh);
            if known {
                engine.registry.registered();
            }
            state.registered = true;
            state.token = Some(hash);
            state.groups = sorted(new.groups);
            state.labels = new.labels;
            state.model = new.model.or(state.model.take());
            device.row(&state)
        };
        engine.registry.add_token(hash, Arc::clone(&id));
        let written =
            engine.db.commit(vec![Op::Device(row), Engine::audit(&id, "registered", None)]).await;
        if let Err(error) = written {
            engine.registry.remove_token(&hash);
            if Arc::ptr_eq(&device, &fresh) {
                engine.registry.remove(&id);
            } else {
                device.state.lock().registered = false;
            }
            return Err(ServiceError::Unavailable(error.to_string()));
        }
        self.end_sessions(&device);
        self.names_changed().await;
        Ok(AddedDevice { id: new.id, token })
    }

    /// Changes a device.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Invalid`], [`ServiceError::Conflict`] where a
    /// device without registration has no token to rotate, [`ServiceError::Unavailable`].
    pub async fn set_device(
        &self,
        id: &str,
        patch: DevicePatch,
    ) -> Result<ChangedDevice, ServiceError> {
        let engine = &self.0;
        let device = engine
            .registry
            .get(id)
            .ok_or_else(|| ServiceError::NotFound(format!("there is no device {id}")))?;
        if let Some(groups) = &patch.groups {
            check_groups(groups)?;
        }
        if let Some(labels) = &patch.labels {
            check_labels(labels)?;
        }
        if let Some(model) = patch.model.as_deref().filter(|model| !model.is_empty()) {
            check_name("model", "model", model)?;
        }
        let remodelled = patch.model.is_some();
        let token = match patch.rotate_token {
            true => {
                Some(new_token().map_err(|error| ServiceError::Unavailable(error.to_string()))?)
            }
            false => None,
        };
        let row = {
            let mut state = device.state.lock();
            if let Some(token) = &token {
                if !state.registered {
                    return Err(ServiceError::Conflict(format!(
                        "{id} is not registered, so it has no token to rotate"
                    )));
                }
                let hash = engine.key.token(token.as_bytes());
                rotate(engine, &device.id, &mut state, hash, patch.now);
            }
            if let Some(groups) = patch.groups {
                state.groups = sorted(groups);
            }
            if let Some(labels) = patch.labels {
                state.labels = labels;
            }
            if let Some(model) = patch.model {
                state.model = Some(model).filter(|model| !model.is_empty());
            }
            device.row(&state)
        };
        let action = if token.is_some() { "token rotated" } else { "changed" };
        let written =
            engine.db.commit(vec![Op::Device(row), Engine::audit(id, action, None)]).await;
        if let Err(error) = written {
            device.dirty.store(true, Ordering::Relaxed);
            return Err(ServiceError::Unavailable(error.to_string()));
        }
        if patch.now && token.is_some() {
            self.end_sessions(&device);
        }
        if remodelled {
            self.names_changed().await;
        } else {
            engine.consider(&device);
        }
        Ok(ChangedDevice { device: device.view(), token })
    }

    /// Forgets a device: its token, its connections, and what it experienced. One without
    /// registration that connects again is a new one.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; [`ServiceError::Unavailable`] where an offer is just being
    /// written for it, or the database does not answer: then nothing has changed.
    pub async fn remove_device(&self, id: &str) -> Result<(), ServiceError> {
        let engine = &self.0;
        let device = engine
            .registry
            .get(id)
            .ok_or_else(|| ServiceError::NotFound(format!("there is no device {id}")))?;
        // First from memory: what writes progress must not bring its row back.
        let row = engine.registry.forget(&device).ok_or_else(|| {
            ServiceError::Unavailable("an offer to it is just being written".into())
        })?;
        engine.fleet.lock().remove_device(id);
        let ops = vec![Op::DeviceGone(id.to_owned()), Engine::audit(id, "removed", None)];
        let written = engine.db.commit(ops).await;
        if written.is_err() {
            engine.registry.load(Device::from_row(row));
        }
        self.end_sessions(&device);
        written.map_err(|error| ServiceError::Unavailable(error.to_string()))?;
        self.names_changed().await;
        Ok(())
    }

    /// Every file of the watched directory, accepted or not, by path.
    pub fn firmware(&self) -> Vec<FirmwareView> {
        self.0.catalog.load().views().to_vec()
    }

    /// One of those, by its id.
    pub fn firmware_one(&self, id: &str) -> Option<FirmwareView> {
        self.0.catalog.load().views().iter().find(|view| view.id == id).cloned()
    }

    /// The site at a glance.
    pub fn status(&self) -> SiteStatus {
        let engine = &self.0;
        let mut devices = DeviceCounts::default();
        let mut states = BTreeMap::new();
        for device in engine.registry.all() {
            let state = device.state.lock();
            devices.total += 1;
            devices.registered += usize::from(state.registered);
            devices.online += usize::from(!state.links.is_empty());
            if let Some(transfer) = &state.transfer {
                *states.entry(transfer.state().name()).or_default() += 1;
            }
        }
        let mut firmware = BTreeMap::new();
        for view in engine.catalog.load().views() {
            let name = match view.state {
                FirmwareState::Accepted => "accepted",
                FirmwareState::Catalogued => "catalogued",
                FirmwareState::Withdrawn => "withdrawn",
                FirmwareState::Refused => "refused",
                FirmwareState::Held => "held",
                FirmwareState::Conflict => "conflict",
                FirmwareState::Replaced => "replaced",
            };
            *firmware.entry(name).or_default() += 1;
        }
        let counters = &engine.counters;
        SiteStatus {
            ready: engine.is_ready(),
            store_problem: engine.store_problem.lock().clone(),
            database_problem: engine.db.problem(),
            devices,
            states,
            firmware,
            blocks: counters.blocks.load(Ordering::Relaxed),
            block_bytes: counters.block_bytes.load(Ordering::Relaxed),
            manifests: counters.manifests.load(Ordering::Relaxed),
            errors: counters.errors.load(Ordering::Relaxed),
            batches: counters.batches.load(Ordering::Relaxed),
            refused: engine.refused(),
            failed_logins: counters.failed_logins.load(Ordering::Relaxed),
        }
    }

    /// Ends the connections that use this id; those that can prove it come back.
    fn end_sessions(&self, device: &Device) {
        self.0.end_account(&device.id, "log in with the device's token");
    }

    /// A model may be new to the site, or gone from it: files may be held or released by that.
    async fn names_changed(&self) {
        self.0.rebuild_catalog();
        self.0.reconsider_all().await;
    }
}

fn rotate(
    engine: &Engine,
    id: &Arc<str>,
    state: &mut crate::device::DeviceState,
    hash: TokenHash,
    now: bool,
) {
    if let Some((older, _)) = state.old_token.take() {
        engine.registry.remove_token(&older);
    }
    if let Some(old) = state.token.replace(hash) {
        if now {
            engine.registry.remove_token(&old);
        } else {
            state.old_token = Some((old, unix_now() + engine.settings.rotation_grace.as_secs()));
        }
    }
    engine.registry.add_token(hash, Arc::clone(id));
}

fn matches(query: &DeviceQuery, view: &DeviceView) -> bool {
    let same = |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
    query.online.is_none_or(|online| online == view.online)
        && query.registered.is_none_or(|registered| registered == view.registered)
        && query.group.as_ref().is_none_or(|group| view.groups.contains(group))
        && same(&query.model, &view.model)
        && same(&query.state, &view.state)
        && query.search.as_deref().is_none_or(|text| {
            view.id.contains(text) || view.client_id.as_deref().is_some_and(|id| id.contains(text))
        })
}

fn registered_already(id: &str) -> ServiceError {
    ServiceError::Conflict(format!("the device {id} is registered already"))
}

/// A field that cannot be accepted.
pub fn invalid(field: &'static str, problem: String) -> ServiceError {
    ServiceError::Invalid { field, problem }
}

fn check_name(field: &'static str, what: &str, name: &str) -> Result<(), ServiceError> {
    if is_name(name) { Ok(()) } else { Err(invalid(field, name_problem(what, name))) }
}

fn check_groups(groups: &[String]) -> Result<(), ServiceError> {
    if groups.len() > MAX_LABELS {
        return Err(invalid("groups", format!("more than {MAX_LABELS} groups")));
    }
    groups.iter().try_for_each(|group| check_name("groups", "group", group))
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), ServiceError> {
    if labels.len() > MAX_LABELS {
        return Err(invalid("labels", format!("more than {MAX_LABELS} labels")));
    }
    for (key, value) in labels {
        check_name("labels", "label", key)?;
        if value.len() > 256 || value.chars().any(char::is_control) {
            return Err(invalid(
                "labels",
                format!("the value of {key} is longer than 256 bytes or has control characters"),
            ));
        }
    }
    Ok(())
}

fn check_token(token: &str) -> Result<(), ServiceError> {
    if token.len() < MIN_TOKEN {
        return Err(invalid(
            "token",
            format!(
                "it has fewer than {MIN_TOKEN} bytes (128 bits); leave it out to have one made"
            ),
        ));
    }
    if token.len() > MAX_TOKEN || token.chars().any(char::is_control) {
        return Err(invalid(
            "token",
            format!("it has more than {MAX_TOKEN} bytes or control characters"),
        ));
    }
    Ok(())
}

fn sorted(mut groups: Vec<String>) -> Vec<String> {
    groups.sort();
    groups.dedup();
    groups
}
