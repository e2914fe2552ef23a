//! What is written here is understood by decoders that share no code with it: CBOR by `ciborium`,
//! JSON by `tinyjson`, base64 by `base64`, and the members as AWS's documentation names them.

use std::{collections::HashMap, num::NonZeroU32};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ciborium::Value as Cbor;
use proptest::prelude::*;
use tinyjson::JsonValue as Json;

use super::*;
use crate::{dialect::BlockSize, state::UpdateState};

/// A value of either format, as far as streams use them.
#[derive(Clone, Debug, PartialEq)]
enum Read {
    Number(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Members>),
}

type Members = HashMap<String, Read>;

fn cbor(value: Cbor) -> Read {
    match value {
        Cbor::Integer(number) => Read::Number(number.try_into().expect("no negative number")),
        Cbor::Text(text) => Read::Text(text),
        Cbor::Bytes(bytes) => Read::Bytes(bytes),
        Cbor::Array(list) => Read::List(list.into_iter().map(cbor_members).collect()),
        other => panic!("no agent knows {other:?}"),
    }
}

fn cbor_members(value: Cbor) -> Members {
    let pairs = value.into_map().expect("a map");
    let count = pairs.len();
    let pairs =
        pairs.into_iter().map(|(key, value)| (key.into_text().expect("a text"), cbor(value)));
    let members: Members = pairs.collect();
    assert_eq!(members.len(), count, "a key stands twice");
    members
}

fn json(value: Json) -> Read {
    match value {
        Json::Number(number) => Read::Number(whole(number)),
        Json::String(text) => Read::Text(text),
        Json::Array(list) => Read::List(list.into_iter().map(json_members).collect()),
        other => panic!("no agent knows {other:?}"),
    }
}

fn json_members(value: Json) -> Members {
    let Json::Object(members) = value else { panic!("no object: {value:?}") };
    members.into_iter().map(|(key, value)| (key, json(value))).collect()
}

fn whole(number: f64) -> u64 {
    assert!(number >= 0.0 && number.fract() == 0.0, "{number} is no whole number");
    number as u64
}

/// A message of a stream: what its topic says, and its members. In JSON the payload of a block is
/// a text, which is base64.
fn decode(said: &Said) -> (String, Members) {
    let bytes = said.payload.to_bytes();
    assert_eq!(bytes.len(), said.payload.len(), "the length that was promised");
    let (verb, format) = said.topic.rsplit_once('/').expect("levels");
    let mut members = match format {
        "cbor" => {
            let mut rest = &bytes[..];
            let members = cbor_members(ciborium::from_reader(&mut rest).expect("CBOR"));
            assert!(rest.is_empty(), "something follows the map");
            members
        }
        "json" => {
            let text = std::str::from_utf8(&bytes).expect("UTF-8");
            json_members(text.parse().expect("JSON"))
        }
        other => panic!("a format {other}"),
    };
    if let (Some(Read::Text(data)), "json") = (members.get("p"), format) {
        let data = STANDARD.decode(data).expect("base64");
        members.insert("p".into(), Read::Bytes(data));
    }
    (verb.to_owned(), members)
}

/// What a message holds: these, and the token where the request had one of at most 64 bytes.
fn members(fixed: &[(&str, Read)], token: Option<&str>) -> Members {
    let fixed = fixed.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    let token = token.filter(|token| token.len() <= 64).map(|token| Read::Text(token.to_owned()));
    fixed.chain(token.map(|token| ("c".to_owned(), token))).collect()
}

fn talk() -> Box<dyn Talk> {
    Aws.begin(Some(&"dev-1".into()))
}

