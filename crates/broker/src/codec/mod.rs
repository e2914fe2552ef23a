//! The wire codec: bytes to [`crate::packet`] and back, MQTT 3.1.1 and 5.
//!
//! Nothing here allocates for what a packet announces, only for what has arrived; nothing
//! panics; a packet is decoded only when it is there as a whole, and its body is used up to the
//! last byte. Why it is our own: `docs/decisions/0003-codec.md`.
//!
//! | file | subject |
//! | --- | --- |
//! | this one | frames and errors |
//! | `read`, `write` | the data types of chapter 1.5 |
//! | `properties` | MQTT 5 properties, which packet may have which |
//! | `reasons` | which packet may have which reason code |
//! | `decode` | the packets of clients |
//! | `encode` | the packets of the server |

mod decode;
mod encode;
mod properties;
mod read;
mod reasons;
#[cfg(test)]
mod tests;
mod write;

pub use decode::{decode, decode_connect};
pub use encode::{
    AckKind, PublishHead, ack, answer_len, connack, disconnect, pingresp, publish_head,
    publish_len, suback, unsuback,
};

use hook::Protocol;

use crate::packet::reason;

/// Bytes that break the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CodecError {
    /// The MQTT 5 reason code: 0x81 malformed, 0x82 protocol error, or a more exact one.
    pub reason: u8,
    /// The rule that was broken.
    pub text: &'static str,
    /// The version, where the CONNECT got far enough to say it.
    pub protocol: Option<Protocol>,
}

impl CodecError {
    /// The bytes cannot be parsed (MQTT 5.0, 1.2).
    pub(crate) const fn malformed(text: &'static str) -> Self {
        CodecError { reason: reason::MALFORMED_PACKET, text, protocol: None }
    }

    /// They can, and say what the standard forbids.
    pub(crate) const fn protocol(text: &'static str) -> Self {
        CodecError { reason: reason::PROTOCOL_ERROR, text, protocol: None }
    }
}

/// CONNACK, SUBACK, UNSUBACK and PINGRESP.
const SERVER_PACKET: CodecError = CodecError::protocol("a packet that only servers send");

/// What stands at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Less than a packet.
    Incomplete,
    /// A packet of this many bytes, header included.
    Complete {
        /// Bytes on the wire.
        len: usize,
    },
}

/// Finds the packet at the front of a buffer by its fixed header alone.
///
/// # Errors
/// A packet type that clients do not send, reserved flags, a remaining length that is not in its
/// shortest form, or a packet larger than `max_packet` bytes (0x95): all seen before the packet
/// has arrived.
pub fn frame(buffer: &[u8], max_packet: usize) -> Result<Frame, CodecError> {
    let Some(&first) = buffer.first() else { return Ok(Frame::Incomplete) };
    check_first(first)?;
    let mut length = 0usize;
    for position in 0..4 {
        let Some(&byte) = buffer.get(1 + position) else { return Ok(Frame::Incomplete) };
        length |= usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 != 0 {
            continue;
        }
        if position > 0 && byte == 0 {
            // [MQTT-1.5.5-1]
            return Err(CodecError::malformed("the remaining length is not in its shortest form"));
        }
        let len = 2 + position + length;
        if len > max_packet {
            let text = "the packet is larger than the server's Maximum Packet Size";
            return Err(CodecError { reason: reason::PACKET_TOO_LARGE, text, protocol: None });
        }
        return Ok(if buffer.len() < len { Frame::Incomplete } else { Frame::Complete { len } });
    }
    Err(CodecError::malformed("the remaining length has more than four bytes"))
}

/// Packet type and flags [MQTT-2.1.3-1].
fn check_first(first: u8) -> Result<(), CodecError> {
    let flags = first & 0x0f;
    let good = match first >> 4 {
        0 => return Err(CodecError::malformed("packet type 0 is reserved")),
        2 | 9 | 11 | 13 => return Err(SERVER_PACKET),
        // DUP, QoS and RETAIN: QoS 3 is never right [MQTT-3.3.1-4], DUP needs a QoS [MQTT-3.3.1-2].
        3 => flags & 0b0110 != 0b0110 && (flags & 0b1000 == 0 || flags & 0b0110 != 0),
        // [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1]
        6 | 8 | 10 => flags == 0b0010,
        // [MQTT-3.14.1-1], [MQTT-3.15.1-1] and others
        _ => flags == 0,
    };
    if good { Ok(()) } else { Err(CodecError::malformed("reserved flags in the fixed header")) }
}
