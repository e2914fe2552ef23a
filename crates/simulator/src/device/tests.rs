//! Devices against a little server of the test's own: scripted runs, then random faults.

use std::collections::{BTreeSet, VecDeque};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::assembly::tests::{chunk, digest_of};
use crate::wire;

pub(super) fn behaviour() -> Behaviour {
    Behaviour {
        pace: Duration::ZERO,
        window: 1,
        retry_after: Duration::from_secs(2),
        max_retries: 10,
        strict_reference: false,
        resume: false,
        expect_sha256: None,
        trusted_key: None,
        max_image: 1 << 20,
        keep_image: true,
    }
}

fn manifest(image: &[u8], chunk_size: u32) -> Vec<u8> {
    json!({"variable": "firmware_manifest", "value": "pending", "metadata": {
        "total_size": image.len(), "total_chunks": image.len().div_ceil(chunk_size as usize),
        "chunk_size": chunk_size, "version": "1.0", "sha256": digest_of(image),
    }})
    .to_string()
    .into_bytes()
}

fn block(image: &[u8], chunk_size: u32, index: u32) -> Vec<u8> {
    let data = chunk(image, chunk_size, index);
    json!({"variable": "firmware_block", "value": index,
        "metadata": {"data": STANDARD.encode(&data), "size": data.len()}})
    .to_string()
    .into_bytes()
}

/// A device with a clock, whose actions each step returns.
struct Bench {
    device: Device,
    now: Instant,
}

impl Bench {
    fn new(behaviour: Behaviour) -> Self {
        let mut bench = Self { device: Device::new(behaviour), now: Instant::now() };
        assert_eq!(bench.step(Event::Connected), []);
        bench
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.device.step(self.now, event, &mut actions);
        actions
    }

    fn receive(&mut self, payload: &[u8]) -> Vec<Action> {
        wire::decode(payload)
            .into_iter()
            .flat_map(|message| self.step(Event::Heard(message)))
            .collect()
    }

    /// Lets the time pass to the next wake.
    fn wake(&mut self) -> Vec<Action> {
        self.now = self.device.next_wake().expect("something to wait for");
        self.step(Event::Woken)
    }
}

const IMAGE: &[u8] = b"0123456789";

#[test]
fn a_whole_download() {
    let mut bench = Bench::new(behaviour());
    assert_eq!(bench.receive(&manifest(IMAGE, 4)), [Action::Started(3), Action::Request(0)]);
    assert_eq!(bench.receive(&block(IMAGE, 4, 0)), [Action::Request(1)]);
    assert_eq!(bench.device.progress(), Some((1, 3)));
    assert_eq!(bench.receive(&block(IMAGE, 4, 1)), [Action::Request(2)]);
    let [Action::Complete(verified)] = &bench.receive(&block(IMAGE, 4, 2))[..] else { panic!() };
    assert_eq!(verified.image.as_deref(), Some(IMAGE));
    assert_eq!(bench.device.next_wake(), None);
    assert_eq!(bench.receive(&manifest(IMAGE, 4)), [], "a finished device wants no more");
}

#[test]
fn the_pace_delays_the_next_request() {
    let pace = Duration::from_millis(100);
    let mut bench = Bench::new(Behaviour { pace, ..behaviour() });
    bench.receive(&manifest(IMAGE, 4));
    let before = bench.now;
    assert_eq!(bench.receive(&block(IMAGE, 4, 0)), []);
    assert_eq!(bench.wake(), [Action::Request(1)]);
    assert_eq!(bench.now - before, pace);
}

#[test]
fn a_new_manifest_drops_what_was_there() {
    let mut bench = Bench::new(behaviour());
    bench.receive(&manifest(IMAGE, 4));
    bench.receive(&block(IMAGE, 4, 0));
    let other = b"ABCDEFGH";
    assert_eq!(bench.receive(&manifest(other, 4)), [Action::Started(2), Action::Request(0)]);
    bench.receive(&block(other, 4, 0));
    let [Action::Complete(verified)] = &bench.receive(&block(other, 4, 1))[..] else { panic!() };
    assert_eq!(verified.image.as_deref(), Some(&other[..]));
}

