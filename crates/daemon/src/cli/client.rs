//! `fuotad client …`.

use std::path::Path;

use clap::Subcommand;
use reqwest::Method;

use super::{
    api::{Api, Remote},
    output,
    table::{Table, field},
};

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List sessions, the persistent ones that are away included
    List {
        /// Only those whose client id begins with this
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
        /// Only those that are connected
        #[arg(long, conflicts_with = "away")]
        connected: bool,
        /// Only those that are away
        #[arg(long)]
        away: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show one session with its subscriptions, as JSON
    Show {
        /// Its client id
        id: String,
        /// Print JSON, as it does in any case
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// End a client's connection; a persistent session stays
    Disconnect {
        /// Its client id
        id: String,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Does it.
pub async fn run(command: Command, config: Option<&Path>) -> anyhow::Result<()> {
    match command {
        Command::List { prefix, connected, away, json, remote } => {
            let mut query: Vec<(&str, String)> = Vec::new();
            query.extend(prefix.map(|prefix| ("prefix", prefix)));
            if connected || away {
                query.push(("connected", connected.to_string()));
            }
            let clients = Api::new(&remote, config)?.list(&["clients"], &query).await?;
            if json {
                return output::json(&clients);
            }
            let mut table = Table::new(&[
                "ID",
                "CONNECTED",
                "NAME",
                "ROLE",
                "MQTT",
                "ADDRESS",
                "QUEUED",
                "IN FLIGHT",
                "SUBSCRIPTIONS",
            ]);
            for client in &clients {
                table.row(&[
                    field(client, "id"),
                    field(client, "connected"),
                    field(client, "name"),
                    field(client, "role"),
                    field(client, "protocol"),
                    field(client, "address"),
                    field(client, "queued_messages"),
                    field(client, "inflight"),
                    field(client, "subscription_count"),
                ]);
            }
            output::text(&table.render())
        }
        Command::Show { id, json: _, remote } => {
            output::json(&Api::new(&remote, config)?.get(&["clients", &id]).await?)
        }
        Command::Disconnect { id, remote } => {
            Api::new(&remote, config)?
                .send(Method::DELETE, &["clients", &id], &[], None::<&()>)
                .await?;
            Ok(())
        }
    }
}
