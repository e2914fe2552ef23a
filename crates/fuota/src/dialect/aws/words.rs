//! The words of streams: a request's members out of JSON or CBOR, and answers in the same.

use std::{borrow::Cow, fmt, marker::PhantomData};

use bytes::BufMut;
use hook::Payload;
use minicbor::{Decoder, data::Type};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::streams::Format;
use crate::dialect::{
    json,
    scan::{plain_number, plain_text, skip},
};

/// A number that comes as a text.
pub const TEXT_NUMBER: &str = "number_as_text";
/// A member that is not known.
pub const UNKNOWN_KEY: &str = "unknown_member";

/// The longest bitmap, in bytes: 98,304 blocks.
pub const MAX_BITMAP: usize = 98_304 / 8;
/// The longest client token, in bytes.
pub const MAX_TOKEN: usize = 64;

/// The members of a request, as far as they are there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Members<'a> {
    /// `c`: repeated in the answer.
    pub token: Option<Cow<'a, str>>,
    /// `s`: version of the stream.
    pub stream: Option<u64>,
    /// `f`: which file of the stream.
    pub file: Option<u64>,
    /// `l`: bytes of a block.
    pub length: Option<u64>,
    /// `o`: the first block.
    pub offset: Option<u64>,
    /// `n`: how many blocks.
    pub count: Option<u64>,
    /// `b`: which blocks from the first on.
    pub bitmap: Option<Vec<u8>>,
}

/// What was tolerated in a request.
pub type Odd = Vec<&'static str>;

impl Members<'_> {
    fn number(&mut self, key: &str) -> Option<&mut Option<u64>> {
        Some(match key {
            "s" => &mut self.stream,
            "f" => &mut self.file,
            "l" => &mut self.length,
            "o" => &mut self.offset,
            "n" => &mut self.count,
            _ => return None,
        })
    }

    fn text_number(&mut self, key: &str, text: &str, odd: &mut Odd) -> Result<(), Wrong> {
        let number =
            text.trim().parse().map_err(|_| Wrong::Member(key.chars().take(8).collect()))?;
        odd.push(TEXT_NUMBER);
        if let Some(slot) = self.number(key) {
            *slot = Some(number);
        }
        Ok(())
    }
}

/// Why a request cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is not JSON, or not CBOR.
    Format,
    /// This member is of a wrong type.
    Member(String),
    /// The bitmap is too long.
    Bitmap,
}

/// Reads a request; an empty one has no members. What was tolerated up to where it cannot be read
/// is told as well.
pub fn read<'a>(format: Format, payload: &'a [u8], odd: &mut Odd) -> Result<Members<'a>, Wrong> {
    match format {
        _ if payload.is_empty() => Ok(Members::default()),
        Format::Json => match plain(payload) {
            Some(members) => Ok(members),
            None => read_json(payload, odd),
        },
        Format::Cbor => read_cbor(payload, odd),
    }
}

/// The usual form of a request, in any order and spacing: members that are known, each once, with whole
/// numbers and a plain text as token.
fn plain(payload: &[u8]) -> Option<Members<'_>> {
    if payload.len() > 256 || !payload.is_ascii() {
        return None;
    }
    let mut members = Members::default();
    let mut rest = skip(payload, b'{')?;
    loop {
        let (key, after) = plain_text(rest)?;
        rest = skip(after, b':')?;
        if key == b"c" && members.token.is_none() {
            let (token, after) = plain_text(rest)?;
            members.token = Some(Cow::Borrowed(std::str::from_utf8(token).ok()?));
            rest = after;
        } else {
            let slot = members.number(std::str::from_utf8(key).ok()?)?;
            let (number, after) = plain_number(rest).filter(|_| slot.is_none())?;
            *slot = Some(number.into());
            rest = after;
        }
        match skip(rest, b',') {
            Some(after) => rest = after,
            None => break,
        }
    }
    skip(rest, b'}')?.is_empty().then_some(members)
}

