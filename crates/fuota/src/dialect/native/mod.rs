//! The native dialect: binary, small, and as quick as the link. `docs/dialects/native.md` is its
//! description, from which a device can be written. `messages` has the bytes.

mod messages;

use std::sync::Arc;

use bytes::Bytes;
use hook::{Payload, Properties, Qos};

use super::{
    Answer, Block, BlockSize, Dialect, Echo, Framing, Heard, Message, Offer, Question,
    ReportedState, Request, Said, Talk, Trouble, Uplink,
};
use messages::{
    ERROR, Encoded, GET, HELLO, LATER, MALFORMED, MANIFEST, NOTHING, OTHER_IMAGE, PAST_END, STATUS,
    TOO_LARGE, TOO_MUCH, fields, get, manifest, text,
};

/// Where devices speak.
const UP: &str = "fuota/v1/up";
/// Where they hear.
const DOWN: &str = "fuota/v1/down";
/// The longest response topic, and the longest correlation data, that are used.
const MAX_REPEATED: usize = 64;

/// What is tolerated; `docs/dialects/native.md` has the list.
const QUIRKS: [&str; 4] = [UNKNOWN_FIELD, BAD_TEXT, EMPTY_RANGE, ODD_RESPONSE_TOPIC];
const UNKNOWN_FIELD: &str = "unknown_field";
const BAD_TEXT: &str = "text_not_utf8";
const EMPTY_RANGE: &str = "empty_range";
const ODD_RESPONSE_TOPIC: &str = "response_topic_not_usable";

/// See [the module](self).
pub struct Native {
    down: Arc<str>,
}

impl Default for Native {
    fn default() -> Self {
        Native { down: DOWN.into() }
    }
}

impl Dialect for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn quirks(&self) -> &'static [&'static str] {
        &QUIRKS
    }

    fn claims(&self, topic: &str) -> bool {
        topic == UP || topic == DOWN
    }

    fn is_downlink(&self, filter: &str) -> bool {
        filter == DOWN
    }

    fn forgery(&self, payload: &[u8]) -> Option<String> {
        let first = *payload.first()?;
        (MANIFEST..=ERROR).contains(&first).then(|| format!("a message {first:#04x}"))
    }

    fn chunk_size(&self, wanted: u32, image: u64, _framing: &Framing) -> Option<u32> {
        // A GET says how large its blocks are; offsets have 32 bits.
        let counts = image.div_ceil(u64::from(wanted.max(1))) < u64::from(u32::MAX);
        (counts && image <= u64::from(u32::MAX)).then_some(wanted)
    }

    fn begin(&self, _device: Option<&Arc<str>>) -> Box<dyn Talk> {
        Box::new(Conversation { down: Arc::clone(&self.down), downlink: None, answer: None })
    }
}

