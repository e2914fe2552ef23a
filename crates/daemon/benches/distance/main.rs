//! How long an image takes over a long link that breaks: the native dialect beside one block for
//! each round trip, and beside HTTP.
//!
//! `cargo bench -p fuotad --bench distance` prints the times and their ratios. `docs/performance.md`
//! says what is measured and why.
//!
//! - `proxy` is the link: it delays, has a rate, and cuts connections.
//! - `devices` are the three devices; each goes on with what it has when its connection is cut.

mod devices;
mod proxy;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use clap::Parser;

use crate::devices::Device;
use crate::proxy::{Link, Proxy};
use crate::support::figures::median;
use crate::support::firmware::Image;
use crate::support::fuotad::Site;

/// A mebibyte.
const BLOCKS: u32 = 256;
const CHUNK: usize = 4096;

/// Measures how long an image takes over a long link.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// A round trip, in milliseconds
    #[arg(long, default_value_t = 200)]
    round_trip: u64,

    /// Megabits a second, each way
    #[arg(long, default_value_t = 10.0)]
    rate: f64,

    /// A connection is cut after so many kilobytes to the device; 0: never
    #[arg(long, default_value_t = 400)]
    cut: u64,

    /// Downloads of each device; the median is shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Exit with 1 where a bound is exceeded
    #[arg(long)]
    check: bool,

    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if !arguments.bench {
        println!("a benchmark: run it by `cargo bench -p fuotad --bench distance`");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let within = runtime.block_on(compare(&arguments))?;
    if arguments.check && !within {
        std::process::exit(1);
    }
    Ok(())
}

async fn compare(arguments: &Arguments) -> anyhow::Result<bool> {
    let image = Image::random(BLOCKS, CHUNK)?;
    let site = Site { image: Some(&image), http: true, ..Site::default() };
    let server = site.start().await?;
    let http = server.http.ok_or_else(|| anyhow::anyhow!("no listener for HTTP"))?;
    let link = Link {
        one_way: Duration::from_millis(arguments.round_trip) / 2,
        bytes_per_second: arguments.rate * 1e6 / 8.0,
        cut_after: (arguments.cut > 0).then_some(arguments.cut * 1000),
    };
    println!(
        "an image of {} bytes, {} ms for a round trip, {} Mbit/s, {}; median of {}",
        image.bytes.len(),
        arguments.round_trip,
        arguments.rate,
        link.cut_after
            .map_or("no cuts".into(), |bytes| format!("cut after each {} kB", bytes / 1000)),
        arguments.rounds,
    );
    let mut times = Vec::new();
    for device in [Device::Reference, Device::Http, Device::Native] {
        let to = if device == Device::Http { http } else { server.address };
        let mut seconds = Vec::new();
        // The reference takes most of a minute, and each of its round trips is one more sample.
        let rounds = if device == Device::Reference { 1 } else { arguments.rounds };
        for round in 0..rounds {
            let proxy = Proxy::start(to, link.clone()).await?;
            let id = format!("{}-{round}", device.name());
            let took = device.fetch(proxy.address, &id, &image).await?;
            seconds.push(took.as_secs_f64());
        }
        let took = median(seconds.into_iter());
        println!("{:>10} {took:8.2} s", device.name());
        times.push(took);
    }
    let (faster, longer) = (times[0] / times[2], times[2] / times[1]);
    println!("native is {faster:.1} times as fast as the reference (at least 20)");
    println!("native takes {longer:.2} times as long as HTTP (at most 1.3)");
    Ok(faster >= 20.0 && longer <= 1.3)
}
