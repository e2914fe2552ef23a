//! The devices' MQTT 3.1.1 and JSON, written and read by hand, so that the load costs little.

use std::io::Write;
use std::ops::Range;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

pub const TOPIC: &str = "tago/data/post";

/// Bytes of a whole PUBLISH with a block of 4,096 bytes in the reference encoding, roughly: for
/// runs without a real server.
pub const TYPICAL_FRAME: usize = 5560;

pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const SUBACK: u8 = 9;

/// The firmware of the run.
pub struct Image {
    pub bytes: Vec<u8>,
    pub blocks: u32,
    pub chunk: usize,
}

impl Image {
    pub fn random(blocks: u32, chunk: usize) -> anyhow::Result<Self> {
        let mut bytes = vec![0; blocks as usize * chunk];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
        Ok(Self { bytes, blocks, chunk })
    }
}

/// CONNECT with a clean session, no login, and no keep alive, since rounds pause devices.
pub fn connect(client_id: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04\x02\0\0".to_vec();
    put_string(&mut body, client_id);
    packet(0x10, &body)
}

/// SUBSCRIBE to the downlink at QoS 0.
pub fn subscribe() -> Vec<u8> {
    let mut body = b"\0\x01".to_vec();
    put_string(&mut body, TOPIC);
    body.push(0);
    packet(0x82, &body)
}

/// Appends a PUBLISH that asks for a block.
pub fn request(out: &mut Vec<u8>, index: u32) {
    const BODY: &[u8] = b"\0\x0etago/data/post{\"variable\":\"firmware_request\",\"value\":";
    const TAIL: &[u8] = b",\"unit\":\"index\"}";
    let digits = index.checked_ilog10().unwrap_or(0) as usize + 1;
    // Below 128 bytes, so one byte of length.
    out.extend_from_slice(&[0x30, (BODY.len() + digits + TAIL.len()) as u8]);
    out.extend_from_slice(BODY);
    // Writing to a vector cannot fail.
    let _: Result<(), _> = write!(out, "{index}");
    out.extend_from_slice(TAIL);
}

/// The type and the body's place of the packet at the start of `bytes`; `None` if it is not whole.
pub fn cut(bytes: &[u8]) -> anyhow::Result<Option<(u8, Range<usize>)>> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate().skip(1).take(4) {
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let end = at + 1 + length;
            return Ok((bytes.len() >= end).then_some((first >> 4, at + 1..end)));
        }
    }
    ensure!(bytes.len() < 5, "no MQTT length in {:02x?}", &bytes[..5]);
    Ok(None)
}

/// The payload of a PUBLISH at QoS 0.
pub fn payload(body: &[u8]) -> anyhow::Result<&[u8]> {
    let length = body.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
    length.and_then(|length| body.get(2 + length..)).context("a PUBLISH without a topic")
}

/// What a payload turned out to be.
pub enum Heard {
    /// A block with this index; its JSON has not been looked into.
    Block(u32),
    /// Something that the devices of the benchmark have no use for.
    Other,
}

/// Finds out in a few nanoseconds whether a payload is a block, and which; only what looks
/// otherwise is parsed.
///
/// # Errors
/// The server complains: then the run measures nothing.
pub fn hear(payload: &[u8]) -> anyhow::Result<Heard> {
    const HEAD: &[u8] = b"{\"variable\":\"firmware_block\",\"value\":";
    if let Some(rest) = payload.strip_prefix(HEAD) {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
        let index = digits.fold(0u32, |n, d| n.wrapping_mul(10).wrapping_add(u32::from(d - b'0')));
        return Ok(Heard::Block(index));
    }
    let json: Value = serde_json::from_slice(payload)?;
    match json["variable"].as_str() {
        Some("firmware_block") => {
            let index = json["value"].as_u64().and_then(|index| u32::try_from(index).ok());
            Ok(Heard::Block(index.context("a block without an index")?))
        }
        Some("fuota_error") => bail!("the server answers: {}", json["value"]),
        _ => Ok(Heard::Other),
    }
}

/// Whether a block holds exactly its part of the image.
pub fn verify(payload: &[u8], image: &Image) -> anyhow::Result<()> {
    let json: Value = serde_json::from_slice(payload)?;
    let index = json["value"].as_u64().context("a block without an index")? as usize;
    let data = json["metadata"]["data"].as_str().context("a block without data")?;
    let data = STANDARD.decode(data)?;
    ensure!(json["metadata"]["size"] == data.len(), "block {index} says another size");
    let part = image.bytes.chunks(image.chunk).nth(index).context("no such block")?;
    ensure!(data == part, "block {index} holds other bytes than the image");
    Ok(())
}

/// Whether the payload is the manifest of the image; an error if it is that of another.
pub fn is_manifest(payload: &[u8], image: &Image) -> anyhow::Result<bool> {
    let json: Value = serde_json::from_slice(payload)?;
    if json["variable"] != "firmware_manifest" {
        return Ok(false);
    }
    let metadata = &json["metadata"];
    ensure!(
        metadata["total_chunks"] == image.blocks && metadata["total_size"] == image.bytes.len(),
        "the manifest is of another image: {metadata}"
    );
    Ok(true)
}

/// A PUBLISH of exactly `size` bytes on the wire, that looks like a block.
pub fn ready_frame(size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    put_string(&mut body, TOPIC);
    // 1 byte of type and 2 of length, as any frame of 128 to 16,383 bytes has.
    body.resize(size.clamp(200, 16_000) - 3, b'x');
    packet(0x30, &body)
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    let mut length = body.len();
    while length >= 0x80 {
        frame.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    frame.push(length as u8);
    frame.extend_from_slice(body);
    frame
}