fn read_json<'a>(payload: &'a [u8], odd: &mut Odd) -> Result<Members<'a>, Wrong> {
    /// Key and value of each member, the values as they stand.
    struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>, bool);
    impl<'de> Deserialize<'de> for Pairs<'de> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Object<'a>(PhantomData<&'a ()>);
            impl<'de> Visitor<'de> for Object<'de> {
                type Value = Pairs<'de>;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs<'de>, M::Error> {
                    /// Known members, and some more.
                    const MOST: usize = 32;
                    let mut pairs = Pairs(Vec::new(), false);
                    while let Some(key) = map.next_key::<Text<'de>>()? {
                        if pairs.0.len() < MOST {
                            pairs.0.push((key.0, map.next_value()?));
                        } else {
                            map.next_value::<IgnoredAny>()?;
                            pairs.1 = true;
                        }
                    }
                    Ok(pairs)
                }
            }
            deserializer.deserialize_map(Object(PhantomData))
        }
    }
    #[derive(serde::Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let Pairs(pairs, more) = serde_json::from_slice(payload).map_err(|_| Wrong::Format)?;
    let mut members = Members::default();
    odd.extend(more.then_some(UNKNOWN_KEY));
    for (key, raw) in pairs {
        let raw = raw.get();
        let wrong = || Wrong::Member(key.chars().take(8).collect());
        match &*key {
            "c" => members.token = Some(json::text(raw).ok_or_else(wrong)?),
            "b" => {
                let text = json::text(raw).ok_or_else(wrong)?;
                let digits = text.strip_prefix("0x").unwrap_or(&text);
                if digits.len() > 2 * MAX_BITMAP {
                    return Err(Wrong::Bitmap);
                }
                members.bitmap = Some(hex::decode(digits).map_err(|_| wrong())?);
            }
            key if members.number(key).is_some() => match json::text(raw) {
                Some(text) => members.text_number(key, &text, odd)?,
                None => {
                    let number = raw.parse().map_err(|_| wrong())?;
                    members.number(key).into_iter().for_each(|slot| *slot = Some(number));
                }
            },
            _ => odd.push(UNKNOWN_KEY),
        }
    }
    Ok(members)
}

fn read_cbor<'a>(payload: &'a [u8], odd: &mut Odd) -> Result<Members<'a>, Wrong> {
    let mut decoder = Decoder::new(payload);
    let format = |_| Wrong::Format;
    let length = decoder.map().map_err(format)?;
    let mut members = Members::default();
    let mut left = length.unwrap_or(u64::MAX);
    while left > 0 {
        left -= 1;
        if length.is_none() && decoder.datatype().map_err(format)? == Type::Break {
            decoder.skip().map_err(format)?;
            break;
        }
        let key = text(&mut decoder)?;
        let kind = decoder.datatype().map_err(format)?;
        let wrong = || Wrong::Member(key.chars().take(8).collect());
        match &*key {
            "c" if is_text(kind) => members.token = Some(text(&mut decoder)?),
            "b" if matches!(kind, Type::Bytes | Type::BytesIndef) => {
                members.bitmap = Some(bitmap(&mut decoder)?);
            }
            "c" | "b" => return Err(wrong()),
            key if members.number(key).is_some() => match kind {
                kind if is_text(kind) => {
                    let text = text(&mut decoder)?;
                    members.text_number(key, &text, odd)?;
                }
                Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
                    let number = decoder.u64().map_err(format)?;
                    members.number(key).into_iter().for_each(|slot| *slot = Some(number));
                }
                _ => return Err(wrong()),
            },
            _ => {
                odd.push(UNKNOWN_KEY);
                decoder.skip().map_err(format)?;
                if odd.len() > 64 {
                    return Err(Wrong::Format);
                }
            }
        }
    }
    Ok(members)
}

fn is_text(kind: Type) -> bool {
    matches!(kind, Type::String | Type::StringIndef)
}

/// A text, in one piece or in several; no longer than anything here may be.
fn text<'a>(decoder: &mut Decoder<'a>) -> Result<Cow<'a, str>, Wrong> {
    const LONGEST: usize = 1024;
    let mut whole = Cow::Borrowed("");
    for piece in decoder.str_iter().map_err(|_| Wrong::Format)? {
        let piece = piece.map_err(|_| Wrong::Format)?;
        if whole.len() + piece.len() > LONGEST {
            return Err(Wrong::Member(whole.chars().take(8).collect()));
        }
        // One that comes in one piece, as nearly all do, is not copied.
        whole += piece;
    }
    Ok(whole)
}

fn bitmap(decoder: &mut Decoder<'_>) -> Result<Vec<u8>, Wrong> {
    let mut whole = Vec::new();
    for piece in decoder.bytes_iter().map_err(|_| Wrong::Format)? {
        let piece = piece.map_err(|_| Wrong::Format)?;
        if whole.len() + piece.len() > MAX_BITMAP {
            return Err(Wrong::Bitmap);
        }
        whole.extend_from_slice(piece);
    }
    Ok(whole)
}

