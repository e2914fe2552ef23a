//! Dialects: how devices ask for firmware and hear about it.
//!
//! A dialect is synchronous and does no I/O: it claims topics, reads what devices publish and
//! writes what the engine decided. Nothing outside this module knows which dialect a device
//! speaks: it is the one that the device acts in first on its connection.
//!
//! | part | subject |
//! | --- | --- |
//! | [`Dialect`] | which topics are its own, what only the server says there, how large a block may be |
//! | [`Talk`] | one connection's conversation in it: reads and writes messages |
//! | [`Uplink`] | what a publish means: requests, questions, reports, and what goes on to others |
//! | [`Said`] | one message of the server |
//! | [`quirks`] | how often what is tolerated was met |

pub mod aws;
mod digits;
pub mod framing;
pub mod http;
pub mod json;
pub mod native;
pub mod order;
pub mod quirks;
pub mod reference;
mod scan;
pub mod thingsboard;

use bytes::Bytes;
use hook::{Payload, Properties, Qos};
use std::{fmt, num::NonZeroU32, ops::Range, sync::Arc};

use crate::state::UpdateState;
pub use framing::Framing;
pub use quirks::Quirks;

/// Every dialect, in the order in which they are asked.
pub fn all() -> Vec<Arc<dyn Dialect>> {
    vec![
        Arc::new(reference::Reference::default()),
        Arc::new(thingsboard::ThingsBoard::default()),
        Arc::new(native::Native::default()),
        Arc::new(aws::Aws),
        Arc::new(http::Http),
    ]
}

/// The runs of ones in a bitmap, of which bit 0 of the first byte is block `base`; the first
/// `most` ones at most.
pub fn runs(base: u32, bitmap: &[u8], most: usize) -> Vec<Range<u32>> {
    let (mut runs, mut left): (Vec<Range<u32>>, usize) = (Vec::new(), most);
    for (at, byte) in bitmap.iter().enumerate() {
        for bit in (0..8).filter(|bit| byte & 1 << bit != 0) {
            let block = u64::from(base) + at as u64 * 8 + bit;
            // u32::MAX itself is no index.
            let block = u32::try_from(block).ok().filter(|block| *block < u32::MAX);
            let Some(block) = block.filter(|_| left > 0) else { return runs };
            left -= 1;
            match runs.last_mut().filter(|run| run.end == block) {
                Some(run) => run.end += 1,
                None => runs.push(block..block + 1),
            }
        }
    }
    runs
}

/// What a dialect found wrong with a request: one sentence for the device.
pub type Problem = String;

/// What a device wants repeated in the answer, and where that goes, in the dialect's own
/// encoding; `None` where it wants nothing. Shared by all blocks of one request.
pub type Echo = Option<Arc<[u8]>>;

/// The beginning of an image's digest, by which requests name an image.
pub type ImageTag = u64;

/// How large the blocks of a request are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockSize {
    /// As the offer says.
    #[default]
    Pinned,
    /// So many bytes; the last block may have fewer.
    Bytes(NonZeroU32),
    /// The whole image is one block.
    Whole,
    /// The first block begins at the offset `from`, and the last ends before `to`.
    Run {
        /// An offset in bytes.
        from: u64,
        /// Another.
        to: u64,
        /// Bytes of each block but the last.
        bytes: NonZeroU32,
    },
}

/// A request for blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The zero-based index of the first block, or what is wrong with the request.
    pub index: Result<u32, Problem>,
    /// Further blocks that the same request asks for, in order; empty in the reference's own.
    pub more: Vec<Range<u32>>,
    /// What the indices count.
    pub size: BlockSize,
    /// The image that it must come from; `None`: from the one that was offered.
    pub image: Option<ImageTag>,
    /// Blocks past the end are left out, as long as any other is asked for.
    pub trims: bool,
    /// What the dialect repeats in its answer.
    pub echo: Echo,
}

impl Default for Request {
    fn default() -> Self {
        Request {
            index: Ok(0),
            more: Vec::new(),
            size: BlockSize::Pinned,
            image: None,
            trims: false,
            echo: None,
        }
    }
}

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
    /// It has every byte of the image.
    Downloaded,
    /// The image is whole.
    Verified,
    /// The image is being installed.
    Updating,
    /// The image that it was given runs.
    Updated,
    /// The update failed, for this reason.
    Failed(String),
}

