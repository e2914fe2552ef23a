//! What is on the network: the daemon's answer, its ports and listeners, their certificates.

use std::{net::SocketAddr, time::Duration};

use fuota::AuthMode;
use serde_json::Value;

use super::{Finding, ok, problem, warning};
use crate::{certificates::Certificates, config::Config};

/// How long the daemon may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// Certificates that end sooner are worth a word.
const RENEW_SECONDS: u64 = 21 * 24 * 3600;

/// What `/readyz` of a running daemon says, at `url` where that is given; else why nobody answers.
pub(super) async fn ask(config: &Config, url: Option<&str>) -> Result<Value, String> {
    let base = match url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => address(config)?,
    };
    // Only whether it is well is asked, and nothing secret is sent: the name in its certificate
    // may be another than this address.
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .tls_danger_accept_invalid_certs(true)
        .build()
        .map_err(|error| error.to_string())?;
    let answer = http.get(format!("{base}/readyz")).send().await;
    let answer = answer.map_err(|error| error.without_url().to_string())?;
    answer.json().await.map_err(|_| "what answers there is no fuotad".to_owned())
}

/// Where the configuration says that the admin interface is.
fn address(config: &Config) -> Result<String, String> {
    let Some(address) = config.admin.listen.first() else {
        return Err("admin.listen has no address".into());
    };
    let scheme = if config.admin.tls.is_some() { "https" } else { "http" };
    let mut address = *address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(format!("{scheme}://{address}"))
}

pub(super) fn daemon(config: &Config, running: &Result<Value, String>) -> Vec<Finding> {
    let Ok(ready) = running else {
        return ports(config);
    };
    let checks = ready["checks"].as_array().into_iter().flatten();
    let down: Vec<Finding> = checks
        .filter(|check| check["ok"] == false)
        .map(|check| {
            let part = check["name"].as_str().unwrap_or("a part");
            let reason = check["reason"].as_str().unwrap_or("it does not say why");
            problem("daemon", format!("{part} is not up: {reason}"), "the log has more")
        })
        .collect();
    if down.is_empty() { vec![ok("daemon", "runs, and every part is up")] } else { down }
}

/// Nobody answers: could a daemon have its ports?
fn ports(config: &Config) -> Vec<Finding> {
    let others = [("http.listen", &*config.http.listen), ("admin.listen", &*config.admin.listen)];
    let mut findings = vec![warning(
        "daemon",
        "does not run",
        "start it: systemctl start fuotad, or fuotad serve",
    )];
    for (key, addresses) in config.mqtt.listeners().into_iter().chain(others) {
        for address in addresses {
            if let Err(error) = broker::bind_socket(*address) {
                findings.push(problem(
                    "ports",
                    format!("{key}: {error}"),
                    format!(
                        "end what has it (ss -ltnp 'sport = :{}'), or choose another",
                        address.port()
                    ),
                ));
            }
        }
    }
    findings
}

pub(super) fn doors(config: &Config) -> Vec<Finding> {
    let beyond = |addresses: &[SocketAddr]| {
        addresses.iter().copied().find(|address| !address.ip().to_canonical().is_loopback())
    };
    let mut findings = Vec::new();
    let plain = beyond(&config.mqtt.listen).or(beyond(&config.mqtt.ws_listen));
    if let Some(address) = plain {
        findings.push(warning(
            "doors",
            format!("{address} is not encrypted: tokens and firmware can be read on the way"),
            "use mqtt.tls where the devices can",
        ));
    }
    if config.auth.mode == AuthMode::Open {
        let everywhere =
            plain.or(beyond(&config.mqtt.tls_listen)).or(beyond(&config.mqtt.wss_listen));
        findings.push(match everywhere {
            Some(address) => warning(
                "doors",
                format!("auth.mode is \"open\": everybody who reaches {address} is let in"),
                "set auth.mode = \"token\" on a real site",
            ),
            None => ok("doors", "auth.mode is \"open\", on this machine alone"),
        });
    }
    if let Some(address) = beyond(&config.admin.listen).filter(|_| config.admin.tls.is_none()) {
        findings.push(warning(
            "doors",
            format!("the admin interface at {address} is not encrypted"),
            "set admin.tls.cert and admin.tls.key",
        ));
    }
    if findings.is_empty() {
        findings.push(ok("doors", "nothing is open that should not be"));
    }
    findings
}

pub(super) fn certificates(config: &Config) -> Vec<Finding> {
    let all = match Certificates::load(config) {
        Ok(all) => all,
        Err(error) => {
            let fix = "renew it, or correct the path; the daemon does not start like this";
            return vec![problem("certificates", format!("{error:#}"), fix)];
        }
    };
    let now = hook::clock::unix_now();
    let mut findings = Vec::new();
    for (section, tls) in all.all() {
        let Some(left) = tls.ends().map(|ends| ends.saturating_sub(now)) else {
            continue;
        };
        let days = left / (24 * 3600);
        let says = format!("{section}: the certificate ends in {days} days");
        findings.push(match left {
            0..RENEW_SECONDS => warning(
                "certificates",
                says,
                "renew it; the running daemon takes the new files by itself",
            ),
            _ => ok("certificates", says),
        });
    }
    if findings.is_empty() {
        findings.push(ok("certificates", "none is configured"));
    }
    findings
}
