use crate::{
    Limits, Server, Settings,
    connection::Connection,
    handshake::Opened,
    inbox::{Done, Taken},
    index::Entry,
    message::{Delivery, Message},
    topic::check_filter,
};
use hook::Qos;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio_util::sync::CancellationToken;

const PAYLOAD: usize = 1_000_000;

/// A client of MQTT 5 that is let in, with a session that ends with its connection.
async fn enter(server: &Server, id: u8) -> (Box<Connection<DuplexStream>>, DuplexStream) {
    let (io, mut client) = duplex(2 * PAYLOAD);
    let connect = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 1, id];
    client.write_all(&connect).await.unwrap();
    let open = std::future::ready(Ok(Opened { io, certificate_cn: None }));
    let (address, stop) = (([127, 0, 0, 1], 1).into(), CancellationToken::new());
    let exchange = server.exchange();
    (Connection::greeted(open, address, exchange, stop).await.unwrap(), client)
}

/// The same; it publishes to `t`, at QoS 1, and is gone.
async fn publish_and_vanish(server: &Server, id: u8) -> tokio::task::JoinHandle<()> {
    let (connection, mut client) = enter(server, id).await;
    let remaining = 3 + 2 + 1 + PAYLOAD;
    let mut publish = vec![0x32];
    publish.extend(
        [remaining & 0x7f | 0x80, remaining >> 7 & 0x7f | 0x80, remaining >> 14].map(|n| n as u8),
    );
    publish.extend([0, 1, b't', 0, 1, 0]);
    publish.resize(publish.len() + PAYLOAD, 0);
    client.write_all(&publish).await.unwrap();
    drop(client);
    tokio::spawn(async move {
        connection.run().await;
    })
}

/// Whoever leaves a publish goes at once while there is little of them; beyond the bound its
/// connection and its session last until there is room, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_ended_connections_leave_is_bounded() {
    let publish_hold = Duration::from_secs(3600);
    let limits = Limits { queue_messages: 1, publish_hold, ..Limits::default() };
    let server = Server::start(Settings { limits, ..Settings::default() }, Vec::new()).unwrap();
    let exchange = server.exchange();
    // A subscriber that does not run, with a queue that is full.
    let (subscriber, _client) = enter(&server, b's').await;
    let session = subscriber.session.clone();
    let (qos, no_local, retain_as_published) = (Qos::AtLeastOnce, false, false);
    let entry = Entry {
        session: session.clone(),
        qos,
        no_local,
        retain_as_published,
        identifier: None,
        epoch: session.inbox.epoch(),
    };
    exchange.index.insert(check_filter("t").unwrap(), &"t".into(), entry);
    let message = Message::plain(qos, "x");
    let delivery =
        Delivery { id: 0, message, qos, retain: false, subscriptions: None, share: None };
    session.inbox.push_assured(delivery.clone(), session.inbox.epoch(), None);

    for id in b'a'..b'a' + 16 {
        soon(publish_and_vanish(&server, id).await).await.unwrap();
        assert!(!exchange.left.is_full());
    }
    let last = publish_and_vanish(&server, b'z').await;
    soon(async {
        while !exchange.left.is_full() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Meanwhile others come and go.
    for id in 0..10 {
        let (connection, client) = enter(&server, id + 1).await;
        drop(client);
        soon(connection.run()).await;
    }
    assert!(!last.is_finished() && exchange.registry.find("z").is_some());

    let (mut done, mut taken, mut received) = (Done::default(), Taken::default(), 0);
    soon(async {
        while received < 1 + 16 + 1 {
            session.inbox.take(&mut done, &mut taken).unwrap();
            while let Some(delivery) = taken.assured.pop_front() {
                done.count(&delivery);
                received += 1;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon(last).await.unwrap();
    assert!(exchange.registry.find("z").is_none());
}

/// Longer than anything here takes.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}
