//! MQTT-based file delivery: a stream holds one image, and a request names blocks of it by a
//! range or a bitmap.

use std::{num::NonZeroU32, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use hook::{Encode, Payload};

use super::{
    THINGS,
    words::{self, Members, Value, Wrong},
};
use crate::dialect::{
    BlockSize, ImageTag, Offer, Question, Request, Trouble,
    digits::{digits, push_number},
    runs,
};

/// A request for a description without a payload.
pub const EMPTY_PAYLOAD: &str = "describe_without_payload";
/// Names of streams begin with this; the image's beginning follows.
const PREFIX: &str = "AFR_OTA-";
/// The version of every stream: another image is another stream.
const VERSION: u64 = 1;
/// Bytes of firmware that one request may get.
const MAX_DATA: u64 = 128 * 1024;
const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 256..=MAX_DATA;
/// The largest offset, and number of blocks.
const MAX_BLOCKS: u64 = 98_304;

/// In which of the two a request came; the answer is in the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Cbor,
}

impl Format {
    pub fn named(name: &str) -> Option<Format> {
        match name {
            "json" => Some(Format::Json),
            "cbor" => Some(Format::Cbor),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Cbor => "cbor",
        }
    }
}

/// What was read, and what was tolerated.
pub struct Read {
    pub ask: Ask,
    pub quirks: Vec<&'static str>,
}

pub enum Ask {
    Blocks(Request),
    Description(Question),
    /// What the answer repeats, and the problem: its code, a colon, a sentence.
    Wrong(Arc<[u8]>, String),
}

/// What answers repeat: the format, the token and its length, the stream.
struct Repeated<'a> {
    format: Format,
    token: Option<&'a str>,
    stream: &'a str,
}

/// The length of a token that is not there.
const NO_TOKEN: u8 = u8::MAX;

fn repeat(kind: u8, format: Format, stream: &str, token: Option<&str>) -> Arc<[u8]> {
    let format = if format == Format::Json { b'j' } else { b'c' };
    let length = token.map_or(NO_TOKEN, |token| token.len() as u8);
    let bytes = token.unwrap_or_default().bytes().chain(stream.bytes());
    [kind, format, length].into_iter().chain(bytes).collect()
}

/// The same, shared with what was repeated last where that is no other.
fn repeat_again(
    last: Option<&Arc<[u8]>>,
    format: Format,
    stream: &str,
    token: Option<&str>,
) -> Arc<[u8]> {
    let is_same = |last: &&Arc<[u8]>| {
        repeated(last)
            .is_some_and(|last| (last.format, last.token, last.stream) == (format, token, stream))
    };
    last.filter(is_same).map_or_else(|| repeat(BLOCKS, format, stream, token), Arc::clone)
}

/// The first byte of what blocks repeat, and of a question for a description; no job's question
/// begins with them.
const BLOCKS: u8 = 1;
const DESCRIPTION: u8 = 2;

fn repeated(echo: &[u8]) -> Option<Repeated<'_>> {
    let [_, format, length, rest @ ..] = echo else { return None };
    let format = if *format == b'j' { Format::Json } else { Format::Cbor };
    let (token, stream) = match *length {
        NO_TOKEN => (None, rest),
        length => {
            let (token, stream) = rest.split_at_checked(length.into())?;
            (Some(std::str::from_utf8(token).ok()?), stream)
        }
    };
    Some(Repeated { format, token, stream: std::str::from_utf8(stream).ok()? })
}

pub fn topic(thing: &str, stream: &str, verb: &str, format: Format) -> Arc<str> {
    format!("{THINGS}{thing}/streams/{stream}/{verb}/{}", format.name()).into()
}

pub fn reply_topic(thing: &str, echo: &[u8], verb: &str) -> Arc<str> {
    match repeated(echo) {
        Some(Repeated { format, stream, .. }) => topic(thing, stream, verb, format),
        None => topic(thing, "", verb, Format::Json),
    }
}

/// The name of the stream that holds this image.
pub fn name(tag: ImageTag) -> String {
    format!("{PREFIX}{tag:016x}")
}

fn tag_of(stream: &str) -> Option<ImageTag> {
    let digits = stream.strip_prefix(PREFIX).filter(|digits| digits.len() == 16)?;
    ImageTag::from_str_radix(digits, 16).ok()
}

