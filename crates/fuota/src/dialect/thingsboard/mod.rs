//! ThingsBoard's firmware update over MQTT: offers are shared attributes, blocks are raw bytes on
//! a topic of their own, progress is telemetry. `docs/dialects/thingsboard.md` is its table.
//!
//! | module | subject |
//! | --- | --- |
//! | `mod` | topics, and a connection's conversation |
//! | `attributes` | what a device should run |
//! | `chunks` | requests for chunks |
//! | `telemetry` | what a device says of itself |

mod attributes;
mod chunks;
mod telemetry;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use hook::Qos;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Answer, Block, BlockSize, Dialect, Echo, Framing, Heard, ImageTag, Message, Offer, Question,
    Request, Rest, Said, Talk, Trouble, Uplink, json,
};
use attributes::{ASSIGNING, KEYS, attributes};
use chunks::{QUOTED_SIZE, SPACED_SIZE, ZERO_SIZE, chunk_size, numbers, numbers_of};
use telemetry::report;

/// Everything that a device says and hears about itself.
const ME: &str = "v1/devices/me/";
const TELEMETRY: &str = "telemetry";
const ATTRIBUTES: &str = "attributes";
const ATTRIBUTES_REQUEST: &str = "attributes/request/";
const ATTRIBUTES_RESPONSE: &str = "attributes/response/";
const RPC_REQUEST: &str = "rpc/request/";
const FIRMWARE: &str = "v2/fw/";
const SOFTWARE: &str = "v2/sw/";
const ERROR: &str = "v2/fw/error";
/// What devices are told of it, and of the rates, of which there are none.
const SESSION_LIMITS: &str = r#"{"maxPayloadSize":65536,"maxInflightMessages":100,"rateLimits":{"messages":"","telemetryMessages":"","telemetryDataPoints":""}}"#;
/// Numbers of requests that a connection remembers block size and image of.
const MAX_DOWNLOADS: usize = 16;
/// Requests past the end, one after the other, that are answered with an empty message.
const PAST_ENDS: u32 = 8;
/// The longest name of a request that is answered, in bytes.
const MAX_REQUEST_ID: usize = 64;

/// Words of `v2/fw/error`.
const NOT_FOUND: &str = "NOT_FOUND";
const FAILURE: &str = "FAILURE";
const PAYLOAD_TOO_LARGE: &str = "PAYLOAD_TOO_LARGE";

/// What is tolerated; `docs/dialects/thingsboard.md` has the list.
const QUIRKS: [&str; 7] =
    [QUOTED_SIZE, SPACED_SIZE, ZERO_SIZE, TRAILING_COMMA, SPACED_KEYS, BAD_JSON, SOFTWARE_ASKED];
const TRAILING_COMMA: &str = "keys_with_trailing_comma";
const SPACED_KEYS: &str = "keys_with_spaces";
const BAD_JSON: &str = "attribute_request_not_json";
const SOFTWARE_ASKED: &str = "software_asked_for";

/// See [the module](self).
pub struct ThingsBoard {
    attributes: Arc<str>,
    error: Arc<str>,
}

impl Default for ThingsBoard {
    fn default() -> Self {
        ThingsBoard { attributes: format!("{ME}{ATTRIBUTES}").into(), error: ERROR.into() }
    }
}

impl Dialect for ThingsBoard {
    fn name(&self) -> &'static str {
        "thingsboard"
    }

    fn quirks(&self) -> &'static [&'static str] {
        &QUIRKS
    }

    fn claims(&self, topic: &str) -> bool {
        [ME, FIRMWARE, SOFTWARE].iter().any(|start| topic.starts_with(start))
    }

    fn is_downlink(&self, filter: &str) -> bool {
        self.claims(filter)
    }

    fn asks(&self) -> bool {
        true
    }

    fn forgery(&self, payload: &[u8]) -> Option<String> {
        let Ok(read) = serde_json::from_slice::<Map<String, Value>>(payload) else {
            return json::hidden(payload, &ASSIGNING).map(str::to_owned);
        };
        let deleted = read.get("deleted").and_then(Value::as_array).into_iter().flatten();
        let mut names = read.keys().map(String::as_str).chain(deleted.filter_map(Value::as_str));
        // Some devices look for them in any case.
        let begins = |name: &str| name.get(..3).map(str::to_ascii_lowercase);
        let ours = |name: &&str| matches!(begins(name).as_deref(), Some("fw_" | "sw_"));
        names.find(ours).map(str::to_owned)
    }

    fn chunk_size(&self, wanted: u32, image: u64, _framing: &Framing) -> Option<u32> {
        // What fits is the device's own matter: its requests say how much they want.
        (image.div_ceil(u64::from(wanted.max(1))) < u64::from(u32::MAX)).then_some(wanted)
    }

    fn begin(&self, _device: Option<&Arc<str>>) -> Box<dyn Talk> {
        Box::new(Conversation {
            attributes: Arc::clone(&self.attributes),
            error: Arc::clone(&self.error),
            listens: Vec::new(),
            answers: None,
            announced: None,
            downloads: VecDeque::new(),
        })
    }
}