/// One connection.
struct Conversation {
    down: Arc<str>,
    downlink: Option<Qos>,
    /// The response topic that was used last, so that blocks share it.
    answer: Option<Arc<str>>,
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
        &self.down
    }

    fn read_request(&mut self, heard: &Heard<'_>) -> Option<Request> {
        let [GET, rest @ ..] = heard.payload else { return None };
        let (echo, odd) = echo_of(heard.properties);
        let (request, empty_range) = get(rest, echo);
        (heard.topic == UP && !odd && !empty_range).then_some(request)
    }

    fn read(&mut self, heard: &Heard<'_>) -> Uplink {
        if heard.topic != UP {
            return Uplink::Forged { name: heard.topic.to_owned() };
        }
        let (echo, odd) = echo_of(heard.properties);
        let mut message = Message::default();
        message.quirks.extend(odd.then_some(ODD_RESPONSE_TOPIC));
        let wrong = |message: &mut Message, echo, problem: &str| {
            let index = Err(problem.to_owned());
            message.requests.push(Request { index, echo, ..Request::default() });
        };
        match heard.payload {
            [GET, rest @ ..] => {
                let (request, empty_range) = get(rest, echo);
                message.requests.push(request);
                message.quirks.extend(empty_range.then_some(EMPTY_RANGE));
            }
            [HELLO, rest @ ..] => match fields(rest) {
                Some(fields) => {
                    message.quirks.extend(fields.quirks());
                    message.report = fields.report(None);
                    message.questions.push(echo.unwrap_or_default());
                }
                None => wrong(&mut message, echo, "a field of the HELLO ends too early"),
            },
            [STATUS, state, rest @ ..] => match fields(rest) {
                Some(fields) => {
                    message.quirks.extend(fields.quirks());
                    let state = match state {
                        1 => Some(ReportedState::Downloaded),
                        2 => Some(ReportedState::Verified),
                        3 => Some(ReportedState::Updating),
                        // Which version runs says whether it is the new one.
                        4 => None,
                        5 => Some(ReportedState::Failed(
                            fields.reason.clone().unwrap_or_else(|| "the device says so".into()),
                        )),
                        _ => {
                            wrong(&mut message, echo, "a STATUS says 1 to 5");
                            return Uplink::Message(message);
                        }
                    };
                    message.report = fields.report(state);
                }
                None => wrong(&mut message, echo, "a field of the STATUS ends too early"),
            },
            _ => {
                wrong(&mut message, echo, "a message begins with 1 (HELLO), 2 (GET) or 3 (STATUS)")
            }
        }
        Uplink::Message(message)
    }

    fn manifest(&mut self, offer: &Offer<'_>, _framing: &Framing) -> Said {
        Said::new(&self.down, manifest(offer))
    }

    fn answer(&mut self, question: &Question, offer: Option<&Offer<'_>>) -> Answer {
        // Who has every byte and never says what runs would install the same again (rule 13).
        let offer = offer.filter(|offer| !offer.state.awaits_outcome());
        let payload = match offer {
            Some(offer) => manifest(offer),
            None => text(&[NOTHING], "no firmware is for this device now"),
        };
        // An empty question is one without a response topic.
        let echo = Some(Arc::clone(question)).filter(|echo| !echo.is_empty());
        Answer {
            says: vec![self.reply(&echo, payload.into())],
            announces: offer.is_some(),
            ..Answer::default()
        }
    }

    fn block(&mut self, block: Block<'_>, data: Bytes) -> Said {
        let size = match block.size {
            BlockSize::Bytes(size) => size.get(),
            // Not asked for here.
            BlockSize::Pinned | BlockSize::Whole | BlockSize::Run { .. } => 0,
        };
        let offset = block.index.wrapping_mul(size);
        let payload = Payload::Deferred(Arc::new(Encoded { image: block.tag, offset, data }));
        self.reply(block.echo, payload)
    }

    fn error(&mut self, trouble: &Trouble, echo: &Echo) -> Option<Said> {
        let code = match trouble {
            Trouble::Asked(_) => MALFORMED,
            Trouble::Nothing(_) => OTHER_IMAGE,
            Trouble::PastEnd { .. } => PAST_END,
            Trouble::Unavailable(_) => LATER,
            Trouble::TooMuch(_) => TOO_MUCH,
            Trouble::TooLarge(_) => TOO_LARGE,
        };
        Some(self.reply(echo, text(&[ERROR, code], &trouble.to_string()).into()))
    }
}

impl Conversation {
    /// To the response topic with the correlation data, where there are any.
    fn reply(&mut self, echo: &Echo, payload: Payload) -> Said {
        let qos = Some(self.downlink.unwrap_or_default());
        let Some((topic, correlation)) = echo.as_deref().and_then(repeated) else {
            return Said { qos, ..Said::new(&self.down, payload) };
        };
        let topic = match &self.answer {
            _ if topic.is_empty() => Arc::clone(&self.down),
            Some(known) if **known == *topic => Arc::clone(known),
            _ => Arc::clone(self.answer.insert(topic.into())),
        };
        let properties = (!correlation.is_empty()).then(|| {
            let correlation_data = Some(Bytes::copy_from_slice(correlation));
            Box::new(Properties { correlation_data, ..Properties::default() })
        });
        Said { topic, payload, qos, properties }
    }
}

/// Response topic and correlation data as one: the topic's length, the topic, the data. The flag
/// says that a topic was left out because it cannot be used.
fn echo_of(properties: Option<&Properties>) -> (Echo, bool) {
    let Some(properties) = properties else { return (None, false) };
    let topic = properties.response_topic.as_deref().unwrap_or_default();
    let correlation = properties.correlation_data.as_deref().unwrap_or_default();
    let usable = topic.len() <= MAX_REPEATED
        && correlation.len() <= MAX_REPEATED
        && !topic.contains(['+', '#', '\0'])
        && !topic.starts_with('$');
    if !usable {
        return (None, true);
    }
    if topic.is_empty() && correlation.is_empty() {
        return (None, false);
    }
    let echo = [&[topic.len() as u8], topic.as_bytes(), correlation].concat();
    (Some(echo.into()), false)
}

fn repeated(echo: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = echo.split_first()?;
    let (topic, correlation) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(topic).ok()?, correlation))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod understood;
