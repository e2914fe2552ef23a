//! `fuotad user …`.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    api::{Api, Remote},
    output, secret_file,
    table::{Table, field},
};

/// What a user may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Role {
    /// A device that logs in with a password; its id is the user's name
    Device,
    /// A program that reads and writes messages
    Service,
    /// A person who runs updates
    Operator,
    /// A person who may do everything
    Admin,
}

impl Role {
    /// Its name, as the daemon has it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Device => "device",
            Role::Service => "service",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

/// What to do with users.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a user, and print its password where none is given
    Add {
        /// Its name: letters, digits and . _ : - (at most 128)
        name: String,
        /// What it may do
        #[arg(long, value_name = "ROLE")]
        role: Role,
        /// File with its password, or - for the standard input; at least 8 bytes
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// List users
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Change a user, and end its connections; what is not named stays
    Set {
        /// Its name
        name: String,
        /// What it may do from now on
        #[arg(long, value_name = "ROLE")]
        role: Option<Role>,
        /// File with its password from now on, or - for the standard input
        #[arg(long, value_name = "FILE", conflicts_with = "new_password")]
        password_file: Option<PathBuf>,
        /// Make a new password and print it
        #[arg(long)]
        new_password: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Remove a user, and end its connections
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Does it.
pub async fn run(command: Command, config: Option<&Path>) -> anyhow::Result<()> {
    match command {
        Command::Add { name, role, password_file, json, remote } => {
            let api = Api::new(&remote, config)?;
            let mut body = json!({"name": name, "role": role.name()});
            if let Some(path) = password_file {
                body["password"] = secret_file(&path, "the user's password")?.into();
            }
            show(&api.send(Method::POST, &["users"], &[], Some(&body)).await?, json)
        }
        Command::List { json, remote } => {
            let users = Api::new(&remote, config)?.list(&["users"], &[]).await?;
            if json { output::json(&users) } else { output::text(&table(&users)) }
        }
        Command::Set { name, role, password_file, new_password, json, remote } => {
            let api = Api::new(&remote, config)?;
            let mut patch = Map::new();
            if let Some(role) = role {
                patch.insert("role".into(), role.name().into());
            }
            if let Some(path) = password_file {
                let password = secret_file(&path, "the user's password")?;
                patch.insert("password".into(), password.into());
            }
            if new_password {
                patch.insert("new_password".into(), true.into());
            }
            anyhow::ensure!(
                !patch.is_empty(),
                "nothing to change is named; see `fuotad user set --help`"
            );
            show(&api.send(Method::PATCH, &["users", &name], &[], Some(&patch)).await?, json)
        }
        Command::Remove { name, remote } => {
            let api = Api::new(&remote, config)?;
            api.send(Method::DELETE, &["users", &name], &[], None::<&()>).await?;
            Ok(())
        }
    }
}

/// A user, and its password where the daemon made one.
fn show(user: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(user);
    }
    output::text(&format!(
        "user      {}\nrole      {}\n",
        field(user, "name"),
        field(user, "role")
    ))?;
    let password = field(user, "password");
    if !password.is_empty() {
        output::text(&format!("password  {password}\n"))?;
        eprintln!("the password is shown only now");
    }
    Ok(())
}

fn table(users: &[Value]) -> String {
    let mut table = Table::new(&["NAME", "ROLE"]);
    for user in users {
        table.row(&[field(user, "name"), field(user, "role")]);
    }
    table.render()
}
