//! What each part is told, out of the configuration.

use std::net::SocketAddr;

use crate::config::{Config, Secret};

/// For the broker, which may have so many connections.
pub fn broker(config: &Config, connections: usize) -> broker::Settings {
    let limits = &config.limits;
    broker::Settings {
        limits: broker::Limits {
            connections,
            connections_per_ip: limits.connections_per_ip,
            connects_per_second: limits.connects_per_second,
            packet_bytes: limits.packet_bytes,
            sessions: limits.sessions,
            // A longer one bounds nothing.
            session_expiry: limits.session_expiry.and_then(|it| it.as_secs().try_into().ok()),
            queue_messages: limits.queue_messages,
            queue_bytes: limits.queue_bytes,
            inflight: limits.inflight,
            subscriptions: limits.subscriptions,
            sessions_per_account: limits.sessions_per_account,
            retained_messages: limits.retained_messages,
            retained_bytes: limits.retained_bytes,
            publish_hold: limits.publish_hold,
            // A longer one bounds nothing: MQTT has no more than 65,535 seconds.
            keep_alive: limits.keep_alive.map(|it| it.as_secs().try_into().unwrap_or(u16::MAX)),
        },
        persistence: Some(broker::Persistence {
            directory: config.data_dir.join("broker"),
            sync: config.sync,
        }),
        ..broker::Settings::default()
    }
}

/// For the store.
pub fn store(config: &Config) -> store::Settings {
    let store = &config.store;
    let expose = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    store::Settings {
        url: store.url.clone(),
        base_dir: config.base_dir.clone(),
        s3: store::S3Settings {
            endpoint: store.s3.endpoint.clone(),
            region: store.s3.region.clone(),
            access_key_id: expose(&store.s3.access_key_id),
            secret_access_key: expose(&store.s3.secret_access_key),
            allow_http: store.s3.allow_http,
            ..store::S3Settings::default()
        },
        data_dir: config.data_dir.clone(),
        settle: store.settle,
        poll_interval: store.poll_interval,
        max_size: store.max_size,
        cache_bytes: store.cache_bytes,
        quota: store.quota,
        keep_unused: store.keep_unused,
        trust: store.trust.clone(),
    }
}

/// For the update engine.
pub fn fuota(config: &Config) -> fuota::Settings {
    let fuota = &config.fuota;
    fuota::Settings {
        data_dir: config.data_dir.clone(),
        chunk_size: fuota.chunk_size,
        max_window: fuota.max_window,
        max_attempts: fuota.max_attempts,
        retry_after: fuota.retry_after,
        resume_grace: fuota.resume_grace,
        confirm_after: fuota.confirm_after,
        confirm_within: fuota.confirm_within,
        deploy_drops: fuota.deploy_drops,
        drop_rollout: fuota.drop_rollout,
        on_existing: fuota.on_existing,
        windows: fuota.windows.clone(),
        limits: fuota.limits.clone(),
        group_limits: fuota.group_limits.clone(),
        device_bytes_per_second: fuota.device_bytes_per_second,
        jitter: fuota.jitter,
        fetch_allow: fuota.fetch_allow.clone(),
        retention: fuota.retention,
        audit_retention: fuota.audit_retention,
        max_message: fuota.max_message,
        mode: config.auth.mode,
        strict: config.auth.strict,
        rules: config.auth.rules.clone(),
        open_downlink: config.auth.open_downlink,
        max_unregistered: config.auth.max_unregistered,
        ..fuota::Settings::default()
    }
}

/// For the admin interface, which listens at these addresses.
pub fn admin(
    config: &Config,
    token: &Secret,
    listen: &[SocketAddr],
    connections: usize,
) -> admin::Settings {
    admin::Settings {
        token: token.expose().to_owned(),
        listen: listen.to_vec(),
        allowed_hosts: config.admin.allowed_hosts.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sessions: Some(config.data_dir.join("sessions.json")),
        tls: config.admin.tls.is_some(),
        connections,
        // Proxies end what is silent for a minute.
        show_life: std::time::Duration::from_secs(15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// The table of keys, the documentation and the parts must not drift apart.
    #[test]
    fn the_parts_have_the_same_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("broker.toml");
        std::fs::write(&file, "").unwrap();
        let config = Config::load_with(Some(&file), HashMap::new()).unwrap();
        let same = |ours: String, theirs: String| assert_eq!(ours, theirs);
        let ours = broker(&config, config.limits.connections);
        let persistence = Some(broker::Persistence {
            directory: dir.path().join("data/broker"),
            ..broker::Persistence::default()
        });
        let theirs = broker::Settings { persistence, ..broker::Settings::default() };
        same(format!("{ours:?}"), format!("{theirs:?}"));
        let theirs =
            fuota::Settings { data_dir: config.data_dir.clone(), ..fuota::Settings::default() };
        same(format!("{:?}", fuota(&config)), format!("{theirs:?}"));
        let theirs = store::Settings {
            data_dir: config.data_dir.clone(),
            base_dir: config.base_dir.clone(),
            // A contract of the daemon's: 512 MB, where a MB is a million.
            max_size: 512_000_000,
            ..store::Settings::default()
        };
        same(format!("{:?}", store(&config)), format!("{theirs:?}"));
    }
}
