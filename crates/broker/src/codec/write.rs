//! The data types of MQTT 5.0, 1.5, written.
//!
//! What has its length in front of it is written twice: into a [`Length`], then into the buffer.
//! So a layout stands in one place only, and nothing is buffered to learn how long it is.

use bytes::{BufMut, BytesMut};

/// Where bytes go.
pub(super) trait Sink {
    fn push(&mut self, bytes: &[u8]);

    fn byte(&mut self, value: u8) {
        self.push(&[value]);
    }

    /// 1.5.2
    fn u16(&mut self, value: u16) {
        self.push(&value.to_be_bytes());
    }

    /// 1.5.3
    fn u32(&mut self, value: u32) {
        self.push(&value.to_be_bytes());
    }

    /// 1.5.4; a text that the field cannot hold is cut at a character.
    fn text(&mut self, text: &str) {
        self.binary(&text.as_bytes()[..text.floor_char_boundary(FIELD)]);
    }

    /// 1.5.5, in the shortest form [MQTT-1.5.5-1]; `value` is below 2^28.
    fn variable(&mut self, mut value: usize) {
        while value > 0x7f {
            self.byte((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// 1.5.6; what the field cannot hold is cut.
    fn binary(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(FIELD)];
        self.u16(bytes.len() as u16);
        self.push(bytes);
    }
}

/// What the two bytes of a length can say.
const FIELD: usize = u16::MAX as usize;

impl Sink for BytesMut {
    fn push(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

/// Counts bytes.
#[derive(Default)]
pub(super) struct Length(pub usize);

impl Sink for Length {
    fn push(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// The bytes that `fill` writes.
pub(super) fn length(fill: impl FnOnce(&mut Length)) -> usize {
    let mut length = Length::default();
    fill(&mut length);
    length.0
}

/// A packet: fixed header, then the body that `fill` writes, always the same.
pub(super) fn packet(out: &mut BytesMut, first: u8, fill: impl Fn(&mut dyn Sink)) {
    let remaining = length(|sink| fill(sink));
    out.reserve(5 + remaining);
    out.byte(first);
    out.variable(remaining);
    fill(out);
}

/// A property block: its length, also where that is 0 [MQTT-2.2.2-1], then what `fill` writes,
/// always the same.
pub(super) fn block(sink: &mut dyn Sink, fill: impl Fn(&mut dyn Sink)) {
    sink.variable(length(|sink| fill(sink)));
    fill(sink);
}
