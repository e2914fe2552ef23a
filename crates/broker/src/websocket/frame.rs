//! From frames to payload, in place; and the headers of frames that are sent.

use std::io::Cursor;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

/// The longest header: two bytes, eight of length, four of mask.
const HEADER_BYTES: usize = 14;
/// The longest payload of a control frame.
const CONTROL_BYTES: u64 = 125;

/// Why no more payload comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client sent a Close frame.
    Closed,
    /// The client sent what it must not.
    Broken {
        /// For the Close frame.
        code: CloseCode,
        /// For the log.
        text: &'static str,
    },
}

fn broken(text: &'static str) -> End {
    End::Broken { code: CloseCode::Protocol, text }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Ping,
    Pong,
    Close,
}

/// The frame whose payload is being read.
struct Body {
    kind: Kind,
    left: u64,
    mask: [u8; 4],
}

/// What a client sends, frame after frame.
#[derive(Default)]
pub(super) struct Decoder {
    /// A header that has not arrived whole.
    head: [u8; HEADER_BYTES],
    head_len: usize,
    body: Option<Body>,
    /// The last data frame was not the last of its message.
    in_message: bool,
    /// Payload of the ping that is being read.
    control: Vec<u8>,
    /// The last ping, which is to be answered: only the last one has to be (RFC 6455, 5.5.3).
    ping: Option<Vec<u8>>,
    end: Option<End>,
}

impl Decoder {
    /// Decodes what came from the socket. The payload stands at the front of `raw` then; the
    /// answer is its length. Nothing is decoded after the end.
    pub fn decode(&mut self, raw: &mut [u8]) -> usize {
        let (mut read, mut kept) = (0, 0);
        while read < raw.len() && self.end.is_none() {
            let Some(body) = &mut self.body else {
                match self.take_header(&raw[read..]) {
                    Ok(taken) => read += taken,
                    Err(end) => self.end = Some(end),
                }
                continue;
            };
            let n = usize::try_from(body.left).unwrap_or(usize::MAX).min(raw.len() - read);
            let piece = &mut raw[read..read + n];
            unmask(piece, &mut body.mask);
            body.left -= n as u64;
            match body.kind {
                Kind::Data => {
                    raw.copy_within(read..read + n, kept);
                    kept += n;
                }
                Kind::Ping => self.control.extend_from_slice(piece),
                Kind::Pong | Kind::Close => {}
            }
            read += n;
            self.finish_body();
        }
        kept
    }

    /// The payload of a ping that is to be answered.
    pub fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }

    /// Why no more payload comes, where that is so.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Takes the bytes of a header, and begins the frame when it is whole.
    fn take_header(&mut self, raw: &[u8]) -> Result<usize, End> {
        let had = self.head_len;
        let more = raw.len().min(HEADER_BYTES - had);
        self.head[had..had + more].copy_from_slice(&raw[..more]);
        let mut cursor = Cursor::new(&self.head[..had + more]);
        let parsed =
            FrameHeader::parse(&mut cursor).map_err(|_| broken("unknown kind of frame"))?;
        let Some((header, len)) = parsed else {
            self.head_len = had + more;
            return Ok(more);
        };
        // At least the last byte is new, or the header would have been whole before.
        let taken = usize::try_from(cursor.position()).unwrap_or(HEADER_BYTES).saturating_sub(had);
        self.head_len = 0;
        self.begin(&header, len)?;
        Ok(taken)
    }

    fn begin(&mut self, header: &FrameHeader, len: u64) -> Result<(), End> {
        let Some(mask) = header.mask else { return Err(broken("a frame without a mask")) };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(broken("a frame of an extension that was not agreed on"));
        }
        if len > i64::MAX as u64 {
            return Err(broken("a frame with an impossible length"));
        }
        let kind = match header.opcode {
            OpCode::Data(data) => {
                match data {
                    Data::Binary if self.in_message => {
                        return Err(broken("a message inside a message"));
                    }
                    Data::Continue if !self.in_message => {
                        return Err(broken("a continuation of nothing"));
                    }
                    Data::Binary | Data::Continue => {}
                    // [MQTT-6.0.0-1]
                    _ => {
                        let text = "a text frame, where MQTT has binary frames only";
                        return Err(End::Broken { code: CloseCode::Unsupported, text });
                    }
                }
                self.in_message = !header.is_final;
                Kind::Data
            }
            OpCode::Control(_) if !header.is_final || len > CONTROL_BYTES => {
                return Err(broken("a control frame in parts, or too long"));
            }
            OpCode::Control(Control::Ping) => Kind::Ping,
            OpCode::Control(Control::Close) => Kind::Close,
            OpCode::Control(_) => Kind::Pong,
        };
        self.body = Some(Body { kind, left: len, mask });
        self.finish_body();
        Ok(())
    }

    fn finish_body(&mut self) {
        let Some(Body { kind, left: 0, .. }) = self.body else { return };
        self.body = None;
        match kind {
            Kind::Ping => self.ping = Some(std::mem::take(&mut self.control)),
            Kind::Close => self.end = Some(End::Closed),
            Kind::Data | Kind::Pong => {}
        }
    }
}

/// Unmasks, and turns the mask so that the next piece of the frame goes on with it.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let [a, b, c, d] = *mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(eight) ^ wide).to_ne_bytes());
    }
    let rest = words.into_remainder();
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    mask.rotate_left(rest.len() % 4);
}

/// The header of an outgoing frame, as far as it is not written. Servers do not mask.
#[derive(Default)]
pub(super) struct Head {
    bytes: [u8; 10],
    at: u8,
    len: u8,
}

impl Head {
    /// The header of a binary frame with so much payload.
    pub fn binary(payload: usize) -> Self {
        let mut bytes = [0; 10];
        bytes[0] = 0x80 | u8::from(OpCode::Data(Data::Binary));
        let len = match payload {
            0..=125 => {
                bytes[1] = payload as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
                10
            }
        };
        Head { bytes, at: 0, len }
    }

    /// What is still to be written.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at.into()..self.len.into()]
    }

    /// So many bytes were written; the answer is how many of them were payload.
    pub fn advance(&mut self, n: usize) -> usize {
        let of_head = n.min(self.rest().len());
        self.at += of_head as u8;
        n - of_head
    }
}

/// A whole control frame; the payload has at most 125 bytes.
pub(super) fn control(kind: Control, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(2 + payload.len());
    frame.extend_from_slice(&[0x80 | u8::from(OpCode::Control(kind)), payload.len() as u8]);
    frame.extend_from_slice(payload);
    frame
}
