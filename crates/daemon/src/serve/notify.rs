//! What systemd is told (`Type=notify`): ready, stopping, and that the runtime still turns. Where
//! nobody set `NOTIFY_SOCKET` all of it does nothing.

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Clients are served; `status` is what `systemctl status` shows.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The orderly stop begins.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Tells the watchdog, where there is one, twice within its time that this runtime still runs
/// tasks. One that is stuck is ended and started again by systemd. Ends when cancelled.
pub async fn watchdog(cancel: CancellationToken) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut turn = tokio::time::interval(patience / 2);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = turn.tick() => tell(&[NotifyState::Watchdog]),
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd cannot be told how it is");
    }
}