/// A request of a stream with this token, in this format; its members are numbers.
fn ask(talk: &mut dyn Talk, topic: &str, token: Option<&str>, numbers: &[(&str, u64)]) -> Message {
    let payload = if topic.ends_with("cbor") {
        let numbers = numbers.iter().map(|(key, value)| (Cbor::from(*key), Cbor::from(*value)));
        let token = token.map(|token| (Cbor::from("c"), Cbor::from(token)));
        let mut payload = Vec::new();
        ciborium::into_writer(&Cbor::Map(numbers.chain(token).collect()), &mut payload).unwrap();
        payload
    } else {
        let numbers = numbers.iter().map(|(key, value)| ((*key).into(), (*value as f64).into()));
        let token = token.map(|token| ("c".into(), Json::String(token.into())));
        Json::Object(numbers.chain(token).collect()).stringify().unwrap().into_bytes()
    };
    match talk.read(&Heard { topic, payload: &payload, properties: None }) {
        Uplink::Message(message) => message,
        other => panic!("{topic}: {other:?}"),
    }
}

fn offer<'a>(version: &'a str, file: &'a str, sha256: &'a str) -> Offer<'a> {
    Offer {
        size: 10_000,
        total: 3,
        chunk_size: 4096,
        version,
        title: None,
        file,
        sha256,
        signature: None,
        checksum: None,
        tag: 7,
        window: 64,
        attempt: 2,
        state: UpdateState::Offered,
        note: None,
    }
}

const FORMATS: [&str; 2] = ["json", "cbor"];

/// Codes of a stream's `rejected`, as AWS lists them.
const CODES: [&str; 13] = [
    "InvalidTopic",
    "InvalidJson",
    "InvalidCbor",
    "InvalidRequest",
    "Unauthorized",
    "BlockSizeOutOfBounds",
    "OffsetOutOfBounds",
    "BlockCountLimitExceeded",
    "BlockBitmapLimitExceeded",
    "ResourceNotFound",
    "VersionMismatch",
    "ETagMismatch",
    "InternalError",
];

/// The largest whole number that a reader of JSON is sure to know.
const MOST: u64 = 1 << 53;