/// One connection.
struct Conversation {
    attributes: Arc<str>,
    error: Arc<str>,
    /// Filters on which it hears of attributes.
    listens: Vec<(Box<str>, Qos)>,
    /// The quality of service of blocks.
    answers: Option<Qos>,
    /// The image that its attributes name.
    announced: Option<ImageTag>,
    /// By the number of a request, which the device chooses anew for each image.
    downloads: VecDeque<Download>,
}

struct Download {
    id: u64,
    size: BlockSize,
    image: Option<ImageTag>,
    /// Requests past the end since the last one that was not.
    past_ends: u32,
}

impl Conversation {
    /// What is remembered of this number; new ones push out the oldest.
    fn download(&mut self, id: u64) -> &mut Download {
        let known = self.downloads.iter().position(|download| download.id == id);
        let at = known.unwrap_or_else(|| {
            if self.downloads.len() == MAX_DOWNLOADS {
                self.downloads.pop_front();
            }
            let image = self.announced;
            self.downloads.push_back(Download { id, size: BlockSize::Whole, image, past_ends: 0 });
            self.downloads.len() - 1
        });
        &mut self.downloads[at]
    }

    fn request(&mut self, id: u64, chunk: u64, payload: &[u8]) -> (Request, Vec<&'static str>) {
        let mut quirks = Vec::new();
        let size = chunk_size(payload, &mut quirks);
        let download = self.download(id);
        if let Ok(Some(size)) = size {
            download.size = size;
        }
        // What no image has as many blocks as lies past the end of each.
        let index = u32::try_from(chunk).unwrap_or(u32::MAX).min(u32::MAX - 1);
        let request = Request {
            index: size.map(|_| index).map_err(str::to_owned),
            size: download.size,
            image: download.image,
            echo: Some([id.to_be_bytes(), chunk.to_be_bytes()].concat().into()),
            ..Request::default()
        };
        (request, quirks)
    }

    /// A request for attributes. Which, and for whom the answer is, is the question.
    fn attributes_asked(&self, id: &str, payload: &[u8]) -> Message {
        let mut message = Message::default();
        if !is_request_id(id) {
            return message;
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Keys {
            shared_keys: Option<String>,
            client_keys: Option<String>,
        }
        let keys = match serde_json::from_slice::<Keys>(payload) {
            Ok(keys) => keys,
            Err(_) => {
                message.quirks.push(BAD_JSON);
                Keys { shared_keys: Some(String::new()), client_keys: None }
            }
        };
        let wanted = match (&keys.shared_keys, &keys.client_keys) {
            (Some(shared), _) => shared.clone(),
            (None, Some(_)) => String::new(),
            // Who names none wants all.
            (None, None) => KEYS.join(","),
        };
        if wanted.trim_end().ends_with(',') {
            message.quirks.push(TRAILING_COMMA);
        }
        if wanted.contains(char::is_whitespace) {
            message.quirks.push(SPACED_KEYS);
        }
        let wanted: Vec<&str> = KEYS
            .into_iter()
            .filter(|key| wanted.split(',').any(|name| name.trim() == *key))
            .collect();
        if wanted.is_empty() {
            message.says.push(self.attributes_response(id, "{}".to_owned()));
        } else {
            let question = format!("{id}\n{}", wanted.join(","));
            message.questions.push(Question::from(question.as_bytes()));
        }
        message
    }

    fn attributes_response(&self, id: &str, payload: String) -> Said {
        let topic = format!("{ME}{ATTRIBUTES_RESPONSE}{id}").into();
        let qos = self.listens.iter().find(|(filter, _)| filter.contains("response"));
        let qos = qos.or(self.listens.first()).map_or(Qos::AtLeastOnce, |(_, qos)| *qos);
        Said { qos: Some(qos), ..Said::new(&topic, payload) }
    }

    fn complaint(&self, word: &str) -> Said {
        let qos = Some(self.answers.unwrap_or(Qos::AtLeastOnce));
        Said { qos, ..Said::new(&self.error, word.to_owned()) }
    }
}

impl Talk for Conversation {
    fn subscribed(&mut self, filter: &str, qos: Qos) {
        if filter.starts_with(ME) {
            self.listens.retain(|(known, _)| **known != *filter);
            if self.listens.len() < MAX_DOWNLOADS {
                self.listens.push((filter.into(), qos));
            }
        } else {
            self.answers = Some(qos);
        }
    }

    fn unsubscribed(&mut self, filter: &str) {
        self.listens.retain(|(known, _)| **known != *filter);
    }

    fn listens(&self) -> Option<Qos> {
        let hears = |filter: &str| {
            let levels = filter.strip_prefix(ME).unwrap_or_default();
            matches!(levels, ATTRIBUTES | "attributes/#" | "+" | "#")
        };
        self.listens.iter().find(|(filter, _)| hears(filter)).map(|(_, qos)| *qos)
    }

    fn downlink(&self) -> &Arc<str> {
        &self.attributes
    }

    fn read_request(&mut self, heard: &Heard<'_>) -> Option<Request> {
        let (id, chunk) = numbers(heard.topic.strip_prefix(FIRMWARE)?)?;
        let (request, quirks) = self.request(id, chunk, heard.payload);
        quirks.is_empty().then_some(request)
    }

