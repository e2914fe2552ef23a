//! The reference dialect: TagoIO's update over MQTT, one topic for both directions, variables
//! in JSON, blocks in base64. `docs/dialects/reference.md` is its table.

use std::{borrow::Cow, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use hook::{Encode, Qos};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Answer, BlockSize, Dialect, Echo, Framing, Heard, MAX_REQUESTS, Message, Offer, Problem,
    Question, Report, ReportedState, Request, Rest, Said, Talk, Trouble, Uplink,
    json::{self, Payload, Variable},
    order,
};

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
const QUIRKS: [&str; 4] = [TEXT_INDEX, ODD_NUMBER, BYTE_ORDER_MARK, DOUBLE_NAME];
/// An index that is a text.
const TEXT_INDEX: &str = "index_as_text";
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
        let copy;
        let read = match json::read(payload) {
            Some(read) => read,
            None => {
                copy = json::without_odd_numbers(payload)?;
                json::read(&copy)?
            }
        };
        let find = |variable: &Variable<'_>| {
            let ours = |name: &str| SERVER_ONLY.contains(&name) || name == FILE || name == REQUEST;
            variable.names.iter().find(|name| ours(name)).map(|name| name.to_string())
        };
        match &read {
            Payload::One(variable) => find(variable),
            Payload::Many(elements) => {
                elements.iter().find_map(|(_, variable)| find(variable.as_ref()?))
            }
        }
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
                    json::read(&copy)
                        .map_or(Uplink::Ordinary, |read| uplink_of_copy(read, &copy, payload))
                }
                None => Uplink::Ordinary,
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

const HEAD: &[u8] = b"{\"variable\":\"firmware_block\",\"value\":";
const GROUP: &[u8] = b",\"group\":";
const DATA: &[u8] = b",\"metadata\":{\"data\":\"";
const SIZE: &[u8] = b"\",\"size\":";
const TAIL: &[u8] = b"}}";

fn digits(number: u32) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

fn push_number(text: &mut BytesMut, mut number: u32) {
    let mut buffer = [0; 10];
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&buffer[at..]);
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn uplink(read: Payload<'_>, payload: &[u8]) -> Uplink {
    uplink_of_copy(read, payload, payload)
}

/// `read` was read from `copy`, which is as long as `payload` and may differ from it.
fn uplink_of_copy(read: Payload<'_>, copy: &[u8], payload: &[u8]) -> Uplink {
    let mut message = Message::default();
    match read {
        Payload::One(variable) => match take(&variable, &mut message) {
            Taken::Forged(name) => Uplink::Forged { name },
            Taken::Request => Uplink::Message(message),
            Taken::Status => Uplink::Message(Message { rest: Rest::All, ..message }),
            Taken::Nothing => Uplink::Ordinary,
        },
        Payload::Many(elements) => {
            let mut kept: Vec<&str> = Vec::new();
            for (text, variable) in &elements {
                match variable
                    .as_ref()
                    .map_or(Taken::Nothing, |variable| take(variable, &mut message))
                {
                    Taken::Forged(name) => return Uplink::Forged { name },
                    Taken::Request => {}
                    Taken::Status | Taken::Nothing => kept.push(text),
                }
            }
            if kept.len() == elements.len() {
                if message.report.is_none() {
                    return Uplink::Ordinary;
                }
                message.rest = Rest::All;
            } else if !kept.is_empty() {
                message.rest = Rest::Part(array_of(&kept, copy, payload));
            }
            Uplink::Message(message)
        }
    }
}

/// An array of the elements that stay, byte for byte as they stood in `payload`.
fn array_of(kept: &[&str], copy: &[u8], payload: &[u8]) -> Bytes {
    let mut array = Vec::with_capacity(payload.len());
    array.push(b'[');
    for (number, element) in kept.iter().enumerate() {
        if number > 0 {
            array.push(b',');
        }
        let start = (element.as_ptr() as usize).wrapping_sub(copy.as_ptr() as usize);
        let original = payload.get(start..).and_then(|rest| rest.get(..element.len()));
        array.extend_from_slice(original.unwrap_or(element.as_bytes()));
    }
    array.push(b']');
    array.into()
}

