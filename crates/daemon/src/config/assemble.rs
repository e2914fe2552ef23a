//! Every key, read into its section.
//!
//! Each function reads all of its keys before the first `?`, so that a file with several mistakes is
//! told all of them at once. Where one is wrong the reader has the problem, and the default stands in.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use broker::journal::Sync;
use fuota::{AuthMode, DropRollout, OnExisting, Rule};

use super::{
    Admin, Auth, Config, Fuota, Http, Limits, Log, LogFormat, Mqtt, S3, Store, Values, limits,
    overview, read::Reader, tree::Tree, webhooks,
};

/// The largest size that a key takes, in bytes.
const BYTES: u64 = 1 << 40;

/// The whole configuration.
pub(super) fn config(reader: &mut Reader<'_>, tree: &Tree) -> Option<Config> {
    let data_dir = reader.path("data_dir");
    let (mqtt, auth) = (mqtt(reader), auth(reader));
    let store = store(reader, &tree.base_dir);
    let (fuota, webhooks) = (fuota(reader), webhooks::read(reader));
    let limits = broker_limits(reader);
    let syncs = [("os", Sync::Os), ("always", Sync::Always), ("never", Sync::Never)];
    let sync = reader.word("persistence.sync", &syncs);
    let (log, http, admin) = (log(reader), http(reader), admin(reader));

    let store = store?;
    let secrets = [
        ("admin.token", admin.token.as_ref()),
        ("store.s3.access_key_id", store.s3.access_key_id.as_ref()),
        ("store.s3.secret_access_key", store.s3.secret_access_key.as_ref()),
    ];
    let values = Values::of(tree, secrets);
    Some(Config {
        file: tree.file.clone(),
        base_dir: tree.base_dir.clone(),
        data_dir: data_dir?,
        mqtt: mqtt?,
        http,
        auth: auth?,
        store,
        fuota: fuota?,
        webhooks,
        limits: limits?,
        sync: sync?,
        log: log?,
        admin,
        settings: overview::settings(tree),
        values,
    })
}

/// `mqtt.*`. Which of the files of TLS have to be there depends on the listeners.
fn mqtt(reader: &mut Reader<'_>) -> Option<Mqtt> {
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

/// `auth.*`.
fn auth(reader: &mut Reader<'_>) -> Option<Auth> {
    let max_unregistered = reader.number("auth.max_unregistered", 0..=10_000_000);
    let mode = reader.word("auth.mode", &[("open", AuthMode::Open), ("token", AuthMode::Token)]);
    let strict = reader.switch("auth.strict");
    let rules = rules(reader);
    let allow_open_network = reader.switch("auth.allow_open_network");
    let open_downlink = reader.switch("auth.open_downlink");
    let (mode, max_unregistered) = (mode?, max_unregistered?);
    Some(Auth { mode, strict, rules, allow_open_network, open_downlink, max_unregistered })
}

/// `store.*`. Files of keys are relative to `base_dir`.
fn store(reader: &mut Reader<'_>, base_dir: &Path) -> Option<Store> {
    let url = reader.text("store.url");
    let settle = reader.duration("store.settle", Duration::ZERO);
    let poll_interval = reader.duration("store.poll_interval", Duration::from_millis(100));
    let max_size = reader.size("store.max_size", 1..=BYTES);
    let cache_bytes = reader.size("store.cache", 1 << 20..=BYTES);
    let quota = reader.size("store.quota", 1..=BYTES);
    let keep_unused = reader.duration("store.keep_unused", Duration::ZERO);
    let trust = trust(reader, base_dir);
    let s3 = S3 {
        endpoint: reader.text("store.s3.endpoint"),
        region: reader.text("store.s3.region"),
        access_key_id: reader.secret("store.s3.access_key_id"),
        secret_access_key: reader.secret("store.s3.secret_access_key"),
        allow_http: reader.switch("store.s3.allow_http"),
    };
    Some(Store {
        url: url?,
        settle: settle?,
        poll_interval: poll_interval?,
        max_size: max_size?,
        cache_bytes: cache_bytes?,
        quota,
        keep_unused: keep_unused?,
        trust: trust?,
        s3,
    })
}

/// `fuota.*`.
fn fuota(reader: &mut Reader<'_>) -> Option<Fuota> {
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
    let limits = fuota::Limits {
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
    Some(Fuota {
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
        limits,
        group_limits,
        device_bytes_per_second,
        jitter: jitter?,
        fetch_allow,
        retention: retention?,
        audit_retention: audit_retention?,
    })
}

/// `limits.*`.
fn broker_limits(reader: &mut Reader<'_>) -> Option<Limits> {
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
    Some(Limits {
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
    })
}

/// `log.*`.
fn log(reader: &mut Reader<'_>) -> Option<Log> {
    let level = reader.text("log.level");
    let format = reader.word("log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let clients = reader.switch("log.clients");
    Some(Log { level: level?, format: format?, clients })
}

/// `http.*`.
fn http(reader: &mut Reader<'_>) -> Http {
    let listen = reader.listen_or_off("http.listen");
    let tls = certificate(reader, "http.tls.cert", "http.tls.key");
    if tls.is_some() && listen.is_empty() {
        reader.problem("http.tls.cert", "is for http.listen, which is not set");
    }
    Http { listen, tls }
}

/// `admin.*`.
fn admin(reader: &mut Reader<'_>) -> Admin {
    Admin {
        listen: reader.listen("admin.listen"),
        token: reader.secret("admin.token"),
        allowed_hosts: reader.texts("admin.allowed_hosts"),
        allow_plain_network: reader.switch("admin.allow_plain_network"),
        tls: certificate(reader, "admin.tls.cert", "admin.tls.key"),
    }
}

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
            store::Trust::load(&[], false).ok()
        }
        Err(error) => {
            reader.problem("store.trusted_keys", &format!("cannot be used: {error}"));
            store::Trust::load(&[], false).ok()
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
