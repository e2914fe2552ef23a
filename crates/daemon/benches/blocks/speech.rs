//! How a device of the load asks and hears, in each dialect: bytes, written and read by hand.

use std::io::Write;
use std::ops::Range;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::firmware::{self, Heard, Image};
use crate::support::frames;

/// The dialects whose cost is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Dialect {
    Reference,
    #[value(name = "thingsboard")]
    ThingsBoard,
    Aws,
    AwsJson,
    Native,
    /// Ranges of as many blocks as a device has in flight, one response after the other.
    Http,
    /// Ranges of [`LONG`] blocks.
    HttpLong,
}

/// Blocks of a long range: 1 MiB.
pub const LONG: u32 = 256;

impl Dialect {
    pub const ALL: [Self; 7] = [
        Self::Reference,
        Self::ThingsBoard,
        Self::Aws,
        Self::AwsJson,
        Self::Native,
        Self::Http,
        Self::HttpLong,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::ThingsBoard => "thingsboard",
            Self::Aws => "aws (CBOR)",
            Self::AwsJson => "aws (JSON)",
            Self::Native => "native",
            Self::Http => "http",
            Self::HttpLong => "http (1 MiB)",
        }
    }
}

/// One device's conversation over MQTT.
pub struct Speech {
    pub dialect: Dialect,
    id: String,
    /// How requests name the image: a stream, or eight bytes.
    name: Vec<u8>,
    chunk: usize,
}

/// A block that came.
pub struct Block {
    pub index: u32,
    /// Bytes of the packet without those that depend on the index.
    pub length: usize,
}

impl Speech {
    pub fn new(dialect: Dialect, id: String) -> Self {
        Self { dialect, id, name: Vec::new(), chunk: 0 }
    }

    /// CONNECT, SUBSCRIBE, and the question for firmware where the dialect has one.
    pub fn greeting(&self) -> Vec<u8> {
        let Self { id, .. } = self;
        let mut out = frames::connect(id, 0, None);
        let (filters, question) = match self.dialect {
            Dialect::Reference => (vec![firmware::TOPIC.to_owned()], None),
            Dialect::ThingsBoard => (
                vec!["v2/fw/response/+".into(), "v1/devices/me/attributes/response/+".into()],
                Some(("v1/devices/me/attributes/request/1".to_owned(), &b"{}"[..])),
            ),
            Dialect::Aws | Dialect::AwsJson => (
                vec![format!("$aws/things/{id}/jobs/notify-next")],
                Some((format!("$aws/things/{id}/jobs/$next/get"), &b"{}"[..])),
            ),
            Dialect::Native => {
                (vec!["fuota/v1/down".into()], Some(("fuota/v1/up".to_owned(), &b"\x01"[..])))
            }
            Dialect::Http | Dialect::HttpLong => (Vec::new(), None), // not over MQTT
        };
        out.extend(frames::subscribe_all(filters.iter().map(String::as_str), 0));
        if let Some((topic, payload)) = question {
            publish(&mut out, &topic, payload);
        }
        out
    }

    /// Whether this PUBLISH announces the image; an error if it is another one.
    pub fn is_offer(&mut self, body: &[u8], image: &Image) -> anyhow::Result<bool> {
        self.chunk = image.chunk;
        let payload = frames::payload(body)?;
        let size = match self.dialect {
            Dialect::Reference => return firmware::is_manifest(payload, image),
            Dialect::ThingsBoard => {
                serde_json::from_slice::<Value>(payload)?["shared"]["fw_size"].as_u64()
            }
            Dialect::Aws | Dialect::AwsJson => {
                let said: Value = serde_json::from_slice(payload)?;
                let update = &said["execution"]["jobDocument"]["afr_ota"];
                self.name = update["streamname"].as_str().unwrap_or_default().into();
                update["files"][0]["filesize"].as_u64()
            }
            Dialect::Native => {
                let (Some(0x81), Some(name)) = (payload.first(), payload.get(3..11)) else {
                    return Ok(false);
                };
                self.name = name.to_vec();
                let size = payload.get(13..17).context("a manifest without a size")?;
                Some(u32::from_be_bytes(size.try_into()?).into())
            }
            Dialect::Http | Dialect::HttpLong => bail!("HTTP has no offers"),
        };
        let Some(size) = size else { return Ok(false) };
        ensure!(size == image.bytes.len() as u64, "the offer is of another image: {size} bytes");
        Ok(true)
    }

