//! What a block costs: `fuotad` beside the floor, in the same run.
//!
//! `cargo bench --bench blocks` prints, for several numbers of devices and requests in flight, the
//! server's CPU per block, blocks per second and latencies, then how memory grows.
//! `docs/performance.md` says what is measured, why, and how to read it.
//!
//! - `floor` is the cheapest server imaginable, which `fuotad` is compared with.
//! - `servers` starts both as processes; `support` reads their CPU and memory, and writes and reads
//!   the devices' MQTT by hand.
//! - `device` is a device, `speech` what it says in each dialect; `fetcher` is one of HTTP.
//! - `measure` drives devices and takes the figures; `report` prints and judges them.

mod device;
mod fetcher;
mod floor;
mod measure;
mod report;
mod servers;
mod speech;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use crate::measure::{Cell, Plan};
use crate::servers::Server;
use crate::speech::Dialect;
use crate::support::firmware::Image;
use crate::support::process;

/// Blocks of firmware in the image. Each device asks for each of them at most once, as a device in
/// the field does; then its place is taken by a new device. 32 MiB fit into the default cache, and
/// 10,000 blocks are more than the whole image, so that memory is compared with a warm cache.
const BLOCKS: u32 = 8192;
const CHUNK: usize = 4096;

/// Measures fuotad beside a floor: a bare TCP server that answers with ready frames.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// A short run, to see that all works rather than to have figures
    #[arg(long)]
    quick: bool,

    /// Exit with 1 where a bound is exceeded
    #[arg(long)]
    check: bool,

    /// Seconds that each server is driven in each round
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,

    /// Rounds, in which the two servers take turns
    #[arg(long, default_value_t = 15)]
    rounds: usize,

    /// Blocks of the second look at memory
    #[arg(long, default_value_t = 1_000_000)]
    memory_blocks: u64,

    /// Only the cells of this many devices
    #[arg(long, value_name = "N")]
    devices: Option<usize>,

    /// Leave the other dialects out
    #[arg(long)]
    no_dialects: bool,

    /// Only this dialect beside the reference, and nothing else
    #[arg(long, value_enum, value_name = "NAME", conflicts_with = "no_dialects")]
    dialect: Option<Dialect>,

    /// Leave memory out
    #[arg(long)]
    no_memory: bool,

    /// Compare the floor with itself: what differs then is noise
    #[arg(long)]
    floor_only: bool,

    /// Be the floor, at this address
    #[arg(long, hide = true, requires = "frame")]
    floor: Option<SocketAddr>,

    /// Bytes of a frame of the floor
    #[arg(long, hide = true)]
    frame: Option<usize>,

    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let (Some(address), Some(frame)) = (arguments.floor, arguments.frame) {
        return runtime.block_on(floor::serve(address, frame));
    }
    if !arguments.bench {
        println!("a benchmark: run it by `cargo bench --bench blocks`");
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
    process::raise_file_limit()?;
    let image = Arc::new(Image::random(BLOCKS, CHUNK)?);
    let (server, frame) = if arguments.floor_only {
        (Server::floor(floor::TYPICAL_FRAME, &image).await?, floor::TYPICAL_FRAME)
    } else {
        let server = Server::fuotad(&image).await?;
        let frame = device::block_size(&server).await?;
        (server, frame)
    };
    let server = Arc::new(server);
    let floor = Arc::new(Server::floor(frame, &image).await?);

    let plan = if arguments.quick {
        Plan { rounds: 2, round: Duration::from_millis(200) }
    } else {
        Plan {
            rounds: arguments.rounds.max(1),
            round: Duration::try_from_secs_f64(arguments.seconds)?,
        }
    };
    report::head(server.process.name, frame, &plan);
    if arguments.dialect.is_some() {
        return dialects(&server, arguments, &plan).await;
    }
    let mut within = true;
    for cell in Cell::ALL {
        if arguments.devices.is_some_and(|only| only != cell.devices) {
            continue;
        }
        let figures = measure::cell(cell, [&server, &floor], &plan).await?;
        within &= report::cell(cell, &figures);
    }
    drop(floor);
    if !arguments.no_dialects && !arguments.floor_only {
        within &= dialects(&server, arguments, &plan).await?;
    }
    drop(server);

    if !arguments.no_memory && !arguments.floor_only {
        let blocks = if arguments.quick { 100_000 } else { arguments.memory_blocks };
        // A fresh server: what a thousand connections left behind is no matter of blocks.
        let server = Arc::new(Server::fuotad(&image).await?);
        let memory = measure::memory(&server, blocks).await?;
        within &= report::memory(&memory);
    }
    Ok(within)
}

/// What a block costs in each dialect, beside the reference's.
async fn dialects(
    server: &Arc<Server>,
    arguments: &Arguments,
    plan: &Plan,
) -> anyhow::Result<bool> {
    let mut within = true;
    let compared: Vec<_> = match arguments.dialect {
        Some(dialect) => vec![Dialect::Reference, dialect],
        None => Dialect::ALL.to_vec(),
    };
    let cells = Cell::ALL.into_iter().filter(|cell| cell.devices == 50);
    for cell in cells.filter(|cell| arguments.devices.is_none_or(|only| only == cell.devices)) {
        within &= report::dialects(cell, &measure::dialects(cell, &compared, server, plan).await?);
    }
    Ok(within)
}
