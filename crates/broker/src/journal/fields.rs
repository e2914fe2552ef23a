//! The fields of records, as bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hook::{Identity, Protocol, Qos, Role};
use std::sync::Arc;

use super::record::{Owner, Target, Unknown};
use crate::{
    backlog::Owed,
    codec::{self, Frame, PublishHead},
    message::{Carried, Message, Share},
    packet::Packet,
    subscriptions::Held,
};

/// As a PUBLISH; its place in the order of retained ones stands elsewhere.
pub(super) fn encode_message(out: &mut BytesMut, message: &Message) {
    let publish = PublishHead {
        dup: false,
        qos: message.qos,
        retain: message.retain,
        topic: &message.topic,
        packet_id: 1,
        alias: None,
        properties: message.properties.as_deref(),
        expiry_left: message.seconds_left(),
        subscriptions: &[],
        payload_len: message.payload.len(),
    };
    codec::publish_head(out, Protocol::V5, &publish);
    out.put_slice(&message.payload);
}

/// What it had left of its time counts from `at`, in seconds since 1970.
pub(super) fn decode_message(
    input: &mut &[u8],
    sequence: u64,
    at: u64,
) -> Result<Message, Unknown> {
    let Ok(Frame::Complete { len }) = codec::frame(input, usize::MAX) else {
        return Err(Unknown);
    };
    let (packet, rest) = input.split_at_checked(len).ok_or(Unknown)?;
    *input = rest;
    let Ok(Packet::Publish(publish)) = codec::decode(packet, Protocol::V5) else {
        return Err(Unknown);
    };
    // It would stand for a topic that only a connection knows.
    if publish.alias.is_some() {
        return Err(Unknown);
    }
    Ok(Message {
        topic: publish.topic.into(),
        payload: Bytes::copy_from_slice(publish.payload),
        qos: publish.qos,
        retain: publish.retain,
        expires: Message::expiry_since(publish.properties.as_deref(), at),
        properties: publish.properties.map(Carried::from),
        publisher: 0,
        sequence,
    })
}

impl Target {
    pub(super) fn decode(input: &mut &[u8]) -> Result<Self, Unknown> {
        let (session, delivery) = (u64(input)?, u64(input)?);
        let flags = u8(input)?;
        let count = u32(input)?;
        let identifiers = (0..count).map(|_| u32(input)).collect::<Result<Vec<u32>, _>>()?;
        Ok(Target {
            session,
            delivery,
            qos: Qos::from_bits(flags & 3).ok_or(Unknown)?,
            retain: flags & 4 != 0,
            subscriptions: (!identifiers.is_empty()).then(|| identifiers.into()),
            share: match flags & 8 {
                0 => None,
                _ => Some(Arc::new(Share(take_text(input)?.into()))),
            },
        })
    }
}

impl Owner {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(match self.protocol {
            Protocol::V311 => 4,
            Protocol::V5 => 5,
        });
        out.put_u8(match self.identity.role {
            Role::Anonymous => 0,
            Role::Device => 1,
            Role::Service => 2,
            Role::Operator => 3,
            Role::Admin => 4,
        });
        out.put_u8(u8::from(self.identity.name.is_some()));
        if let Some(name) = &self.identity.name {
            text(out, name);
        }
    }

    pub(super) fn decode(input: &mut &[u8]) -> Result<Self, Unknown> {
        let protocol = match u8(input)? {
            4 => Protocol::V311,
            5 => Protocol::V5,
            _ => return Err(Unknown),
        };
        let role = match u8(input)? {
            0 => Role::Anonymous,
            1 => Role::Device,
            2 => Role::Service,
            3 => Role::Operator,
            4 => Role::Admin,
            _ => return Err(Unknown),
        };
        let name = match u8(input)? {
            0 => None,
            _ => Some(take_text(input)?.into()),
        };
        Ok(Owner { identity: Identity { name, role }, protocol })
    }
}

pub(super) fn encode_held(out: &mut BytesMut, held: &Held) {
    let Held { qos, no_local, retain_as_published, identifier, consumed } = held;
    out.put_u8(
        *qos as u8
            | u8::from(*no_local) << 2
            | u8::from(*retain_as_published) << 3
            | u8::from(*consumed) << 4,
    );
    out.put_u32(identifier.unwrap_or(0));
}

/// The filter stands beside it.
pub(super) fn decode_held(input: &mut &[u8]) -> Result<Held, Unknown> {
    let flags = u8(input)?;
    let identifier = match u32(input)? {
        0 => None,
        identifier => Some(identifier),
    };
    Ok(Held {
        qos: Qos::from_bits(flags & 3).ok_or(Unknown)?,
        no_local: flags & 4 != 0,
        retain_as_published: flags & 8 != 0,
        identifier,
        consumed: flags & 16 != 0,
    })
}

pub(super) fn encode_owed(out: &mut BytesMut, owed: &Owed) {
    let Owed { filter, qos, identifier, newest, after } = owed;
    out.put_u8(*qos as u8 | u8::from(after.is_some()) << 2);
    out.put_u32(identifier.unwrap_or(0));
    out.put_u64(*newest);
    text(out, filter);
    if let Some(after) = after {
        text(out, after);
    }
}

pub(super) fn decode_owed(input: &mut &[u8]) -> Result<Owed, Unknown> {
    let flags = u8(input)?;
    let identifier = match u32(input)? {
        0 => None,
        identifier => Some(identifier),
    };
    Ok(Owed {
        qos: Qos::from_bits(flags & 3).ok_or(Unknown)?,
        identifier,
        newest: u64(input)?,
        filter: take_text(input)?.into(),
        after: match flags & 4 {
            0 => None,
            _ => Some(take_text(input)?.into()),
        },
    })
}

pub(super) fn head(out: &mut BytesMut, kind: u8, session: u64) {
    out.put_u8(kind);
    out.put_u64(session);
}

pub(super) fn text(out: &mut BytesMut, text: &str) {
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

pub(super) fn take_text<'a>(input: &mut &'a [u8]) -> Result<&'a str, Unknown> {
    let len = u32(input)? as usize;
    let (bytes, rest) = input.split_at_checked(len).ok_or(Unknown)?;
    *input = rest;
    std::str::from_utf8(bytes).map_err(|_| Unknown)
}

pub(super) fn u8(input: &mut &[u8]) -> Result<u8, Unknown> {
    input.try_get_u8().map_err(|_| Unknown)
}

pub(super) fn u16(input: &mut &[u8]) -> Result<u16, Unknown> {
    input.try_get_u16().map_err(|_| Unknown)
}

pub(super) fn u32(input: &mut &[u8]) -> Result<u32, Unknown> {
    input.try_get_u32().map_err(|_| Unknown)
}

pub(super) fn u64(input: &mut &[u8]) -> Result<u64, Unknown> {
    input.try_get_u64().map_err(|_| Unknown)
}
