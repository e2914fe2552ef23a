//! `fuotad retained …`.

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    path::Path,
};

use anyhow::bail;
use clap::Subcommand;
use reqwest::Method;
use serde_json::Value;

use super::{
    api::{Api, Remote},
    output,
    table::{Table, field},
};

/// Characters of a payload in a list.
const SHOWN: usize = 60;

/// What to do with retained messages.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List retained messages
    List {
        /// A topic filter, such as 'plant/#'
        #[arg(default_value = "#")]
        filter: String,
        /// Print JSON, with the whole payloads
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show the retained message of one topic, as JSON with its whole payload
    Show {
        /// The topic
        topic: String,
        /// Print JSON, as it does in any case
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Remove the retained messages that a filter matches; subscribers hear nothing of it
    Delete {
        /// A topic, or a topic filter such as 'plant/#'
        filter: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Does it.
pub async fn run(command: Command, config: Option<&Path>) -> anyhow::Result<()> {
    match command {
        Command::List { filter, json, remote } => {
            let messages =
                Api::new(&remote, config)?.list(&["retained"], &[("filter", filter)]).await?;
            if json {
                return output::json(&messages);
            }
            let mut table = Table::new(&["TOPIC", "QOS", "BYTES", "EXPIRES IN", "PAYLOAD"]);
            for message in &messages {
                table.row(&[
                    field(message, "topic"),
                    field(message, "qos"),
                    field(message, "size"),
                    expires(message),
                    shown(message),
                ]);
            }
            output::text(&table.render())
        }
        Command::Show { topic, json: _, remote } => {
            if topic.contains(['+', '#']) {
                bail!("{topic:?} is a filter and not a topic; `retained list` takes filters");
            }
            let query = [("filter", topic.clone())];
            match Api::new(&remote, config)?.list(&["retained"], &query).await?.first() {
                Some(message) => output::json(message),
                None => bail!("nothing is retained on {topic:?}"),
            }
        }
        Command::Delete { filter, yes, json, remote } => {
            let api = Api::new(&remote, config)?;
            if !yes && !confirmed(&filter)? {
                bail!("nothing was removed");
            }
            let query = [("filter", filter)];
            let answer = api.send(Method::DELETE, &["retained"], &query, None::<&()>).await?;
            if json {
                return output::json(&answer);
            }
            output::text(&format!("{} removed\n", field(&answer, "removed")))
        }
    }
}

fn expires(message: &Value) -> String {
    let seconds = message["expires_in_seconds"].as_u64().map(std::time::Duration::from_secs);
    seconds.map(|left| humantime::format_duration(left).to_string()).unwrap_or_default()
}

/// The beginning of the payload, or what kind it is.
fn shown(message: &Value) -> String {
    if message["encoding"] != "utf-8" {
        return "(binary)".to_owned();
    }
    let text = field(message, "payload");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Asks a person; a script has to say `--yes`.
fn confirmed(filter: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to be asked; say --yes to remove what {filter:?} matches");
    }
    eprint!("Remove every retained message that {filter:?} matches? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_shows_the_beginning_of_a_text_and_nothing_of_bytes() {
        let text =
            json!({"encoding": "utf-8", "payload": "ä".repeat(61), "expires_in_seconds": 90});
        assert_eq!(shown(&text), format!("{}…", "ä".repeat(60)));
        assert_eq!(expires(&text), "1m 30s");
        let bytes = json!({"encoding": "base64", "payload": "AAE=", "expires_in_seconds": null});
        assert_eq!((shown(&bytes), expires(&bytes)), ("(binary)".to_owned(), String::new()));
    }
}
