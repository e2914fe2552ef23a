//! Publishers and subscribers of one server, and a round of messages between them.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Buf;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::client::{Client, PATIENCE};
use crate::message::{self, Template};
use crate::support::frames;
use crate::support::process::Process;

/// QoS 0: messages in one write. A publisher that has a lot to say does not write each alone.
const BATCH: u64 = 16;
/// QoS 1: messages of one publisher that wait for their PUBACK.
const WINDOW: u64 = 32;
/// What has not come when nothing came for so long is lost.
const QUIET: Duration = Duration::from_secs(1);

/// Who publishes to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    FanIn,
    FanOut,
    Pairs,
}

/// Clients on the side of the many.
pub const MANY: usize = 50;

impl Pattern {
    pub fn publishers(self) -> usize {
        if self == Self::FanOut { 1 } else { MANY }
    }

    pub fn subscribers(self) -> usize {
        if self == Self::FanIn { 1 } else { MANY }
    }

    pub fn topic(self, publisher: usize) -> String {
        format!("plant/line-{publisher:02}/state")
    }

    pub fn filter(self, subscriber: usize) -> String {
        match self {
            Self::FanIn => "plant/+/state".into(),
            Self::FanOut => self.topic(0),
            Self::Pairs => self.topic(subscriber),
        }
    }

    /// The publishers that a subscriber hears.
    fn heard_by(self, subscriber: usize) -> Range<usize> {
        match self {
            Self::FanIn => 0..MANY,
            Self::FanOut => 0..1,
            Self::Pairs => subscriber..subscriber + 1,
        }
    }
}

/// What a subscriber has got so far.
#[derive(Default)]
pub struct Tally {
    pub delivered: AtomicU64,
    /// Each publisher's newest sequence, and one; all together.
    passed: AtomicU64,
    /// Messages that came again, or after newer ones of the same publisher.
    again: AtomicU64,
}

/// Connected clients of one server.
pub struct Rig {
    publishers: Vec<Publisher>,
    pattern: Pattern,
    tallies: Vec<Arc<Tally>>,
    subscribers: JoinSet<anyhow::Result<()>>,
}

/// What a round took.
#[derive(Clone, Copy)]
pub struct Round {
    /// Seconds of the server's CPU.
    pub cpu: f64,
    /// Until the last message came.
    pub seconds: f64,
    pub delivered: u64,
    /// Never came.
    pub lost: u64,
    /// Came twice, or out of order.
    pub again: u64,
}

impl Round {
    pub fn cpu_per_message(&self) -> f64 {
        self.cpu * 1e6 / self.delivered as f64
    }

    pub fn messages_per_second(&self) -> f64 {
        self.delivered as f64 / self.seconds
    }
}

impl Rig {
    /// `lasting` says whether the subscribers' sessions outlive their connections.
    pub async fn connect(
        address: SocketAddr,
        pattern: Pattern,
        qos: u8,
        lasting: bool,
    ) -> anyhow::Result<Self> {
        let mut subscribers = JoinSet::new();
        let mut tallies = Vec::new();
        for number in 0..pattern.subscribers() {
            let id = format!("subscriber-{number}");
            let mut client = match lasting {
                true => Client::lasting(address, &id).await?,
                false => Client::connect(address, &id, None).await?,
            };
            client.subscribe(&pattern.filter(number), qos).await?;
            let tally = Arc::new(Tally::default());
            tallies.push(Arc::clone(&tally));
            let from = pattern.heard_by(number);
            subscribers.spawn(listen(client.busy(), from, tally, |_| {}));
        }
        let mut publishers = Vec::new();
        for number in 0..pattern.publishers() {
            let client = Client::connect(address, &format!("publisher-{number}"), None).await?;
            let template = Template::new(&pattern.topic(number), qos, number as u32);
            publishers.push(Publisher::new(client, template, qos));
        }
        Ok(Self { publishers, pattern, tallies, subscribers })
    }

