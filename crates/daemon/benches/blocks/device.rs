//! A device of the load: a socket and a window of requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::servers::Server;
use crate::speech::{Block, Dialect, Speech};
use crate::support::firmware;
use crate::support::frames;

/// One block in so many is decoded and compared byte for byte; of all others index and length
/// are looked at. Comparing all would measure this program.
const VERIFY_EVERY: u64 = 256;
/// How long a server may take to connect a device and send its manifest.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// Read at once, for each request in flight: a little more than a block.
const READ_PER_REQUEST: usize = 6 * 1024;

/// When devices stop asking.
#[derive(Clone)]
pub enum Limit {
    /// At this moment.
    Until(Instant),
    /// When so many blocks have been asked for, by all devices together.
    Blocks(Arc<AtomicI64>),
}

impl Limit {
    /// Whether one more request is within; it counts as asked then.
    pub fn take(&self, now: Instant) -> bool {
        match self {
            Self::Until(end) => now < *end,
            Self::Blocks(left) => left.fetch_sub(1, Relaxed) > 0,
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Until(end) => Instant::now() >= *end,
            Self::Blocks(left) => left.load(Relaxed) <= 0,
        }
    }
}

/// What a device got in a round.
#[derive(Default)]
pub struct Tally {
    pub blocks: u64,
    /// From the request's write to the block's read, in nanoseconds, up to 4 seconds.
    pub latencies: Vec<u32>,
}

/// A device that is connected, subscribed and, where the server offers an image, has its manifest.
pub struct Device {
    stream: TcpStream,
    speech: Speech,
    window: usize,
    /// What was read, from `start` to `end`, begins with a packet.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    out: Vec<u8>,
    /// Requests under way, in their order.
    asked: VecDeque<(u32, Instant)>,
    next: u32,
    received: u64,
    /// See [`crate::speech::Block::length`].
    payload: Option<usize>,
}

impl Device {
    /// Connects a new device with `window` requests in flight.
    pub async fn connect(server: &Server, window: usize, dialect: Dialect) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server.process.address).await?;
        stream.set_nodelay(true)?;
        let mut device = Self {
            stream,
            speech: Speech::new(dialect, server.new_id()),
            window,
            buffer: vec![0; (window * READ_PER_REQUEST).max(8 * 1024)],
            start: 0,
            end: 0,
            out: Vec::new(),
            asked: VecDeque::with_capacity(window),
            next: 0,
            received: 0,
            payload: None,
        };
        tokio::time::timeout(CONNECT_WITHIN, device.log_in(server))
            .await
            .with_context(|| format!("{} connects no device", server.process.name))??;
        Ok(device)
    }

    async fn log_in(&mut self, server: &Server) -> anyhow::Result<()> {
        self.stream.write_all(&self.speech.greeting()).await?;
        let connack = self.packet(frames::CONNACK).await?;
        ensure!(
            connack.get(1) == Some(&0),
            "{} refuses the CONNECT: {connack:?}",
            server.process.name
        );
        let Some(image) = &server.offers else {
            self.packet(frames::SUBACK).await?;
            return Ok(());
        };
        let mut subscribed = false;
        let mut offered = false;
        loop {
            while let Some((kind, body)) = frames::cut(&self.buffer[self.start..self.end])? {
                let bytes = &self.buffer[self.start + body.start..self.start + body.end];
                match kind {
                    frames::SUBACK => subscribed = true,
                    frames::PUBLISH => offered |= self.speech.is_offer(bytes, image)?,
                    other => anyhow::bail!("an unexpected packet of type {other}"),
                }
                self.start += body.end;
            }
            if subscribed && offered {
                return Ok(());
            }
            self.read().await?;
        }
    }

    /// Asks for blocks until `limit`, then waits for what is under way.
    ///
    /// A device that has its whole image leaves, and a new one takes its place.
    pub async fn drive(&mut self, server: &Server, limit: &Limit) -> anyhow::Result<Tally> {
        let mut tally = Tally::default();
        let mut now = Instant::now();
        loop {
            while self.asked.len() < self.window && self.next < server.blocks && limit.take(now) {
                self.speech.request(&mut self.out, self.next);
                self.asked.push_back((self.next, now));
                self.next += 1;
            }
            if self.asked.is_empty() {
                if self.next < server.blocks || limit.is_over() {
                    return Ok(tally);
                }
                *self = Self::connect(server, self.window, self.speech.dialect).await?;
                now = Instant::now();
                continue;
            }
            if !self.out.is_empty() {
                self.stream.write_all(&self.out).await?;
                self.out.clear();
            }
            self.read().await?;
            now = Instant::now();
            self.take_blocks(server, now, &mut tally)?;
        }
    }

    fn take_blocks(
        &mut self,
        server: &Server,
        now: Instant,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        while let Some((kind, body)) = frames::cut(&self.buffer[self.start..self.end])? {
            let bytes = &self.buffer[self.start + body.start..self.start + body.end];
            ensure!(kind == frames::PUBLISH, "an unexpected packet of type {kind}");
            let asked = match &server.offers {
                // The floor's frames are all the same, so there is nothing to look at.
                None => self.asked.pop_front(),
                Some(image) => match self.speech.hear(bytes)? {
                    None => {
                        self.start += body.end;
                        continue;
                    }
                    Some(Block { index, length }) => {
                        if self.received.is_multiple_of(VERIFY_EVERY) {
                            self.speech.verify(bytes, index, image)?;
                            self.payload.get_or_insert(length);
                        }
                        ensure!(self.payload == Some(length), "block {index} has another length");
                        let at = self.asked.iter().position(|(asked, _)| *asked == index);
                        self.asked
                            .remove(at.with_context(|| format!("block {index} was not asked for"))?)
                    }
                },
            };
            let (_, since) = asked.context("a block that was not asked for")?;
            self.received += 1;
            tally.blocks += 1;
            let latency = now.saturating_duration_since(since).as_nanos();
            tally.latencies.push(u32::try_from(latency).unwrap_or(u32::MAX));
            self.start += body.end;
        }
        Ok(())
    }

    /// Waits for one packet, which must be of this type.
    async fn packet(&mut self, expected: u8) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some((kind, body)) = frames::cut(&self.buffer[self.start..self.end])? {
                ensure!(kind == expected, "a packet of type {kind} instead of {expected}");
                let bytes = self.buffer[self.start + body.start..self.start + body.end].to_vec();
                self.start += body.end;
                return Ok(bytes);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        ensure!(self.end < self.buffer.len(), "a packet that is larger than any block");
        let read = self.stream.read(&mut self.buffer[self.end..]).await?;
        ensure!(read > 0, "the server closed the connection");
        self.end += read;
        Ok(())
    }
}

/// Bytes of a whole PUBLISH with a block, as the server sends it.
pub async fn block_size(server: &Server) -> anyhow::Result<usize> {
    let mut device = Device::connect(server, 1, Dialect::Reference).await?;
    firmware::request(&mut device.out, 0);
    device.stream.write_all(&device.out).await?;
    // The read buffer begins with the block then, since nothing else is under way.
    let block = device.packet(frames::PUBLISH);
    let body = tokio::time::timeout(CONNECT_WITHIN, block).await.context("no block comes")??;
    let payload = frames::payload(&body)?;
    let image = server.offers.as_ref().context("the floor has no blocks")?;
    firmware::verify(payload, image)?;
    Ok(1 + 2 + body.len())
}
