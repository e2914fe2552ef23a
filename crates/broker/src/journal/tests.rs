//! Records and files, for any content.

use bytes::{Bytes, BytesMut};
use hook::{Identity, Properties, Protocol, Qos, Role};
use proptest::prelude::*;
use std::{sync::Arc, time::Duration};

use super::{
    file::{self, Fault, HEADER},
    image::{Image, Promised},
    record::{Mark, Next, Owner, Published, Record, Retained, Target},
};
use crate::{
    backlog::Owed,
    message::{Carried, Message, Share},
    session::Will,
    subscriptions::Held,
};

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)]
}

/// Few sessions and deliveries, so that records meet each other.
fn session() -> impl Strategy<Value = u64> {
    1u64..4
}

fn delivery() -> impl Strategy<Value = u64> {
    1u64..12
}

fn owner() -> impl Strategy<Value = Owner> {
    let role = prop_oneof![
        Just(Role::Anonymous),
        Just(Role::Device),
        Just(Role::Service),
        Just(Role::Operator),
        Just(Role::Admin)
    ];
    let protocol = prop_oneof![Just(Protocol::V311), Just(Protocol::V5)];
    (role, protocol, any::<Option<String>>()).prop_map(|(role, protocol, name)| Owner {
        identity: Identity { name: name.map(Arc::from), role },
        protocol,
    })
}

fn held() -> impl Strategy<Value = Held> {
    (qos(), any::<[bool; 3]>(), prop::option::of(1u32..1000)).prop_map(
        |(qos, [no_local, retain_as_published, consumed], identifier)| Held {
            qos,
            no_local,
            retain_as_published,
            identifier,
            consumed,
        },
    )
}

fn published() -> impl Strategy<Value = Record> {
    let properties = prop::option::of((any::<bool>(), "[a-zé]{0,4}").prop_map(|(utf8, text)| {
        Box::new(Properties {
            payload_is_utf8: Some(utf8),
            content_type: Some(text.clone()),
            user_properties: vec![(text.clone(), text)],
            ..Properties::default()
        })
    }));
    let rest = (prop::option::of(1u32..9), prop::option::of("[a-c/]{1,3}"));
    let target = (session(), delivery(), qos(), any::<bool>(), rest).prop_map(
        |(session, delivery, qos, retain, (id, share))| Target {
            session,
            delivery,
            qos,
            retain,
            subscriptions: id.map(|id| Arc::from([id])),
            share: share.map(|share| Arc::new(Share(share.into()))),
        },
    );
    (
        ("[ab]{1,2}", prop::collection::vec(any::<u8>(), 0..40), qos(), 1u64..50),
        (
            (any::<bool>(), prop::option::of((session(), delivery()))),
            prop::option::of((session(), 1u16..5)),
            properties,
        ),
        prop::collection::vec(target, 0..4),
    )
        .prop_map(
            |(
                (topic, payload, qos, sequence),
                ((retained, instead), received, properties),
                targets,
            )| {
                Record::Publish(Box::new(Published {
                    message: Arc::new(Message {
                        topic: topic.into(),
                        payload: payload.into(),
                        qos,
                        retain: retained,
                        properties: properties.map(Carried::from),
                        publisher: 0,
                        sequence,
                        expires: None,
                    }),
                    at: 7,
                    retained,
                    received,
                    instead,
                    targets,
                }))
            },
        )
}

fn will(session: u64) -> impl Strategy<Value = Box<Will>> {
    ("[ab]{1,2}", "[xy]{0,3}", any::<u32>(), prop::option::of(any::<u32>())).prop_map(
        move |(topic, payload, delay, expiry_seconds)| {
            let properties = expiry_seconds
                .map(|_| Box::new(Properties { expiry_seconds, ..Properties::default() }).into());
            let message = Arc::into_inner(message(&topic, payload, 0)).unwrap();
            let message = Arc::new(Message { publisher: session, properties, ..message });
            Box::new(Will { message, delay: Duration::from_secs(delay.into()) })
        },
    )
}

fn owed() -> impl Strategy<Value = Owed> {
    let rest = (prop::option::of(1u32..9), prop::option::of("[ab/]{1,3}"));
    ("[ab+#]{1,2}", qos(), 0u64..50, rest).prop_map(|(filter, qos, newest, (identifier, after))| {
        Owed { filter: filter.into(), qos, identifier, newest, after: after.map(Arc::from) }
    })
}

