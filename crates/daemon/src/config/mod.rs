//! `broker.toml` and the environment, as one typed value.
//!
//! | module | subject |
//! | --- | --- |
//! | [`keys`] | the table of all keys: names, defaults, what is a secret |
//! | [`tree`] | file and environment merged; unknown keys are found here |
//! | [`read`](mod@read) | typed reading, with an error that names the key |
//! | [`limits`] | the lines of `fuota.limits.groups` |
//! | [`check`] | what the keys must not say together |
//! | [`webhooks`] | one key that is a list of tables |
//! | [`values`](Values) | what changed between two readings |
//! | [`secret`] | values that no output shows |

mod check;
mod error;
pub mod keys;
mod limits;
mod overview;
mod read;
pub mod secret;
#[cfg(test)]
mod tests;
mod tree;
mod values;
pub mod webhooks;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use error::ConfigError;
pub use overview::Setting;
pub use secret::Secret;
pub use values::Values;
pub use webhooks::Webhook;

use broker::journal::Sync;
use fuota::{AuthMode, DropRollout, OnExisting, Rule};
use read::Reader;
use tree::Tree;

/// The daemon's configuration: complete, typed and checked. Paths are absolute.
#[derive(Debug)]
pub struct Config {
    /// The file it came from; `None` where there is no `broker.toml` and the defaults apply.
    pub file: Option<PathBuf>,
    /// What relative paths are relative to: the directory of the file.
    pub base_dir: PathBuf,
    /// Database, content-addressed copies, admin token.
    pub data_dir: PathBuf,
    /// `mqtt.*`.
    pub mqtt: Mqtt,
    /// `http.*`: downloads by devices.
    pub http: Http,
    /// `auth.*`.
    pub auth: Auth,
    /// `store.*`.
    pub store: Store,
    /// `fuota.*`.
    pub fuota: Fuota,
    /// `events.webhooks`.
    pub webhooks: Vec<Webhook>,
    /// `limits.*`.
    pub limits: Limits,
    /// `persistence.sync`.
    pub sync: Sync,
    /// `log.*`.
    pub log: Log,
    /// `admin.*`.
    pub admin: Admin,
    /// Every key that this version knows with the value that applies, for `check-config`.
    pub settings: Vec<Setting>,
    /// The same, to be compared with those of another reading.
    pub values: Values,
}

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

impl Config {
    /// Reads the file (`broker.toml` where `path` is `None`) and the process's environment.
    ///
    /// # Errors
    /// A file that cannot be read, unknown keys, wrong types, values that this version cannot
    /// do or that do not go together: see [`ConfigError`].
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        // Variables that are not Unicode are nobody's configuration.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self::load_with(path, environment)
    }

    /// As [`Config::load`], with an environment of the caller's.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(
        path: Option<&Path>,
        environment: HashMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let tree = Tree::load(path, environment)?;
        let mut reader = Reader::new(&tree);
        reader.problems.extend(tree.problems.iter().cloned());
        let config = read(&mut reader, &tree);
        if let Some(config) = &config {
            check::check(config, &mut reader);
        }
        ConfigError::check(reader.problems)?;
        // Only a default of the table that does not parse leads here, which a test rules out.
        config.ok_or_else(|| ConfigError::one("the configuration is incomplete"))
    }

    /// The file with the admin token, where the configuration gives none itself.
    pub fn token_path(&self) -> PathBuf {
        self.data_dir.join("admin.token")
    }
}

