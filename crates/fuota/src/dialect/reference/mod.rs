//! The reference dialect: TagoIO's update over MQTT, one topic for both directions, variables
//! in JSON, blocks in base64. `docs/dialects/reference.md` is its table.
//!
//! | module | subject |
//! | --- | --- |
//! | `mod` | the topic, manifests, a connection's conversation |
//! | `uplink` | what a publish holds |
//! | `plain` | the quick way of nearly every request |
//! | `block` | a block, encoded when it is written |

mod block;
mod plain;
mod uplink;

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use hook::Qos;

use super::{
    Answer, Dialect, Echo, Framing, Heard, Offer, Question, Request, Said, Talk, Trouble, Uplink,
    json::{self, Payload, Variable},
    order,
};
use block::{Block, DATA, HEAD, SIZE, TAIL};
use plain::plain_request;
use uplink::{is_word, uplink, uplink_of_copy, uplink_of_unread};

/// The topic that devices publish and subscribe on.
pub const TOPIC: &str = "tago/data/post";
const REQUEST: &str = "firmware_request";
const STATUS: &str = "firmware_status";
/// What only the server says (rule 24).
const SERVER_ONLY: [&str; 4] =
    ["firmware_manifest", "firmware_block", "fuota_error", "firmware_validation"];
/// Starts an update; needs an operator (rule 27).
const FILE: &str = "firmware_file";

/// The longest `group` that is echoed, in bytes of its JSON.
const MAX_ECHO: usize = 1024;
/// Blocks that one list may name.
const MAX_MISSING: usize = 1024;
/// Room that is kept for a `group` where the message size is limited: 24 hex digits, as TagoIO
/// makes them, quoted and named, and some more.
const ECHO_ROOM: usize = 64;

/// What is tolerated; `docs/dialects/reference.md` has the list.
const QUIRKS: [&str; 5] = [TEXT_INDEX, DECIMAL_INDEX, ODD_NUMBER, BYTE_ORDER_MARK, DOUBLE_NAME];
/// An index that is a text.
const TEXT_INDEX: &str = "index_as_text";
/// An index that is written as `5.0` or `5e0`.
const DECIMAL_INDEX: &str = "index_as_decimal";
/// `NaN` or `Infinity`, which JSON does not have.
const ODD_NUMBER: &str = "number_that_is_none";
/// A byte order mark before the JSON.
const BYTE_ORDER_MARK: &str = "byte_order_mark";
/// `variable` twice in one object.
const DOUBLE_NAME: &str = "variable_twice";

/// See [the module](self).
#[derive(Clone)]
pub struct Reference {
    topic: Arc<str>,
}

impl Default for Reference {
    fn default() -> Self {
        Reference { topic: TOPIC.into() }
    }
}

impl Dialect for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn quirks(&self) -> &'static [&'static str] {
        &QUIRKS
    }

    fn claims(&self, topic: &str) -> bool {
        topic == TOPIC
    }

    fn is_downlink(&self, filter: &str) -> bool {
        filter == TOPIC
    }

    fn forgery(&self, payload: &[u8]) -> Option<String> {
        let reserved: Vec<&str> = SERVER_ONLY.into_iter().chain([FILE]).collect();
        let hidden = |text: &[u8]| json::hidden(text, &reserved).map(str::to_owned);
        let copy;
        let read = match json::read(payload) {
            Some(read) => read,
            None => {
                copy = json::without_odd_numbers(payload);
                match copy.as_deref().and_then(json::read) {
                    Some(read) => read,
                    None => return hidden(payload),
                }
            }
        };
        let find = |variable: &Variable<'_>| {
            let ours = |name: &&Cow<'_, str>| reserved.iter().any(|word| is_word(name, word));
            let request = |name: &&Cow<'_, str>| ours(name) || **name == REQUEST;
            let mut nearly = variable.nearly.iter().filter(ours);
            variable.names.iter().find(request).or_else(|| nearly.next()).map(ToString::to_string)
        };
        match &read {
            Payload::One(variable) => find(variable),
            Payload::Many(elements) => {
                let find = |(text, variable): &(&str, Option<Variable<'_>>)| match variable {
                    Some(variable) => find(variable),
                    None if text.starts_with(['{', '[']) => hidden(text.as_bytes()),
                    None => None,
                };
                elements.iter().find_map(find)
            }
        }
    }

    fn is_reserved_everywhere(&self) -> bool {
        true
    }

    fn order(&self, payload: &[u8]) -> Option<order::Order> {
        let reserved: Vec<&str> = SERVER_ONLY.into_iter().chain([REQUEST]).collect();
        order::read(payload, &reserved)
    }

    fn validation(&self, answer: &order::Validation<'_>) -> Option<Said> {
        Some(Said::new(&self.topic, order::validation(answer)))
    }

    fn chunk_size(&self, wanted: u32, image: u64, framing: &Framing) -> Option<u32> {
        let around = HEAD.len() + 10 + ECHO_ROOM + DATA.len() + SIZE.len() + 10 + TAIL.len();
        let size = |chunk: u32| {
            let payload = around + base64_simd::STANDARD.encoded_length(chunk as usize);
            framing.publish_size(TOPIC, payload)
        };
        let limit = framing.limit as usize;
        let enough =
            |chunk: u32| chunk > 0 && image.div_ceil(u64::from(chunk)) < u64::from(u32::MAX);
        if size(wanted) <= limit {
            return Some(wanted).filter(|chunk| enough(*chunk));
        }
        // Three bytes of firmware are four of base64; flash likes round numbers.
        let room = limit.saturating_sub(size(0)).saturating_sub(3);
        let chunk = u32::try_from(room / 4 * 3).ok()?.min(wanted);
        let round = if chunk >= 64 { chunk / 16 * 16 } else { chunk };
        Some(round).filter(|chunk| enough(*chunk) && size(*chunk) <= limit)
    }

    fn begin(&self, _device: Option<&Arc<str>>) -> Box<dyn Talk> {
        Box::new(Conversation { reference: self.clone(), downlink: None })
    }
}

