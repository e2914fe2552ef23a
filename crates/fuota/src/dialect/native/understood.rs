//! What is written here is understood by a decoder made from `docs/dialects/native.md` alone: the
//! numbers are those of the page.

use std::{collections::BTreeMap, num::NonZeroU32};

use proptest::prelude::*;

use super::*;
use crate::state::UpdateState;

/// What a device understands.
#[derive(Debug, PartialEq)]
enum Understood {
    /// Its fields by their tags.
    Manifest(BTreeMap<u8, Vec<u8>>),
    /// The image's first four bytes, the offset, the firmware.
    Block(Vec<u8>, u32, Vec<u8>),
    Nothing(String),
    Error(u8, String),
}

fn understand(said: &Said) -> Understood {
    let bytes = said.payload.to_bytes();
    assert_eq!(bytes.len(), said.payload.len(), "the length that was promised");
    let text = |from: usize| String::from_utf8(bytes[from..].to_vec()).expect("UTF-8");
    match bytes[0] {
        0x81 => {
            let (mut fields, mut rest) = (BTreeMap::new(), &bytes[1..]);
            while let [tag, length, after @ ..] = rest {
                let (value, after) = after.split_at(usize::from(*length));
                assert_eq!(fields.insert(*tag, value.to_vec()), None, "a field stands twice");
                rest = after;
            }
            assert!(rest.is_empty(), "a field ends too early");
            Understood::Manifest(fields)
        }
        0x82 => {
            let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            // CRC-32C, bit by bit.
            let crc = bytes[5..].iter().fold(u32::MAX, |crc, byte| {
                (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                    crc >> 1 ^ 0x82F6_3B78 & (crc & 1).wrapping_neg()
                })
            });
            assert_eq!(number(1), !crc, "checksum");
            Understood::Block(bytes[5..9].to_vec(), number(9), bytes[13..].to_vec())
        }
        0x83 => Understood::Nothing(text(1)),
        0x84 => Understood::Error(bytes[1], text(2)),
        other => panic!("a message {other:#04x}"),
    }
}

fn talk() -> Box<dyn Talk> {
    Native::default().begin(Some(&"dev-1".into()))
}

/// A conversation after a GET with these properties, and what the answer to it repeats.
fn asked(properties: &Properties) -> (Box<dyn Talk>, Echo) {
    let mut talk = talk();
    let get = [&[2][..], &7u64.to_be_bytes(), &[2, 0, 0], &[0, 0, 0, 0, 0, 0, 0, 1]].concat();
    let heard = Heard { topic: "fuota/v1/up", payload: &get, properties: Some(properties) };
    let Uplink::Message(read) = talk.read(&heard) else { panic!("a message") };
    (talk, read.requests[0].echo.clone())
}

/// Response topics and correlation data of a device that speaks MQTT 5.
fn repeated() -> impl Strategy<Value = Properties> {
    let topic = prop::option::of("[a-z]{1,8}(/[a-z]{1,8}){0,3}");
    let data = prop::option::of(prop::collection::vec(any::<u8>(), 1..64));
    (topic, data).prop_map(|(topic, data)| Properties {
        response_topic: topic,
        correlation_data: data.map(Bytes::from),
        ..Properties::default()
    })
}

/// Whether an answer goes where it was wanted.
fn goes_back(said: &Said, properties: &Properties) {
    assert_eq!(&*said.topic, properties.response_topic.as_deref().unwrap_or("fuota/v1/down"));
    let data = said.properties.as_ref().and_then(|properties| properties.correlation_data.clone());
    assert_eq!(data, properties.correlation_data);
}

/// A text of at most 200 bytes, which ends before the character that does not fit.
fn is_cut(text: &str, whole: &str) -> bool {
    whole.starts_with(text) && text.len() <= 200 && (text == whole || text.len() > 196)
}