enum Taken {
    Nothing,
    Request,
    Status,
    Forged(String),
}

fn take(variable: &Variable<'_>, message: &mut Message) -> Taken {
    let reserved = |name: &&Cow<'_, str>| SERVER_ONLY.contains(&&***name) || **name == FILE;
    if let Some(name) = variable.names.iter().find(reserved) {
        return Taken::Forged(name.to_string());
    }
    // A name that stands twice is a request if either is: it must not reach a subscriber.
    if variable.names.iter().any(|name| name == REQUEST) {
        if message.requests.len() == MAX_REQUESTS {
            message.too_many = true;
        } else {
            message.requests.push(request(variable));
            let text = variable.value.is_some_and(|value| value.get().starts_with('"'));
            message.quirks.extend(text.then_some(TEXT_INDEX));
            message.quirks.extend((variable.names.len() > 1).then_some(DOUBLE_NAME));
        }
        return Taken::Request;
    }
    if variable.name() == Some(STATUS) {
        merge(message.report.get_or_insert_default(), variable);
        return Taken::Status;
    }
    Taken::Nothing
}

fn request(variable: &Variable<'_>) -> Request {
    let group = variable.group.map(RawValue::get);
    if group.is_some_and(|group| group.len() > MAX_ECHO) {
        let index = Err(format!("the group is longer than {MAX_ECHO} bytes"));
        return Request { index, ..Request::default() };
    }
    let (index, more) = match blocks(variable) {
        Ok((index, more)) => (Ok(index), more),
        Err(problem) => (Err(problem), Vec::new()),
    };
    let echo = group.map(|group| Arc::from(group.as_bytes()));
    Request { index, more, echo, size: BlockSize::Pinned, image: None, trims: false }
}

/// The blocks that a request names: `value`; with `metadata.count` so many from there on; with
/// `metadata.missing` those of the list. The last two are extensions.
fn blocks(variable: &Variable<'_>) -> Result<(u32, Vec<Range<u32>>), Problem> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Metadata<'a> {
        #[serde(borrow)]
        count: Option<&'a RawValue>,
        #[serde(borrow)]
        missing: Option<Vec<&'a RawValue>>,
    }
    let metadata = variable.metadata.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let Metadata { count, missing } = metadata.unwrap_or_default();
    if let Some(missing) = missing {
        if missing.len() > MAX_MISSING {
            return Err(format!("metadata.missing names more than {MAX_MISSING} blocks"));
        }
        let mut listed = missing
            .iter()
            .map(|raw| json::index(Some(raw.get())))
            .collect::<Result<Vec<_>, _>>()?;
        listed.sort_unstable();
        listed.dedup();
        let Some((first, rest)) = listed.split_first() else {
            return Err("metadata.missing is empty: a whole image needs no request".into());
        };
        let mut more: Vec<Range<u32>> = Vec::new();
        for index in rest {
            match more.last_mut().filter(|last| last.end == *index) {
                Some(last) => last.end += 1,
                None => more.push(*index..*index + 1),
            }
        }
        return Ok((*first, more));
    }
    let index = json::index(variable.value.map(RawValue::get))?;
    let Some(count) = count else { return Ok((index, Vec::new())) };
    match json::index(Some(count.get())) {
        Ok(0) => Err("metadata.count is 0: ask for at least one block".into()),
        Ok(count) => {
            let rest = index + 1..index.saturating_add(count);
            Ok((index, Vec::from_iter(Some(rest).filter(|rest| rest.start < rest.end))))
        }
        Err(_) => Err("metadata.count is not a number of blocks".into()),
    }
}

/// `firmware_status`: an extension, read leniently.
fn merge(report: &mut Report, variable: &Variable<'_>) {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Metadata<'a> {
        #[serde(borrow)]
        model: Option<&'a RawValue>,
        #[serde(borrow)]
        version: Option<&'a RawValue>,
        #[serde(borrow)]
        state: Option<&'a RawValue>,
        #[serde(borrow)]
        reason: Option<&'a RawValue>,
    }
    let text = |raw: Option<&RawValue>| json::text(raw?.get()).map(Cow::into_owned);
    let metadata = variable.metadata.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let Metadata { model, version, state, reason } = metadata.unwrap_or_default();
    report.model = text(model).or(report.model.take());
    report.version = text(version).or(report.version.take());
    match text(state).or_else(|| text(variable.value)).as_deref() {
        Some("verified") => report.state = Some(ReportedState::Verified),
        Some("updating") => report.state = Some(ReportedState::Updating),
        Some("failed") => {
            let reason = text(reason).unwrap_or_else(|| "the device says so".into());
            report.state = Some(ReportedState::Failed(reason));
        }
        _ => {}
    }
}

