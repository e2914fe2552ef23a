//! The service: what the admin interface asks and changes. It holds no rule of its own.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    db::Op,
    device::{Device, OldToken},
    engine::{DATABASE, Engine},
    registration::{check_groups, check_labels, check_name, sorted},
    secret::{TokenHash, new_link_seed, new_token},
    views::{
        Actor, ChangedDevice, DeviceCounts, DevicePatch, DeviceQuery, DeviceView, FirmwareState,
        FirmwareView, ServiceError, SiteStatus, StoreView, UserRole, VersionFrom,
    },
};

/// How long a look at the place where firmware is dropped may take.
const RESCAN: std::time::Duration = std::time::Duration::from_secs(60);

/// Devices in one answer, where the query names no number.
const DEFAULT_LIMIT: usize = 1000;

/// See [the module](self). Cheap to clone.
#[derive(Clone)]
pub struct Service(pub(crate) Arc<Engine>);

impl Service {
    /// Devices that match, by id.
    pub fn devices(&self, query: &DeviceQuery) -> Vec<DeviceView> {
        let mut devices = self.0.registry.all();
        devices.retain(|device| query.after.as_deref().is_none_or(|after| *device.id > *after));
        devices.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let limit = if query.limit == 0 { DEFAULT_LIMIT } else { query.limit };
        // Only what is shown is put together.
        let found = devices.iter().filter(|device| self.matches(query, device)).take(limit);
        found.map(|device| self.view(device)).collect()
    }

    fn view(&self, device: &Device) -> DeviceView {
        let url = |id| self.0.fleet.lock().deployments.get(&id)?.conditions.url.clone();
        let mut view = DeviceView {
            next_attempt: self.0.next_attempt(device),
            stalled: self.0.stalled(device),
            ..device.view(url)
        };
        if view.version.is_none() {
            view.version = self.0.inferred_version(device);
            view.version_from = view.version.is_some().then_some(VersionFrom::Outcome);
        }
        view
    }

    fn matches(&self, query: &DeviceQuery, device: &Device) -> bool {
        // Only where it is asked for is it looked for.
        let version = query.version.as_ref().and_then(|_| {
            let reported = device.state.lock().version.clone();
            reported.or_else(|| self.0.inferred_version(device))
        });
        matches(query, device, version.as_deref())
    }

    /// One device.
    pub fn device(&self, id: &str) -> Option<DeviceView> {
        self.0.registry.get(id).map(|device| self.view(&device))
    }

    /// Changes a device.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Invalid`], [`ServiceError::Conflict`] where a
    /// device without registration has no token to rotate, [`ServiceError::Unavailable`]: then
    /// nothing has changed.
    pub async fn set_device(
        &self,
        id: &str,
        patch: DevicePatch,
        actor: &Actor,
    ) -> Result<ChangedDevice, ServiceError> {
        let engine = &self.0;
        // Changes of one device follow each other, so that one can be taken back.
        let _changing = engine.accounts.change().await;
        let unknown = || ServiceError::NotFound(format!("there is no device {id}"));
        let device = engine.registry.get(id).ok_or_else(unknown)?;
        if let Some(groups) = &patch.groups {
            check_groups(groups)?;
        }
        if let Some(labels) = &patch.labels {
            check_labels(labels)?;
        }
        if let Some(model) = patch.model.as_deref().filter(|model| !model.is_empty()) {
            check_name("model", "model", model)?;
        }
        let (remodelled, now) = (patch.model.is_some(), patch.now);
        let changes = changes(&patch);
        let unavailable = |error: std::io::Error| ServiceError::Unavailable(error.to_string());
        let token = patch.rotate_token.then(new_token).transpose().map_err(unavailable)?;
        let link_seed = new_link_seed().map_err(unavailable)?;
        let (before, committed) = {
            let mut state = device.state.lock();
            if state.gone {
                return Err(unknown()); // forgotten just now: nothing is written of it any more
            }
            let mut before = Before::default();
            if let Some(token) = &token {
                if engine.accounts.get(id).is_some() {
                    return Err(ServiceError::Conflict(format!(
                        "{id} is a user and logs in with its password: change that instead"
                    )));
                }
                if !state.registered {
                    return Err(ServiceError::Conflict(format!(
                        "{id} is not registered, so it has no token to rotate"
                    )));
                }
                before.tokens = Some((state.token, state.old_token, state.link_seed));
                let hash = engine.key.token(token.as_bytes());
                rotate(engine, &device.id, &mut state, hash, now);
                if now {
                    state.link_seed = link_seed;
                }
            }
            if let Some(groups) = patch.groups {
                before.groups = Some(std::mem::replace(&mut state.groups, sorted(groups)));
            }
            if let Some(labels) = patch.labels {
                before.labels = Some(std::mem::replace(&mut state.labels, labels));
            }
            if let Some(model) = patch.model {
                let model = Some(model).filter(|model| !model.is_empty());
                before.model = Some((std::mem::replace(&mut state.model, model.clone()), model));
            }
            let action = if token.is_some() { "token rotated" } else { "changed" };
            let line = Engine::audit_by(actor, id, action, changes);
            (before, engine.db.queue(vec![Op::Device(device.row(&state)), line]))
        };
        if let Err(error) = committed.await {
            before.restore(engine, &device);
            return Err(ServiceError::Unavailable(error.to_string()));
        }
        if now && token.is_some() {
            engine.end_account(id, "log in with the device's token");
        }
        engine.tell_known(id, "changed");
        if remodelled {
            self.look_again().await;
        } else {
            engine.consider(&device);
        }
        Ok(ChangedDevice { device: self.view(&device), token })
    }

