//! Images of Espressif's chips (`esp_image_format.h`, `esp_app_desc.h`; all little-endian).
//!
//! ```text
//! 0x00  image header, 24 bytes: magic E9, segments, …, 0x0C chip, …, 0x17 digest appended
//! 0x18  segments: load address, length, data
//! 0x20  in the first one: the application's descriptor, 256 bytes
//! end   zeros, so that one checksum byte ends a row of 16; a SHA-256 of all before it
//! then  at the next 4 KiB: the sector of a signature (secure boot), which begins with E7
//! ```
//!
//! The ESP8266 has a header of 8 bytes: magic, segments, two of its flash, entry point. Its second
//! form, which its boot loader 1.4 and later start, begins with EA: what runs out of flash is a
//! segment of its own in front, the others follow with a header as above, and the last 4 bytes are a
//! CRC-32 of all before them.

use std::io::{self, Read, Seek};

use sha2::{Digest as _, Sha256};

use super::{Examined, Format, Header, Problem, Source, refuse, text, u16_at, u32_at};

const MAGIC: u8 = 0xE9;
/// Of the ESP8266's second form, and the number in the place of its segments.
const SECOND: [u8; 2] = [0xEA, 4];
const DESCRIPTOR: u32 = 0xABCD_5432;
/// The first byte of a boot loader's descriptor, which stands in the same place: that, two
/// reserved, its secure version, a version of 4 bytes, the version of ESP-IDF in 32, the time in 24.
const BOOTLOADER: u8 = 0x50;
const MAX_SEGMENTS: u8 = 16;
/// Of the flash.
const SECTOR: u64 = 4096;
/// The partition table of a whole flash: where it usually is, and its first two bytes.
const TABLE_AT: u64 = 0x8000;
const TABLE: [u8; 2] = [0xAA, 0x50];
/// Where boot loaders begin in the flash, by chip, if not at its beginning.
const BOOTLOADERS_AT: [u64; 2] = [0x1000, 0x2000];
const MERGED: &str = "it holds a whole flash (boot loader, partition table and application), which \
    is for a cable: drop the application alone, which the build names build/PROJECT.bin";
/// What Arduino's core puts into every image that it builds.
const ARDUINO: &str = "arduino-lib-builder";

/// By the number in the header.
const CHIPS: [(u16, &str); 13] = [
    (0, "esp32"),
    (2, "esp32s2"),
    (5, "esp32c3"),
    (9, "esp32s3"),
    (12, "esp32c2"),
    (13, "esp32c6"),
    (16, "esp32h2"),
    (18, "esp32p4"),
    (20, "esp32c61"),
    (23, "esp32c5"),
    (25, "esp32h21"),
    (28, "esp32h4"),
    (32, "esp32s31"),
];

/// Whether this is one of these images, by more than one byte of it: one in 256 files begins
/// with that.
pub(super) fn begins(head: &[u8]) -> bool {
    if is_second(head) {
        return true;
    }
    if head.first() != Some(&MAGIC) || head.len() < 24 {
        return false;
    }
    let segments = head[1];
    if segments == 0 || segments > MAX_SEGMENTS {
        return false;
    }
    // The bytes before the last one are reserved, and zero.
    let is_header = head[0x13..0x17] == [0; 4] && head[0x17] <= 1;
    let is_known = chip(head).is_some() || is_bootloader(head);
    is_esp8266(head) || has_descriptor(head) || (is_header && is_known)
}

fn chip(head: &[u8]) -> Option<&'static str> {
    let number = u16_at(head, 0x0C)?;
    CHIPS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

fn has_descriptor(head: &[u8]) -> bool {
    u32_at(head, 0x20) == Some(DESCRIPTOR)
}

/// Whether a boot loader describes itself, also that of a chip that is not known here.
fn is_bootloader(head: &[u8]) -> bool {
    let texts = [head.get(0x28..0x48), head.get(0x48..0x60)];
    head.get(0x20..0x23) == Some(&[BOOTLOADER, 0, 0])
        && texts.into_iter().all(|bytes| bytes.and_then(text).is_some())
}

/// The ESP8266 has a header of 8 bytes, an entry point in its instruction memory, and the first
/// segment there or in its data memory.
fn is_esp8266(head: &[u8]) -> bool {
    let code = is_esp8266_code;
    let data = |address: &u32| (0x3FFE_8000..0x4000_0000).contains(address);
    head[2] <= 3
        && u32_at(head, 4).is_some_and(|address| code(&address))
        && u32_at(head, 8).is_some_and(|address| code(&address) || data(&address))
        && !has_descriptor(head)
}