/// Reads `mqtt.*`. Which of the files of TLS have to be there depends on the listeners.
fn read_mqtt(reader: &mut Reader<'_>) -> Option<Mqtt> {
    let listen = reader.listen_or_off("mqtt.listen");
    let tls_listen = reader.listen_or_off("mqtt.tls.listen");
    let (cert, key) = (reader.path("mqtt.tls.cert"), reader.path("mqtt.tls.key"));
    let client_ca = reader.path("mqtt.tls.client_ca");
    let ws_listen = reader.listen_or_off("mqtt.ws.listen");
    let ws_path = reader.text("mqtt.ws.path");
    let wss_listen = reader.listen_or_off("mqtt.wss.listen");
    let wss_path = reader.text("mqtt.wss.path");

    let listener = match (tls_listen.is_empty(), wss_listen.is_empty()) {
        (false, _) => Some("mqtt.tls.listen"),
        (true, false) => Some("mqtt.wss.listen"),
        (true, true) => None,
    };
    let files =
        [("mqtt.tls.cert", &cert), ("mqtt.tls.key", &key), ("mqtt.tls.client_ca", &client_ca)];
    if let Some(listener) = listener {
        for (name, _) in files[..2].iter().filter(|(_, path)| path.is_none()) {
            reader.problem(listener, &format!("needs {name} too"));
        }
    } else {
        for (name, _) in files.iter().filter(|(_, path)| path.is_some()) {
            reader.problem(name, "is for mqtt.tls.listen and mqtt.wss.listen, and neither is set");
        }
    }
    let tls =
        listener.and(cert).zip(key).map(|(cert, key)| broker::TlsFiles { cert, key, client_ca });
    let (ws_path, wss_path) = (ws_path?, wss_path?);
    Some(Mqtt { listen, tls_listen, ws_listen, ws_path, wss_listen, wss_path, tls })
}

/// Reads every key. `None` where one is wrong: then the reader has the problem.
/// The files of a listener that is either plain or not; one without the other is a mistake.
fn certificate(
    reader: &mut Reader<'_>,
    cert: &'static str,
    key: &'static str,
) -> Option<broker::TlsFiles> {
    let missing = match (reader.path(cert), reader.path(key)) {
        (Some(cert), Some(key)) => return Some(broker::TlsFiles { cert, key, client_ca: None }),
        (None, None) => return None,
        (None, Some(_)) => (key, cert),
        (Some(_), None) => (cert, key),
    };
    reader.problem(missing.0, &format!("needs {} too", missing.1));
    None
}

