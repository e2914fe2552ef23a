use super::*;
use crate::dialect::{Message, Report, ReportedState, Rest};
use crate::state::UpdateState;
use hook::{Protocol, Qos};
use proptest::prelude::*;
use serde_json::{Value, json};

fn dialect() -> Reference {
    Reference::default()
}

fn message(payload: &str) -> Message {
    match dialect().read(payload.as_bytes()) {
        Uplink::Message(message) => message,
        other => panic!("{payload}: {other:?}"),
    }
}

fn parsed(payload: &Bytes) -> Value {
    serde_json::from_slice(payload).expect("JSON")
}

#[test]
fn the_usual_request_takes_the_quick_way() {
    for payload in [
        r#"{"variable":"firmware_request","value":7,"unit":"index"}"#,
        r#"{"variable": "firmware_request", "value": 7, "unit": "index"}"#,
        "{ \"value\":7 ,\n\"unit\":\"index\",\"variable\":\"firmware_request\" }",
    ] {
        let request = dialect().read_request(payload.as_bytes()).expect(payload);
        assert_eq!(request, Request { index: Ok(7), ..Request::default() });
        assert_eq!(message(payload).requests, [request]);
    }
}

#[test]
fn the_group_is_echoed_byte_for_byte() {
    for group in ["\"a\"", "null", "1.50", "{ \"b\" : [1,  2] }", "\"\\u00e9é\"", "true", "\"\""] {
        let payload = format!(r#"{{"variable":"firmware_request","value":1,"group":{group}}}"#);
        let request = &message(&payload).requests[0];
        let block = dialect().block(1, &request.echo, Bytes::from_static(b"abc")).to_bytes();
        let expected = format!(
            r#"{{"variable":"firmware_block","value":1,"group":{group},"metadata":{{"data":"YWJj","size":3}}}}"#
        );
        assert_eq!(block, expected.as_bytes());
    }
    assert_eq!(
        dialect().block(1, &None, Bytes::from_static(b"abc")).to_bytes(),
        &br#"{"variable":"firmware_block","value":1,"metadata":{"data":"YWJj","size":3}}"#[..],
        "what was absent stays absent"
    );
    let long =
        format!(r#"{{"variable":"firmware_request","value":1,"group":"{}"}}"#, "x".repeat(2000));
    assert!(message(&long).requests[0].index.is_err());
}

#[test]
fn a_bad_index_is_a_request_with_a_problem() {
    for value in
        ["-1", "1.5", "\"x\"", "true", "null", "NaN", "Infinity", "-Infinity", "1e99", "[]"]
    {
        let payload = format!(r#"{{"variable":"firmware_request","value":{value}}}"#);
        let read = message(&payload);
        assert!(read.requests[0].index.is_err(), "{value}");
        assert_eq!(read.rest, Rest::Nothing, "{value}");
    }
}

#[test]
fn rule_25_other_elements_stay_byte_for_byte() {
    let payload = r#"[ {"variable" : "temp", "value": 1.50} , {"variable":"firmware_request","value":"3"},{"x":"é\u00e9","y":1e2}]"#;
    let read = message(payload);
    assert_eq!(read.requests, [Request { index: Ok(3), ..Request::default() }]);
    let Rest::Part(rest) = read.rest else { panic!("a part stays") };
    assert_eq!(
        rest,
        r#"[{"variable" : "temp", "value": 1.50},{"x":"é\u00e9","y":1e2}]"#.as_bytes()
    );

    let odd = r#"[{"variable":"t","value":NaN},{"variable":"firmware_request","value":0}]"#;
    assert_eq!(
        message(odd).rest,
        Rest::Part(Bytes::from_static(br#"[{"variable":"t","value":NaN}]"#))
    );

    let only =
        r#"[{"variable":"firmware_request","value":0},{"variable":"firmware_request","value":1}]"#;
    assert_eq!(message(only).rest, Rest::Nothing);
}

#[test]
fn what_is_not_ours_is_left_alone() {
    for payload in [
        "",
        "hello",
        "{",
        "[1,2]",
        "5",
        "\"firmware_request\"",
        r#"{"variable":"temp","value":1}"#,
        "[]",
        r#"{"value":"firmware_request"}"#,
        "\u{fffd}{",
    ] {
        assert_eq!(dialect().read(payload.as_bytes()), Uplink::Ordinary, "{payload}");
    }
    assert_eq!(dialect().read(b"\xff\xfe{"), Uplink::Ordinary);
}

#[test]
fn rule_24_forged_messages_are_seen_however_they_are_written() {
    for payload in [
        r#"{"variable":"firmware_manifest","value":"pending"}"#,
        r#"{"variable":"firmware_block","value":0}"#,
        r#"{"variable":"fuota_error","value":"x"}"#,
        r#"{"variable":"firmware_validation","value":"x"}"#,
        r#"{"variable":"firmware_file","metadata":{"file":{"url":"http://x/"}}}"#,
        r#"{"variable":"firmware\u005fblock","value":0}"#,
        r#"{"variable":"firmware_block","variable":"temp"}"#,
        r#"{"variable":"temp","variable":"firmware_block"}"#,
        "\u{feff}{\"variable\":\"firmware_block\"}",
        r#"[{"variable":"firmware_request","value":0},{"variable":"firmware_block","value":0}]"#,
        r#"{"variable":"firmware_block","value":NaN}"#,
        r#"{"variable":"FIRMWARE_BLOCK","value":0}"#,
        r#"{"variable":" firmware_manifest
","value":0}"#,
        r#"{"VARIABLE":"Firmware_File","value":0}"#,
    ] {
        assert!(matches!(dialect().read(payload.as_bytes()), Uplink::Forged { .. }), "{payload}");
        assert!(dialect().forgery(payload.as_bytes()).is_some(), "{payload}");
    }
    let deep =
        format!(r#"{{"variable":"firmware_block","x":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    assert!(
        matches!(dialect().read(deep.as_bytes()), Uplink::Forged { .. }),
        "depth hides nothing"
    );
    assert!(dialect().forgery(br#"{"variable":"command","value":1}"#).is_none());
    for fine in [
        r#"{"variable":"note","value":"firmware_block"}"#,
        r#"[{"variable":"note"},"firmware_block"]"#,
        "no JSON, and nothing of ours: firmware",
    ] {
        assert_eq!(dialect().read(fine.as_bytes()), Uplink::Ordinary, "{fine}");
        assert_eq!(dialect().forgery(fine.as_bytes()), None, "{fine}");
    }
}

/// What this parser refuses and others take.
#[test]
fn rule_24_forged_messages_are_seen_in_what_is_no_json() {
    for payload in [
        &br#"{"variable":"firmware_block","value":0}x"#[..],
        b"{\"variable\":\"firmware_block\",\"value\":0}\0",
        br#"{"\ud800":1,"variable":"firmware_block","value":0}"#,
        br#"{"\ud800":1,"variable":"firm\u0077are_block","value":0}"#,
        br#"[{"variable":"temp"},{"\ud800":1,"variable":"firmware_block"}]"#,
        br#"[[{"variable":"firmware_block"}]]"#,
        b"{\"x\":\"\xff\",\"variable\":\"firmware_manifest\"}",
        b"{/* a comment */\"variable\":\"fuota_error\"}",
        b"{'variable':'firmware_block','value':0}",
        b"{variable:\"firm\\x77are_file\",}",
        br#"{"Variable":"firmware_block","value":0}"#,
        br#"{"variable":"firmware_block","value":NaN}x"#,
    ] {
        let shown = String::from_utf8_lossy(payload);
        assert!(matches!(dialect().read(payload), Uplink::Forged { .. }), "{shown}");
        assert!(dialect().forgery(payload).is_some(), "{shown}");
    }
}

#[test]
fn rule_17_at_most_64_requests_in_one_message() {
    let many = vec![r#"{"variable":"firmware_request","value":0}"#; 65];
    let read = message(&format!("[{}]", many.join(",")));
    assert_eq!(read.requests.len(), 64);
    assert!(read.too_many);
    assert!(!message(&format!("[{}]", many[..64].join(","))).too_many);
}

#[test]
fn a_status_is_read_and_goes_on() {
    let read = message(
        r#"{"variable":"firmware_status","value":"failed","metadata":{"model":"m1","version":"1.2","reason":"flash"}}"#,
    );
    let report = read.report.expect("a report");
    assert_eq!((report.model.as_deref(), report.version.as_deref()), (Some("m1"), Some("1.2")));
    assert_eq!(report.state, Some(ReportedState::Failed("flash".into())));
    assert_eq!(read.rest, Rest::All);
    let odd = message(r#"{"variable":"firmware_status","value":3,"metadata":{"model":5}}"#);
    assert_eq!(odd.report, Some(Report::default()));
}

#[test]
fn a_manifest_is_the_references_and_more() {
    let manifest = Offer {
        window: 64,
        file: "t.bin",
        tag: 0,
        attempt: 1,
        state: UpdateState::Offered,
        note: None,
        size: 10_000,
        total: 3,
        chunk_size: 4096,
        version: "1.\"0",
        title: Some("t"),
        sha256: "ab",
        signature: None,
        checksum: None,
    };
    assert_eq!(
        parsed(&dialect().manifest(&manifest, false)),
        json!({
            "variable": "firmware_manifest", "value": "pending", "metadata": {
                "total_size": 10_000, "total_chunks": 3, "chunk_size": 4096, "version": "1.\"0", "sha256": "ab", "title": "t", "window": 64
            }
        })
    );
    assert!(parsed(&dialect().manifest(&manifest, true))["metadata"].get("sha256").is_none());
    assert_eq!(
        parsed(&dialect().error("no \"x\"", &None)),
        json!({"variable": "fuota_error", "value": "no \"x\""})
    );
}

fn framing(limit: u32, qos: Qos, protocol: Protocol) -> Framing {
    Framing { limit, qos, protocol }
}

proptest! {
    #[test]
    fn rule_18_the_whole_publish_fits(
        limit in 200u32..9000, image in 1u64..10_000_000, v5: bool, qos in 0u8..3, wanted in 1u32..8192,
    ) {
        let protocol = if v5 { Protocol::V5 } else { Protocol::V311 };
        let framing = framing(limit, Qos::from_bits(qos).expect("below 3"), protocol);
        if let Some(chunk) = dialect().chunk_size(wanted, image, &framing) {
            prop_assert!(chunk >= 1 && chunk <= wanted);
            let group: Echo = Some(Arc::from(&b"\"0123456789abcdef01234567\""[..]));
            let last = (image.div_ceil(u64::from(chunk)) - 1) as u32;
            let block = dialect().block(last, &group, vec![0; chunk as usize].into());
            prop_assert!(framing.publish_size(TOPIC, block.len()) <= limit as usize);
        } else {
            prop_assert!(limit < 260, "there is room for a chunk in {limit}");
        }
    }

    #[test]
    fn the_quick_way_agrees_with_the_full_one(payload in request_like()) {
        if let Some(quick) = dialect().read_request(payload.as_bytes()) {
            prop_assert_eq!(message(&payload).requests, vec![quick]);
        }
    }

    #[test]
    fn reading_never_panics(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = dialect().read(&payload);
        let _ = dialect().read_request(&payload);
        let _ = dialect().forgery(&payload);
    }

    #[test]
    fn a_block_decodes_to_its_bytes(index: u32, data in prop::collection::vec(any::<u8>(), 0..600)) {
        let block = parsed(&dialect().block(index, &None, data.clone().into()).to_bytes());
        prop_assert_eq!(&block["value"], &json!(index));
        prop_assert_eq!(&block["metadata"]["size"], &json!(data.len()));
        let text = block["metadata"]["data"].as_str().expect("text");
        prop_assert_eq!(base64_simd::STANDARD.decode_to_vec(text).expect("base64"), data);
    }
}

/// Texts near a request: right ones, and with members doubled, dropped, escaped or cut.
fn request_like() -> impl Strategy<Value = String> {
    let member = prop::sample::select(vec![
        r#""variable":"firmware_request""#,
        r#""variable":"temp""#,
        r#""value":5"#,
        r#""value": 007"#,
        r#""value":12.0"#,
        r#""value":"5""#,
        r#""unit":"index""#,
        r#""group":"g1""#,
        r#""group":"g\u0031""#,
        r#""group":7"#,
        r#""x":1"#,
        r#""value":999999999"#,
        r#""value":9999999999"#,
        "",
    ]);
    (prop::collection::vec(member, 1..5), prop::sample::select(vec!["}", " } ", "", "}}", ",}"]))
        .prop_map(|(members, end)| format!("{{{}{end}", members.join(",")))
}

#[test]
fn one_request_may_name_many_blocks() {
    let blocks = |text: &str| match Reference::default().read(text.as_bytes()) {
        Uplink::Message(message) => {
            let request = message.requests.into_iter().next().unwrap();
            request.index.map(|index| (index, request.more))
        }
        other => panic!("{text}: {other:?}"),
    };
    let ask = |rest: &str| blocks(&format!(r#"{{"variable":"firmware_request",{rest}}}"#));
    #[allow(clippy::single_range_in_vec_init)]
    for (rest, expected) in [
        (r#""value":3,"metadata":{"count":4}"#, (3, vec![4..7])),
        (r#""value":3,"metadata":{"count":"1"}"#, (3, vec![])),
        (r#""value":3,"metadata":{"count":4294967294}"#, (3, vec![4..u32::MAX])),
        (r#""value":3,"metadata":{"color":"red"}"#, (3, vec![])),
        (r#""value":3,"metadata":5"#, (3, vec![])),
        (r#""metadata":{"missing":[9,2,3,3,4,"7"]}"#, (2, vec![3..5, 7..8, 9..10])),
        (r#""value":"all","metadata":{"missing":[5]}"#, (5, vec![])),
    ] {
        assert_eq!(ask(rest), Ok(expected), "{rest}");
    }
    let many: Vec<_> = (0..2000).map(|index| index.to_string()).collect();
    for (rest, why) in [
        (r#""value":3,"metadata":{"count":0}"#.to_owned(), "at least one"),
        (r#""value":3,"metadata":{"count":-1}"#.into(), "not a number of blocks"),
        (r#""metadata":{"count":3}"#.into(), "names no chunk"),
        (r#""metadata":{"missing":[]}"#.into(), "is empty"),
        (r#""metadata":{"missing":[1,"x"]}"#.into(), "not a number"),
        (format!(r#""metadata":{{"missing":[{}]}}"#, many.join(",")), "more than 1024"),
    ] {
        let problem = ask(&rest).unwrap_err();
        assert!(problem.contains(why), "{problem}");
    }
}
