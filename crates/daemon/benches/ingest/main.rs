//! What it takes to take firmware in, and what serving it costs afterwards, from a directory and
//! from a bucket.
//!
//! `cargo bench -p fuotad --bench ingest` starts the release daemon and a device that is written by
//! hand, and prints medians. `docs/performance.md` says what is measured and how to read it.

#[path = "../../../../tests/support/s3.rs"]
#[allow(clippy::expect_used, reason = "shared with the tests")]
mod s3;
#[path = "../support/mod.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use sha2::{Digest as _, Sha256};
use support::figures::{machine, median};
use support::firmware::{self, Heard, Image};
use support::frames;
use support::process::{Cpu, Process, free_addresses};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Takes firmware in, and serves it.
#[derive(Parser)]
struct Args {
    /// Drops of each kind
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// Blocks per place in the comparison of directory and bucket
    #[arg(long, default_value_t = 40_000)]
    blocks: u32,
    /// Cargo says it
    #[arg(long, hide = true)]
    bench: bool,
}

const CHUNK: usize = 4096;
/// `store.settle` of the run.
const SETTLE: Duration = Duration::from_millis(200);
const MIB: usize = 1 << 20;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    println!("{}", machine());
    let hash = sha_speed();
    println!("SHA-256 of 256 MiB in memory, one core: {:.0} MB/s", hash / 1e6);
    drops(&args, 16 * MIB).await?;
    rate(&args, 256 * MIB, hash).await?;
    places(&args).await
}

/// Bytes a second.
fn sha_speed() -> f64 {
    let bytes = vec![7; 256 * MIB];
    let took = (0..3).map(|_| {
        let began = Instant::now();
        std::hint::black_box(Sha256::digest(&bytes));
        began.elapsed().as_secs_f64()
    });
    bytes.len() as f64 / median(took)
}

/// From a file that is dropped to the manifest at the device.
async fn drops(args: &Args, size: usize) -> anyhow::Result<()> {
    let site = Site::start("file:firmware", "").await?;
    let (mut renamed, mut copied) = (Vec::new(), Vec::new());
    for round in 0..args.rounds * 2 {
        let image = Image::random((size / CHUNK) as u32, CHUNK)?;
        // Each has a device of its own: one that was offered another image and has not asked for
        // it would hear of this one with its next request.
        let id = format!("drop-{round}");
        let mut device = Device::connect(&site, &id).await?;
        let path = site.folder_of(&id)?.join(format!("bench-1.0.{round}.bin"));
        let by_rename = round % 2 == 0;
        let began = if by_rename {
            let staged = site.firmware().with_file_name("staged");
            std::fs::write(&staged, &image.bytes)?;
            let began = Instant::now();
            std::fs::rename(staged, path)?;
            began
        } else {
            std::fs::write(&path, &image.bytes)?;
            Instant::now()
        };
        device.manifest(&image).await?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        if by_rename { renamed.push(took) } else { copied.push(took - SETTLE.as_millis() as f64) }
    }
    let mib = size / MIB;
    println!(
        "{mib} MiB renamed into place to the manifest at the device: {:.0} ms",
        median(renamed.into_iter())
    );
    println!(
        "{mib} MiB copied, beyond the settling of {SETTLE:?}: {:.0} ms",
        median(copied.into_iter())
    );
    Ok(())
}

