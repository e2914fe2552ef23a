//! `fuotad simulate`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::ValueEnum;
use simulator::{Credential, Dialect, Digest, Faults, Options, Progress, Protocol, TrustedKey};
use tokio_util::sync::CancellationToken;

use super::{exit, output};
use crate::config::Config;

/// What the devices are and what goes wrong with them.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// How many devices
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// Address of the broker [default: the first of mqtt.listen in the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    broker: Option<String>,
    /// Client ids are this and a running number
    #[arg(long, value_name = "TEXT", default_value = "sim-")]
    id_prefix: String,
    /// Connect with an empty client id, as the usual reference device does
    #[arg(long)]
    empty_client_id: bool,
    /// File with a line TOKEN or ID,TOKEN for each device
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// MQTT version
    #[arg(long, value_enum, default_value_t = Version::V311)]
    protocol: Version,
    /// What the devices speak
    #[arg(long, value_enum, default_value_t = Speak::Reference)]
    dialect: Speak,
    /// Bytes of the blocks that devices of the native dialect ask for
    #[arg(long, value_name = "N", default_value_t = 4096)]
    block_size: u16,
    /// Model that the devices name
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Pause between a block and the next request; the reference device waits 100ms
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    pace: Duration,
    /// Requests in flight, 1 to 64, in the native dialect to 4096
    #[arg(long, value_name = "N", default_value_t = 1)]
    window: u16,
    /// How long a device waits for a block before it asks again
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    retry_after: Duration,
    /// How often one block is asked for again
    #[arg(long, value_name = "N", default_value_t = 10)]
    max_retries: u32,
    /// Behave exactly as the reference device, which asks for nothing twice
    #[arg(long)]
    strict_reference: bool,
    /// Keep what is there over a reboot, and over a manifest of the same image
    #[arg(long, conflicts_with = "strict_reference")]
    resume: bool,
    /// Probability, 0 to 1, that a request or a block is lost
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    loss: f64,
    /// Probability, 0 to 1, that a request or a block comes twice
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    duplicates: f64,
    /// Drop the connection after each so many blocks; 0: never
    #[arg(long, value_name = "N", default_value_t = 0)]
    reconnect_every: u32,
    /// How often each device reboots in mid-download
    #[arg(long, value_name = "N", default_value_t = 0)]
    reboots: u32,
    /// A device that reboots is gone for a random time up to this
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    down: Duration,
    /// Seed of what goes wrong [default: a random one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Digest that the image must have, as sha256sum prints it
    #[arg(long, value_name = "HEX")]
    expect_sha256: Option<Digest>,
    /// Public key of minisign: the image must be signed by it (native dialect only)
    #[arg(long, value_name = "FILE")]
    trusted_key: Option<PathBuf>,
    /// Write each device's image into this directory
    #[arg(long, value_name = "DIRECTORY")]
    image_dir: Option<PathBuf>,
    /// Report the version when the image is complete
    #[arg(long)]
    report: bool,
    /// How long a device stays connected when its image is complete
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    linger: Duration,
    /// How long the run may take
    #[arg(long, value_name = "DURATION", default_value = "10min", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Devices that connect at the same time
    #[arg(long, value_name = "N", default_value_t = 64)]
    connecting: usize,
    /// How progress is shown, on the standard error stream
    #[arg(long, value_enum, default_value_t = Show::Auto)]
    progress: Show,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// MQTT version.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Version {
    /// MQTT 3.1.1
    #[value(name = "3.1.1")]
    V311,
    /// MQTT 5
    #[value(name = "5")]
    V5,
}

/// What the devices speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Speak {
    /// JSON on tago/data/post
    Reference,
    /// The binary dialect
    Native,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Show {
    /// Bars on a terminal, otherwise lines
    Auto,
    /// Bars
    Bars,
    /// Lines
    Lines,
    /// Nothing
    Silent,
}

/// Runs the devices and prints the summary; fails unless all of them got the image.
pub async fn run(args: Args, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let json = args.json;
    let options = options(args, config)?;
    let cancel = CancellationToken::new();
    let interrupted = cancel.clone();
    tokio::spawn(async move {
        // The summary of what was done so far is still worth printing.
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    let summary = simulator::run(options, cancel).await?;
    if json {
        output::json(&summary)?;
    } else {
        output::text(&summary.to_string())?;
    }
    Ok(if summary.all_ok() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILURE) })
}

fn options(args: Args, config: Option<&Path>) -> anyhow::Result<Options> {
    let broker = match args.broker {
        Some(broker) => broker,
        None => {
            let config = Config::load(config)?;
            config
                .mqtt
                .listen
                .first()
                .map(ToString::to_string)
                .context("give --broker HOST:PORT")?
        }
    };
    let credentials = match &args.tokens {
        None => Vec::new(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| error.to_string())
            .and_then(|text| Credential::parse_lines(&text))
            .map_err(|reason| anyhow::anyhow!("{}: {reason}", path.display()))?,
    };
    let trusted_key = match &args.trusted_key {
        None => None,
        Some(_) if args.dialect == Speak::Reference => {
            anyhow::bail!(
                "--trusted-key needs --dialect native: no other dialect tells of signatures"
            )
        }
        Some(path) => Some(
            std::fs::read_to_string(path)
                .map_err(|error| error.to_string())
                .and_then(|text| text.parse::<TrustedKey>().map_err(|error| error.to_string()))
                .map_err(|reason| anyhow::anyhow!("{}: {reason}", path.display()))?,
        ),
    };
    Ok(Options {
        broker,
        devices: args.devices,
        id_prefix: args.id_prefix,
        empty_client_id: args.empty_client_id,
        credentials,
        protocol: match args.protocol {
            Version::V311 => Protocol::V311,
            Version::V5 => Protocol::V5,
        },
        dialect: match args.dialect {
            Speak::Reference => Dialect::Reference,
            Speak::Native => Dialect::Native,
        },
        block_size: args.block_size,
        model: args.model,
        pace: args.pace,
        window: args.window,
        retry_after: args.retry_after,
        max_retries: args.max_retries,
        strict_reference: args.strict_reference,
        resume: args.resume,
        faults: Faults {
            loss: args.loss,
            duplicates: args.duplicates,
            reconnect_every: args.reconnect_every,
            reboots: args.reboots,
            down: args.down,
        },
        seed: args.seed,
        expect_sha256: args.expect_sha256,
        trusted_key,
        image_dir: args.image_dir,
        report: args.report,
        linger: args.linger,
        timeout: args.timeout,
        connecting: args.connecting,
        progress: match args.progress {
            Show::Auto => Progress::Auto,
            Show::Bars => Progress::Bars,
            Show::Lines => Progress::Lines,
            Show::Silent => Progress::Silent,
        },
        ..Options::default()
    })
}
