//! Registering devices, one or a whole fleet at once: with a token, or as a user of the role
//! `device`, which logs in with a password (rules 1 and 2).

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Service,
    db::{DeviceRow, Op},
    device::{Device, DeviceState},
    engine::Engine,
    names::{is_name, is_reserved, name_problem},
    requests,
    secret::{LONGEST_TOKEN, MIN_TOKEN, TokenHash, new_link_seed},
    views::{Actor, AddedDevice, NewDevice, ServiceError},
};

/// Groups, and labels, of one device.
const MAX_LABELS: usize = 64;

/// A device to register; all of it has been checked.
pub struct Registration {
    pub id: Arc<str>,
    /// `None`: it logs in as the user of its name.
    pub token: Option<TokenHash>,
    /// From now on; `None`: what is known stays.
    pub profile: Option<Profile>,
}

/// What an operator says about a device.
pub struct Profile {
    groups: Vec<String>,
    labels: BTreeMap<String, String>,
    /// `None`: what is known stays.
    model: Option<String>,
}

impl Registration {
    /// Of a device with this token.
    pub fn new(new: NewDevice, token: TokenHash) -> Registration {
        let NewDevice { id, groups, labels, model, .. } = new;
        let profile = Profile { groups: sorted(groups), labels, model };
        Registration { id: id.into(), token: Some(token), profile: Some(profile) }
    }

    /// Of the device that a user is.
    pub fn of_user(name: &Arc<str>) -> Registration {
        Registration { id: Arc::clone(name), token: None, profile: None }
    }

    fn apply(self, state: &mut DeviceState, link_seed: i64) {
        state.registered = true;
        state.token = self.token;
        state.link_seed = link_seed;
        if let Some(Profile { groups, labels, model }) = self.profile {
            state.groups = groups;
            state.labels = labels;
            state.model = model.or(state.model.take());
        }
    }
}

