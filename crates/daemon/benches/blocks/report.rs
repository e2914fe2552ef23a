//! Prints the figures and judges them.

use crate::measure::{Cell, Figures, Memory, Plan};
use crate::speech::Dialect;
use crate::support::figures::machine;
use crate::support::process::workers;

/// What the server's CPU per block may be, as a multiple of the floor's.
fn bound(cell: Cell) -> Option<f64> {
    match (cell.devices, cell.window) {
        (50, 1) => Some(2.0),
        (50, 16) => Some(3.0),
        _ => None,
    }
}

/// How far resident memory may grow between the two looks, in bytes.
const GROWTH: u64 = 2_000_000;

/// The conditions of the run and the table's head.
pub fn head(name: &str, frame: usize, plan: &Plan) {
    println!("{}, {} workers per server", machine(), workers());
    println!(
        "frames of {frame} bytes with {} bytes of firmware; {} rounds of {:?} per server and row\n",
        crate::CHUNK,
        plan.rounds,
        plan.round
    );
    println!(
        "{:>9} | {:^26} | {:^26} | {:^25} | {:^25}",
        "devices x",
        "server CPU, us per block",
        "blocks per second",
        "p50 latency, us",
        "p99 latency, us"
    );
    println!(
        "{:>9} | {name:>8} {:>8} {:>8} | {name:>8} {:>8} {:>8} | {name:>8} {:>8} {:>7} | {name:>8} {:>8} {:>7}",
        "in flight", "floor", "ratio", "floor", "ratio", "floor", "ratio", "floor", "ratio"
    );
}

/// A row; whether its bound, if it has one, is kept.
pub fn cell(cell: Cell, [server, floor]: &[Figures; 2]) -> bool {
    let ratio = server.cpu_per_block / floor.cpu_per_block;
    let bound = bound(cell);
    let within = bound.is_none_or(|bound| ratio <= bound);
    let verdict = match bound {
        Some(bound) if within => format!("  CPU within {bound:.1} x"),
        Some(bound) => format!("  CPU ABOVE {bound:.1} x"),
        None => String::new(),
    };
    println!(
        "{:>9} | {:>8.2} {:>8.2} {:>8.2} | {:>8.0} {:>8.0} {:>8.2} | {:>8.0} {:>8.0} {:>7.2} | {:>8.0} {:>8.0} {:>7.2}{verdict}",
        format!("{} x {}", cell.devices, cell.window),
        server.cpu_per_block,
        floor.cpu_per_block,
        ratio,
        server.blocks_per_second,
        floor.blocks_per_second,
        server.blocks_per_second / floor.blocks_per_second,
        server.p50,
        floor.p50,
        server.p50 / floor.p50,
        server.p99,
        floor.p99,
        server.p99 / floor.p99,
    );
    within
}

/// What a dialect's CPU per block may be, as a multiple of the reference's: the same, but for what
/// one row differs from itself from run to run.
const DIALECT: f64 = 1.1;

/// The bound of a dialect. Short ranges over HTTP have none: each is a whole HTTP request, with its
/// head read and another written. A device with room asks for long ones.
fn dialect_bound(dialect: Dialect) -> Option<f64> {
    (dialect != Dialect::Http).then_some(DIALECT)
}

/// The dialects of one cell, the reference first; whether all are within their bound.
pub fn dialects(cell: Cell, figures: &[(Dialect, Figures)]) -> bool {
    let Some((_, reference)) = figures.first() else { return true };
    println!(
        "\ndialects, {} x {} | CPU, us per block | of the reference's | blocks per second",
        cell.devices, cell.window
    );
    let mut within = true;
    for (dialect, figures) in figures {
        let ratio = figures.cpu_per_block / reference.cpu_per_block;
        let bound = dialect_bound(*dialect);
        let is_within = bound.is_none_or(|bound| ratio <= bound);
        within &= is_within;
        println!(
            "{:>17} | {:>17.2} | {:>18.2} | {:>17.0}  {}",
            dialect.name(),
            figures.cpu_per_block,
            ratio,
            figures.blocks_per_second,
            match bound {
                None => "(no bound)",
                Some(_) if is_within => "",
                Some(_) => "ABOVE",
            }
        );
    }
    within
}

/// How memory grew; whether its bound is kept.
pub fn memory(memory: &Memory) -> bool {
    let grown = memory.late.saturating_sub(memory.early);
    let within = grown <= GROWTH;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "\nresident memory: {:.2} MB after {} blocks, {:.2} MB after {}: {:+.2} MB, {} {:.0} MB",
        megabytes(memory.early),
        memory.early_blocks,
        megabytes(memory.late),
        memory.late_blocks,
        (memory.late as f64 - memory.early as f64) / 1e6,
        if within { "within" } else { "ABOVE" },
        megabytes(GROWTH),
    );
    within
}
