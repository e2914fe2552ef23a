//! `fuotad firmware …`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use reqwest::{
    Method,
    multipart::{Form, Part},
};
use serde_json::Value;

use super::{
    api::{Api, Remote},
    output,
    repeat::Repeat,
    table::{Table, field},
};

/// What to do with firmware.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List every file, the refused and held ones with the reason
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show one file, as JSON
    Show {
        /// Its id or its path
        firmware: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Upload an image; nobody gets it before `fuotad deployment create`
    Upload {
        /// The image; its name gives title and version where they are not named
        file: PathBuf,
        /// Its title
        #[arg(long, value_name = "NAME")]
        title: Option<String>,
        /// Its version
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        /// The model that it is for
        #[arg(long, value_name = "NAME")]
        model: Option<String>,
        /// Notes for people
        #[arg(long, value_name = "TEXT")]
        notes: Option<String>,
        #[command(flatten)]
        repeat: Repeat,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Withdraw firmware for good: its bytes are never offered again, and what runs ends
    Withdraw {
        /// Its id or its path
        firmware: String,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Does it.
pub async fn run(command: Command, config: Option<&Path>) -> anyhow::Result<()> {
    match command {
        Command::List { json, remote } => {
            let mut files = Api::new(&remote, config)?.list(&["firmware"], &[]).await?;
            if json {
                return output::json(&files);
            }
            files.sort_by_key(|file| field(file, "path"));
            output::text(&table(&files))
        }
        Command::Show { firmware, remote } => {
            let api = Api::new(&remote, config)?;
            let id = find(&api, &firmware).await?;
            output::json(&api.get(&["firmware", &id]).await?)
        }
        Command::Upload { file, title, version, model, notes, repeat, json, remote } => {
            let api = Api::new(&remote, config)?.patient();
            let image = Part::file(&file)
                .await
                .with_context(|| format!("{} cannot be read", file.display()))?;
            let mut form = Form::new();
            for (name, value) in
                [("name", title), ("version", version), ("model", model), ("notes", notes)]
            {
                if let Some(value) = value {
                    form = form.text(name, value);
                }
            }
            let form = form.part("file", image);
            let uploaded = api.upload(&["firmware"], &repeat.headers(), form).await?;
            if json {
                return output::json(&uploaded);
            }
            output::text(&table(std::slice::from_ref(&uploaded)))
        }
        Command::Withdraw { firmware, remote } => {
            let api = Api::new(&remote, config)?;
            let id = find(&api, &firmware).await?;
            api.send(Method::DELETE, &["firmware", &id], &[], None::<&()>).await?;
            Ok(())
        }
    }
}

/// The id of the firmware of this id or path.
pub async fn find(api: &Api, name: &str) -> anyhow::Result<String> {
    let files = api.list(&["firmware"], &[]).await?;
    // A file that was replaced is listed beside the one that replaced it.
    let there = |file: &&Value| field(file, "state") != "replaced";
    let mut found: Vec<_> = files.iter().filter(there).collect();
    found.retain(|file| field(file, "id") == name || field(file, "path") == name);
    match found[..] {
        [file] => Ok(field(file, "id")),
        _ => anyhow::bail!("there is no firmware {name:?}; see `fuotad firmware list`"),
    }
}

fn table(files: &[Value]) -> String {
    let mut table = Table::new(&[
        "PATH", "STATE", "TITLE", "VERSION", "TARGET", "MODEL", "BYTES", "SHA-256", "REASON",
    ]);
    for file in files {
        let digest: String = field(file, "digest").chars().take(12).collect();
        table.row(&[
            field(file, "path"),
            field(file, "state"),
            field(file, "title/value"),
            field(file, "version/value"),
            field(file, "target"),
            field(file, "model/value"),
            field(file, "size"),
            digest,
            field(file, "reason"),
        ]);
    }
    table.render()
}
