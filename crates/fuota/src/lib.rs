//! Which device gets which firmware, when, in which dialect: the plugin.
//!
//! [`Fuota::open`] reads its database, [`Fuota::hook`] goes to the broker, [`Fuota::service`] to
//! the admin interface, and [`Fuota::run`] watches the store until it is cancelled.
//!
//! | module | subject |
//! | --- | --- |
//! | [`settings`] | what is configured |
//! | [`views`] | what the service shows and takes |
//! | [`service`] | what the admin interface asks and changes |
//! | [`overview`] | the fleet counted: versions, groups, models; what took how long |
//! | `plugin` | from the broker's phases to the engine |
//! | `accounts` | users with passwords, rules of who may publish and subscribe where |
//! | `identity` | who a client is; `names`, `secret`: ids, keyed hashes of tokens |
//! | `engine` | the parts together, and their start; `run`: the loop that drives what no connection drives; `timers`: what is due later |
//! | `ingest`, `files`, `catalog` | from what the store saw to what is accepted, held or in conflict |
//! | `status_files` | what became of a dropped file, beside it |
//! | `fleet` | deployments, their waves, and what operators do with them |
//! | `policy` | which image a device should run, and why not: pure functions |
//! | `offers`, `manifests` | what is offered when, and when its manifest goes out; `unbegun`: what becomes of an offer before its device asks; `backoff`: what waits between two attempts |
//! | `transfer` | one device, one image; `pin`: the image as it is cut into blocks; `progress`: how fast it is, and why it stands still |
//! | [`download`] | a device that fetches over HTTP |
//! | `downlink` | what services write to one device |
//! | `questions` | what a device asks about its update |
//! | `serve`, `send`, `link` | the way of a block, and one connection's limits |
//! | `window`, `limits`, `pace` | when manifests go out, and how much at once |
//! | `outcome`, `state` | what became of an update, and the one function that moves its state |
//! | `order`, `fetch` | updates that an operator starts with a message, from an address |
//! | `ending` | removed accounts whose sessions are still to be ended |
//! | `import` | many devices and users at once, all or none; `requests`: what was asked before with the same key; `whole`: whole numbers in JSON |
//! | `device`, `registry` | what is known of devices, in memory; `registration`: who is registered |
//! | `db` | the one place that knows the database |
//! | `dialect` | how devices ask and hear |
//!
//! A block passes `plugin` → `dialect` (decode) → `serve` → `link` (limits) → `send` → the store's cache →
//! `dialect` (encode) → the connection's outbox. It takes one lock, its own connection's.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod accounts;
mod backoff;
mod catalog;
mod db;
mod device;
mod dialect;
mod downlink;
pub mod download;
mod ending;
mod engine;
mod fetch;
mod files;
mod fleet;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod identity;
mod import;
mod ingest;
mod limits;
mod link;
mod manifests;
mod names;
mod offers;
mod order;
mod outcome;
pub mod overview;
mod pace;
mod pin;
mod plugin;
mod policy;
mod progress;
mod questions;
mod registration;
mod registry;
mod requests;
mod run;
mod secret;
mod send;
mod serve;
pub mod service;
pub mod settings;
mod state;
mod status_files;
mod timers;
mod transfer;
mod unbegun;
pub mod views;
pub mod whole;
mod window;

#[cfg(test)]
mod harness;
#[cfg(test)]
mod rules;

use std::{path::PathBuf, sync::Arc};

use store::FirmwareStore;
use tokio_util::sync::CancellationToken;

pub use accounts::{Rule, RuleError, TokenLogin};
pub use fetch::{Allow, AllowError};
pub use fleet::{
    DeploymentPatch, LimitsPatch, Upload, UploadedBytes,
    alerts::{Alert, AlertKind},
    events::{Alerts, Change, From as ListenFrom, Listener},
    rollout::{Plan, PlanName, PlanView, Wave},
    target::TargetView,
    views::{
        Act, Acted, AuditView, DeployedFirmware, DeploymentView, Excluded, FreezeView,
        HappeningView, MemberView, NewDeployment, PlanReport, WhyView,
    },
};
pub use limits::Limits;
pub use overview::{FleetView, Latencies, Named, VersionCount};
pub use requests::check_key;
pub use service::Service;
pub use settings::{AuthMode, DropRollout, OnExisting, Settings};
pub use views::{
    Actor, AddedDevice, AddedToken, AddedUser, ChangedDevice, ChangedUser, Decided, DeviceCounts,
    DevicePatch, DeviceQuery, DeviceView, FirmwareState, FirmwareView, Import, ImportError,
    Imported, ImportedDevice, ImportedUser, NewDevice, NewToken, NewUser, OfferedFirmware,
    Parameters, Password, Progress, RowProblem, ServiceError, SignatureView, SiteStatus, StoreView,
    TokenView, UserPatch, UserRole, UserView, VersionFrom,
};
pub use window::{Window, WindowError, Windows};

/// The names of the states that an offer to a device may be in.
pub const UPDATE_STATES: [&str; 10] = state::UpdateState::NAMES;
/// The names of the states that a deployment may be in.
pub const DEPLOYMENT_STATES: [&str; 5] = fleet::deployment::DeploymentState::NAME_LIST;

/// Why the plugin cannot start. Each text is one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting that cannot work.
    #[error("{key}: {problem}")]
    Setting {
        /// Which key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The data directory, or the key in it, cannot be used.
    #[error("cannot use {path}: {source}", path = path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The database cannot be used.
    #[error("{0}")]
    Database(String),
}

impl From<db::DbError> for OpenError {
    fn from(error: db::DbError) -> Self {
        OpenError::Database(error.to_string())
    }
}

/// The plugin. See [the crate](self).
pub struct Fuota {
    engine: Arc<engine::Engine>,
}

impl Fuota {
    /// Opens the database in [`Settings::data_dir`], which is made if needed. Reads all of it,
    /// so it may take a while; nothing runs yet.
    ///
    /// # Errors
    /// [`OpenError`], each one line for the operator.
    pub fn open(settings: Settings, store: Arc<FirmwareStore>) -> Result<Arc<Fuota>, OpenError> {
        Ok(Arc::new(Fuota { engine: engine::Engine::open(settings, store)? }))
    }

    /// For the broker's list of hooks.
    pub fn hook(&self) -> Arc<dyn hook::Hook> {
        Arc::new(plugin::Plugin(Arc::clone(&self.engine)))
    }

    /// For the admin interface.
    pub fn service(&self) -> Service {
        Service(Arc::clone(&self.engine))
    }

    /// Goes on with other settings. All but `data_dir`, `mode` and the times that only tests set
    /// apply from now on: chunk sizes to new offers, rules to what is published and subscribed
    /// from now on, times to what is being waited for as well.
    ///
    /// # Errors
    /// A setting that cannot work; then nothing has changed.
    pub async fn configure(&self, settings: Settings) -> Result<(), OpenError> {
        settings.check()?;
        self.engine.configure(settings).await;
        Ok(())
    }

    /// The store goes by other keys or none now: what was uploaded, and what rollbacks lead to, is
    /// judged again. What lies where the store watches, it judges itself.
    pub async fn trust_changed(&self) {
        self.service().look_again().await;
    }

    /// Whoever listens to changes comes to the end: a stop has begun, and nothing more is told.
    pub fn end_listeners(&self) {
        self.engine.events.close();
    }

    /// Watches the store, drives the timers and writes progress, until cancelled. Returns when
    /// everything is written. To be called once.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        self.engine.run(cancel).await;
    }
}
