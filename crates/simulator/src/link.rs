//! A connection to the broker: it is made, logged in and subscribed, or it is not there.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mqtt::{self, Connect, Malformed, Packet};
use crate::options::Protocol;
use crate::words::Words;

/// As the reference device has it, in seconds.
const KEEP_ALIVE: u16 = 60;
/// When a ping goes out that nothing else made unnecessary: in time, also on a slow machine.
const PING_AFTER: Duration = Duration::from_secs(45);
/// How long connecting, logging in and subscribing may take together.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// How a device introduces itself.
#[derive(Clone)]
pub(crate) struct Login {
    pub broker: String,
    pub protocol: Protocol,
    pub client_id: String,
    pub token: Option<String>,
    pub model: Option<String>,
    pub words: Words,
}

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("cannot reach the broker: {0}")]
    Unreachable(io::Error),
    #[error("the broker did not answer the login within {CONNECT_WITHIN:?}")]
    Timeout,
    #[error("the broker refuses the login: {}", describe(*.0))]
    Refused(u8),
    #[error("the broker answers the login with something other than a CONNACK")]
    NoConnAck,
    #[error("the broker refuses the subscription of {topic} with code {code:#04x}")]
    SubscriptionRefused { topic: &'static str, code: u8 },
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker ended the connection with reason {0:#04x}")]
    Disconnected(u8),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("the broker sent {0}")]
    Malformed(#[from] Malformed),
}

impl LinkError {
    /// Whether another attempt may end better, rather than in the same way.
    pub(crate) fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Refused(code) => {
                // 3.1.1: server unavailable. 5: unavailable, busy, quota, connection rate.
                matches!(code, 0x03 | 0x88 | 0x89 | 0x97 | 0x9f)
            }
            Self::SubscriptionRefused { .. } | Self::NoConnAck | Self::Malformed(_) => false,
            _ => true,
        }
    }
}

/// The codes that a device meets, in words; those of 3.1.1 and of 5.
fn describe(code: u8) -> String {
    let words = match code {
        0x01 | 0x84 => "it does not speak this MQTT version",
        0x02 | 0x85 => "the client id is not accepted",
        0x03 | 0x88 => "the server is unavailable",
        0x04 | 0x86 => "bad user name or password (token)",
        0x05 | 0x87 => "not authorized",
        0x89 => "the server is busy",
        0x8a => "banned",
        0x97 => "quota exceeded",
        0x9f => "too many connections at once",
        _ => return format!("code {code:#04x}"),
    };
    format!("{words} (code {code:#04x})")
}

/// A connection that is logged in and subscribed.
pub(crate) struct Link {
    stream: TcpStream,
    protocol: Protocol,
    words: Words,
    read: BytesMut,
    write: BytesMut,
    last_write: Instant,
    /// Messages that came before the SUBACK.
    early: VecDeque<Bytes>,
}

impl Link {
    /// Connects, logs in and subscribes.
    pub(crate) async fn open(login: &Login) -> Result<Self, LinkError> {
        let open = async {
            let stream = TcpStream::connect(&login.broker).await.map_err(LinkError::Unreachable)?;
            stream.set_nodelay(true).map_err(LinkError::Unreachable)?;
            let mut link = Self {
                stream,
                protocol: login.protocol,
                words: login.words,
                read: BytesMut::new(),
                write: BytesMut::new(),
                last_write: Instant::now(),
                early: VecDeque::new(),
            };
            link.log_in(login).await?;
            Ok(link)
        };
        tokio::time::timeout(CONNECT_WITHIN, open).await.map_err(|_| LinkError::Timeout)?
    }

    async fn log_in(&mut self, login: &Login) -> Result<(), LinkError> {
        let connect = Connect {
            protocol: login.protocol,
            client_id: &login.client_id,
            token: login.token.as_deref(),
            model: login.model.as_deref(),
            keep_alive: KEEP_ALIVE,
        };
        connect.encode(&mut self.write);
        self.flush().await?;
        match self.packet().await? {
            Packet::ConnAck(0) => {}
            Packet::ConnAck(code) => return Err(LinkError::Refused(code)),
            _ => return Err(LinkError::NoConnAck),
        }
        let downlink = self.words.downlink();
        mqtt::subscribe(self.protocol, downlink, &mut self.write);
        self.flush().await?;
        // A server may deliver before it sends the SUBACK.
        loop {
            match self.packet().await? {
                Packet::SubAck(code) if code < 0x80 => return Ok(()),
                Packet::SubAck(code) => {
                    return Err(LinkError::SubscriptionRefused { topic: downlink, code });
                }
                Packet::Publish { topic, payload } if topic == downlink => {
                    self.early.push_back(payload)
                }
                Packet::Disconnect(code) => return Err(LinkError::Disconnected(code)),
                _ => {}
            }
        }
    }

    /// Puts a publish on the topic where devices speak into the write buffer.
    pub(crate) fn publish(&mut self, payload: &[u8]) {
        mqtt::publish(self.protocol, self.words.uplink(), payload, &mut self.write);
    }

    /// Writes what is in the write buffer, in one go.
    pub(crate) async fn flush(&mut self) -> Result<(), LinkError> {
        if self.write.is_empty() {
            return Ok(());
        }
        self.stream.write_all_buf(&mut self.write).await.map_err(LinkError::Broken)?;
        self.last_write = Instant::now();
        Ok(())
    }

    /// The next message on the downlink that has already been read, if any.
    pub(crate) fn buffered(&mut self) -> Result<Option<Bytes>, LinkError> {
        if let Some(payload) = self.early.pop_front() {
            return Ok(Some(payload));
        }
        while let Some(packet) = mqtt::decode(self.protocol, &mut self.read)? {
            match packet {
                Packet::Publish { topic, payload } if topic == self.words.downlink() => {
                    return Ok(Some(payload));
                }
                Packet::Disconnect(code) => return Err(LinkError::Disconnected(code)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Waits until more has been read, and keeps the connection alive meanwhile.
    ///
    /// Cancelling it loses nothing.
    pub(crate) async fn fill(&mut self) -> Result<(), LinkError> {
        loop {
            let ping_at = tokio::time::Instant::from_std(self.last_write + PING_AFTER);
            tokio::select! {
                read = self.stream.read_buf(&mut self.read) => {
                    return match read {
                        Ok(0) => Err(LinkError::Closed),
                        Ok(_) => Ok(()),
                        Err(error) => Err(LinkError::Broken(error)),
                    };
                }
                () = tokio::time::sleep_until(ping_at) => {
                    mqtt::ping(&mut self.write);
                    self.last_write = Instant::now();
                    self.flush().await?;
                }
            }
        }
    }

    /// Says goodbye and waits for the server to hang up, so that all that was said has been heard;
    /// a server that does not is left after a second.
    pub(crate) async fn close(mut self) {
        mqtt::disconnect(&mut self.write);
        let goodbye = async {
            self.flush().await?;
            loop {
                self.fill().await?;
                self.read.clear();
            }
        };
        let _: Result<Result<(), LinkError>, _> =
            tokio::time::timeout(Duration::from_secs(1), goodbye).await;
    }

    async fn packet(&mut self) -> Result<Packet, LinkError> {
        loop {
            if let Some(packet) = mqtt::decode(self.protocol, &mut self.read)? {
                return Ok(packet);
            }
            self.fill().await?;
        }
    }
}
