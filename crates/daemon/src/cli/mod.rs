//! The command line. Results go to the standard output, everything else to the standard error
//! stream, and the exit code says what happened (see [`exit`]).

mod api;
mod audit;
mod backup;
mod check_config;
mod client;
mod csv;
mod deployment;
mod device;
mod doctor;
mod events;
mod firmware;
mod freeze;
mod import;
mod mosquitto;
mod output;
mod repeat;
mod retained;
mod signing;
mod simulate;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod user;
mod watch;

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::{config::Config, serve};
use api::ApiError;

/// What an exit code means.
pub mod exit {
    /// What was asked for failed, or the answer to the question is no.
    pub const FAILURE: u8 = 1;
    /// The command line makes no sense; clap ends with it too.
    pub const USAGE: u8 = 2;
    /// Nobody answers at the address of the admin interface.
    pub const UNREACHABLE: u8 = 3;
    /// The daemon does not accept the admin token, or there is none to show.
    pub const UNAUTHORIZED: u8 = 4;
}

/// MQTT broker with firmware updates built in.
///
/// Without a command it serves. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the daemon does
/// not answer, 4 the daemon does not accept the admin token.
#[derive(Debug, Parser)]
#[command(name = "fuotad", version)]
pub struct Cli {
    /// Configuration file [default: broker.toml in the working directory, where there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker until SIGINT or SIGTERM
    Serve,
    /// Check the configuration, and show every setting with its source
    CheckConfig(check_config::Args),
    /// Look at configuration, certificates, clock, disk, limits and store, and say what to do; fails
    /// where something is a problem
    Doctor(doctor::Args),
    /// Run simulated devices against a broker; fails unless all of them got the image
    Simulate(Box<simulate::Args>),
    /// Register, list, change and remove devices
    #[command(subcommand)]
    Device(device::Command),
    /// Add, list, change and remove users
    #[command(subcommand)]
    User(user::Command),
    /// Take over what another broker has
    #[command(subcommand)]
    Import(ImportCommand),
    /// Dropped and uploaded firmware, and why some of it is not offered
    #[command(subcommand)]
    Firmware(firmware::Command),
    /// Firmware for devices: make, watch, pause, cancel, roll back
    #[command(subcommand)]
    Deployment(Box<deployment::Command>),
    /// Stop all offers of the site at once; what runs finishes
    Freeze(freeze::Args),
    /// Let offers go on
    Unfreeze(freeze::Args),
    /// Who did what to what, when, from where
    Audit(audit::Args),
    /// Every change as it happens
    Events(events::Args),
    /// The description of the admin interface: OpenAPI, as JSON
    Openapi(OpenapiArgs),
    /// Sessions of the broker
    #[command(subcommand)]
    Client(client::Command),
    /// Retained messages of the broker
    #[command(subcommand)]
    Retained(retained::Command),
    /// The daemon at a glance
    Status(status::Args),
    /// Copy database, sessions, retained messages and images at one moment, while the daemon runs
    Backup(backup::Args),
}

#[derive(clap::Args, Debug)]
struct OpenapiArgs {
    #[command(flatten)]
    remote: api::Remote,
}

#[derive(Debug, Subcommand)]
enum ImportCommand {
    /// Add the users of mosquitto, with their passwords, all or none; and print its access rules
    /// as lines of auth.rules
    Mosquitto(Box<mosquitto::Args>),
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fuotad: {}", one_line(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = cli.config.as_deref();
    match cli.command {
        None | Some(Command::Serve) => serve::run(Config::load(config)?)?,
        Some(Command::CheckConfig(args)) => return check_config::run(&args, config),
        Some(Command::Doctor(args)) => {
            return client_runtime()?.block_on(doctor::run(&args, config));
        }
        Some(Command::Simulate(args)) => {
            return client_runtime()?.block_on(simulate::run(*args, config));
        }
        Some(Command::Device(command)) => {
            client_runtime()?.block_on(device::run(command, config))?
        }
        Some(Command::User(command)) => client_runtime()?.block_on(user::run(command, config))?,
        Some(Command::Import(ImportCommand::Mosquitto(args))) => {
            client_runtime()?.block_on(mosquitto::run(*args, config))?
        }
        Some(Command::Firmware(command)) => {
            client_runtime()?.block_on(firmware::run(command, config))?
        }
        Some(Command::Deployment(command)) => {
            client_runtime()?.block_on(deployment::run(*command, config))?
        }
        Some(Command::Freeze(args)) => {
            client_runtime()?.block_on(freeze::run(&args, true, config))?
        }
        Some(Command::Unfreeze(args)) => {
            client_runtime()?.block_on(freeze::run(&args, false, config))?
        }
        Some(Command::Client(command)) => {
            client_runtime()?.block_on(client::run(command, config))?
        }
        Some(Command::Retained(command)) => {
            client_runtime()?.block_on(retained::run(command, config))?
        }
        Some(Command::Audit(args)) => client_runtime()?.block_on(audit::run(&args, config))?,
        Some(Command::Events(args)) => client_runtime()?.block_on(events::run(&args, config))?,
        Some(Command::Openapi(args)) => client_runtime()?.block_on(async {
            output::json(&api::Api::new(&args.remote, config)?.get(&["openapi.json"]).await?)
        })?,
        Some(Command::Status(args)) => client_runtime()?.block_on(status::run(&args, config))?,
        Some(Command::Backup(args)) => client_runtime()?.block_on(backup::run(&args, config))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn client_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// The secret in a file, or `-` for the standard input: on the command line it would stand in
/// everybody's list of processes.
fn secret_file(path: &Path, what: &str) -> anyhow::Result<String> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.with_context(|| format!("{what} in {} cannot be read", path.display()))?;
    Ok(text.trim().to_owned())
}

/// The whole chain of causes, without line breaks.
fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<ApiError>() {
        Some(ApiError::Unreachable { .. }) => exit::UNREACHABLE,
        Some(ApiError::Unauthorized(_)) => exit::UNAUTHORIZED,
        Some(ApiError::Usage(_)) => exit::USAGE,
        Some(_) | None => exit::FAILURE,
    }
}
