//! Intel HEX: lines `:LLAAAATT…CC` of hexadecimal digits: length, address, type, data, and a
//! checksum that makes the sum of all bytes 0.

use std::io::{BufRead as _, BufReader, Read, Seek};

use super::{Examined, Format, Header, Problem, Source, Unpack, flatten::Ranges, refuse};

/// The longest line: 255 bytes of data and 5 around them, two digits each, and the colon.
pub(super) const MAX_LINE: usize = 521;

pub(super) fn begins(head: &[u8]) -> bool {
    head.first() == Some(&b':')
        && head.get(1..9).is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit))
}

pub(super) fn examine<R: Read + Seek>(
    source: &mut Source<R>,
    limit: u64,
) -> Result<Examined, Problem> {
    let mut ranges = Ranges::default();
    records(source, |address, data| ranges.add(address, data.len()))?;
    let header = Header { format: Format::IntelHex, ..Header::default() };
    Ok(Examined { header, unpack: Some(Unpack::IntelHex(ranges.check(limit)?)) })
}

/// Gives each record with data to `each`, with its whole address.
pub(super) fn records<R: Read + Seek>(
    source: &mut Source<R>,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut base = 0;
    let mut ended = false;
    lines(source, |number, line| {
        let bytes = line.strip_prefix(b":").and_then(|digits| hex::decode(digits).ok());
        let Some(bytes) = bytes.filter(|bytes| bytes.len() >= 5) else {
            return refuse(format!("its line {number} is no record of Intel HEX: copy it again"));
        };
        let [len, high, low, kind, ref data @ .., _] = bytes[..] else { return Ok(()) };
        if bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) != 0
            || data.len() != usize::from(len)
        {
            return refuse(format!(
                "its line {number} is damaged: the checksum or the length is wrong: copy it again"
            ));
        }
        if ended {
            return refuse(format!("its line {number} follows the end record: build it again"));
        }
        let address = u64::from(u16::from_be_bytes([high, low]));
        match (kind, data) {
            // Within 64 KiB the address wraps around; no linker relies on that.
            (0, data) => return each(base + address, data),
            (1, _) => ended = true,
            (2, [a, b]) => base = u64::from(u16::from_be_bytes([*a, *b])) << 4,
            (4, [a, b]) => base = u64::from(u16::from_be_bytes([*a, *b])) << 16,
            // Where the processor begins, which the binary does not say.
            (3 | 5, _) => {}
            (kind, _) => {
                return refuse(format!(
                    "its line {number} has a record of type {kind:02x}, which Intel HEX does not \
                     know: build it again"
                ));
            }
        }
        Ok(())
    })?;
    if ended { Ok(()) } else { refuse("it is cut short: its end record is missing: copy it again") }
}

/// Gives each line that is not empty to `each`, without its end, and with its number from 1.
pub(super) fn lines<R: Read + Seek>(
    source: &mut Source<R>,
    mut each: impl FnMut(usize, &[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut reader = BufReader::with_capacity(super::CHUNK, source.rewound()?);
    let mut line = Vec::with_capacity(MAX_LINE);
    for number in 1.. {
        line.clear();
        // With room for CR and LF.
        let read = reader.by_ref().take(MAX_LINE as u64 + 2).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let text = line.trim_ascii_end();
        if text.len() > MAX_LINE {
            return refuse(format!("its line {number} is too long for a record: copy it again"));
        }
        if !text.is_empty() {
            each(number, text)?;
        }
    }
    Ok(())
}