proptest! {
    #[test]
    fn a_block(
        index: u32, token in prop::option::of("\\PC{0,24}"),
        data in prop::collection::vec(any::<u8>(), 0..700), format in prop::sample::select(&FORMATS[..]),
    ) {
        let mut talk = talk();
        let topic = format!("$aws/things/dev-1/streams/AFR_OTA-0000000000000007/get/{format}");
        let read = ask(&mut *talk, &topic, token.as_deref(), &[("f", 0), ("l", 300)]);
        let echo = &read.requests[0].echo;
        let size = BlockSize::Bytes(NonZeroU32::new(300).unwrap());
        let said = talk.block(Block { index, size, echo, tag: 7 }, data.clone().into());
        let (topic, got) = decode(&said);
        prop_assert_eq!(topic, "$aws/things/dev-1/streams/AFR_OTA-0000000000000007/data");
        let length = Read::Number(data.len() as u64);
        let expected = [("f", Read::Number(0)), ("l", length), ("i", Read::Number(index.into())), ("p", Read::Bytes(data))];
        prop_assert_eq!(got, members(&expected, token.as_deref()));
    }

    #[test]
    fn a_description(
        size in 0..MOST, version in "\\PC{0,40}", token in prop::option::of("\\PC{0,40}"),
        tag: u64, format in prop::sample::select(&FORMATS[..]),
    ) {
        let mut talk = talk();
        let stream = format!("$aws/things/dev-1/streams/AFR_OTA-{tag:016x}");
        let read = ask(&mut *talk, &format!("{stream}/describe/{format}"), token.as_deref(), &[]);
        let offered = Offer { size, tag, ..offer(&version, "x", "ab") };
        let answer = talk.answer(&read.questions[0], Some(&offered));
        let (topic, got) = decode(&answer.says[0]);
        prop_assert_eq!(topic, format!("{stream}/description"));
        let file = [("f".to_owned(), Read::Number(0)), ("z".to_owned(), Read::Number(size))];
        let expected = [
            ("s", Read::Number(1)), ("d", Read::Text(version.clone())), ("r", Read::List(vec![file.into()])),
        ];
        prop_assert_eq!(got, members(&expected, token.as_deref()));

        // Of any other stream there is none.
        for other in [None, Some(Offer { tag: !tag, ..offered })] {
            let answer = talk.answer(&read.questions[0], other.as_ref());
            let (topic, got) = decode(&answer.says[0]);
            prop_assert_eq!(topic, format!("{stream}/rejected"));
            prop_assert_eq!(&got["o"], &Read::Text("ResourceNotFound".into()));
        }
    }

    #[test]
    fn a_rejection(
        numbers in prop::collection::btree_map(prop::sample::select(&["f", "l", "o", "n", "s"][..]), 0u64..200_000, 0..6),
        token in prop::option::of("\\PC{0,40}"), stream in prop::sample::select(&["AFR_OTA-0000000000000007", "other"][..]),
        format in prop::sample::select(&FORMATS[..]),
    ) {
        let topic = format!("$aws/things/dev-1/streams/{stream}/get/{format}");
        let numbers: Vec<_> = numbers.into_iter().collect();
        let read = ask(&mut *talk(), &topic, token.as_deref(), &numbers);
        // Few are as they should be.
        prop_assert_eq!(read.requests.len() + read.says.len(), 1);
        for said in &read.says {
            let (topic, got) = decode(said);
            prop_assert_eq!(topic, format!("$aws/things/dev-1/streams/{stream}/rejected"));
            rejection(&got, token.as_deref());
        }
    }

    #[test]
    fn a_rejection_by_the_engine(
        token in prop::option::of("\\PC{0,40}"), text in "\\PC{0,60}", index: u32, format in prop::sample::select(&FORMATS[..]),
    ) {
        let mut talk = talk();
        let stream = "$aws/things/dev-1/streams/AFR_OTA-0000000000000007";
        let read = ask(&mut *talk, &format!("{stream}/get/{format}"), token.as_deref(), &[("f", 0), ("l", 300)]);
        for trouble in [
            Trouble::PastEnd { index, total: 3 },
            Trouble::Nothing(text.clone()),
            Trouble::Unavailable(text.clone()),
            Trouble::TooMuch(text.clone()),
            Trouble::TooLarge(text.clone()),
        ] {
            let said = talk.error(&trouble, &read.requests[0].echo).expect("there is a code for each");
            let (topic, got) = decode(&said);
            prop_assert_eq!(topic, format!("{stream}/rejected"));
            rejection(&got, token.as_deref());
        }
    }

    #[test]
    fn jobs(
        size in 0..MOST, version in "\\PC{0,20}", file in "\\PC{1,20}", sha256 in "[0-9a-f]{64}", tag: u64, attempt in 1u32..100,
        token in prop::option::of("\\PC{0,20}"), details in prop::collection::hash_map("[a-z_]{1,8}", "\\PC{0,20}", 0..5),
        with_document: bool,
    ) {
        let offered = Offer { size, tag, attempt, ..offer(&version, &file, &sha256) };
        let (mut device, mut note) = (Device::new(token.clone()), None);
        let job = format!("AFR_OTA-{tag:016x}-{attempt}");
        let document = Document { size, version: version.clone(), file: file.clone(), sha256: sha256.clone(), stream: format!("AFR_OTA-{tag:016x}") };

        // Both events, before it has begun.
        device.talk.subscribed("$aws/things/dev-1/jobs/+", Qos::AtLeastOnce);
        let framing = Framing { limit: u32::MAX, qos: Qos::AtLeastOnce, protocol: hook::Protocol::V5 };
        let next = device.talk.manifest(&offered, &framing);
        prop_assert_eq!(&*next.topic, "$aws/things/dev-1/jobs/notify-next");
        let queued = Execution { job: job.clone(), status: "QUEUED".into(), version: 1, attempt, details: HashMap::new(), document: Some(document.clone()) };
        prop_assert_eq!(execution(&event(&next)), Some(queued.clone()));
        let list = device.talk.beside(&offered).expect("the other event");
        prop_assert_eq!(&*list.topic, "$aws/things/dev-1/jobs/notify");
        let list = event(&list);
        prop_assert_eq!(summaries(&object(&list["jobs"])["QUEUED"]), [(job.clone(), 1, attempt)]);

        // Asked for, with the document or without.
        let wish: Json = HashMap::from([("includeJobDocument".to_owned(), with_document.into())]).into();
        let got = device.ask("$next/get", Some(wish), Some(&offered), &mut note, "accepted");
        let document = Some(document).filter(|_| with_document);
        prop_assert_eq!(execution(&got), Some(Execution { document, ..queued }));
        let got = device.ask("get", None, Some(&offered), &mut note, "accepted");
        prop_assert_eq!((summaries(&got["queuedJobs"]), summaries(&got["inProgressJobs"])), (vec![(job.clone(), 1, attempt)], vec![]));

        // Started, and updated: the details come back as they were.
        let said: Json = HashMap::from([("statusDetails".to_owned(), texts(&details))]).into();
        let got = device.ask("start-next", Some(said), Some(&offered), &mut note, "accepted");
        let started = execution(&got).expect("it is there");
        prop_assert_eq!((&*started.status, started.version, &started.details), ("IN_PROGRESS", 2, &details));
        let update = format!("{job}/update");
        let said: Json = HashMap::from([
            ("status".to_owned(), "IN_PROGRESS".to_owned().into()),
            ("includeJobExecutionState".to_owned(), true.into()),
        ]).into();
        let got = device.ask(&update, Some(said), Some(&offered), &mut note, "accepted");
        prop_assert_eq!(state(&got), ("IN_PROGRESS".to_owned(), 3, details.clone()));
        let wrong: Json = HashMap::from([
            ("status".to_owned(), "IN_PROGRESS".to_owned().into()), ("expectedVersion".to_owned(), 1.0.into()),
        ]).into();
        let got = device.ask(&update, Some(wrong), Some(&offered), &mut note, "rejected");
        prop_assert_eq!((text(&got["code"]), state(&got).1), ("VersionMismatch".to_owned(), 3));
        prop_assert!(!text(&got["message"]).is_empty());

        // Where there is none.
        let got = device.ask("$next/get", None, None, &mut note, "accepted");
        prop_assert_eq!(execution(&got), None);
        let got = device.ask(&update, None, None, &mut note, "rejected");
        prop_assert_eq!(text(&got["code"]), "ResourceNotFound");
        let gone = device.talk.withdrawn();
        prop_assert_eq!(execution(&event(&gone[0])), None);
        prop_assert!(object(&event(&gone[1])["jobs"]).is_empty());
    }
}

