//! The operator's messages of the reference: `firmware_file` with a `firmware_version` beside it
//! starts an update of one device, `firmware_validation` says how that goes (rule 27).

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Rest,
    json::{self, Payload},
};

const FILE: &str = "firmware_file";
const VERSION: &str = "firmware_version";
/// What is taken of an address, a version or an id, in bytes; more is no order.
const LONGEST: usize = 2048;

/// What an operator says to start an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Where the image is; `None` where the message names no address.
    pub url: Option<String>,
    /// The version that stands beside it.
    pub version: Option<String>,
    /// The device that the message names itself.
    pub device: Option<String>,
    /// `user_id` and `session_id` of the message, as JSON, for the answers.
    pub user: Option<Box<str>>,
    pub session: Option<Box<str>>,
    /// What else stands in the message.
    pub rest: Rest,
}

/// How an answer is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Success,
    Danger,
    Warning,
}

/// One answer to an [`Order`].
pub struct Validation<'a> {
    pub text: &'a str,
    pub tone: Tone,
    /// More than the reference's text says; left out by default.
    pub reason: Option<&'a str>,
    pub user: Option<&'a str>,
    pub session: Option<&'a str>,
}

#[derive(Deserialize)]
struct Element<'a> {
    #[serde(borrow)]
    variable: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(default)]
    device: Option<String>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata<'a> {
    file: Option<File>,
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    session_id: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    url: Option<String>,
}

/// The order in a payload. `None` where it holds none, or anything of `reserved` beside it.
pub fn read(payload: &[u8], reserved: &[&str]) -> Option<Order> {
    let whole = std::str::from_utf8(payload).ok()?;
    let read = json::read(payload)?;
    let texts: Vec<&str> = match &read {
        Payload::One(_) => vec![whole],
        Payload::Many(elements) => elements.iter().map(|(text, _)| *text).collect(),
    };
    let (mut order, mut found, mut rest) = (Order::default(), false, Vec::new());
    for text in texts {
        // One that names itself twice is no variable here, and refused as a forgery.
        let Ok(element) = serde_json::from_str::<Element<'_>>(text) else {
            rest.push(text);
            continue;
        };
        match &*element.variable {
            FILE if found => return None,
            FILE => {
                found = true;
                let metadata =
                    element.metadata.and_then(|raw| serde_json::from_str(raw.get()).ok());
                let Metadata { file, user_id, session_id } = metadata.unwrap_or_default();
                let short = |raw: Option<&RawValue>| {
                    raw.map(RawValue::get).filter(|raw| raw.len() <= 256).map(Into::into)
                };
                order.url = file.and_then(|file| file.url).filter(|url| !url.is_empty());
                order.device = element.device;
                (order.user, order.session) = (short(user_id), short(session_id));
            }
            VERSION => {
                let value = element.value.map(RawValue::get);
                let text = value.and_then(json::text).map(std::borrow::Cow::into_owned);
                // A form may send 1.2 as a number.
                let number = || {
                    value.filter(|raw| !raw.starts_with(['{', '[', '"', 'n'])).map(str::to_owned)
                };
                order.version = text.or_else(number).filter(|version| !version.is_empty());
            }
            name if reserved.contains(&name) => return None,
            _ => rest.push(text),
        }
    }
    // What could not be read may hide one of them.
    let hides = |text: &&str| {
        json::hidden(text.as_bytes(), reserved).or(json::hidden(text.as_bytes(), &[FILE])).is_some()
    };
    let long = [&order.url, &order.version, &order.device];
    if !found
        || rest.iter().any(hides)
        || long.into_iter().flatten().any(|text| text.len() > LONGEST)
    {
        return None;
    }
    if !rest.is_empty() {
        order.rest = Rest::Part(format!("[{}]", rest.join(",")).into());
    }
    Some(order)
}

/// `firmware_validation`.
pub fn validation(answer: &Validation<'_>) -> Bytes {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let tone = match answer.tone {
        Tone::Success => "success",
        Tone::Danger => "danger",
        Tone::Warning => "warning",
    };
    let mut text = format!(
        "{{\"variable\":\"firmware_validation\",\"value\":{},\"metadata\":{{\"type\":\"{tone}\",\"show_markdown\":false",
        quoted(answer.text)
    );
    // A text takes what is written.
    for (name, value) in [("user_id", answer.user), ("session_id", answer.session)] {
        if let Some(value) = value {
            let _ = write!(text, ",\"{name}\":{value}");
        }
    }
    if let Some(reason) = answer.reason {
        let _ = write!(text, ",\"reason\":{}", quoted(reason));
    }
    text += "}}";
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVED: [&str; 2] = ["firmware_block", "firmware_request"];

    fn order(payload: &str) -> Option<Order> {
        read(payload.as_bytes(), &RESERVED)
    }

    #[test]
    fn an_order_alone_and_with_its_version_and_other_variables() {
        let file = r#"{"variable":"firmware_file","value":"fw.bin","device":"dev-1","metadata":{"file":{"url":"http://x/fw.bin"},"user_id":"u1","session_id":7}}"#;
        let alone = order(file).unwrap();
        assert_eq!(alone.url.as_deref(), Some("http://x/fw.bin"));
        assert_eq!((alone.device.as_deref(), &alone.version), (Some("dev-1"), &None));
        assert_eq!((alone.user.as_deref(), alone.session.as_deref()), (Some(r#""u1""#), Some("7")));
        assert_eq!(alone.rest, Rest::Nothing);
        let beside = order(&format!(
            r#"[{{"variable":"t","value" : 1}}, {file}, {{"variable":"firmware_version","value":1.10}}]"#
        ))
        .unwrap();
        assert_eq!(beside.version.as_deref(), Some("1.10"));
        assert_eq!(beside.rest, Rest::Part(r#"[{"variable":"t","value" : 1}]"#.into()));
        let nothing = order(r#"{"variable":"firmware_file","metadata":{"file":{}}}"#).unwrap();
        assert_eq!(nothing.url, None);
    }

    #[test]
    fn what_is_no_order_or_hides_something() {
        for payload in [
            "",
            "7",
            r#"{"variable":"t"}"#,
            r#"[{"variable":"firmware_file"},{"variable":"firmware_file"}]"#,
            r#"[{"variable":"firmware_file"},{"variable":"firmware_block"}]"#,
            r#"{"variable":"firmware_file","variable":"t"}"#,
            r#"[{"variable":"firmware_file"},{"variable":"t","variable":"firmware_block"}]"#,
        ] {
            assert_eq!(order(payload), None, "{payload}");
        }
    }

    #[test]
    fn answers_are_the_references() {
        let answer = Validation {
            text: "Calculating file size...",
            tone: Tone::Warning,
            reason: None,
            user: Some(r#""u1""#),
            session: None,
        };
        assert_eq!(
            validation(&answer),
            r#"{"variable":"firmware_validation","value":"Calculating file size...","metadata":{"type":"warning","show_markdown":false,"user_id":"u1"}}"#
        );
    }
}
