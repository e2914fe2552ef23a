//! Whole numbers as JSON has them: `7`, and also `7.0`, which is the same number there.

use std::{fmt, marker::PhantomData};

use serde::{Deserializer, de};

/// Reads a whole number, for `#[serde(deserialize_with)]`.
///
/// # Errors
/// It is none, or out of the bounds of `T`.
pub fn number<'de, T: TryFrom<u64>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    from.deserialize_any(Whole(PhantomData))
}

/// The same, or null.
///
/// # Errors
/// As [`number`].
pub fn maybe<'de, T: TryFrom<u64>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    from.deserialize_option(MaybeWhole(PhantomData))
}

/// The same of what may also be left out, with `#[serde(default)]`: `Some(None)` is null.
///
/// # Errors
/// As [`number`].
pub fn named<'de, T: TryFrom<u64>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Option<T>>, D::Error> {
    maybe(from).map(Some)
}

struct Whole<T>(PhantomData<T>);

impl<T: TryFrom<u64>> de::Visitor<'_> for Whole<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number in its bounds")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        let wrong = || E::invalid_value(de::Unexpected::Unsigned(number), &self);
        T::try_from(number).map_err(|_| wrong())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let wrong = || E::invalid_value(de::Unexpected::Signed(number), &self);
        u64::try_from(number).ok().and_then(|number| T::try_from(number).ok()).ok_or_else(wrong)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        // Up to here every whole number is one of its own.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let whole = number.fract() == 0.0 && (0.0..=EXACT).contains(&number);
        let wrong = || E::invalid_value(de::Unexpected::Float(number), &self);
        whole.then_some(number as u64).and_then(|number| T::try_from(number).ok()).ok_or_else(wrong)
    }
}

struct MaybeWhole<T>(PhantomData<T>);

impl<'de, T: TryFrom<u64>> de::Visitor<'de> for MaybeWhole<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number in its bounds, or null")
    }

    fn visit_none<E: de::Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Option<T>, D::Error> {
        number(from).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Two {
        #[serde(deserialize_with = "super::number")]
        a: u8,
        #[serde(default, deserialize_with = "super::maybe")]
        b: Option<u32>,
    }

    #[test]
    fn seven_is_seven_however_it_is_written() {
        let read = |text: &str| serde_json::from_str::<Two>(text);
        for text in
            [r#"{"a": 7, "b": 8}"#, r#"{"a": 7.0, "b": 8.0}"#, r#"{"a": 0.7e1, "b": 80e-1}"#]
        {
            assert_eq!(read(text).unwrap(), Two { a: 7, b: Some(8) }, "{text}");
        }
        for text in [r#"{"a": 7, "b": null}"#, r#"{"a": 7}"#] {
            assert_eq!(read(text).unwrap(), Two { a: 7, b: None }, "{text}");
        }
        for wrong in ["7.5", "-7", "-7.0", "256", "256.0", "1e300", "\"7\"", "true", "null", "[7]"]
        {
            assert!(read(&format!(r#"{{"a": {wrong}}}"#)).is_err(), "{wrong}");
        }
    }
}
