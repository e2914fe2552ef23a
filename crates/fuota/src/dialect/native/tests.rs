use std::{num::NonZeroU32, ops::Range};

use super::{messages::*, *};
use crate::{dialect::Problem, state::UpdateState};
use hook::Encode as _;
use proptest::prelude::*;

fn talk() -> Box<dyn Talk> {
    Native::default().begin(Some(&"dev-1".into()))
}

fn heard(payload: &[u8]) -> Heard<'_> {
    Heard { topic: UP, payload, properties: None }
}

fn message(payload: &[u8]) -> Message {
    match talk().read(&heard(payload)) {
        Uplink::Message(message) => message,
        other => panic!("{payload:?}: {other:?}"),
    }
}

fn asks(payload: &[u8]) -> Result<(u32, Vec<Range<u32>>), Problem> {
    let request = message(payload).requests.remove(0);
    request.index.map(|index| (index, request.more))
}

fn with(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

const IMAGE_7: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 7];

#[test]
fn a_get_names_ranges_or_a_bitmap() {
    let head = with(&[&[GET], &IMAGE_7, &[0x10, 0]]);
    let ranges = with(&[&head, &[RANGES], &[0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 1]]);
    #[allow(clippy::single_range_in_vec_init)]
    {
        assert_eq!(asks(&ranges), Ok((5, vec![6..8, 9..10])));
        // The example of the page: blocks 20, 21, 24 and 43.
        let bits = with(&[&head, &[BITMAP], &[0, 0, 0, 20], &[0x13, 0x00, 0x80]]);
        assert_eq!(asks(&bits), Ok((20, vec![21..22, 24..25, 43..44])));
        let all = with(&[&head, &[RANGES], &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]]);
        assert_eq!(asks(&all), Ok((0, vec![1..u32::MAX - 1])));
    }
    // A range of no blocks beside another is left out.
    let empty = with(&[&head, &[RANGES], &[0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 0]]);
    let read = message(&empty);
    assert_eq!((&read.requests[0].index, read.quirks), (&Ok(5), vec![EMPTY_RANGE]));
    assert_eq!(talk().read_request(&heard(&empty)), None, "it is counted");
    let request = message(&ranges).requests.remove(0);
    assert_eq!((request.image, request.trims), (Some(7), true));
    assert_eq!(request.size, BlockSize::Bytes(NonZeroU32::new(4096).unwrap()));
    assert_eq!(talk().read_request(&heard(&ranges)), Some(request));
}

#[test]
fn what_is_wrong_is_said() {
    let head = with(&[&[GET], &IMAGE_7, &[0x10, 0]]);
    for (payload, why) in [
        (vec![], "begins with"),
        (vec![9], "begins with"),
        (b"{\"variable\":1}".to_vec(), "begins with"),
        (vec![GET], "too early"),
        (vec![GET, 0, 0], "too early"),
        (head.clone(), "too early"),
        (with(&[&[GET], &IMAGE_7, &[0, 0], &[RANGES], &[0; 8]]), "0 bytes"),
        (with(&[&head, &[7]]), "ranges (0) or a bitmap (1)"),
        (with(&[&head, &[RANGES]]), "names no block"),
        (with(&[&head, &[RANGES], &[0; 8]]), "names no block"),
        (with(&[&head, &[RANGES], &[0; 7]]), "8 bytes"),
        (with(&[&head, &[RANGES], &[1; 8 * 65]]), "more than 64"),
        (with(&[&head, &[BITMAP], &[0, 0]]), "before its bitmap"),
        (with(&[&head, &[BITMAP], &[0; 20]]), "names no block"),
        (with(&[&head, &[BITMAP], &[0xff; 4 + 513]]), "more than 512"),
        (vec![HELLO, VERSION, 5, b'1'], "too early"),
        (vec![HELLO, VERSION], "too early"),
        (vec![STATUS, 2, VERSION, 200], "too early"),
        (vec![STATUS, 9], "1 to 5"),
    ] {
        let problem = asks(&payload).unwrap_err();
        assert!(problem.contains(why), "{payload:?}: {problem}");
        let said = talk().error(&Trouble::Asked(problem), &None).unwrap();
        assert_eq!(
            (&*said.topic, said.payload.to_bytes()[..2].to_vec()),
            (DOWN, vec![ERROR, MALFORMED])
        );
    }
}

/// Past the end of each image, and not malformed: the device hears which mistake it made.
#[test]
fn blocks_that_no_image_has_are_past_its_end() {
    let head = with(&[&[GET], &IMAGE_7, &[0x10, 0]]);
    for (kind, what) in [
        (RANGES, &[0xff; 8][..]),
        (RANGES, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1]),
        (RANGES, &[0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 9]),
        (BITMAP, &[0xff, 0xff, 0xff, 0xff, 1]),
    ] {
        let request = asks(&with(&[&head, &[kind], what])).unwrap();
        assert_eq!(request, (u32::MAX - 1, vec![]), "{what:?}");
    }
}

#[test]
fn hello_and_status_report() {
    let hello = [&[HELLO, VERSION, 3], &b"1.2"[..], &[MODEL, 2], b"m1", &[99, 1, 0]].concat();
    let read = message(&hello);
    let report = read.report.unwrap();
    assert_eq!((report.version.as_deref(), report.model.as_deref()), (Some("1.2"), Some("m1")));
    assert_eq!((read.questions.len(), read.quirks), (1, vec![UNKNOWN_FIELD]));
    let read = message(&[HELLO, VERSION, 2, b'1', 0xff]);
    assert_eq!(read.quirks, [BAD_TEXT]);
    assert_eq!(read.report.unwrap().version.as_deref(), Some("1\u{fffd}"));
    assert_eq!(message(&[HELLO]).report, None);
    let state = |payload: &[u8]| message(payload).report.unwrap().state;
    assert_eq!(state(&[STATUS, 1]), Some(ReportedState::Downloaded));
    assert_eq!(state(&[STATUS, 2]), Some(ReportedState::Verified));
    assert_eq!(state(&[STATUS, 3]), Some(ReportedState::Updating));
    assert_eq!(state(&[STATUS, 4, VERSION, 1, b'2']), None, "the version says it");
    assert_eq!(state(&[STATUS, 5, REASON, 1, b'x']), Some(ReportedState::Failed("x".into())));
}

