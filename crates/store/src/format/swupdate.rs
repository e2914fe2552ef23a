//! SWUpdate images: a cpio archive whose first member is `sw-description`. Served as they are.
//!
//! A header is `070701` or `070702` and 13 numbers of 8 hexadecimal digits; then the name and the
//! data, each padded to a row of 4.

use std::io::{Read, Seek};

use super::{Examined, Format, Header, Problem, Source, refuse, text};

const HEADER: usize = 110;
const NAME: &[u8] = b"sw-description\0";
/// The largest description that is read, in bytes.
const MAX_DESCRIPTION: u64 = 256 << 10;
const MAX_MEMBERS: usize = 4096;

pub(super) fn begins(head: &[u8]) -> bool {
    (head.starts_with(b"070701") || head.starts_with(b"070702"))
        && head.get(HEADER..HEADER + NAME.len()) == Some(NAME)
}

/// One file in the archive; places are offsets in bytes.
struct Member {
    name: Vec<u8>,
    data: u64,
    size: u64,
    next: u64,
}

fn member<R: Read + Seek>(source: &mut Source<R>, at: u64) -> Result<Option<Member>, Problem> {
    let header = source.at(at, HEADER)?;
    let number = |index: usize| {
        let digits = header.get(6 + index * 8..14 + index * 8)?;
        u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    };
    let (true, Some(size), Some(name_len)) = (header.starts_with(b"07070"), number(6), number(11))
    else {
        return Ok(None);
    };
    let name =
        source.at(at + HEADER as u64, usize::try_from(name_len.min(4096)).unwrap_or(4096))?;
    let data = (at + HEADER as u64 + name_len).next_multiple_of(4);
    Ok(Some(Member { name, data, size, next: (data + size).next_multiple_of(4) }))
}

pub(super) fn examine<R: Read + Seek>(source: &mut Source<R>) -> Result<Examined, Problem> {
    let mut header = Header { format: Format::SwUpdate, ..Header::default() };
    let mut at = 0;
    for number in 0..MAX_MEMBERS {
        let Some(Member { name, data, size, next }) = member(source, at)? else {
            return refuse("it is a SWUpdate image that is damaged or cut short: copy it again");
        };
        if data + size > source.size {
            return refuse(format!(
                "it is cut short: it has {} bytes, and its members take {} or more: copy it again",
                source.size,
                data + size
            ));
        }
        match &name[..] {
            b"TRAILER!!!\0" => break,
            b"sw-description.sig\0" => header.signed = true,
            NAME if number == 0 => {
                let len = usize::try_from(size.min(MAX_DESCRIPTION)).unwrap_or_default();
                let bytes = source.at(data, len)?;
                describe(&String::from_utf8_lossy(&bytes), &mut header);
            }
            _ => {}
        }
        at = next;
    }
    Ok(header.into())
}

/// The first `version` and `hardware-compatibility`, in libconfig's words or JSON's. Whoever
/// updates reads it properly; here it is for people.
fn describe(description: &str, header: &mut Header) {
    header.version = setting(description, "version").and_then(|rest| quoted(rest).next());
    if let Some(rest) = setting(description, "hardware-compatibility") {
        let list = rest.split([']', ')']).next().unwrap_or_default();
        header.hardware = quoted(list).take(32).collect();
    }
}

/// What follows `name =` or `"name":`.
fn setting<'a>(description: &'a str, name: &str) -> Option<&'a str> {
    description.match_indices(name).find_map(|(at, _)| {
        let before = description[..at].trim_end_matches('"');
        if before.ends_with(|c: char| c.is_alphanumeric() || "-_#".contains(c)) {
            return None;
        }
        let rest = description[at + name.len()..].trim_start_matches('"').trim_start();
        rest.strip_prefix(['=', ':'])
    })
}

fn quoted(text: &str) -> impl Iterator<Item = String> {
    let parts = text.split('"').skip(1).step_by(2);
    parts.filter_map(|part| self::text(part.as_bytes()))
}
