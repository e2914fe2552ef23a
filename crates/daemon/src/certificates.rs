//! The certificates of `mqtt.tls`, `http.tls` and `admin.tls`: read at start, judged by `check-config`, and
//! read again on SIGHUP and when their files change.

use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use broker::{Tls, TlsError, TlsFiles, TlsPart};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::config::Config;

/// Time between two looks at the files; a change counts when two looks saw the same.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the configuration names.
#[derive(Clone)]
pub struct Certificates {
    /// `mqtt.tls`, where a listener needs it.
    pub mqtt: Option<Arc<Tls>>,
    /// `http.tls`.
    pub http: Option<Arc<Tls>>,
    /// `admin.tls`.
    pub admin: Option<Arc<Tls>>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// One sentence that names the key and the file.
    pub fn load(config: &Config) -> anyhow::Result<Self> {
        let one = |section, files: &Option<TlsFiles>| {
            let tls = files.clone().map(Tls::load).transpose();
            tls.map_err(|error| anyhow!(sentence(section, &error)))
        };
        Ok(Certificates {
            mqtt: one("mqtt.tls", &config.mqtt.tls)?,
            http: one("http.tls", &config.http.tls)?,
            admin: one("admin.tls", &config.admin.tls)?,
        })
    }

    /// Those that are configured, each with its section.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, Arc<Tls>)> {
        let Certificates { mqtt, http, admin } = self.clone();
        let all = [("mqtt.tls", mqtt), ("http.tls", http), ("admin.tls", admin)];
        all.into_iter().filter_map(|(section, tls)| Some((section, tls?)))
    }

    /// Looks at the files until cancelled, and replaces what is in use when they have changed.
    pub async fn watch(self, cancel: CancellationToken) {
        let mut watches = tokio::task::JoinSet::new();
        for (section, tls) in self.all() {
            let told = move |outcome| report(section, &outcome);
            watches.spawn(tls.watch(LOOK_EVERY, cancel.clone(), told));
        }
        watches.join_all().await;
    }

    /// Reads the files again, with a line in the log for each section.
    pub async fn reload(&self) {
        for (section, tls) in self.all() {
            // A file system may hang; the runtime's threads must not.
            if let Ok(outcome) = tokio::task::spawn_blocking(move || tls.reload()).await {
                report(section, &outcome);
            }
        }
    }
}

fn sentence(section: &str, error: &TlsError) -> String {
    let key = match error.part {
        TlsPart::Cert => "cert",
        TlsPart::Key => "key",
        TlsPart::ClientCa => "client_ca",
    };
    format!("{section}.{key}: {error}")
}

fn report(section: &'static str, outcome: &Result<(), TlsError>) {
    match outcome {
        Ok(()) => info!(section, "the certificates were read again; new connections get them"),
        Err(error) => error!(
            reason = sentence(section, error),
            "the certificates were not replaced; the old ones stay in use"
        ),
    }
}
