//! The messages, byte for byte.

use std::{borrow::Cow, num::NonZeroU32, ops::Range};

use bytes::{BufMut, Bytes, BytesMut};
use hook::Encode;

use super::{BAD_TEXT, UNKNOWN_FIELD};
use crate::dialect::{BlockSize, Echo, Offer, Problem, Report, ReportedState, Request, runs};

/// First bytes of a device's messages.
pub const HELLO: u8 = 0x01;
pub const GET: u8 = 0x02;
pub const STATUS: u8 = 0x03;
/// First bytes of the server's.
pub const MANIFEST: u8 = 0x81;
pub const BLOCK: u8 = 0x82;
pub const NOTHING: u8 = 0x83;
pub const ERROR: u8 = 0x84;

/// Fields: their tags.
pub const IMAGE: u8 = 1;
pub const SIZE: u8 = 2;
pub const SHA256: u8 = 3;
pub const VERSION: u8 = 4;
pub const TITLE: u8 = 5;
pub const SIGNATURE: u8 = 6;
pub const WINDOW: u8 = 7;
pub const MODEL: u8 = 10;
pub const REASON: u8 = 11;

/// Forms of a GET.
pub const RANGES: u8 = 0;
pub const BITMAP: u8 = 1;

/// Codes of an ERROR.
pub const MALFORMED: u8 = 1;
pub const OTHER_IMAGE: u8 = 2;
pub const PAST_END: u8 = 3;
pub const LATER: u8 = 4;
pub const TOO_MUCH: u8 = 5;
pub const TOO_LARGE: u8 = 6;

/// Bytes before the firmware in a BLOCK: its first byte, checksum, image, offset.
pub const BLOCK_HEAD: usize = 13;
/// Ranges of one GET.
pub const MAX_RANGES: usize = 64;
/// Bytes of the bitmap of one GET. With one bit in two set it names as many ranges as may wait.
pub const MAX_BITMAP: usize = 512;
/// The longest text in an ERROR or a NOTHING, so that it fits a small buffer.
pub const MAX_TEXT: usize = 200;

/// A GET behind its first byte: image, block size, form, and what the form holds. The flag says
/// that it has a range of no blocks beside others.
pub fn get(rest: &[u8], echo: Echo) -> (Request, bool) {
    let mut empty_range = false;
    let request = match asked(rest, &mut empty_range) {
        Ok((image, size, index, more)) => Request {
            index: Ok(index),
            more,
            size: BlockSize::Bytes(size),
            image: Some(image),
            trims: true,
            echo,
        },
        Err(problem) => Request { index: Err(problem), echo, ..Request::default() },
    };
    let empty_range = empty_range && request.index.is_ok();
    (request, empty_range)
}

/// No image has as many blocks: what lies there is past the end of each.
const FARTHEST: u32 = u32::MAX - 1;

type Asked = (u64, NonZeroU32, u32, Vec<Range<u32>>);