#[test]
fn a_reboot_waits_for_the_manifest_again_but_a_reconnect_goes_on() {
    let mut bench = Bench::new(behaviour());
    bench.receive(&manifest(IMAGE, 4));
    bench.receive(&block(IMAGE, 4, 0));
    assert_eq!(bench.step(Event::Disconnected), []);
    assert_eq!(bench.device.next_wake(), None, "nothing can be sent");
    assert_eq!(bench.step(Event::Connected), [Action::Request(1)]);
    assert_eq!(bench.step(Event::Rebooted), []);
    assert_eq!(bench.step(Event::Connected), []);
    assert_eq!(bench.device.progress(), None);
    assert_eq!(bench.receive(&block(IMAGE, 4, 1)), [], "a late block means nothing");
    assert_eq!(bench.receive(&manifest(IMAGE, 4)), [Action::Started(3), Action::Request(0)]);
}

#[test]
fn giving_up_names_the_servers_error() {
    let mut bench = Bench::new(Behaviour { max_retries: 1, ..behaviour() });
    bench.receive(&manifest(IMAGE, 4));
    bench.receive(br#"{"variable":"fuota_error","value":"the update was withdrawn"}"#);
    assert_eq!(bench.wake(), [Action::Request(0)]);
    let [Action::Fail(failure)] = &bench.wake()[..] else { panic!() };
    assert_eq!(failure.kind(), "no answer");
    assert!(failure.to_string().ends_with("withdrawn"), "{failure}");
    assert_eq!(bench.device.counts().retries, 1);
}

#[test]
fn refuses_an_image_that_is_too_large_or_another() {
    let mut bench = Bench::new(Behaviour { max_image: 9, ..behaviour() });
    let [Action::Fail(failure)] = &bench.receive(&manifest(IMAGE, 4))[..] else { panic!() };
    assert_eq!(failure.kind(), "image too large");

    let expect_sha256 = Some(digest_of(b"another"));
    let mut bench = Bench::new(Behaviour { expect_sha256, ..behaviour() });
    bench.receive(&manifest(IMAGE, 10));
    let [Action::Fail(failure)] = &bench.receive(&block(IMAGE, 10, 0))[..] else { panic!() };
    assert_eq!(failure.kind(), "wrong digest");
}

#[test]
fn the_strict_reference_never_asks_twice_and_reports_a_missing_chunk() {
    let mut bench = Bench::new(Behaviour { strict_reference: true, window: 8, ..behaviour() });
    assert_eq!(bench.receive(&manifest(IMAGE, 4)), [Action::Started(3), Action::Request(0)]);
    assert_eq!(bench.device.next_wake(), None, "it waits for ever");
    assert_eq!(bench.receive(&block(IMAGE, 4, 1)), [Action::Request(2)]);
    let [Action::Fail(failure)] = &bench.receive(&block(IMAGE, 4, 2))[..] else { panic!() };
    assert_eq!(failure.to_string(), "chunk 0 is missing");
}

#[test]
fn malformed_messages_are_counted_and_survived() {
    let mut bench = Bench::new(behaviour());
    bench.receive(&manifest(IMAGE, 4));
    let odd = br#"{"variable":"firmware_block","value":"x","metadata":{}}"#;
    assert_eq!(bench.receive(odd), []);
    assert_eq!(bench.device.counts().malformed, 1);
    assert!(bench.device.complaint().unwrap().starts_with("firmware_block"));
}

/// What the network does to one message.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    /// It overtakes what is under way.
    Overtakes,
    /// It arrives, and then the connection drops with all that is under way.
    ThenReconnect,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Arrives),
        2 => Just(Fate::Lost),
        2 => Just(Fate::Twice),
        2 => Just(Fate::Overtakes),
        1 => Just(Fate::ThenReconnect),
    ]
}