/// By its place, which another record may have filled or not, or whole.
fn retained() -> impl Strategy<Value = Retained> {
    prop_oneof![
        ("[ab]{1,2}", 1u64..50)
            .prop_map(|(topic, sequence)| Retained::Place { topic: topic.into(), sequence }),
        ("[ab]{1,2}", "[xy]{1,3}", 1u64..50).prop_map(|(topic, payload, sequence)| {
            Retained::Message { message: message(&topic, payload, sequence), at: 7 }
        }),
    ]
}

fn message(topic: &str, payload: impl Into<Bytes>, sequence: u64) -> Arc<Message> {
    Arc::new(Message {
        topic: topic.into(),
        payload: payload.into(),
        qos: Qos::AtLeastOnce,
        retain: true,
        properties: None,
        publisher: 0,
        sequence,
        expires: None,
    })
}

fn retain(topic: &str, payload: &'static str, sequence: u64) -> Record {
    Record::Publish(Box::new(Published {
        message: message(topic, payload, sequence),
        at: 0,
        retained: true,
        received: None,
        instead: None,
        targets: Vec::new(),
    }))
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        3 => (session(), "[a-zé/]{0,5}", owner(), any::<u32>()).prop_map(
            |(session, id, owner, expiry)| Record::Begin {
                session, client_id: id.into(), owner, expiry }),
        1 => (session(), owner(), any::<u32>()).prop_map(
            |(session, owner, expiry)| Record::Resume { session, owner, expiry }),
        1 => (session(), any::<u64>(), any::<u32>()).prop_map(
            |(session, at, expiry)| Record::Leave { session, at, expiry }),
        1 => session().prop_map(|session| Record::End { session }),
        2 => (session(), "[a-c+#]{1,3}", held()).prop_map(
            |(session, filter, held)| Record::Subscribe { session, filter: filter.into(), held }),
        1 => (session(), "[a-c+#]{1,3}").prop_map(
            |(session, filter)| Record::Unsubscribe { session, filter: filter.into() }),
        5 => published(),
        1 => (session(), 1u16..5).prop_map(
            |(session, packet_id)| Record::Received { session, packet_id }),
        1 => (session(), 1u16..5).prop_map(
            |(session, packet_id)| Record::Released { session, packet_id }),
        2 => (session(), delivery(), 1u16..9).prop_map(
            |(session, delivery, packet_id)| Record::Sent { session, delivery, packet_id }),
        1 => (session(), delivery()).prop_map(
            |(session, delivery)| Record::Confirmed { session, delivery }),
        1 => (session(), delivery(), 1u16..9).prop_map(
            |(session, delivery, packet_id)| Record::Confirming { session, delivery, packet_id }),
        1 => (session(), delivery()).prop_map(
            |(session, delivery)| Record::Done { session, delivery }),
        2 => (session(), delivery(), owed()).prop_map(
            |(session, backlog, owed)| Record::Owe { session, backlog, owed: Box::new(owed) }),
        2 => (session(), delivery(), delivery(), retained()).prop_map(
            |(session, backlog, delivery, what)| Record::Serve { session, backlog, delivery, what }),
        1 => (session(), delivery()).prop_map(
            |(session, backlog)| Record::Served { session, backlog }),
        2 => session().prop_flat_map(|session| prop::option::of(will(session)).prop_map(
            move |will| Record::Will { session, will })),
        1 => any::<[u64; 2]>().prop_map(|[log, synced]| Record::Mark(Mark { log, synced })),
        1 => any::<[u64; 3]>().prop_map(|[session, delivery, sequence]| Record::Next(Next {
            session: session / 2, delivery: delivery / 2, sequence: sequence / 2 })),
    ]
}

fn log(records: &[Record]) -> BytesMut {
    let mut bytes = file::header();
    records.iter().for_each(|record| file::put(&mut bytes, record));
    bytes
}

fn image(records: impl IntoIterator<Item = Record>) -> Image {
    let mut image = Image::default();
    records.into_iter().for_each(|record| image.apply(record));
    image
}

