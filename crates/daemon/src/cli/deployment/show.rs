//! Deployments as tables and texts for people.

use std::time::Duration;

use serde_json::Value;

use crate::cli::{
    output,
    table::{Table, field},
};

pub fn table(deployments: &[Value]) -> String {
    let mut table = Table::new(&[
        "ID", "STATE", "FIRMWARE", "VERSION", "TARGET", "WAVE", "OFFERED", "DONE", "FAILED",
        "REASON",
    ]);
    for one in deployments {
        let count = |names: &[&str]| {
            let number = |name: &&str| one["counts"][*name].as_u64().unwrap_or(0);
            names.iter().map(number).sum::<u64>().to_string()
        };
        let offered: u64 =
            one["counts"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
        let waves = one["rollout"]["waves"].as_array().map_or(0, Vec::len);
        table.row(&[
            field(one, "id"),
            field(one, "state"),
            field(one, "firmware/path"),
            field(one, "firmware/version"),
            target(&one["target"]),
            format!("{}/{waves}", field(one, "wave")),
            offered.to_string(),
            count(&["updated", "updated_unconfirmed"]),
            count(&["failed", "silent"]),
            field(one, "reason"),
        ]);
    }
    table.render()
}

fn target(target: &Value) -> String {
    let Some((name, value)) = target.as_object().and_then(|target| target.iter().next()) else {
        return String::new();
    };
    match value.as_str() {
        Some(value) => format!("{name} {value}"),
        None => name.clone(),
    }
}

pub fn members(devices: &[Value]) -> String {
    let mut table = Table::new(&["DEVICE", "WAVE", "STATE", "REASON"]);
    for device in devices {
        table.row(&[
            field(device, "device"),
            field(device, "wave"),
            field(device, "state"),
            field(device, "reason"),
        ]);
    }
    table.render()
}

pub fn report(plan: &Value) -> String {
    let devices = plan["devices"].as_array().map_or(0, Vec::len);
    let waves: Vec<_> =
        plan["waves"].as_array().into_iter().flatten().map(Value::to_string).collect();
    let seconds = match plan["seconds"].as_u64() {
        Some(seconds) => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
        None => "unknown, nothing was transferred since the start".into(),
    };
    let mut text = format!(
        "firmware  {} {} ({} bytes)\ndevices   {devices}\nwaves     up to {}\nbytes     {}\na device  {seconds}\n\n",
        field(plan, "firmware/path"),
        field(plan, "firmware/version"),
        field(plan, "firmware/size"),
        waves.join(", "),
        field(plan, "bytes"),
    );
    let mut table = Table::new(&["DEVICE", "GETS IT", "REASON"]);
    for device in plan["devices"].as_array().into_iter().flatten() {
        table.row(&[device.as_str().unwrap_or_default().into(), "yes".into(), String::new()]);
    }
    for one in plan["excluded"].as_array().into_iter().flatten() {
        table.row(&[field(one, "device"), "no".into(), field(one, "reason")]);
    }
    text += &table.render();
    lines(&text)
}

/// Each line as it may go to a terminal.
pub fn lines(text: &str) -> String {
    text.lines().map(|line| output::safe(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn targets_for_people() {
        assert_eq!(target(&json!({"all": true})), "all");
        assert_eq!(target(&json!({"labels": "a=b"})), "labels a=b");
    }
}
