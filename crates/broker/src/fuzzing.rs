//! What any bytes must not break: one function for each way in. They are called by the targets in
//! `fuzz/` with what a fuzzer makes up, and by the tests below with what is kept of that.

use bytes::{Bytes, BytesMut};
use hook::{Protocol, Qos};

use crate::{
    blob,
    codec::{self, Frame, PublishHead},
    index::{Entry, Index},
    packet::{Packet, Publish},
    router::Parcel,
    session::Session,
    topic::{check_filter, check_name, matches},
};

pub use crate::{
    journal::fuzzing::log,
    websocket::fuzzing::{frames, request},
};

/// Larger than what a fuzzer makes up.
const MAX: usize = 1 << 20;

/// A stream of packets from a client; the first byte says of which version. Decoding uses whole
/// frames, and a PUBLISH says the same when it is written and read again.
pub fn packets(data: &[u8]) {
    let Some((version, mut stream)) = data.split_first() else { return };
    let protocol = if version & 1 == 0 { Protocol::V311 } else { Protocol::V5 };
    while let Ok(Frame::Complete { len }) = codec::frame(stream, MAX) {
        let (packet, rest) = stream.split_at(len);
        match codec::decode(packet, protocol) {
            Ok(Packet::Publish(publish)) => same_when_written(&publish, protocol),
            Ok(_) => {}
            Err(_) => return,
        }
        stream = rest;
    }
}

fn same_when_written(publish: &Publish<'_>, protocol: Protocol) {
    let head = PublishHead {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        topic: publish.topic,
        packet_id: publish.packet_id,
        alias: publish.alias,
        properties: publish.properties.as_deref(),
        expiry_left: None,
        subscriptions: &[],
        payload_len: publish.payload.len(),
    };
    let mut out = BytesMut::new();
    codec::publish_head(&mut out, protocol, &head);
    out.extend_from_slice(publish.payload);
    assert_eq!(out.len(), codec::publish_len(protocol, &head));
    match codec::decode(&out, protocol) {
        Ok(Packet::Publish(again)) => assert_eq!(format!("{publish:?}"), format!("{again:?}")),
        other => panic!("{publish:?} was written as {other:?}"),
    }
}

/// The first packet of a connection: what is accepted holds to the rules that no later step looks
/// at.
pub fn connect(data: &[u8]) {
    let Ok(Frame::Complete { len }) = codec::frame(data, MAX) else { return };
    let Ok(connect) = codec::decode_connect(&data[..len]) else { return };
    assert!(connect.receive_maximum > 0 && connect.maximum_packet_size > 0);
    if connect.protocol == Protocol::V311 {
        assert!(connect.password.is_none() || connect.username.is_some());
        assert!(connect.user_properties.is_empty() && !connect.enhanced_authentication);
        assert_eq!(connect.session_expiry, if connect.clean_start { 0 } else { u32::MAX });
    }
}

/// A filter and a topic, with a line break between: the tree of the index says the same as the
/// plain rule of the standard, and forgets what is taken out.
pub fn topics(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((text, topic)) = text.split_once('\n') else { return };
    let (Ok(filter), Ok(())) = (check_filter(text), check_name(topic)) else { return };
    let index = Index::default();
    let entry = Entry {
        session: Session::for_test(1),
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        identifier: None,
        epoch: 0,
    };
    index.insert(filter, &text.into(), entry);
    let (found, _) = index.receivers(topic, 0);
    let expected = usize::from(matches(filter.levels, topic));
    assert_eq!(found.sessions.len() + found.groups.len(), expected);
    index.remove(filter, 1);
    let (found, _) = index.receivers(topic, 0);
    assert!(found.sessions.is_empty() && found.groups.is_empty() && index.len() == 0);
}

/// What comes back from the router. Nobody but the broker writes it, and still.
pub fn parcel(data: &[u8]) {
    let parcel = Parcel { payload: Bytes::new(), blob: Bytes::copy_from_slice(data) };
    let Some((_, mut receivers)) = blob::decode(parcel) else { return };
    while receivers.next().is_some() {}
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Calls a target with each of its seeds, and with damaged ones.
    fn replay(name: &str, target: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
        let mut count = 0;
        for seed in std::fs::read_dir(&seeds).unwrap() {
            let path = seed.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            println!("{}", path.display());
            target(&bytes);
            for at in 0..bytes.len() {
                target(&bytes[..at]);
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << (at % 8);
                target(&damaged);
            }
            count += 1;
        }
        assert!(count > 0, "{} has no seeds", seeds.display());
    }

    #[test]
    fn what_is_kept_of_fuzzing_holds() {
        replay("packets", super::packets);
        replay("connect", super::connect);
        replay("frames", super::frames);
        replay("request", super::request);
        replay("topics", super::topics);
        replay("parcel", super::parcel);
        replay("log", super::log);
    }
}
