//! What can happen to the durable state.

use hook::{Identity, Protocol, Qos};
use std::sync::Arc;

use crate::{
    backlog::Owed,
    message::{Message, Share},
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
    /// What begins a log, and then says how much of it was synced. At the end of a snapshot it says
    /// that a log follows, which was made before.
    Mark(Mark),
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

/// How much of a log was durable when this was written into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Drawn by lot for each log, so that what clients send cannot look like one of its marks.
    pub log: u64,
    /// Bytes from its beginning; 0 in the first one.
    pub synced: u64,
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

impl Record {
    /// What it holds in memory beside itself, in bytes. A retained message that is served is not
    /// counted: it is held anyway, and the window of its client bounds how many are on their way.
    pub fn cost(&self) -> usize {
        match self {
            Record::Publish(published) => {
                size_of::<Published>()
                    + published.message.cost()
                    + published.targets.len() * size_of::<Target>()
            }
            Record::Will { will: Some(will), .. } => will.message.cost(),
            Record::Begin { client_id, .. } => client_id.len(),
            Record::Subscribe { filter, .. } | Record::Unsubscribe { filter, .. } => filter.len(),
            Record::Owe { owed, .. } => size_of::<Owed>() + owed.filter.len(),
            _ => 0,
        }
    }
}
