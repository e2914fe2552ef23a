//! What a publish holds: requests, reports, forgeries, and what goes on to others.

use std::{borrow::Cow, ops::Range, sync::Arc};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    DECIMAL_INDEX, DOUBLE_NAME, FILE, MAX_ECHO, MAX_MISSING, REQUEST, SERVER_ONLY, STATUS,
    TEXT_INDEX,
};
use crate::dialect::{
    BlockSize, MAX_REQUESTS, Message, Problem, Report, ReportedState, Request, Rest, Uplink,
    json::{self, Payload, Variable},
};

pub fn uplink(read: Payload<'_>, payload: &[u8]) -> Uplink {
    uplink_of_copy(read, payload, payload)
}

/// `read` was read from `copy`, which is as long as `payload` and may differ from it.
pub fn uplink_of_copy(read: Payload<'_>, copy: &[u8], payload: &[u8]) -> Uplink {
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
                let taken = match variable {
                    Some(variable) => take(variable, &mut message),
                    None if text.starts_with(['{', '[']) => unread(text.as_bytes()),
                    None => Taken::Nothing,
                };
                match taken {
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

/// What cannot be read, and may be a forgery for others all the same.
fn unread(text: &[u8]) -> Taken {
    match json::hidden(text, &SERVER_ONLY).or_else(|| json::hidden(text, &[FILE])) {
        Some(name) => Taken::Forged(name.to_owned()),
        None => Taken::Nothing,
    }
}

/// The same of a whole payload.
pub fn uplink_of_unread(payload: &[u8]) -> Uplink {
    match unread(payload) {
        Taken::Forged(name) => Uplink::Forged { name },
        _ => Uplink::Ordinary,
    }
}

/// Whether a receiver that is less strict could take a name for this word.
pub fn is_word(name: &str, word: &str) -> bool {
    name.trim().eq_ignore_ascii_case(word)
}

fn take(variable: &Variable<'_>, message: &mut Message) -> Taken {
    let reserved =
        |name: &&Cow<'_, str>| SERVER_ONLY.iter().chain([&FILE]).any(|word| is_word(name, word));
    if let Some(name) = variable.names.iter().chain(&variable.nearly).find(reserved) {
        return Taken::Forged(name.to_string());
    }
    // A name that stands twice is a request if either is: it must not reach a subscriber.
    if variable.names.iter().any(|name| name == REQUEST) {
        if message.requests.len() == MAX_REQUESTS {
            message.too_many = true;
        } else {
            let mut odd = Numbers::default();
            message.requests.push(request(variable, &mut odd));
            message.quirks.extend(odd.text.then_some(TEXT_INDEX));
            message.quirks.extend(odd.decimal.then_some(DECIMAL_INDEX));
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

/// How the numbers of a request are written, where that is not as whole ones.
#[derive(Default)]
struct Numbers {
    text: bool,
    decimal: bool,
}

impl Numbers {
    /// A chunk's index or a number of them.
    fn read(&mut self, raw: Option<&RawValue>) -> Result<u32, Problem> {
        let raw = raw.map(RawValue::get);
        let number = json::index(raw);
        let raw = raw.unwrap_or_default();
        // What is refused is not tolerated.
        self.text |= number.is_ok() && raw.starts_with('"');
        self.decimal |= number.is_ok() && raw.contains(['.', 'e', 'E', '-']);
        number
    }
}

fn request(variable: &Variable<'_>, odd: &mut Numbers) -> Request {
    let named = blocks(variable, odd);
    let group = variable.group.map(RawValue::get);
    if group.is_some_and(|group| group.len() > MAX_ECHO) {
        let index = Err(format!("the group is longer than {MAX_ECHO} bytes"));
        return Request { index, ..Request::default() };
    }
    let (index, more) = match named {
        Ok((index, more)) => (Ok(index), more),
        Err(problem) => (Err(problem), Vec::new()),
    };
    let echo = group.map(|group| Arc::from(group.as_bytes()));
    Request { index, more, echo, size: BlockSize::Pinned, image: None, trims: false }
}

/// The blocks that a request names: `value`; with `metadata.count` so many from there on; with
/// `metadata.missing` those of the list. The last two are extensions.
fn blocks(variable: &Variable<'_>, odd: &mut Numbers) -> Result<(u32, Vec<Range<u32>>), Problem> {
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
        let mut listed =
            missing.iter().map(|raw| odd.read(Some(raw))).collect::<Result<Vec<_>, _>>()?;
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
    let index = odd.read(variable.value)?;
    let Some(count) = count else { return Ok((index, Vec::new())) };
    match odd.read(Some(count)) {
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