    fn read(&mut self, heard: &Heard<'_>) -> Uplink {
        let only_ours = || Uplink::Forged { name: heard.topic.chars().take(64).collect() };
        if let Some(rest) = heard.topic.strip_prefix(FIRMWARE) {
            let Some((id, chunk)) = numbers(rest) else { return only_ours() };
            let (request, quirks) = self.request(id, chunk, heard.payload);
            return Uplink::Message(Message {
                requests: vec![request],
                quirks,
                ..Message::default()
            });
        }
        if let Some(rest) = heard.topic.strip_prefix(SOFTWARE) {
            if numbers(rest).is_none() {
                return only_ours();
            }
            // Nothing is ever assigned there; ThingsBoard says so on the other topic.
            let says = vec![self.complaint(NOT_FOUND)];
            return Uplink::Message(Message {
                says,
                quirks: vec![SOFTWARE_ASKED],
                ..Message::default()
            });
        }
        let Some(rest) = heard.topic.strip_prefix(ME) else { return Uplink::Ordinary };
        let below = || Rest::Below(rest.to_owned());
        Uplink::Message(if rest == TELEMETRY {
            Message { report: report(heard.payload), rest: below(), ..Message::default() }
        } else if let Some(id) = rest.strip_prefix(ATTRIBUTES_REQUEST) {
            self.attributes_asked(id, heard.payload)
        } else if rest.starts_with(ATTRIBUTES_RESPONSE) {
            return only_ours();
        } else if let Some(id) = rest.strip_prefix(RPC_REQUEST).filter(|id| is_request_id(id))
            && is_session_limits(heard.payload)
        {
            let topic = format!("{ME}rpc/response/{id}").into();
            let said = Said {
                qos: Some(Qos::AtLeastOnce),
                ..Said::new(&topic, SESSION_LIMITS.to_owned())
            };
            Message { says: vec![said], ..Message::default() }
        } else {
            Message { rest: below(), ..Message::default() }
        })
    }

    fn manifest(&mut self, offer: &Offer<'_>, _framing: &Framing) -> Said {
        self.announced = Some(offer.tag);
        Said::new(&self.attributes, Value::Object(attributes(offer, &KEYS)).to_string())
    }

    fn withdrawn(&mut self) -> Vec<Said> {
        self.announced = None;
        let gone = serde_json::json!({ "deleted": KEYS }).to_string();
        self.listens().map(|_| Said::new(&self.attributes, gone)).into_iter().collect()
    }

    fn answer(&mut self, question: &Question, offer: Option<&Offer<'_>>) -> Answer {
        let text = String::from_utf8_lossy(question);
        let (id, keys) = text.split_once('\n').unwrap_or((&text, ""));
        let keys: Vec<&str> = keys.split(',').collect();
        let payload = match offer {
            Some(offer) => {
                self.announced = Some(offer.tag);
                serde_json::json!({ "shared": attributes(offer, &keys) }).to_string()
            }
            None => "{}".to_owned(),
        };
        Answer {
            says: vec![self.attributes_response(id, payload)],
            announces: offer.is_some(),
            ..Answer::default()
        }
    }

    fn block(&mut self, block: Block<'_>, data: Bytes) -> Said {
        let (id, chunk) = numbers_of(block.echo);
        let download = self.download(id);
        download.past_ends = 0;
        download.image = Some(block.tag);
        self.response(id, chunk, data)
    }

    fn error(&mut self, trouble: &Trouble, echo: &Echo) -> Option<Said> {
        let word = match trouble {
            Trouble::PastEnd { .. } => {
                let (id, chunk) = numbers_of(echo);
                let download = self.download(id);
                download.past_ends = download.past_ends.saturating_add(1);
                match download.past_ends {
                    0..=PAST_ENDS => return Some(self.response(id, chunk, Bytes::new())),
                    many if many == PAST_ENDS + 1 => NOT_FOUND,
                    _ => return None,
                }
            }
            Trouble::Asked(word) => word,
            Trouble::Nothing(_) => NOT_FOUND,
            Trouble::TooLarge(_) => PAYLOAD_TOO_LARGE,
            Trouble::Unavailable(_) | Trouble::TooMuch(_) => FAILURE,
        };
        Some(self.complaint(word))
    }
}

impl Conversation {
    fn response(&self, id: u64, chunk: u64, data: Bytes) -> Said {
        let topic: Arc<str> = format!("v2/fw/response/{id}/chunk/{chunk}").into();
        // Without a subscription ThingsBoard sends at QoS 1.
        Said { qos: Some(self.answers.unwrap_or(Qos::AtLeastOnce)), ..Said::new(&topic, data) }
    }
}

/// What a device puts behind `…/request/`, as far as it is repeated in a topic.
fn is_request_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_REQUEST_ID && !id.contains('/')
}

fn is_session_limits(payload: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Call {
        method: String,
    }
    serde_json::from_slice::<Call>(payload).is_ok_and(|call| call.method == "getSessionLimits")
}

#[cfg(test)]
mod tests;
