//! The engine: its parts, and their start.

use std::{
    collections::HashSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use hook::{Broker, Seldom};
use parking_lot::Mutex;
use store::FirmwareStore;
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    OpenError, Settings,
    accounts::{Accounts, Tokens},
    backoff::{self, Wait},
    catalog::Catalog,
    db::{AuditRow, TimelineRow},
    db::{Db, Op},
    device::Device,
    dialect::{self, Dialect, Quirks},
    ending::Endings,
    files::Files,
    fleet::{
        Fleet,
        events::{Change, Events},
        unwritten::Unwritten,
        waiting::{Open, Wall},
    },
    pace::Buckets,
    policy::History,
    registry::Registry,
    requests::Requests,
    secret::Key,
    status_files::StatusFiles,
    timers::Timers,
    transfer::{Transfer, unix_now},
    views::{Actor, UserRole},
};

/// The name of the database in `data_dir`.
pub const DATABASE: &str = "fuota.db";

/// Everything that the hook, the service and the run loop share.
pub struct Engine {
    settings: ArcSwap<Settings>,
    pub store: Arc<FirmwareStore>,
    pub db: Db,
    pub key: Key,
    pub dialects: Vec<Arc<dyn Dialect>>,
    pub quirks: Quirks,
    pub registry: Registry,
    pub accounts: Accounts,
    pub tokens: Tokens,
    pub requests: Requests,
    pub endings: Endings,
    pub files: Mutex<Files>,
    pub catalog: ArcSwap<Catalog>,
    /// The last in the order of locks.
    pub fleet: Mutex<Fleet>,
    /// What is to be written again. Nothing is locked while this is, and it may be under any lock.
    pub unwritten: Arc<Mutex<Unwritten>>,
    pub events: Events,
    /// The wall clock of maintenance windows, and which of those it found open.
    pub wall: Wall,
    pub windows: Mutex<Open>,
    /// The caps on bytes a second; none where nothing is capped.
    pub buckets: Mutex<Buckets>,
    /// Rung when a rollout is to be looked at.
    pub rollouts: Notify,
    pub timers: Timers,
    pub counters: Counters,
    /// Firmware bytes a second of a transfer, as the last ones had it.
    pub pace: Mutex<Option<f64>>,
    pub broker: OnceLock<Arc<dyn Broker>>,
    /// Orders that may be carried out at once, and what ends them.
    pub orders: Arc<Semaphore>,
    pub stopping: CancellationToken,
    /// The first full scan was taken in: offers may go out (rule 6).
    pub ready: AtomicBool,
    /// Whether everything that was there at the very first start was taken in, in this run or before.
    pub scanned: AtomicBool,
    /// It was not when this run began.
    pub first_run: bool,
    pub store_problem: Mutex<Option<String>>,
    /// How many events of the store are taken in.
    pub taken_in: watch::Sender<u64>,
    pub status_files: Arc<StatusFiles>,
    runtime: OnceLock<Handle>,
}

/// Site-wide counters since the start.
#[derive(Default)]
pub struct Counters {
    pub blocks: AtomicU64,
    pub block_bytes: AtomicU64,
    pub manifests: AtomicU64,
    pub errors: AtomicU64,
    pub refused: AtomicU64,
    pub batches: AtomicU64,
    pub failed_logins: AtomicU64,
    /// From a request to its block in the outbox; where that was full, until it had room.
    pub block_time: hook::Histogram,
    /// Reads of blocks that were not in the cache.
    pub read_time: hook::Histogram,
    /// The log's line on publishes that were refused.
    pub refused_line: Seldom,
}

impl Counters {
    pub fn add(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Ordering::Relaxed);
    }
}

