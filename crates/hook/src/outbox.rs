//! A session's bounded queue past the router.

use bytes::{Bytes, BytesMut};
use std::sync::Arc;

use crate::message::{Properties, Qos};

/// Which of the writer's two queues a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Goes with control packets and ordinary publishes, ahead of every block.
    Control,
    /// Firmware: goes when nothing else waits, at most 16 in one write.
    Block,
}

/// A PUBLISH from the broker to one session.
#[derive(Clone)]
pub struct Outgoing {
    /// The topic that the client sees; it need not have subscribed to it.
    pub topic: Arc<str>,
    /// The application message.
    pub payload: Payload,
    /// The quality of service, usually that of the client's downlink subscription.
    pub qos: Qos,
    /// Which queue.
    pub class: Class,
    /// MQTT 5 properties; left out for a 3.1.1 client.
    pub properties: Option<Box<Properties>>,
    /// Who is told what became of it, and the number that it is told with.
    pub receipt: Option<(Arc<dyn Receipt>, u32)>,
}

/// An application message, ready or still to be encoded.
#[derive(Clone)]
pub enum Payload {
    /// The bytes.
    Ready(Bytes),
    /// Encoded straight into the connection's write buffer, when its turn comes: a queue of
    /// blocks then holds references to one image instead of a copy for each device.
    Deferred(Arc<dyn Encode>),
}

/// An application message that knows its length and is encoded late. Called from the session's
/// task: it must be quick and must not block.
pub trait Encode: Send + Sync {
    /// How many bytes [`Encode::encode`] appends, exactly.
    fn encoded_len(&self) -> usize;
    /// Appends the message.
    fn encode(&self, out: &mut BytesMut);
}

impl Payload {
    /// The length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Payload::Ready(bytes) => bytes.len(),
            Payload::Deferred(message) => message.encoded_len(),
        }
    }

    /// Whether the message is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, encoded now where they were not.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Payload::Ready(bytes) => bytes.clone(),
            Payload::Deferred(message) => {
                let mut out = BytesMut::with_capacity(message.encoded_len());
                message.encode(&mut out);
                out.freeze()
            }
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Payload::Ready(bytes)
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Payload::Ready(text.into())
    }
}

/// Told what became of an [`Outgoing`]. Called from the session's task: it must be quick and
/// must not block. It may push to the same outbox.
pub trait Receipt: Send + Sync {
    /// The last byte was handed to the operating system (at QoS 1 and 2: for the first time).
    fn written(&self, tag: u32);
    /// The connection ended before that.
    fn dropped(&self, tag: u32);
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The queue's bound in messages or bytes is reached; nothing was queued.
    #[error("the session's outbox is full")]
    Full,
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
    /// The whole PUBLISH would be larger than the client's Maximum Packet Size.
    #[error("the message is larger than the client's Maximum Packet Size")]
    TooLarge,
}

/// The broker's side of an [`Outbox`].
pub trait Sink: Send + Sync {
    /// Queues a message and wakes the connection.
    fn push(&self, message: Outgoing) -> Result<(), Refused>;
    /// Blocks that are queued and not yet written.
    fn pending_blocks(&self) -> usize;
    /// Whether the connection still lives.
    fn is_open(&self) -> bool;
}

/// The way to one connection's writer. Cheap to clone; it does not keep the connection alive.
///
/// Bounds: while more than a high-water mark is queued, PUBLISHes and SUBSCRIBEs of that client wait,
/// so that a client which asks faster than it reads slows itself down; past a hard bound
/// [`Outbox::send`] refuses.
#[derive(Clone)]
pub struct Outbox(Arc<dyn Sink>);

impl Outbox {
    /// An outbox over the broker's queue (or a test's).
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Outbox(sink)
    }

    /// Queues a message for this connection alone; order is kept within a [`Class`].
    ///
    /// # Errors
    /// [`Refused`], and the message is dropped without calling its receipt.
    pub fn send(&self, message: Outgoing) -> Result<(), Refused> {
        self.0.push(message)
    }

    /// Blocks that are queued and not yet written.
    pub fn pending_blocks(&self) -> usize {
        self.0.pending_blocks()
    }

    /// Whether the connection still lives.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }
}