/// A rejection of a stream: a code that AWS lists, a text, the token, and no more.
fn rejection(got: &Members, token: Option<&str>) {
    let (Read::Text(code), Read::Text(_)) = (&got["o"], &got["m"]) else { panic!("{got:?}") };
    assert!(CODES.contains(&&**code), "{code}");
    let fixed = [("o", got["o"].clone()), ("m", got["m"].clone())];
    assert_eq!(got, &members(&fixed, token));
}

/// A job as an agent reads it, which wants each member to be there and of its type.
#[derive(Clone, Debug, PartialEq)]
struct Execution {
    job: String,
    status: String,
    version: u64,
    attempt: u32,
    details: HashMap<String, String>,
    document: Option<Document>,
}

#[derive(Clone, Debug, PartialEq)]
struct Document {
    stream: String,
    file: String,
    size: u64,
    version: String,
    sha256: String,
}

type Object = HashMap<String, Json>;

fn object(value: &Json) -> &Object {
    value.get().unwrap_or_else(|| panic!("no object: {value:?}"))
}

fn text(value: &Json) -> String {
    value.get::<String>().unwrap_or_else(|| panic!("no text: {value:?}")).clone()
}

fn number(value: &Json) -> u64 {
    whole(*value.get::<f64>().unwrap_or_else(|| panic!("no number: {value:?}")))
}

fn list(value: &Json) -> &[Json] {
    value.get::<Vec<Json>>().unwrap_or_else(|| panic!("no list: {value:?}"))
}

fn texts(details: &HashMap<String, String>) -> Json {
    details
        .iter()
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect::<Object>()
        .into()
}

