//! The native dialect: binary, small, and as quick as the link. `docs/dialects/native.md` is its
//! description, from which a device can be written.

use std::{num::NonZeroU32, ops::Range, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use hook::{Encode, Payload, Properties, Qos};

use super::{
    Answer, Block, BlockSize, Dialect, Echo, Framing, Heard, Message, Offer, Problem, Question,
    Report, ReportedState, Request, Said, Talk, Trouble, Uplink,
};

/// Where devices speak.
const UP: &str = "fuota/v1/up";
/// Where they hear.
const DOWN: &str = "fuota/v1/down";

/// First bytes of a device's messages.
const HELLO: u8 = 0x01;
const GET: u8 = 0x02;
const STATUS: u8 = 0x03;
/// First bytes of the server's.
const MANIFEST: u8 = 0x81;
const BLOCK: u8 = 0x82;
const NOTHING: u8 = 0x83;
const ERROR: u8 = 0x84;

/// Fields: their tags.
const IMAGE: u8 = 1;
const SIZE: u8 = 2;
const SHA256: u8 = 3;
const VERSION: u8 = 4;
const TITLE: u8 = 5;
const SIGNATURE: u8 = 6;
const WINDOW: u8 = 7;
const MODEL: u8 = 10;
const REASON: u8 = 11;

/// Forms of a GET.
const RANGES: u8 = 0;
const BITMAP: u8 = 1;

/// Codes of an ERROR.
const MALFORMED: u8 = 1;
const OTHER_IMAGE: u8 = 2;
const PAST_END: u8 = 3;
const LATER: u8 = 4;
const TOO_MUCH: u8 = 5;
const TOO_LARGE: u8 = 6;

/// Bytes before the firmware in a BLOCK: its first byte, checksum, image, offset.
const BLOCK_HEAD: usize = 13;
/// Ranges of one GET.
const MAX_RANGES: usize = 64;
/// Bytes of the bitmap of one GET. With one bit in two set it names as many ranges as may wait.
const MAX_BITMAP: usize = 512;
/// The longest response topic, and the longest correlation data, that are used.
const MAX_REPEATED: usize = 64;
/// The longest text in an ERROR or a NOTHING, so that it fits a small buffer.
const MAX_TEXT: usize = 200;

/// What is tolerated; `docs/dialects/native.md` has the list.
const QUIRKS: [&str; 2] = [UNKNOWN_FIELD, ODD_RESPONSE_TOPIC];
const UNKNOWN_FIELD: &str = "unknown_field";
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
        (heard.topic == UP && !odd).then(|| get(rest, echo))
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
            [GET, rest @ ..] => message.requests.push(get(rest, echo)),
            [HELLO, rest @ ..] => match fields(rest) {
                Some(fields) => {
                    message.quirks.extend(fields.unknown.then_some(UNKNOWN_FIELD));
                    message.report = fields.report(None);
                    message.questions.push(echo.unwrap_or_default());
                }
                None => wrong(&mut message, echo, "a field of the HELLO ends too early"),
            },
            [STATUS, state, rest @ ..] => match fields(rest) {
                Some(fields) => {
                    message.quirks.extend(fields.unknown.then_some(UNKNOWN_FIELD));
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

/// A GET behind its first byte: image, block size, form, and what the form holds.
fn get(rest: &[u8], echo: Echo) -> Request {
    match asked(rest) {
        Ok((image, size, index, more)) => Request {
            index: Ok(index),
            more,
            size: BlockSize::Bytes(size),
            image: Some(image),
            trims: true,
            echo,
        },
        Err(problem) => Request { index: Err(problem), echo, ..Request::default() },
    }
}

type Asked = (u64, NonZeroU32, u32, Vec<Range<u32>>);

fn asked(rest: &[u8]) -> Result<Asked, Problem> {
    let short = || Problem::from("the GET ends too early");
    let (image, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let (size, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let size = NonZeroU32::new(u16::from_be_bytes(*size).into());
    let size = size.ok_or("the GET asks for blocks of 0 bytes")?;
    let mut ranges = match rest {
        [RANGES, rest @ ..] => ranges(rest)?,
        [BITMAP, rest @ ..] => bitmap(rest)?,
        [] => return Err(short()),
        _ => return Err("a GET has ranges (0) or a bitmap (1)".into()),
    };
    let first = ranges.first_mut().ok_or("the GET names no block")?;
    let index = first.start;
    first.start += 1;
    ranges.retain(|range| range.start < range.end);
    Ok((u64::from_be_bytes(*image), size, index, ranges))
}

/// Pairs of a first block and how many.
fn ranges(rest: &[u8]) -> Result<Vec<Range<u32>>, Problem> {
    let (pairs, []) = rest.as_chunks::<8>() else {
        return Err("a range has 8 bytes: first block and number of blocks".into());
    };
    if pairs.len() > MAX_RANGES {
        return Err(format!("the GET names more than {MAX_RANGES} ranges"));
    }
    let mut ranges = Vec::with_capacity(pairs.len());
    for [a, b, c, d, e, f, g, h] in pairs {
        let first = u32::from_be_bytes([*a, *b, *c, *d]);
        let count = u32::from_be_bytes([*e, *f, *g, *h]);
        // An image has fewer blocks than that.
        let end = first.saturating_add(count).min(u32::MAX - 1);
        if first < end {
            ranges.push(first..end);
        }
    }
    Ok(ranges)
}

/// The first block that the bitmap is about, and the bitmap: bit 0 of a byte is the first of its
/// eight blocks, 1 means missing.
fn bitmap(rest: &[u8]) -> Result<Vec<Range<u32>>, Problem> {
    let (base, bits) =
        rest.split_first_chunk().ok_or("the GET ends before its bitmap's first block")?;
    if bits.len() > MAX_BITMAP {
        return Err(format!("the bitmap has more than {MAX_BITMAP} bytes"));
    }
    Ok(super::runs(u32::from_be_bytes(*base), bits, usize::MAX))
}

/// The fields of a message: a tag, a length, a value each.
#[derive(Default)]
struct Fields {
    version: Option<String>,
    model: Option<String>,
    reason: Option<String>,
    /// There was one that is not known here.
    unknown: bool,
}

fn fields(mut rest: &[u8]) -> Option<Fields> {
    let mut fields = Fields::default();
    while let [tag, length, after @ ..] = rest {
        let (value, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        let text = || Some(String::from_utf8_lossy(value).into_owned());
        match *tag {
            VERSION => fields.version = text(),
            MODEL => fields.model = text(),
            REASON => fields.reason = text(),
            IMAGE => {}
            _ => fields.unknown = true,
        }
    }
    rest.is_empty().then_some(fields)
}

impl Fields {
    fn report(self, state: Option<ReportedState>) -> Option<Report> {
        let Fields { version, model, .. } = self;
        let says = version.is_some() || model.is_some() || state.is_some();
        says.then_some(Report { model, version, state })
    }
}

fn manifest(offer: &Offer<'_>) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    out.put_u8(MANIFEST);
    let mut field = |tag: u8, value: &[u8]| {
        let value = &value[..value.len().min(255)];
        out.put_slice(&[tag, value.len() as u8]);
        out.put_slice(value);
    };
    field(IMAGE, &offer.tag.to_be_bytes());
    field(SIZE, &u32::try_from(offer.size).unwrap_or(u32::MAX).to_be_bytes());
    field(SHA256, &hex::decode(offer.sha256).unwrap_or_default());
    field(VERSION, cut(offer.version, 255).as_bytes());
    if let Some(title) = offer.title {
        field(TITLE, cut(title, 255).as_bytes());
    }
    if let Some(signature) = offer.signature.and_then(|line| hex::decode(line).ok()) {
        field(SIGNATURE, &signature);
    }
    field(WINDOW, &u16::try_from(offer.window).unwrap_or(u16::MAX).to_be_bytes());
    out.freeze()
}

fn text(head: &[u8], text: &str) -> Bytes {
    [head, cut(text, MAX_TEXT).as_bytes()].concat().into()
}

/// At most so many bytes, at a character's end.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A block, encoded when the connection's writer has come to it.
struct Encoded {
    image: u64,
    offset: u32,
    data: Bytes,
}

impl Encode for Encoded {
    fn encoded_len(&self) -> usize {
        BLOCK_HEAD + self.data.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        // The first four bytes of the image's name tell a late block of another image.
        let place = (self.image & !u64::from(u32::MAX) | u64::from(self.offset)).to_be_bytes();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&place), &self.data);
        out.reserve(self.encoded_len());
        out.put_u8(BLOCK);
        out.put_u32(checksum);
        out.put_slice(&place);
        out.put_slice(&self.data);
    }
}

#[cfg(test)]
#[path = "native_tests.rs"]
mod tests;