    /// Sends so many messages as fast as the server takes them, and waits until each has come
    /// or is lost.
    pub async fn round(&mut self, process: &Process, messages: u64) -> anyhow::Result<Round> {
        let each = (messages / self.publishers.len() as u64).max(1);
        let (delivered, again) =
            (self.sum(|tally| &tally.delivered), self.sum(|tally| &tally.again));
        let cpu = process.cpu()?;
        let begin = Instant::now();
        let mut driven = JoinSet::new();
        for mut publisher in self.publishers.drain(..) {
            driven.spawn(async move { publisher.drive(each).await.map(|()| publisher) });
        }
        let finish = async {
            while let Some(publisher) = driven.join_next().await {
                self.publishers.push(publisher??);
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, finish)
            .await
            .with_context(|| format!("{} does not take the messages", process.name))?
            .with_context(|| format!("a publisher at {}", process.name))?;
        let last = self.settle(begin).await.with_context(|| format!("at {}", process.name))?;
        let cpu = process.cpu()?.since(&cpu);
        let delivered = self.sum(|tally| &tally.delivered) - delivered;
        let due = each * (self.pattern.publishers().max(self.pattern.subscribers())) as u64;
        Ok(Round {
            cpu,
            seconds: last.duration_since(begin).as_secs_f64(),
            delivered,
            lost: due.saturating_sub(delivered),
            again: self.sum(|tally| &tally.again) - again,
        })
    }

    /// Waits until each subscriber has got, or passed, all that was sent to it, or nothing more
    /// comes. When the last message came.
    async fn settle(&mut self, begin: Instant) -> anyhow::Result<Instant> {
        let sent = |publisher: usize| {
            let of = self.publishers.iter().find(|one| one.number == publisher);
            of.map_or(0, |publisher| publisher.next)
        };
        let heard = (0..self.pattern.subscribers()).map(|number| self.pattern.heard_by(number));
        let due: u64 = heard.map(|publishers| publishers.map(sent).sum::<u64>()).sum();
        let (mut before, mut last) = (0, begin);
        loop {
            let passed = self.sum(|tally| &tally.passed);
            let now = Instant::now();
            if passed != before {
                (before, last) = (passed, now);
            }
            if passed >= due || now.duration_since(last) > QUIET {
                return Ok(last);
            }
            if let Some(ended) = self.subscribers.try_join_next() {
                ended?.context("a subscriber")?;
                bail!("a subscriber ended");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn sum(&self, counter: impl Fn(&Tally) -> &AtomicU64) -> u64 {
        self.tallies.iter().map(|tally| counter(tally).load(Relaxed)).sum()
    }
}

/// A publisher and what it has sent.
struct Publisher {
    client: Client,
    template: Template,
    qos: u8,
    number: usize,
    /// The next message's sequence.
    next: u64,
    in_flight: u64,
    out: Vec<u8>,
}

impl Publisher {
    fn new(client: Client, template: Template, qos: u8) -> Self {
        let number = template.publisher as usize;
        Self { client, template, qos, number, next: 0, in_flight: 0, out: Vec::new() }
    }

    async fn drive(&mut self, messages: u64) -> anyhow::Result<()> {
        let end = self.next + messages;
        while self.next < end || self.in_flight > 0 {
            let room = if self.qos == 0 { BATCH } else { WINDOW - self.in_flight };
            self.out.clear();
            for _ in 0..room.min(end - self.next) {
                // From 1 to 65,535, over and over.
                let id = (self.next % 65_535) as u16 + 1;
                self.template.append(&mut self.out, self.next, id, 0);
                self.next += 1;
                self.in_flight += u64::from(self.qos > 0);
            }
            if !self.out.is_empty() {
                self.client.stream.write_all(&self.out).await?;
            }
            if self.in_flight > 0 {
                self.client.read().await?;
                self.in_flight -= acknowledged(&mut self.client)?;
            }
        }
        Ok(())
    }
}

/// Takes the PUBACKs out of what was read.
pub fn acknowledged(client: &mut Client) -> anyhow::Result<u64> {
    let mut count = 0;
    while let Some((kind, body)) = frames::cut(&client.buffer)? {
        ensure!(kind == frames::PUBACK, "a packet of type {kind} instead of a PUBACK");
        client.buffer.advance(body.end);
        count += 1;
    }
    Ok(count)
}

/// A subscriber: checks and counts what comes, and acknowledges it where it asks for that. `sent`
/// is told each message's time of sending.
pub async fn listen(
    mut client: Client,
    publishers: Range<usize>,
    tally: Arc<Tally>,
    mut sent: impl FnMut(u64),
) -> anyhow::Result<()> {
    let mut next = vec![0u64; publishers.len()];
    let mut acks = Vec::new();
    loop {
        client.read().await?;
        let (mut at, mut delivered, mut passed, mut again) = (0, 0, 0, 0);
        while let Some((kind, body)) = frames::cut(&client.buffer[at..])? {
            ensure!(kind == frames::PUBLISH, "a packet of type {kind} instead of a PUBLISH");
            let first = client.buffer[at];
            let (id, heard) = message::read(first, &client.buffer[at + body.start..at + body.end])?;
            at += body.end;
            if let Some([high, low]) = id {
                acks.extend_from_slice(&[0x40, 2, high, low]);
            }
            let expected = (heard.publisher as usize)
                .checked_sub(publishers.start)
                .and_then(|index| next.get_mut(index))
                .context("a message that was not subscribed to")?;
            if heard.sequence < *expected {
                again += 1;
                continue;
            }
            passed += heard.sequence + 1 - *expected;
            *expected = heard.sequence + 1;
            delivered += 1;
            sent(heard.nanos);
        }
        client.buffer.advance(at);
        if !acks.is_empty() {
            client.stream.write_all(&acks).await?;
            acks.clear();
        }
        tally.delivered.fetch_add(delivered, Relaxed);
        tally.again.fetch_add(again, Relaxed);
        tally.passed.fetch_add(passed, Relaxed);
    }
}
