//! A low load: 2,000 messages a second over 50 pairs, evenly spaced.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

use crate::Plan;
use crate::client::Client;
use crate::message::Template;
use crate::peers::{Kind, Peers, Setting};
use crate::report::{Verdicts, digits};
use crate::rig::{MANY, Pattern, Tally, listen};
use crate::support::figures::{median, percentile};
use crate::support::process::Process;

/// Messages a second, all pairs together.
const RATE: u32 = 2_000;
/// How long messages may still be under way when the last one was sent.
const UNDER_WAY: Duration = Duration::from_millis(200);

pub async fn run(
    peers: &Peers,
    plan: &Plan,
    only: Option<&str>,
    verdicts: &mut Verdicts,
) -> anyhow::Result<()> {
    println!("\nLOW LOAD: {RATE} messages a second over {MANY} pairs, {} rounds\n", plan.rounds);
    for qos in [0, 1] {
        let name = format!("low load QoS {qos}");
        if only.is_none_or(|only| name.contains(only)) {
            cell(peers, plan, qos, &name, verdicts).await?;
        }
    }
    Ok(())
}

/// A server, and the pairs at it.
struct Candidate {
    kind: Kind,
    process: Process,
    senders: Vec<Sender>,
    latencies: Arc<Mutex<Vec<u32>>>,
    tasks: JoinSet<anyhow::Result<()>>,
    /// CPU microseconds per message.
    cpu: Vec<f64>,
    lost: u64,
}

/// The publisher of a pair. It writes without waiting: its messages are small and far between.
struct Sender {
    stream: OwnedWriteHalf,
    template: Template,
    next: u64,
}

async fn cell(
    peers: &Peers,
    plan: &Plan,
    qos: u8,
    name: &str,
    verdicts: &mut Verdicts,
) -> anyhow::Result<()> {
    let clock = Instant::now();
    let mut candidates = Vec::new();
    for kind in peers.kinds() {
        candidates.push(Candidate::start(peers, kind, qos, clock).await?);
    }
    for number in 0..=plan.rounds {
        for turn in 0..candidates.len() {
            let which = (turn + number) % candidates.len();
            // The first round counts nothing.
            let length = if number == 0 { plan.round / 4 } else { plan.round };
            candidates[which].round(length, clock, number > 0).await?;
        }
    }
    let mut figures = Vec::new();
    for one in &candidates {
        let mut latencies = lock(&one.latencies).clone();
        latencies.sort_unstable();
        let cpu = median(one.cpu.iter().copied());
        let p50 = percentile(&latencies, 0.5);
        println!(
            "{name:>18} | {:<9} | {:>6} us CPU a message | latency {:>6} us median, {:>6} us p99 | lost {}",
            one.process.name,
            digits(cpu),
            digits(p50),
            digits(percentile(&latencies, 0.99)),
            one.lost
        );
        figures.push((one.kind, cpu, p50, one.lost));
    }
    let find = |kind| figures.iter().find(|(one, ..)| *one == kind);
    let Some((_, cpu, p50, lost)) = find(Kind::Fuotad) else { return Ok(()) };
    verdicts.at_most(&format!("{name}, lost"), *lost as f64, 0.0);
    match find(Kind::Mosquitto) {
        Some((_, their_cpu, their_p50, _)) => {
            verdicts.at_most(&format!("{name}, CPU of mosquitto's"), cpu / their_cpu, 1.0);
            verdicts.at_most(&format!("{name}, latency of mosquitto's"), p50 / their_p50, 1.0);
        }
        None => verdicts.not_judged(&format!("{name}, against mosquitto")),
    }
    Ok(())
}

impl Candidate {
    async fn start(peers: &Peers, kind: Kind, qos: u8, clock: Instant) -> anyhow::Result<Self> {
        let process = peers.start(kind, &Setting::default()).await?;
        let latencies: Arc<Mutex<Vec<u32>>> = Arc::default();
        let mut tasks = JoinSet::new();
        let mut senders = Vec::new();
        for number in 0..MANY {
            let id = format!("subscriber-{number}");
            let mut client = Client::connect(process.address, &id, None).await?;
            client.subscribe(&Pattern::Pairs.filter(number), qos).await?;
            let heard = Arc::clone(&latencies);
            let note = move |sent: u64| {
                let took = (clock.elapsed().as_nanos() as u64).saturating_sub(sent);
                lock(&heard).push(u32::try_from(took).unwrap_or(u32::MAX));
            };
            tasks.spawn(listen(
                client.busy(),
                number..number + 1,
                Arc::new(Tally::default()),
                note,
            ));
            let id = format!("publisher-{number}");
            let client = Client::connect(process.address, &id, None).await?;
            let (acks, stream) = client.stream.into_split();
            tasks.spawn(ignore(acks));
            let template = Template::new(&Pattern::Pairs.topic(number), qos, number as u32);
            senders.push(Sender { stream, template, next: 0 });
        }
        Ok(Self { kind, process, senders, latencies, tasks, cpu: Vec::new(), lost: 0 })
    }

    async fn round(&mut self, length: Duration, clock: Instant, count: bool) -> anyhow::Result<()> {
        let before = lock(&self.latencies).len();
        let cpu = self.process.cpu()?;
        let mut senders = std::mem::take(&mut self.senders);
        let sending = tokio::task::spawn_blocking(move || {
            let sent = send(&mut senders, length, clock)?;
            anyhow::Ok((senders, sent))
        });
        let (senders, sent) =
            sending.await?.with_context(|| format!("at {}", self.process.name))?;
        self.senders = senders;
        tokio::time::sleep(UNDER_WAY).await;
        if let Some(ended) = self.tasks.try_join_next() {
            ended??;
            anyhow::bail!("a client of {} ended", self.process.name);
        }
        let cpu = self.process.cpu()?.since(&cpu);
        let mut latencies = lock(&self.latencies);
        let delivered = (latencies.len() - before) as u64;
        if count {
            self.cpu.push(cpu * 1e6 / delivered as f64);
            self.lost += sent.saturating_sub(delivered);
        } else {
            latencies.clear();
        }
        Ok(())
    }
}

/// Sends one message after the other, each at its time. Blocks: a thread of its own keeps times
/// that a timer of milliseconds would not.
fn send(senders: &mut [Sender], length: Duration, clock: Instant) -> anyhow::Result<u64> {
    let count = (length.as_secs_f64() * f64::from(RATE)) as u32;
    let begin = Instant::now();
    let mut frame = Vec::new();
    for number in 0..count {
        let due = begin + Duration::from_secs(1) / RATE * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let at = number as usize % senders.len();
        let Sender { stream, template, next } = &mut senders[at];
        frame.clear();
        let id = (*next % 65_535) as u16 + 1;
        template.append(&mut frame, *next, id, clock.elapsed().as_nanos() as u64);
        *next += 1;
        let written = stream.try_write(&frame)?;
        ensure!(written == frame.len(), "a publisher's socket is full");
    }
    Ok(count.into())
}

/// Reads a publisher's acknowledgements.
async fn ignore(acks: OwnedReadHalf) -> anyhow::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        acks.readable().await?;
        match acks.try_read(&mut buffer) {
            Ok(0) => anyhow::bail!("the server closed a publisher's connection"),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
