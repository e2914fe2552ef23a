//! As many connections as the limit on open files lets the server have, and firmware served to
//! some of them.

use std::io::Read;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::report::{Verdicts, digits, thousands};
use crate::support::firmware::{self, Heard, Image};
use crate::support::fuotad::Site;
use crate::support::{frames, process};

/// Devices that fetch their image meanwhile.
const DEVICES: usize = 50;
/// Blocks of that image.
const BLOCKS: u32 = 256;
const CHUNK: usize = 4096;
/// Files that fuotad keeps for itself (docs/performance.md).
const RESERVED: u64 = 512;
/// Connections that a process of the load holds: it has a limit of its own.
const PER_HOLDER: usize = 8_000;
/// Connections that are opened at the same time.
const CONNECTING: usize = 200;

pub async fn run(
    limit: Option<u64>,
    at_most: usize,
    verdicts: &mut Verdicts,
) -> anyhow::Result<()> {
    let limit = limit.map_or(at_most, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let wanted = limit.saturating_sub(RESERVED as usize).min(at_most);
    println!(
        "\nCROWD: {} connections (the limit on open files is {}), blocks for {DEVICES} of them\n",
        thousands(wanted as f64),
        thousands(limit as f64)
    );
    let image = Image::random(BLOCKS, CHUNK)?;
    let fuotad = Site { image: Some(&image), ..Site::default() }.start().await?;
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        let id = format!("bench-{number}");
        devices.push(Client::connect(fuotad.address, &id, None).await?.busy());
    }
    let begin = Instant::now();
    let mut holders = Vec::new();
    let mut held = DEVICES;
    while held < wanted {
        let count = (wanted - held).min(PER_HOLDER);
        let (holder, got) = Holder::start(fuotad.address, held, count).await?;
        holders.push(holder);
        held += got;
        if got < count {
            break;
        }
    }
    let took = begin.elapsed().as_secs_f64();
    let before = Instant::now();
    let mut fetching = JoinSet::new();
    let image = std::sync::Arc::new(image);
    for device in devices {
        let image = std::sync::Arc::clone(&image);
        fetching.spawn(async move {
            let fetch = fetch(device, &image);
            tokio::time::timeout(crate::client::PATIENCE, fetch).await.context("no block comes")?
        });
    }
    let mut blocks = 0;
    while let Some(fetched) = fetching.join_next().await {
        blocks += fetched??;
    }
    let seconds = before.elapsed().as_secs_f64();
    println!(
        "{:>18} | {:<9} | {} connections after {} s, {:.1} MB resident; then {} blocks/s to {DEVICES} of them",
        "crowd",
        "fuotad",
        thousands(held as f64),
        digits(took),
        fuotad.resident()? as f64 / 1e6,
        thousands(f64::from(blocks) / seconds),
    );
    verdicts.at_least("connections at once", held as f64, wanted as f64);
    let due = DEVICES as u32 * BLOCKS;
    verdicts.at_least("verified blocks meanwhile", f64::from(blocks), f64::from(due));
    drop(holders);
    Ok(())
}

/// Subscribes, waits for the manifest and asks for each block, one after the other.
async fn fetch(mut device: Client, image: &Image) -> anyhow::Result<u32> {
    device.stream.write_all(&frames::subscribe(firmware::TOPIC, 0)).await?;
    let mut out = Vec::new();
    let (mut offered, mut got) = (false, 0);
    while got < image.blocks {
        device.read().await?;
        while let Some((kind, body)) = frames::cut(&device.buffer)? {
            let packet = device.buffer.split_to(body.end);
            if kind != frames::PUBLISH {
                ensure!(kind == frames::SUBACK, "an unexpected packet of type {kind}");
                continue;
            }
            let payload = frames::payload(&packet[body.start..])?;
            if !offered {
                offered = firmware::is_manifest(payload, image)?;
            } else if let Heard::Block(index) = firmware::hear(payload)? {
                ensure!(index == got, "block {index} instead of {got}");
                firmware::verify(payload, image)?;
                got += 1;
            }
            if offered && got < image.blocks {
                firmware::request(&mut out, got);
            }
        }
        device.stream.write_all(&out).await?;
        out.clear();
    }
    Ok(got)
}

/// A process of the load that holds connections until its standard input closes.
struct Holder {
    _child: Child,
}

impl Holder {
    /// Starts it, and waits until it holds what it can get: how many.
    async fn start(
        address: SocketAddr,
        from: usize,
        count: usize,
    ) -> anyhow::Result<(Self, usize)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--hold", &address.to_string()]);
        command.args(["--hold-from", &from.to_string(), "--hold-count", &count.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let out = child.stdout.take().context("no output of the holder")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).await?;
        let got = line.trim().parse().with_context(|| format!("the holder says {line:?}"))?;
        Ok((Self { _child: child }, got))
    }
}

/// What a holder does.
pub async fn hold(address: SocketAddr, from: usize, count: usize) -> anyhow::Result<()> {
    process::raise_file_limit()?;
    let mut held = Vec::with_capacity(count);
    let mut connecting = JoinSet::new();
    let mut numbers = from..from + count;
    loop {
        while connecting.len() < CONNECTING
            && let Some(number) = numbers.next()
        {
            connecting.spawn(connect(address, number));
        }
        match connecting.join_next().await {
            None => break,
            Some(connected) => match connected? {
                Ok(client) => held.push(client),
                // The server has enough.
                Err(error) => {
                    eprintln!("connection {} fails: {error:#}", from + held.len());
                    numbers = 0..0;
                }
            },
        }
    }
    println!("{}", held.len());
    // It ends when the parent closes it.
    let _: usize = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await??;
    Ok(())
}

async fn connect(address: SocketAddr, number: usize) -> anyhow::Result<Client> {
    let id = format!("crowd-{number}");
    let mut client = Client::connect(address, &id, None).await?;
    client.subscribe(&format!("plant/{id}/commands"), 0).await?;
    Ok(client)
}
