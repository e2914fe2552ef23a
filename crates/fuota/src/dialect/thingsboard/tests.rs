use std::num::NonZeroU32;

use super::*;
use crate::dialect::ReportedState;
use crate::state::UpdateState;
use hook::Protocol;
use proptest::prelude::*;
use serde_json::json;

fn talk() -> Box<dyn Talk> {
    ThingsBoard::default().begin(Some(&"dev-1".into()))
}

fn offer(version: &str) -> Offer<'_> {
    Offer {
        size: 10_000,
        total: 3,
        chunk_size: 4096,
        version,
        title: None,
        file: "pump-1.4.2.bin",
        sha256: "ab",
        signature: None,
        checksum: None,
        tag: 7,
        window: 64,
        attempt: 1,
        state: UpdateState::Offered,
        note: None,
    }
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn heard<'a>(topic: &'a str, payload: &'a [u8]) -> Heard<'a> {
    Heard { topic, payload, properties: None }
}

fn message(talk: &mut dyn Talk, topic: &str, payload: &str) -> Message {
    match talk.read(&heard(topic, payload.as_bytes())) {
        Uplink::Message(message) => message,
        other => panic!("{topic} {payload}: {other:?}"),
    }
}

fn request(talk: &mut dyn Talk, topic: &str, payload: &str) -> Request {
    message(talk, topic, payload).requests.remove(0)
}

fn text(said: &Said) -> (String, String) {
    (said.topic.to_string(), String::from_utf8(said.payload.to_bytes().to_vec()).unwrap())
}

#[test]
fn sizes_are_read_as_devices_write_them() {
    let bytes = |size| BlockSize::Bytes(NonZeroU32::new(size).unwrap());
    for (payload, size, quirk) in [
        ("4096", bytes(4096), None),
        ("1", bytes(1), None),
        ("65536", bytes(65_536), None),
        ("\"4096\"", bytes(4096), Some(QUOTED_SIZE)),
        (" 4096\n", bytes(4096), Some(SPACED_SIZE)),
        ("0", BlockSize::Whole, Some(ZERO_SIZE)),
        ("", BlockSize::Whole, None),
    ] {
        let mut talk = talk();
        let read = message(&mut *talk, "v2/fw/request/1/chunk/2", payload);
        assert_eq!((read.requests[0].size, &read.requests[0].index), (size, &Ok(2)), "{payload}");
        assert_eq!(read.quirks, Vec::from_iter(quirk), "{payload}");
        assert_eq!(
            talk.read_request(&heard("v2/fw/request/1/chunk/2", payload.as_bytes())).is_some(),
            quirk.is_none()
        );
    }
    for (payload, word) in [
        ("65537", PAYLOAD_TOO_LARGE),
        ("1000000000", PAYLOAD_TOO_LARGE),
        ("99999999999999999999999", PAYLOAD_TOO_LARGE),
        ("-1", FAILURE),
        ("x", FAILURE),
        ("4096.0", FAILURE),
        ("{}", FAILURE),
        ("\"", FAILURE),
    ] {
        let mut talk = talk();
        let asked = request(&mut *talk, "v2/fw/request/1/chunk/0", payload);
        assert_eq!(asked.index, Err(word.to_owned()), "{payload}");
        let said = talk.error(&Trouble::Asked(word.into()), &asked.echo).unwrap();
        assert_eq!(text(&said), ("v2/fw/error".into(), word.into()));
    }
}

#[test]
fn a_number_keeps_its_size_and_its_image() {
    let mut talk = talk();
    talk.manifest(&offer("1"), &framing());
    assert_eq!(request(&mut *talk, "v2/fw/request/1/chunk/0", "1000").image, Some(7));
    let next = request(&mut *talk, "v2/fw/request/1/chunk/1", "");
    assert_eq!(next.size, BlockSize::Bytes(NonZeroU32::new(1000).unwrap()));
    talk.manifest(&Offer { tag: 8, ..offer("2") }, &framing());
    assert_eq!(request(&mut *talk, "v2/fw/request/1/chunk/2", "").image, Some(7), "the old one");
    assert_eq!(request(&mut *talk, "v2/fw/request/2/chunk/0", "").image, Some(8));
    for id in 10..1000 {
        request(&mut *talk, &format!("v2/fw/request/{id}/chunk/0"), "1");
    }
    assert_eq!(request(&mut *talk, "v2/fw/request/1/chunk/2", "").image, Some(8), "forgotten");
}

