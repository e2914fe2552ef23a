//! `fuotad user …`.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    api::{Api, ApiError, Remote},
    output,
    repeat::Repeat,
    secret_file,
    table::{Table, field, time},
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
        /// File with its password, or - for the standard input; at least 8 characters
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        repeat: Repeat,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show one user, as JSON
    Show {
        /// Its name
        name: String,
        /// Print JSON, as it does in any case
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
    /// Remove a user with its tokens, and end its connections
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Tokens with which scripts use the admin interface in a user's name
    #[command(subcommand)]
    Token(TokenCommand),
}

/// What to do with a user's tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it; it may do what the user may
    Create {
        /// The user's name
        name: String,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        label: String,
        /// After how many days it ends [default: never]
        #[arg(long, value_name = "DAYS")]
        expires_in_days: Option<u32>,
        #[command(flatten)]
        repeat: Repeat,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// List the tokens of a user, without the tokens themselves
    List {
        /// The user's name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Revoke a token: it opens nothing any more
    Revoke {
        /// The user's name
        name: String,
        /// The token's id, as `fuotad user token list` shows it
        id: String,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Does it.
pub async fn run(command: Command, config: Option<&Path>) -> anyhow::Result<()> {
    match command {
        Command::Add { name, role, password_file, repeat, json, remote } => {
            let api = Api::new(&remote, config)?;
            let mut body = json!({"name": name, "role": role.name()});
            if let Some(path) = password_file {
                body["password"] = secret_file(&path, "the user's password")?.into();
            }
            let headers = repeat.headers();
            show(&api.send_with(Method::POST, &["users"], &[], &headers, Some(&body)).await?, json)
        }
        Command::Show { name, json: _, remote } => {
            output::json(&Api::new(&remote, config)?.get(&["users", &name]).await?)
        }
        Command::Token(command) => token(command, config).await,
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
            if patch.is_empty() {
                let nothing = "nothing to change is named; see `fuotad user set --help`";
                return Err(ApiError::Usage(nothing.into()).into());
            }
            show(&api.send(Method::PATCH, &["users", &name], &[], Some(&patch)).await?, json)
        }
        Command::Remove { name, remote } => {
            let api = Api::new(&remote, config)?;
            api.send(Method::DELETE, &["users", &name], &[], None::<&()>).await?;
            Ok(())
        }
    }
}

async fn token(command: TokenCommand, config: Option<&Path>) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create { name, label, expires_in_days, repeat, json, remote } => {
            let api = Api::new(&remote, config)?;
            let body = json!({"label": label, "expires_in_days": expires_in_days});
            let (path, headers) = (["users", &name, "tokens"], repeat.headers());
            let made = api.send_with(Method::POST, &path, &[], &headers, Some(&body)).await?;
            if json {
                return output::json(&made);
            }
            output::text(&format!(
                "id     {}\ntoken  {}\n",
                field(&made, "id"),
                field(&made, "token")
            ))?;
            eprintln!("the token is shown only now");
            Ok(())
        }
        TokenCommand::List { name, json, remote } => {
            let api = Api::new(&remote, config)?;
            let tokens = api.list(&["users", &name, "tokens"], &[]).await?;
            if json {
                return output::json(&tokens);
            }
            let mut table = Table::new(&["ID", "LABEL", "CREATED", "EXPIRES", "LAST USED"]);
            for token in &tokens {
                table.row(&[
                    field(token, "id"),
                    field(token, "label"),
                    time(token, "created"),
                    time(token, "expires"),
                    time(token, "last_used"),
                ]);
            }
            output::text(&table.render())
        }
        TokenCommand::Revoke { name, id, remote } => {
            let api = Api::new(&remote, config)?;
            let path = ["users", &name, "tokens", &id];
            api.send(Method::DELETE, &path, &[], None::<&()>).await?;
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