/// A member of an answer.
pub enum Value<'a> {
    Number(u64),
    Text(&'a str),
    /// The description's list of files: the only file and its size.
    File(u64),
}

/// An answer with these members.
pub fn write(format: Format, members: &[(&str, Value<'_>)]) -> Payload {
    match format {
        Format::Json => {
            let members = members.iter().map(|(key, value)| {
                let value = match value {
                    Value::Number(number) => (*number).into(),
                    Value::Text(text) => (*text).into(),
                    Value::File(size) => serde_json::json!([{ "f": 0, "z": size }]),
                };
                ((*key).to_owned(), value)
            });
            serde_json::Value::Object(members.collect()).to_string().into()
        }
        Format::Cbor => {
            let mut out = Vec::new();
            head(&mut out, 5, members.len() as u64);
            for (key, value) in members {
                put_text(&mut out, key);
                match value {
                    Value::Number(number) => head(&mut out, 0, *number),
                    Value::Text(text) => put_text(&mut out, text),
                    Value::File(size) => {
                        head(&mut out, 4, 1);
                        head(&mut out, 5, 2);
                        put_text(&mut out, "f");
                        head(&mut out, 0, 0);
                        put_text(&mut out, "z");
                        head(&mut out, 0, *size);
                    }
                }
            }
            bytes::Bytes::from(out).into()
        }
    }
}

/// Why a request was refused.
pub fn rejected(format: Format, code: &str, text: &str, token: Option<&str>) -> Payload {
    let mut members = vec![("o", Value::Text(code)), ("m", Value::Text(text))];
    members.extend(token.map(|token| ("c", Value::Text(token))));
    write(format, &members)
}

/// The head of an item of CBOR: its major type and its length or value.
pub fn head(out: &mut impl BufMut, major: u8, value: u64) {
    let first = major << 5;
    match value {
        0..=23 => out.put_u8(first | value as u8),
        24..=0xff => out.put_slice(&[first | 24, value as u8]),
        0x100..=0xffff => {
            out.put_u8(first | 25);
            out.put_u16(value as u16);
        }
        0x1_0000..=0xffff_ffff => {
            out.put_u8(first | 26);
            out.put_u32(value as u32);
        }
        _ => {
            out.put_u8(first | 27);
            out.put_u64(value);
        }
    }
}

/// Bytes of such a head.
pub fn head_len(value: u64) -> usize {
    match value {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

pub fn put_text(out: &mut impl BufMut, text: &str) {
    head(out, 3, text.len() as u64);
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_agents_send_takes_the_quick_way() {
        for usual in [
            r#"{"s": 1,"f": 0,"l": 1024,"o": 3,"n": 4}"#,
            r#"{"f":0,"l":4096,"o":98304,"n":1,"c":"rdy"}"#,
            "{ \"c\" : \"t\" }",
        ] {
            assert!(plain(usual.as_bytes()).is_some(), "{usual}");
        }
        for other in
            [r#"{"f":"0"}"#, r#"{"f":0,"f":1}"#, r#"{"b":"00"}"#, r#"{"c":"\\u0041"}"#, "{}", "{"]
        {
            assert_eq!(plain(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn the_quick_way_says_what_the_other_says(
            members in prop::collection::vec(
                prop_oneof![
                    4 => ("[flnos]", "[0-9]{1,10}"),
                    1 => ("c", "\"[a-z0-9]{0,4}\""),
                    1 => ("[cbflnosx]{1,2}", "(-?[0-9]{1,11}(\\.[0-9])?|\"[a-z0-9\\\\\u{e9}]{0,4}\"|null|\\[\\])"),
                ], 0..5,
            ),
            space in "[ \n\t]{0,2}", end in prop_oneof![9 => "\\}", 1 => "\\}{0,2}"],
        ) {
            let members = members.iter().map(|(key, value)| format!("\"{key}\"{space}:{value}{space}"));
            let text = format!("{{{space}{}{end}", members.collect::<Vec<_>>().join(","));
            if let Some(quick) = plain(text.as_bytes()) {
                let mut odd = Vec::new();
                prop_assert_eq!(read_json(text.as_bytes(), &mut odd), Ok(quick));
                prop_assert!(odd.is_empty());
            }
        }
    }
}
