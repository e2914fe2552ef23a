//! The configuration, read again on SIGHUP.
//!
//! It is read as a whole. With a mistake in it nothing changes, so that half of a new file is
//! never in force; what needs a restart is named and stays as it is; the rest counts at once.
//! The certificates are files of their own and are read again in any case: a typo elsewhere must
//! not keep a renewed one out.

use std::{path::PathBuf, sync::Arc};

use anyhow::bail;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{open_files::OpenFiles, settings};
use crate::{
    certificates::Certificates,
    config::{Config, ConfigError, Values},
    logging,
};

/// The parts that take other settings while they run.
pub struct Parts {
    /// `log.level`.
    pub level: logging::Level,
    /// What `limits.connections` has room in.
    pub files: OpenFiles,
    /// `limits.*`.
    pub server: Arc<broker::Server>,
    /// `auth.*` and `fuota.*`.
    pub fuota: Arc<fuota::Fuota>,
    /// `store.*`.
    pub store: Arc<store::FirmwareStore>,
    /// `mqtt.tls.*`, `http.tls.*` and `admin.tls.*`.
    pub certificates: Certificates,
}

/// What was read last, as far as it is in force.
pub struct Reload {
    file: Option<PathBuf>,
    values: Values,
    parts: Parts,
}

impl Reload {
    /// The daemon runs with this configuration.
    pub fn new(config: &Config, parts: Parts) -> Self {
        Reload { file: config.file.clone(), values: config.values.clone(), parts }
    }

    /// Reads again with each SIGHUP, until cancelled.
    pub async fn run(mut self, mut hangups: Signal, cancel: CancellationToken) {
        loop {
            tokio::select! {
                _ = hangups.recv() => {}
                () = cancel.cancelled() => return,
            }
            info!("SIGHUP: reading the configuration again");
            match self.read().await {
                Ok(config) => self.apply(&config).await,
                Err(error) => {
                    for reason in error.problems() {
                        error!(reason, "the configuration was not read again and nothing changed");
                    }
                }
            }
            self.parts.certificates.reload().await;
            info!("SIGHUP: done");
        }
    }

    async fn read(&self) -> Result<Config, ConfigError> {
        let file = self.file.clone();
        // A file system may hang; the runtime's threads must not.
        let reading = tokio::task::spawn_blocking(move || Config::load(file.as_deref()));
        reading.await.unwrap_or_else(|_| Err(ConfigError::one("the daemon stops")))
    }

    async fn apply(&mut self, config: &Config) {
        let changes = self.values.changes(&config.values);
        if !changes.live.is_empty() {
            if let Err(reason) = self.go_live(config).await {
                error!(%reason, "the new configuration cannot be used");
                return;
            }
            self.values.go_live(&config.values);
        }
        // Files of keys may be others under the same names.
        let tuning = store::Tuning::of(&settings::store(config));
        if self.parts.store.tuning() != tuning {
            self.parts.store.tune(tuning);
            self.parts.fuota.trust_changed().await;
            info!("the trusted keys changed; every signature is judged again");
        }
        match changes.live.join(", ").as_str() {
            "" => info!("the configuration was read again; nothing changed that can change now"),
            changed => info!(changed, "the configuration was read again and is in force"),
        }
        if !changes.restart.is_empty() {
            warn!(keys = changes.restart.join(", "), "these keys changed and need a restart");
        }
    }

    async fn go_live(&self, config: &Config) -> anyhow::Result<()> {
        let Parts { level, files, server, fuota, store, .. } = &self.parts;
        // First what can fail: half of a configuration is never in force.
        let filter = logging::filter(&config.log.level)?;
        if let Err(error) = fuota.configure(settings::fuota(config)).await {
            bail!("{error}");
        }
        if let Err(reason) = level.set(filter) {
            error!(%reason, "log.level stays as it was");
        }
        let connections = files.connections(config.limits.connections);
        files.report(config.limits.connections);
        server.set_limits(&settings::broker(config, connections).limits);
        store.tune(store::Tuning::of(&settings::store(config)));
        fuota.trust_changed().await;
        // Last, since it is the new rules that decide.
        let disconnected = server.judge_subscriptions();
        if disconnected > 0 {
            info!(disconnected, "clients held subscriptions that the rules refuse now");
        }
        Ok(())
    }
}