/// A request for blocks; `last` is what the blocks of the one before repeat.
pub fn get(stream: &str, format: Format, payload: &[u8], last: Option<&Arc<[u8]>>) -> Read {
    let mut quirks = Vec::new();
    let mut members = match words::read(format, payload, &mut quirks) {
        Ok(members) => members,
        Err(wrong) => return Read { ask: unreadable(stream, format, wrong), quirks },
    };
    let token = members.token.take().filter(|token| token.len() <= words::MAX_TOKEN);
    let echo = repeat_again(last, format, stream, token.as_deref());
    let ask = match blocks(stream, &members) {
        Ok((image, size, index, more)) => Ask::Blocks(Request {
            index: Ok(index),
            more,
            size: BlockSize::Bytes(size),
            image: Some(image),
            trims: true,
            echo: Some(echo),
        }),
        Err(problem) => Ask::Wrong(echo, problem),
    };
    Read { ask, quirks }
}

fn unreadable(stream: &str, format: Format, wrong: Wrong) -> Ask {
    let problem = match wrong {
        Wrong::Format if format == Format::Json => "InvalidJson: the request is not JSON".into(),
        Wrong::Format => "InvalidCbor: the request is not CBOR".into(),
        Wrong::Member(key) => format!("InvalidRequest: the member {key} is of a wrong type"),
        Wrong::Bitmap => "BlockBitmapLimitExceeded: a bitmap has at most 12288 bytes".into(),
    };
    Ask::Wrong(repeat(BLOCKS, format, stream, None), problem)
}

type Blocks = (ImageTag, NonZeroU32, u32, Vec<Range<u32>>);

fn blocks(stream: &str, members: &Members<'_>) -> Result<Blocks, String> {
    let image = tag_of(stream).ok_or("ResourceNotFound: there is no such stream")?;
    if members.stream.is_some_and(|version| version != VERSION) {
        return Err(format!("VersionMismatch: the stream has version {VERSION}"));
    }
    match members.file {
        Some(0) => {}
        Some(_) => return Err("ResourceNotFound: the stream has only the file 0".into()),
        None => return Err("InvalidRequest: the member f, the file, is missing".into()),
    }
    let length =
        members.length.ok_or("InvalidRequest: the member l, the block size, is missing")?;
    let size = u32::try_from(length).ok().and_then(NonZeroU32::new);
    let size = size.filter(|_| BLOCK_SIZES.contains(&length)).ok_or_else(|| {
        format!("BlockSizeOutOfBounds: a block has {} to {MAX_DATA} bytes", BLOCK_SIZES.start())
    })?;
    let offset = members.offset.unwrap_or(0);
    if offset > MAX_BLOCKS {
        return Err(format!("OffsetOutOfBounds: the offset is at most {MAX_BLOCKS}"));
    }
    let count = members.count.unwrap_or(0);
    if count > MAX_BLOCKS {
        return Err(format!("BlockCountLimitExceeded: at most {MAX_BLOCKS} blocks are asked for"));
    }
    // More than fits one request needs another one.
    let most = MAX_DATA / length;
    let most = if count == 0 { most } else { most.min(count) };
    let offset = offset as u32;
    let Some(bitmap) = &members.bitmap else {
        let more = offset + 1..offset + most as u32;
        return Ok((image, size, offset, if more.is_empty() { vec![] } else { vec![more] }));
    };
    let mut ranges = runs(offset, bitmap, most as usize);
    let first = ranges.first_mut().ok_or("InvalidRequest: the bitmap names no block")?;
    let index = first.start;
    first.start += 1;
    ranges.retain(|range| range.start < range.end);
    Ok((image, size, index, ranges))
}

/// A request for the stream's description.
pub fn describe(stream: &str, format: Format, payload: &[u8]) -> Read {
    let mut quirks = Vec::from_iter(payload.is_empty().then_some(EMPTY_PAYLOAD));
    let ask = match words::read(format, payload, &mut quirks) {
        Ok(Members { token, .. }) => {
            let token = token.filter(|token| token.len() <= words::MAX_TOKEN);
            Ask::Description(repeat(DESCRIPTION, format, stream, token.as_deref()))
        }
        Err(wrong) => unreadable(stream, format, wrong),
    };
    Read { ask, quirks }
}

/// The answer to a question for a description; `None` for another question.
pub fn described(
    thing: &str,
    question: &Question,
    offer: Option<&Offer<'_>>,
) -> Option<(Arc<str>, Payload)> {
    if question.first() != Some(&DESCRIPTION) {
        return None;
    }
    let Repeated { format, token, stream } = repeated(question)?;
    let Some(offer) = offer.filter(|offer| tag_of(stream) == Some(offer.tag)) else {
        let text = "there is no such stream for this thing";
        let payload = words::rejected(format, "ResourceNotFound", text, token);
        return Some((topic(thing, stream, "rejected", format), payload));
    };
    let mut members = vec![
        ("s", Value::Number(VERSION)),
        ("d", Value::Text(offer.version)),
        ("r", Value::File(offer.size)),
    ];
    members.extend(token.map(|token| ("c", Value::Text(token))));
    Some((topic(thing, stream, "description", format), words::write(format, &members)))
}

