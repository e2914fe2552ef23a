//! The reference protocol's JSON, as a device reads and writes it.
//!
//! One message holds one variable object or an array of them. A device ignores what it cannot
//! parse and its own `firmware_request`; so does [`decode`], which says what it ignored only
//! where the variable was one of the server's.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::trust::Signed;

/// The one topic that devices publish and subscribe on.
pub(crate) const TOPIC: &str = "tago/data/post";

/// What the server announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Bytes of the image.
    pub total_size: u64,
    /// Number of blocks.
    pub total_chunks: u32,
    /// Bytes of each block but the last.
    pub chunk_size: u32,
    /// The firmware's version.
    pub version: String,
    /// Digest of the image, where the server says it.
    pub sha256: Option<Digest>,
    /// How requests name the image, where they do.
    pub image: Option<[u8; 8]>,
    /// The image's signature, where there is one.
    pub signature: Option<Signed>,
}

/// What a device can hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A new image: drop what you have.
    Manifest(Manifest),
    /// A block: its index and its bytes.
    Block(u32, Bytes),
    /// The server could not do what was asked.
    Error(String),
    /// One of the server's variables, but not as it should be; the reason.
    Malformed(String),
}

/// What a device can say.
pub(crate) fn request(index: u32) -> String {
    json!({"variable": "firmware_request", "value": index, "unit": "index"}).to_string()
}

/// The report that a device runs `version`, or that it is of `model`.
pub(crate) fn status(version: Option<&str>, model: Option<&str>) -> String {
    let mut metadata = serde_json::Map::new();
    for (key, value) in [("version", version), ("model", model)] {
        if let Some(value) = value {
            metadata.insert(key.into(), value.into());
        }
    }
    let value = if version.is_some() { "updated" } else { "online" };
    json!({"variable": "firmware_status", "value": value, "metadata": metadata}).to_string()
}

/// Reads a payload; what is not meant for a device is left out.
pub(crate) fn decode(payload: &[u8]) -> Vec<Message> {
    // Blocks come alone nearly always: try that first, without a copy of the base64 text.
    if let Ok(variable) = serde_json::from_slice::<Variable<'_>>(payload) {
        return variable.read().into_iter().collect();
    }
    match serde_json::from_slice::<Vec<Variable<'_>>>(payload) {
        Ok(variables) => variables.into_iter().filter_map(Variable::read).collect(),
        Err(_) => Vec::new(),
    }
}

#[derive(Deserialize)]
struct Variable<'a> {
    #[serde(borrow)]
    variable: Cow<'a, str>,
    #[serde(default)]
    value: Value,
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
}

/// The metadata of all the server's variables; each uses its own fields.
#[derive(Deserialize, Default)]
struct Metadata<'a> {
    total_size: Option<u64>,
    total_chunks: Option<u32>,
    chunk_size: Option<u32>,
    version: Option<String>,
    sha256: Option<String>,
    // Not an Option: serde borrows only a bare Cow. A block is never empty, so "" is none.
    #[serde(borrow, default)]
    data: Cow<'a, str>,
    size: Option<u64>,
}

impl Variable<'_> {
    fn read(self) -> Option<Message> {
        let name = self.variable.as_ref();
        let read = match name {
            "firmware_manifest" => {
                self.metadata.unwrap_or_default().manifest().map(Message::Manifest)
            }
            "firmware_block" => block(&self.value, self.metadata.unwrap_or_default()),
            "fuota_error" => {
                let text =
                    self.value.as_str().map_or_else(|| self.value.to_string(), str::to_owned);
                Ok(Message::Error(text))
            }
            _ => return None,
        };
        Some(read.unwrap_or_else(|reason| Message::Malformed(format!("{name}: {reason}"))))
    }
}

impl Metadata<'_> {
    fn manifest(self) -> Result<Manifest, String> {
        let missing = |field: &str| format!("metadata.{field} is missing");
        let total_size = self.total_size.ok_or_else(|| missing("total_size"))?;
        let total_chunks = self.total_chunks.ok_or_else(|| missing("total_chunks"))?;
        let chunk_size = self.chunk_size.ok_or_else(|| missing("chunk_size"))?;
        if chunk_size == 0 {
            return Err("metadata.chunk_size is 0".into());
        }
        if total_size.div_ceil(chunk_size.into()) != u64::from(total_chunks) {
            return Err(format!(
                "{total_size} bytes in chunks of {chunk_size} are not {total_chunks} chunks"
            ));
        }
        let version = self.version.ok_or_else(|| missing("version"))?;
        let sha256 = self.sha256.map(|text| text.parse()).transpose();
        let sha256 = sha256.map_err(|error| format!("metadata.sha256: {error}"))?;
        Ok(Manifest {
            total_size,
            total_chunks,
            chunk_size,
            version,
            sha256,
            image: None,
            signature: None,
        })
    }
}

