//! What can happen to the durable state, and its form in a file.
//!
//! A record is a byte that says which, then its fields, numbers with the highest byte first. A
//! message is an MQTT 5 PUBLISH, so that its properties need no second form. Kinds are never
//! given a new meaning: what changes gets a new kind, or a flag that was always 0, and a new
//! [`super::file::FORMAT`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hook::{Identity, Protocol, Qos, Role};
use std::{sync::Arc, time::Duration};

use super::wall_seconds;
use crate::{
    backlog::Owed,
    codec::{self, Frame, PublishHead},
    message::{Message, Share},
    packet::Packet,
    session::Will,
    subscriptions::Held,
};

/// One change of the durable state. Sessions are named by their key, deliveries by a number that
/// is unique in the life of a data directory.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// A session begins with nothing in it; what it had before is gone.
    Begin { session: u64, client_id: Arc<str>, owner: Owner, expiry: u32 },
    /// A connection goes on with a session.
    Resume { session: u64, owner: Owner, expiry: u32 },
    /// Its connection ended at this time, in seconds since 1970.
    Leave { session: u64, at: u64, expiry: u32 },
    /// It is forgotten.
    End { session: u64 },
    /// It has this subscription, in place of one on the same filter.
    Subscribe { session: u64, filter: Box<str>, held: Held },
    /// It has it no longer.
    Unsubscribe { session: u64, filter: Box<str> },
    /// Its will for the current connection, or the delayed one behind it; without one, that was
    /// published or given up.
    Will { session: u64, will: Option<Box<Will>> },
    /// A message, for whoever it was promised to.
    Publish(Box<Published>),
    /// A QoS 2 publish was taken from the session's client, and reached nobody who lasts.
    Received { session: u64, packet_id: u16 },
    /// Its client released the packet id.
    Released { session: u64, packet_id: u16 },
    /// A QoS 2 delivery goes to the client under this packet id.
    Sent { session: u64, delivery: u64, packet_id: u16 },
    /// The client has it, and a PUBREL is due.
    Confirmed { session: u64, delivery: u64 },
    /// The same for a delivery whose message is no longer known: only in snapshots.
    Confirming { session: u64, delivery: u64, packet_id: u16 },
    /// A delivery is over: acknowledged, expired, or dropped by a stated bound.
    Done { session: u64, delivery: u64 },
    /// It subscribed, and is promised what is retained. The number of the backlog is unique among
    /// those of deliveries.
    Owe { session: u64, backlog: u64, owed: Box<Owed> },
    /// One of those messages becomes a delivery, and the backlog goes on behind its topic.
    Serve { session: u64, backlog: u64, delivery: u64, what: Retained },
    /// All of them have become deliveries, or none is due any more.
    Served { session: u64, backlog: u64 },
    /// The first numbers that are free: only in snapshots.
    Next(Next),
}

/// A retained message that is delivered because somebody subscribed.
#[derive(Clone, Debug)]
pub(crate) enum Retained {
    /// The one that is retained on this topic under this sequence: its payload is in the log.
    Place { topic: Arc<str>, sequence: u64 },
    /// One that is not, or not any more; and when this was written, in seconds since 1970.
    Message { message: Arc<Message>, at: u64 },
}

/// Numbers that go on where they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Next {
    /// Session key.
    pub session: u64,
    /// Delivery.
    pub delivery: u64,
    /// Sequence of retained messages.
    pub sequence: u64,
}

/// What is known of a session's last connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Who it proved to be: a session belongs to its account.
    pub identity: Identity,
    /// The version it spoke.
    pub protocol: Protocol,
}

/// A message with all that was promised of it.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// The message.
    pub message: Arc<Message>,
    /// When this was written, in seconds since 1970: its expiry counts from here.
    pub at: u64,
    /// It is the retained message of its topic, or takes that away where it is empty.
    pub retained: bool,
    /// The session and packet id that it came from, at QoS 2 from a session that lasts.
    pub received: Option<(u64, u16)>,
    /// The session and delivery in whose place it comes: what a member of a shared subscription
    /// left behind, handed on.
    pub instead: Option<(u64, u64)>,
    /// The sessions that it is for.
    pub targets: Vec<Target>,
}

