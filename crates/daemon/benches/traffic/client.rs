//! A client of the load: one connection, MQTT 3.1.1.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::frames;

/// Seconds, longer than any run. Not 0, which stock rumqttd refuses.
const KEEP_ALIVE: u16 = 3600;
/// How long a server may take for an answer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// User name and password.
pub type Login<'a> = Option<(&'a str, &'a str)>;

/// A client that is connected.
pub struct Client<S = TcpStream> {
    pub stream: S,
    /// What was read and not yet looked at.
    pub buffer: BytesMut,
    /// Bytes that are read at once: few for a client that idles.
    at_once: usize,
}

impl Client {
    pub async fn connect(address: SocketAddr, id: &str, login: Login<'_>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Self::log_in(stream, id, login).await
    }

    /// With a session that outlives the connection.
    pub async fn lasting(address: SocketAddr, id: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Self::say(stream, &frames::lasting(id, KEEP_ALIVE)).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// CONNECT and CONNACK.
    pub async fn log_in(stream: S, id: &str, login: Login<'_>) -> anyhow::Result<Self> {
        Self::say(stream, &frames::connect(id, KEEP_ALIVE, login)).await
    }

    async fn say(stream: S, connect: &[u8]) -> anyhow::Result<Self> {
        let mut client = Self { stream, buffer: BytesMut::new(), at_once: 128 };
        let connack = client.ask(connect, frames::CONNACK).await.context("no CONNACK")?;
        ensure!(connack.get(1) == Some(&0), "the CONNECT is refused: {connack:?}");
        Ok(client)
    }

    pub async fn subscribe(&mut self, filter: &str, qos: u8) -> anyhow::Result<()> {
        self.subscribe_all([filter], qos).await
    }

    pub async fn subscribe_all<'a>(
        &mut self,
        filters: impl IntoIterator<Item = &'a str>,
        qos: u8,
    ) -> anyhow::Result<()> {
        let suback = self.ask(&frames::subscribe_all(filters, qos), frames::SUBACK).await;
        let suback = suback.context("no SUBACK")?;
        ensure!(suback[2..].iter().all(|code| *code == qos), "a filter is refused: {suback:?}");
        Ok(())
    }

    pub async fn ping(&mut self) -> anyhow::Result<()> {
        self.ask(&frames::PINGREQ, frames::PINGRESP).await.context("no PINGRESP").map(drop)
    }

    /// From now on it expects a lot.
    pub fn busy(mut self) -> Self {
        self.at_once = 64 * 1024;
        self
    }

    /// Sends a packet and waits for its answer, which must be the next packet.
    async fn ask(&mut self, packet: &[u8], answer: u8) -> anyhow::Result<BytesMut> {
        let conversation = async {
            self.stream.write_all(packet).await?;
            self.stream.flush().await?;
            loop {
                if let Some((kind, body)) = frames::cut(&self.buffer)? {
                    ensure!(kind == answer, "a packet of type {kind} instead of {answer}");
                    let mut whole = self.buffer.split_to(body.end);
                    whole.advance(body.start);
                    // An idle client keeps no buffer.
                    if self.buffer.is_empty() {
                        self.buffer = BytesMut::new();
                    }
                    return Ok(whole);
                }
                self.read().await?;
            }
        };
        match tokio::time::timeout(PATIENCE, conversation).await {
            Ok(answer) => answer,
            Err(_) => bail!("the server does not answer"),
        }
    }

    /// Waits for more bytes.
    pub async fn read(&mut self) -> anyhow::Result<()> {
        self.buffer.reserve(self.at_once);
        let read = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(read > 0, "the server closed the connection");
        Ok(())
    }
}
