//! What the daemon gives.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

/// Who may ask, and how the daemon calls itself.
#[derive(Clone)]
pub struct Settings {
    /// The bearer token of everything under `/api`. Never empty.
    pub token: String,
    /// Where the interface listens; these addresses may stand in a Host header.
    pub listen: Vec<SocketAddr>,
    /// Further host names or addresses, without port, that may stand in a Host header.
    pub allowed_hosts: Vec<String>,
    /// The daemon's version, shown in the status.
    pub version: String,
    /// Where logins of the page are kept over a restart; `None`: they end with it.
    pub sessions: Option<PathBuf>,
    /// Whether the interface is served over TLS: then cookies are for TLS alone.
    pub tls: bool,
    /// Connections at once, over all addresses: streams of events get a part of them.
    pub connections: usize,
    /// After how long without an event a comment shows that a stream of events lives; also how
    /// long a login that is over may keep one, in which nothing happens.
    pub show_life: Duration,
}

// The token must not reach a log through `{:?}`.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("allowed_hosts", &self.allowed_hosts)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
