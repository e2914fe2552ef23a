//! `fuotad firmware …`.

use std::path::Path;

use clap::Subcommand;

use super::{
    api::{Api, Remote},
    output,
    table::{Table, field},
};

/// What to do with firmware.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List every dropped file, the refused and held ones with the reason
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Does it.
pub async fn run(command: Command, config: Option<&Path>) -> anyhow::Result<()> {
    let Command::List { json, remote } = command;
    let mut files = Api::new(&remote, config)?.list(&["firmware"], &[]).await?;
    if json {
        return output::json(&files);
    }
    files.sort_by_key(|file| field(file, "path"));
    let mut table = Table::new(&[
        "PATH", "STATE", "TITLE", "VERSION", "TARGET", "MODEL", "BYTES", "SHA-256", "REASON",
    ]);
    for file in &files {
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
    output::text(&table.render())
}
