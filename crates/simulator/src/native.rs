//! The native dialect, as a device reads and writes it: `docs/dialects/native.md`.

use bytes::{Buf, Bytes};

use crate::digest::Digest;
use crate::wire::{Manifest, Message};

/// Where devices speak.
pub(crate) const UP: &str = "fuota/v1/up";
/// Where they hear.
pub(crate) const DOWN: &str = "fuota/v1/down";

/// Ranges in one GET.
const MAX_RANGES: usize = 64;

/// HELLO: a device is there, and wants to know what there is for it.
pub(crate) fn hello(model: Option<&str>) -> Vec<u8> {
    let mut message = vec![1];
    if let Some(model) = model {
        field(&mut message, 10, model);
    }
    message
}

/// STATUS: this version runs.
pub(crate) fn updated(version: &str) -> Vec<u8> {
    let mut message = vec![3, 4];
    field(&mut message, 4, version);
    message
}

fn field(message: &mut Vec<u8>, tag: u8, text: &str) {
    let text = &text.as_bytes()[..text.len().min(255)];
    message.extend([tag, text.len() as u8]);
    message.extend(text);
}

/// GETs for these blocks: neighbours make one range.
pub(crate) fn get(image: [u8; 8], block_size: u16, indices: &[u32]) -> Vec<Vec<u8>> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for index in indices {
        match ranges.last_mut().filter(|(first, count)| first + count == *index) {
            Some((_, count)) => *count += 1,
            None => ranges.push((*index, 1)),
        }
    }
    let message = |ranges: &[(u32, u32)]| {
        let mut message = vec![2];
        message.extend(image);
        message.extend(block_size.to_be_bytes());
        message.push(0);
        for (first, count) in ranges {
            message.extend(first.to_be_bytes());
            message.extend(count.to_be_bytes());
        }
        message
    };
    ranges.chunks(MAX_RANGES).map(message).collect()
}

/// Reads a payload; blocks of another image than `image` are left out, and so is what says that
/// there is nothing.
pub(crate) fn decode(payload: &[u8], block_size: u16, image: Option<[u8; 8]>) -> Vec<Message> {
    let read = match payload {
        [0x81, fields @ ..] => manifest(fields, block_size).map(Message::Manifest),
        [0x82, rest @ ..] => match block(rest, block_size, image) {
            Ok(None) => return Vec::new(),
            Ok(Some(block)) => Ok(block),
            Err(reason) => Err(reason),
        },
        [0x84, _code, text @ ..] => Ok(Message::Error(String::from_utf8_lossy(text).into())),
        _ => return Vec::new(),
    };
    vec![read.unwrap_or_else(|reason| Message::Malformed(reason.into()))]
}

fn manifest(mut fields: &[u8], block_size: u16) -> Result<Manifest, &'static str> {
    let (mut image, mut size, mut sha256, mut version) = (None, None, None, None);
    let mut signature = None;
    while fields.has_remaining() {
        let tag = fields.get_u8();
        let length = fields.try_get_u8().map_err(|_| "manifest: a field without a length")?;
        let Some((value, rest)) = fields.split_at_checked(length.into()) else {
            return Err("manifest: a field ends too early");
        };
        fields = rest;
        match tag {
            1 => image = value.try_into().ok(),
            2 => size = value.try_into().ok().map(u32::from_be_bytes),
            3 => sha256 = value.try_into().ok().map(Digest),
            4 => version = Some(String::from_utf8_lossy(value).into_owned()),
            6 => {
                signature =
                    Some(value.try_into().map_err(|_| "manifest: a signature of another length")?)
            }
            _ => {} // of a later version
        }
    }
    let size: u32 = size.ok_or("manifest: no size")?;
    Ok(Manifest {
        total_size: size.into(),
        total_chunks: size.div_ceil(block_size.into()),
        chunk_size: block_size.into(),
        version: version.ok_or("manifest: no version")?,
        sha256: Some(sha256.ok_or("manifest: no digest")?),
        image: Some(image.ok_or("manifest: no image")?),
        signature,
    })
}

fn block(
    mut rest: &[u8],
    block_size: u16,
    image: Option<[u8; 8]>,
) -> Result<Option<Message>, &'static str> {
    let checksum = rest.try_get_u32().map_err(|_| "a block without a checksum")?;
    if crc32c::crc32c(rest) != checksum {
        return Err("a block whose checksum is wrong");
    }
    let of = rest.try_get_u32().map_err(|_| "a block without an image")?;
    let offset = rest.try_get_u32().map_err(|_| "a block without an offset")?;
    if image.is_none_or(|image| image[..4] != of.to_be_bytes()) {
        return Ok(None);
    }
    let size = u32::from(block_size);
    if offset % size != 0 {
        return Err("a block at an offset that nobody asked for");
    }
    Ok(Some(Message::Block(offset / size, Bytes::copy_from_slice(rest))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IMAGE: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

    fn block_of(offset: u32, data: &[u8]) -> Vec<u8> {
        let body = [&IMAGE[..4], &offset.to_be_bytes(), data].concat();
        [&[0x82][..], &crc32c::crc32c(&body).to_be_bytes(), &body].concat()
    }

    #[test]
    fn neighbours_make_one_range() {
        let expected =
            [&[2][..], &IMAGE, &[4, 0, 0], &[0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 1]]
                .concat();
        assert_eq!(get(IMAGE, 1024, &[3, 4, 9]), [expected]);
        let apart: Vec<u32> = (0..130).map(|index| index * 2).collect();
        assert_eq!(get(IMAGE, 1024, &apart).len(), 3);
        assert!(get(IMAGE, 1024, &[]).is_empty());
    }

    #[test]
    fn a_manifest_and_its_blocks_are_read() {
        let text = [
            &[0x81, 1, 8][..],
            &IMAGE,
            &[2, 4, 0, 0, 0x27, 0x10, 3, 32],
            &[9; 32],
            &[4, 3],
            b"1.2",
            &[77, 2, 0, 0],
        ]
        .concat();
        let [Message::Manifest(manifest)] = &decode(&text, 4096, None)[..] else { panic!() };
        assert_eq!((manifest.total_size, manifest.total_chunks), (10_000, 3));
        assert_eq!((manifest.image, manifest.sha256), (Some(IMAGE), Some(Digest([9; 32]))));
        assert!(matches!(decode(&text[..20], 4096, None)[..], [Message::Malformed(_)]));

        let block = block_of(8192, b"abc");
        let expected = Message::Block(2, Bytes::from_static(b"abc"));
        assert_eq!(decode(&block, 4096, Some(IMAGE)), [expected]);
        assert!(decode(&block, 4096, Some([0; 8])).is_empty(), "of another image");
        assert!(matches!(decode(&block, 4095, Some(IMAGE))[..], [Message::Malformed(_)]));
        let mut damaged = block;
        damaged[14] ^= 1;
        assert!(matches!(decode(&damaged, 4096, Some(IMAGE))[..], [Message::Malformed(_)]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(payload in prop::collection::vec(any::<u8>(), 0..300), first in 0x80u8..0x86) {
            decode(&payload, 100, Some(IMAGE));
            decode(&[&[first], &payload[..]].concat(), 100, Some(IMAGE));
        }
    }
}
