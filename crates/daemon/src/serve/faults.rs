//! Ways to break a running daemon from outside, for tests. Does not build in release.

use anyhow::Context as _;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// SIGUSR1 panics the message router's thread. SIGUSR2 keeps a dead one from being replaced, and
/// the next SIGUSR2 lets it be.
pub fn listen(server: Arc<broker::Server>) -> anyhow::Result<()> {
    let mut kills = signal(SignalKind::user_defined1()).context("signals cannot be handled")?;
    let mut holds = signal(SignalKind::user_defined2()).context("signals cannot be handled")?;
    let held = server.clone();
    tokio::spawn(async move {
        let mut hold = false;
        while holds.recv().await.is_some() {
            hold = !hold;
            held.hold_router(hold);
            tracing::warn!(hold, "fault: the message router is held");
        }
    });
    tokio::spawn(async move {
        while kills.recv().await.is_some() {
            let server = server.clone();
            // An error is a panic of the fault itself, which the log has.
            let _ = tokio::task::spawn_blocking(move || server.kill_router()).await;
            tracing::warn!("fault: the message router was killed");
        }
    });
    Ok(())
}