/// Whether this is one of the ESP8266's second form: its first segment has no address.
fn is_second(head: &[u8]) -> bool {
    head.starts_with(&SECOND)
        && head.len() >= 16
        && head[2] <= 3
        && u32_at(head, 4).is_some_and(|address| is_esp8266_code(&address))
        && u32_at(head, 8) == Some(0)
}

fn is_esp8266_code(address: &u32) -> bool {
    (0x4010_0000..0x4030_0000).contains(address)
}

/// Refuses one of the second form that is not whole.
fn complete_second<R: Read + Seek>(source: &mut Source<R>) -> Result<(), Problem> {
    let behind = source.at(12, 4)?;
    let base = 16 + u64::from(u32_at(&behind, 0).unwrap_or_default());
    let end = esp8266_end(source, base)?;
    if end + 4 > source.size {
        return cut(end + 4, source.size);
    }
    let mut crc = crc32fast::Hasher::new();
    source.feed(0, end, |bytes| crc.update(bytes))?;
    // As its boot loader counts: inverted where the highest bit is set, else one more.
    let sum = crc.finalize();
    let sum = if sum >> 31 == 1 { !sum } else { sum + 1 };
    if u32_at(&source.at(end, 4)?, 0) != Some(sum) {
        return refuse(
            "it is damaged: its CRC-32 does not match its bytes, so the device would refuse it: \
             build or copy it again",
        );
    }
    Ok(())
}

/// Refuses one whose segments, which begin at `base`, go beyond the end of the file. It has no
/// digest, and its checksum says little.
fn complete_esp8266<R: Read + Seek>(source: &mut Source<R>, base: u64) -> Result<(), Problem> {
    let end = esp8266_end(source, base)?;
    if end > source.size { cut(end, source.size) } else { Ok(()) }
}

/// Where the segments of the header at `base` end, with what fills them up.
fn esp8266_end<R: Read + Seek>(source: &mut Source<R>, base: u64) -> Result<u64, Problem> {
    let count = source.at(base + 1, 1)?.first().copied().unwrap_or_default();
    let mut at = base + 8;
    for _ in 0..count {
        let header = source.at(at, 8)?;
        let Some(len) = u32_at(&header, 4) else { return cut(at + 8, source.size) };
        at += 8 + u64::from(len);
    }
    // Filled up so that the checksum is the last of 16 bytes.
    Ok((at - base + 1).next_multiple_of(16) + base)
}

pub(super) fn examine<R: Read + Seek>(
    source: &mut Source<R>,
    head: &[u8],
) -> Result<Examined, Problem> {
    refuse_merged(source)?;
    if is_second(head) {
        complete_second(source)?;
        return Ok(esp8266().into());
    }
    if is_esp8266(head) {
        complete_esp8266(source, 0)?;
        // Arduino's: a boot loader of one sector, and the application behind it.
        let second = source.at(SECTOR, 24)?;
        if second.first() == Some(&MAGIC) && (second.len() < 24 || is_esp8266(&second)) {
            complete_esp8266(source, SECTOR)?;
        }
        return Ok(esp8266().into());
    }
    let begins_so = head.get(0x20) == Some(&BOOTLOADER);
    // One that ends before it is told below to be cut short.
    let tells = head.len() > 0x24 && !has_descriptor(head);
    if tells && (begins_so || !is_application(source)?) {
        return refuse(
            "it is a boot loader of an ESP chip, not an application, and would leave a device \
             that does not start: drop the application, which the build names build/PROJECT.bin",
        );
    }
    let end = verify(source, head)?;
    let mut header = Header {
        format: Format::EspIdf,
        chip: Some(match (chip(head), u16_at(head, 0x0C)) {
            (Some(name), _) => name.to_owned(),
            (None, number) => format!("esp-{}", number.unwrap_or_default()),
        }),
        ..Header::default()
    };
    if has_descriptor(head) {
        header.version = text(&head[0x30..0x50]);
        header.title = text(&head[0x50..0x70]);
        header.security_counter = u32_at(head, 0x24).filter(|counter| *counter > 0);
    }
    if header.title.as_deref() == Some(ARDUINO) {
        // The same in every image: it names no firmware, and the version is the framework's.
        (header.title, header.version) = (None, None);
    } else if header.version.as_deref().is_some_and(|version| version.starts_with("esp-idf: ")) {
        header.version = None;
    }
    let sector = end.next_multiple_of(SECTOR);
    header.signed = source.at(sector, 1)? == [0xE7];
    if !header.signed && source.size > end {
        header.warnings.push(format!(
            "{} bytes follow the end of the image, and are sent with it",
            source.size - end
        ));
    }
    Ok(header.into())
}

fn esp8266() -> Header {
    let chip = Some("esp8266".to_owned());
    Header { format: Format::Esp8266, chip, ..Header::default() }
}

