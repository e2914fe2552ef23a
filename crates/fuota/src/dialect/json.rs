//! Reading variables out of JSON without changing a byte of what is not ours.
//!
//! A payload is one variable object or an array of them. Values stay slices of the payload
//! ([`RawValue`]), so that nesting costs no stack and what goes on is what came in.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Problem;

/// A byte order mark, which some writers put before JSON.
pub const MARK: &[u8] = b"\xEF\xBB\xBF";

/// What a payload holds.
pub enum Payload<'a> {
    /// One object.
    One(Variable<'a>),
    /// An array: each element's text, and the variable where it is an object.
    Many(Vec<(&'a str, Option<Variable<'a>>)>),
}

/// One object's members, as far as they concern us. Where a key stands twice the last one
/// counts, as in every common parser, but all names are kept: a receiver may differ.
#[derive(Default)]
pub struct Variable<'a> {
    /// Every `variable` that is a text.
    pub names: Vec<Cow<'a, str>>,
    /// The same under keys such as `Variable`, which some receivers take for it.
    pub nearly: Vec<Cow<'a, str>>,
    /// `value`.
    pub value: Option<&'a RawValue>,
    /// `group`.
    pub group: Option<&'a RawValue>,
    /// `metadata`.
    pub metadata: Option<&'a RawValue>,
}

impl Variable<'_> {
    /// The name that counts.
    pub fn name(&self) -> Option<&str> {
        self.names.last().map(|name| &**name)
    }
}

enum Key {
    Variable,
    Nearly,
    Value,
    Group,
    Metadata,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl Visitor<'_> for Keys {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "variable" => Key::Variable,
                    "value" => Key::Value,
                    "group" => Key::Group,
                    "metadata" => Key::Metadata,
                    key if key.eq_ignore_ascii_case("variable") => Key::Nearly,
                    _ => Key::Other,
                })
            }
        }
        deserializer.deserialize_str(Keys)
    }
}

impl<'de> Deserialize<'de> for Variable<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Variable<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Variable<'de>, M::Error> {
                let mut variable = Variable::default();
                while let Some(key) = map.next_key()? {
                    let value: &RawValue = map.next_value()?;
                    match key {
                        Key::Variable => variable.names.extend(text(value.get())),
                        Key::Nearly => variable.nearly.extend(text(value.get())),
                        Key::Value => variable.value = Some(value),
                        Key::Group => variable.group = Some(value),
                        Key::Metadata => variable.metadata = Some(value),
                        Key::Other => {}
                    }
                }
                Ok(variable)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The text of a JSON string; `None` for any other value.
pub fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Reads a payload; `None` where it is not JSON, or neither an object nor an array.
pub fn read(payload: &[u8]) -> Option<Payload<'_>> {
    let payload = payload.strip_prefix(MARK).unwrap_or(payload);
    match payload.trim_ascii_start().first()? {
        b'{' => serde_json::from_slice(payload).ok().map(Payload::One),
        b'[' => {
            let elements: Vec<&RawValue> = serde_json::from_slice(payload).ok()?;
            let elements = elements.into_iter().map(|raw| {
                let text = raw.get();
                let variable =
                    if text.starts_with('{') { serde_json::from_str(text).ok() } else { None };
                (text, variable)
            });
            Some(Payload::Many(elements.collect()))
        }
        _ => None,
    }
}

/// Which of `names` stands in what cannot be read as JSON. A receiver that is less strict would find
/// it there: one that stops behind the first value, takes half a surrogate or bytes that are no
/// UTF-8, knows comments and other quotes, or compares keys in any case.
pub fn hidden<'n>(unreadable: &[u8], names: &[&'n str]) -> Option<&'n str> {
    let plain = unescaped(unreadable);
    let stands = |name: &&&str| {
        let name = name.as_bytes();
        plain.windows(name.len()).any(|window| window.eq_ignore_ascii_case(name))
    };
    names.iter().find(stands).copied()
}

/// Without escapes, read as any parser might: a character by its number, and else without its
/// backslash.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        let digits = match (first, more.first()) {
            (b'\\', Some(b'u')) => more.get(1..5),
            (b'\\', Some(b'x')) => more.get(1..3),
            _ => None,
        };
        let number = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match (number.and_then(char::from_u32), digits) {
            (Some(char), Some(digits)) => {
                plain.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &more[1 + digits.len()..];
            }
            _ => {
                plain.extend(Some(*first).filter(|first| *first != b'\\'));
                rest = more;
            }
        }
    }
    plain
}

