//! The quick way of nearly every request: its usual form, read without the rest of JSON.

use std::sync::Arc;

use super::REQUEST;
use crate::dialect::{
    Request,
    scan::{plain_number, plain_text, skip},
};

/// `{"variable":"firmware_request","value":N,"unit":"index"}` in any order and spacing, with a
/// `group` that is a plain text; anything else is `None` and is read in full.
pub fn plain_request(payload: &[u8]) -> Option<Request> {
    if payload.len() > 256 || !payload.is_ascii() {
        return None;
    }
    let mut rest = skip(payload, b'{')?;
    let (mut named, mut index, mut echo, mut unit) = (false, None, None, false);
    loop {
        let (key, after) = plain_text(rest)?;
        rest = skip(after, b':')?;
        match key {
            b"value" if index.is_none() => {
                (index, rest) = plain_number(rest).map(|(n, r)| (Some(n), r))?
            }
            b"variable" if !named => {
                let (name, after) = plain_text(rest)?;
                named = name == REQUEST.as_bytes();
                rest = after;
                if !named {
                    return None;
                }
            }
            b"unit" if !unit => (unit, rest) = (true, plain_text(rest)?.1),
            b"group" if echo.is_none() => {
                let (group, after) = plain_text(rest)?;
                let group = format!("\"{}\"", std::str::from_utf8(group).ok()?);
                echo = Some(Arc::from(group.as_bytes()));
                rest = after;
            }
            _ => return None,
        }
        match skip(rest, b',') {
            Some(after) => rest = after,
            None => break,
        }
    }
    let end = skip(rest, b'}')?.is_empty();
    Some(Request { index: Ok(index?), echo, ..Request::default() }).filter(|_| named && end)
}