fn details(value: &Json) -> HashMap<String, String> {
    object(value).iter().map(|(key, value)| (key.clone(), text(value))).collect()
}

/// What every message about jobs is: an object that says when it was made.
fn event(said: &Said) -> Object {
    let bytes = said.payload.to_bytes();
    let read: Json = std::str::from_utf8(&bytes).expect("UTF-8").parse().expect("JSON");
    let read = object(&read).clone();
    assert!(number(&read["timestamp"]) > 1_600_000_000, "seconds since 1970");
    read
}

fn execution(said: &Object) -> Option<Execution> {
    let read = object(said.get("execution")?);
    assert_eq!(text(&read["thingName"]), "dev-1");
    for time in ["queuedAt", "lastUpdatedAt"] {
        assert!(number(&read[time]) > 1_600_000_000, "{time}");
    }
    let document = read.get("jobDocument").map(|document| {
        let ota = object(&object(document)["afr_ota"]);
        assert_eq!(list(&ota["protocols"]).iter().map(text).collect::<Vec<_>>(), ["MQTT"]);
        let [file] = list(&ota["files"]) else { panic!("one file") };
        let file = object(file);
        assert_eq!((number(&file["fileid"]), number(&file["fileType"])), (0, 0));
        // Agents want them, whatever they hold.
        assert_eq!((text(&file["certfile"]), text(&file["sig-sha256-ecdsa"])), <_>::default());
        Document {
            stream: text(&ota["streamname"]),
            file: text(&file["filepath"]),
            size: number(&file["filesize"]),
            version: text(&file["version"]),
            sha256: text(&file["sha256"]),
        }
    });
    Some(Execution {
        job: text(&read["jobId"]),
        status: text(&read["status"]),
        version: number(&read["versionNumber"]),
        attempt: number(&read["executionNumber"]) as u32,
        details: details(&read["statusDetails"]),
        document,
    })
}

/// Name, version and number of each job in a list.
fn summaries(value: &Json) -> Vec<(String, u64, u32)> {
    let summary = |value: &Json| {
        let read = object(value);
        assert!(number(&read["queuedAt"]) <= number(&read["lastUpdatedAt"]));
        (
            text(&read["jobId"]),
            number(&read["versionNumber"]),
            number(&read["executionNumber"]) as u32,
        )
    };
    list(value).iter().map(summary).collect()
}

fn state(said: &Object) -> (String, u64, HashMap<String, String>) {
    let read = object(&said["executionState"]);
    (text(&read["status"]), number(&read["versionNumber"]), details(&read["statusDetails"]))
}

/// A device that asks for its jobs with a token of its own.
struct Device {
    talk: Box<dyn Talk>,
    token: Option<String>,
}

impl Device {
    fn new(token: Option<String>) -> Device {
        Device { talk: talk(), token }
    }

    /// The answer, which must be this; what is to be kept is kept.
    fn ask(
        &mut self,
        verb: &str,
        body: Option<Json>,
        offer: Option<&Offer<'_>>,
        note: &mut Option<String>,
        answer: &str,
    ) -> Object {
        let mut body = body.map(|body| object(&body).clone()).unwrap_or_default();
        body.extend(self.token.clone().map(|token| ("clientToken".to_owned(), token.into())));
        let payload = Json::from(body).stringify().expect("JSON").into_bytes();
        let topic = format!("$aws/things/dev-1/jobs/{verb}");
        let heard = Heard { topic: &topic, payload: &payload, properties: None };
        let Uplink::Message(read) = self.talk.read(&heard) else { panic!("{topic}") };
        let offer = offer.map(|offer| Offer { note: note.clone(), ..offer.clone() });
        let answered = self.talk.answer(&read.questions[0], offer.as_ref());
        *note = answered.note.or(note.take());
        assert_eq!(&*answered.says[0].topic, &*format!("{topic}/{answer}"));
        let said = event(&answered.says[0]);
        assert_eq!(said.get("clientToken").map(text), self.token);
        said
    }
}