proptest! {
    #[test]
    fn a_manifest(
        size in 1u64..=u64::from(u32::MAX), version in "\\PC{0,90}", title in prop::option::of("\\PC{0,90}"),
        tag: u64, window in 1u32..100_000, signature in prop::option::of(prop::collection::vec(any::<u8>(), 74)),
    ) {
        let line = signature.as_ref().map(hex::encode);
        let offer = Offer {
            size, total: 1, chunk_size: 4096, version: &version, title: title.as_deref(), file: "x",
            sha256: &"5a".repeat(32), signature: line.as_deref(), checksum: None, tag, window,
            attempt: 1, state: UpdateState::Offered, note: None,
        };
        let said = talk().manifest(&offer, &Framing { limit: u32::MAX, qos: Qos::AtLeastOnce, protocol: hook::Protocol::V5 });
        let Understood::Manifest(fields) = understand(&said) else { panic!("a manifest") };
        // A text of more than 255 bytes ends before the character that does not fit.
        let text = |tag: u8| fields.get(&tag).map(|value| std::str::from_utf8(value).expect("UTF-8"));
        for (tag, whole) in [(4, Some(&version)), (5, title.as_ref())] {
            prop_assert_eq!(text(tag).is_some(), whole.is_some());
            if let (Some(text), Some(whole)) = (text(tag), whole) {
                prop_assert!(whole.starts_with(text) && (text.len() > 251 || text == whole));
            }
        }
        prop_assert_eq!(&fields[&1], &tag.to_be_bytes().to_vec());
        prop_assert_eq!(&fields[&2], &(size as u32).to_be_bytes().to_vec());
        prop_assert_eq!(&fields[&3], &vec![0x5a; 32]);
        prop_assert_eq!(fields.get(&6), signature.as_ref());
        prop_assert_eq!(&fields[&7], &(window.min(65_535) as u16).to_be_bytes().to_vec());
    }

    #[test]
    fn a_block(
        tag: u64, index in 0u32..1000, size in 1u32..3000, data in prop::collection::vec(any::<u8>(), 0..3000),
        properties in repeated(),
    ) {
        let (mut talk, echo) = asked(&properties);
        let bytes = NonZeroU32::new(size).unwrap();
        let block = Block { index, size: BlockSize::Bytes(bytes), echo: &echo, tag };
        let said = talk.block(block, data.clone().into());
        goes_back(&said, &properties);
        let image = tag.to_be_bytes()[..4].to_vec();
        prop_assert_eq!(understand(&said), Understood::Block(image, index * size, data));
    }

    #[test]
    fn an_error(text in "\\PC{0,300}", index: u32, total: u32, properties in repeated()) {
        let (mut talk, echo) = asked(&properties);
        for (trouble, code) in [
            (Trouble::Asked(text.clone()), 1),
            (Trouble::Nothing(text.clone()), 2),
            (Trouble::PastEnd { index, total }, 3),
            (Trouble::Unavailable(text.clone()), 4),
            (Trouble::TooMuch(text.clone()), 5),
            (Trouble::TooLarge(text.clone()), 6),
        ] {
            let said = talk.error(&trouble, &echo).expect("there is a code for each");
            goes_back(&said, &properties);
            let Understood::Error(got, said) = understand(&said) else { panic!("an error") };
            prop_assert_eq!(got, code);
            prop_assert!(is_cut(&said, &trouble.to_string()), "{}", said);
        }
    }

    #[test]
    fn a_nothing(version in prop::collection::vec(any::<u8>(), 0..60), properties in repeated()) {
        let mut talk = talk();
        let hello = [&[1, 4, version.len() as u8][..], &version].concat();
        let heard = Heard { topic: "fuota/v1/up", payload: &hello, properties: Some(&properties) };
        let Uplink::Message(read) = talk.read(&heard) else { panic!("a message") };
        let answer = talk.answer(&read.questions[0], None);
        prop_assert_eq!((answer.says.len(), answer.announces), (1, false));
        goes_back(&answer.says[0], &properties);
        let Understood::Nothing(text) = understand(&answer.says[0]) else { panic!("a nothing") };
        prop_assert!(!text.is_empty() && text.len() <= 200);
    }
}