/// One session that a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its key.
    pub session: u64,
    /// The number of this delivery.
    pub delivery: u64,
    /// QoS 1 or 2.
    pub qos: Qos,
    /// The RETAIN flag that it sees.
    pub retain: bool,
    /// Subscription identifiers.
    pub subscriptions: Option<Arc<[u32]>>,
    /// The shared subscription that it comes by.
    pub share: Option<Arc<Share>>,
}

/// Bytes that are no record. Their checksum was right, so a program wrote them that this one does
/// not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record that this version does not know")]
pub(crate) struct Unknown;

mod kind {
    pub const BEGIN: u8 = 1;
    pub const RESUME: u8 = 2;
    pub const LEAVE: u8 = 3;
    pub const END: u8 = 4;
    pub const SUBSCRIBE: u8 = 5;
    pub const UNSUBSCRIBE: u8 = 6;
    pub const PUBLISH: u8 = 7;
    pub const RECEIVED: u8 = 8;
    pub const RELEASED: u8 = 9;
    pub const SENT: u8 = 10;
    pub const CONFIRMED: u8 = 11;
    pub const CONFIRMING: u8 = 12;
    pub const DONE: u8 = 13;
    pub const NEXT: u8 = 14;
    // Since format 2.
    pub const OWE: u8 = 15;
    pub const SERVE_PLACE: u8 = 16;
    pub const SERVE_MESSAGE: u8 = 17;
    pub const SERVED: u8 = 18;
    pub const WILL: u8 = 19;
    pub const WILL_OVER: u8 = 20;
}

impl Record {
    /// Appends the record.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Record::Begin { session, client_id, owner, expiry } => {
                head(out, kind::BEGIN, *session);
                text(out, client_id);
                owner.encode(out);
                out.put_u32(*expiry);
            }
            Record::Resume { session, owner, expiry } => {
                head(out, kind::RESUME, *session);
                owner.encode(out);
                out.put_u32(*expiry);
            }
            Record::Leave { session, at, expiry } => {
                head(out, kind::LEAVE, *session);
                out.put_u64(*at);
                out.put_u32(*expiry);
            }
            Record::End { session } => head(out, kind::END, *session),
            Record::Subscribe { session, filter, held } => {
                head(out, kind::SUBSCRIBE, *session);
                text(out, filter);
                encode_held(out, held);
            }
            Record::Unsubscribe { session, filter } => {
                head(out, kind::UNSUBSCRIBE, *session);
                text(out, filter);
            }
            Record::Will { session, will: Some(will) } => {
                head(out, kind::WILL, *session);
                out.put_u32(u32::try_from(will.delay.as_secs()).unwrap_or(u32::MAX));
                encode_message(out, &will.message);
            }
            Record::Will { session, will: None } => head(out, kind::WILL_OVER, *session),
            Record::Publish(published) => {
                out.put_u8(kind::PUBLISH);
                published.encode(out);
            }
            Record::Received { session, packet_id } => {
                head(out, kind::RECEIVED, *session);
                out.put_u16(*packet_id);
            }
            Record::Released { session, packet_id } => {
                head(out, kind::RELEASED, *session);
                out.put_u16(*packet_id);
            }
            Record::Sent { session, delivery, packet_id } => {
                head(out, kind::SENT, *session);
                out.put_u64(*delivery);
                out.put_u16(*packet_id);
            }
            Record::Confirmed { session, delivery } => {
                head(out, kind::CONFIRMED, *session);
                out.put_u64(*delivery);
            }
            Record::Confirming { session, delivery, packet_id } => {
                head(out, kind::CONFIRMING, *session);
                out.put_u64(*delivery);
                out.put_u16(*packet_id);
            }
            Record::Done { session, delivery } => {
                head(out, kind::DONE, *session);
                out.put_u64(*delivery);
            }
            Record::Owe { session, backlog, owed } => {
                head(out, kind::OWE, *session);
                out.put_u64(*backlog);
                encode_owed(out, owed);
            }
            Record::Serve { session, backlog, delivery, what } => {
                let kind = match what {
                    Retained::Place { .. } => kind::SERVE_PLACE,
                    Retained::Message { .. } => kind::SERVE_MESSAGE,
                };
                head(out, kind, *session);
                out.put_u64(*backlog);
                out.put_u64(*delivery);
                match what {
                    Retained::Place { topic, sequence } => {
                        out.put_u64(*sequence);
                        text(out, topic);
                    }
                    Retained::Message { message, at } => {
                        out.put_u64(*at);
                        out.put_u64(message.sequence);
                        encode_message(out, message);
                    }
                }
            }
            Record::Served { session, backlog } => {
                head(out, kind::SERVED, *session);
                out.put_u64(*backlog);
            }
            Record::Next(next) => {
                head(out, kind::NEXT, next.session);
                out.put_u64(next.delivery);
                out.put_u64(next.sequence);
            }
        }
    }

    /// The record in these bytes, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Record, Unknown> {
        let mut input = bytes;
        let record = decode(&mut input)?;
        if input.is_empty() { Ok(record) } else { Err(Unknown) }
    }
}

