//! `fuotad events`: every change as it happens.

use std::path::Path;

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::{
    api::{Api, Remote},
    output,
    table::time,
};

/// Options.
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Only changes of this kind: device, deployment, firmware, known, user, import or site;
    /// repeatable
    #[arg(long = "type", value_name = "KIND")]
    types: Vec<String>,
    /// Begin behind the event of this id, as --json shows it
    #[arg(long, value_name = "ID")]
    since: Option<String>,
    /// End after what is there already, instead of waiting for more
    #[arg(long)]
    no_follow: bool,
    /// End after so many events
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// Print each as one line of JSON: {"id", "event"}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Prints them until the daemon stops, or somebody ends it.
pub async fn run(args: &Args, config: Option<&Path>) -> anyhow::Result<()> {
    let api = Api::new(&args.remote, config)?;
    let mut query = vec![("follow", (!args.no_follow).to_string())];
    if !args.types.is_empty() {
        query.push(("type", args.types.join(",")));
    }
    let mut left = args.limit.unwrap_or(usize::MAX);
    if left == 0 {
        return Ok(());
    }
    let print = |id: &str, data: &str| {
        let event: Value = serde_json::from_str(data)?;
        match args.json {
            true => output::text(&format!("{}\n", json!({"id": id, "event": event})))?,
            false => output::text(&line(&event))?,
        }
        left -= 1;
        Ok(left > 0)
    };
    api.events(&query, args.since.as_deref(), print).await
}

/// Time, kind, and what belongs to it.
fn line(event: &Value) -> String {
    let mut parts = vec![time(event, "at"), event["type"].as_str().unwrap_or_default().to_owned()];
    for (name, value) in event.as_object().into_iter().flatten() {
        match value {
            Value::Null => {}
            _ if matches!(name.as_str(), "at" | "type") => {}
            Value::String(text) => parts.push(format!("{name}={text}")),
            other => parts.push(format!("{name}={other}")),
        }
    }
    parts.retain(|part| !part.is_empty());
    output::safe(&parts.join("  ")) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people() {
        let event = json!({"type": "device", "at": 0, "device": "pump\n1", "reason": null});
        assert_eq!(line(&event), "1970-01-01T00:00:00Z  device  device=pump\u{fffd}1\n");
        assert_eq!(line(&json!({"type": "missed", "events": 3})), "missed  events=3\n");
    }
}