    /// Forgets a device: its token, its connections, and what it experienced. One without
    /// registration that connects again is a new one.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; [`ServiceError::Conflict`] where it is a user;
    /// [`ServiceError::Unavailable`] where an offer is just being written for it, or the database
    /// does not answer: then nothing has changed.
    pub async fn remove_device(&self, id: &str, actor: &Actor) -> Result<(), ServiceError> {
        let engine = &self.0;
        let _changing = engine.accounts.change().await;
        if engine.accounts.get(id).is_some_and(|user| user.role == UserRole::Device) {
            return Err(ServiceError::Conflict(format!("{id} is a user: remove that instead")));
        }
        let device = engine
            .registry
            .get(id)
            .ok_or_else(|| ServiceError::NotFound(format!("there is no device {id}")))?;
        let mut ops = vec![Engine::audit_by(actor, id, "removed", None)];
        // Who was known without an account comes back as it came before.
        let registered = engine.registered(id).is_some();
        ops.extend(registered.then(|| Op::Ending(id.to_owned())));
        engine.forget(&device, ops, "the device was removed").await?;
        if registered {
            engine.end_sessions(id, "the device was removed");
        }
        engine.tell_known(id, "removed");
        self.look_again().await;
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

    /// The place where firmware is dropped.
    pub fn firmware_store(&self) -> StoreView {
        let status = self.0.store.status();
        let seconds = |time: std::time::SystemTime| {
            time.duration_since(std::time::UNIX_EPOCH).map(|it| it.as_secs()).ok()
        };
        StoreView {
            url: status.url,
            problem: status.available.err(),
            files: status.files,
            bytes: status.bytes,
            refused: status.refused,
            troubled: status.troubled,
            scanned: status.scanned.and_then(seconds),
            copies: status.copies,
            copied_bytes: status.copied_bytes,
            cached_bytes: status.cached_bytes,
        }
    }

    /// Looks at where firmware is dropped, and waits until what was found is in the catalog. Files
    /// that take longer than half a minute to settle come later.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`] where it takes longer than a minute.
    pub async fn rescan(&self) -> Result<StoreView, ServiceError> {
        let look = async {
            let told = self.0.store.rescanned().await;
            // The sender lives as long as the engine.
            let _ = self.0.taken_in.subscribe().wait_for(|taken| *taken >= told).await;
        };
        tokio::time::timeout(RESCAN, look).await.map_err(|_| {
            let seconds = RESCAN.as_secs();
            ServiceError::Unavailable(format!("the look takes longer than {seconds} s"))
        })?;
        Ok(self.firmware_store())
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
            window_closed: engine.settings().windows.closed(engine.wall.now()),
            clock_problem: engine.clock_problem(),
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

    /// What dialects tolerated since the start: dialect, name and how often, also those that were
    /// never met.
    pub fn quirks(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.0.quirks.all().collect()
    }

    /// Copies what the update engine keeps to a new `data_dir`: database, keys, images. `at` is
    /// called at the moment that the copy is of; nothing changes in the database meanwhile.
    /// Returns how many images there are, and their bytes.
    ///
    /// # Errors
    /// What could not be copied, and why.
    pub async fn copy_to(
        &self,
        data_dir: &Path,
        at: Box<dyn FnOnce() + Send>,
    ) -> Result<(usize, u64), ServiceError> {
        let engine = self.0.clone();
        let unavailable = |error: &dyn std::fmt::Display| {
            ServiceError::Unavailable(format!("the backup cannot be made: {error}"))
        };
        let database = data_dir.join(DATABASE);
        engine.db.copy_to(database.clone(), at).await.map_err(|error| unavailable(&error))?;
        let target = data_dir.to_owned();
        let copy = move || {
            std::fs::File::open(&database)?.sync_all()?;
            engine.key.copy_to(&engine.settings().data_dir, &target)?;
            // After the database: it names none that is not there yet.
            engine.store.copy_to(&target)
        };
        match tokio::task::spawn_blocking(copy).await {
            Ok(copied) => copied.map_err(|error| unavailable(&error)),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// A model may be new to the site, or gone from it, or a key is trusted or is not: files may be
    /// held or released by that.
    pub(crate) async fn look_again(&self) {
        self.0.rebuild_catalog();
        self.0.reconsider_all().await;
    }
}

/// What a patch names, for the audit.
fn changes(patch: &DevicePatch) -> Option<String> {
    let mut named = Vec::new();
    if let Some(groups) = &patch.groups {
        named.push(format!("groups {}", groups.join(" ")));
    }
    if let Some(labels) = &patch.labels {
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        named.push(format!("labels {}", labels.join(" ")));
    }
    if let Some(model) = &patch.model {
        named.push(format!("model {model}"));
    }
    (!named.is_empty()).then(|| named.join(", ").trim_end().to_owned())
}

/// Gives a device a new token. The one that works for a while beside it is the one that the
/// device has proven to have: where a rotation before is not taken up yet, that is the old one
/// still, for a whole grace again, and the token between them, which never logged in, ends.
fn rotate(
    engine: &Engine,
    id: &Arc<str>,
    state: &mut crate::device::DeviceState,
    hash: TokenHash,
    now: bool,
) {
    let proven = state.old_token.take();
    let (keep, end) = match (state.token.replace(hash), proven) {
        (unproven, Some(old)) if old.works() && !now => (Some(old.hash), unproven),
        (token, old) => {
            if let Some(old) = old {
                engine.registry.remove_token(&old.hash);
            }
            if now { (None, token) } else { (token, None) }
        }
    };
    state.old_token = keep.map(|old| OldToken::new(old, engine.settings().rotation_grace));
    if let Some(ended) = end {
        engine.registry.remove_token(&ended);
    }
    engine.registry.add_token(hash, Arc::clone(id));
}

/// What a change replaced, as far as it changed anything.
#[derive(Default)]
struct Before {
    /// The token, the one before it, and what links are signed with.
    tokens: Option<(Option<TokenHash>, Option<OldToken>, i64)>,
    groups: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    /// And what replaced it: the device may have reported another one since.
    model: Option<(Option<String>, Option<String>)>,
}

impl Before {
    /// Takes back a change that could not be written: nobody was shown its token, and what is
    /// written later must not bring it.
    fn restore(self, engine: &Engine, device: &Device) {
        let mut state = device.state.lock();
        if let Some((token, old, link_seed)) = self.tokens {
            if let Some(unseen) = state.token.take() {
                engine.registry.remove_token(&unseen);
            }
            for hash in token.into_iter().chain(old.map(|old| old.hash)) {
                engine.registry.add_token(hash, Arc::clone(&device.id));
            }
            (state.token, state.old_token, state.link_seed) = (token, old, link_seed);
        }
        if let Some(groups) = self.groups {
            state.groups = groups;
        }
        if let Some(labels) = self.labels {
            state.labels = labels;
        }
        if let Some((model, replaced)) = self.model
            && state.model == replaced
        {
            state.model = model;
        }
        // Something of it may have been written meanwhile.
        device.dirty.store(true, Ordering::Relaxed);
    }
}

fn matches(query: &DeviceQuery, device: &Device, version: Option<&str>) -> bool {
    let state = device.state.lock();
    let newest = state.links.last().map(|link| &*link.client.id);
    let client_id = newest.or(state.client_id.as_deref());
    query.online.is_none_or(|online| online == newest.is_some())
        && query.registered.is_none_or(|registered| registered == state.registered)
        && query.group.as_ref().is_none_or(|group| state.groups.contains(group))
        && (query.model.is_none() || query.model == state.model)
        && (query.version.is_none() || query.version.as_deref() == version)
        && query.digest.as_ref().is_none_or(|digest| {
            state.transfer.as_ref().is_some_and(|transfer| transfer.pin.sha256 == *digest)
        })
        && query.search.as_deref().is_none_or(|text| {
            device.id.contains(text) || client_id.is_some_and(|id| id.contains(text))
        })
        && query.state.as_deref().is_none_or(|name| {
            state.transfer.as_ref().is_some_and(|transfer| transfer.state().name() == name)
        })
}
