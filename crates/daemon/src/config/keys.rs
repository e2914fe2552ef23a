//! Every key of the configuration: the one table that the reader, `check-config` and the
//! documentation agree on.

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The dotted name.
    pub name: &'static str,
    /// What applies when nobody sets it, as it would stand in the file; empty for "not set".
    pub default: &'static str,
    /// Whether values show up in no output.
    pub secret: bool,
    /// Whether a change counts when the configuration is read again, or only after a restart.
    pub live: bool,
}

const fn key(name: &'static str, default: &'static str) -> Key {
    Key { name, default, secret: false, live: false }
}

/// A key that can change while the daemon runs.
const fn live(name: &'static str, default: &'static str) -> Key {
    Key { live: true, ..key(name, default) }
}

const fn secret(name: &'static str) -> Key {
    Key { secret: true, ..key(name, "") }
}

/// All keys, in the order in which people read them.
pub const KEYS: &[Key] = &[
    key("data_dir", "data"),
    key("mqtt.listen", "127.0.0.1:1883"),
    key("mqtt.tls.listen", ""),
    key("mqtt.tls.cert", ""),
    key("mqtt.tls.key", ""),
    key("mqtt.tls.client_ca", ""),
    key("mqtt.ws.listen", ""),
    key("mqtt.ws.path", "/mqtt"),
    key("mqtt.wss.listen", ""),
    key("mqtt.wss.path", "/mqtt"),
    key("http.listen", ""),
    key("http.tls.cert", ""),
    key("http.tls.key", ""),
    key("auth.mode", "open"),
    key("auth.allow_open_network", "false"),
    live("auth.open_downlink", "false"),
    live("auth.max_unregistered", "10000"),
    live("auth.strict", "false"),
    live("auth.rules", ""),
    key("store.url", "file:firmware"),
    live("store.settle", "2s"),
    live("store.poll_interval", "30s"),
    live("store.max_size", "512 MB"),
    key("store.cache", "64 MiB"),
    key("store.quota", ""),
    key("store.keep_unused", "1d"),
    live("store.trusted_keys", ""),
    live("store.require_signature", "false"),
    key("store.s3.endpoint", ""),
    key("store.s3.region", ""),
    secret("store.s3.access_key_id"),
    key("store.s3.access_key_id_file", ""),
    secret("store.s3.secret_access_key"),
    key("store.s3.secret_access_key_file", ""),
    key("store.s3.allow_http", "false"),
    live("fuota.chunk_size", "4096"),
    live("fuota.max_message", ""),
    live("fuota.max_window", "64"),
    live("fuota.max_attempts", "3"),
    live("fuota.retry_after", "30s"),
    live("fuota.resume_grace", "5s"),
    live("fuota.confirm_after", "10min"),
    live("fuota.confirm_within", "30min"),
    live("fuota.on_drop", "deploy"),
    live("fuota.drop_rollout", ""),
    key("fuota.on_existing", ""),
    live("fuota.windows", ""),
    live("fuota.limits.transfers", ""),
    live("fuota.limits.starts_per_minute", ""),
    live("fuota.limits.bytes_per_second", ""),
    live("fuota.limits.device_bytes_per_second", ""),
    live("fuota.limits.groups", ""),
    live("fuota.limits.jitter", "0s"),
    live("fuota.retention", "365d"),
    live("fuota.audit_retention", "365d"),
    live("fuota.fetch_allow", ""),
    key("events.webhooks", ""),
    live("limits.connections", "100000"),
    live("limits.connections_per_ip", ""),
    live("limits.connects_per_second", ""),
    live("limits.packet_bytes", "1 MiB"),
    live("limits.session_expiry", ""),
    live("limits.queue_messages", "1000"),
    live("limits.queue_bytes", "8 MiB"),
    live("limits.inflight", "64"),
    live("limits.subscriptions", "1000"),
    live("limits.sessions", "200000"),
    live("limits.sessions_per_account", "1000"),
    live("limits.retained_messages", "100000"),
    live("limits.retained_bytes", "64 MiB"),
    live("limits.publish_hold", "1s"),
    live("limits.keep_alive", ""),
    key("persistence.sync", "os"),
    live("log.level", "info"),
    key("log.format", "text"),
    key("log.clients", "false"),
    key("admin.listen", "127.0.0.1:8080"),
    secret("admin.token"),
    key("admin.token_file", ""),
    key("admin.allowed_hosts", ""),
    key("admin.allow_plain_network", "false"),
    key("admin.tls.cert", ""),
    key("admin.tls.key", ""),
];

/// The key of that name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether the name is that of a table, such as `mqtt` or `store.s3`.
pub fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The known name that somebody who wrote `name` most likely meant.
///
/// That is the closest by edits, where at most a third of it had to be edited, or else the only
/// key that ends in the same last part (`listen` is in many sections, `chunk_size` in one).
pub fn suggest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let closest = KEYS
        .iter()
        .map(|key| (strsim::damerau_levenshtein(key.name, &name), key.name))
        .min_by_key(|(edits, _)| *edits)
        .filter(|(edits, known)| *edits * 3 <= known.len());
    if let Some((_, known)) = closest {
        return Some(known);
    }
    let last = name.rsplit('.').next()?;
    let mut same_end = KEYS.iter().filter(|key| key.name.rsplit('.').next() == Some(last));
    match (same_end.next(), same_end.next()) {
        (Some(key), None) => Some(key.name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_was_meant() {
        assert_eq!(suggest("mqtt.lisen"), Some("mqtt.listen"));
        assert_eq!(suggest("mqtt.Listen"), Some("mqtt.listen"));
        assert_eq!(suggest("fouta.chunk_size"), Some("fuota.chunk_size"));
        assert_eq!(suggest("chunk_size"), Some("fuota.chunk_size"), "the section was forgotten");
        assert_eq!(suggest("store.secret_access_key"), Some("store.s3.secret_access_key"));
        assert_eq!(suggest("colour"), None);
    }

    #[test]
    fn names_are_unique_and_sections_are_no_keys() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[index + 1..].iter().all(|other| other.name != key.name), "{}", key.name);
            assert!(!is_section(key.name), "{} is a key and a section", key.name);
        }
        assert!(is_section("mqtt") && is_section("store.s3"));
        assert!(!is_section("mqt") && !is_section("store.s"));
    }

    #[test]
    fn every_secret_has_a_file_form() {
        for key in KEYS.iter().filter(|key| key.secret) {
            assert!(find(&format!("{}_file", key.name)).is_some(), "{}", key.name);
        }
    }
}
