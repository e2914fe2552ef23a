//! What of an image a request asks for: RFC 9110's conditions and ranges.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use fuota::download::Tolerated;

/// What of the image is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// From one offset to before another; `true`: as a part of it.
    Bytes(u64, u64, bool),
    /// The client has it.
    Unchanged,
    /// The client wants none but one that this is not.
    Another,
    /// Nothing of the image is in the range.
    Unsatisfiable,
}

/// `If-Match`, `If-None-Match`, `If-Range` and `Range`, for an image of `size` bytes. A range that
/// is malformed, of another unit or of several parts is ignored, as it may be; so is one for another
/// image, and that of any method but GET (14.2). What was put up with is the second.
pub fn asked(
    method: &Method,
    headers: &HeaderMap,
    etag: &str,
    size: u64,
) -> (Asked, Option<Tolerated>) {
    if headers.contains_key(header::IF_MATCH) && !any(headers, header::IF_MATCH, |one| one == etag)
    {
        return (Asked::Another, None);
    }
    if any(headers, header::IF_NONE_MATCH, |one| one.trim_start_matches("W/") == etag) {
        return (Asked::Unchanged, None);
    }
    let whole = |tolerated| (Asked::Bytes(0, size, false), tolerated);
    let mut ranges = headers.get_all(header::RANGE).iter();
    let Some(range) = ranges.next() else { return whole(None) };
    if method != Method::GET {
        return whole(Some(Tolerated::RangeWithoutGet));
    }
    // What counts is the digest: of a date it cannot be said whether it is this image's.
    if let Some(condition) = headers.get(header::IF_RANGE)
        && condition.as_bytes().trim_ascii() != etag.as_bytes()
    {
        let tag = condition.as_bytes().trim_ascii().ends_with(b"\"");
        return whole((!tag).then_some(Tolerated::IfRangeNoTag));
    }
    if ranges.next().is_some() {
        return whole(Some(Tolerated::SeveralRanges));
    }
    let malformed = whole(Some(Tolerated::RangeMalformed));
    let Some((unit, range)) = range.to_str().ok().and_then(|range| range.split_once('=')) else {
        return malformed;
    };
    // Names of units have no case (14.1).
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return whole(Some(Tolerated::AnotherUnit));
    }
    if range.contains(',') {
        return whole(Some(Tolerated::SeveralRanges));
    }
    let Some((first, last)) = range.split_once('-') else { return malformed };
    let (from, to) = match (first.trim(), last.trim()) {
        ("", last) => match number(last) {
            Some(suffix) => (size - suffix.min(size), size),
            None => return malformed,
        },
        (first, "") => match number(first) {
            Some(first) => (first, size),
            None => return malformed,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
            _ => return malformed,
        },
    };
    let spaces = [unit, range].iter().any(|part| part.contains([' ', '\t']));
    let asked = if from >= size || from >= to {
        Asked::Unsatisfiable
    } else {
        Asked::Bytes(from, to, true)
    };
    (asked, spaces.then_some(Tolerated::RangeWithSpaces))
}

/// Whether a request goes on with an image that was begun: it names that image, or a range that is
/// not its beginning.
pub fn continues(headers: &HeaderMap) -> bool {
    let Some(range) = headers.get(header::RANGE) else {
        return headers.contains_key(header::IF_MATCH);
    };
    let begins = |range: &str| {
        let first = range.split_once('=').and_then(|(_, range)| range.split_once('-'));
        first.and_then(|(first, _)| number(first.trim())).is_none_or(|first| first == 0)
    };
    headers.contains_key(header::IF_MATCH)
        || headers.contains_key(header::IF_RANGE)
        || range.to_str().is_ok_and(|range| !begins(range))
}

/// Whether a list names something that `holds`, or everything. It may stand on several lines.
fn any(headers: &HeaderMap, name: HeaderName, holds: impl Fn(&str) -> bool) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line: &HeaderValue| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|one| one == "*" || holds(one))
}

