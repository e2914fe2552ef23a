//! A block, encoded when it is written.

use bytes::{Bytes, BytesMut};
use hook::Encode;

use crate::dialect::{
    Echo,
    digits::{digits, push_number},
};

pub const HEAD: &[u8] = b"{\"variable\":\"firmware_block\",\"value\":";
const GROUP: &[u8] = b",\"group\":";
pub const DATA: &[u8] = b",\"metadata\":{\"data\":\"";
pub const SIZE: &[u8] = b"\",\"size\":";
pub const TAIL: &[u8] = b"}}";

/// A block, encoded when the connection's writer has come to it.
pub struct Block {
    pub index: u32,
    pub echo: Echo,
    pub data: Bytes,
}

impl Encode for Block {
    fn encoded_len(&self) -> usize {
        HEAD.len()
            + digits(self.index)
            + self.echo.as_ref().map_or(0, |group| group.len() + GROUP.len())
            + DATA.len()
            + base64_simd::STANDARD.encoded_length(self.data.len())
            + SIZE.len()
            + digits(self.data.len() as u32)
            + TAIL.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        let before = out.len();
        out.reserve(self.encoded_len());
        out.extend_from_slice(HEAD);
        push_number(out, self.index);
        if let Some(group) = &self.echo {
            out.extend_from_slice(GROUP);
            out.extend_from_slice(group);
        }
        out.extend_from_slice(DATA);
        let start = out.len();
        out.resize(start + base64_simd::STANDARD.encoded_length(self.data.len()), 0);
        // The slice has exactly the length that was asked for.
        let _ = base64_simd::STANDARD
            .encode(&self.data, base64_simd::Out::from_slice(&mut out[start..]));
        out.extend_from_slice(SIZE);
        push_number(out, self.data.len() as u32);
        out.extend_from_slice(TAIL);
        debug_assert_eq!(out.len() - before, self.encoded_len());
    }
}
