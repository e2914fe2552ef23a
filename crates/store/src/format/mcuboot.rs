//! Images for MCUboot (`bootutil/image.h`; all little-endian).
//!
//! ```text
//! 0      header, 32 bytes: magic, load address, its size, size of protected TLVs, image size,
//!        flags, 20 version (major, minor, revision u16, build u32)
//! then   the image; protected TLVs, if there are; TLVs: magic, total; type, length, value …
//! ```
//!
//! The hash among the TLVs is of everything before them. It carries no name.

use std::io::{Read, Seek};

use sha2::{Sha256, Sha384, Sha512};

use super::{Examined, Format, Header, Problem, Source, mistakes::AS_IS, refuse, u16_at, u32_at};

const MAGIC: u32 = 0x96F3_B83D;
/// Of the first format, whose header is another one. Boot loaders have long ceased to read it.
const FIRST: u32 = 0x96F3_B83C;
const PROTECTED: u16 = 0x6908;
/// A TLV that says: signed is the image itself, and not its hash.
const PURE: u16 = 0x25;
const INFO: u16 = 0x6907;
/// Encrypted with AES: the hash is of the plain image.
const ENCRYPTED: u32 = 0x4 | 0x8;
/// TLVs have a total of 16 bits, both areas together little more than twice that.
const MAX_AREA: usize = 1 << 16;

pub(super) fn begins(head: &[u8]) -> bool {
    matches!(u32_at(head, 0), Some(MAGIC | FIRST))
}

pub(super) fn examine<R: Read + Seek>(
    source: &mut Source<R>,
    head: &[u8],
) -> Result<Examined, Problem> {
    if u32_at(head, 0) == Some(FIRST) {
        return refuse(format!(
            "it is an image in MCUboot's first format, which its boot loaders no longer read: sign \
             the application with a present `imgtool`, {AS_IS}"
        ));
    }
    let cut = |needs: u64, has: u64| {
        refuse(format!(
            "it is cut short: it has {has} bytes, and its header names {needs} or more: copy it \
             again"
        ))
    };
    let field = |at| u32_at(head, at).unwrap_or_default();
    let half = |at| u16_at(head, at).unwrap_or_default();
    let (header_size, protected) = (u64::from(half(8)), u64::from(half(10)));
    let (image_size, flags) = (u64::from(field(12)), field(16));
    if head.len() < 32 || header_size < 32 {
        return cut(32, source.size);
    }
    let body = header_size + image_size;
    let hashed = body + protected;
    if hashed + 4 > source.size {
        return cut(hashed + 4, source.size);
    }
    let mut header = Header { format: Format::Mcuboot, ..Header::default() };
    let (major, minor, revision, build) = (head[20], head[21], half(22), field(24));
    header.version = Some(match build {
        0 => format!("{major}.{minor}.{revision}"),
        build => format!("{major}.{minor}.{revision}+{build}"),
    });

    let mut areas = Vec::new();
    if protected > 0 {
        areas.push((body, PROTECTED, protected));
    }
    let info = source.at(hashed, 4)?;
    let total = u64::from(u16_at(&info, 2).unwrap_or_default());
    if u16_at(&info, 0) != Some(INFO) {
        return refuse(
            "it is an image for MCUboot without the area that holds its hash, so the boot loader \
             would refuse it: drop what `imgtool sign` or the build made last",
        );
    }
    if hashed + total > source.size {
        return cut(hashed + total, source.size);
    }
    areas.push((hashed, INFO, total));

    let (mut hash, mut pure): (Option<(u16, Vec<u8>)>, bool) = (None, false);
    for (at, magic, total) in areas {
        let area = source.at(at, MAX_AREA.min(usize::try_from(total).unwrap_or(MAX_AREA)))?;
        // What the header says of the protected area's size stands there again.
        let same = u16_at(&area, 2).map(u64::from) == Some(total);
        if u16_at(&area, 0) != Some(magic) || !same {
            return refuse(
                "it is damaged: its header does not fit its end: build or copy it again",
            );
        }
        let mut rest = area.get(4..).unwrap_or_default();
        while let (Some(kind), Some(len)) = (u16_at(rest, 0), u16_at(rest, 2)) {
            let Some(value) = rest.get(4..4 + usize::from(len)) else { break };
            match kind {
                0x10..=0x12 => hash = Some((kind, value.to_vec())),
                PURE => (header.signed, pure) = (true, true),
                0x20..=0x24 => header.signed = true,
                0x50 => header.security_counter = u32_at(value, 0),
                _ => {}
            }
            rest = &rest[4 + usize::from(len)..];
        }
    }
    match hash {
        Some((kind, hash)) if flags & ENCRYPTED == 0 => {
            let same = match kind {
                0x10 => digest::<Sha256, R>(source, hashed)? == hash,
                0x11 => digest::<Sha384, R>(source, hashed)? == hash,
                _ => digest::<Sha512, R>(source, hashed)? == hash,
            };
            if !same {
                return refuse(
                    "it is damaged: its hash does not match its bytes, so the boot loader would \
                     refuse it: build or copy it again",
                );
            }
        }
        Some(_) => header.warnings.push(
            "it is encrypted for the boot loader, so its hash was not checked here".to_owned(),
        ),
        // Signed over the image itself instead.
        None if pure => {}
        None => {
            return refuse(
                "it has no hash, so the boot loader would refuse it: drop what `imgtool sign` or \
                 the build made last",
            );
        }
    }
    let end = hashed + total;
    if source.size > end + 4096 {
        header.warnings.push(format!(
            "it is padded to a slot: {} of its {} bytes follow the image, and are sent with it; \
             `imgtool sign` without --pad leaves them out",
            source.size - end,
            source.size
        ));
    }
    Ok(header.into())
}

fn digest<D: sha2::Digest, R: Read + Seek>(
    source: &mut Source<R>,
    len: u64,
) -> Result<Vec<u8>, Problem> {
    let mut hash = D::new();
    source.feed(0, len, |bytes| hash.update(bytes))?;
    Ok(hash.finalize().to_vec())
}
