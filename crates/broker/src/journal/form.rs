//! The form of a record in a file.
//!
//! A record is a byte that says which, then its fields, numbers with the highest byte first. A
//! message is an MQTT 5 PUBLISH, so that its properties need no second form. Kinds are never
//! given a new meaning: what changes gets a new kind, or a flag that was always 0, and a new
//! [`super::file::FORMAT`].

use bytes::{BufMut, BytesMut};
use std::{sync::Arc, time::Duration};

use super::{
    fields::{
        decode_held, decode_message, decode_owed, encode_held, encode_message, encode_owed, head,
        take_text, text, u8, u16, u32, u64,
    },
    record::{Mark, Next, Owner, Published, Record, Retained, Target, Unknown},
    wall_seconds,
};
use crate::{message::Message, session::Will};

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
    // Since format 3.
    pub const MARK: u8 = 21;
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
            Record::Mark(mark) => {
                head(out, kind::MARK, mark.log);
                out.put_u64(mark.synced);
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
        kind::MARK => Record::Mark(Mark { log: session, synced: u64(input)? }),
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