/// Digits alone; what is larger than any image is the largest number.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(method: Method, headers: &[(header::HeaderName, &str)]) -> (Asked, Option<Tolerated>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        asked(&method, &map, "\"ab\"", 1000)
    }

    fn with(headers: &[(header::HeaderName, &str)]) -> (Asked, Option<Tolerated>) {
        by(Method::GET, headers)
    }

    const WHOLE: Asked = Asked::Bytes(0, 1000, false);

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        for (range, expected) in [
            ("bytes=0-", Asked::Bytes(0, 1000, true)),
            ("bytes=0-0", Asked::Bytes(0, 1, true)),
            ("bytes=10-19", Asked::Bytes(10, 20, true)),
            ("Bytes=10-19", Asked::Bytes(10, 20, true)),
            ("bytes=990-5000", Asked::Bytes(990, 1000, true)),
            ("bytes=-10", Asked::Bytes(990, 1000, true)),
            ("bytes=-5000", Asked::Bytes(0, 1000, true)),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=1000-", Asked::Unsatisfiable),
            ("bytes=1000-1001", Asked::Unsatisfiable),
            ("bytes=99999999999999999999999-", Asked::Unsatisfiable),
        ] {
            assert_eq!(with(&[(header::RANGE, range)]), (expected, None), "{range}");
        }
        assert_eq!(with(&[]), (WHOLE, None));
    }

    #[test]
    fn what_is_no_single_range_gets_the_whole_and_has_a_name() {
        for (range, name) in [
            ("bytes=20-10", Tolerated::RangeMalformed),
            ("bytes=a-b", Tolerated::RangeMalformed),
            ("bytes=5", Tolerated::RangeMalformed),
            ("bytes=-", Tolerated::RangeMalformed),
            ("bytes=+1-5", Tolerated::RangeMalformed),
            ("bytes", Tolerated::RangeMalformed),
            ("", Tolerated::RangeMalformed),
            ("bytes=é-", Tolerated::RangeMalformed),
            ("bytes=0-1,5-6", Tolerated::SeveralRanges),
            ("lines=0-1", Tolerated::AnotherUnit),
        ] {
            assert_eq!(with(&[(header::RANGE, range)]), (WHOLE, Some(name)), "{range}");
        }
        for range in ["bytes= 10-19", "bytes=10 - 19", "bytes = 10-19"] {
            let expected = (Asked::Bytes(10, 20, true), Some(Tolerated::RangeWithSpaces));
            assert_eq!(with(&[(header::RANGE, range)]), expected, "{range}");
        }
        let twice = [(header::RANGE, "bytes=0-1"), (header::RANGE, "bytes=5-6")];
        assert_eq!(with(&twice), (WHOLE, Some(Tolerated::SeveralRanges)));
        let head = by(Method::HEAD, &[(header::RANGE, "bytes=5-")]);
        assert_eq!(head, (WHOLE, Some(Tolerated::RangeWithoutGet)));
    }

    #[test]
    fn a_request_that_goes_on_names_its_image_or_a_later_part() {
        for (headers, expected) in [
            (&[][..], false),
            (&[(header::RANGE, "bytes=0-")], false),
            (&[(header::RANGE, "bytes=0-99")], false),
            (&[(header::RANGE, "nonsense")], false),
            (&[(header::IF_RANGE, "\"ab\"")], false),
            (&[(header::IF_NONE_MATCH, "\"ab\"")], false),
            (&[(header::RANGE, "bytes=100-")], true),
            (&[(header::IF_MATCH, "\"ab\"")], true),
            (&[(header::RANGE, "bytes=0-9"), (header::IF_RANGE, "\"ab\"")], true),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(name, HeaderValue::from_static(value));
            }
            assert_eq!(continues(&map), expected, "{headers:?}");
        }
    }

    #[test]
    fn conditions_go_by_the_digest() {
        let range = (header::RANGE, "bytes=5-");
        for (condition, expected, tolerated) in [
            ("\"ab\"", Asked::Bytes(5, 1000, true), None),
            ("\"cd\"", WHOLE, None),
            ("W/\"ab\"", WHOLE, None),
            ("Wed, 21 Oct 2015 07:28:00 GMT", WHOLE, Some(Tolerated::IfRangeNoTag)),
            ("ab", WHOLE, Some(Tolerated::IfRangeNoTag)),
            ("é", WHOLE, Some(Tolerated::IfRangeNoTag)),
        ] {
            let read = with(&[range.clone(), (header::IF_RANGE, condition)]);
            assert_eq!(read, (expected, tolerated), "{condition}");
            // Of the whole image it says nothing.
            assert_eq!(with(&[(header::IF_RANGE, condition)]), (WHOLE, None), "{condition}");
        }
        for (wanted, expected) in [
            ("\"ab\"", Asked::Bytes(5, 1000, true)),
            ("\"x\", \"ab\"", Asked::Bytes(5, 1000, true)),
            ("*", Asked::Bytes(5, 1000, true)),
            ("\"cd\"", Asked::Another),
            ("W/\"ab\"", Asked::Another),
            ("", Asked::Another),
        ] {
            let read = with(&[range.clone(), (header::IF_MATCH, wanted)]);
            assert_eq!(read, (expected, None), "{wanted}");
        }
        let two = [(header::IF_NONE_MATCH, "\"x\""), (header::IF_NONE_MATCH, "\"ab\"")];
        assert_eq!(with(&two), (Asked::Unchanged, None));
        for (known, expected) in [
            ("\"ab\"", Asked::Unchanged),
            ("\"x\", W/\"ab\"", Asked::Unchanged),
            ("*", Asked::Unchanged),
            ("\"x\"", WHOLE),
        ] {
            assert_eq!(with(&[(header::IF_NONE_MATCH, known)]), (expected, None), "{known}");
        }
    }
}
