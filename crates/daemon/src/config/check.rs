//! What the values must not say, alone or together.

use std::net::SocketAddr;

use fuota::AuthMode;

use super::{Config, read::Reader};

/// A key, and what it lists.
type Listens<'a> = (&'static str, &'a [SocketAddr]);

/// Shorter admin tokens can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// Notes every contradiction.
pub fn check(config: &Config, reader: &mut Reader<'_>) {
    check_mqtt(config, reader);
    check_twice(config, reader);
    if let Some(address) = beyond_loopback(&config.admin.listen)
        && config.admin.tls.is_none()
        && !config.admin.allow_plain_network
        && !reader.is_wrong(&["admin.allow_plain_network"])
    {
        reader.problem(
            "admin.listen",
            &format!(
                "{address} can be reached from the network, where the admin token would travel in clear text; \
                 set admin.tls.cert and admin.tls.key, or admin.allow_plain_network = true if that is meant"
            ),
        );
    }
    check_store(config, reader);
    if let Err(reason) = crate::logging::targets(&config.log.level) {
        reader.problem("log.level", &reason);
    }
    if let Some(token) = &config.admin.token {
        let token = token.expose();
        if token.len() < SHORTEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            reader.problem(
                "admin.token",
                &format!("must have at least {SHORTEST_TOKEN} characters, all printable ASCII without spaces"),
            );
        }
    }
    for host in &config.admin.allowed_hosts {
        if host.contains(['/', '@', '*', ' ']) || host.parse::<SocketAddr>().is_ok() {
            reader.problem(
                "admin.allowed_hosts",
                &format!("takes host names or addresses without scheme and port, not {host:?}"),
            );
        }
    }
}

fn check_mqtt(config: &Config, reader: &mut Reader<'_>) {
    let mqtt = &config.mqtt;
    let listeners = mqtt.listeners();
    if listeners.iter().all(|(_, addresses)| addresses.is_empty()) && reader.problems.is_empty() {
        reader.problem("mqtt.listen", "is off, and no other listener of mqtt.* is set");
    }
    for (name, addresses) in listeners.into_iter().chain([("http.listen", &*config.http.listen)]) {
        if let Some(address) = beyond_loopback(addresses)
            && config.auth.mode == AuthMode::Open
            && !config.auth.allow_open_network
            && !reader.is_wrong(&["auth.mode", "auth.allow_open_network"])
        {
            reader.problem(
                name,
                &format!(
                    "{address} can be reached from the network, and auth.mode \"open\" lets everybody in; \
                     set auth.mode = \"token\", or set auth.allow_open_network = true if that is meant"
                ),
            );
        }
    }
    for (name, path) in [("mqtt.ws.path", &mqtt.ws_path), ("mqtt.wss.path", &mqtt.wss_path)] {
        let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
        if !path.starts_with('/') || !path.bytes().all(fits) {
            reader.problem(name, &format!("must be a path such as \"/mqtt\", not {path:?}"));
        }
    }
}

/// The system would call the second one taken, and nobody would look for the first in this file.
fn check_twice(config: &Config, reader: &mut Reader<'_>) {
    let others: [Listens<'_>; 2] =
        [("http.listen", &config.http.listen), ("admin.listen", &config.admin.listen)];
    let mut seen: Vec<(&str, SocketAddr)> = Vec::new();
    for (name, addresses) in config.mqtt.listeners().into_iter().chain(others) {
        // The default that stands in for it is in nobody's way.
        let known = !reader.is_wrong(&[name]);
        for address in addresses.iter().filter(|address| known && address.port() != 0) {
            let twice = seen.iter().find(|(_, other)| overlap(*address, *other));
            match twice.copied() {
                Some((first, other)) if other == *address && first == name => {
                    reader.problem(name, &format!("names {address} twice"));
                }
                Some((first, other)) => {
                    reader.problem(name, &format!("names {address}, and {first} names {other}"));
                }
                None => seen.push((name, *address)),
            }
        }
    }
}

/// Whether only one of them can be listened on. All addresses of a family hold each of them.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let all = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (all || one.ip() == other.ip())
}

fn check_store(config: &Config, reader: &mut Reader<'_>) {
    let url = &config.store.url;
    if let Some(bucket) = url.strip_prefix("s3://") {
        if bucket.contains('@') {
            // Not quoted: what stands before the @ is a secret.
            reader.problem("store.url", "must not carry credentials; they belong in store.s3.*");
        } else if bucket.is_empty() || bucket.starts_with('/') {
            reader.problem("store.url", "names no bucket; write s3://BUCKET or s3://BUCKET/PREFIX");
        }
    } else if url.strip_prefix("file:").is_none_or(str::is_empty) {
        reader.problem(
            "store.url",
            &format!("must be file:DIRECTORY or s3://BUCKET/PREFIX, not {url:?}"),
        );
    }
    let s3 = &config.store.s3;
    let keys = ["store.s3.access_key_id", "store.s3.secret_access_key"];
    if s3.access_key_id.is_some() != s3.secret_access_key.is_some() && !reader.is_wrong(&keys) {
        reader.problem(
            "store.s3.access_key_id",
            "and store.s3.secret_access_key go together; one of them is missing",
        );
    }
    if let Some(endpoint) = &s3.endpoint
        && endpoint.starts_with("http://")
        && !s3.allow_http
        && !reader.is_wrong(&["store.s3.allow_http"])
    {
        reader.problem(
            "store.s3.endpoint",
            "is not encrypted; set store.s3.allow_http = true if that is meant",
        );
    }
}

fn beyond_loopback(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    addresses.iter().copied().find(|address| !address.ip().to_canonical().is_loopback())
}
