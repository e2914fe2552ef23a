//! `fuotad status`.

use std::path::Path;

use serde_json::Value;

use super::{
    api::{Api, Remote},
    output::{self, safe},
    table::field,
};

/// Options.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Prints the daemon at a glance.
pub async fn run(args: &Args, config: Option<&Path>) -> anyhow::Result<()> {
    let status = Api::new(&args.remote, config)?.get(&["status"]).await?;
    if args.json { output::json(&status) } else { output::text(&summary(&status)) }
}

fn summary(status: &Value) -> String {
    let uptime = std::time::Duration::from_secs(status["uptime_seconds"].as_u64().unwrap_or(0));
    let mut lines = vec![
        format!(
            "fuotad    {}, up {}",
            field(status, "version"),
            humantime::format_duration(uptime)
        ),
        format!("ready     {}", field(status, "ready")),
    ];
    for check in
        status["checks"].as_array().into_iter().flatten().filter(|check| check["ok"] == false)
    {
        lines.push(format!("problem   {}: {}", field(check, "name"), field(check, "reason")));
    }
    let of = |path: &str| field(status, path);
    lines.push(format!(
        "clients   {} connected, {} sessions, {} subscriptions, {} retained messages",
        of("broker/connections"),
        of("broker/sessions"),
        of("broker/subscriptions"),
        of("broker/retained_messages"),
    ));
    lines.push(format!(
        "messages  {} received, {} delivered, {} dropped, {} refused",
        of("broker/publishes_received"),
        of("broker/deliveries"),
        of("broker/dropped"),
        of("broker/refused"),
    ));
    lines.push(format!(
        "devices   {} known, {} registered, {} online",
        of("fuota/devices/total"),
        of("fuota/devices/registered"),
        of("fuota/devices/online"),
    ));
    lines.push(format!("updates   {}", counts(&status["fuota"]["states"])));
    lines.push(format!("firmware  {}", counts(&status["fuota"]["firmware"])));
    lines.push(format!("blocks    {} sent, {} bytes", of("fuota/blocks"), of("fuota/block_bytes")));
    lines.iter().map(|line| safe(line) + "\n").collect()
}

/// `3 downloading, 1 failed`, or `none`.
fn counts(counts: &Value) -> String {
    let counts: Vec<String> = counts
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_what_is_wrong_and_what_is_there() {
        let text = summary(&json!({
            "version": "1.2.3", "uptime_seconds": 90, "ready": false,
            "checks": [{"name": "mqtt", "ok": true}, {"name": "store", "ok": false, "reason": "it is\ngone"}],
            "broker": {"connections": 3},
            "fuota": {"devices": {"total": 7}, "states": {"downloading": 2, "failed": 0}, "firmware": {}},
        }));
        assert!(text.contains("fuotad    1.2.3, up 1m 30s\nready     no\n"), "{text}");
        assert!(text.contains("problem   store: it is\u{fffd}gone\n"), "{text}");
        assert!(!text.contains("mqtt:"), "{text}");
        assert!(text.contains("3 connected"), "{text}");
        assert!(text.contains("devices   7 known"), "{text}");
        assert!(text.contains("updates   2 downloading\nfirmware  none\n"), "{text}");
    }
}
