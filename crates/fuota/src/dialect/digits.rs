//! Numbers in decimal digits, written into what is sent without memory of their own.

use bytes::BytesMut;

/// How many digits a number has.
pub fn digits(number: u32) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Appends a number.
pub fn push_number(text: &mut BytesMut, mut number: u32) {
    let mut buffer = [0; 10];
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&buffer[at..]);
}