/// `{"variable":"firmware_request","value":N,"unit":"index"}` in any order and spacing, with a
/// `group` that is a plain text; anything else is `None` and is read in full.
fn plain_request(payload: &[u8]) -> Option<Request> {
    if payload.len() > 256 || !payload.is_ascii() {
        return None;
    }
    let mut rest = skip(payload, b'{')?;
    let (mut named, mut index, mut echo, mut unit) = (false, None, None, false);
    loop {
        let (key, after) = plain_text(rest)?;
        rest = skip(after, b':')?;
        match key {
            b"value" if index.is_none() => {
                (index, rest) = plain_number(rest).map(|(n, r)| (Some(n), r))?
            }
            b"variable" if !named => {
                let (name, after) = plain_text(rest)?;
                named = name == REQUEST.as_bytes();
                rest = after;
                if !named {
                    return None;
                }
            }
            b"unit" if !unit => (unit, rest) = (true, plain_text(rest)?.1),
            b"group" if echo.is_none() => {
                let (group, after) = plain_text(rest)?;
                let group = format!("\"{}\"", std::str::from_utf8(group).ok()?);
                echo = Some(Arc::from(group.as_bytes()));
                rest = after;
            }
            _ => return None,
        }
        match skip(rest, b',') {
            Some(after) => rest = after,
            None => break,
        }
    }
    let end = skip(rest, b'}')?.is_empty();
    Some(Request { index: Ok(index?), echo, ..Request::default() }).filter(|_| named && end)
}

fn space(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !b" \t\r\n".contains(byte)).unwrap_or(text.len());
    &text[end..]
}

/// After this byte and the space around it.
fn skip(text: &[u8], byte: u8) -> Option<&[u8]> {
    let (first, rest) = space(text).split_first()?;
    (*first == byte).then(|| space(rest))
}

/// A JSON string without escapes, without its quotes, and what follows.
fn plain_text(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let end = text.iter().position(|byte| *byte == b'"' || *byte == b'\\' || *byte < b' ')?;
    (text[end] == b'"').then(|| (&text[..end], &text[end + 1..]))
}

/// A JSON integer of at most nine digits, and what follows.
fn plain_number(text: &[u8]) -> Option<(u32, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
    if end == 0 || end > 9 || (end > 1 && text[0] == b'0') || b".eE".contains(&text[end]) {
        return None;
    }
    let number = text[..end].iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    Some((number, &text[end..]))
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;

/// A block, encoded when the connection's writer has come to it.
struct Block {
    index: u32,
    echo: Echo,
    data: Bytes,
}

impl Encode for Block {
    fn encoded_len(&self) -> usize {
        HEAD.len()
            + digits(self.index)
            + self.echo.as_ref().map_or(0, |group| group.len() + GROUP.len())
            + DATA.len()
            + base64_simd::STANDARD.encoded_length(self.data.len())
            + SIZE.len()
            + digits(self.data.len() as u32)
            + TAIL.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        let before = out.len();
        out.reserve(self.encoded_len());
        out.extend_from_slice(HEAD);
        push_number(out, self.index);
        if let Some(group) = &self.echo {
            out.extend_from_slice(GROUP);
            out.extend_from_slice(group);
        }
        out.extend_from_slice(DATA);
        let start = out.len();
        out.resize(start + base64_simd::STANDARD.encoded_length(self.data.len()), 0);
        // The slice has exactly the length that was asked for.
        let _ = base64_simd::STANDARD
            .encode(&self.data, base64_simd::Out::from_slice(&mut out[start..]));
        out.extend_from_slice(SIZE);
        push_number(out, self.data.len() as u32);
        out.extend_from_slice(TAIL);
        debug_assert_eq!(out.len() - before, self.encoded_len());
    }
}
