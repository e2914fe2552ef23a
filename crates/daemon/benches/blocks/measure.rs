//! Drives devices and takes the figures.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

use crate::device::{Device, Limit, Tally};
use crate::fetcher::Fetcher;
use crate::servers::Server;
use crate::speech::{Dialect, LONG};
use crate::support::figures::{median, percentile};

/// So many devices with so many requests in flight each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub devices: usize,
    pub window: usize,
}

impl Cell {
    pub const ALL: [Self; 6] = [
        Self { devices: 1, window: 1 },
        Self { devices: 1, window: 16 },
        Self { devices: 50, window: 1 },
        Self { devices: 50, window: 16 },
        Self { devices: 1000, window: 1 },
        Self { devices: 1000, window: 16 },
    ];
}

/// How long a cell is measured.
pub struct Plan {
    /// In each, both servers are driven, one after the other.
    pub rounds: usize,
    pub round: Duration,
}

/// The figures of one server in one cell.
pub struct Figures {
    /// Median of the rounds, in microseconds.
    pub cpu_per_block: f64,
    /// Median of the rounds.
    pub blocks_per_second: f64,
    /// Over all rounds, in microseconds.
    pub p50: f64,
    pub p99: f64,
}

/// What a round took.
struct Round {
    cpu: f64,
    seconds: f64,
    blocks: u64,
}

/// How many devices connect at once.
const CONNECTING: usize = 64;
/// How long a round may last beyond its plan.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures a cell on both servers, whose rounds alternate, so that a disturbance of the machine
/// hits both.
pub async fn cell(
    cell: Cell,
    servers: [&Arc<Server>; 2],
    plan: &Plan,
) -> anyhow::Result<[Figures; 2]> {
    let dialect = Dialect::Reference;
    let mut devices =
        [gather(servers[0], cell, dialect).await?, gather(servers[1], cell, dialect).await?];
    let mut rounds: [Vec<Round>; 2] = Default::default();
    let mut latencies: [Vec<u32>; 2] = Default::default();
    // One short round beforehand warms caches on both sides, and counts nothing.
    for number in 0..=plan.rounds {
        let length = if number == 0 { plan.round / 4 } else { plan.round };
        for turn in 0..2 {
            // Who begins changes from round to round.
            let which = (turn + number) % 2;
            let limit = Limit::Until(Instant::now() + length);
            let (round, mut got) =
                drive(servers[which], &mut devices[which], limit, length + PATIENCE).await?;
            if number > 0 {
                rounds[which].push(round);
                latencies[which].append(&mut got);
            }
        }
    }
    let [real, floor] = rounds;
    let [real_latencies, floor_latencies] = latencies;
    Ok([figures(&real, real_latencies), figures(&floor, floor_latencies)])
}

/// Measures a cell in each of these dialects, on one server; their rounds alternate.
pub async fn dialects(
    cell: Cell,
    dialects: &[Dialect],
    server: &Arc<Server>,
    plan: &Plan,
) -> anyhow::Result<Vec<(Dialect, Figures)>> {
    let mut sides = Vec::new();
    for &dialect in dialects {
        sides.push((dialect, gather(server, cell, dialect).await?, Vec::new(), Vec::new()));
    }
    for number in 0..=plan.rounds {
        let length = if number == 0 { plan.round / 4 } else { plan.round };
        sides.rotate_left(1);
        for (_, devices, rounds, latencies) in &mut sides {
            let limit = Limit::Until(Instant::now() + length);
            let (round, mut got) = drive(server, devices, limit, length + PATIENCE).await?;
            if number > 0 {
                rounds.push(round);
                latencies.append(&mut got);
            }
        }
    }
    sides.sort_by_key(|(dialect, ..)| *dialect as u8);
    let figured = |(dialect, _, rounds, latencies): (_, _, Vec<Round>, _)| {
        (dialect, figures(&rounds, latencies))
    };
    Ok(sides.into_iter().map(figured).collect())
}

/// Resident memory at two moments.
pub struct Memory {
    pub early_blocks: u64,
    pub early: u64,
    pub late_blocks: u64,
    pub late: u64,
}

/// Devices that are connected during the look at memory, at both moments.
const MEMORY_CELL: Cell = Cell { devices: 50, window: 16 };

