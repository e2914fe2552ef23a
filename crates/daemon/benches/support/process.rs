//! A server under measurement: a process of its own, and what it has used.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long a server may take until it listens. An image is copied and hashed meanwhile.
const START_WITHIN: Duration = Duration::from_secs(60);

/// A running server; it is killed when this is dropped.
pub struct Process {
    pub name: &'static str,
    pub address: SocketAddr,
    /// Where devices fetch over HTTP, if they may.
    pub http: Option<SocketAddr>,
    child: Child,
    /// Its configuration and data.
    dir: Option<TempDir>,
}

impl Process {
    /// Starts a server and waits until it listens on `address`. `dir` lives as long as it does.
    pub async fn start(
        name: &'static str,
        address: SocketAddr,
        mut command: Command,
        dir: Option<TempDir>,
    ) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
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
        Ok(Self { name, address, http: None, child, dir })
    }

    /// Its configuration and data, where it has any.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_ref().map(TempDir::path)
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
    /// What the process has used so far.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
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

/// Worker threads of a server: one per CPU, as each would choose itself.
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Thousands of connections need as many files, here and in the servers, which inherit the limit.
/// The limit that holds then; `None` is none.
pub fn raise_file_limit() -> anyhow::Result<Option<u64>> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .context("cannot raise the limit on open files")?;
    Ok(limit.maximum)
}

/// Addresses that nobody listens on, all different.
pub fn free_addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    // All are bound before one is let go, so they differ.
    let mut bound = Vec::with_capacity(N);
    for address in &mut addresses {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        bound.push(listener);
    }
    Ok(addresses)
}