/// How fast a large file is taken in: wall clock and CPU of the daemon, beside the least that a
/// copy whose digest is known can cost: one thread that reads, hashes, writes and syncs.
async fn rate(args: &Args, size: usize, hash: f64) -> anyhow::Result<()> {
    let site = Site::start("file:firmware", "").await?;
    let image = Image::random((size / CHUNK) as u32, CHUNK)?;
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    let (mut floor_walls, mut floor_cpus) = (Vec::new(), Vec::new());
    for round in 0..args.rounds.clamp(1, 9) {
        let id = format!("large-{round}");
        let mut device = Device::connect(&site, &id).await?;
        let path = site.folder_of(&id)?.join(format!("bench-2.0.{round}.bin"));
        let staged = site.firmware().with_file_name("staged");
        let mut bytes = image.bytes.clone();
        bytes[..4].copy_from_slice(&round.to_le_bytes());
        let image = Image { bytes, blocks: image.blocks, chunk: image.chunk };
        std::fs::write(&staged, &image.bytes)?;
        // What one of the two finds on the disk's queue is not the other's doing.
        std::fs::File::open(&staged)?.sync_all()?;
        let cpu = Cpu::of(std::process::id())?;
        let began = Instant::now();
        // A new file, as the daemon's: one that is overwritten gets back the memory it had.
        copy_by_hand(&staged, &site.firmware().with_file_name(format!("by-hand-{round}")))?;
        floor_walls.push(began.elapsed().as_secs_f64());
        floor_cpus.push(Cpu::of(std::process::id())?.since(&cpu));
        let cpu = site.process.cpu()?;
        let began = Instant::now();
        std::fs::rename(staged, path)?;
        device.manifest(&image).await?;
        walls.push(began.elapsed().as_secs_f64());
        cpus.push(site.process.cpu()?.since(&cpu));
    }
    let (wall, cpu) = (median(walls.into_iter()), median(cpus.into_iter()));
    let (floor_wall, floor_cpu) = (median(floor_walls.into_iter()), median(floor_cpus.into_iter()));
    let size = size as f64;
    println!(
        "256 MiB copied by one thread that reads, hashes, writes and syncs: {:.0} MB/s by the clock, {:.0} MB/s of CPU",
        size / floor_wall / 1e6,
        size / floor_cpu / 1e6,
    );
    println!(
        "256 MiB taken in: {:.0} MB/s by the clock, {:.0} MB/s of CPU ({:.2} times that copy's, {:.2} times what SHA-256 alone takes)",
        size / wall / 1e6,
        size / cpu / 1e6,
        cpu / floor_cpu,
        cpu / (size / hash)
    );
    Ok(())
}

/// Copies a file so that its digest is known and it lasts.
fn copy_by_hand(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (mut from, mut copy) = (std::fs::File::open(from)?, std::fs::File::create(to)?);
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; MIB]);
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        copy.write_all(&buffer[..read])?;
    }
    std::hint::black_box(hash.finalize());
    Ok(copy.sync_all()?)
}

/// CPU per block once warm, served from a directory's and a bucket's image.
async fn places(args: &Args) -> anyhow::Result<()> {
    let server = s3::S3Server::start().await;
    let image = Image::random(8192, CHUNK)?;
    server.put("site/bench-1.0.0.bin", &image.bytes);
    let keys = format!(
        "[store.s3]\nendpoint = \"{}\"\nregion = \"garage\"\naccess_key_id = \"{}\"\n\
         secret_access_key = \"{}\"\nallow_http = true\n",
        server.endpoint(),
        s3::ACCESS_KEY_ID,
        s3::SECRET_ACCESS_KEY
    );
    let bucket = Site::start(&format!("s3://{}/site", s3::BUCKET), &keys).await?;
    let directory = Site::start("file:firmware", "").await?;
    std::fs::write(directory.firmware().join("bench-1.0.0.bin"), &image.bytes)?;
    let (mut of_bucket, mut of_directory) = (Vec::new(), Vec::new());
    // The first of each is not counted: it warms the cache.
    for round in 0..=args.blocks.div_ceil(image.blocks) {
        for (site, cpus) in [(&bucket, &mut of_bucket), (&directory, &mut of_directory)] {
            let mut device = Device::connect(site, &format!("round-{round}")).await?;
            device.manifest(&image).await?;
            let cpu = site.process.cpu()?;
            device.download(&image).await?;
            if round > 0 {
                cpus.push(site.process.cpu()?.since(&cpu) * 1e6 / f64::from(image.blocks));
            }
        }
    }
    let sent = server.sent();
    ensure!(sent == image.bytes.len() as u64, "the bucket was read {sent} bytes");
    let (bucket, directory) = (median(of_bucket.into_iter()), median(of_directory.into_iter()));
    println!(
        "CPU per block, warm, 16 in flight: {directory:.1} us from a directory, {bucket:.1} us from a bucket, {:.2} times",
        bucket / directory
    );
    println!("bytes read from the bucket for all of it: {sent}, the image once");
    Ok(())
}