/// What an image holds, in an order of its own.
fn shown(image: &Image) -> Vec<String> {
    let mut retained: Vec<String> = image.retained().map(|m| format!("{m:?}")).collect();
    retained.sort();
    retained.push(format!("{:?} {:?}", image.sessions, image.next));
    retained
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(record in record()) {
        let mut bytes = BytesMut::new();
        record.encode(&mut bytes);
        let read = Record::decode(&bytes);
        prop_assert_eq!(format!("{:?}", read), format!("{:?}", Ok::<_, ()>(record)));
        prop_assert!(Record::decode(&bytes[..bytes.len() - 1]).is_err(), "all of it is needed");
    }

    /// A start reads the state that the broker had, from the log as from a snapshot.
    #[test]
    fn a_snapshot_says_what_the_log_said(records in prop::collection::vec(record(), 0..60)) {
        let direct = image(records.clone());
        let mut read = Image::default();
        let bytes = log(&records);
        prop_assert_eq!(file::read(&bytes, |r| read.apply(r)), (bytes.len() as u64, None));
        prop_assert_eq!(shown(&read), shown(&direct));
        let mut snapshot = Vec::new();
        direct.records(7, |record| snapshot.push(record));
        prop_assert_eq!(shown(&image(snapshot)), shown(&direct));
    }

    /// Whatever is done to a file, what is read is a beginning of what was written.
    #[test]
    fn damage_ends_the_reading(
        records in prop::collection::vec(record(), 1..12),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        cut in any::<bool>(),
    ) {
        let mut bytes = log(&records);
        let at = HEADER + at.index(bytes.len() - HEADER);
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
        let mut read = Vec::new();
        let (good, fault) = file::read(&bytes, |record| read.push(format!("{record:?}")));
        prop_assert!(good as usize <= at);
        // A cut between two records leaves nothing to see.
        let torn = matches!(fault, Some(Fault::Torn(at) | Fault::Damaged(at)) if at == good);
        prop_assert!(torn || cut && good as usize == at, "{good} {fault:?}");
        let written: Vec<String> = records.iter().map(|record| format!("{record:?}")).collect();
        prop_assert!(read.len() < written.len() && written.starts_with(&read));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Record::decode(&bytes);
        file::read(&bytes, |_| {});
        let framed = [&file::header()[..], &bytes].concat();
        let (good, _) = file::read(&framed, |_| {});
        prop_assert!(good as usize >= HEADER);
    }
}

/// Two publishes on one topic are written in another order than they were made in.
#[test]
fn the_later_retained_message_stands_whichever_was_written_first() {
    let put = |payload, sequence| retain("t", payload, sequence);
    for (records, expected) in [
        ([put("new", 2), put("old", 1)], Some("new")),
        ([put("", 2), put("old", 1)], None),
        ([put("old", 1), put("", 2)], None),
    ] {
        let mut image = image(records);
        let now = |image: &Image| image.retained().next().map(|m| m.payload.clone());
        assert_eq!(now(&image).as_deref(), expected.map(str::as_bytes));
        image.prune(1);
        image.apply(put("old", 1));
        assert_eq!(now(&image).as_deref(), expected.map(str::as_bytes), "after a snapshot");
    }
}

/// What is owed is named by its place in the log as long as that is where it stands, and written
/// whole where it was replaced or never written.
#[test]
fn a_retained_message_is_named_by_its_place_while_it_has_it() {
    let owner = Owner { identity: Identity::ANONYMOUS, protocol: Protocol::V5 };
    let (filter, qos) = (Box::from("#"), Qos::ExactlyOnce);
    let owed = Owed { filter, qos, identifier: Some(3), newest: 9, after: None };
    let begun = [
        Record::Begin { session: 1, client_id: "c".into(), owner, expiry: 1 },
        Record::Owe { session: 1, backlog: 7, owed: Box::new(owed) },
        retain("t", "here", 5),
    ];
    for (topic, payload, sequence, by_place) in
        [("t", "here", 5, true), ("t", "replaced", 4, false), ("u", "on its way", 6, false)]
    {
        let mut image = image(begun.clone());
        let what = Retained::Message { message: message(topic, payload, sequence), at: 7 };
        let mut record = Record::Serve { session: 1, backlog: 7, delivery: 8, what };
        image.refer(&mut record);
        let mut bytes = BytesMut::new();
        record.encode(&mut bytes);
        let written = bytes.windows(payload.len()).any(|window| window == payload.as_bytes());
        assert_eq!(written, !by_place, "{payload}");
        image.apply(Record::decode(&bytes).unwrap());
        let session = &image.sessions[&1];
        let Promised::Message { message, target, .. } = &session.deliveries[&8] else {
            panic!("{session:?}")
        };
        assert_eq!((&*message.topic, &message.payload[..]), (topic, payload.as_bytes()));
        assert_eq!((target.qos, target.retain), (Qos::AtLeastOnce, true));
        assert_eq!(target.subscriptions.as_deref(), Some(&[3][..]));
        assert_eq!(session.backlogs[&7].after.as_deref(), Some(topic), "it goes on behind it");
        assert_eq!(image.next.delivery, 9);
    }
}

