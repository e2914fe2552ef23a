//! SIGINT and SIGTERM: the first stops in order, the second at once. SIGHUP: read again.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The two signals that mean stop.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals from the operating system's default, which would end the process.
    pub fn listen() -> anyhow::Result<Self> {
        let take = |kind| signal(kind).context("signals cannot be handled");
        Ok(Signals {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
        })
    }

    /// SIGHUP, which would end the process as well.
    pub fn hangups() -> anyhow::Result<Signal> {
        signal(SignalKind::hangup()).context("signals cannot be handled")
    }

    /// Waits for one, and names it.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// From now on a signal ends the process without waiting for anything, as a shell would
    /// expect of it: with 128 and the signal's number.
    pub fn end_at_once_on_the_next(mut self) {
        tokio::spawn(async move {
            let code = match self.next().await {
                "SIGINT" => 130,
                _ => 143,
            };
            std::process::exit(code);
        });
    }
}