/// Resident memory after 10,000 blocks and after `blocks`, in bytes.
pub async fn memory(server: &Arc<Server>, blocks: u64) -> anyhow::Result<Memory> {
    const EARLY: u64 = 10_000;
    // Many devices would all begin with the same blocks, so one reads the whole image first.
    let image = u64::from(server.blocks);
    let mut first = gather(server, Cell { devices: 1, ..MEMORY_CELL }, Dialect::Reference).await?;
    serve(server, &mut first, image).await?;
    drop(first);
    let mut devices = gather(server, MEMORY_CELL, Dialect::Reference).await?;
    serve(server, &mut devices, EARLY.saturating_sub(image)).await?;
    let early = settled(server).await?;
    serve(server, &mut devices, blocks.saturating_sub(EARLY)).await?;
    let late = settled(server).await?;
    Ok(Memory { early_blocks: EARLY, early, late_blocks: blocks, late })
}

async fn serve(server: &Arc<Server>, devices: &mut Vec<Load>, blocks: u64) -> anyhow::Result<()> {
    let left = AtomicI64::new(i64::try_from(blocks)?);
    let (round, _) = drive(server, devices, Limit::Blocks(Arc::new(left)), PATIENCE).await?;
    anyhow::ensure!(round.blocks == blocks, "{} blocks instead of {blocks}", round.blocks);
    Ok(())
}

/// Memory once the server has written what it still had to write.
async fn settled(server: &Arc<Server>) -> anyhow::Result<u64> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.process.resident()
}

/// A device of the load, on one of the two protocols.
enum Load {
    Mqtt(Box<Device>),
    Http(Box<Fetcher>),
}

impl Load {
    async fn connect(server: &Server, window: usize, dialect: Dialect) -> anyhow::Result<Self> {
        let range = match dialect {
            Dialect::Http => u32::try_from(window)?,
            Dialect::HttpLong => LONG,
            _ => return Ok(Self::Mqtt(Device::connect(server, window, dialect).await?.into())),
        };
        Ok(Self::Http(Fetcher::connect(server, range).await?.into()))
    }

    async fn drive(&mut self, server: &Server, limit: &Limit) -> anyhow::Result<Tally> {
        match self {
            Self::Mqtt(device) => device.drive(server, limit).await,
            Self::Http(fetcher) => fetcher.drive(server, limit).await,
        }
    }
}

async fn gather(server: &Arc<Server>, cell: Cell, dialect: Dialect) -> anyhow::Result<Vec<Load>> {
    let mut devices = Vec::with_capacity(cell.devices);
    let mut connecting = JoinSet::new();
    for _ in 0..cell.devices {
        if connecting.len() == CONNECTING
            && let Some(device) = connecting.join_next().await
        {
            devices.push(device??);
        }
        let server = Arc::clone(server);
        connecting.spawn(async move { Load::connect(&server, cell.window, dialect).await });
    }
    while let Some(device) = connecting.join_next().await {
        devices.push(device??);
    }
    Ok(devices)
}

/// One round of one server.
async fn drive(
    server: &Arc<Server>,
    devices: &mut Vec<Load>,
    limit: Limit,
    within: Duration,
) -> anyhow::Result<(Round, Vec<u32>)> {
    let cpu = server.process.cpu()?;
    let begin = Instant::now();
    let mut driven = JoinSet::new();
    for mut device in devices.drain(..) {
        let (server, limit) = (Arc::clone(server), limit.clone());
        driven.spawn(async move {
            let tally = device.drive(&server, &limit).await?;
            anyhow::Ok((device, tally))
        });
    }
    let mut total = Tally::default();
    let finish = async {
        while let Some(result) = driven.join_next().await {
            let (device, mut tally) = result??;
            total.blocks += tally.blocks;
            total.latencies.append(&mut tally.latencies);
            devices.push(device);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(within, finish)
        .await
        .with_context(|| format!("{} leaves requests without an answer", server.process.name))?
        .with_context(|| format!("while {} was driven", server.process.name))?;
    let seconds = begin.elapsed().as_secs_f64();
    let cpu = server.process.cpu()?.since(&cpu);
    Ok((Round { cpu, seconds, blocks: total.blocks }, total.latencies))
}

fn figures(rounds: &[Round], mut latencies: Vec<u32>) -> Figures {
    latencies.sort_unstable();
    Figures {
        cpu_per_block: median(rounds.iter().map(|round| round.cpu * 1e6 / round.blocks as f64)),
        blocks_per_second: median(rounds.iter().map(|round| round.blocks as f64 / round.seconds)),
        p50: percentile(&latencies, 0.5),
        p99: percentile(&latencies, 0.99),
    }
}