/// A copy of equal length in which the words `NaN` and `Infinity`, which JSON does not have but
/// several languages write and read, are texts; `None` where there are none.
///
/// Without it, a forged message or a request could pass as "not JSON" and be delivered to a
/// receiver that is less strict.
pub fn without_odd_numbers(payload: &[u8]) -> Option<Vec<u8>> {
    let mut copy: Option<Vec<u8>> = None;
    let (mut at, mut in_text) = (0, false);
    while let Some(rest) = payload.get(at..).filter(|rest| !rest.is_empty()) {
        let replacement: &[u8] = match rest {
            [b'\\', ..] if in_text => {
                at += 2;
                continue;
            }
            [b'"', ..] => {
                in_text = !in_text;
                at += 1;
                continue;
            }
            _ if in_text => b"",
            [b'N', b'a', b'N', ..] => b"\"N\"",
            [b'-', b'I', ..] if rest.starts_with(b"-Infinity") => b"\"-Infini\"",
            [b'I', ..] if rest.starts_with(b"Infinity") => b"\"Infini\"",
            _ => b"",
        };
        if !replacement.is_empty() {
            let copy = copy.get_or_insert_with(|| payload.to_vec());
            copy[at..at + replacement.len()].copy_from_slice(replacement);
        }
        at += replacement.len().max(1);
    }
    copy
}

/// A chunk index as the reference reads it: a whole number, or a text that holds one.
///
/// # Errors
/// A sentence for the device that says what is wrong.
pub fn index(raw: Option<&str>) -> Result<u32, Problem> {
    let Some(raw) = raw else {
        return Err("the request names no chunk: send its zero-based index as \"value\"".into());
    };
    let wrong = |what: &str| Err(format!("the chunk index {} {what}", shown(raw)));
    let number = match text(raw) {
        Some(text) => Cow::Owned(text.trim().to_owned()),
        None => Cow::Borrowed(raw),
    };
    let numeric = number.bytes().any(|byte| byte.is_ascii_digit())
        && number.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let Some(number) =
        Some(&*number).filter(|_| numeric).and_then(|number| number.parse::<f64>().ok())
    else {
        return wrong("is not a number");
    };
    if number < 0.0 {
        return wrong("is negative: chunks count from 0");
    }
    // u32::MAX itself is no index: an image has at most that many chunks.
    if number >= f64::from(u32::MAX) {
        return wrong("is past the end of any image");
    }
    if number.fract() != 0.0 {
        return wrong("is not a whole number");
    }
    Ok(number as u32)
}

/// The value as it goes into a message for people, cut to a readable length.
fn shown(raw: &str) -> String {
    const LONGEST: usize = 40;
    if raw.chars().count() <= LONGEST {
        raw.to_owned()
    } else {
        raw.chars().take(LONGEST).chain("…".chars()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_index_is_a_whole_number_or_says_why_not() {
        for (raw, expected) in [
            ("5", 5),
            ("5.0", 5),
            ("5e0", 5),
            ("\"5\"", 5),
            ("\" 5 \"", 5),
            ("0", 0),
            ("-0", 0),
            ("\"5.0\"", 5),
        ] {
            assert_eq!(index(Some(raw)), Ok(expected), "{raw}");
        }
        for (raw, why) in [
            ("-1", "negative"),
            ("1.5", "whole"),
            ("\"1.5\"", "whole"),
            ("1e400", "past the end"),
            ("4294967295", "past the end"),
            ("\"NaN\"", "not a number"),
            ("\"\"", "not a number"),
            ("\"inf\"", "not a number"),
            ("true", "not a number"),
            ("null", "not a number"),
            ("[0]", "not a number"),
            ("{}", "not a number"),
            ("\"0x5\"", "not a number"),
            ("\"e\"", "not a number"),
        ] {
            let problem = index(Some(raw)).expect_err(raw);
            assert!(problem.contains(why), "{raw}: {problem}");
        }
        assert!(index(None).expect_err("none").contains("names no chunk"));
    }

    #[test]
    fn odd_numbers_become_texts_of_equal_length_outside_texts_only() {
        let odd = br#"{"a":NaN,"NaN \" NaN":-Infinity,"b":[Infinity]}"#;
        let read = without_odd_numbers(odd).expect("replaced");
        assert_eq!(read.len(), odd.len());
        assert_eq!(
            std::str::from_utf8(&read).expect("text"),
            r#"{"a":"N","NaN \" NaN":"-Infini","b":["Infini"]}"#
        );
        assert!(without_odd_numbers(br#"{"a":"NaN"}"#).is_none());
        assert!(without_odd_numbers(b"\"\\").is_none());
    }

    proptest! {
        #[test]
        fn nothing_panics(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&payload);
            if let Some(copy) = without_odd_numbers(&payload) {
                prop_assert_eq!(copy.len(), payload.len());
            }
        }

        #[test]
        fn an_index_is_never_another_number(raw in "-?[0-9]{1,12}(\\.[0-9]{1,3})?(e[0-9])?") {
            if let Ok(found) = index(Some(&raw)) {
                prop_assert_eq!(f64::from(found), raw.parse::<f64>().expect("a number"));
            }
        }
    }
}