    /// Appends a PUBLISH that asks for one block.
    pub fn request(&self, out: &mut Vec<u8>, index: u32) {
        match self.dialect {
            Dialect::Reference => firmware::request(out, index),
            Dialect::ThingsBoard => {
                let size = self.chunk.to_string();
                publish(out, &format!("v2/fw/request/1/chunk/{index}"), size.as_bytes());
            }
            Dialect::Aws => {
                let stream = String::from_utf8_lossy(&self.name);
                let topic = format!("$aws/things/{}/streams/{stream}/get/cbor", self.id);
                let mut map = b"\xa4\x61f\x00\x61l\x19".to_vec();
                map.extend((self.chunk as u16).to_be_bytes());
                map.extend(b"\x61o\x1a");
                map.extend(index.to_be_bytes());
                map.extend(b"\x61n\x01");
                publish(out, &topic, &map);
            }
            Dialect::AwsJson => {
                let stream = String::from_utf8_lossy(&self.name);
                let topic = format!("$aws/things/{}/streams/{stream}/get/json", self.id);
                let get = format!(r#"{{"f":0,"l":{},"o":{index},"n":1}}"#, self.chunk);
                publish(out, &topic, get.as_bytes());
            }
            Dialect::Native => {
                let mut get = vec![2];
                get.extend(&self.name);
                get.extend((self.chunk as u16).to_be_bytes());
                get.push(0);
                get.extend(index.to_be_bytes());
                get.extend(1u32.to_be_bytes());
                publish(out, "fuota/v1/up", &get);
            }
            Dialect::Http | Dialect::HttpLong => {}
        }
    }

    /// What a PUBLISH holds; `None`: nothing that the load has a use for.
    pub fn hear(&self, body: &[u8]) -> anyhow::Result<Option<Block>> {
        let payload = frames::payload(body)?;
        let topic = &body[2..body.len() - payload.len()];
        Ok(match self.dialect {
            Dialect::Reference => match firmware::hear(payload)? {
                Heard::Other => None,
                Heard::Block(index) => {
                    let digits = index.checked_ilog10().unwrap_or(0) as usize + 1;
                    Some(Block { index, length: payload.len() - digits })
                }
            },
            Dialect::ThingsBoard => match topic.strip_prefix(b"v2/fw/response/1/chunk/") {
                Some(digits) => {
                    let index = std::str::from_utf8(digits)?.parse()?;
                    Some(Block { index, length: payload.len() })
                }
                None if topic == b"v2/fw/error" => bail!("{}", String::from_utf8_lossy(payload)),
                None => None,
            },
            Dialect::Aws if topic.ends_with(b"/data/cbor") => {
                let at = member(payload, b'i')?;
                let (index, digits) = unsigned(&payload[at..])?;
                Some(Block { index: u32::try_from(index)?, length: payload.len() - digits })
            }
            Dialect::AwsJson if topic.ends_with(b"/data/json") => {
                let mut parts = payload.splitn(2, |byte| *byte == b'p');
                let head = std::str::from_utf8(parts.next().unwrap_or_default())?;
                let rest = head.split_once("\"i\":").context("a block without a number")?.1;
                let digits = rest.split(',').next().unwrap_or_default();
                Some(Block { index: digits.parse()?, length: payload.len() - digits.len() })
            }
            Dialect::Aws | Dialect::AwsJson => {
                ensure!(
                    !(topic.ends_with(b"/rejected/cbor") || topic.ends_with(b"/rejected/json")),
                    "{}",
                    String::from_utf8_lossy(payload)
                );
                None
            }
            Dialect::Native => match payload.first() {
                Some(0x82) => {
                    let offset = payload.get(9..13).context("a block without an offset")?;
                    let offset = u32::from_be_bytes(offset.try_into()?);
                    Some(Block { index: offset / self.chunk as u32, length: payload.len() })
                }
                Some(0x84) => {
                    bail!("the server answers {}", String::from_utf8_lossy(&payload[2..]))
                }
                _ => None,
            },
            Dialect::Http | Dialect::HttpLong => None,
        })
    }

    /// Whether a block holds exactly its part of the image.
    pub fn verify(&self, body: &[u8], index: u32, image: &Image) -> anyhow::Result<()> {
        let payload = frames::payload(body)?;
        let part = image.bytes.chunks(image.chunk).nth(index as usize).context("no such block")?;
        let data: Range<usize> = match self.dialect {
            Dialect::Reference => return firmware::verify(payload, image),
            Dialect::ThingsBoard => 0..payload.len(),
            Dialect::Native => 13..payload.len(),
            Dialect::Aws => {
                let at = member(payload, b'p')?;
                let (length, digits) = unsigned(&payload[at..])?;
                at + digits..at + digits + usize::try_from(length)?
            }
            Dialect::AwsJson => {
                let said: Value = serde_json::from_slice(payload)?;
                let data = STANDARD.decode(said["p"].as_str().context("a block without data")?)?;
                ensure!(data == part, "block {index} holds other bytes than the image");
                return Ok(());
            }
            Dialect::Http | Dialect::HttpLong => bail!("not over MQTT"),
        };
        ensure!(payload.get(data) == Some(part), "block {index} holds other bytes than the image");
        Ok(())
    }
}

fn publish(out: &mut Vec<u8>, topic: &str, payload: &[u8]) {
    let mut body = Vec::with_capacity(2 + topic.len() + payload.len());
    frames::put_string(&mut body, topic);
    // Writing to a vector cannot fail.
    let _: Result<(), _> = body.write_all(payload);
    out.extend(frames::packet(0x30, &body));
}

/// Where the value of a member with a name of one letter begins. The load's blocks are random, but
/// the member that holds them comes last.
fn member(cbor: &[u8], name: u8) -> anyhow::Result<usize> {
    let at = cbor.windows(2).position(|pair| pair == [0x61, name]);
    Ok(2 + at.with_context(|| format!("no member {:?}", char::from(name)))?)
}

/// The number in a CBOR head of any type, and the bytes of the head (RFC 8949, 3).
fn unsigned(cbor: &[u8]) -> anyhow::Result<(u64, usize)> {
    let low = cbor.first().context("CBOR that is cut short")? & 0x1f;
    let bytes = match low {
        0..=23 => return Ok((low.into(), 1)),
        24..=27 => 1usize << (low - 24),
        _ => bail!("a head of indefinite length"),
    };
    let digits = cbor.get(1..1 + bytes).context("CBOR that is cut short")?;
    Ok((digits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)), 1 + bytes))
}
