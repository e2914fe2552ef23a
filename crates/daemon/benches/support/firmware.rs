//! An image, and what a device asks and hears of it in the reference protocol.

use std::io::Write;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

pub const TOPIC: &str = "tago/data/post";

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
