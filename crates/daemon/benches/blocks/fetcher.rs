//! A device of the load that fetches over HTTP: one connection that stays open, and ranges one after
//! the other.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::device::{Limit, Tally};
use crate::servers::Server;

/// How long a server may take for a response.
const WITHIN: Duration = Duration::from_secs(60);
/// Read at once.
const READ: usize = 64 * 1024;

/// A device, and how far it is with its image.
pub struct Fetcher {
    stream: TcpStream,
    id: String,
    /// Blocks that one request names.
    range: u32,
    next: u32,
    requests: u64,
    buffer: Vec<u8>,
}

impl Fetcher {
    pub async fn connect(server: &Server, range: u32) -> anyhow::Result<Self> {
        let address = server.process.http.context("the server has no listener for HTTP")?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let buffer = vec![0; READ];
        Ok(Self { stream, id: server.new_id(), range, next: 0, requests: 0, buffer })
    }

    /// Fetches ranges until `limit`; what is under way then is fetched to its end.
    ///
    /// A device that has its whole image leaves, and a new one takes its place.
    pub async fn drive(&mut self, server: &Server, limit: &Limit) -> anyhow::Result<Tally> {
        let mut tally = Tally::default();
        while limit.take(Instant::now()) {
            if self.next == server.blocks {
                *self = Self::connect(server, self.range).await?;
            }
            let begin = Instant::now();
            let blocks = self.range.min(server.blocks - self.next);
            tokio::time::timeout(WITHIN, self.fetch(server, blocks))
                .await
                .with_context(|| format!("{} answers no request", server.process.name))??;
            let latency = u32::try_from(begin.elapsed().as_nanos()).unwrap_or(u32::MAX);
            self.next += blocks;
            tally.blocks += u64::from(blocks);
            tally.latencies.push(latency);
        }
        Ok(tally)
    }

    async fn fetch(&mut self, server: &Server, blocks: u32) -> anyhow::Result<()> {
        let image = server.offers.as_ref().context("the floor has no image")?;
        let from = self.next as usize * image.chunk;
        let part =
            image.bytes.get(from..from + blocks as usize * image.chunk).context("no part")?;
        let mut request = Vec::with_capacity(128);
        write!(
            request,
            "GET /devices/{}/firmware HTTP/1.1\r\nHost: bench\r\nRange: bytes={from}-{}\r\n\r\n",
            self.id,
            from + part.len() - 1
        )?;
        self.stream.write_all(&request).await?;
        let mut filled = 0;
        let head = loop {
            filled += self.read(filled).await?;
            if let Some(end) = self.buffer[..filled].windows(4).position(|at| at == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = std::str::from_utf8(&self.buffer[..head])?;
        ensure!(text.starts_with("HTTP/1.1 206 "), "{text}");
        let length = format!("content-length: {}\r\n", part.len());
        ensure!(text.to_ascii_lowercase().contains(&length), "no {length} in {text}");
        // As often as of other devices a block is compared, a piece of what was read is.
        let compare = self.requests.is_multiple_of((256 / u64::from(self.range)).max(1));
        self.requests += 1;
        let mut done = 0;
        let mut piece = head..filled;
        loop {
            let size = piece.len();
            ensure!(done + size <= part.len(), "more bytes than were asked for");
            if compare && done == 0 {
                let same = self.buffer[piece] == part[done..done + size];
                ensure!(same, "other bytes than the image at {from}");
            }
            done += size;
            if done == part.len() {
                return Ok(());
            }
            piece = 0..self.read(0).await?;
        }
    }

    async fn read(&mut self, at: usize) -> anyhow::Result<usize> {
        ensure!(at < self.buffer.len(), "a head without an end");
        let read = self.stream.read(&mut self.buffer[at..]).await?;
        ensure!(read > 0, "the server closed the connection");
        Ok(read)
    }
}
