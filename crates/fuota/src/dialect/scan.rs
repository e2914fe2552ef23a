//! The usual form of small JSON, read without a parser: what is not in it is `None`, and is read in
//! full elsewhere.

fn space(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !b" \t\r\n".contains(byte)).unwrap_or(text.len());
    &text[end..]
}

/// After this byte and the space around it.
pub fn skip(text: &[u8], byte: u8) -> Option<&[u8]> {
    let (first, rest) = space(text).split_first()?;
    (*first == byte).then(|| space(rest))
}

/// A JSON string without escapes, without its quotes, and what follows.
pub fn plain_text(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let end = text.iter().position(|byte| *byte == b'"' || *byte == b'\\' || *byte < b' ')?;
    (text[end] == b'"').then(|| (&text[..end], &text[end + 1..]))
}

/// A JSON integer of at most nine digits, and what follows.
pub fn plain_number(text: &[u8]) -> Option<(u32, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
    if end == 0 || end > 9 || (end > 1 && text[0] == b'0') || b".eE".contains(&text[end]) {
        return None;
    }
    let number = text[..end].iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    Some((number, &text[end..]))
}
