//! Tells what happens to the updates over HTTP, to the receivers that the configuration names.
//!
//! Each receiver has a task that listens for itself, so a slow one holds up nobody: what waits for
//! it is bounded by what [`fuota::Alerts`] keeps, and what it could not take is told in one
//! `missed`. A message that is not taken is sent again, after a second at first and at most after
//! [`LONGEST_PAUSE`], [`ATTEMPTS`] times in all; then it is given up and the log says so.
//!
//! Where it goes is the operator's word alone: addresses stand in the file, nothing that a device
//! or a request says is part of one, no redirect is followed and no proxy of the environment is
//! asked. So a receiver may well be in the own network.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use fuota::{Alert, AlertKind, Alerts, Service};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::StatusCode;
use serde::Serialize;
use sha2::Sha256;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::config::Webhook;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a message is sent at most.
const ATTEMPTS: u32 = 10;
/// The pause after the first failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// A message as it is sent.
#[derive(Serialize)]
struct Message<'a> {
    /// The same when it is sent again.
    id: &'a str,
    #[serde(flatten)]
    alert: &'a Alert,
}

/// Why a receiver did not take a message.
enum Refusal {
    /// Trying again may help.
    Later(String),
    /// It never will.
    Never(String),
}

/// Starts a task for each receiver, until cancelled.
///
/// # Errors
/// No HTTP client can be made.
pub fn start(
    webhooks: &[Webhook],
    service: &Service,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    if webhooks.is_empty() {
        return Ok(());
    }
    let http = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .user_agent(concat!("fuotad/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("events.webhooks: no HTTP client can be made")?;
    for webhook in webhooks {
        let receiver = Receiver { webhook: webhook.clone(), http: http.clone() };
        let (alerts, cancel) = (service.alerts(), cancel.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = receiver.serve(alerts) => {}
                () = cancel.cancelled() => {}
            }
        });
    }
    Ok(())
}

struct Receiver {
    webhook: Webhook,
    http: reqwest::Client,
}

impl Receiver {
    async fn serve(self, mut alerts: Alerts) {
        while let Some(alert) = alerts.next().await {
            let events = &self.webhook.events;
            if events.is_empty()
                || events.contains(&alert.event)
                || alert.event == AlertKind::Missed
            {
                self.tell(&alert).await;
            }
        }
    }

    /// Until it is taken or given up.
    async fn tell(&self, alert: &Alert) {
        let (to, event) = (&self.webhook.shown, alert.event.name());
        let id = random_hex();
        // Texts and numbers always serialize.
        let body: Arc<[u8]> =
            serde_json::to_vec(&Message { id: &id, alert }).unwrap_or_default().into();
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            match self.send(&id, event, &body).await {
                Ok(()) => return debug!(to, event, id, attempt, "a webhook was told"),
                Err(Refusal::Never(reason)) => {
                    return error!(to, event, id, reason, "a webhook does not take this message");
                }
                Err(Refusal::Later(reason)) if attempt == ATTEMPTS => {
                    return error!(to, event, id, attempt, reason, "a webhook was given up");
                }
                Err(Refusal::Later(reason)) => {
                    warn!(to, event, id, attempt, reason, "a webhook is told again later");
                }
            }
            tokio::time::sleep(with_jitter(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn send(&self, id: &str, event: &str, body: &Arc<[u8]>) -> Result<(), Refusal> {
        let mut request = self
            .http
            .post(self.webhook.url.expose())
            .header("Content-Type", "application/json")
            .header("Fuotad-Event", event)
            .header("Fuotad-Delivery", id);
        if let Some(secret) = &self.webhook.secret {
            let at = hook::clock::unix_now();
            let signature = signature(secret.expose().as_bytes(), at, body);
            request = request.header("Fuotad-Signature", format!("t={at},v1={signature}"));
        }
        let answer = request.body(body.to_vec()).send().await;
        // What it answers beside the status is not read.
        match answer.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) if is_passing(status) => Err(Refusal::Later(format!("it answers {status}"))),
            Ok(status) => Err(Refusal::Never(format!("it answers {status}"))),
            Err(error) => Err(Refusal::Later(cause(&error.without_url()))),
        }
    }
}

/// Whether another time may bring another answer.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// The innermost cause, which says it: connection refused, no such host.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// HMAC-SHA256 in hex of the time, a dot and the body: with the time in it, an old message cannot
/// be sent again by somebody else.
fn signature(secret: &[u8], at: u64, body: &[u8]) -> String {
    // HMAC takes keys of any length, so this cannot fail.
    #[allow(clippy::expect_used)]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length is a key");
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

fn random_hex() -> String {
    let mut bytes = [0; 16];
    // Without random numbers a receiver cannot tell messages apart, and that is all.
    let _ = getrandom::fill(&mut bytes);
    hex::encode(bytes)
}

/// Between three quarters of it and the whole, so that receivers that fell together are not told
/// together.
fn with_jitter(pause: Duration) -> Duration {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    pause.mul_f64(0.75 + f64::from(byte[0]) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_hmac_sha256_of_time_and_body() {
        let expected = {
            let mut mac = Hmac::<Sha256>::new_from_slice(b"Jefe").unwrap();
            mac.update(b"17.what do ya want for nothing?");
            hex::encode(mac.finalize().into_bytes())
        };
        assert_eq!(signature(b"Jefe", 17, b"what do ya want for nothing?"), expected);
        assert_ne!(signature(b"Jefe", 18, b"what do ya want for nothing?"), expected);
    }

    #[test]
    fn pauses_stay_below_the_longest() {
        for _ in 0..100 {
            let pause = with_jitter(LONGEST_PAUSE);
            assert!(pause <= LONGEST_PAUSE && pause >= LONGEST_PAUSE.mul_f64(0.74), "{pause:?}");
        }
    }
}