impl Service {
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
        if engine.accounts.get(&new.id).is_some() {
            return Err(ServiceError::Conflict(format!(
                "{} is a user; a device needs another id",
                new.id
            )));
        }
        if engine.registered(&new.id).is_some() {
            return Err(ServiceError::Conflict(format!(
                "the device {} is registered already",
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
    /// use its id without its token are ended. The second value says whether it is new, and not
    /// of an earlier request with this key.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`], [`ServiceError::Conflict`] where the id or the token is
    /// registered, or the key was used otherwise; [`ServiceError::Unavailable`].
    pub async fn add_device(
        &self,
        mut new: NewDevice,
        key: Option<&str>,
        actor: &Actor,
    ) -> Result<(AddedDevice, bool), ServiceError> {
        let engine = &self.0;
        let _changing = engine.accounts.change().await;
        let request = engine.requests.open(&engine.key, "device", key, &new)?;
        let id = new.id.clone();
        let token = match new.token.clone() {
            Some(token) => token,
            None => request.secret(&engine.key, &id)?,
        };
        if request.is_done {
            engine.registered(&id).ok_or_else(|| requests::gone("a device"))?;
            return Ok((AddedDevice { id, token }, false));
        }
        self.check_device(&new)?;
        engine.endings.over(&[&id]).await?;
        new.token = None;
        let device = Registration::new(new, engine.key.token(token.as_bytes()));
        let mut ops = vec![Engine::audit_by(actor, &id, "registered", None)];
        ops.extend(request.op());
        engine.register(vec![device], ops).await?;
        engine.requests.done(request);
        engine.end_account(&id, "log in with the device's token");
        engine.tell_known(&id, "registered");
        self.look_again().await;
        Ok((AddedDevice { id, token }, true))
    }
}

impl Engine {
    /// Registers devices and does `ops`, in one commit: all of it or nothing, also when the
    /// process dies. The ids must differ. Only while [`crate::accounts::Accounts::change`] is
    /// held.
    pub async fn register(
        &self,
        batch: Vec<Registration>,
        mut ops: Vec<Op>,
    ) -> Result<(), ServiceError> {
        let seeds: Vec<_> = batch
            .iter()
            .map(|_| new_link_seed())
            .collect::<Result<_, _>>()
            .map_err(|error| ServiceError::Unavailable(error.to_string()))?;
        let devices: Vec<_> =
            batch.iter().map(|one| self.registry.get_or_insert(&one.id)).collect();
        let mut before = Vec::with_capacity(devices.len());
        let committed = {
            // All are locked until the job is queued: whatever else is written of one of them is
            // older and written before, or knows of the registration and is written after.
            let mut states: Vec<_> =
                devices.iter().map(|(device, _)| device.state.lock()).collect();
            if states.iter().any(|state| state.gone) {
                drop(states);
                self.take_back(devices, before);
                return Err(ServiceError::Unavailable("a device was just forgotten".into()));
            }
            let batch = batch.into_iter().zip(seeds);
            for ((state, (device, fresh)), (one, seed)) in
                states.iter_mut().zip(&devices).zip(batch)
            {
                before.push(device.row(state));
                if !fresh {
                    self.registry.registered();
                }
                if let Some(hash) = one.token {
                    self.registry.add_token(hash, Arc::clone(&device.id));
                }
                one.apply(state, seed);
                ops.push(Op::Device(device.row(state)));
            }
            self.db.queue(ops)
        };
        let result = committed.await;
        if result.is_err() {
            self.take_back(devices, before);
        }
        result.map_err(|error| ServiceError::Unavailable(error.to_string()))
    }

    /// Takes registrations back that could not be written. `before` are the rows of those that
    /// were made, the first of the devices.
    fn take_back(&self, devices: Vec<(Arc<Device>, bool)>, before: Vec<DeviceRow>) {
        let before = before.into_iter().map(Some).chain(std::iter::repeat(None));
        for ((device, fresh), row) in devices.into_iter().zip(before) {
            if fresh && self.registry.forget(&device).is_some() {
                // Progress of it may have been written meanwhile.
                drop(self.db.submit(vec![Op::DeviceGone(device.id.to_string())], None));
                continue;
            }
            // It was known before, or an offer to it is just being written.
            let Some(row) = row.or(fresh.then(DeviceRow::default)) else { continue };
            let mut state = device.state.lock();
            if let Some(hash) = state.token.take() {
                self.registry.remove_token(&hash);
            }
            state.registered = false;
            (state.groups, state.labels, state.model) = (row.groups, row.labels, row.model);
            state.link_seed = row.link_seed;
            self.registry.unregistered();
            device.touch();
        }
    }

    /// Forgets a device with its token, ends its connections with this text, and does `ops` in
    /// the same commit.
    /// Only while [`crate::accounts::Accounts::change`] is held.
    pub async fn forget(
        &self,
        device: &Arc<Device>,
        mut ops: Vec<Op>,
        text: &'static str,
    ) -> Result<(), ServiceError> {
        // First from memory: what writes progress must not bring its row back.
        let forgotten = self.registry.forget(device).ok_or_else(|| {
            ServiceError::Unavailable("an offer to it is just being written".into())
        })?;
        let places = self.fleet.lock().remove_device(&device.id);
        ops.push(Op::DeviceGone(device.id.to_string()));
        if let Err(error) = self.db.commit(ops).await {
            // With all that it experienced: else it would be offered again what it failed with.
            self.registry.remember(device, forgotten);
            self.fleet.lock().put_back(&device.id, places);
            self.rollouts.notify_one();
            return Err(ServiceError::Unavailable(error.to_string()));
        }
        self.end_account(&device.id, text);
        Ok(())
    }
}

pub fn invalid(field: &'static str, problem: String) -> ServiceError {
    ServiceError::Invalid { field, problem }
}

pub fn check_name(field: &'static str, what: &str, name: &str) -> Result<(), ServiceError> {
    if is_name(name) { Ok(()) } else { Err(invalid(field, name_problem(what, name))) }
}

pub fn check_groups(groups: &[String]) -> Result<(), ServiceError> {
    if groups.len() > MAX_LABELS {
        return Err(invalid("groups", format!("more than {MAX_LABELS} groups")));
    }
    groups.iter().try_for_each(|group| check_name("groups", "group", group))
}

pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), ServiceError> {
    if labels.len() > MAX_LABELS {
        return Err(invalid("labels", format!("more than {MAX_LABELS} labels")));
    }
    for (key, value) in labels {
        check_name("labels", "label", key)?;
        if value.chars().count() > 256 || value.chars().any(char::is_control) {
            return Err(invalid(
                "labels",
                format!(
                    "the value of {key} is longer than 256 characters or has control characters"
                ),
            ));
        }
    }
    Ok(())
}

fn check_token(token: &str) -> Result<(), ServiceError> {
    let length = token.chars().count();
    if length < MIN_TOKEN {
        return Err(invalid(
            "token",
            format!(
                "it has fewer than {MIN_TOKEN} characters (128 bits); leave it out to have one made"
            ),
        ));
    }
    if length > LONGEST_TOKEN || token.chars().any(char::is_control) {
        return Err(invalid(
            "token",
            format!("it has more than {LONGEST_TOKEN} characters, or control characters"),
        ));
    }
    Ok(())
}

pub fn sorted(mut groups: Vec<String>) -> Vec<String> {
    groups.sort();
    groups.dedup();
    groups
}