proptest! {
    /// Whatever the network does for a while, the device has the image in the end, and never has
    /// more requests under way than its window.
    #[test]
    fn the_image_arrives_through_any_faults(
        image in prop::collection::vec(any::<u8>(), 1..600),
        chunk_size in 1u32..64,
        window in 1u16..9,
        pace in 0u64..300,
        fates in prop::collection::vec(fate(), 0..200),
    ) {
        let pace = Duration::from_millis(pace);
        // Two fates for one attempt can both be a loss.
        let max_retries = fates.len() as u32 + 1;
        let mut bench = Bench::new(Behaviour { window, pace, max_retries, ..behaviour() });
        let mut fates = fates.into_iter();
        let mut actions: VecDeque<Action> = bench.receive(&manifest(&image, chunk_size)).into();
        let mut under_way: VecDeque<u32> = VecDeque::new();
        let mut unanswered = BTreeSet::new();
        let verified = loop {
            match actions.pop_front() {
                Some(Action::Request(index)) => {
                    unanswered.insert(index);
                    prop_assert!(unanswered.len() <= window.into());
                    match fates.next().unwrap_or(Fate::Arrives) {
                        Fate::Lost => {}
                        Fate::Twice => under_way.extend([index, index]),
                        Fate::Overtakes => under_way.push_front(index),
                        Fate::Arrives | Fate::ThenReconnect => under_way.push_back(index),
                    }
                    continue;
                }
                Some(Action::Complete(verified)) => break verified,
                Some(Action::Started(_)) => continue,
                Some(Action::Fail(failure)) => panic!("{failure}"),
                None => {}
            }
            let Some(index) = under_way.pop_front() else {
                actions.extend(bench.wake());
                continue;
            };
            let payload = block(&image, chunk_size, index);
            let fate = fates.next().unwrap_or(Fate::Arrives);
            if !matches!(fate, Fate::Lost) {
                unanswered.remove(&index);
            }
            match fate {
                Fate::Lost => {}
                Fate::Twice => {
                    actions.extend(bench.receive(&payload));
                    actions.extend(bench.receive(&payload));
                }
                Fate::Arrives | Fate::Overtakes => actions.extend(bench.receive(&payload)),
                Fate::ThenReconnect => {
                    actions.extend(bench.receive(&payload));
                    // What was asked in that moment still went out; its answers are lost.
                    actions.retain(|action| !matches!(action, Action::Request(_)));
                    under_way.clear();
                    bench.step(Event::Disconnected);
                    actions.extend(bench.step(Event::Connected));
                }
            }
        };
        prop_assert_eq!(verified.image, Some(image));
    }

    /// The reference device downloads from a faultless network, at any size.
    #[test]
    fn the_strict_reference_arrives_without_faults(
        image in prop::collection::vec(any::<u8>(), 1..600),
        chunk_size in 1u32..64,
    ) {
        let mut bench = Bench::new(Behaviour { strict_reference: true, ..behaviour() });
        let mut actions = bench.receive(&manifest(&image, chunk_size));
        for index in 0.. {
            match &actions[..] {
                [Action::Complete(verified)] => {
                    prop_assert_eq!(verified.image.as_ref(), Some(&image));
                    break;
                }
                [.., Action::Request(asked)] => prop_assert_eq!(*asked, index),
                other => panic!("{other:?}"),
            }
            actions = bench.receive(&block(&image, chunk_size, index));
        }
    }
}

#[test]
fn one_that_resumes_keeps_what_it_has_over_reboots_and_repeated_manifests() {
    let image: Vec<u8> = (0..50).collect();
    let requests = |resume: bool| {
        let mut device = Device::new(Behaviour { resume, ..behaviour() });
        let (now, mut actions) = (Instant::now(), Vec::new());
        let hear =
            |bytes: Vec<u8>| Event::Heard(wire::decode(&bytes).pop().expect("for the device"));
        for event in [
            Event::Connected,
            hear(manifest(&image, 10)),
            hear(block(&image, 10, 0)),
            Event::Rebooted,
            Event::Connected,
            hear(manifest(&image, 10)),
        ] {
            device.step(now, event, &mut actions);
        }
        actions.retain(|action| matches!(action, Action::Request(_)));
        actions
    };
    let asked =
        |chunks: &[u32]| chunks.iter().map(|chunk| Action::Request(*chunk)).collect::<Vec<_>>();
    // What it waited for it asks for again, once.
    assert_eq!(requests(true), asked(&[0, 1, 1]));
    assert_eq!(requests(false), asked(&[0, 1, 0]));
}
