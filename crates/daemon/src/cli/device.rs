//! `fuotad device …`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    api::{Api, ApiError, Remote},
    import, output,
    repeat::Repeat,
    secret_file,
    table::{Table, field, time},
    watch,
};

/// What to do with devices.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Register a device, and print the token that it logs in with
    Add {
        /// Its id: letters, digits and . _ : - (at most 128)
        id: String,
        /// File with the token that it has already, or - for the standard input; at least 128 bits
        #[arg(long, value_name = "FILE")]
        device_token_file: Option<PathBuf>,
        /// A group that it belongs to; repeatable
        #[arg(long = "group", value_name = "NAME")]
        groups: Vec<String>,
        /// A label; repeatable
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// Its model
        #[arg(long, value_name = "NAME")]
        model: Option<String>,
        /// Only say whether it could be registered
        #[arg(long, conflicts_with = "json")]
        dry_run: bool,
        #[command(flatten)]
        repeat: Repeat,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// List devices
    List {
        /// Only those that are connected
        #[arg(long, conflicts_with = "offline")]
        online: bool,
        /// Only those that are away
        #[arg(long)]
        offline: bool,
        /// Only those of this group
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        /// Only those of this model
        #[arg(long, value_name = "NAME")]
        model: Option<String>,
        /// Only those whose newest offer is in this state
        #[arg(long, value_name = "NAME")]
        state: Option<String>,
        /// Only those whose id contains this
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show one device, as JSON
    Show {
        /// Its id
        id: String,
        /// Follow its update until that has an outcome; fails unless it is a good one
        #[arg(long)]
        watch: bool,
        /// Print JSON, as it does in any case
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Say what a device should run, and why it is or is not offered it
    Why {
        /// Its id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show what happened to a device, the newest first
    Timeline {
        /// Its id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Change a device; what is not named stays
    Set {
        /// Its id
        id: String,
        /// All groups that it belongs to from now on; repeatable
        #[arg(long = "group", value_name = "NAME", conflicts_with = "no_groups")]
        groups: Vec<String>,
        /// It belongs to no group from now on
        #[arg(long)]
        no_groups: bool,
        /// All labels that it has from now on; repeatable
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label, conflicts_with = "no_labels")]
        labels: Vec<(String, String)>,
        /// It has no labels from now on
        #[arg(long)]
        no_labels: bool,
        /// Its model
        #[arg(long, value_name = "NAME", conflicts_with = "no_model")]
        model: Option<String>,
        /// Its model is not known from now on
        #[arg(long)]
        no_model: bool,
        /// Make a new token; the old one works until the new one has logged in
        #[arg(long)]
        rotate_token: bool,
        /// With --rotate-token: the old token ends at once
        #[arg(long, requires = "rotate_token")]
        now: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Forget a device with its token and history, and end its connections
    Remove {
        /// Its id
        id: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Register the devices of a CSV file once every row of it is found right, and print id and
    /// token of each that brings no token
    Import {
        /// Its first line names the columns: id, and any of token, model, groups (with spaces
        /// between), label.NAME
        file: PathBuf,
        /// Only say whether it would work
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        repeat: Repeat,
        #[command(flatten)]
        remote: Remote,
    },
    /// Change a device's token
    #[command(subcommand)]
    Token(TokenCommand),
}

/// What to do with a device's token.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a new token and print it; the old one works until the new one has logged in, or for a day
    Rotate {
        /// The device's id
        id: String,
        /// The old token ends at once, and so do the connections
        #[arg(long)]
        now: bool,
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
        Command::Add {
            id,
            device_token_file,
            groups,
            labels,
            model,
            dry_run,
            repeat,
            json,
            remote,
        } => {
            let api = Api::new(&remote, config)?;
            let mut body = json!({"id": id, "groups": groups, "labels": map(labels)});
            if let Some(path) = device_token_file {
                body["token"] = secret_file(&path, "the device's token")?.into();
            }
            if let Some(model) = model {
                body["model"] = model.into();
            }
            let query = [("dry_run", dry_run.to_string())];
            let headers = repeat.headers();
            let added =
                api.send_with(Method::POST, &["devices"], &query, &headers, Some(&body)).await?;
            if dry_run {
                return output::text("it would be registered\n");
            }
            if json {
                return output::json(&added);
            }
            output::text(&format!(
                "device  {}\ntoken   {}\n",
                field(&added, "id"),
                field(&added, "token")
            ))?;
            eprintln!("the token is shown only now");
            Ok(())
        }
        Command::List { online, offline, group, model, state, search, json, remote } => {
            let mut query = Vec::new();
            if online || offline {
                query.push(("online", online.to_string()));
            }
            for (name, value) in
                [("group", group), ("model", model), ("state", state), ("search", search)]
            {
                query.extend(value.map(|value| (name, value)));
            }
            let devices = Api::new(&remote, config)?.list(&["devices"], &query).await?;
            if json { output::json(&devices) } else { output::text(&table(&devices)) }
        }
        Command::Show { id, watch: true, json: _, remote } => {
            watch::device(&Api::new(&remote, config)?, &id).await
        }
        Command::Show { id, remote, .. } => {
            output::json(&Api::new(&remote, config)?.get(&["devices", &id]).await?)
        }
        Command::Why { id, json, remote } => {
            let why = Api::new(&remote, config)?.get(&["devices", &id, "why"]).await?;
            if json {
                return output::json(&why);
            }
            output::text(&format!("{}\n", output::safe(&field(&why, "sentence"))))
        }
        Command::Timeline { id, json, remote } => {
            let lines = Api::new(&remote, config)?.list(&["devices", &id, "timeline"], &[]).await?;
            if json { output::json(&lines) } else { output::text(&timeline(&lines)) }
        }
        Command::Set {
            id,
            groups,
            no_groups,
            labels,
            no_labels,
            model,
            no_model,
            rotate_token,
            now,
            json,
            remote,
        } => {
            let api = Api::new(&remote, config)?;
            let mut patch = Map::new();
            if no_groups || !groups.is_empty() {
                patch.insert("groups".into(), groups.into());
            }
            if no_labels || !labels.is_empty() {
                patch.insert("labels".into(), json!(map(labels)));
            }
            if no_model || model.is_some() {
                patch.insert("model".into(), model.unwrap_or_default().into());
            }
            if rotate_token {
                patch.insert("rotate_token".into(), true.into());
                patch.insert("now".into(), now.into());
            }
            if patch.is_empty() {
                let nothing = "nothing to change is named; see `fuotad device set --help`";
                return Err(ApiError::Usage(nothing.into()).into());
            }
            let changed = api.send(Method::PATCH, &["devices", &id], &[], Some(&patch)).await?;
            show(&changed, json)
        }
        Command::Remove { id, remote } => {
            let api = Api::new(&remote, config)?;
            api.send(Method::DELETE, &["devices", &id], &[], None::<&()>).await?;
            Ok(())
        }
        Command::Import { file, dry_run, repeat, remote } => {
            import::run(&Api::new(&remote, config)?, &file, dry_run, repeat).await
        }
        Command::Token(TokenCommand::Rotate { id, now, json, remote }) => {
            let patch = json!({"rotate_token": true, "now": now});
            let api = Api::new(&remote, config)?;
            show(&api.send(Method::PATCH, &["devices", &id], &[], Some(&patch)).await?, json)
        }
    }
}

/// A device after a change, and its token where that is new.
fn show(changed: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(changed);
    }
    output::text(&table(std::slice::from_ref(changed)))?;
    let token = field(changed, "token");
    if !token.is_empty() {
        output::text(&format!("token   {token}\n"))?;
        eprintln!("the token is shown only now");
    }
    Ok(())
}

fn table(devices: &[Value]) -> String {
    let mut table = Table::new(&[
        "ID", "ONLINE", "VERSION", "STATE", "BLOCKS", "OFFERED", "MODEL", "GROUPS", "REASON",
    ]);
    for device in devices {
        let total = field(device, "progress/chunks_total");
        let blocks = match total.as_str() {
            "" | "0" => String::new(),
            total => format!("{}/{total}", field(device, "progress/chunks_sent")),
        };
        table.row(&[
            field(device, "id"),
            field(device, "online"),
            field(device, "version"),
            field(device, "state"),
            blocks,
            field(device, "firmware/version"),
            field(device, "model"),
            field(device, "groups"),
            field(device, "reason"),
        ]);
    }
    table.render()
}

fn timeline(lines: &[Value]) -> String {
    let mut table = Table::new(&["AT", "WHAT", "DEPLOYMENT", "DETAIL"]);
    for line in lines {
        table.row(&[
            time(line, "at"),
            field(line, "action"),
            field(line, "deployment"),
            field(line, "detail"),
        ]);
    }
    table.render()
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

fn map(labels: Vec<(String, String)>) -> BTreeMap<String, String> {
    labels.into_iter().collect()
}