fn asked(rest: &[u8], empty_range: &mut bool) -> Result<Asked, Problem> {
    let short = || Problem::from("the GET ends too early");
    let (image, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let (size, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let size = NonZeroU32::new(u16::from_be_bytes(*size).into());
    let size = size.ok_or("the GET asks for blocks of 0 bytes")?;
    let mut ranges = match rest {
        [RANGES, rest @ ..] => ranges(rest, empty_range)?,
        [BITMAP, rest @ ..] => bitmap(rest)?,
        [] => return Err(short()),
        _ => return Err("a GET has ranges (0) or a bitmap (1)".into()),
    };
    let first = ranges.first_mut().ok_or("the GET names no block")?;
    let index = first.start;
    first.start += 1;
    ranges.retain(|range| range.start < range.end);
    Ok((u64::from_be_bytes(*image), size, index, ranges))
}

/// Pairs of a first block and how many.
fn ranges(rest: &[u8], empty_range: &mut bool) -> Result<Vec<Range<u32>>, Problem> {
    let (pairs, []) = rest.as_chunks::<8>() else {
        return Err("a range has 8 bytes: first block and number of blocks".into());
    };
    if pairs.len() > MAX_RANGES {
        return Err(format!("the GET names more than {MAX_RANGES} ranges"));
    }
    let mut ranges = Vec::with_capacity(pairs.len());
    for [a, b, c, d, e, f, g, h] in pairs {
        let first = u32::from_be_bytes([*a, *b, *c, *d]);
        let count = u32::from_be_bytes([*e, *f, *g, *h]);
        if count > 0 {
            let first = first.min(FARTHEST);
            ranges.push(first..first.saturating_add(count).min(FARTHEST).max(first + 1));
        } else {
            *empty_range = true;
        }
    }
    Ok(ranges)
}

/// The first block that the bitmap is about, and the bitmap: bit 0 of a byte is the first of its
/// eight blocks, 1 means missing.
fn bitmap(rest: &[u8]) -> Result<Vec<Range<u32>>, Problem> {
    let (base, bits) =
        rest.split_first_chunk().ok_or("the GET ends before its bitmap's first block")?;
    if bits.len() > MAX_BITMAP {
        return Err(format!("the bitmap has more than {MAX_BITMAP} bytes"));
    }
    let runs = runs(u32::from_be_bytes(*base), bits, usize::MAX);
    let only_past = runs.is_empty() && bits.iter().any(|byte| *byte != 0);
    #[expect(clippy::single_range_in_vec_init, reason = "one run")]
    Ok(if only_past { vec![FARTHEST..FARTHEST + 1] } else { runs })
}

/// The fields of a message: a tag, a length, a value each.
#[derive(Default)]
pub struct Fields {
    pub version: Option<String>,
    pub model: Option<String>,
    pub reason: Option<String>,
    /// There was one that is not known here.
    pub unknown: bool,
    /// The bytes of a text are none.
    pub bad_text: bool,
}

pub fn fields(mut rest: &[u8]) -> Option<Fields> {
    let mut fields = Fields::default();
    while let [tag, length, after @ ..] = rest {
        let (value, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        let slot = match *tag {
            VERSION => &mut fields.version,
            MODEL => &mut fields.model,
            REASON => &mut fields.reason,
            IMAGE => continue,
            _ => {
                fields.unknown = true;
                continue;
            }
        };
        let text = String::from_utf8_lossy(value);
        fields.bad_text |= matches!(text, Cow::Owned(_));
        *slot = Some(text.into_owned());
    }
    rest.is_empty().then_some(fields)
}

impl Fields {
    /// What is odd about them.
    pub fn quirks(&self) -> impl Iterator<Item = &'static str> + use<> {
        let unknown = self.unknown.then_some(UNKNOWN_FIELD);
        unknown.into_iter().chain(self.bad_text.then_some(BAD_TEXT))
    }

    pub fn report(self, state: Option<ReportedState>) -> Option<Report> {
        let Fields { version, model, .. } = self;
        let says = version.is_some() || model.is_some() || state.is_some();
        says.then_some(Report { model, version, state })
    }
}

pub fn manifest(offer: &Offer<'_>) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    out.put_u8(MANIFEST);
    let mut field = |tag: u8, value: &[u8]| {
        let value = &value[..value.len().min(255)];
        out.put_slice(&[tag, value.len() as u8]);
        out.put_slice(value);
    };
    field(IMAGE, &offer.tag.to_be_bytes());
    field(SIZE, &u32::try_from(offer.size).unwrap_or(u32::MAX).to_be_bytes());
    field(SHA256, &hex::decode(offer.sha256).unwrap_or_default());
    field(VERSION, cut(offer.version, 255).as_bytes());
    if let Some(title) = offer.title {
        field(TITLE, cut(title, 255).as_bytes());
    }
    if let Some(signature) = offer.signature.and_then(|line| hex::decode(line).ok()) {
        field(SIGNATURE, &signature);
    }
    field(WINDOW, &u16::try_from(offer.window).unwrap_or(u16::MAX).to_be_bytes());
    out.freeze()
}

pub fn text(head: &[u8], text: &str) -> Bytes {
    [head, cut(text, MAX_TEXT).as_bytes()].concat().into()
}

/// At most so many bytes, at a character's end.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A block, encoded when the connection's writer has come to it.
pub struct Encoded {
    pub image: u64,
    pub offset: u32,
    pub data: Bytes,
}

impl Encode for Encoded {
    fn encoded_len(&self) -> usize {
        BLOCK_HEAD + self.data.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        // The first four bytes of the image's name tell a late block of another image.
        let place = (self.image & !u64::from(u32::MAX) | u64::from(self.offset)).to_be_bytes();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&place), &self.data);
        out.reserve(self.encoded_len());
        out.put_u8(BLOCK);
        out.put_u32(checksum);
        out.put_slice(&place);
        out.put_slice(&self.data);
    }
}