impl Reference {
    /// The quick way of a request.
    pub fn read_request(&self, payload: &[u8]) -> Option<Request> {
        plain_request(payload)
    }

    /// Any publish on the topic.
    pub fn read(&self, payload: &[u8]) -> Uplink {
        let mut odd = false;
        let mut read = match json::read(payload) {
            Some(read) => uplink(read, payload),
            // The copy has the payload's length, so its elements lie where the payload's do.
            None => match json::without_odd_numbers(payload) {
                Some(copy) => {
                    odd = true;
                    json::read(&copy).map_or_else(
                        || uplink_of_unread(payload),
                        |read| uplink_of_copy(read, &copy, payload),
                    )
                }
                None => uplink_of_unread(payload),
            },
        };
        if let Uplink::Message(message) = &mut read {
            message.quirks.extend(odd.then_some(ODD_NUMBER));
            message.quirks.extend(payload.starts_with(json::MARK).then_some(BYTE_ORDER_MARK));
        }
        read
    }

    /// The announcement of an image. `brief` leaves out what devices can do without.
    pub fn manifest(&self, offer: &Offer<'_>, brief: bool) -> Bytes {
        let Offer { size, total, chunk_size, .. } = offer;
        let mut text = format!(
            "{{\"variable\":\"firmware_manifest\",\"value\":\"pending\",\"metadata\":{{\
             \"total_size\":{size},\"total_chunks\":{total},\"chunk_size\":{chunk_size},\"version\":{}",
            quoted(offer.version),
        );
        if !brief {
            text += &format!(",\"sha256\":{}", quoted(offer.sha256));
            text += &format!(",\"window\":{}", offer.window);
            if let Some(title) = offer.title {
                text += &format!(",\"title\":{}", quoted(title));
            }
        }
        text += "}}";
        text.into()
    }

    /// One block.
    pub fn block(&self, index: u32, echo: &Echo, data: Bytes) -> hook::Payload {
        hook::Payload::Deferred(Arc::new(Block { index, echo: echo.clone(), data }))
    }

    /// An error.
    pub fn error(&self, text: &str, echo: &Echo) -> Bytes {
        let group = group_of(echo).map_or(String::new(), |group| format!(",\"group\":{group}"));
        format!("{{\"variable\":\"fuota_error\",\"value\":{}{group}}}", quoted(text)).into()
    }
}

/// One connection: all that is known of it is whether it hears.
struct Conversation {
    reference: Reference,
    downlink: Option<Qos>,
}

impl Talk for Conversation {
    fn subscribed(&mut self, _filter: &str, qos: Qos) {
        self.downlink = Some(qos);
    }

    fn unsubscribed(&mut self, _filter: &str) {
        self.downlink = None;
    }

    fn listens(&self) -> Option<Qos> {
        self.downlink
    }

    fn downlink(&self) -> &Arc<str> {
        &self.reference.topic
    }

    fn read_request(&mut self, heard: &Heard<'_>) -> Option<Request> {
        self.reference.read_request(heard.payload)
    }

    fn read(&mut self, heard: &Heard<'_>) -> Uplink {
        self.reference.read(heard.payload)
    }

    fn manifest(&mut self, offer: &Offer<'_>, framing: &Framing) -> Said {
        let topic = &self.reference.topic;
        let full = self.reference.manifest(offer, false);
        if framing.publish_size(topic, full.len()) <= framing.limit as usize {
            return Said::new(topic, full);
        }
        Said::new(topic, self.reference.manifest(offer, true))
    }

    fn answer(&mut self, _question: &Question, _offer: Option<&Offer<'_>>) -> Answer {
        Answer::default() // nothing can be asked but blocks
    }

    fn block(&mut self, block: super::Block<'_>, data: Bytes) -> Said {
        Said::new(&self.reference.topic, self.reference.block(block.index, block.echo, data))
    }

    fn error(&mut self, trouble: &Trouble, echo: &Echo) -> Option<Said> {
        let payload = self.reference.error(&trouble.to_string(), echo);
        Some(Said::new(&self.reference.topic, payload))
    }
}

/// The group as it stood in the request.
fn group_of(echo: &Echo) -> Option<&str> {
    std::str::from_utf8(echo.as_deref()?).ok()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
