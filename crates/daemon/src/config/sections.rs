//! The sections of the configuration, complete and typed. What each key means is in
//! `docs/configuration.md`; its range is where it is read, in [`super::assemble`].

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use fuota::{AuthMode, DropRollout, OnExisting, Rule};

use super::Secret;

/// `mqtt.*`: where clients come in. At least one of the listeners has an address.
#[derive(Debug)]
pub struct Mqtt {
    /// Plain TCP.
    pub listen: Vec<SocketAddr>,
    /// TLS.
    pub tls_listen: Vec<SocketAddr>,
    /// WebSocket.
    pub ws_listen: Vec<SocketAddr>,
    /// Its path.
    pub ws_path: String,
    /// WebSocket over TLS.
    pub wss_listen: Vec<SocketAddr>,
    /// Its path.
    pub wss_path: String,
    /// Files for both listeners with TLS; `Some` where one of them has an address. What is in
    /// the files is not looked at here: see [`crate::certificates`].
    pub tls: Option<broker::TlsFiles>,
}

/// `auth.*`.
#[derive(Debug)]
pub struct Auth {
    /// Whom the site lets in.
    pub mode: AuthMode,
    /// Whether devices are limited to what the rules allow.
    pub strict: bool,
    /// Who may publish and subscribe where, in order.
    pub rules: Vec<Rule>,
    /// Whether `open` mode may listen beyond loopback.
    pub allow_open_network: bool,
    /// Whether clients without an account may write to `fuota/devices/ID/down`.
    pub open_downlink: bool,
    /// Devices known without registration.
    pub max_unregistered: usize,
}

/// `store.*`.
#[derive(Debug)]
pub struct Store {
    /// `file:PATH` or `s3://bucket/prefix`.
    pub url: String,
    /// How long a plain binary must stand unchanged.
    pub settle: Duration,
    /// Time between two looks at everything.
    pub poll_interval: Duration,
    /// The largest image, in bytes.
    pub max_size: u64,
    /// Firmware kept in memory, in bytes.
    pub cache_bytes: usize,
    /// The most bytes of copies in `data_dir`; `None` for no bound.
    pub quota: Option<u64>,
    /// How long a copy that no device needs is kept.
    pub keep_unused: Duration,
    /// Which signatures are believed, and whether there must be one.
    pub trust: Arc<store::Trust>,
    /// Access to a bucket.
    pub s3: S3,
}

/// `store.s3.*`.
#[derive(Debug)]
pub struct S3 {
    /// Where the service is, if not at AWS.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The key's id.
    pub access_key_id: Option<Secret>,
    /// The key.
    pub secret_access_key: Option<Secret>,
    /// Whether an `http:` endpoint is fine.
    pub allow_http: bool,
}

/// `fuota.*`.
#[derive(Debug)]
pub struct Fuota {
    /// Bytes of firmware in a block, before encoding.
    pub chunk_size: u32,
    /// The largest PUBLISH that carries a block, in bytes; `None` for no bound but the client's.
    pub max_message: Option<u32>,
    /// Blocks in flight per device.
    pub max_window: u32,
    /// Offers of one image to one device.
    pub max_attempts: u32,
    /// How long a device is left alone after its first failed attempt.
    pub retry_after: Duration,
    /// How long a device that comes back may take before it gets the manifest again.
    pub resume_grace: Duration,
    /// When a silent but connected device counts as updated, unconfirmed.
    pub confirm_after: Duration,
    /// When a device that left after the last block counts as silent.
    pub confirm_within: Duration,
    /// Whether a dropped file is deployed.
    pub deploy_drops: bool,
    /// How a dropped file reaches many devices, where that is named.
    pub drop_rollout: Option<DropRollout>,
    /// What becomes of files found at the very first start, where that is named.
    pub on_existing: Option<OnExisting>,
    /// When manifests go out.
    pub windows: fuota::Windows,
    /// Caps over the site.
    pub limits: fuota::Limits,
    /// Caps over groups, by name.
    pub group_limits: BTreeMap<String, fuota::Limits>,
    /// Firmware bytes a second to one connection.
    pub device_bytes_per_second: Option<u64>,
    /// How far offers to many devices are spread.
    pub jitter: Duration,
    /// Where images may be fetched from.
    pub fetch_allow: Vec<fuota::Allow>,
    /// How long timelines and deployments that are over are kept.
    pub retention: Duration,
    /// How long the audit is kept.
    pub audit_retention: Duration,
}

/// `limits.*`; the broker's documentation says what each bounds.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Limits {
    pub connections: usize,
    pub connections_per_ip: Option<usize>,
    pub connects_per_second: Option<u32>,
    pub packet_bytes: usize,
    pub session_expiry: Option<Duration>,
    pub queue_messages: usize,
    pub queue_bytes: usize,
    pub inflight: u16,
    pub subscriptions: usize,
    pub sessions: usize,
    pub sessions_per_account: Option<usize>,
    pub retained_messages: usize,
    pub retained_bytes: usize,
    pub publish_hold: Duration,
    pub keep_alive: Option<Duration>,
}

/// `log.*`.
#[derive(Debug)]
pub struct Log {
    /// A level, or a list of `target=level`.
    pub level: String,
    /// Text or JSON.
    pub format: LogFormat,
    /// Whether each session's start and end is logged, with what it published.
    pub clients: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `http.*`.
#[derive(Debug)]
pub struct Http {
    /// Empty where it is off.
    pub listen: Vec<SocketAddr>,
    /// `http.tls.*`; with it there is no plain HTTP.
    pub tls: Option<broker::TlsFiles>,
}

/// `admin.*`.
#[derive(Debug)]
pub struct Admin {
    /// Where the admin interface listens.
    pub listen: Vec<SocketAddr>,
    /// The bearer token, where the configuration gives one; otherwise `data_dir/admin.token`.
    pub token: Option<Secret>,
    /// Names in a Host header that are served beside loopback and the address itself.
    pub allowed_hosts: Vec<String>,
    /// Whether it may listen beyond loopback without TLS.
    pub allow_plain_network: bool,
    /// `admin.tls.*`; with it there is no plain HTTP.
    pub tls: Option<broker::TlsFiles>,
}

impl Mqtt {
    /// Its listeners, by their keys.
    pub fn listeners(&self) -> [(&'static str, &[SocketAddr]); 4] {
        [
            ("mqtt.listen", &self.listen),
            ("mqtt.tls.listen", &self.tls_listen),
            ("mqtt.ws.listen", &self.ws_listen),
            ("mqtt.wss.listen", &self.wss_listen),
        ]
    }
}
