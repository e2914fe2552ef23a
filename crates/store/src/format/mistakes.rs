//! What is dropped by mistake: a device would write it all the same, and not start again.

use std::io::{Read, Seek};

use super::{Problem, Source, mcuboot, refuse, u32_at};

/// So many bytes are looked at together.
const PART: usize = 64 << 10;
/// Slots of a flash begin at a multiple of this.
const SECTOR: u64 = 4096;
/// No microcontroller that MCUboot starts has a larger one within.
const FLASH: u64 = 4 << 20;

/// A patch of `esp_delta_ota`.
const DELTA: u32 = 0xFCCD_DE10;
/// An image of `esp_encrypted_img`.
const ENCRYPTED: u32 = 0x0788_B6CF;

/// How to insist. Whoever writes it knows better than the name of a format.
pub(super) const AS_IS: &str =
    "or write `as_is = true` into its sidecar if the device takes it as it is";

/// Refuses a text of several words, whatever its language: a README, checksums of other files, the
/// answer of a server that had no image.
pub(super) fn check_text<R: Read + Seek>(source: &mut Source<R>) -> Result<(), Problem> {
    let (mut at, mut several, mut words) = (0, false, false);
    while at < source.size {
        let part = source.at(at, PART)?;
        several |= at == 0 && matches!(part.first(), Some(b'{' | b'[' | b'<'));
        at += part.len() as u64;
        let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x0C) || *byte >= b' ';
        if part.is_empty() || !part.iter().all(|byte| is_text(byte) && *byte != 0x7F) {
            return Ok(());
        }
        several |= part.iter().any(u8::is_ascii_whitespace);
        words |= part.iter().any(u8::is_ascii_graphic);
    }
    match several && words {
        true => refuse(format!(
            "it is text from its first byte to its last, and no firmware: drop the image that the \
             build makes, {AS_IS}"
        )),
        false => Ok(()),
    }
}

/// Refuses a boot loader with an application for MCUboot behind it, as a programmer writes it.
pub(super) fn refuse_merged<R: Read + Seek>(source: &mut Source<R>) -> Result<(), Problem> {
    for at in (SECTOR..source.size.min(FLASH)).step_by(SECTOR as usize) {
        if mcuboot::begins(&source.at(at, 32)?) {
            return refuse(format!(
                "it holds a boot loader and an application for MCUboot, which is for a cable: drop \
                 the application alone, which the build names zephyr.signed.bin or \
                 app_update.bin, {AS_IS}"
            ));
        }
    }
    Ok(())
}

/// Refuses what is no image, by its first bytes.
pub(super) fn check(head: &[u8]) -> Result<(), Problem> {
    if head.starts_with(b"\x7fELF") {
        return refuse(format!(
            "it is an ELF file, which holds the program for a debugger: drop the .bin that the \
             build makes of it, not the .elf, {AS_IS}"
        ));
    }
    if is_page(head) {
        return refuse(
            "it is a web page, most likely the login or error page of the server that it was \
             downloaded from: download the image again and look at its size",
        );
    }
    if head.starts_with(b"\x1f\x8b") {
        return refuse(format!(
            "it is compressed with gzip: unpack it with `gunzip` and drop what comes out, {AS_IS}"
        ));
    }
    match u32_at(head, 0) {
        Some(DELTA) => refuse(format!(
            "it is a patch against one certain image (esp_delta_ota), and a device with another \
             one cannot use it: drop the whole image, {AS_IS}"
        )),
        Some(ENCRYPTED) => refuse(format!(
            "it is encrypted beforehand (esp_encrypted_img), so that nothing in it can be \
             checked: drop the plain image, {AS_IS}"
        )),
        _ => Ok(()),
    }
}

fn is_page(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let begins = head.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    let lower = head[begins..].iter().take(16).map(u8::to_ascii_lowercase).collect::<Vec<_>>();
    [&b"<!doctype html"[..], b"<html", b"<head", b"<?xml"].iter().any(|tag| lower.starts_with(tag))
}
