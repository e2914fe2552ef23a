//! However a stream is cut or damaged, packets stay where they are.

use hook::{
    Protocol::{self, V5, V311},
    Qos,
};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::{MAX, build::corpus, first};
use crate::{
    codec::{Frame, decode, decode_connect, frame},
    packet::{Packet, reason},
};

pub fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(V311), Just(V5)]
}

/// A packet of the corpus, its body damaged in up to four places, in a frame that fits it again.
pub fn damaged() -> impl Strategy<Value = (Protocol, Vec<u8>)> {
    let wounds = vec((any::<Index>(), 0..6u8, any::<u8>()), 0..4);
    (protocol(), any::<Index>(), wounds).prop_map(|(protocol, which, wounds)| {
        let bytes = which.get(&corpus(protocol)).clone();
        let header = 1 + bytes[1..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
        let mut body = bytes[header..].to_vec();
        let mut first = bytes[0];
        for (place, kind, value) in wounds {
            let at = place.index(body.len() + 1);
            match kind {
                0 => body.insert(at, value),
                1 => body.insert(at, value & 3),
                2 => body.truncate(at),
                3 if value < 16 => first ^= 1 << (value & 3),
                _ if at == body.len() => body.push(value),
                3 => body[at] ^= 1 << (value & 7),
                4 => body[at] = value,
                _ => {
                    body.remove(at);
                }
            }
        }
        (protocol, super::build::packet(first, &[&body]))
    })
}

/// Takes packets from a stream that arrives in pieces, as a connection does it.
fn read(pieces: &[&[u8]], protocol: Protocol) -> Vec<String> {
    let mut buffer = Vec::new();
    let mut seen = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Frame::Complete { len } = frame(&buffer, MAX).unwrap() {
            let (packet, used) = first(&buffer, protocol).unwrap();
            assert_eq!(len, used);
            seen.push(format!("{packet:?}"));
            buffer.drain(..len);
        }
    }
    assert!(buffer.is_empty());
    seen
}

/// All bytes of what was decoded that live on the heap, lower bound of what was allocated.
fn owned(packet: &Packet<'_>) -> usize {
    let of = |properties: &Option<Box<hook::Properties>>| {
        properties.as_ref().map_or(0, |p| {
            let text = |t: &Option<String>| t.as_ref().map_or(0, String::capacity);
            let pairs: usize =
                p.user_properties.iter().map(|(k, v)| k.capacity() + v.capacity()).sum();
            text(&p.content_type)
                + text(&p.response_topic)
                + p.correlation_data.as_ref().map_or(0, |data| data.len())
                + pairs
        })
    };
    match packet {
        Packet::Connect(c) => {
            c.client_id.capacity()
                + c.username.as_ref().map_or(0, String::capacity)
                + c.password.as_ref().map_or(0, Vec::capacity)
                + c.user_properties.iter().map(|(k, v)| k.capacity() + v.capacity()).sum::<usize>()
                + c.will
                    .as_ref()
                    .map_or(0, |w| w.topic.capacity() + w.payload.capacity() + of(&w.properties))
        }
        Packet::Publish(p) => of(&p.properties),
        Packet::Subscribe(s) => s.filters.iter().map(|f| f.filter.capacity()).sum(),
        Packet::Unsubscribe(u) => u.filters.iter().map(String::capacity).sum(),
        _ => 0,
    }
}

#[test]
fn a_header_alone_is_enough_to_refuse() {
    // 200 bytes behind two of length.
    assert_eq!(frame(&[0x30, 0xc8, 1], 203), Ok(Frame::Incomplete));
    assert_eq!(frame(&[0x30, 0xc8, 1], 202).unwrap_err().reason, reason::PACKET_TOO_LARGE);
    assert_eq!(frame(&[0x30, 0xff, 0xff, 0xff, 0x7f], MAX).unwrap_err().reason, 0x95);
    // The first byte says enough, before a length has come.
    for first in [0x00, 0x11, 0x20, 0x36, 0x38, 0x60, 0x90, 0xb0, 0xc8, 0xd0, 0xff] {
        assert!(frame(&[first], MAX).is_err(), "{first:02x}");
    }
    // Not the shortest form of 0.
    assert_eq!(frame(&[0xc0, 0x80, 0], MAX).unwrap_err().reason, reason::MALFORMED_PACKET);
    // Too long a length, before its end has come.
    assert!(frame(&[0x30, 0x80, 0x80, 0x80, 0x80], MAX).is_err());
    assert_eq!(frame(&[], MAX), Ok(Frame::Incomplete));
    assert_eq!(frame(&[0x30, 0x80, 0x80, 0x80], MAX), Ok(Frame::Incomplete));
    assert_eq!(frame(&[0xc0, 0, 0xff], 2), Ok(Frame::Complete { len: 2 }));
}

#[test]
fn qos_has_three_values() {
    for (first, qos) in [
        (0x30, Some(Qos::AtMostOnce)),
        (0x32, Some(Qos::AtLeastOnce)),
        (0x34, Some(Qos::ExactlyOnce)),
        (0x36, None),
    ] {
        assert_eq!(frame(&[first], MAX).ok(), qos.map(|_| Frame::Incomplete));
        // Also without `frame` before it.
        assert_eq!(decode(&[first, 5, 0, 1, b'a', 0, 7], V311).is_ok(), qos.is_some());
    }
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_packets(
        protocol in protocol(),
        which in vec(any::<Index>(), 1..6),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let corpus = corpus(protocol);
        let packets: Vec<&Vec<u8>> = which.iter().map(|which| which.get(&corpus)).collect();
        let expected: Vec<String> = packets.iter().flat_map(|p| read(&[p], protocol)).collect();
        prop_assert_eq!(expected.len(), packets.len());

        let stream: Vec<u8> = packets.into_iter().flatten().copied().collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
        prop_assert_eq!(read(&pieces, protocol), expected.clone());
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(read(&single, protocol), expected);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..64), max in 0..100usize) {
        if let Ok(Frame::Complete { len }) = frame(&bytes, max) {
            prop_assert!(len <= max && len <= bytes.len());
        }
        // Also what `frame` would not have let through.
        for protocol in [V311, V5] {
            let _ = decode(&bytes, protocol);
        }
        let _ = decode_connect(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_damaged_packet_is_used_up_or_refused((protocol, bytes) in damaged()) {
        let stream = [&bytes[..], &[0xc0, 0]].concat();
        if let Ok((packet, len)) = first(&stream, protocol) {
            prop_assert_eq!(len, bytes.len());
            prop_assert!(owned(&packet) <= bytes.len());
            // The same without what follows, so nothing was taken from there.
            let alone = first(&bytes, protocol).unwrap().0;
            prop_assert_eq!(format!("{packet:?}"), format!("{alone:?}"));
        }
        // Shorter by a byte, it is never a packet.
        let short = frame(&bytes[..bytes.len() - 1], MAX);
        prop_assert!(short.is_err() || short == Ok(Frame::Incomplete));
    }
}
