//! Motorola S-records: lines `S` type, length, address, data and a checksum that makes the sum of
//! all bytes 0xFF, in hexadecimal digits.

use std::io::{Read, Seek};

use super::{
    Examined, Format, Header, Problem, Source, Unpack, flatten::Ranges, intel_hex::lines, refuse,
    text,
};

pub(super) fn begins(head: &[u8]) -> bool {
    matches!(head, [b'S', b'0'..=b'3', ..])
        && head.get(2..8).is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit))
}

pub(super) fn examine<R: Read + Seek>(
    source: &mut Source<R>,
    limit: u64,
) -> Result<Examined, Problem> {
    let mut ranges = Ranges::default();
    let title = records(source, |address, data| ranges.add(address, data.len()))?;
    let header = Header { format: Format::Srec, title, ..Header::default() };
    Ok(Examined { header, unpack: Some(Unpack::Srec(ranges.check(limit)?)) })
}

/// Gives each record with data to `each`. Returns the name in the first record, if it is one.
pub(super) fn records<R: Read + Seek>(
    source: &mut Source<R>,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), Problem>,
) -> Result<Option<String>, Problem> {
    let (mut title, mut count, mut counted, mut ended) = (None, 0u64, false, false);
    lines(source, |number, line| {
        let digits = line.get(2..).and_then(|digits| hex::decode(digits).ok());
        let (Some([b'S', kind]), Some(bytes)) = (line.get(..2), digits) else {
            return refuse(format!("its line {number} is no S-record: copy it again"));
        };
        let whole = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0xFF
            && bytes.first().is_some_and(|len| usize::from(*len) == bytes.len() - 1);
        let width = match kind {
            b'0' | b'1' | b'5' | b'9' => 2,
            b'2' | b'6' | b'8' => 3,
            b'3' | b'7' => 4,
            _ => return refuse(format!("its line {number} is no S-record: copy it again")),
        };
        if !whole || bytes.len() < 2 + width {
            return refuse(format!(
                "its line {number} is damaged: the checksum or the length is wrong: copy it again"
            ));
        }
        if ended {
            return refuse(format!("its line {number} follows the end record: build it again"));
        }
        let address = bytes[1..=width].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let data = &bytes[1 + width..bytes.len() - 1];
        match kind {
            b'0' => title = text(data).filter(|name| is_name(name)),
            b'1'..=b'3' => {
                (count, counted) = (count + 1, false);
                return each(address, data);
            }
            b'5' | b'6' if address != count & 0xFF_FFFF => {
                return refuse(format!(
                    "it has {count} records, and its line {number} counts {address}: copy it again"
                ));
            }
            b'5' | b'6' => counted = true,
            b'7'..=b'9' => ended = true,
            _ => {}
        }
        Ok(())
    })?;
    // Some tools write the count last, and no end record where they know no entry point.
    if ended || counted {
        Ok(title)
    } else {
        refuse("it is cut short: its end record is missing: copy it again")
    }
}

/// Most linkers put a file's name or a constant there.
fn is_name(text: &str) -> bool {
    text != "HDR" && !text.contains(['/', '\\', '.'])
}