fn decode(input: &mut &[u8]) -> Result<Record, Unknown> {
    let kind = u8(input)?;
    if kind == kind::PUBLISH {
        return Ok(Record::Publish(Box::new(Published::decode(input)?)));
    }
    let session = u64(input)?;
    Ok(match kind {
        kind::BEGIN => Record::Begin {
            session,
            client_id: take_text(input)?.into(),
            owner: Owner::decode(input)?,
            expiry: u32(input)?,
        },
        kind::RESUME => {
            Record::Resume { session, owner: Owner::decode(input)?, expiry: u32(input)? }
        }
        kind::LEAVE => Record::Leave { session, at: u64(input)?, expiry: u32(input)? },
        kind::END => Record::End { session },
        kind::SUBSCRIBE => Record::Subscribe {
            session,
            filter: take_text(input)?.into(),
            held: decode_held(input)?,
        },
        kind::UNSUBSCRIBE => Record::Unsubscribe { session, filter: take_text(input)?.into() },
        kind::RECEIVED => Record::Received { session, packet_id: u16(input)? },
        kind::RELEASED => Record::Released { session, packet_id: u16(input)? },
        kind::SENT => Record::Sent { session, delivery: u64(input)?, packet_id: u16(input)? },
        kind::CONFIRMED => Record::Confirmed { session, delivery: u64(input)? },
        kind::CONFIRMING => {
            Record::Confirming { session, delivery: u64(input)?, packet_id: u16(input)? }
        }
        kind::DONE => Record::Done { session, delivery: u64(input)? },
        kind::WILL => {
            let delay = Duration::from_secs(u32(input)?.into());
            let message = decode_message(input, 0, wall_seconds())?;
            // Its time counts from the moment at which it is published.
            let message = Message { expires: None, publisher: session, ..message };
            let will = Will { message: Arc::new(message), delay };
            Record::Will { session, will: Some(Box::new(will)) }
        }
        kind::WILL_OVER => Record::Will { session, will: None },
        kind::OWE => {
            Record::Owe { session, backlog: u64(input)?, owed: Box::new(decode_owed(input)?) }
        }
        kind::SERVE_PLACE => Record::Serve {
            session,
            backlog: u64(input)?,
            delivery: u64(input)?,
            what: Retained::Place { sequence: u64(input)?, topic: take_text(input)?.into() },
        },
        kind::SERVE_MESSAGE => {
            let (backlog, delivery, at) = (u64(input)?, u64(input)?, u64(input)?);
            let sequence = u64(input)?;
            let message = Arc::new(decode_message(input, sequence, at)?);
            let what = Retained::Message { message, at };
            Record::Serve { session, backlog, delivery, what }
        }
        kind::SERVED => Record::Served { session, backlog: u64(input)? },
        kind::NEXT => Record::Next(Next { session, delivery: u64(input)?, sequence: u64(input)? }),
        _ => return Err(Unknown),
    })
}

