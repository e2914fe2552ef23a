//! Requests for chunks: their numbers and sizes.

use std::num::NonZeroU32;

use super::{FAILURE, PAYLOAD_TOO_LARGE};
use crate::dialect::{BlockSize, Echo};

/// The largest block that may be asked for by its size, as ThingsBoard has it.
const MAX_CHUNK: u32 = 65_536;
pub const QUOTED_SIZE: &str = "chunk_size_quoted";
pub const SPACED_SIZE: &str = "chunk_size_with_spaces";
pub const ZERO_SIZE: &str = "chunk_size_zero";

/// `request/NUMBER/chunk/NUMBER`.
pub fn numbers(rest: &str) -> Option<(u64, u64)> {
    let (id, chunk) = rest.strip_prefix("request/")?.split_once("/chunk/")?;
    Some((number(id)?, number(chunk)?))
}

/// Digits alone; what is larger than any number here is the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The number of the request that an answer is for, and the number of its chunk.
pub fn numbers_of(echo: &Echo) -> (u64, u64) {
    let numbers = echo.as_deref().and_then(|echo| echo.as_chunks().0.first_chunk());
    numbers.map_or((0, 0), |[id, chunk]| (u64::from_be_bytes(*id), u64::from_be_bytes(*chunk)))
}

/// The size that a request gives; `None` where it leaves that to an earlier one.
///
/// # Errors
/// The word for `v2/fw/error`.
pub fn chunk_size(
    payload: &[u8],
    quirks: &mut Vec<&'static str>,
) -> Result<Option<BlockSize>, &'static str> {
    if payload.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(payload).map_err(|_| FAILURE)?;
    let trimmed = text.trim();
    quirks.extend((trimmed.len() < text.len()).then_some(SPACED_SIZE));
    let bare = trimmed.trim_matches('"');
    quirks.extend((bare.len() < trimmed.len()).then_some(QUOTED_SIZE));
    match NonZeroU32::new(match number(bare).ok_or(FAILURE)? {
        size if size > u64::from(MAX_CHUNK) => return Err(PAYLOAD_TOO_LARGE),
        size => size as u32,
    }) {
        Some(size) => Ok(Some(BlockSize::Bytes(size))),
        None => {
            quirks.push(ZERO_SIZE);
            Ok(Some(BlockSize::Whole))
        }
    }
}
