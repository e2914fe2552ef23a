use super::*;
use crate::{
    Server, Settings,
    backlog::{Backlog, Owed},
    handshake::Opened,
    message::Message,
    writer::Writer,
};
use std::{
    pin::Pin,
    task::{Context, Waker},
};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

/// A client of MQTT 5 that is connected, and its end of the connection.
async fn connected(server: &Server) -> (Box<Connection<DuplexStream>>, DuplexStream) {
    connected_with(server, &[]).await
}

/// The same with these properties.
async fn connected_with(
    server: &Server,
    properties: &[u8],
) -> (Box<Connection<DuplexStream>>, DuplexStream) {
    let (io, mut client) = tokio::io::duplex(1024);
    let len = properties.len() as u8;
    let head = [0x10, 14 + len, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, len];
    client.write_all(&[&head, properties, &[0, 1, b'c']].concat()).await.unwrap();
    let open = std::future::ready(Ok(Opened { io, certificate_cn: None }));
    let (address, stop) = (([127, 0, 0, 1], 1).into(), CancellationToken::new());
    let exchange = server.exchange();
    (Connection::greeted(open, address, exchange, stop).await.unwrap(), client)
}

fn delivery(qos: Qos) -> Delivery {
    sized(qos, 2000)
}

/// One on the topic `t` with so much payload.
fn sized(qos: Qos, payload: usize) -> Delivery {
    let message = Message::plain(qos, vec![b'x'; payload]);
    Delivery { id: 0, message, qos, retain: false, subscriptions: None, share: None }
}

#[test]
fn an_alias_stands_for_the_topic_that_it_was_set_for() {
    assert!(SentAliases::new(0).is_none());
    assert_eq!(SentAliases::new(u16::MAX).unwrap().most, SENT_ALIASES);
    let mut aliases = SentAliases::new(2).unwrap();
    let sent = delivery(Qos::AtMostOnce);
    let mut head = Connection::<DuplexStream>::head(&sent, 0, false);
    for alias in 1..=2 {
        assert!(!aliases.shorten(&mut head));
        assert_eq!((head.topic, head.alias, aliases.next()), ("t", None, Some(alias)));
        aliases.by_topic.insert(format!("t/{alias}").into(), alias);
    }
    assert_eq!(aliases.next(), None);
    head.topic = "t/2";
    assert!(aliases.shorten(&mut head));
    assert_eq!((head.topic, head.alias), ("", Some(2)));
}

