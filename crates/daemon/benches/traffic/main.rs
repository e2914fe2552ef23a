//! What ordinary messages and connections cost: `fuotad` beside mosquitto and stock rumqttd, in the
//! same run.
//!
//! `cargo bench -p fuotad --bench traffic` runs all sections; `docs/performance.md` says what is
//! measured, why, and how to read it.
//!
//! | module | subject |
//! | --- | --- |
//! | [`saturation`], [`low`] | messages: as many as go, and a few |
//! | [`kept`] | messages that survive the process |
//! | [`idle`], [`connects`], [`crowd`] | connections: their memory, their rate, their number |
//! | [`topics`] | topics that nobody published on before |
//! | [`peers`] | the servers and their configuration |
//! | [`rig`], [`client`], [`message`], [`tls`] | the load |
//! | [`report`] | bounds |

mod client;
mod connects;
mod crowd;
mod idle;
mod kept;
mod low;
mod message;
mod peers;
mod report;
mod rig;
mod saturation;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod topics;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::peers::Peers;
use crate::report::Verdicts;
use crate::support::{figures, process};

/// A part of the run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// As many messages as the server takes
    Saturation,
    /// The price of messages that survive the process
    Kept,
    /// 2,000 messages a second
    Low,
    /// Memory of idle connections
    Idle,
    /// Connects per second
    Connects,
    /// As many connections as files
    Crowd,
    /// Topics never seen before
    Topics,
}

/// Measures fuotad beside mosquitto and stock rumqttd.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// A short run, to see that all works rather than to have figures
    #[arg(long)]
    quick: bool,

    /// Exit with 1 where a bound is exceeded, or a peer is missing
    #[arg(long)]
    check: bool,

    /// Only this section; repeatable
    #[arg(long = "section", value_enum)]
    sections: Vec<Section>,

    /// Only the rows of saturation and low whose name holds this, such as "pairs QoS 1"
    #[arg(long, value_name = "TEXT")]
    row: Option<String>,

    /// Seconds that each server is driven in each round
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,

    /// Rounds, in which the servers take turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Idle devices
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    devices: usize,

    /// mosquitto, where it is not in the search path
    #[arg(long, env = "MOSQUITTO", value_name = "PATH")]
    mosquitto: Option<PathBuf>,

    /// Stock rumqttd 0.20.0, where it is neither in the search path nor in target/peers
    #[arg(long, env = "RUMQTTD", value_name = "PATH")]
    rumqttd: Option<PathBuf>,

    /// Leave the peers out
    #[arg(long)]
    alone: bool,

    /// Hold connections to this address
    #[arg(long, hide = true, requires_all = ["hold_from", "hold_count"])]
    hold: Option<SocketAddr>,

    #[arg(long, hide = true)]
    hold_from: Option<usize>,

    #[arg(long, hide = true)]
    hold_count: Option<usize>,

    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long is measured.
struct Plan {
    /// In each, all servers are driven, one after the other.
    rounds: usize,
    round: Duration,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let (Some(address), Some(from), Some(count)) =
        (arguments.hold, arguments.hold_from, arguments.hold_count)
    {
        return runtime.block_on(crowd::hold(address, from, count));
    }
    if !arguments.bench {
        println!("a benchmark: run it by `cargo bench -p fuotad --bench traffic`");
        return Ok(());
    }
    let within = runtime.block_on(compare(&arguments))?;
    if arguments.check && !within {
        std::process::exit(1);
    }
    Ok(())
}

/// The whole run; whether all bounds are kept.
async fn compare(arguments: &Arguments) -> anyhow::Result<bool> {
    let files = process::raise_file_limit()?;
    println!("{}", figures::machine());
    let peers = if arguments.alone {
        Peers { mosquitto: None, rumqttd: None }
    } else {
        Peers::find(arguments.mosquitto.clone(), arguments.rumqttd.clone())
    };
    peers.describe().await;
    let plan = if arguments.quick {
        Plan { rounds: 1, round: Duration::from_millis(300) }
    } else {
        Plan {
            rounds: arguments.rounds.max(1),
            round: Duration::try_from_secs_f64(arguments.seconds)?,
        }
    };
    let row = arguments.row.as_deref();
    let wanted = |section| arguments.sections.is_empty() || arguments.sections.contains(&section);
    let mut verdicts = Verdicts::default();
    if wanted(Section::Saturation) {
        saturation::run(&peers, &plan, row, &mut verdicts).await?;
    }
    if wanted(Section::Kept) {
        kept::run(&peers, &plan, &mut verdicts).await?;
    }
    if wanted(Section::Low) {
        low::run(&peers, &plan, row, &mut verdicts).await?;
    }
    if wanted(Section::Idle) {
        let devices = if arguments.quick { 500 } else { arguments.devices };
        idle::run(&peers, devices, &mut verdicts).await?;
    }
    if wanted(Section::Connects) {
        connects::run(&peers, &plan, &mut verdicts).await?;
    }
    if wanted(Section::Crowd) {
        let at_most = if arguments.quick { 1_000 } else { 100_000 };
        crowd::run(files, at_most, &mut verdicts).await?;
    }
    if wanted(Section::Topics) {
        topics::run(&peers, &plan, &mut verdicts).await?;
    }
    Ok(verdicts.conclude())
}
