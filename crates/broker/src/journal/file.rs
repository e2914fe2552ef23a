//! The form of the files: a header, then frames of a length, a checksum and a record.
//!
//! | file | holds |
//! | --- | --- |
//! | `snapshot-N` | the whole state before the first record of `log-N` |
//! | `log-N` | what happened since, up to `log-N+1` |
//!
//! A snapshot gets its name when it is complete and synced, so the last one is whole. The last
//! log may end in the middle of a frame: that is how a power cut looks, and it is cut off. The last
//! one is also one with empty ones behind it, which could not be begun. Any other damage is reported
//! and nothing is changed.

use bytes::{BufMut, BytesMut};

use super::record::{Record, Unknown};

/// The form that this program writes, and the newest that it reads.
///
/// | format | what came |
/// | --- | --- |
/// | 2 | retained messages that are promised to a new subscription; by which shared subscription a delivery comes, and that it was handed on; wills |
pub(crate) const FORMAT: u32 = 2;
const MAGIC: &[u8; 8] = b"fuotalog";
/// Magic and format.
pub(crate) const HEADER: usize = MAGIC.len() + 4;
/// Length and checksum.
const FRAME: usize = 8;

/// The header of a file.
pub(crate) fn header() -> BytesMut {
    let mut out = BytesMut::with_capacity(HEADER);
    out.put_slice(MAGIC);
    out.put_u32(FORMAT);
    out
}

/// Appends a record in its frame.
pub(crate) fn put(out: &mut BytesMut, record: &Record) {
    let start = out.len();
    out.put_bytes(0, FRAME);
    record.encode(out);
    let body = start + FRAME;
    let len = (out.len() - body) as u32;
    let sum = checksum(&out[body..]);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
    out[start + 4..body].copy_from_slice(&sum.to_be_bytes());
}

/// CRC-32C of the body, and not 0 where the body is empty: a run of zeros, as some file systems
/// leave after a power cut, is no frame.
fn checksum(body: &[u8]) -> u32 {
    !crc32c::crc32c(body)
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not begin as these files do.
    Foreign,
    /// It was written in a newer form.
    Newer(u32),
    /// From this byte on, there is no whole frame with a right checksum.
    Torn(u64),
    /// At this byte is a record that this version does not know.
    Unknown(u64),
}

/// The form of a file that begins as these files do; 0 where it ends before it says so.
pub(crate) fn format(bytes: &[u8]) -> u32 {
    let number = bytes.get(MAGIC.len()..).and_then(|rest| rest.first_chunk());
    number.map_or(0, |number| u32::from_be_bytes(*number))
}

/// Calls `each` with every record, in order. Returns how many bytes are good, and what is wrong
/// behind them.
pub(crate) fn read(bytes: &[u8], mut each: impl FnMut(Record)) -> (u64, Option<Fault>) {
    if bytes.len() < HEADER {
        // Cut while it was made.
        let started = MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())])
            || bytes.iter().all(|byte| *byte == 0);
        return (0, Some(if started { Fault::Torn(0) } else { Fault::Foreign }));
    }
    if &bytes[..MAGIC.len()] != MAGIC {
        let zeros = bytes.iter().all(|byte| *byte == 0);
        return (0, Some(if zeros { Fault::Torn(0) } else { Fault::Foreign }));
    }
    let format = format(bytes);
    if format > FORMAT {
        return (0, Some(Fault::Newer(format)));
    }
    let mut at = HEADER;
    while at < bytes.len() {
        let Some(body) = frame(&bytes[at..]) else {
            return (at as u64, Some(Fault::Torn(at as u64)));
        };
        match Record::decode(body) {
            Ok(record) => each(record),
            Err(Unknown) => return (at as u64, Some(Fault::Unknown(at as u64))),
        }
        at += FRAME + body.len();
    }
    (at as u64, None)
}

fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let body = rest.get(..u32::from_be_bytes(*len) as usize)?;
    (checksum(body) == u32::from_be_bytes(*sum)).then_some(body)
}