/// Neither a write for each message, nor all of them in one.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_filled_and_no_more_is_taken() {
    let server = Server::start(Settings::default(), Vec::new()).unwrap();
    // 33 of these make a write, and 64 a window.
    for (qos, left_after_two) in [(Qos::AtMostOnce, 96 - 2 * 33), (Qos::AtLeastOnce, 96 - 64)] {
        let (mut connection, _client) = connected(&server).await;
        connection.writer = Writer::default();
        let queue = match qos {
            Qos::AtMostOnce => &mut connection.taken.lossy,
            _ => &mut connection.taken.assured,
        };
        queue.extend((0..96).map(|_| delivery(qos)));
        connection.fill();
        let first = connection.writer.len();
        assert!((65_536..65_536 + 2_010).contains(&first), "{qos:?}: {first} bytes");
        connection.writer = Writer::default();
        connection.fill();
        let left = connection.taken.lossy.len() + connection.taken.assured.len();
        assert_eq!(left, left_after_two, "{qos:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kind_of_message_takes_a_whole_write() {
    let server = Server::start(Settings::default(), Vec::new()).unwrap();
    let (mut connection, _client) = connected(&server).await;
    connection.writer = Writer::default();
    connection.taken.lossy.extend((0..96).map(|_| delivery(Qos::AtMostOnce)));
    connection.taken.assured.extend((0..96).map(|_| delivery(Qos::AtLeastOnce)));
    connection.fill();
    let sent = [&connection.taken.assured, &connection.taken.lossy].map(|left| 96 - left.len());
    assert_eq!(sent, [17, 33 - 17]);
}

/// What is said when all of this is filled in, and nothing that was said before.
fn said(connection: &mut Connection<DuplexStream>, fill: &[Delivery]) -> Vec<u8> {
    connection.writer = Writer::default();
    for delivery in fill {
        let queue = match delivery.qos {
            Qos::AtMostOnce => &mut connection.taken.lossy,
            _ => &mut connection.taken.assured,
        };
        queue.push_back(delivery.clone());
    }
    connection.fill();
    let (mut said, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
    assert!(connection.writer.poll_flush(&mut cx, Pin::new(&mut said)).is_ready());
    said
}

/// Maximum Packet Size 40.
const SMALL: [u8; 5] = [0x27, 0, 0, 0, 40];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_larger_than_the_client_takes() {
    let server = Server::start(Settings::default(), Vec::new()).unwrap();
    for (qos, most) in [(Qos::AtMostOnce, 34), (Qos::AtLeastOnce, 32), (Qos::ExactlyOnce, 32)] {
        let (mut connection, _client) = connected_with(&server, &SMALL).await;
        assert_eq!(said(&mut connection, &[sized(qos, most)]).len(), 40);
        assert_eq!(said(&mut connection, &[sized(qos, most + 1)]), b"");
        let tally = (connection.tally.deliveries, connection.tally.dropped);
        assert_eq!((tally, connection.done.messages), ((1, 1), 2));
    }
}

/// An alias may make a packet longer that has a short topic.
#[tokio::test(flavor = "multi_thread")]
async fn no_alias_makes_a_packet_too_large() {
    let server = Server::start(Settings::default(), Vec::new()).unwrap();
    let with_alias = [&SMALL[..], &[0x22, 0, 1]].concat();
    let (mut connection, _client) = connected_with(&server, &with_alias).await;
    let mut head = |payload| {
        let said = said(&mut connection, &[sized(Qos::AtMostOnce, payload)]);
        said[..said.len() - payload].to_vec()
    };
    let plain = [0x30, 38, 0, 1, b't', 0];
    assert_eq!(head(34), plain, "no room for one");
    assert_eq!(head(31), [0x30, 38, 0, 1, b't', 3, 0x23, 0, 1], "it is set");
    assert_eq!(head(32), [0x30, 38, 0, 0, 3, 0x23, 0, 1], "it is used");
    assert_eq!(head(34), plain, "it has no room, and the topic has");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_in_flight_than_the_client_takes() {
    let server = Server::start(Settings::default(), Vec::new()).unwrap();
    let (mut connection, _client) = connected_with(&server, &[0x21, 0, 2]).await;
    let three = [(); 3].map(|()| sized(Qos::AtLeastOnce, 0));
    assert_eq!(said(&mut connection, &three).len(), 2 * 8);
    assert_eq!(connection.session.inflight.load(Ordering::Relaxed), 2);
    assert_eq!(said(&mut connection, &[sized(Qos::AtMostOnce, 0)]).len(), 6, "it is not");
    assert!(connection.state.window.puback(1).is_some());
    assert_eq!(said(&mut connection, &[])[..2], [0x32, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_is_sent_again_as_far_as_it_fits() {
    let server = Server::start(Settings::default(), Vec::new()).unwrap();
    let (mut connection, _client) =
        connected_with(&server, &[&SMALL[..], &[0x21, 0, 2]].concat()).await;
    let window = &mut connection.state.window;
    let exactly = Qos::ExactlyOnce;
    for payload in [0, 33, 0, 0] {
        window.send(Content::Delivery(sized(exactly, payload)), exactly);
    }
    window.pubrec(4);
    connection.resend = window.ids().into();
    // The PUBREL waits for no room, and the first PUBLISH takes what there is.
    let expected = [&[0x62, 2, 0, 4][..], &[0x3c, 6, 0, 1, b't', 0, 1, 0]].concat();
    assert_eq!(said(&mut connection, &[sized(exactly, 0)]), expected);
    assert_eq!(said(&mut connection, &[]), b"");
    // The second one is too large, so the third one takes its place.
    assert!(connection.state.window.pubcomp(4).is_some());
    assert_eq!(said(&mut connection, &[]), [0x3c, 6, 0, 1, b't', 0, 3, 0]);
    assert_eq!((connection.tally.dropped, connection.state.window.len()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_not_sent() {
    let server = Server::start(Settings::default(), Vec::new()).unwrap();
    let (mut connection, _client) = connected(&server).await;
    for (qos, dropped) in [(Qos::AtMostOnce, 1), (Qos::AtLeastOnce, 2)] {
        let message = Arc::into_inner(Message::plain(qos, "x")).unwrap();
        let expires = Some(std::time::Instant::now());
        let message = Arc::new(Message { expires, ..message });
        assert_eq!(said(&mut connection, &[Delivery { message, ..sized(qos, 0) }]), b"");
        assert_eq!(
            (connection.tally.dropped, connection.done.messages),
            (dropped, dropped as usize)
        );
    }
    assert_eq!(connection.state.window.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_for_who_wants_it_and_has_room_for_it() {
    let server = Server::start(Settings::default(), Vec::new()).unwrap();
    let short = "x".repeat(40 - REASON_OVERHEAD);
    let long = "x".repeat(41 - REASON_OVERHEAD);
    for (properties, text, has) in
        [(&SMALL[..], &short, true), (&SMALL, &long, false), (&[0x17, 0], &short, false)]
    {
        let (mut connection, _client) = connected_with(&server, properties).await;
        connection.writer = Writer::default();
        connection.encode_ack(AckKind::PubAck, 1, reason::NOT_AUTHORIZED, Some(text));
        let len = connection.writer.len() as usize;
        assert_eq!(len, if has { 2 + 3 + 1 + 3 + text.len() } else { 5 });
    }
}

/// Blocks only where nothing else waits, and so many in a write; what is acknowledged needs room.
#[tokio::test(flavor = "multi_thread")]
async fn plugins_messages_have_their_order() {
    let server = Server::start(Settings::default(), Vec::new()).unwrap();
    let (mut connection, _client) = connected_with(&server, &[0x21, 0, 1]).await;
    let outgoing = |class, qos| Outgoing {
        topic: "t".into(),
        payload: bytes::Bytes::from_static(b"abc").into(),
        qos,
        class,
        properties: None,
        receipt: None,
    };
    let (once, least) = (Qos::AtMostOnce, Qos::AtLeastOnce);
    connection.taken.blocks.extend((0..20).map(|_| outgoing(Class::Block, once)));
    connection.taken.control.extend([once, least, least].map(|qos| outgoing(Class::Control, qos)));
    let (small, large) = (9, 11);
    let first = said(&mut connection, &[]);
    assert_eq!(first.len(), small + large + WRITE_BLOCKS * small);
    assert_eq!((first[0], first[small]), (0x30, 0x32));
    let done = &connection.done;
    assert_eq!((done.outbox_messages, done.outbox_bytes, done.blocks), (18, 18 * 3, WRITE_BLOCKS));
    assert_eq!(connection.tally.outbox_messages, 18);
    assert_eq!(said(&mut connection, &[]).len(), 4 * small);
    assert!(connection.state.window.puback(1).is_some());
    assert_eq!(said(&mut connection, &[]).len(), large);
    // A write that is full has none.
    connection.taken.blocks.push_back(outgoing(Class::Block, once));
    let full = said(&mut connection, &[sized(once, WRITE_BYTES as usize)]);
    assert!(full.len() > WRITE_BYTES as usize && connection.taken.blocks.len() == 1);
}

/// What is retained has a part of each write that QoS 0 leaves to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_qos_0_leaves_room_for_what_is_retained() {
    let server = Server::start(Settings::default(), Vec::new()).unwrap();
    let (mut connection, _client) = connected(&server).await;
    let retained = &server.exchange().retained;
    for n in 0..96 {
        let message = Arc::into_inner(sized(Qos::AtMostOnce, 2000).message).unwrap();
        let topic = format!("r/{n}").into();
        retained.store(false, |sequence| {
            Arc::new(Message { topic, retain: true, sequence, ..message })
        });
    }
    let owed = Owed {
        filter: "r/#".into(),
        qos: Qos::AtMostOnce,
        identifier: None,
        newest: retained.newest(),
        after: None,
    };
    let mut backlog = Box::<Backlog>::default();
    backlog.subscribe(owed, true, 0, 1);
    backlog.acknowledged(1);
    connection.backlog = Some(backlog);
    let first = said(&mut connection, &[(); 96].map(|()| sized(Qos::AtMostOnce, 2000)));
    assert!(first.len() >= WRITE_BYTES as usize);
    assert_eq!(96 - connection.taken.lossy.len(), 25, "three quarters");
}