#[test]
fn answers_go_where_an_mqtt_5_device_wants_them() {
    let mut talk = talk();
    let properties = Properties {
        response_topic: Some("r/1".into()),
        correlation_data: Some(Bytes::from_static(b"42")),
        ..Properties::default()
    };
    let get = with(&[&[GET], &IMAGE_7, &[0, 4], &[RANGES], &[0, 0, 0, 2, 0, 0, 0, 1]]);
    let heard = Heard { topic: UP, payload: &get, properties: Some(&properties) };
    let echo = talk.read_request(&heard).unwrap().echo;
    let size = BlockSize::Bytes(NonZeroU32::new(4).unwrap());
    let tag = 0x0102_0304_0506_0708;
    let said = talk.block(Block { index: 2, size, echo: &echo, tag }, Bytes::from_static(b"data"));
    assert_eq!(&*said.topic, "r/1");
    assert_eq!(said.properties.unwrap().correlation_data.unwrap(), &b"42"[..]);
    // crc32c, the image's first four bytes, the offset: 2 times 4.
    let place = [1, 2, 3, 4, 0, 0, 0, 8];
    let checksum = crc32c::crc32c(&[&place[..], b"data"].concat()).to_be_bytes();
    let expected = with(&[&[BLOCK], &checksum, &place, b"data"]);
    assert_eq!(said.payload.to_bytes(), expected);

    for (topic, usable) in
        [("a/+", false), ("$SYS/x", false), (&*"x".repeat(65), false), ("", true)]
    {
        let properties = Properties { response_topic: Some(topic.into()), ..Properties::default() };
        let heard = Heard { topic: UP, payload: &get, properties: Some(&properties) };
        assert_eq!(talk.read_request(&heard).is_some(), usable, "{topic}");
        let Uplink::Message(read) = talk.read(&heard) else { panic!("a message") };
        assert_eq!((read.quirks.is_empty(), &read.requests[0].echo), (usable, &None), "{topic}");
    }
}

#[test]
fn a_manifest_says_what_the_image_is() {
    let offer = Offer {
        size: 10_000,
        total: 3,
        chunk_size: 4096,
        version: "1.4.2",
        title: Some("pump"),
        file: "pump.bin",
        sha256: &"0f".repeat(32),
        signature: Some(&format!("4544{}", "aa".repeat(72))),
        checksum: None,
        tag: 7,
        window: 64,
        attempt: 1,
        state: UpdateState::Offered,
        note: None,
    };
    let said = talk().answer(&Question::default(), Some(&offer));
    let expected = [
        &[MANIFEST, IMAGE, 8][..],
        &IMAGE_7,
        &[SIZE, 4, 0, 0, 0x27, 0x10, SHA256, 32],
        &[15; 32],
        &[VERSION, 5],
        b"1.4.2",
        &[TITLE, 4],
        b"pump",
        &[SIGNATURE, 74],
        b"ED",
        &[0xaa; 72],
        &[WINDOW, 2, 0, 64],
    ]
    .concat();
    assert_eq!(said.says[0].payload.to_bytes(), expected);
    assert!(said.announces);
    let said = talk().answer(&Question::default(), None);
    assert_eq!(said.says[0].payload.to_bytes()[0], NOTHING);
}

#[test]
fn what_the_server_says_is_refused_from_others() {
    for first in [MANIFEST, BLOCK, NOTHING, ERROR] {
        assert!(Native::default().forgery(&[first, 1]).is_some());
    }
    assert_eq!(Native::default().forgery(b"{}"), None);
    let heard = Heard { topic: DOWN, payload: b"x", properties: None };
    assert!(matches!(talk().read(&heard), Uplink::Forged { .. }));
}

#[test]
fn at_4_kb_98_percent_of_the_wire_are_firmware() {
    let encoded = Encoded { image: 7, offset: 0, data: vec![0; 4096].into() };
    for protocol in [hook::Protocol::V311, hook::Protocol::V5] {
        let framing = Framing { limit: u32::MAX, qos: Qos::AtLeastOnce, protocol };
        let wire = framing.publish_size(DOWN, encoded.encoded_len());
        assert!(4096 * 100 >= wire * 98, "{wire}");
    }
}

proptest! {
    #[test]
    fn reading_never_panics(payload in prop::collection::vec(any::<u8>(), 0..300), first in 0u8..5) {
        for payload in [payload.clone(), [&[first], &payload[..]].concat()] {
            let mut talk = talk();
            let quick = talk.read_request(&heard(&payload));
            let Uplink::Message(full) = talk.read(&heard(&payload)) else { panic!("a message") };
            if let Some(quick) = quick {
                prop_assert_eq!(full.requests, vec![quick]);
            }
        }
    }

    #[test]
    fn runs_are_the_ones(base in 0u32..100, bits in prop::collection::vec(any::<u8>(), 0..20)) {
        let blocks: Vec<u32> = super::super::runs(base, &bits, usize::MAX).into_iter().flatten().collect();
        let ones = (0..bits.len() * 8).filter(|at| bits[at / 8] & 1 << (at % 8) != 0);
        prop_assert_eq!(blocks, ones.map(|at| base + at as u32).collect::<Vec<_>>());
    }
}
