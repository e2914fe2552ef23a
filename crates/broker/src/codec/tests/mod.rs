//! Tests of the codec: single packets against the text of the standard, then floods of them
//! against the codec itself and against two libraries.
//!
//! | file | what it proves |
//! | --- | --- |
//! | `build` | nothing: it writes packets, also those that MQTT forbids |
//! | `forbidden` | each clause is enforced, with its reason code |
//! | `allowed` | what a client may send arrives, field by field |
//! | `written` | the server's packets, byte by byte |
//! | `framing` | however a stream is cut or damaged, packets stay where they are |
//! | `judges` | `rumqttc` and `mqtt-proto` understand the same |
//! | `seen` | nothing: it brings what three codecs read into one form |

mod allowed;
mod build;
mod forbidden;
mod framing;
mod judges;
mod seen;
mod written;

use hook::Protocol;

use super::{CodecError, Frame, decode, decode_connect, frame};
use crate::{
    packet::Packet,
    topic::{check_filter, check_name},
};

/// Larger than every packet in these tests.
const MAX: usize = 1 << 20;

/// Decodes the packet at the front of a stream, as a connection does it, and says its length.
///
/// # Panics
/// Where the stream is taken for less than one packet.
fn first(stream: &[u8], protocol: Protocol) -> Result<(Packet<'_>, usize), CodecError> {
    match frame(stream, MAX)? {
        Frame::Incomplete => panic!("a whole packet is called incomplete: {stream:02x?}"),
        Frame::Complete { len } if stream[0] >> 4 == 1 => {
            Ok((Packet::Connect(Box::new(decode_connect(&stream[..len])?)), len))
        }
        Frame::Complete { len } => Ok((decode(&stream[..len], protocol)?, len)),
    }
}

/// Whether the topics in a packet are what their place asks for.
fn topics_hold(packet: &Packet<'_>) -> bool {
    match packet {
        Packet::Connect(connect) => {
            connect.will.as_ref().is_none_or(|will| check_name(&will.topic).is_ok())
        }
        Packet::Subscribe(packet) => packet.filters.iter().all(|f| check_filter(&f.filter).is_ok()),
        Packet::Unsubscribe(packet) => packet.filters.iter().all(|f| check_filter(f).is_ok()),
        _ => true,
    }
}
