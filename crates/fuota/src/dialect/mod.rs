//! Dialects: how devices ask for firmware and hear about it.
//!
//! A dialect is synchronous and does no I/O: it claims topics, reads what devices publish and
//! writes what the engine decided. Nothing outside this module knows which dialect a device
//! speaks.

pub mod json;
pub mod order;
pub mod reference;

use bytes::Bytes;
use hook::{Protocol, Qos};
use std::{ops::Range, sync::Arc};

/// Why a request cannot be answered with a block: one sentence for the device.
pub type Problem = String;

/// A request for one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The zero-based index of the block, or what is wrong with it.
    pub index: Result<u32, Problem>,
    /// Further blocks that the same request asks for, in order; empty in the reference's own.
    pub more: Vec<Range<u32>>,
    /// What the dialect repeats in its answer.
    pub echo: Echo,
}

/// What a device wants repeated in the answer, in the dialect's own encoding; empty where it
/// wants nothing.
pub type Echo = Option<Box<str>>;

/// What a device says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its model.
    pub model: Option<String>,
    /// The version that it runs.
    pub version: Option<String>,
    /// How far its update is.
    pub state: Option<ReportedState>,
}

/// What a device says about its update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportedState {
    /// The image is whole.
    Verified,
    /// The image is being installed.
    Updating,
    /// The update failed, for this reason.
    Failed(String),
}

/// What becomes of a publish on a dialect's topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uplink {
    /// Nothing in it is for us.
    Ordinary,
    /// It must not be delivered to anybody.
    Forged {
        /// Which name was used.
        name: String,
    },
    /// It holds something for us.
    Message(Message),
}

/// The part of a publish that is for us, and the rest of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Requests in order, at most [`MAX_REQUESTS`].
    pub requests: Vec<Request>,
    /// Whether there were more requests than that; the others are dropped.
    pub too_many: bool,
    /// Reports, merged.
    pub report: Option<Report>,
    /// What goes on to subscribers.
    pub rest: Rest,
}

/// What remains of a publish for its subscribers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: it was for us alone.
    #[default]
    Nothing,
    /// Everything, unchanged.
    All,
    /// These bytes.
    Part(Bytes),
}

/// Requests that one message may hold (rule 17).
pub const MAX_REQUESTS: usize = 64;

/// An image that a device is told about.
#[derive(Clone, Copy, Debug)]
pub struct Manifest<'a> {
    /// Bytes of the image.
    pub size: u64,
    /// Blocks of the image.
    pub total: u32,
    /// Bytes of each block but the last.
    pub chunk_size: u32,
    /// Its version.
    pub version: &'a str,
    /// Its title, where a person gave it one.
    pub title: Option<&'a str>,
    /// Its SHA-256 in lower-case hex.
    pub sha256: &'a str,
    /// Blocks that are in flight at once, however many one request names.
    pub window: u32,
}

/// How a message travels, as far as it counts for its size on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    /// The largest PUBLISH on the wire, in bytes.
    pub limit: u32,
    /// Its quality of service.
    pub qos: Qos,
    /// Its MQTT version.
    pub protocol: Protocol,
}

impl Framing {
    /// Bytes of a PUBLISH with this payload on this topic [MQTT-3.3.1].
    pub fn publish_size(&self, topic: &str, payload: usize) -> usize {
        let packet_id = if self.qos == Qos::AtMostOnce { 0 } else { 2 };
        let properties = if self.protocol == Protocol::V5 { 1 } else { 0 };
        let remaining = 2 + topic.len() + packet_id + properties + payload;
        let length = match remaining {
            0..=127 => 1,
            128..=16_383 => 2,
            16_384..=2_097_151 => 3,
            _ => 4,
        };
        1 + length + remaining
    }
}

/// One way in which devices speak about firmware.
pub trait Dialect: Send + Sync {
    /// Its name in listings.
    fn name(&self) -> &'static str;

    /// Whether devices publish to this topic.
    fn claims(&self, topic: &str) -> bool;

    /// Whether this filter is the downlink: where a device hears the server.
    fn is_downlink(&self, filter: &str) -> bool;

    /// The topic of everything that the server says.
    fn downlink(&self) -> &Arc<str>;

    /// A publish that is one request and nothing else, in its usual form; `None` sends it
    /// through [`read`](Dialect::read). The quick way of nearly every request.
    fn read_request(&self, payload: &[u8]) -> Option<Request>;

    /// Any publish on a claimed topic.
    fn read(&self, payload: &[u8]) -> Uplink;

    /// The name of a message that only the server may send, if this payload holds one.
    fn forgery(&self, payload: &[u8]) -> Option<String>;

    /// The announcement of an image. `brief` leaves out what devices can do without.
    fn manifest(&self, manifest: &Manifest<'_>, brief: bool) -> Bytes;

    /// One block, to be encoded when it is written.
    fn block(&self, index: u32, echo: &Echo, data: Bytes) -> hook::Payload;

    /// An error.
    fn error(&self, text: &str, echo: &Echo) -> Bytes;

    /// An operator's order to start an update, where this payload is one (rule 27).
    fn order(&self, _payload: &[u8]) -> Option<order::Order> {
        None
    }

    /// An answer to that.
    fn validation(&self, _answer: &order::Validation<'_>) -> Option<Bytes> {
        None
    }

    /// The largest chunk whose block fits the framing, at most `wanted`, for an image of this
    /// size; `None` where not even a small one fits.
    fn chunk_size(&self, wanted: u32, image: u64, framing: &Framing) -> Option<u32>;
}
