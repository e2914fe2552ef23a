//! Zigbee OTA files (Zigbee Cluster Library, 11.4; little-endian). Served as they are.

use std::io::{Read, Seek};

use super::{Examined, Format, Header, Problem, Source, refuse, text, u16_at, u32_at};

const MAGIC: u32 = 0x0BEE_F11E;

pub(super) fn begins(head: &[u8]) -> bool {
    u32_at(head, 0) == Some(MAGIC)
}

pub(super) fn examine<R: Read + Seek>(
    source: &mut Source<R>,
    head: &[u8],
) -> Result<Examined, Problem> {
    let size = u32_at(head, 52).map(u64::from).unwrap_or(56);
    if head.len() < 56 || size > source.size {
        return refuse(format!(
            "it is cut short: it has {} bytes, and its header names {size}: copy it again",
            source.size
        ));
    }
    let number = |at| u16_at(head, at).unwrap_or_default();
    Ok(Header {
        format: Format::ZigbeeOta,
        title: text(&head[20..52]),
        version: u32_at(head, 14).map(|version| format!("0x{version:08x}")),
        hardware: vec![format!(
            "manufacturer 0x{:04x}, image type 0x{:04x}",
            number(10),
            number(12)
        )],
        ..Header::default()
    }
    .into())
}