fn framing() -> Framing {
    Framing { limit: u32::MAX, qos: Qos::AtMostOnce, protocol: Protocol::V311 }
}

#[test]
fn past_the_end_is_empty_and_then_an_error_and_then_silence() {
    let mut talk = talk();
    let echo = request(&mut *talk, "v2/fw/request/3/chunk/9", "4096").echo;
    let past = Trouble::PastEnd { index: 9, total: 3 };
    for _ in 0..PAST_ENDS {
        let said = talk.error(&past, &echo).unwrap();
        assert_eq!(text(&said), ("v2/fw/response/3/chunk/9".into(), String::new()));
    }
    assert_eq!(text(&talk.error(&past, &echo).unwrap()).1, NOT_FOUND);
    assert_eq!(talk.error(&past, &echo), None);
    let block = Block { index: 0, size: BlockSize::Whole, echo: &echo, tag: 7 };
    let said = talk.block(block, Bytes::from_static(b"abc"));
    assert_eq!(
        text(&said),
        ("v2/fw/response/3/chunk/9".into(), "abc".into()),
        "as it was asked for"
    );
    assert_eq!(text(&talk.error(&past, &echo).unwrap()).1, "", "it counts anew");
}

#[test]
fn attributes_are_answered_as_asked() {
    let mut talk = talk();
    let ask = r#"{"sharedKeys":"fw_checksum,fw_checksum_algorithm,fw_size,fw_title,fw_version"}"#;
    let read = message(&mut *talk, "v1/devices/me/attributes/request/5", ask);
    let answer = talk.answer(&read.questions[0], Some(&offer("1.4.2")));
    assert!(answer.announces);
    let (topic, payload) = text(&answer.says[0]);
    assert_eq!(topic, "v1/devices/me/attributes/response/5");
    assert_eq!(
        serde_json::from_str::<Value>(&payload).unwrap(),
        json!({"shared": {"fw_title": "pump", "fw_version": "1.4.2", "fw_size": 10_000,
            "fw_checksum_algorithm": "SHA256", "fw_checksum": "ab"}})
    );
    assert_eq!(text(&talk.answer(&read.questions[0], None).says[0]).1, "{}");

    let read = message(
        &mut *talk,
        "v1/devices/me/attributes/request/6",
        r#"{"sharedKeys":" fw_title, fw_version,"}"#,
    );
    assert_eq!(read.quirks, [TRAILING_COMMA, SPACED_KEYS]);
    let (_, payload) = text(&talk.answer(&read.questions[0], Some(&offer("1"))).says[0]);
    assert_eq!(
        serde_json::from_str::<Value>(&payload).unwrap(),
        json!({"shared": {"fw_title": "pump-1.4.2", "fw_version": "1"}})
    );
    for (payload, quirks) in [
        (r#"{"sharedKeys":"limit"}"#, vec![]),
        (r#"{"clientKeys":"fw_title"}"#, vec![]),
        (r#"{"sharedKeys":"sw_title,sw_version"}"#, vec![]),
        (r#"{"sharedKeys":5}"#, vec![BAD_JSON]),
        ("nonsense", vec![BAD_JSON]),
    ] {
        let read = message(&mut *talk, "v1/devices/me/attributes/request/7", payload);
        assert_eq!(
            text(&read.says[0]),
            ("v1/devices/me/attributes/response/7".into(), "{}".into())
        );
        assert_eq!(read.quirks, quirks, "{payload}");
    }
    assert_eq!(message(&mut *talk, "v1/devices/me/attributes/request/8", "{}").questions.len(), 1);
    assert_eq!(
        message(&mut *talk, "v1/devices/me/attributes/request/a/b", "{}"),
        Message::default()
    );
}

#[test]
fn telemetry_says_how_far_it_is_and_goes_on_under_the_devices_name() {
    for (payload, version, state) in [
        (r#"{"current_fw_version":"1","fw_state":"UPDATED"}"#, Some("1"), None),
        (
            r#"[{"current_fw_version":"1"},{"fw_state":"VERIFIED"}]"#,
            Some("1"),
            Some(ReportedState::Verified),
        ),
        (
            r#"{"ts":1,"values":{"fw_state":"FAILED","fw_error":"flash"}}"#,
            None,
            Some(ReportedState::Failed("flash".into())),
        ),
        (r#"[{"ts":1,"values":{"fw_state":"UPDATING"}}]"#, None, Some(ReportedState::Updating)),
        (
            r#"{"fw_state":"DOWNLOADED","values":{"values":{}}}"#,
            None,
            Some(ReportedState::Downloaded),
        ),
    ] {
        let read = message(&mut *talk(), "v1/devices/me/telemetry", payload);
        let report = read.report.expect(payload);
        assert_eq!((report.version.as_deref(), report.state), (version, state), "{payload}");
        assert_eq!(read.rest, Rest::Below("telemetry".into()));
    }
    for payload in [
        r#"{"temperature":21}"#,
        "nonsense",
        "[1,2]",
        r#"{"fw_state":5,"current_fw_version":[]}"#,
        "[[[[",
    ] {
        let read = message(&mut *talk(), "v1/devices/me/telemetry", payload);
        assert_eq!((read.report, read.rest), (None, Rest::Below("telemetry".into())), "{payload}");
    }
    let read = message(&mut *talk(), "v1/devices/me/attributes", r#"{"a":1}"#);
    assert_eq!(read, Message { rest: Rest::Below("attributes".into()), ..Message::default() });
}

#[test]
fn session_limits_are_told_and_other_calls_go_on() {
    let read = message(
        &mut *talk(),
        "v1/devices/me/rpc/request/1",
        r#"{"method":"getSessionLimits","params":{}}"#,
    );
    assert_eq!(text(&read.says[0]), ("v1/devices/me/rpc/response/1".into(), SESSION_LIMITS.into()));
    assert_eq!(read.rest, Rest::Nothing);
    let read = message(&mut *talk(), "v1/devices/me/rpc/request/2", r#"{"method":"getTime"}"#);
    assert_eq!(read.rest, Rest::Below("rpc/request/2".into()));
}

#[test]
fn software_is_not_assigned_and_the_servers_topics_are_its_own() {
    let read = message(&mut *talk(), "v2/sw/request/1/chunk/0", "4096");
    assert_eq!(text(&read.says[0]), ("v2/fw/error".into(), NOT_FOUND.into()));
    for topic in [
        "v2/fw/response/1/chunk/0",
        "v2/fw/error",
        "v2/sw/response/1/chunk/0",
        "v2/fw/request/1/chunk/-1",
        "v2/fw/request/x/chunk/0",
        "v1/devices/me/attributes/response/1",
    ] {
        assert!(matches!(talk().read(&heard(topic, b"")), Uplink::Forged { .. }), "{topic}");
    }
    let dialect = ThingsBoard::default();
    assert_eq!(dialect.forgery(br#"{"a":1,"fw_title":"x"}"#).as_deref(), Some("fw_title"));
    assert_eq!(dialect.forgery(br#"{"deleted":["fw_tag"]}"#).as_deref(), Some("fw_tag"));
    assert_eq!(dialect.forgery(br#"{"command":"fw_title"}"#), None);
    for odd in [
        r#"{"FW_Title":"x"}"#,
        r#"{"fw_title":"x"}x"#,
        "{'sw_version':1}",
        "{'FW_Title':1}",
        r#"{"\ud800":1,"fw_t\u0061g":1}"#,
    ] {
        assert!(dialect.forgery(odd.as_bytes()).is_some(), "{odd}");
    }
}

#[test]
fn it_listens_where_attributes_come() {
    for (filter, hears) in [
        ("v1/devices/me/attributes", true),
        ("v1/devices/me/#", true),
        ("v1/devices/me/+", true),
        ("v1/devices/me/attributes/response/+", false),
        ("v2/fw/response/+", false),
    ] {
        let mut talk = talk();
        talk.subscribed(filter, Qos::AtLeastOnce);
        assert_eq!(talk.listens().is_some(), hears, "{filter}");
        talk.unsubscribed(filter);
        assert_eq!(talk.listens(), None);
    }
}

proptest! {
    #[test]
    fn attributes_are_understood_by_another_decoder(
        size: u64, version in "\\PC{1,30}", title in prop::option::of("\\PC{1,30}"), sha256 in "[0-9a-f]{64}",
    ) {
        let offer = Offer { size, title: title.as_deref(), sha256: &sha256, ..offer(&version) };
        let pushed = parsed(&talk().manifest(&offer, &framing()).payload.to_bytes());
        prop_assert_eq!(&pushed["fw_size"], &json!(size));
        prop_assert_eq!(&pushed["fw_version"], &json!(version));
        prop_assert_eq!(&pushed["fw_checksum"], &json!(sha256));
        match &title {
            Some(title) => prop_assert_eq!(&pushed["fw_title"], &json!(title)),
            None => prop_assert!(pushed["fw_title"].as_str().is_some_and(|title| !title.is_empty())),
        }
        // Asked for, the same.
        let mut talk = talk();
        let read = message(&mut *talk, "v1/devices/me/attributes/request/7", "{}");
        let answer = talk.answer(&read.questions[0], Some(&offer));
        prop_assert_eq!(&parsed(&answer.says[0].payload.to_bytes())["shared"], &pushed);
    }

    #[test]
    fn a_chunk_is_its_bytes_on_the_topic_of_its_request(
        id: u64, chunk in 0u64..u64::from(u32::MAX) - 1, size in 1u32..65_536, data in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        let mut talk = talk();
        let asked = request(&mut *talk, &format!("v2/fw/request/{id}/chunk/{chunk}"), &size.to_string());
        prop_assert_eq!(asked.index.map(u64::from), Ok(chunk));
        let block = Block { index: chunk as u32, size: asked.size, echo: &asked.echo, tag: 7 };
        let said = talk.block(block, data.clone().into());
        prop_assert_eq!(&*said.topic, &*format!("v2/fw/response/{id}/chunk/{chunk}"));
        prop_assert_eq!(&said.payload.to_bytes()[..], &data[..]);
    }

    #[test]
    fn reading_never_panics(
        topic in prop::sample::select(vec!["v2/fw/request/1/chunk/0", "v1/devices/me/telemetry", "v1/devices/me/attributes/request/1", "v1/devices/me/rpc/request/1"]),
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut talk = talk();
        let _ = talk.read_request(&heard(topic, &payload));
        let _ = talk.read(&heard(topic, &payload));
        let _ = ThingsBoard::default().forgery(&payload);
    }
}

#[test]
fn another_checksum_is_given_where_one_is_wanted() {
    for (checksum, expected) in [
        (None, ("SHA256", "ab")),
        (
            Some(store::Checksum { algorithm: store::Algorithm::Crc32, value: "2639f4cb".into() }),
            ("CRC32", "2639f4cb"),
        ),
    ] {
        let said =
            talk().manifest(&Offer { checksum: checksum.as_ref(), ..offer("1") }, &framing());
        let said: Value = serde_json::from_slice(&said.payload.to_bytes()).unwrap();
        assert_eq!(
            (&said["fw_checksum_algorithm"], &said["fw_checksum"]),
            (&json!(expected.0), &json!(expected.1))
        );
    }
}
