//! RAUC bundles: a squashfs, a CMS signature, and its size in the last 8 bytes (big-endian). Served
//! as they are. In the formats `verity` and `crypt` the signature holds the manifest, from which
//! name and version are taken; in `plain` it lies packed in the squashfs and is not looked for.

use std::io::{Read, Seek};

use super::{Examined, Format, Header, Problem, Source, refuse, text};

/// The largest signature that is looked through, in bytes.
const MAX_SIGNATURE: u64 = 64 << 10;

pub(super) fn begins(head: &[u8]) -> bool {
    head.starts_with(b"hsqs")
}

pub(super) fn examine<R: Read + Seek>(source: &mut Source<R>) -> Result<Examined, Problem> {
    // `bytes_used` of the squashfs.
    let used = source.at(40, 8)?;
    let used = u64::from_le_bytes(used.try_into().unwrap_or_default());
    if used > source.size {
        return refuse(format!(
            "it is cut short: it has {} bytes, and its file system {used}: copy it again",
            source.size
        ));
    }
    let Some(end) = source.size.checked_sub(8) else { return Ok(Header::default().into()) };
    let size = u64::from_be_bytes(source.at(end, 8)?.try_into().unwrap_or_default());
    let fits = size > 0 && size <= MAX_SIGNATURE && size <= end.saturating_sub(used);
    let signature = if fits {
        source.at(end - size, usize::try_from(size).unwrap_or_default())?
    } else {
        Vec::new()
    };
    // A sequence of DER; else it is some other squashfs.
    if signature.first() != Some(&0x30) {
        return Ok(Header::default().into());
    }
    let mut header = Header { format: Format::Rauc, signed: true, ..Header::default() };
    let section = b"[update]";
    if let Some(at) = signature.windows(section.len()).position(|window| window == section) {
        for line in signature[at + section.len()..].split(|byte| *byte == b'\n') {
            match line.iter().position(|byte| *byte == b'=') {
                Some(equals) => {
                    let value = text(&line[equals + 1..]);
                    match line[..equals].trim_ascii() {
                        b"compatible" => header.hardware = value.into_iter().collect(),
                        b"version" => header.version = value,
                        _ => {}
                    }
                }
                None if line.starts_with(b"[") => break,
                None => {}
            }
        }
    }
    Ok(header.into())
}
