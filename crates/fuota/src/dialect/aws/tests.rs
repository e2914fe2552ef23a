use super::*;
use crate::{dialect::BlockSize, state::UpdateState};
use minicbor::Encoder;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::num::NonZeroU32;

const TAG: u64 = 0x0102_0304_0506_0708;
const STREAM: &str = "AFR_OTA-0102030405060708";
const JOB: &str = "AFR_OTA-0102030405060708-2";

fn talk() -> Box<dyn Talk> {
    Aws.begin(Some(&"dev-1".into()))
}

fn offer() -> Offer<'static> {
    Offer {
        size: 10_000,
        total: 3,
        chunk_size: 4096,
        version: "1.4.2",
        title: None,
        file: "pump-1.4.2.bin",
        sha256: "ab",
        signature: None,
        checksum: None,
        tag: TAG,
        window: 64,
        attempt: 2,
        state: UpdateState::Offered,
        note: None,
    }
}

fn message(talk: &mut dyn Talk, topic: &str, payload: &[u8]) -> Message {
    match talk.read(&Heard { topic, payload, properties: None }) {
        Uplink::Message(message) => message,
        other => panic!("{topic}: {other:?}"),
    }
}

fn stream(verb: &str) -> String {
    format!("$aws/things/dev-1/streams/{STREAM}/{verb}")
}

fn get(payload: &str) -> Message {
    message(&mut *talk(), &stream("get/json"), payload.as_bytes())
}

fn parsed(said: &Said) -> Value {
    serde_json::from_slice(&said.payload.to_bytes()).expect("JSON")
}

fn blocks(message: &Message) -> Vec<u32> {
    let request = &message.requests[0];
    let first = *request.index.as_ref().expect("an index");
    std::iter::once(first).chain(request.more.iter().cloned().flatten()).collect()
}