/// Why there is no block.
pub fn refused(thing: &str, trouble: &Trouble, echo: &[u8]) -> (Arc<str>, Payload) {
    let text = trouble.to_string();
    let (code, text) = match trouble {
        Trouble::Asked(problem) => problem.split_once(": ").unwrap_or(("InvalidRequest", problem)),
        Trouble::PastEnd { .. } => {
            ("InvalidRequest", "the blocks are out of the range of data available")
        }
        Trouble::Nothing(_) => ("ResourceNotFound", &*text),
        Trouble::Unavailable(_) => ("InternalError", &*text),
        Trouble::TooMuch(_) => ("BlockCountLimitExceeded", &*text),
        Trouble::TooLarge(_) => ("BlockSizeOutOfBounds", &*text),
    };
    let (format, token) = repeated(echo).map_or((Format::Json, None), |it| (it.format, it.token));
    (reply_topic(thing, echo, "rejected"), words::rejected(format, code, text, token))
}

/// A block, encoded when it is written.
pub fn data(index: u32, echo: &[u8], data: Bytes) -> Payload {
    let (format, token) = repeated(echo).map_or((Format::Json, None), |it| (it.format, it.token));
    match format {
        Format::Json => {
            let token = token.map(|token| format!("\"c\":{},", serde_json::Value::from(token)));
            Payload::Deferred(Arc::new(JsonBlock { token, index, data }))
        }
        Format::Cbor => {
            let token = token.map(str::to_owned);
            Payload::Deferred(Arc::new(CborBlock { token, index, data }))
        }
    }
}

struct JsonBlock {
    /// The member for it, and a comma.
    token: Option<String>,
    index: u32,
    data: Bytes,
}

/// What stands before the length of a block in JSON, its number and its data, and behind that.
const LENGTH: &[u8] = b"\"f\":0,\"l\":";
const NUMBER: &[u8] = b",\"i\":";
const DATA: &[u8] = b",\"p\":\"";
const TAIL: &[u8] = b"\"}";

impl Encode for JsonBlock {
    fn encoded_len(&self) -> usize {
        1 + self.token.as_ref().map_or(0, String::len)
            + LENGTH.len()
            + digits(self.data.len() as u32)
            + NUMBER.len()
            + digits(self.index)
            + DATA.len()
            + base64_simd::STANDARD.encoded_length(self.data.len())
            + TAIL.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.encoded_len());
        out.extend_from_slice(b"{");
        out.extend_from_slice(self.token.as_deref().unwrap_or_default().as_bytes());
        out.extend_from_slice(LENGTH);
        push_number(out, self.data.len() as u32);
        out.extend_from_slice(NUMBER);
        push_number(out, self.index);
        out.extend_from_slice(DATA);
        let start = out.len();
        out.resize(start + base64_simd::STANDARD.encoded_length(self.data.len()), 0);
        // The slice has exactly the length that was asked for.
        let _ = base64_simd::STANDARD
            .encode(&self.data, base64_simd::Out::from_slice(&mut out[start..]));
        out.extend_from_slice(TAIL);
    }
}

struct CborBlock {
    token: Option<String>,
    index: u32,
    data: Bytes,
}

impl Encode for CborBlock {
    fn encoded_len(&self) -> usize {
        // Each key is a text of one letter.
        let text = |text: &String| 2 + words::head_len(text.len() as u64) + text.len();
        let length = words::head_len(self.data.len() as u64);
        1 + self.token.as_ref().map_or(0, text)
            + (2 + 1)
            + (2 + length)
            + (2 + words::head_len(self.index.into()))
            + (2 + length + self.data.len())
    }

    fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.encoded_len());
        words::head(out, 5, if self.token.is_some() { 5 } else { 4 });
        if let Some(token) = &self.token {
            words::put_text(out, "c");
            words::put_text(out, token);
        }
        let length = self.data.len() as u64;
        for (key, value) in [("f", 0), ("l", length), ("i", self.index.into())] {
            words::put_text(out, key);
            words::head(out, 0, value);
        }
        words::put_text(out, "p");
        words::head(out, 2, length);
        out.extend_from_slice(&self.data);
    }
}
