//! USB Flashing Format: blocks of 512 bytes, each with its address (little-endian).
//!
//! ```text
//! 0    0A324655 9E5D5157  flags  address  payload's size  number  of how many  family
//! 32   476 bytes: payload, then tags if flag 8000 is set
//! 508  0AB16F30
//! ```

use std::io::{BufReader, Read, Seek};

use super::{
    Examined, Format, Header, Problem, Source, Unpack, flatten::Ranges, refuse, text, u32_at,
};

const BLOCK: usize = 512;
const ROOM: usize = 476;
/// Not for the flash.
const COMMENT: u32 = 0x1;
/// A file for a file system.
const FILE: u32 = 0x1000;
const FAMILY: u32 = 0x2000;
const TAGS: u32 = 0x8000;
/// A block that erratum E10 of the RP2350 makes tools put in front; it erases a sector.
const E10: (u32, u32) = (0xE48B_FF57, 0x10FF_FF00);

/// Families that are one chip each, and its name. Others are a series, or say where blocks go.
const CHIPS: [(u32, &str); 27] = [
    (0x1C5F_21B0, "esp32"),
    (0xBFDD_4EEE, "esp32s2"),
    (0xC47E_5767, "esp32s3"),
    (0xD42B_A06C, "esp32c3"),
    (0x2B88_D29C, "esp32c2"),
    (0x540D_DF62, "esp32c6"),
    (0x3327_26F6, "esp32h2"),
    (0x3D30_8E94, "esp32p4"),
    (0xF71C_0343, "esp32c5"),
    (0x77D8_50C4, "esp32c61"),
    (0xB6DD_00AF, "esp32h21"),
    (0x9E0B_AA8A, "esp32h4"),
    (0x3101_F7C1, "esp32s31"),
    (0x7EAB_61ED, "esp8266"),
    (0xE48B_FF56, "rp2040"),
    (0xE48B_FF59, "rp2350"),
    (0xE48B_FF5A, "rp2350"),
    (0xE48B_FF5B, "rp2350"),
    (0x820D_9A5F, "nrf52820"),
    (0x7272_1D4E, "nrf52832"),
    (0x6F75_2678, "nrf52832"),
    (0x621E_937A, "nrf52833"),
    (0xADA5_2840, "nrf52840"),
    (0x9FFF_D543, "rtl8710a"),
    (0x22E0_D6FC, "rtl8710b"),
    (0xE08F_7564, "rtl8720c"),
    (0x3379_CFE2, "rtl8720d"),
];

const TAG_VERSION: u32 = 0x9F_C7BC;
const TAG_DEVICE: u32 = 0x65_0D9D;

/// One block that goes into the flash.
pub(super) struct Block<'a> {
    pub(super) address: u64,
    pub(super) data: &'a [u8],
    tags: &'a [u8],
    family: Option<u32>,
}

pub(super) fn begins(head: &[u8]) -> bool {
    u32_at(head, 0) == Some(0x0A32_4655) && u32_at(head, 4) == Some(0x9E5D_5157)
}

pub(super) fn examine<R: Read + Seek>(
    source: &mut Source<R>,
    limit: u64,
) -> Result<Examined, Problem> {
    let mut ranges = Ranges::default();
    let mut header = Header { format: Format::Uf2, ..Header::default() };
    let mut family = None;
    blocks(source, |block| {
        if *family.get_or_insert(block.family) != block.family {
            return refuse(
                "it holds images for more than one family of chips: drop the one that your \
                 devices have",
            );
        }
        for (kind, value) in tags(block.tags) {
            match kind {
                TAG_VERSION => header.version = text(value),
                TAG_DEVICE => header.hardware.extend(text(value)),
                _ => {}
            }
        }
        ranges.add(block.address, block.data.len())
    })?;
    header.hardware.dedup();
    header.hardware.truncate(8);
    if let Some(Some(family)) = family {
        header.hardware.push(format!("UF2 family 0x{family:08x}"));
        let chip = CHIPS.iter().find(|(known, _)| *known == family);
        header.chip = chip.map(|(_, chip)| (*chip).to_owned());
    }
    Ok(Examined { header, unpack: Some(Unpack::Uf2(ranges.check(limit)?)) })
}

/// Gives each block that goes into the flash to `each`.
pub(super) fn blocks<R: Read + Seek>(
    source: &mut Source<R>,
    mut each: impl FnMut(Block<'_>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let size = source.size;
    if !size.is_multiple_of(BLOCK as u64) {
        return refuse(format!(
            "it is cut short: {size} bytes are no whole number of blocks of {BLOCK}: copy it again"
        ));
    }
    let mut reader = BufReader::with_capacity(super::CHUNK, source.rewound()?);
    let (mut seen, mut named) = (0u64, None);
    let mut block = [0; BLOCK];
    for number in 0..size / BLOCK as u64 {
        reader.read_exact(&mut block)?;
        let field = |at| u32_at(&block, at).unwrap_or_default();
        if !begins(&block) || field(508) != 0x0AB1_6F30 {
            return refuse(format!("its block {number} is damaged: copy it again"));
        }
        let (flags, address, len, total) = (field(8), field(12), field(16) as usize, field(24));
        if len > ROOM {
            return refuse(format!("its block {number} is damaged: copy it again"));
        }
        if flags & FILE != 0 {
            return refuse("it holds files, and no image: drop the image alone");
        }
        let family = (flags & FAMILY != 0).then(|| field(28));
        if flags & COMMENT != 0 || (family == Some(E10.0) && address == E10.1) {
            continue;
        }
        seen += 1;
        if *named.get_or_insert(total) != total || field(20) >= total {
            return refuse(format!(
                "its block {number} does not belong to the others: build it again"
            ));
        }
        let (data, rest) = block[32..508].split_at(len);
        let tags = if flags & TAGS != 0 { &rest[len.next_multiple_of(4) - len..] } else { &[] };
        each(Block { address: address.into(), data, tags, family })?;
    }
    match named {
        Some(total) if u64::from(total) != seen => {
            refuse(format!("it is cut short: it has {seen} of {total} blocks: copy it again"))
        }
        Some(_) => Ok(()),
        None => refuse("it has no block for the flash: build it again"),
    }
}

/// Type and value of each tag: length of all, type in three bytes, value, up to a row of 4.
fn tags(mut bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(*bytes.first()?);
        let kind = u32_at(bytes, 0)? >> 8;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}