/// A broker's own topics take places in the order of retained messages, and are not in the log:
/// what is published after a start would seem to be owed, and come twice.
#[test]
fn what_is_published_later_is_not_among_what_is_owed() {
    let owner = Owner { identity: Identity::ANONYMOUS, protocol: Protocol::V5 };
    let (filter, qos) = (Box::from("#"), Qos::AtLeastOnce);
    let owed = Owed { filter, qos, identifier: None, newest: 9, after: None };
    let image = image([
        Record::Begin { session: 1, client_id: "c".into(), owner, expiry: 1 },
        retain("t", "x", 5),
        Record::Owe { session: 1, backlog: 7, owed: Box::new(owed) },
    ]);
    assert_eq!(image.next.sequence, 10);
}

/// Numbers at their end, as a damaged file may have them.
#[test]
fn the_last_numbers_do_not_overflow() {
    let owner = Owner { identity: Identity::ANONYMOUS, protocol: Protocol::V5 };
    let target = Target {
        session: u64::MAX,
        delivery: u64::MAX,
        qos: Qos::AtLeastOnce,
        retain: false,
        subscriptions: None,
        share: None,
    };
    let Record::Publish(published) = retain("t", "x", u64::MAX) else { unreachable!() };
    let last = image([
        Record::Begin { session: u64::MAX, client_id: "c".into(), owner, expiry: 1 },
        Record::Publish(Box::new(Published { targets: vec![target], ..*published })),
        Record::Confirming { session: u64::MAX, delivery: u64::MAX, packet_id: 1 },
    ]);
    let end = Next { session: u64::MAX, delivery: u64::MAX, sequence: u64::MAX };
    assert_eq!(last.next, end);
}

/// A topic alias stands for what only a connection knows.
#[test]
fn a_message_has_no_topic_alias() {
    let mut bytes = BytesMut::new();
    retain("t", "x", 1).encode(&mut bytes);
    // PUBLISH at QoS 1: first byte, length, topic, packet id, no properties.
    let publish = [0x33, 7, 0, 1, b't', 0, 1, 0, b'x'];
    assert!(bytes.ends_with(&publish), "{bytes:02x?}");
    bytes.truncate(bytes.len() - publish.len());
    bytes.extend_from_slice(&[0x33, 10, 0, 1, b't', 0, 1, 3, 0x23, 0, 1, b'x']);
    assert!(Record::decode(&bytes).is_err());
}

/// One record takes a message from one session and gives it to another, so that the log never has
/// it twice or nowhere.
#[test]
fn what_is_handed_on_is_in_one_place() {
    let owner = Owner { identity: Identity::ANONYMOUS, protocol: Protocol::V5 };
    let begin =
        |session| Record::Begin { session, client_id: "c".into(), owner: owner.clone(), expiry: 1 };
    let publish = |session, delivery, instead| {
        let Record::Publish(published) = retain("t", "x", 0) else { unreachable!() };
        let share = Some(Arc::new(Share("$share/g/t".into())));
        let (qos, retain, subscriptions) = (Qos::ExactlyOnce, false, None);
        let target = Target { session, delivery, qos, retain, subscriptions, share };
        let targets = vec![target];
        Record::Publish(Box::new(Published { retained: false, instead, targets, ..*published }))
    };
    let image = image([begin(1), begin(2), publish(1, 7, None), publish(2, 8, Some((1, 7)))]);
    assert!(image.sessions[&1].deliveries.is_empty());
    assert_eq!(image.sessions[&2].deliveries.keys().collect::<Vec<_>>(), [&8]);
}

/// What fuzzing begins with are whole records, or it would begin with nothing.
#[test]
fn the_seeds_of_fuzzing_are_records() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/log/");
    for (name, count) in
        [("a-life", 15), ("one-publish", 1), ("owed", 6), ("handed-on", 4), ("will", 4)]
    {
        let bytes = std::fs::read(format!("{seeds}{name}")).unwrap();
        let (mut rest, mut records) = (&bytes[..], Vec::new());
        while let Some((len, tail)) = rest.split_first() {
            let (body, tail) = tail.split_at((*len).into());
            records.push(Record::decode(body).unwrap_or_else(|_| panic!("{name}: {body:02x?}")));
            rest = tail;
        }
        assert_eq!(records.len(), count, "{name}");
        image(records);
    }
}
