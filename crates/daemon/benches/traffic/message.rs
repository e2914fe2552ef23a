//! The messages of the load: 256 bytes that say who sent them, in which order and when.

use anyhow::{Context, ensure};

use crate::support::frames;

/// Bytes of a payload.
pub const PAYLOAD: usize = 256;
/// Publisher (4), sequence (8), time (8).
const HEAD: usize = 20;
/// One message in so many is looked at byte for byte; of all others length, publisher and
/// sequence. Looking at all would measure this program.
const VERIFY_EVERY: u64 = 64;

/// A PUBLISH whose numbers are still to be filled in.
pub struct Template {
    pub publisher: u32,
    frame: Vec<u8>,
    /// Where the packet id stands, at QoS 1.
    id: Option<usize>,
}

impl Template {
    pub fn new(topic: &str, qos: u8, publisher: u32) -> Self {
        let mut body = Vec::new();
        frames::put_string(&mut body, topic);
        let id = (qos > 0).then_some(body.len());
        if qos > 0 {
            body.extend_from_slice(&[0, 0]);
        }
        body.extend_from_slice(&publisher.to_be_bytes());
        body.resize(body.len() + HEAD - 4, 0);
        body.extend((HEAD..PAYLOAD).map(|at| filler(publisher, at)));
        let frame = frames::packet(0x30 | qos << 1, &body);
        let head = frame.len() - body.len();
        Self { publisher, frame, id: id.map(|at| at + head) }
    }

    /// Appends one. `nanos` is the time of sending, of the caller's own clock.
    pub fn append(&self, out: &mut Vec<u8>, sequence: u64, packet_id: u16, nanos: u64) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let frame = &mut out[start..];
        if let Some(at) = self.id {
            frame[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
        let payload = frame.len() - PAYLOAD;
        frame[payload + 4..payload + 12].copy_from_slice(&sequence.to_be_bytes());
        frame[payload + 12..payload + 20].copy_from_slice(&nanos.to_be_bytes());
    }
}

fn filler(publisher: u32, at: usize) -> u8 {
    (publisher as usize).wrapping_mul(31).wrapping_add(at) as u8
}

/// What a message says of itself.
pub struct Heard {
    pub publisher: u32,
    pub sequence: u64,
    pub nanos: u64,
}

/// Reads the body of a PUBLISH; `first` is its first byte. The packet id comes first, where it has
/// one.
pub fn read(first: u8, body: &[u8]) -> anyhow::Result<(Option<[u8; 2]>, Heard)> {
    let rest = frames::payload(body)?;
    let (id, payload) = match first & 0x06 {
        0 => (None, rest),
        _ => {
            let (id, payload) = rest.split_first_chunk::<2>().context("no packet id")?;
            (Some(*id), payload)
        }
    };
    ensure!(payload.len() == PAYLOAD, "a message of {} bytes", payload.len());
    let number = |from: usize| {
        payload[from..from + 8].iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte))
    };
    let publisher = (number(0) >> 32) as u32;
    let heard = Heard { publisher, sequence: number(4), nanos: number(12) };
    if heard.sequence.is_multiple_of(VERIFY_EVERY) {
        let whole = payload.iter().enumerate().skip(HEAD);
        let whole = whole.into_iter().all(|(at, byte)| *byte == filler(publisher, at));
        ensure!(whole, "message {} of publisher {publisher} was changed", heard.sequence);
    }
    Ok((id, heard))
}