impl Engine {
    pub fn open(settings: Settings, store: Arc<FirmwareStore>) -> Result<Arc<Engine>, OpenError> {
        settings.check()?;
        let unusable = |source| OpenError::DataDir { path: settings.data_dir.clone(), source };
        std::fs::create_dir_all(&settings.data_dir).map_err(unusable)?;
        let (db, loaded) = Db::open(&settings.data_dir.join(DATABASE))?;
        let tokens_exist = loaded.devices.iter().any(|device| device.token.is_some())
            || !loaded.user_tokens.is_empty()
            || !loaded.requests.is_empty();
        let key = Key::open(&settings.data_dir, !tokens_exist).map_err(unusable)?;

        let registry = Registry::default();
        for row in loaded.devices {
            registry.load(Device::from_row(row, settings.rotation_grace));
        }
        for user in loaded.users.iter().filter(|user| user.role == UserRole::Device) {
            registry.register_user(&user.name);
        }
        let accounts = Accounts::new(loaded.users, &settings).map_err(unusable)?;
        for row in loaded.history {
            if let Some(device) = registry.get(&row.device) {
                let history = History {
                    offers: row.offers,
                    deliveries: row.deliveries,
                    differs: row.differs,
                    wait: row.wait_until.map(|until| {
                        let first = settings.retry_after;
                        let length = backoff::length(row.offers, first, &row.device, &row.digest);
                        Wait::stored(until, length, unix_now(), Instant::now())
                    }),
                };
                device.state.lock().history.insert(row.digest, history);
            }
        }
        for row in loaded.transfers {
            let image = store.image(row.digest, row.size);
            let transfer = Transfer::from_row(&row, image, loaded.clean);
            if let (Some(device), Some(transfer)) = (registry.get(&row.device), transfer) {
                device.state.lock().transfer = Some(Arc::new(transfer));
            }
        }
        let mut fleet = Fleet::load(&loaded.deployments, &loaded.members, loaded.frozen);
        let withdrawn = loaded.files.iter().filter(|row| row.withdrawn.is_some());
        let withdrawn: HashSet<_> = withdrawn.map(|row| row.digest).collect();
        for device in registry.all() {
            let state = device.state.lock();
            let Some(transfer) = &state.transfer else { continue };
            let by = transfer.pin.deployment.map(|id| fleet.has_stopped(id, &device.id));
            // Of one that is over and forgotten only what had begun finishes.
            let over = || !transfer.state().is_running();
            if withdrawn.contains(&transfer.pin.digest)
                || by.is_some_and(|stopped| stopped.unwrap_or_else(over))
            {
                drop(transfer.stop());
            }
            // Progress is written behind, so the transfer knows better than the member.
            if let Some(id) = transfer.pin.deployment {
                let now = transfer.state();
                drop(fleet.change(id, &device.id, |member| {
                    // One without a state is to be offered it anew.
                    if member.state.as_ref().is_some_and(|state| *state != now) {
                        member.moved(now);
                    }
                }));
            }
        }
        let files = Files::new(loaded.files, fleet.last_seq());
        let dropped = files.rows.iter().filter(|row| row.removed_seq.is_none() && !row.uploaded);
        let status_files = Arc::new(StatusFiles::new(dropped.map(|row| row.path.clone())));
        let dialects = dialect::all();
        let engine = Arc::new(Engine {
            settings: ArcSwap::from_pointee(settings),
            store,
            db,
            key,
            quirks: Quirks::new(&dialects),
            dialects,
            registry,
            accounts,
            tokens: Tokens::load(loaded.user_tokens),
            requests: Requests::load(loaded.requests),
            endings: Endings::load(loaded.endings),
            files: Mutex::new(files),
            catalog: ArcSwap::default(),
            fleet: Mutex::new(fleet),
            unwritten: Arc::default(),
            events: Events::default(),
            wall: Wall::default(),
            windows: Mutex::default(),
            buckets: Mutex::default(),
            rollouts: Notify::new(),
            timers: Timers::default(),
            counters: Counters::default(),
            pace: Mutex::new(None),
            broker: OnceLock::new(),
            orders: Arc::new(Semaphore::new(crate::order::AT_ONCE)),
            stopping: CancellationToken::new(),
            ready: AtomicBool::new(false),
            scanned: AtomicBool::new(loaded.scanned),
            first_run: !loaded.scanned,
            store_problem: Mutex::new(None),
            taken_in: watch::Sender::new(0),
            status_files,
            runtime: OnceLock::new(),
        });
        engine.rebuild_catalog();
        for device in engine.registry.all() {
            let transfer = device.state.lock().transfer.clone();
            // A crash between the last block and its outcome.
            let done = |transfer: &Arc<Transfer>| {
                transfer.state().is_running() && transfer.sent() == transfer.pin.total
            };
            match transfer.filter(done) {
                Some(transfer) => engine.completed(&device, &transfer, 0),
                None => engine.watch_outcome(&device),
            }
        }
        Ok(engine)
    }

    /// What is configured now.
    pub fn settings(&self) -> arc_swap::Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// Goes on with other settings, as far as they can change; see [`crate::Fuota::configure`].
    pub async fn configure(self: &Arc<Self>, settings: Settings) {
        self.remember_runtime();
        let settings = settings.below(&self.settings());
        self.accounts.set_rules(&settings.rules, settings.strict);
        self.settings.store(Arc::new(settings));
        self.set_caps();
        // Times may be due earlier, and offers may be possible that were not.
        for device in self.registry.all() {
            self.watch_outcome(&device);
        }
        if self.may_offer() {
            self.reconsider_all().await;
        }
    }

