//! The devices: each fetches the image and goes on with what it has when its connection breaks.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::firmware::{self, Image};
use crate::support::frames;

/// How a device fetches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// One block for each round trip.
    Reference,
    /// One request for all that is missing, in blocks of 4 KB.
    Native,
    /// One request for the rest of the body.
    Http,
}

/// Breaks after which a device gives up.
const MOST_BREAKS: usize = 100;

impl Device {
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Native => "native",
            Self::Http => "HTTP",
        }
    }

    /// Fetches the image from nothing, and says how long that took.
    pub async fn fetch(self, to: SocketAddr, id: &str, image: &Image) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let mut have = Have::default();
        for _ in 0..MOST_BREAKS {
            let whole = match self {
                Self::Reference => have.reference(to, id, image).await?,
                Self::Native => have.native(to, id, image).await?,
                Self::Http => have.http(to, id, image).await?,
            };
            if whole {
                ensure!(have.bytes == image.bytes, "{} got another image", self.name());
                return Ok(begin.elapsed());
            }
        }
        bail!("{} never got the whole image", self.name())
    }
}

/// What a device has; all of them get it in order.
#[derive(Default)]
struct Have {
    bytes: Vec<u8>,
    /// The image's name, in the native dialect.
    image: Option<Vec<u8>>,
}

/// Packets of one connection.
struct Packets {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Packets {
    async fn open(to: SocketAddr, first: &[u8]) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        stream.write_all(first).await?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// The payload of the next PUBLISH; `None` when the connection is gone.
    async fn publish(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some((kind, body)) = frames::cut(&self.buffer)? {
                let rest = self.buffer.split_off(body.end);
                let packet = std::mem::replace(&mut self.buffer, rest);
                if kind == frames::PUBLISH {
                    return Ok(Some(frames::payload(&packet[body])?.to_vec()));
                }
                continue;
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
        }
    }
}

/// CONNECT and SUBSCRIBE in one flight: a client need not wait for the CONNACK.
fn greeting(id: &str, topic: &str) -> Vec<u8> {
    [frames::connect(id, 60, None), frames::subscribe(topic, 0)].concat()
}

impl Have {
    async fn reference(&mut self, to: SocketAddr, id: &str, image: &Image) -> anyhow::Result<bool> {
        let mut first = greeting(id, firmware::TOPIC);
        let mut next = (self.bytes.len() / image.chunk) as u32;
        if next > 0 {
            firmware::request(&mut first, next);
        }
        let mut packets = Packets::open(to, &first).await?;
        while let Some(payload) = packets.publish().await? {
            let json: serde_json::Value = serde_json::from_slice(&payload)?;
            match json["variable"].as_str() {
                Some("firmware_manifest") if next == 0 => {}
                Some("firmware_block") if json["value"] == next => {
                    let data = json["metadata"]["data"].as_str().context("no data")?;
                    self.bytes.extend(STANDARD.decode(data)?);
                    next += 1;
                    if next == image.blocks {
                        return Ok(true);
                    }
                }
                Some("fuota_error") => bail!("the server answers {}", json["value"]),
                _ => continue,
            }
            let mut request = Vec::new();
            firmware::request(&mut request, next);
            if packets.stream.write_all(&request).await.is_err() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    async fn native(&mut self, to: SocketAddr, id: &str, image: &Image) -> anyhow::Result<bool> {
        let get = |name: &[u8], from: usize| {
            let first = (from / image.chunk) as u32;
            let mut message = b"\0\x0bfuota/v1/up\x02".to_vec();
            message.extend(name);
            message.extend((image.chunk as u16).to_be_bytes());
            message.push(0);
            message.extend(first.to_be_bytes());
            message.extend((image.blocks - first).to_be_bytes());
            frames::packet(0x30, &message)
        };
        let mut first = greeting(id, "fuota/v1/down");
        if let Some(name) = &self.image {
            first.extend(get(name, self.bytes.len()));
        }
        let mut packets = Packets::open(to, &first).await?;
        while let Some(payload) = packets.publish().await? {
            match payload.first() {
                // The image is the first field.
                Some(0x81) if self.image.is_none() => {
                    let name = payload.get(3..11).context("a manifest without an image")?.to_vec();
                    let request = get(&name, 0);
                    self.image = Some(name);
                    if packets.stream.write_all(&request).await.is_err() {
                        return Ok(false);
                    }
                }
                Some(0x82) => {
                    let offset = payload.get(9..13).context("a block without an offset")?;
                    let offset = u32::from_be_bytes(offset.try_into()?) as usize;
                    ensure!(offset == self.bytes.len(), "a block out of order");
                    self.bytes.extend(&payload[13..]);
                    if self.bytes.len() == image.bytes.len() {
                        return Ok(true);
                    }
                }
                Some(0x84) => {
                    bail!("the server answers {}", String::from_utf8_lossy(&payload[2..]))
                }
                _ => {}
            }
        }
        Ok(false)
    }

    async fn http(&mut self, to: SocketAddr, id: &str, image: &Image) -> anyhow::Result<bool> {
        let mut stream = TcpStream::connect(to).await?;
        let range = match self.bytes.len() {
            0 => String::new(),
            from => format!("Range: bytes={from}-\r\n"),
        };
        let request = format!("GET /devices/{id}/firmware HTTP/1.1\r\nHost: x\r\n{range}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut buffer = Vec::new();
        let mut head = None;
        loop {
            let (end, before) = (buffer.len(), head);
            if let (None, Some(at)) = (head, buffer.windows(4).position(|part| part == b"\r\n\r\n"))
            {
                ensure!(buffer.starts_with(b"HTTP/1.1 20"), "the server refuses");
                head = Some(at + 4);
                self.bytes.extend(&buffer[at + 4..]);
            }
            if self.bytes.len() == image.bytes.len() {
                return Ok(true);
            }
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return Ok(false),
                Ok(_) if before.is_some() || head.is_some() => self.bytes.extend(&buffer[end..]),
                Ok(_) => {}
            }
        }
    }
}