fn read(reader: &mut Reader<'_>, tree: &Tree) -> Option<Config> {
    const BYTES: u64 = 1 << 40;
    let data_dir = reader.path("data_dir");
    let mqtt = read_mqtt(reader);
    let max_unregistered = reader.number("auth.max_unregistered", 0..=10_000_000);
    let modes = [("open", AuthMode::Open), ("token", AuthMode::Token)];
    let mode = reader.word("auth.mode", &modes);
    let strict = reader.switch("auth.strict");
    let rules = rules(reader);
    let auth = (reader.switch("auth.allow_open_network"), reader.switch("auth.open_downlink"));

    let url = reader.text("store.url");
    let settle = reader.duration("store.settle", Duration::ZERO);
    let poll_interval = reader.duration("store.poll_interval", Duration::from_millis(100));
    let max_size = reader.size("store.max_size", 1..=BYTES);
    let cache_bytes = reader.size("store.cache", 1 << 20..=BYTES);
    let quota = reader.size("store.quota", 1..=BYTES);
    let keep_unused = reader.duration("store.keep_unused", Duration::ZERO);
    let trust = trust(reader, &tree.base_dir);
    let s3 = S3 {
        endpoint: reader.text("store.s3.endpoint"),
        region: reader.text("store.s3.region"),
        access_key_id: reader.secret("store.s3.access_key_id"),
        secret_access_key: reader.secret("store.s3.secret_access_key"),
        allow_http: reader.switch("store.s3.allow_http"),
    };

    let chunk_size = reader.size("fuota.chunk_size", 1..=1 << 20);
    let max_message = reader.size("fuota.max_message", 256..=256 << 20);
    let max_window = reader.number("fuota.max_window", 1..=4096);
    let max_attempts = reader.number("fuota.max_attempts", 1..=1000);
    let retry_after = reader.duration("fuota.retry_after", Duration::ZERO);
    let resume_grace = reader.duration("fuota.resume_grace", Duration::ZERO);
    let confirm_after = reader.duration("fuota.confirm_after", Duration::from_millis(1));
    let confirm_within = reader.duration("fuota.confirm_within", Duration::from_millis(1));
    let deploy_drops = reader.word("fuota.on_drop", &[("deploy", true), ("catalog", false)]);
    let rollouts = [("all", DropRollout::All), ("canary", DropRollout::Canary)];
    let drop_rollout = reader.word("fuota.drop_rollout", &rollouts);
    let existing = [("deploy", OnExisting::Deploy), ("hold", OnExisting::Hold)];
    let on_existing = reader.word("fuota.on_existing", &existing);
    let windows = fuota::Windows::parse(&reader.lines("fuota.windows"));
    let windows = windows.unwrap_or_else(|error| {
        reader.problem("fuota.windows", &format!("cannot be used: {error}"));
        fuota::Windows::default()
    });
    let update_limits = fuota::Limits {
        transfers: reader.number_or_off("fuota.limits.transfers", 1..=10_000_000),
        starts_per_minute: reader.number_or_off("fuota.limits.starts_per_minute", 1..=10_000_000),
        bytes_per_second: reader.size("fuota.limits.bytes_per_second", 1..=BYTES),
    };
    let device_bytes_per_second = reader.size("fuota.limits.device_bytes_per_second", 1..=BYTES);
    let group_limits = limits::groups(reader);
    let jitter = reader.duration("fuota.limits.jitter", Duration::ZERO);
    let fetch_allow = fetch_allow(reader);
    let retention = reader.duration("fuota.retention", Duration::from_secs(3600));

    let audit_retention = reader.duration("fuota.audit_retention", Duration::from_secs(3600));
    let webhooks = webhooks::read(reader);

    let connections = reader.number("limits.connections", 1..=10_000_000);
    let connections_per_ip = reader.number_or_off("limits.connections_per_ip", 1..=10_000_000);
    let connects_per_second = reader.number_or_off("limits.connects_per_second", 1..=1_000_000);
    let packet_bytes = reader.size("limits.packet_bytes", 1024..=268_435_460);
    let session_expiry = reader.duration("limits.session_expiry", Duration::from_secs(1));
    let queue_messages = reader.number("limits.queue_messages", 1..=10_000_000);
    let queue_bytes = reader.size("limits.queue_bytes", 1024..=BYTES);
    let inflight = reader.number("limits.inflight", 1..=65_535);
    let subscriptions = reader.number("limits.subscriptions", 1..=10_000_000);
    let sessions = reader.number("limits.sessions", 1..=10_000_000);
    let sessions_per_account = reader.number_or_off("limits.sessions_per_account", 1..=10_000_000);
    let retained_messages = reader.number("limits.retained_messages", 0..=100_000_000);
    let retained_bytes = reader.size("limits.retained_bytes", 0..=BYTES);
    let publish_hold = reader.duration("limits.publish_hold", Duration::ZERO);
    let keep_alive = reader.duration("limits.keep_alive", Duration::from_secs(1));

    let syncs = [("os", Sync::Os), ("always", Sync::Always), ("never", Sync::Never)];
    let sync = reader.word("persistence.sync", &syncs);

    let level = reader.text("log.level");
    let format = reader.word("log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let clients = reader.switch("log.clients");
    let http = Http {
        listen: reader.listen_or_off("http.listen"),
        tls: certificate(reader, "http.tls.cert", "http.tls.key"),
    };
    if http.tls.is_some() && http.listen.is_empty() {
        reader.problem("http.tls.cert", "is for http.listen, which is not set");
    }
    let admin = Admin {
        listen: reader.listen("admin.listen"),
        token: reader.secret("admin.token"),
        allowed_hosts: reader.texts("admin.allowed_hosts"),
        allow_plain_network: reader.switch("admin.allow_plain_network"),
        tls: certificate(reader, "admin.tls.cert", "admin.tls.key"),
    };

    let secrets = [
        ("admin.token", admin.token.as_ref()),
        ("store.s3.access_key_id", s3.access_key_id.as_ref()),
        ("store.s3.secret_access_key", s3.secret_access_key.as_ref()),
    ];
    let values = Values::of(tree, secrets);
    Some(Config {
        file: tree.file.clone(),
        base_dir: tree.base_dir.clone(),
        data_dir: data_dir?,
        mqtt: mqtt?,
        http,
        auth: Auth {
            mode: mode?,
            strict,
            rules,
            allow_open_network: auth.0,
            open_downlink: auth.1,
            max_unregistered: max_unregistered?,
        },
        store: Store {
            url: url?,
            settle: settle?,
            poll_interval: poll_interval?,
            max_size: max_size?,
            cache_bytes: cache_bytes?,
            quota,
            keep_unused: keep_unused?,
            trust: trust?,
            s3,
        },
        fuota: Fuota {
            chunk_size: chunk_size?,
            max_message,
            max_window: max_window?,
            max_attempts: max_attempts?,
            retry_after: retry_after?,
            resume_grace: resume_grace?,
            confirm_after: confirm_after?,
            confirm_within: confirm_within?,
            deploy_drops: deploy_drops?,
            drop_rollout,
            on_existing,
            windows,
            limits: update_limits,
            group_limits,
            device_bytes_per_second,
            jitter: jitter?,
            fetch_allow,
            retention: retention?,
            audit_retention: audit_retention?,
        },
        webhooks,
        limits: Limits {
            connections: connections?,
            connections_per_ip,
            connects_per_second,
            packet_bytes: packet_bytes?,
            session_expiry,
            queue_messages: queue_messages?,
            queue_bytes: queue_bytes?,
            inflight: inflight?,
            subscriptions: subscriptions?,
            sessions: sessions?,
            sessions_per_account,
            retained_messages: retained_messages?,
            retained_bytes: retained_bytes?,
            publish_hold: publish_hold?,
            keep_alive,
        },
        sync: sync?,
        log: Log { level: level?, format: format?, clients },
        admin,
        settings: overview::settings(tree),
        values,
    })
}

/// Those of `fuota.fetch_allow` that allow something; each of the others is a problem.
fn fetch_allow(reader: &mut Reader<'_>) -> Vec<fuota::Allow> {
    let mut allowed = Vec::new();
    for text in reader.texts("fuota.fetch_allow") {
        match text.parse() {
            Ok(entry) => allowed.push(entry),
            Err(error) => reader.problem("fuota.fetch_allow", &format!("cannot be used: {error}")),
        }
    }
    allowed
}

/// The keys of `store.trusted_keys`, which must be there and be keys.
fn trust(reader: &mut Reader<'_>, base_dir: &Path) -> Option<Arc<store::Trust>> {
    let files = reader.texts("store.trusted_keys");
    let files: Vec<PathBuf> = files.iter().map(|file| base_dir.join(file)).collect();
    let require = reader.switch("store.require_signature");
    match store::Trust::load(&files, require) {
        Ok(trust) => Some(trust),
        Err(store::TrustError::NoKeys) => {
            reader.problem(
                "store.require_signature",
                "needs store.trusted_keys, or no firmware could ever be accepted",
            );
            None
        }
        Err(error) => {
            reader.problem("store.trusted_keys", &format!("cannot be used: {error}"));
            None
        }
    }
}

/// Those of `auth.rules` that are rules; each of the others is a problem.
fn rules(reader: &mut Reader<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    for text in reader.lines("auth.rules") {
        match text.parse() {
            Ok(rule) => rules.push(rule),
            Err(error) => reader.problem("auth.rules", &format!("cannot be used: {error}")),
        }
    }
    rules
}
