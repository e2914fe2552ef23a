//! What a publish on a topic costs that nobody ever published on, with few and with many filters.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::AsyncWriteExt;

use crate::Plan;
use crate::client::Client;
use crate::message::Template;
use crate::peers::{Kind, Peers, Setting};
use crate::report::{Verdicts, digits};
use crate::rig::{Tally, listen};
use crate::support::figures::median;
use crate::support::process::Process;

const FEW: usize = 20;
const MANY: usize = 20_000;
/// Filters of one session, and of one SUBSCRIBE.
const PER_SESSION: usize = 1_000;
const PER_SUBSCRIBE: usize = 100;
/// Publishes on their way at the same time: few enough for any queue.
const WINDOW: u64 = 200;
/// The cost with many filters, of that with few. Measured again and again on one server with the
/// same filters, it differs by a tenth.
const BOUND: f64 = 1.2;

pub async fn run(peers: &Peers, plan: &Plan, verdicts: &mut Verdicts) -> anyhow::Result<()> {
    println!(
        "\nTOPICS: publishes on topics never seen before, to one subscriber, beside {FEW} or {MANY} distinct filters of others\n"
    );
    for kind in peers.kinds() {
        let mut few = Candidate::start(peers, kind, FEW).await?;
        let mut many = Candidate::start(peers, kind, MANY).await?;
        for number in 0..=plan.rounds {
            let length = if number == 0 { plan.round / 4 } else { plan.round / 2 };
            let mut pair = [&mut few, &mut many];
            pair.rotate_left(number % 2);
            for one in pair {
                one.round(length, number > 0).await?;
            }
        }
        let (few, many) = (few.cost(), many.cost());
        let name = kind.name();
        println!(
            "{:>18} | {name:<9} | {:>7} us CPU a publish with {FEW} filters, {:>7} us with {MANY}: {} x",
            "new topics",
            digits(few),
            digits(many),
            digits(many / few)
        );
        if kind == Kind::Fuotad {
            let what = format!("a new topic with {MANY} filters, of that with {FEW}");
            verdicts.at_most(&what, many / few, BOUND);
        }
    }
    Ok(())
}

/// A server with so many filters.
struct Candidate {
    process: Process,
    publisher: Client,
    tally: Arc<Tally>,
    next: u64,
    cpu: Vec<f64>,
    /// They hold the filters.
    _others: Vec<Client>,
}

impl Candidate {
    async fn start(peers: &Peers, kind: Kind, filters: usize) -> anyhow::Result<Self> {
        let process = peers.start(kind, &Setting::default()).await?;
        let filters: Vec<String> = (0..filters).map(filter).collect();
        let mut others = Vec::new();
        for (number, share) in filters.chunks(PER_SESSION).enumerate() {
            let id = format!("other-{number}");
            let mut client = Client::connect(process.address, &id, None).await?;
            for some in share.chunks(PER_SUBSCRIBE) {
                client.subscribe_all(some.iter().map(String::as_str), 0).await?;
            }
            others.push(client);
        }
        let mut subscriber = Client::connect(process.address, "subscriber", None).await?;
        subscriber.subscribe("plant/+/+/new", 0).await?;
        let tally = Arc::new(Tally::default());
        tokio::spawn(listen(subscriber.busy(), 0..1, Arc::clone(&tally), |_| {}));
        let publisher = Client::connect(process.address, "publisher", None).await?;
        Ok(Self { process, publisher, tally, next: 0, cpu: Vec::new(), _others: others })
    }

    fn cost(&self) -> f64 {
        median(self.cpu.iter().copied())
    }

    async fn round(&mut self, length: Duration, count: bool) -> anyhow::Result<()> {
        let (cpu, first) = (self.process.cpu()?, self.next);
        let end = Instant::now() + length;
        let mut out = Vec::new();
        while Instant::now() < end {
            out.clear();
            let under_way = self.next - self.tally.delivered.load(Relaxed);
            for _ in under_way..WINDOW {
                let template = Template::new(&topic(self.next), 0, 0);
                template.append(&mut out, self.next, 0, 0);
                self.next += 1;
            }
            self.publisher.stream.write_all(&out).await?;
            tokio::task::yield_now().await;
        }
        let arrived = async {
            while self.tally.delivered.load(Relaxed) < self.next {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(crate::client::PATIENCE, arrived)
            .await
            .with_context(|| format!("{} loses messages", self.process.name))?;
        let cpu = self.process.cpu()?.since(&cpu);
        if count {
            self.cpu.push(cpu * 1e6 / (self.next - first) as f64);
        }
        Ok(())
    }
}

/// Filters that stand beside the topics' path, some with wildcards.
fn filter(number: usize) -> String {
    match number % 4 {
        0 => format!("plant/line-{number}/+/alarm"),
        1 => format!("plant/line-{number}/press-{number}/#"),
        2 => format!("plant/line-1/press-{number}/state"),
        _ => format!("plant/line-{number}/press/state"),
    }
}

/// A topic that no other number has, which begins as some of the filters do.
fn topic(number: u64) -> String {
    format!("plant/line-{}/tool-{number}/new", number % 1000)
}