/// Refuses what holds a whole flash: boot loader, partition table and application.
pub(super) fn refuse_merged<R: Read + Seek>(source: &mut Source<R>) -> Result<(), Problem> {
    let first = source.at(0, 1)?;
    if first == [0xFF] && has_bootloader_behind_nothing(source)? {
        return refuse(MERGED);
    }
    if !matches!(first[..], [MAGIC | 0xFF]) || source.at(TABLE_AT, 2)? != TABLE {
        return Ok(());
    }
    for at in [0].into_iter().chain(BOOTLOADERS_AT) {
        if source.at(at, 1)? == [MAGIC] {
            return refuse(MERGED);
        }
    }
    Ok(())
}

/// The same where the partition table is elsewhere, or none is there: what lies before the boot
/// loader is as erased flash has it. (Where it begins the file, the file is a boot loader.)
fn has_bootloader_behind_nothing<R: Read + Seek>(source: &mut Source<R>) -> io::Result<bool> {
    for at in BOOTLOADERS_AT {
        let mut erased = true;
        if begins(&source.at(at, 512)?) {
            source.feed(0, at, |bytes| erased &= bytes.iter().all(|byte| *byte == 0xFF))?;
            return Ok(erased);
        }
    }
    Ok(false)
}

/// Each segment's load address, the place of its data, and its length.
fn segments<R: Read + Seek>(source: &mut Source<R>) -> io::Result<Vec<(u32, u64, u64)>> {
    let count = source.at(1, 1)?.first().copied().unwrap_or_default();
    let mut segments = Vec::new();
    let mut at = 24;
    for _ in 0..count {
        let header = source.at(at, 8)?;
        let (Some(address), Some(len)) = (u32_at(&header, 0), u32_at(&header, 4)) else { break };
        segments.push((address, at + 8, u64::from(len)));
        at += 8 + u64::from(len);
    }
    Ok(segments)
}

/// Whether an image without a descriptor uses the flash as memory, as boot loaders do not.
fn is_application<R: Read + Seek>(source: &mut Source<R>) -> io::Result<bool> {
    // Instructions and data out of flash: ESP32, ESP32-S2, and the later ones.
    let mapped = [
        0x3F40_0000..0x3F80_0000,
        0x400D_0000..0x4040_0000,
        0x3F00_0000..0x3F3F_0000,
        0x4008_0000..0x4100_0000,
        0x3C00_0000..0x3E00_0000,
        0x4200_0000..0x4400_0000,
        0x4000_0000..0x4C00_0000,
    ];
    // Of these the ESP32's own memory lies within what is flash on others.
    let chip = source.at(0x0C, 2)?;
    let mapped = match u16_at(&chip, 0) {
        Some(0) => &mapped[..2],
        Some(2) => &mapped[2..4],
        Some(18) => &mapped[6..],
        _ => &mapped[4..6],
    };
    let segments = segments(source)?;
    Ok(segments.iter().any(|(address, ..)| mapped.iter().any(|range| range.contains(address))))
}

fn cut<T>(needs: u64, has: u64) -> Result<T, Problem> {
    refuse(format!(
        "it is cut short: it has {has} bytes, and its header names {needs} or more: copy it again"
    ))
}

/// Checks the checksum and the digest. Returns where the image ends.
fn verify<R: Read + Seek>(source: &mut Source<R>, head: &[u8]) -> Result<u64, Problem> {
    let segments = segments(source)?;
    let data_end = segments.last().map_or(24, |(_, at, len)| at + len);
    let checksum_at = (data_end + 1).next_multiple_of(16) - 1;
    let has_digest = head[0x17] == 1;
    let end = checksum_at + 1 + if has_digest { 32 } else { 0 };
    if segments.len() < usize::from(head[1]) || end > source.size {
        return cut(end, source.size);
    }
    let (mut sum, mut hash) = (0xEF_u8, Sha256::new());
    source.feed(0, 24, |bytes| hash.update(bytes))?;
    for (_, at, len) in &segments {
        source.feed(at - 8, 8, |bytes| hash.update(bytes))?;
        source.feed(*at, *len, |bytes| {
            hash.update(bytes);
            sum ^= bytes.iter().fold(0, |sum, byte| sum ^ byte);
        })?;
    }
    source.feed(data_end, checksum_at + 1 - data_end, |bytes| hash.update(bytes))?;
    let damaged = |what: &str| {
        refuse(format!(
            "it is damaged: its {what} does not match its bytes, so the device would refuse it: \
             build or copy it again"
        ))
    };
    if source.at(checksum_at, 1)? != [sum] {
        return damaged("checksum");
    }
    if has_digest && source.at(checksum_at + 1, 32)? != hash.finalize()[..] {
        return damaged("SHA-256");
    }
    Ok(end)
}