/// A publish of a device, as a dialect reads it.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// The topic name.
    pub topic: &'a str,
    /// The application message.
    pub payload: &'a [u8],
    /// MQTT 5 properties, where there are any.
    pub properties: Option<&'a Properties>,
}

impl<'a> From<&hook::Publish<'a>> for Heard<'a> {
    fn from(publish: &hook::Publish<'a>) -> Self {
        Heard { topic: publish.topic, payload: publish.payload, properties: publish.properties }
    }
}

/// What becomes of a publish on a dialect's topic.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Requests in order, at most [`MAX_REQUESTS`].
    pub requests: Vec<Request>,
    /// Whether there were more requests than that; the others are dropped.
    pub too_many: bool,
    /// What the device wants to know about its update; answered by [`Talk::answer`].
    pub questions: Vec<Question>,
    /// Reports, merged.
    pub report: Option<Report>,
    /// Answers that need nothing but the message.
    pub says: Vec<Said>,
    /// What was tolerated, by the names of [`Dialect::quirks`].
    pub quirks: Vec<&'static str>,
    /// What goes on to subscribers.
    pub rest: Rest,
}

/// A question about the device's update, in the dialect's own encoding.
pub type Question = Arc<[u8]>;

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
    /// Everything, on the topic `fuota/devices/ID/` and this.
    Below(String),
    /// It is refused, for this reason; what it asked is answered all the same.
    Refused(String),
}

/// Requests that one message may hold (rule 17).
pub const MAX_REQUESTS: usize = 64;

/// An image that a device is told about, and how far the device is with it.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
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
    /// Its file name.
    pub file: &'a str,
    /// Its SHA-256 in lower-case hex.
    pub sha256: &'a str,
    /// Its signature as minisign has it, in hex: kind (2 bytes), key (8), signature (64).
    pub signature: Option<&'a str>,
    /// Another checksum, where a person wants one.
    pub checksum: Option<&'a store::Checksum>,
    /// By which requests name it.
    pub tag: ImageTag,
    /// Blocks that are in flight at once, however many one request names.
    pub window: u32,
    /// Which offer of this image to the device it is, from 1.
    pub attempt: u32,
    /// How far the update is.
    pub state: UpdateState,
    /// What [`Answer::note`] was last.
    pub note: Option<String>,
}

/// What a question is answered with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The messages, in order.
    pub says: Vec<Said>,
    /// What is to be kept with the offer, across reconnects and restarts.
    pub note: Option<String>,
    /// What the device said about itself with its question.
    pub report: Option<Report>,
    /// The device knows of the offer by this answer.
    pub announces: bool,
}

/// Why the engine answers a request with no block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The dialect found it wrong.
    Asked(Problem),
    /// The block lies past the end of the image.
    PastEnd {
        /// Its index.
        index: u32,
        /// Blocks of the image, in the size that was asked for.
        total: u32,
    },
    /// There is nothing for the device, or not what it asked for.
    Nothing(String),
    /// The server cannot now.
    Unavailable(String),
    /// It asks for too much at once, or too often.
    TooMuch(String),
    /// The block fits no message to it.
    TooLarge(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::PastEnd { index, total } => write!(
                f,
                "the chunk index {index} is out of range: the image has {total} chunks, 0 to {}",
                total.saturating_sub(1)
            ),
            Trouble::Asked(text)
            | Trouble::Nothing(text)
            | Trouble::Unavailable(text)
            | Trouble::TooMuch(text)
            | Trouble::TooLarge(text) => f.write_str(text),
        }
    }
}

/// One message of the server to a device.
#[derive(Clone)]
pub struct Said {
    /// The topic.
    pub topic: Arc<str>,
    /// The application message.
    pub payload: Payload,
    /// The quality of service; `None`: that of the downlink.
    pub qos: Option<Qos>,
    /// MQTT 5 properties.
    pub properties: Option<Box<Properties>>,
}

impl Said {
    /// At the downlink's quality of service, without properties.
    pub fn new(topic: &Arc<str>, payload: impl Into<Payload>) -> Said {
        Said { topic: Arc::clone(topic), payload: payload.into(), qos: None, properties: None }
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = String::from_utf8_lossy(&self.payload.to_bytes()).into_owned();
        write!(f, "{}: {payload}", self.topic)
    }
}