fn block(value: &Value, metadata: Metadata<'_>) -> Result<Message, String> {
    let index = value.as_u64().and_then(|index| u32::try_from(index).ok());
    let index = index.ok_or_else(|| format!("value {value} is no index"))?;
    if metadata.data.is_empty() {
        return Err(format!("block {index} has no metadata.data"));
    }
    let data = BASE64.decode(metadata.data.as_bytes());
    let data = data.map_err(|error| format!("block {index} is not base64: {error}"))?;
    match metadata.size {
        Some(size) if size == data.len() as u64 => Ok(Message::Block(index, data.into())),
        Some(size) => Err(format!("block {index} says {size} bytes and holds {}", data.len())),
        None => Err(format!("block {index} has no metadata.size")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_manifest_with_and_without_a_digest() {
        let text = |extra: &str| {
            format!(
                r#"{{"variable":"firmware_manifest","value":"pending","metadata":{{
                "total_size":5000,"total_chunks":2,"chunk_size":4096,"version":"1.2"{extra}}}}}"#
            )
        };
        let plain = Manifest {
            total_size: 5000,
            total_chunks: 2,
            chunk_size: 4096,
            version: "1.2".into(),
            sha256: None,
            image: None,
            signature: None,
        };
        assert_eq!(decode(text("").as_bytes()), [Message::Manifest(plain.clone())]);
        let digest = format!(r#","sha256":"{}","name":"pump""#, "0f".repeat(32));
        let with = Manifest { sha256: Some(Digest([0x0f; 32])), ..plain };
        assert_eq!(decode(text(&digest).as_bytes()), [Message::Manifest(with)]);
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_malformed() {
        let text = r#"{"variable":"firmware_manifest","value":"pending","metadata":
            {"total_size":5000,"total_chunks":3,"chunk_size":4096,"version":"1.2"}}"#;
        let [Message::Malformed(reason)] = &decode(text.as_bytes())[..] else { panic!() };
        assert!(reason.contains("not 3 chunks"), "{reason}");
    }

    #[test]
    fn blocks_alone_and_in_an_array() {
        let block = r#"{"variable":"firmware_block","value":7,"group":"g","metadata":{"data":"AQID","size":3}}"#;
        let expected = || Message::Block(7, Bytes::from_static(&[1, 2, 3]));
        assert_eq!(decode(block.as_bytes()), [expected()]);
        let array = format!(r#"[{block},{{"variable":"temperature","value":21}},{block}]"#);
        assert_eq!(decode(array.as_bytes()), [expected(), expected()]);
    }

    #[test]
    fn a_block_must_hold_what_it_says() {
        for (metadata, complaint) in [
            (r#"{"data":"AQID","size":4}"#, "says 4 bytes and holds 3"),
            (r#"{"data":"AQID"}"#, "no metadata.size"),
            (r#"{"size":3}"#, "no metadata.data"),
            (r#"{"data":"A!ID","size":3}"#, "not base64"),
        ] {
            let text =
                format!(r#"{{"variable":"firmware_block","value":7,"metadata":{metadata}}}"#);
            let [Message::Malformed(reason)] = &decode(text.as_bytes())[..] else {
                panic!("{metadata}")
            };
            assert!(reason.contains(complaint), "{reason}");
        }
        let text = r#"{"variable":"firmware_block","value":-1,"metadata":{"data":"","size":0}}"#;
        assert!(matches!(&decode(text.as_bytes())[..], [Message::Malformed(_)]));
    }

    #[test]
    fn what_is_not_for_a_device_is_ignored() {
        assert!(decode(b"hello").is_empty());
        assert!(decode(request(3).as_bytes()).is_empty(), "its own request");
        assert!(decode(br#"{"variable":"temperature","value":21.5}"#).is_empty());
        let error = br#"{"variable":"fuota_error","value":"index 9 is past the end"}"#;
        assert_eq!(decode(error), [Message::Error("index 9 is past the end".into())]);
    }

    #[test]
    fn what_a_device_says() {
        let said: Value = serde_json::from_str(&request(5)).unwrap();
        assert_eq!(said, json!({"variable": "firmware_request", "value": 5, "unit": "index"}));
        let said: Value = serde_json::from_str(&status(Some("1.2"), None)).unwrap();
        assert_eq!(
            said,
            json!({"variable": "firmware_status", "value": "updated", "metadata": {"version": "1.2"}})
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            decode(&payload);
        }

        #[test]
        fn any_block_is_read(index in any::<u32>(), data in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assume!(!data.is_empty());
            let text = json!({"variable": "firmware_block", "value": index,
                "metadata": {"data": BASE64.encode(&data), "size": data.len()}}).to_string();
            prop_assert_eq!(decode(text.as_bytes()), vec![Message::Block(index, data.into())]);
        }
    }
}
