//! The servers under measurement, as processes of their own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::frames::Image;

/// How long a server may take until it listens. The image is copied and hashed meanwhile.
const START_WITHIN: Duration = Duration::from_secs(60);

/// A running server; it is killed when this is dropped.
pub struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    /// The image that it offers. `None`: the floor, which answers with anything.
    pub offers: Option<Arc<Image>>,
    /// Blocks of a device's life, the same for both.
    pub blocks: u32,
    born: AtomicU64,
    child: Child,
    /// Configuration, firmware and data.
    _dir: Option<TempDir>,
}

impl Server {
    /// Starts `fuotad` as a site would, with the image in the watched directory.
    pub async fn fuotad(image: &Arc<Image>) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let [address, admin] = free_addresses()?;
        let config = format!(
            "data_dir = \"data\"\n\
             [mqtt]\nlisten = \"{address}\"\n\
             [store]\nurl = \"file:firmware\"\nsettle = \"100ms\"\n\
             [admin]\nlisten = \"{admin}\"\n\
             [log]\nlevel = \"warn\"\n"
        );
        std::fs::write(dir.path().join("broker.toml"), config)?;
        drop_firmware(dir.path(), image)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_fuotad"));
        command.arg("--config").arg(dir.path().join("broker.toml"));
        let mut server = Self::spawn("fuotad", address, command, image.blocks).await?;
        server.offers = Some(Arc::clone(image));
        server._dir = Some(dir);
        Ok(server)
    }

    /// Starts this program as the floor, with frames of `frame` bytes.
    pub async fn floor(frame: usize, image: &Image) -> anyhow::Result<Self> {
        let [address, _] = free_addresses()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--floor", &address.to_string(), "--frame", &frame.to_string()]);
        Self::spawn("floor", address, command, image.blocks).await
    }

    async fn spawn(
        name: &'static str,
        address: SocketAddr,
        mut command: Command,
        blocks: u32,
    ) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        // Both have as many workers, also where somebody overrides one.
        command.env("TOKIO_WORKER_THREADS", workers().to_string());
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                if let Some(status) = child.try_wait()? {
                    bail!("{name} ended before it listened: {status}");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        tokio::time::timeout(START_WITHIN, listens)
            .await
            .with_context(|| format!("{name} does not listen on {address}"))??;
        Ok(Self { name, address, offers: None, blocks, born: AtomicU64::new(0), child, _dir: None })
    }

    /// A client id that no device had before.
    pub fn new_id(&self) -> String {
        format!("bench-{:06}", self.born.fetch_add(1, Relaxed))
    }

    /// CPU that the server has used so far.
    pub fn cpu(&self) -> anyhow::Result<Cpu> {
        Cpu::of(self.pid()?)
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?;
        Ok(kib.trim().parse::<u64>()? * 1024)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().with_context(|| format!("{} has ended", self.name))
    }
}

/// What a process has used of the CPU, in two resolutions.
pub struct Cpu {
    /// Nanoseconds on a CPU of each thread that lives.
    threads: BTreeMap<u32, u64>,
    /// User and system time of the process, threads that have ended included, in clock ticks.
    ticks: u64,
}

/// Clock ticks per second in `/proc`, a constant of Linux's interface on all its architectures.
const TICKS: u64 = 100;

impl Cpu {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Behind the name, which may hold anything, field 3 comes first; utime is field 14.
        let fields = stat.rsplit_once(')').context("no name in stat")?.1;
        let mut times = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
        let mut next = || times.next().context("no times in stat")?.context("no number in stat");
        let ticks = next()? + next()?;
        let mut threads = BTreeMap::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            // A thread may end between the listing and the reading.
            let Ok(text) = std::fs::read_to_string(entry.path().join("schedstat")) else {
                continue;
            };
            let on_cpu = text.split_ascii_whitespace().next().context("empty schedstat")?;
            let tid = entry.file_name().to_string_lossy().parse()?;
            threads.insert(tid, on_cpu.parse()?);
        }
        Ok(Self { threads, ticks })
    }

    /// What was used between `earlier` and this, in seconds.
    ///
    /// By the threads' own clocks where all threads of then are still there: nanoseconds. A thread
    /// that has ended took its clock with it; then the process's, which counts in 10 ms.
    pub fn since(&self, earlier: &Self) -> f64 {
        let survived = earlier.threads.keys().all(|tid| self.threads.contains_key(tid));
        if survived && !self.threads.is_empty() {
            let then = |tid| earlier.threads.get(tid).copied().unwrap_or(0);
            let used: u64 =
                self.threads.iter().map(|(tid, now)| now.saturating_sub(then(tid))).sum();
            used as f64 / 1e9
        } else {
            self.ticks.saturating_sub(earlier.ticks) as f64 / TICKS as f64
        }
    }
}

/// Worker threads of each server: one per CPU, as both would choose themselves.
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Thousands of devices need as many files, here and in the servers, which inherit the limit.
pub fn raise_file_limit() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .context("cannot raise the limit on open files")
}

fn free_addresses() -> anyhow::Result<[SocketAddr; 2]> {
    // Both are bound before one is let go, so they differ.
    let bound = [
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
    ];
    Ok([bound[0].local_addr()?, bound[1].local_addr()?])
}

fn drop_firmware(dir: &Path, image: &Image) -> anyhow::Result<()> {
    std::fs::create_dir(dir.join("firmware"))?;
    std::fs::write(dir.join("firmware/bench-1.0.0.bin"), &image.bytes)?;
    Ok(())
}
