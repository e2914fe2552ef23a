//! The data types of MQTT 5.0, 1.5, taken from the front of a slice.

use super::CodecError;

type Result<T> = std::result::Result<T, CodecError>;

const TRUNCATED: CodecError = CodecError::malformed("the packet ends in the middle of a field");

/// Takes `len` bytes.
pub(super) fn take<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8]> {
    let (head, tail) = input.split_at_checked(len).ok_or(TRUNCATED)?;
    *input = tail;
    Ok(head)
}

pub(super) fn byte(input: &mut &[u8]) -> Result<u8> {
    let (first, tail) = input.split_first().ok_or(TRUNCATED)?;
    *input = tail;
    Ok(*first)
}

/// 1.5.2
pub(super) fn u16(input: &mut &[u8]) -> Result<u16> {
    let (head, tail) = input.split_first_chunk().ok_or(TRUNCATED)?;
    *input = tail;
    Ok(u16::from_be_bytes(*head))
}

/// 1.5.3
pub(super) fn u32(input: &mut &[u8]) -> Result<u32> {
    let (head, tail) = input.split_first_chunk().ok_or(TRUNCATED)?;
    *input = tail;
    Ok(u32::from_be_bytes(*head))
}

/// 1.5.4: UTF-8 without the null character. A byte order mark stays what it is [MQTT-1.5.4-3].
pub(super) fn text<'a>(input: &mut &'a [u8]) -> Result<&'a str> {
    let bytes = binary(input)?;
    // [MQTT-1.5.4-2]
    if bytes.contains(&0) {
        return Err(CodecError::malformed("a string has a null character"));
    }
    // [MQTT-1.5.4-1]
    std::str::from_utf8(bytes).map_err(|_| CodecError::malformed("a string is not UTF-8"))
}

/// 1.5.5, in the shortest form [MQTT-1.5.5-1].
pub(super) fn variable(input: &mut &[u8]) -> Result<u32> {
    let mut value = 0;
    for position in 0..4 {
        let next = byte(input)?;
        value |= u32::from(next & 0x7f) << (7 * position);
        if next & 0x80 == 0 {
            if position > 0 && next == 0 {
                return Err(CodecError::malformed(
                    "a variable byte integer is not in its shortest form",
                ));
            }
            return Ok(value);
        }
    }
    Err(CodecError::malformed("a variable byte integer has more than four bytes"))
}

/// 1.5.6; two bytes of length allow 65,535 [MQTT-4.7.3-3].
pub(super) fn binary<'a>(input: &mut &'a [u8]) -> Result<&'a [u8]> {
    let len = u16(input)?;
    take(input, len.into())
}

/// A packet identifier [MQTT-2.2.1-3].
pub(super) fn packet_id(input: &mut &[u8]) -> Result<u16> {
    match u16(input)? {
        0 => Err(CodecError::protocol("packet identifier 0")),
        id => Ok(id),
    }
}