#[test]
fn a_get_names_a_range_or_a_bitmap_as_clients_write_it() {
    let read = get(r#"{"s": 1,"f": 0,"l": 1024,"o": 3,"n": 4}"#);
    assert_eq!((blocks(&read), &read.quirks[..]), (vec![3, 4, 5, 6], &[][..]));
    let request = &read.requests[0];
    assert_eq!((request.image, request.trims), (Some(TAG), true));
    assert_eq!(request.size, BlockSize::Bytes(NonZeroU32::new(1024).unwrap()));
    // As a sample of the vendor's has it.
    let read = get(r#"{"f":"0","l":"60000","n":"1","o":"0"}"#);
    assert_eq!((blocks(&read), read.quirks.len()), (vec![0], 4));
    // The example of the vendor's documentation.
    assert_eq!(blocks(&get(r#"{"f":0,"l":4096,"o":20,"b":"0x130080"}"#)), [20, 21, 24, 43]);
    assert_eq!(blocks(&get(r#"{"f":0,"l":4096,"o":20,"b":"130080","n":2}"#)), [20, 21]);
    // No more than 128 KB.
    assert_eq!(blocks(&get(r#"{"f":0,"l":4096}"#)).len(), 32);
    assert_eq!(blocks(&get(r#"{"f":0,"l":4096,"n":98304}"#)).len(), 32);
    assert_eq!(
        blocks(&get(&format!(r#"{{"f":0,"l":256,"b":"{}"}}"#, "ff".repeat(12_288)))).len(),
        512
    );

    // FreeRTOS's agent: the bitmap of the whole image, and one block of it.
    let mut cbor = Encoder::new(Vec::new());
    cbor.map(6).unwrap().str("c").unwrap().str("rdy").unwrap().str("f").unwrap().u8(0).unwrap();
    cbor.str("l").unwrap().u32(4096).unwrap().str("o").unwrap().u8(0).unwrap();
    cbor.str("b").unwrap().bytes(&[0b110]).unwrap().str("n").unwrap().u8(1).unwrap();
    let read = message(&mut *talk(), &stream("get/cbor"), &cbor.into_writer());
    assert_eq!(blocks(&read), [1]);
    // With no end given, and in pieces.
    let mut cbor = Encoder::new(Vec::new());
    cbor.begin_map().unwrap().str("f").unwrap().u8(0).unwrap().str("l").unwrap().u16(256).unwrap();
    cbor.str("b")
        .unwrap()
        .begin_bytes()
        .unwrap()
        .bytes(&[1])
        .unwrap()
        .bytes(&[1])
        .unwrap()
        .end()
        .unwrap();
    cbor.str("x").unwrap().begin_array().unwrap().u8(1).unwrap().end().unwrap().end().unwrap();
    let read = message(&mut *talk(), &stream("get/cbor"), &cbor.into_writer());
    assert_eq!((blocks(&read), read.quirks), (vec![0, 8], vec![words::UNKNOWN_KEY]));
}

#[test]
fn what_is_wrong_has_its_code() {
    let many = format!(r#"{{"f":0,"l":256,"b":"{}"}}"#, "00".repeat(12_289));
    let nested = format!(r#"{{"f":0,"l":256,"x":{}1{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(get(&nested).quirks, [words::UNKNOWN_KEY], "depth costs nothing");
    for (payload, code) in [
        ("", "InvalidRequest"),
        ("{", "InvalidJson"),
        ("[]", "InvalidJson"),
        ("nonsense", "InvalidJson"),
        (r#"{"l":256}"#, "InvalidRequest"),
        (r#"{"f":0}"#, "InvalidRequest"),
        (r#"{"f":0,"l":-1}"#, "InvalidRequest"),
        (r#"{"f":0,"l":1.5}"#, "InvalidRequest"),
        (r#"{"f":0,"l":"x"}"#, "InvalidRequest"),
        (r#"{"f":0,"l":[256]}"#, "InvalidRequest"),
        (r#"{"f":0,"l":256,"b":5}"#, "InvalidRequest"),
        (r#"{"f":0,"l":256,"b":"xyz"}"#, "InvalidRequest"),
        (r#"{"f":0,"l":256,"b":"0000"}"#, "InvalidRequest"),
        (r#"{"f":0,"l":0}"#, "BlockSizeOutOfBounds"),
        (r#"{"f":0,"l":1}"#, "BlockSizeOutOfBounds"),
        (r#"{"f":0,"l":1073741824}"#, "BlockSizeOutOfBounds"),
        (r#"{"f":0,"l":18446744073709551615}"#, "BlockSizeOutOfBounds"),
        (r#"{"f":0,"l":256,"o":98305}"#, "OffsetOutOfBounds"),
        (r#"{"f":0,"l":256,"n":98305}"#, "BlockCountLimitExceeded"),
        (&many, "BlockBitmapLimitExceeded"),
        (r#"{"f":1,"l":256}"#, "ResourceNotFound"),
        (r#"{"f":0,"l":256,"s":2}"#, "VersionMismatch"),
    ] {
        let read = get(payload);
        assert_eq!(read.says.len(), 1, "{}", &payload[..payload.len().min(80)]);
        assert_eq!(&*read.says[0].topic, stream("rejected/json"));
        assert_eq!(parsed(&read.says[0])["o"], code, "{}", &payload[..payload.len().min(80)]);
    }
    // What was tolerated before is told all the same.
    for (payload, quirks) in [
        (r#"{"f":"0","l":[256]}"#, vec![words::TEXT_NUMBER]),
        (r#"{"x":1,"l":-1}"#, vec![words::UNKNOWN_KEY]),
    ] {
        let read = get(payload);
        assert_eq!((read.says.len(), read.quirks), (1, quirks), "{payload}");
    }
    let mut cbor = Encoder::new(Vec::new());
    cbor.map(2).unwrap().str("f").unwrap().str("0").unwrap().str("l").unwrap().null().unwrap();
    let read = message(&mut *talk(), &stream("get/cbor"), &cbor.into_writer());
    assert_eq!((read.says.len(), read.quirks), (1, vec![words::TEXT_NUMBER]));

    let none = "$aws/things/dev-1/streams/other/get/json";
    let read = message(&mut *talk(), none, br#"{"c":"t","f":0,"l":256}"#);
    assert_eq!(
        (&parsed(&read.says[0])["o"], &parsed(&read.says[0])["c"]),
        (&json!("ResourceNotFound"), &json!("t"))
    );

    // CBOR: truncated, with no end, of another kind, nested without end, a length of gigabytes.
    let bombs = [vec![0x9f; 20_000], vec![0xbf; 20_000], vec![0xa1; 20_000], vec![0xd8; 20_000]];
    let unknown = |value: &[u8]| [&[0xa1, 0x61, b'x'], value].concat();
    let plain: [&[u8]; 8] = [
        &[0xa6, 0x61],
        &[0xbf, 0x61, b'f'],
        &[0x80],
        &[0xff],
        b"{}",
        &[0xbf],
        &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xa1, 0x61, b'b', 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ];
    let all = plain.map(<[u8]>::to_vec).into_iter().chain(bombs.iter().map(|bomb| unknown(bomb)));
    for payload in all {
        let read = message(&mut *talk(), &stream("get/cbor"), &payload);
        let answer = read.says[0].payload.to_bytes();
        assert!(
            answer.windows(11).any(|part| part == b"InvalidCbor"),
            "{:02x?}",
            &payload[..payload.len().min(20)]
        );
    }
}

#[test]
fn blocks_are_understood_by_decoders_of_others() {
    let mut talk = talk();
    let data = Bytes::from_static(&[7; 300]);
    for token in [Some("a \"token\""), None] {
        let with = token.map_or(json!({"f": 0, "l": 300}), |c| json!({"c": c, "f": 0, "l": 300}));
        let read = message(&mut *talk, &stream("get/json"), with.to_string().as_bytes());
        let echo = &read.requests[0].echo;
        let said =
            talk.block(Block { index: 9, size: BlockSize::Pinned, echo, tag: TAG }, data.clone());
        assert_eq!(&*said.topic, stream("data/json"));
        let mut expected =
            json!({"f": 0, "l": 300, "i": 9, "p": base64_simd::STANDARD.encode_to_string(&data)});
        if let Some(token) = token {
            expected["c"] = token.into();
        }
        assert_eq!(parsed(&said), expected);
        assert_eq!(said.payload.len(), said.payload.to_bytes().len());
    }
    let mut cbor = Encoder::new(Vec::new());
    cbor.map(3)
        .unwrap()
        .str("c")
        .unwrap()
        .str("rdy")
        .unwrap()
        .str("f")
        .unwrap()
        .u8(0)
        .unwrap()
        .str("l")
        .unwrap()
        .u16(300)
        .unwrap();
    let read = message(&mut *talk, &stream("get/cbor"), &cbor.into_writer());
    let echo = &read.requests[0].echo;
    let said =
        talk.block(Block { index: 70_000, size: BlockSize::Pinned, echo, tag: TAG }, data.clone());
    assert_eq!(&*said.topic, stream("data/cbor"));
    let bytes = said.payload.to_bytes();
    let mut decoder = minicbor::Decoder::new(&bytes);
    assert_eq!(decoder.map().unwrap(), Some(5));
    assert_eq!((decoder.str().unwrap(), decoder.str().unwrap()), ("c", "rdy"));
    assert_eq!((decoder.str().unwrap(), decoder.u8().unwrap()), ("f", 0));
    assert_eq!((decoder.str().unwrap(), decoder.u64().unwrap()), ("l", 300));
    assert_eq!((decoder.str().unwrap(), decoder.u64().unwrap()), ("i", 70_000));
    assert_eq!((decoder.str().unwrap(), decoder.bytes().unwrap()), ("p", &data[..]));
    assert_eq!(decoder.position(), bytes.len());
}

#[test]
fn a_stream_is_described() {
    let mut talk = talk();
    let read = message(&mut *talk, &stream("describe/json"), br#"{"c":"t"}"#);
    let said = talk.answer(&read.questions[0], Some(&offer())).says.remove(0);
    assert_eq!(&*said.topic, stream("description/json"));
    assert_eq!(
        parsed(&said),
        json!({"c": "t", "s": 1, "d": "1.4.2", "r": [{"f": 0, "z": 10_000}]})
    );
    let said = talk.answer(&read.questions[0], None).says.remove(0);
    assert_eq!(
        (&*said.topic, &parsed(&said)["o"]),
        (&*stream("rejected/json"), &json!("ResourceNotFound"))
    );
}

#[test]
fn nobody_acts_for_another_thing_and_the_services_words_are_its_own() {
    for (topic, code) in [
        (format!("$aws/things/dev-2/streams/{STREAM}/get/json"), "/o"),
        ("$aws/things/dev-2/jobs/$next/get".into(), "/code"),
    ] {
        let read = message(&mut *talk(), &topic, br#"{"f":0,"l":256}"#);
        assert!(matches!(read.rest, Rest::Refused(_)) && read.requests.is_empty());
        assert_eq!(parsed(&read.says[0]).pointer(code), Some(&json!("Unauthorized")));
    }
    let read = Aws.begin(None).read(&Heard {
        topic: "$aws/things//jobs/get",
        payload: b"{}",
        properties: None,
    });
    assert!(matches!(read, Uplink::Message(Message { rest: Rest::Refused(_), .. })));
    for topic in [
        stream("data/json"),
        stream("rejected/cbor"),
        "$aws/things/dev-1/jobs/notify-next".into(),
        format!("$aws/things/dev-1/jobs/{JOB}/update/accepted"),
    ] {
        let read = talk().read(&Heard { topic: &topic, payload: b"{}", properties: None });
        assert!(matches!(read, Uplink::Forged { .. }), "{topic}");
    }
    for topic in [
        "$aws/things/dev-1/shadow/update",
        "$aws/rules/x",
        "$aws/things/dev-1/streams/x/get/xml",
        "$aws/things/dev-1/jobs/a/b/c",
    ] {
        assert_eq!(message(&mut *talk(), topic, b"{}").quirks, [TOPIC_NOT_SERVED], "{topic}");
    }
}

/// A job from its notification to its end, with a reboot in between.
#[test]
fn a_job_is_seen_started_updated_and_ended() {
    let mut talk = talk();
    talk.subscribed("$aws/things/dev-1/jobs/notify-next", Qos::AtLeastOnce);
    assert_eq!(talk.listens(), Some(Qos::AtLeastOnce));
    let framing = Framing { limit: u32::MAX, qos: Qos::AtLeastOnce, protocol: hook::Protocol::V5 };
    let event = talk.manifest(&offer(), &framing);
    let document = &parsed(&event)["execution"]["jobDocument"]["afr_ota"];
    assert_eq!(
        (&document["streamname"], &document["files"][0]["filesize"]),
        (&json!(STREAM), &json!(10_000))
    );

    // Who listens for one of the two events hears that one, and who listens for both hears both.
    let listing = "$aws/things/dev-1/jobs/notify";
    assert_eq!(talk.beside(&offer()), None);
    talk.subscribed(listing, Qos::AtMostOnce);
    let beside = talk.beside(&offer()).expect("the other event");
    assert_eq!((&*beside.topic, beside.qos), (listing, Some(Qos::AtMostOnce)));
    assert_eq!(parsed(&beside)["jobs"]["QUEUED"][0]["jobId"], JOB);
    talk.unsubscribed("$aws/things/dev-1/jobs/notify-next");
    assert_eq!(talk.beside(&offer()), None);
    assert_eq!(&*talk.manifest(&offer(), &framing).topic, listing);
    talk.subscribed("$aws/things/dev-1/jobs/+", Qos::AtLeastOnce);
    let gone = talk.withdrawn();
    assert_eq!(gone.iter().map(|said| &*said.topic).collect::<Vec<_>>(), [&*event.topic, listing]);
    assert_eq!((parsed(&gone[0]).get("execution"), &parsed(&gone[1])["jobs"]), (None, &json!({})));

    let mut note = None;
    let mut ask = |talk: &mut dyn Talk, rest: &str, payload: Value| {
        let topic = format!("$aws/things/dev-1/jobs/{rest}");
        let read = message(talk, &topic, payload.to_string().as_bytes());
        let offer = Offer { note: note.clone(), ..offer() };
        let answer = talk.answer(&read.questions[0], Some(&offer));
        note = answer.note.clone().or(note.take());
        let end = answer.says[0].topic.strip_prefix(&*topic).expect("the same topic").to_owned();
        (end, parsed(&answer.says[0]), answer)
    };
    let (end, said, _) = ask(&mut *talk, "$next/get", json!({"clientToken": "0:dev-1"}));
    assert_eq!(
        (&*end, &said["clientToken"], &said["execution"]["status"]),
        ("/accepted", &json!("0:dev-1"), &json!("QUEUED"))
    );
    assert_eq!(
        (&said["execution"]["jobId"], &said["execution"]["executionNumber"]),
        (&json!(JOB), &json!(2))
    );
    let (_, said, _) = ask(&mut *talk, "get", json!({}));
    assert_eq!(
        (said["queuedJobs"][0]["jobId"].as_str(), &said["inProgressJobs"]),
        (Some(JOB), &json!([]))
    );
    let (_, said, _) = ask(&mut *talk, "start-next", json!({"statusDetails": {"step": "1"}}));
    assert_eq!(
        (&said["execution"]["status"], &said["execution"]["versionNumber"]),
        (&json!("IN_PROGRESS"), &json!(2))
    );
    let update = format!("{JOB}/update");
    let (end, said, _) =
        ask(&mut *talk, &update, json!({"status": "IN_PROGRESS", "expectedVersion": 1}));
    assert_eq!(
        (&*end, &said["code"], &said["executionState"]["versionNumber"]),
        ("/rejected", &json!("VersionMismatch"), &json!(2))
    );
    // What an agent says while it fetches, and nothing that was not known.
    let fetching = json!({"status": "IN_PROGRESS", "statusDetails": {"self_test": "receiving"}});
    let (_, _, answer) = ask(&mut *self::talk(), &update, fetching);
    assert_eq!(answer.report, None);
    let ready = json!({"status": "IN_PROGRESS", "expectedVersion": "3", "includeJobExecutionState": true,
        "includeJobDocument": true, "statusDetails": {"self_test": "ready", "updatedBy": "0x10"}});
    let (_, said, answer) = ask(&mut *talk, &update, ready);
    assert_eq!(
        said["executionState"],
        json!({"status": "IN_PROGRESS", "versionNumber": 4, "statusDetails": {"self_test": "ready", "updatedBy": "0x10"}})
    );
    assert!(said["jobDocument"]["afr_ota"].is_object());
    assert_eq!(answer.report.unwrap().state, Some(super::super::ReportedState::Updating));
    // After the reboot, another connection: the details are still there.
    let (_, said, _) = ask(&mut *self::talk(), "$next/get", json!({}));
    assert_eq!(said["execution"]["statusDetails"]["self_test"], "ready");
    let (_, _, answer) = ask(&mut *talk, &update, json!({"status": "SUCCEEDED"}));
    assert_eq!(answer.report.unwrap().state, Some(super::super::ReportedState::Updated));
    assert_eq!(&*answer.says[1].topic, "$aws/things/dev-1/jobs/notify-next");
    assert_eq!(parsed(&answer.says[1]).get("execution"), None);

    let (_, _, answer) = ask(
        &mut *talk,
        &update,
        json!({"status": "FAILED", "statusDetails": {"reason": "rejected: 0x1"}}),
    );
    let failed = super::super::ReportedState::Failed("failed: rejected: 0x1".into());
    assert_eq!(answer.report.unwrap().state, Some(failed));
    for (rest, payload, code) in [
        ("other/update", json!({"status": "SUCCEEDED"}), "ResourceNotFound"),
        ("other/get", json!({}), "ResourceNotFound"),
        (&update, json!({"status": "CANCELED"}), "InvalidStateTransition"),
        (&update, json!({"status": "DONE"}), "InvalidRequest"),
        (&update, json!({}), "InvalidRequest"),
    ] {
        let (end, said, _) = ask(&mut *talk, rest, payload);
        assert_eq!((&*end, &said["code"]), ("/rejected", &json!(code)), "{rest}");
    }
}

#[test]
fn a_request_for_jobs_that_cannot_be_read_is_rejected() {
    let long =
        json!({"status": "IN_PROGRESS", "statusDetails": {"x": "y".repeat(5000)}}).to_string();
    let nested = format!(r#"{{"statusDetails":{}"#, r#"{"a":"#.repeat(20_000));
    for (payload, code) in [
        ("{", "InvalidJson"),
        ("nonsense", "InvalidJson"),
        (&nested, "InvalidJson"),
        ("[]", "InvalidRequest"),
        (r#"{"status":5}"#, "InvalidRequest"),
        (r#"{"statusDetails":"x"}"#, "InvalidRequest"),
        (&long, "InvalidRequest"),
    ] {
        let read = message(
            &mut *talk(),
            &format!("$aws/things/dev-1/jobs/{JOB}/update"),
            payload.as_bytes(),
        );
        assert_eq!(parsed(&read.says[0])["code"], code, "{}", &payload[..payload.len().min(60)]);
    }
    let tolerated = r#"{"status":"IN_PROGRESS","expectedVersion":"1","more":{"deep":[]}}"#;
    let update = format!("$aws/things/dev-1/jobs/{JOB}/update");
    let read = message(&mut *talk(), &update, tolerated.as_bytes());
    assert_eq!(read.quirks, [words::TEXT_NUMBER, words::UNKNOWN_KEY]);
    let plain = r#"{"status":"IN_PROGRESS","expectedVersion":1,"clientToken":"t"}"#;
    assert_eq!(message(&mut *talk(), &update, plain.as_bytes()).quirks, [""; 0]);
    let null = br#"{"status":"IN_PROGRESS","statusDetails":null}"#;
    assert_eq!(message(&mut *talk(), &update, null).quirks, [jobs::NULL_MEMBER]);
    let read = message(&mut *talk(), "$aws/things/dev-1/jobs/$next/get", b" \n");
    assert_eq!((read.questions.len(), read.quirks), (1, vec![jobs::EMPTY_PAYLOAD]));
    let read = message(&mut *talk(), "$aws/things/dev-1/jobs/$next/get", b"");
    assert_eq!((read.questions.len(), &read.quirks[..]), (1, &[jobs::EMPTY_PAYLOAD][..]));
    let answer = talk().answer(&read.questions[0], None);
    assert_eq!(&*answer.says[0].topic, "$aws/things/dev-1/jobs/$next/get/accepted");
    assert_eq!(parsed(&answer.says[0]).get("execution"), None);
}

proptest! {
    #[test]
    fn reading_never_panics(
        topic in prop::sample::select(vec!["streams/AFR_OTA-0102030405060708/get/json", "streams/AFR_OTA-0102030405060708/get/cbor", "streams/x/describe/cbor", "jobs/get", "jobs/x/update"]),
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let topic = format!("$aws/things/dev-1/{topic}");
        let heard = Heard { topic: &topic, payload: &payload, properties: None };
        let mut talk = talk();
        let quick = talk.read_request(&heard);
        if let (Some(quick), Uplink::Message(full)) = (quick, talk.read(&heard)) {
            prop_assert_eq!(full.requests, vec![quick]);
        }
        let _ = Aws.forgery(&payload);
    }
}