impl PartialEq for Said {
    fn eq(&self, other: &Said) -> bool {
        self.topic == other.topic
            && self.payload.to_bytes() == other.payload.to_bytes()
            && self.qos == other.qos
            && self.properties == other.properties
    }
}

/// A block that is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Its index.
    pub index: u32,
    /// What the index counts.
    pub size: BlockSize,
    /// What the request wanted repeated.
    pub echo: &'a Echo,
    /// Of which image it is.
    pub tag: ImageTag,
}

/// One way in which devices speak about firmware.
pub trait Dialect: Send + Sync {
    /// Its name in listings.
    fn name(&self) -> &'static str;

    /// What it tolerates and counts, one name each.
    fn quirks(&self) -> &'static [&'static str];

    /// Whether devices publish to this topic.
    fn claims(&self, topic: &str) -> bool;

    /// Whether devices hear the server by this filter. Such a subscription is kept by the
    /// session alone.
    fn is_downlink(&self, filter: &str) -> bool;

    /// Whether its devices ask by themselves, when they connect, what there is for them: then
    /// nothing is announced to them before they have had the time for it.
    fn asks(&self) -> bool {
        false
    }

    /// The user name in what its devices send as one, where that holds more, and by which name of
    /// [`quirks`](Dialect::quirks) this is counted.
    fn user_name<'a>(&self, _given: &'a str) -> Option<(&'a str, &'static str)> {
        None
    }

    /// The name of a message that only the server may say, if this payload holds one.
    fn forgery(&self, payload: &[u8]) -> Option<String>;

    /// Whether no device may be sent such a message by others, whatever it speaks (rule 24).
    fn is_reserved_everywhere(&self) -> bool {
        false
    }

    /// Bytes of a block of an offer: at most `wanted`, for an image of this size, so that the
    /// block fits the framing; `None` where not even a small one fits.
    fn chunk_size(&self, wanted: u32, image: u64, framing: &Framing) -> Option<u32>;

    /// An operator's order to start an update, where this payload is one (rule 27).
    fn order(&self, _payload: &[u8]) -> Option<order::Order> {
        None
    }

    /// An answer to that.
    fn validation(&self, _answer: &order::Validation<'_>) -> Option<Said> {
        None
    }

    /// A conversation with the device of this name; `None` for one without identity.
    fn begin(&self, device: Option<&Arc<str>>) -> Box<dyn Talk>;
}

/// One connection's conversation. It is called under the connection's lock, so it must be quick.
pub trait Talk: Send {
    /// The device subscribed to one of the dialect's downlinks, with this granted quality of
    /// service.
    fn subscribed(&mut self, filter: &str, qos: Qos);

    /// It no longer is.
    fn unsubscribed(&mut self, filter: &str);

    /// The quality of service with which the device hears of new images; `None` while it does
    /// not listen for them.
    fn listens(&self) -> Option<Qos>;

    /// The topic on which services write to the device.
    fn downlink(&self) -> &Arc<str>;

    /// A publish that is one request and nothing else, in its usual form; `None` sends it
    /// through [`read`](Talk::read). The quick way of nearly every request.
    fn read_request(&mut self, heard: &Heard<'_>) -> Option<Request>;

    /// Any publish on a claimed topic.
    fn read(&mut self, heard: &Heard<'_>) -> Uplink;

    /// The announcement of an image to a device that listens.
    fn manifest(&mut self, offer: &Offer<'_>, framing: &Framing) -> Said;

    /// What belongs to the announcement, for a device that listens for more than one thing.
    fn beside(&mut self, _offer: &Offer<'_>) -> Option<Said> {
        None
    }

    /// What was announced was withdrawn, before the device had all of it.
    fn withdrawn(&mut self) -> Vec<Said> {
        Vec::new()
    }

    /// The answer to a question; `None`: there is nothing for the device.
    fn answer(&mut self, question: &Question, offer: Option<&Offer<'_>>) -> Answer;

    /// One block, to be encoded when it is written.
    fn block(&mut self, block: Block<'_>, data: Bytes) -> Said;

    /// Why there is no block; `None` where the dialect says nothing about it.
    fn error(&mut self, trouble: &Trouble, echo: &Echo) -> Option<Said>;
}