/// The daemon with a store somewhere.
struct Site {
    process: Process,
}

impl Site {
    async fn start(url: &str, more: &str) -> anyhow::Result<Site> {
        let dir = tempfile::tempdir()?;
        let [address, admin] = free_addresses()?;
        let settle = SETTLE.as_millis();
        let config = format!(
            "data_dir = \"data\"\n[mqtt]\nlisten = \"{address}\"\n[admin]\nlisten = \"{admin}\"\n\
             [log]\nlevel = \"error\"\n\
             [store]\nurl = \"{url}\"\nsettle = \"{settle}ms\"\n{more}"
        );
        std::fs::write(dir.path().join(support::fuotad::CONFIG), config)?;
        std::fs::create_dir(dir.path().join("firmware"))?;
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_fuotad"));
        command.arg("--config").arg(dir.path().join(support::fuotad::CONFIG));
        Ok(Site { process: Process::start("fuotad", address, command, Some(dir)).await? })
    }

    /// The folder of one device.
    fn folder_of(&self, id: &str) -> anyhow::Result<std::path::PathBuf> {
        let folder = self.firmware().join("devices").join(id);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn firmware(&self) -> std::path::PathBuf {
        self.process.dir().unwrap_or(Path::new(".")).join("firmware")
    }
}

/// A device, one packet after the other.
struct Device {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Device {
    async fn connect(site: &Site, id: &str) -> anyhow::Result<Device> {
        let stream = TcpStream::connect(site.process.address).await?;
        stream.set_nodelay(true)?;
        let mut device = Device { stream, buffer: Vec::new() };
        device.stream.write_all(&frames::connect(id, 0, None)).await?;
        device.packet(frames::CONNACK).await?;
        device.stream.write_all(&frames::subscribe(firmware::TOPIC, 0)).await?;
        device.packet(frames::SUBACK).await?;
        Ok(device)
    }

    /// Waits for the manifest of an image.
    async fn manifest(&mut self, image: &Image) -> anyhow::Result<()> {
        let body = self.packet(frames::PUBLISH).await?;
        ensure!(firmware::is_manifest(frames::payload(&body)?, image)?, "no manifest");
        Ok(())
    }

    /// Asks for all blocks, sixteen at a time.
    async fn download(&mut self, image: &Image) -> anyhow::Result<()> {
        let mut out = Vec::new();
        let mut asked = 16.min(image.blocks);
        (0..asked).for_each(|index| firmware::request(&mut out, index));
        // While the cache is cold, blocks that wait for the disk come later than others.
        let mut missing: std::collections::HashSet<u32> = (0..image.blocks).collect();
        while !missing.is_empty() {
            if !out.is_empty() {
                self.stream.write_all(&out).await?;
                out.clear();
            }
            let body = self.packet(frames::PUBLISH).await?;
            let payload = frames::payload(&body)?;
            let Heard::Block(index) = firmware::hear(payload)? else { bail!("no block") };
            ensure!(missing.remove(&index), "block {index} once more");
            if index % 256 == 0 {
                firmware::verify(payload, image)?;
            }
            if asked < image.blocks {
                firmware::request(&mut out, asked);
                asked += 1;
            }
        }
        Ok(())
    }

    /// The body of the next packet, which must be of this type.
    async fn packet(&mut self, wanted: u8) -> anyhow::Result<Vec<u8>> {
        let read = async {
            loop {
                if let Some((kind, body)) = frames::cut(&self.buffer)? {
                    ensure!(kind == wanted, "a packet of type {kind} instead of {wanted}");
                    let bytes = self.buffer[body.clone()].to_vec();
                    self.buffer.drain(..body.end);
                    return Ok(bytes);
                }
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    bail!("the server closed the connection");
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), read)
            .await
            .context("no packet in a minute")?
    }
}
