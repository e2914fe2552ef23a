//! The certificates of `mqtt.tls`: read at start, judged by `check-config`, and read again on
//! SIGHUP and when their files change.

use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use broker::{Tls, TlsError, TlsPart};
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::config::Mqtt;

/// Time between two looks at the files; a change counts when two looks saw the same.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Reads the files, where a listener needs them.
///
/// # Errors
/// One sentence that names the key and the file.
pub fn load(mqtt: &Mqtt) -> anyhow::Result<Option<Arc<Tls>>> {
    match mqtt.tls.clone().map(Tls::load) {
        None => Ok(None),
        Some(Ok(tls)) => Ok(Some(tls)),
        Some(Err(error)) => Err(anyhow!(sentence(&error))),
    }
}

fn sentence(error: &TlsError) -> String {
    let key = match error.part {
        TlsPart::Cert => "mqtt.tls.cert",
        TlsPart::Key => "mqtt.tls.key",
        TlsPart::ClientCa => "mqtt.tls.client_ca",
    };
    format!("{key}: {error}")
}

/// Keeps what is in use as new as the files, until cancelled. Each SIGHUP is answered with a
/// line in the log.
pub async fn renew(tls: Option<Arc<Tls>>, mut hangups: Signal, cancel: CancellationToken) {
    let watch = tls.as_ref().map(|tls| {
        tokio::spawn(Arc::clone(tls).watch(LOOK_EVERY, cancel.clone(), |outcome| report(&outcome)))
    });
    loop {
        tokio::select! {
            _ = hangups.recv() => {}
            () = cancel.cancelled() => break,
        }
        let Some(tls) = tls.clone() else {
            info!("SIGHUP: there are no certificates to read again; other settings need a restart");
            continue;
        };
        // A file system may hang; the runtime's threads must not.
        if let Ok(outcome) = tokio::task::spawn_blocking(move || tls.reload()).await {
            report(&outcome);
        }
    }
    if let Some(watch) = watch {
        // It ends by the same token.
        let _ = watch.await;
    }
}

fn report(outcome: &Result<(), TlsError>) {
    match outcome {
        Ok(()) => info!("the certificates of mqtt.tls were read again; new connections get them"),
        Err(error) => error!(
            reason = sentence(error),
            "the certificates of mqtt.tls were not replaced; the old ones stay in use"
        ),
    }
}
