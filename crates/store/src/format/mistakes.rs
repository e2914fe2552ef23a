//! What is dropped by mistake: a device would write it all the same, and not start again.

use super::{Problem, refuse, u32_at};

/// A patch of `esp_delta_ota`.
const DELTA: u32 = 0xFCCD_DE10;
/// An image of `esp_encrypted_img`.
const ENCRYPTED: u32 = 0x0788_B6CF;

/// How to insist. Whoever writes it knows better than the name of a format.
const AS_IS: &str = "or write `as_is = true` into its sidecar if the device takes it as it is";

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
