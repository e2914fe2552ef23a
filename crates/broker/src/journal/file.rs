//! The form of the files: a header, then frames of a length, a checksum and a record.
//!
//! | file | holds |
//! | --- | --- |
//! | `snapshot-N` | the whole state before the first record of `log-N` |
//! | `log-N` | what happened since, up to `log-N+1` |
//!
//! A snapshot gets its name when it is complete and synced, so the last one is whole. What was not
//! synced of the last log may look like anything after a power cut, since its pages are written in
//! any order: where it has no frame any more it is cut. The last one is also one with empty ones
//! behind it, which could not be begun. What was synced is whole; a log says now and then how far
//! that is (see [`Mark`]). So damage before a place that a mark behind it calls synced, and any
//! other damage, is reported and nothing is changed.

use bytes::{BufMut, BytesMut};

use super::record::{Mark, Record, Unknown};

/// The form that this program writes, and the newest that it reads.
///
/// | format | what came |
/// | --- | --- |
/// | 2 | retained messages that are promised to a new subscription; by which shared subscription a delivery comes, and that it was handed on; wills |
/// | 3 | how much was synced; whether a log belongs to a snapshot |
pub(crate) const FORMAT: u32 = 3;
const MAGIC: &[u8; 8] = b"fuotalog";
/// Magic and format.
pub(crate) const HEADER: usize = MAGIC.len() + 4;
/// Length and checksum.
const FRAME: usize = 8;
/// The body of a [`Mark`]: which record, which log, how much.
const MARK: usize = 17;
/// What a log begins with, which is synced before anything is written behind it: its header and its
/// first mark.
pub(crate) const BEGINNING: usize = HEADER + FRAME + MARK;

/// The header of a file.
pub(crate) fn header() -> BytesMut {
    let mut out = BytesMut::with_capacity(HEADER);
    out.put_slice(MAGIC);
    out.put_u32(FORMAT);
    out
}

/// The beginning of a log.
pub(crate) fn beginning(log: u64) -> BytesMut {
    let mut out = header();
    put(&mut out, &Record::Mark(Mark { log, synced: 0 }));
    out
}

/// What its first mark calls a log; `None` where it has none, or not in this form.
pub(crate) fn name(bytes: &[u8]) -> Option<u64> {
    let first = frame(bytes.get(HEADER..)?).filter(|_| format(bytes) == FORMAT)?;
    match Record::decode(first) {
        Ok(Record::Mark(Mark { log, .. })) => Some(log),
        _ => None,
    }
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
    /// From this byte on, there is no whole frame with a right checksum, as far as a power cut may
    /// leave it so.
    Torn(u64),
    /// The same at a byte that had been synced.
    Damaged(u64),
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
            let fault = if was_synced(bytes, at) { Fault::Damaged } else { Fault::Torn };
            return (at as u64, Some(fault(at as u64)));
        };
        match Record::decode(body) {
            Ok(record) => each(record),
            Err(Unknown) => return (at as u64, Some(Fault::Unknown(at as u64))),
        }
        at += FRAME + body.len();
    }
    (at as u64, None)
}

/// Whether this byte of a log had been synced, as a mark behind it says. What else stands there
/// says nothing: a power cut may leave whole frames behind a page that was not written.
fn was_synced(bytes: &[u8], at: usize) -> bool {
    let Some(log) = name(bytes) else {
        // Nothing is written behind the first mark before that is synced.
        return format(bytes) == FORMAT && at == HEADER && bytes.len() > BEGINNING;
    };
    // It stands behind the length and the checksum of its frame.
    let mut start = BytesMut::new();
    Record::Mark(Mark { log, synced: 0 }).encode(&mut start);
    start.truncate(MARK - size_of::<u64>());
    memchr::memmem::find_iter(&bytes[at..], &start).any(|found| {
        let body = found.checked_sub(FRAME).and_then(|begin| frame(&bytes[at + begin..]));
        matches!(body.map(Record::decode), Some(Ok(Record::Mark(mark))) if mark.synced > at as u64)
    })
}

fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let body = rest.get(..u32::from_be_bytes(*len) as usize)?;
    (checksum(body) == u32::from_be_bytes(*sum)).then_some(body)
}
