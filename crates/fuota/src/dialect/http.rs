//! HTTP: what is said here is heard by [`crate::download`], which makes it a response. No topic of
//! MQTT is in this dialect.

use std::sync::Arc;

use bytes::Bytes;
use hook::{Outgoing, Qos};
use serde::{Deserialize, Serialize};

use super::{
    Answer, Block, Dialect, Echo, Framing, Heard, ImageTag, Offer, Question, Request, Said, Talk,
    Trouble, Uplink,
};

/// Its name in listings.
pub const NAME: &str = "http";
const OFFER: &str = "offer";
const NOTHING: &str = "nothing";
const BLOCK: &str = "block";
const ERROR: &str = "error";

/// What is tolerated of requests; `docs/dialects/http.md` has the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerated {
    /// A `Range` that no range can be read from.
    RangeMalformed,
    /// A `Range` of another unit than bytes.
    AnotherUnit,
    /// More than one range.
    SeveralRanges,
    /// A `Range` of a method that has none.
    RangeWithoutGet,
    /// White space in a `Range`, which has none.
    RangeWithSpaces,
    /// An `If-Range` that is no entity tag, such as a date.
    IfRangeNoTag,
    /// A report whose `Content-Type` is not JSON's.
    ReportNotCalledJson,
}

impl Tolerated {
    const NAMES: [&'static str; 7] = [
        Tolerated::RangeMalformed.name(),
        Tolerated::AnotherUnit.name(),
        Tolerated::SeveralRanges.name(),
        Tolerated::RangeWithoutGet.name(),
        Tolerated::RangeWithSpaces.name(),
        Tolerated::IfRangeNoTag.name(),
        Tolerated::ReportNotCalledJson.name(),
    ];

    /// By which it is counted.
    pub const fn name(self) -> &'static str {
        match self {
            Tolerated::RangeMalformed => "range_malformed",
            Tolerated::AnotherUnit => "range_of_another_unit",
            Tolerated::SeveralRanges => "several_ranges",
            Tolerated::RangeWithoutGet => "range_without_get",
            Tolerated::RangeWithSpaces => "range_with_spaces",
            Tolerated::IfRangeNoTag => "if_range_not_a_tag",
            Tolerated::ReportNotCalledJson => "report_not_called_json",
        }
    }
}

/// See [the module](self).
#[derive(Default)]
pub struct Http;

/// What the server said.
pub enum Spoken {
    Offer(Head),
    Nothing,
    Block(Bytes),
    Error(String),
}

/// What a response's head says of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub size: u64,
    pub sha256: String,
    pub version: String,
    pub file: String,
    pub tag: ImageTag,
}

/// What a message of this dialect says.
pub fn understand(message: &Outgoing) -> Spoken {
    let payload = message.payload.to_bytes();
    match &*message.topic {
        BLOCK => Spoken::Block(payload),
        OFFER => match serde_json::from_slice(&payload) {
            Ok(head) => Spoken::Offer(head),
            Err(error) => Spoken::Error(error.to_string()),
        },
        NOTHING => Spoken::Nothing,
        _ => Spoken::Error(String::from_utf8_lossy(&payload).into_owned()),
    }
}

impl Dialect for Http {
    fn name(&self) -> &'static str {
        NAME
    }

    fn quirks(&self) -> &'static [&'static str] {
        &Tolerated::NAMES
    }

    fn claims(&self, _topic: &str) -> bool {
        false
    }

    fn is_downlink(&self, _filter: &str) -> bool {
        false
    }

    fn forgery(&self, _payload: &[u8]) -> Option<String> {
        None
    }

    fn chunk_size(&self, wanted: u32, image: u64, _framing: &Framing) -> Option<u32> {
        // A request names bytes.
        (image.div_ceil(u64::from(wanted.max(1))) < u64::from(u32::MAX)).then_some(wanted)
    }

    fn begin(&self, _device: Option<&Arc<str>>) -> Box<dyn Talk> {
        Box::new(Conversation { nowhere: ERROR.into(), block: BLOCK.into() })
    }
}

struct Conversation {
    nowhere: Arc<str>,
    block: Arc<str>,
}

fn offered(offer: &Offer<'_>) -> Said {
    let head = Head {
        size: offer.size,
        sha256: offer.sha256.to_owned(),
        version: offer.version.to_owned(),
        file: offer.file.to_owned(),
        tag: offer.tag,
    };
    Said::new(&OFFER.into(), serde_json::to_string(&head).unwrap_or_default())
}

impl Talk for Conversation {
    fn subscribed(&mut self, _filter: &str, _qos: Qos) {}

    fn unsubscribed(&mut self, _filter: &str) {}

    fn listens(&self) -> Option<Qos> {
        None
    }

    fn downlink(&self) -> &Arc<str> {
        &self.nowhere
    }

    fn read_request(&mut self, _heard: &Heard<'_>) -> Option<Request> {
        None
    }

    fn read(&mut self, _heard: &Heard<'_>) -> Uplink {
        Uplink::Ordinary
    }

    fn manifest(&mut self, offer: &Offer<'_>, _framing: &Framing) -> Said {
        offered(offer)
    }

    fn answer(&mut self, _question: &Question, offer: Option<&Offer<'_>>) -> Answer {
        let said = offer.map_or_else(|| Said::new(&NOTHING.into(), String::new()), offered);
        Answer { says: vec![said], announces: offer.is_some(), ..Answer::default() }
    }

    fn block(&mut self, _block: Block<'_>, data: Bytes) -> Said {
        Said::new(&self.block, data)
    }

    fn error(&mut self, trouble: &Trouble, _echo: &Echo) -> Option<Said> {
        Some(Said::new(&self.nowhere, trouble.to_string()))
    }
}