    /// What devices run, and what they are being given.
    pub fn files_of_devices(&self) -> HashSet<i64> {
        let mut files = HashSet::new();
        for device in self.registry.all() {
            let state = device.state.lock();
            files.extend(state.confirmed);
            files.extend(state.transfer.as_ref().and_then(|transfer| transfer.pin.file));
        }
        files
    }

    /// Computes the catalog anew from the files and from what is known of the devices, and logs
    /// what changed. No device may be locked by the caller.
    pub fn rebuild_catalog(&self) {
        // Under this lock, so that the catalog that is stored last knows the newest names.
        let files = self.files.lock();
        let (site, trust) = (self.registry.site(), self.store.tuning().trust);
        let fleet = self.fleet.lock();
        let mut catalog =
            Catalog::build(&files.rows, fleet.deployments.values(), &files.troubles, site, &trust);
        let removed = files.rows.iter().any(|row| row.removed_seq.is_some());
        let befores = removed.then(|| fleet.befores());
        drop(fleet);
        if let Some(befores) = befores {
            let ways = befores.into_iter().chain(self.files_of_devices()).collect();
            catalog.show_ways_back(&files.rows, &ways);
        }
        let before = self.catalog.swap(Arc::new(catalog));
        let now = self.catalog.load();
        let known: HashSet<_> =
            before.views().iter().map(|view| (&view.id, view.state, &view.reason)).collect();
        for view in
            now.views().iter().filter(|view| !known.contains(&(&view.id, view.state, &view.reason)))
        {
            crate::ingest::log(view);
            self.events.tell(Change::Firmware {
                at: unix_now(),
                path: view.path.clone(),
                state: view.state,
                reason: view.reason.clone(),
            });
        }
        self.tell_status_files();
        self.drive_all();
    }

    /// A device has this model or title: a name that the site did not know may hold files back
    /// (rule 8). No device may be locked by the caller.
    pub fn note_names(&self, model: Option<&str>, title: Option<&str>) {
        /// Two names are several; more change nothing.
        const ENOUGH: usize = 16;
        let catalog = self.catalog.load();
        let site = catalog.site();
        let new = |names: &std::collections::BTreeSet<String>, name: Option<&str>| {
            name.is_some_and(|name| names.len() < ENOUGH && !names.contains(name))
        };
        if new(&site.models, model) || new(&site.titles, title) {
            self.rebuild_catalog();
        }
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether anything can be offered. Before the first scan that is only what was uploaded, and
    /// only where the store cannot be read: nobody knows for how long.
    pub fn may_offer(&self) -> bool {
        self.is_ready() || self.store_problem.lock().is_some()
    }

    /// The same of this file.
    pub fn may_offer_file(&self, file: i64) -> bool {
        self.is_ready()
            || self.store_problem.lock().is_some() && self.catalog.load().is_upload(file)
    }

    /// The line of the audit for this.
    pub fn audit(subject: &str, action: &'static str, detail: Option<String>) -> Op {
        Engine::audit_by(&Actor::default(), subject, action, detail)
    }

    /// The line of the audit for what somebody did.
    pub fn audit_by(actor: &Actor, subject: &str, action: &str, detail: Option<String>) -> Op {
        Op::Audit(AuditRow {
            id: 0,
            at: unix_now(),
            actor: actor.name.clone(),
            origin: actor.origin.clone(),
            subject: subject.into(),
            action: action.into(),
            detail,
        })
    }

    /// The line of a device's timeline for this.
    pub fn happening(
        device: &str,
        action: &str,
        detail: Option<String>,
        deployment: Option<i64>,
    ) -> Op {
        Op::Timeline(TimelineRow {
            id: 0,
            at: unix_now(),
            device: device.into(),
            action: action.into(),
            detail,
            deployment,
        })
    }

    /// Remembers the runtime for calls from the database's thread.
    pub fn remember_runtime(&self) {
        if self.runtime.get().is_none()
            && let Ok(handle) = Handle::try_current()
        {
            drop(self.runtime.set(handle));
        }
    }

    /// The runtime; `None` before anything ran in one.
    pub fn runtime(&self) -> Option<&Handle> {
        self.runtime.get()
    }
}