impl Published {
    fn encode(&self, out: &mut BytesMut) {
        let message = &self.message;
        out.put_u64(self.at);
        out.put_u64(message.sequence);
        out.put_u8(
            u8::from(self.retained)
                | u8::from(self.received.is_some()) << 1
                | u8::from(self.instead.is_some()) << 2,
        );
        if let Some((session, packet_id)) = self.received {
            out.put_u64(session);
            out.put_u16(packet_id);
        }
        if let Some((session, delivery)) = self.instead {
            out.put_u64(session);
            out.put_u64(delivery);
        }
        out.put_u32(self.targets.len() as u32);
        for target in &self.targets {
            out.put_u64(target.session);
            out.put_u64(target.delivery);
            out.put_u8(
                target.qos as u8
                    | u8::from(target.retain) << 2
                    | u8::from(target.share.is_some()) << 3,
            );
            let identifiers = target.subscriptions.as_deref().unwrap_or_default();
            out.put_u32(identifiers.len() as u32);
            identifiers.iter().for_each(|id| out.put_u32(*id));
            if let Some(share) = &target.share {
                text(out, &share.0);
            }
        }
        encode_message(out, message);
    }

    fn decode(input: &mut &[u8]) -> Result<Self, Unknown> {
        let at = u64(input)?;
        let sequence = u64(input)?;
        let flags = u8(input)?;
        let received = match flags & 2 {
            0 => None,
            _ => Some((u64(input)?, u16(input)?)),
        };
        let instead = match flags & 4 {
            0 => None,
            _ => Some((u64(input)?, u64(input)?)),
        };
        let count = u32(input)?;
        // Nothing is reserved for what a number announces.
        let targets = (0..count).map(|_| Target::decode(input)).collect::<Result<_, _>>()?;
        let message = Arc::new(decode_message(input, sequence, at)?);
        Ok(Published { message, at, retained: flags & 1 != 0, received, instead, targets })
    }
}

/// As a PUBLISH; its place in the order of retained ones stands elsewhere.
fn encode_message(out: &mut BytesMut, message: &Message) {
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
fn decode_message(input: &mut &[u8], sequence: u64, at: u64) -> Result<Message, Unknown> {
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
        properties: publish.properties,
        publisher: 0,
        sequence,
    })
}

impl Target {
    fn decode(input: &mut &[u8]) -> Result<Self, Unknown> {
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
    fn encode(&self, out: &mut BytesMut) {
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

    fn decode(input: &mut &[u8]) -> Result<Self, Unknown> {
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

fn encode_held(out: &mut BytesMut, held: &Held) {
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
fn decode_held(input: &mut &[u8]) -> Result<Held, Unknown> {
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

fn encode_owed(out: &mut BytesMut, owed: &Owed) {
    let Owed { filter, qos, identifier, newest, after } = owed;
    out.put_u8(*qos as u8 | u8::from(after.is_some()) << 2);
    out.put_u32(identifier.unwrap_or(0));
    out.put_u64(*newest);
    text(out, filter);
    if let Some(after) = after {
        text(out, after);
    }
}

fn decode_owed(input: &mut &[u8]) -> Result<Owed, Unknown> {
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

fn head(out: &mut BytesMut, kind: u8, session: u64) {
    out.put_u8(kind);
    out.put_u64(session);
}

fn text(out: &mut BytesMut, text: &str) {
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn take_text<'a>(input: &mut &'a [u8]) -> Result<&'a str, Unknown> {
    let len = u32(input)? as usize;
    let (bytes, rest) = input.split_at_checked(len).ok_or(Unknown)?;
    *input = rest;
    std::str::from_utf8(bytes).map_err(|_| Unknown)
}

fn u8(input: &mut &[u8]) -> Result<u8, Unknown> {
    input.try_get_u8().map_err(|_| Unknown)
}

fn u16(input: &mut &[u8]) -> Result<u16, Unknown> {
    input.try_get_u16().map_err(|_| Unknown)
}

fn u32(input: &mut &[u8]) -> Result<u32, Unknown> {
    input.try_get_u32().map_err(|_| Unknown)
}

fn u64(input: &mut &[u8]) -> Result<u64, Unknown> {
    input.try_get_u64().map_err(|_| Unknown)
}
