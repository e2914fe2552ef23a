//! TLS, WebSocket and both, with clients that are not ours: the same sessions behind every door,
//! and nothing let in that should stay outside.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../certificates/mod.rs"]
mod certificates;
mod nonsense;
mod support;

use broker::{Server, Settings, Tls, TlsFiles, TlsPart};
use certificates::{Authority, files_in};
use futures_util::{SinkExt, StreamExt};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, http::StatusCode};
use tokio_util::sync::CancellationToken;

const SUBACK: [u8; 5] = [0x90, 3, 0, 7, 0];

/// [MQTT-4.2-1]
#[tokio::test(flavor = "multi_thread")]
async fn one_publish_reaches_every_door() {
    let site = Site::open(false, Settings::default());
    let mut plain = Bytes(site.plain().await);
    let mut tls = Bytes(site.tls(site.authority.client(None, &[])).await.unwrap());
    let (mut ws, mut wss) = (site.ws().await, site.wss().await);
    // Large enough for several TLS records, and for the long form of a frame's length.
    let message = publish("all", &vec![b'x'; 200_000]);
    async fn join(wire: &mut impl Wire, id: &str) {
        wire.connect(id).await;
        wire.send(&subscribe("all")).await;
        wire.expect(&SUBACK).await;
    }
    join(&mut plain, "a").await;
    join(&mut tls, "b").await;
    join(&mut ws, "c").await;
    join(&mut wss, "d").await;
    for sender in 0..4 {
        match sender {
            0 => plain.send(&message).await,
            1 => tls.send(&message).await,
            2 => ws.send(&message).await,
            _ => wss.send(&message).await,
        }
        plain.expect(&message).await;
        tls.expect(&message).await;
        ws.expect(&message).await;
        wss.expect(&message).await;
    }
    assert_eq!(*site.names.0.lock(), [None, None, None, None]);
    // The orderly stop ends all of them.
    let ends = async {
        plain.expect_end().await;
        tls.expect_end().await;
        ws.expect_end().await;
        wss.expect_end().await;
    };
    tokio::join!(site.close(), ends);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_from_door_to_door() {
    let site = Site::open(false, Settings::default());
    let mut plain = Bytes(site.plain().await);
    plain.send(&connect("device", false)).await;
    plain.expect(&[0x20, 2, 0, 0]).await;
    plain.send(&subscribe("t")).await;
    plain.expect(&SUBACK).await;
    // The same client id at another door: a takeover, session present, subscription kept.
    let mut wss = site.wss().await;
    wss.send(&connect("device", false)).await;
    wss.expect(&[0x20, 2, 1, 0]).await;
    plain.expect_end().await;
    let mut tls = Bytes(site.tls(site.authority.client(None, &[])).await.unwrap());
    tls.connect("other").await;
    tls.send(&publish("t", b"hello")).await;
    wss.expect(&publish("t", b"hello")).await;
    assert_eq!(site.broker.counters().sessions, 2);
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_span_and_share_frames() {
    let site = Site::open(false, Settings::default());
    let mut ws = site.ws().await;
    let mut wire = connect("c", true);
    wire.extend(subscribe("t"));
    // One byte a frame, and then two packets in one [MQTT-6.0.0-2].
    for byte in &wire {
        ws.send(&[*byte]).await;
    }
    ws.expect(&[&[0x20, 2, 0, 0][..], &SUBACK].concat()).await;
    ws.send(&[publish("t", b"1"), publish("t", b"2")].concat()).await;
    ws.expect(&[publish("t", b"1"), publish("t", b"2")].concat()).await;
    // A ping of WebSocket is answered, with nothing of MQTT to be written.
    ws.0.send(Message::Ping("hello".into())).await.unwrap();
    let pong = timeout(PATIENCE, ws.0.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(pong, Message::Pong("hello".into()));
    // A Close frame is answered and ends the connection.
    ws.0.close(None).await.unwrap();
    let answer = timeout(PATIENCE, ws.0.next()).await.unwrap();
    assert!(matches!(answer, Some(Ok(Message::Close(_)))), "{answer:?}");
    ws.expect_end().await;
    site.close().await;
}

/// [MQTT-6.0.0-1]
#[tokio::test(flavor = "multi_thread")]
async fn a_text_frame_closes() {
    let site = Site::open(false, Settings::default());
    for connected in [false, true] {
        let mut ws = site.ws().await;
        if connected {
            ws.connect("c").await;
        }
        ws.0.send(Message::text("hello")).await.unwrap();
        match timeout(PATIENCE, ws.0.next()).await.unwrap() {
            Some(Ok(Message::Close(Some(close)))) => assert_eq!(u16::from(close.code), 1003),
            other => panic!("{connected}: {other:?}"),
        }
    }
    site.close().await;
}

/// Whoever does not offer the subprotocol is turned away [MQTT-6.0.0-3]; `upgrade` has shown that
/// all others get it [MQTT-6.0.0-4].
#[tokio::test(flavor = "multi_thread")]
async fn other_requests_get_a_short_answer() {
    let site = Site::open(false, Settings::default());
    for (url, subprotocol, status) in [
        ("ws://site/other", "mqtt", StatusCode::NOT_FOUND),
        ("ws://site/mqtt", "", StatusCode::BAD_REQUEST),
        ("ws://site/mqtt", "chat", StatusCode::BAD_REQUEST),
    ] {
        let io = TcpStream::connect(site.addresses[2]).await.unwrap();
        match upgrade(url, io, subprotocol).await {
            Err(WsError::Http(answer)) => {
                assert_eq!(answer.status(), status, "{url} {subprotocol}")
            }
            other => panic!("{url} {subprotocol}: {other:?}"),
        }
    }
    let mut long = b"GET /mqtt HTTP/1.1\r\nCookie: ".to_vec();
    long.resize(17_000, b'x');
    for (request, status) in [
        (&b"GET /mqtt HTTP/1.1\r\nHost: site\r\n\r\n"[..], "426 Upgrade Required"),
        (b"GET / HTTP/1.1\r\nHost: site\r\n\r\n", "404 Not Found"),
        (&connect("mqtt at the wrong door", true), "400 Bad Request"),
        (&long[..16 * 1024], "431 Request Header Fields Too Large"),
    ] {
        let mut io = TcpStream::connect(site.addresses[2]).await.unwrap();
        io.write_all(request).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, io.read_to_string(&mut answer))
            .await
            .expect("answered and closed")
            .unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
    }
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_tls_and_no_older_one() {
    let site = Site::open(false, Settings::default());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = site.authority.client(None, &[version]);
        let mut stream = Bytes(site.tls(config).await.unwrap());
        assert_eq!(stream.0.get_ref().1.protocol_version(), Some(version.version));
        stream.connect("c").await;
    }
    // A ClientHello of TLS 1.0 and plain MQTT both get an alert or nothing, and the end.
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0, 0x2f, 1, 0]);
    for first in [hello, connect("c", true)] {
        let mut io = Bytes(TcpStream::connect(site.addresses[1]).await.unwrap());
        io.send(&first).await;
        io.expect_end().await;
    }
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates() {
    let site = Site::open(true, Settings::default());
    let good = site.authority.issue(&["pump-7"]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = site.authority.client(Some(&good), &[version]);
        Bytes(site.tls(config).await.unwrap()).connect("any").await;
    }
    // None, or two names, are no name.
    for names in [&[][..], &["pump-7", "pump-8"]] {
        let config = site.authority.client(Some(&site.authority.issue(names)), &[]);
        Bytes(site.tls(config).await.unwrap()).connect("any").await;
    }
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(*site.names.0.lock(), [name("pump-7"), name("pump-7"), name(""), name("")]);

    let stranger = Authority::new("another").issue(&["pump-7"]);
    let expired = site.authority.issue_expired("pump-7");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for certificate in [None, Some(&stranger), Some(&expired)] {
            // In TLS 1.3 the client learns of it when it first reads.
            if let Ok(stream) = site.tls(site.authority.client(certificate, &[version])).await {
                let mut stream = Bytes(stream);
                let _ = stream.0.write_all(&connect("any", true)).await;
                assert_eq!(timeout(PATIENCE, stream.hear()).await.unwrap(), None);
            }
        }
    }
    assert_eq!(site.names.0.lock().len(), 4, "no CONNECT of them was heard");
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_keeps_its_name_and_ends_with_the_authority() {
    let site = Site::open(true, Settings::default());
    let certificate = site.authority.issue(&["pump-7"]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        // One configuration, so that the client has the tickets of its earlier connections.
        let config = Arc::new(site.authority.client(Some(&certificate), &[version]));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let io = TcpStream::connect(site.addresses[1]).await.unwrap();
            let name = "localhost".try_into().unwrap();
            let stream = TlsConnector::from(config.clone()).connect(name, io).await.unwrap();
            let mut stream = Bytes(stream);
            stream.connect("any").await;
            kinds.push(stream.0.get_ref().1.handshake_kind().unwrap());
        }
        assert_eq!(kinds, [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]);
        let names = std::mem::take(&mut *site.names.0.lock());
        assert_eq!(names, [Some("pump-7".to_owned()), Some("pump-7".to_owned())]);

        // Another authority: the ticket is worth nothing.
        let other = Authority::new("other");
        std::fs::write(site.dir.path().join("ca.pem"), other.pem()).unwrap();
        site.tls.reload().unwrap();
        let io = TcpStream::connect(site.addresses[1]).await.unwrap();
        let name = "localhost".try_into().unwrap();
        if let Ok(stream) = TlsConnector::from(config).connect(name, io).await {
            let mut stream = Bytes(stream);
            let _ = stream.0.write_all(&connect("any", true)).await;
            assert_eq!(timeout(PATIENCE, stream.hear()).await.unwrap(), None);
        }
        assert_eq!(*site.names.0.lock(), []);
        std::fs::write(site.dir.path().join("ca.pem"), site.authority.pem()).unwrap();
        site.tls.reload().unwrap();
    }
    site.close().await;
}

/// Each resumption brings a new ticket, so that one after the other would be let in for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_ends_with_the_certificate() {
    let site = Site::open(true, Settings::default());
    let valid = Duration::from_secs(3);
    let certificate = site.authority.issue_for("pump-7", valid);
    let began = Instant::now();
    let mut versions = [&rustls::version::TLS12, &rustls::version::TLS13]
        .map(|version| (Arc::new(site.authority.client(Some(&certificate), &[version])), 0))
        .to_vec();
    while !versions.is_empty() {
        assert!(began.elapsed() < PATIENCE, "still let in");
        let mut refused = Vec::new();
        for (at, (config, resumed)) in versions.iter_mut().enumerate() {
            let io = TcpStream::connect(site.addresses[1]).await.unwrap();
            let name = "localhost".try_into().unwrap();
            let Ok(stream) = TlsConnector::from(config.clone()).connect(name, io).await else {
                refused.push(at);
                continue;
            };
            let mut stream = Bytes(stream);
            let _ = stream.0.write_all(&connect("any", true)).await;
            match timeout(PATIENCE, stream.hear()).await.unwrap() {
                Some(_) => {
                    let kind = stream.0.get_ref().1.handshake_kind().unwrap();
                    *resumed += usize::from(kind == rustls::HandshakeKind::Resumed);
                }
                None => refused.push(at),
            }
        }
        for at in refused.into_iter().rev() {
            let (_, resumed) = versions.remove(at);
            assert!(resumed > 0 && began.elapsed() + Duration::from_secs(1) >= valid);
        }
    }
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_while_the_doors_are_open() {
    let site = Site::open(false, Settings::default());
    let mut old = Bytes(site.tls(site.authority.client(None, &[])).await.unwrap());
    old.connect("old").await;
    let leaf =
        |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let first = leaf(&old.0);

    let (reports, mut reported) = tokio::sync::mpsc::unbounded_channel();
    let watching = CancellationToken::new();
    let watch =
        site.tls.clone().watch(Duration::from_millis(20), watching.clone(), move |outcome| {
            reports.send(outcome).unwrap();
        });
    let watch = tokio::spawn(watch);
    // A certificate whose key does not stand there yet: the old pair is served on.
    let next = site.authority.server();
    std::fs::write(site.dir.path().join("cert.pem"), next.certificate.pem()).unwrap();
    // A look may come in the middle of a write, and find half a file: that is reported as well.
    let mut next_report = async || timeout(PATIENCE, reported.recv()).await.unwrap().unwrap();
    while next_report().await.unwrap_err().part != TlsPart::Key {}
    let stream = site.tls(site.authority.client(None, &[])).await.unwrap();
    assert_eq!(leaf(&stream), first);
    next.write(&site.dir);
    while next_report().await.is_err() {}
    let stream = site.tls(site.authority.client(None, &[])).await.unwrap();
    assert_eq!(leaf(&stream), *next.certificate.der());
    // The old connection goes on.
    old.send(&[0xc0, 0]).await;
    old.expect(&[0xd0, 0]).await;
    watching.cancel();
    watch.await.unwrap();

    // The same by hand, as a signal does.
    site.authority.server().write(&site.dir);
    site.tls.reload().unwrap();
    let stream = site.tls(site.authority.client(None, &[])).await.unwrap();
    assert_ne!(leaf(&stream), *next.certificate.der());
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_may_take_forever() {
    let settings = Settings { connect_timeout: Duration::from_millis(300), ..Settings::default() };
    let site = Site::open(false, settings);
    // Silence at each door, and at each step behind it.
    for address in &site.addresses {
        Bytes(TcpStream::connect(address).await.unwrap()).expect_end().await;
    }
    Bytes(site.tls(site.authority.client(None, &[])).await.unwrap()).expect_end().await;
    site.ws().await.expect_end().await;
    site.wss().await.expect_end().await;
    // A request, a ClientHello and a CONNECT that stop in the middle.
    let request = &b"GET /mqtt HTTP/1.1\r\nHost:"[..];
    for (door, bytes) in
        [(2, request), (1, &[0x16, 3, 1, 0, 200, 1]), (0, &connect("a", true)[..9])]
    {
        let mut io = Bytes(TcpStream::connect(site.addresses[door]).await.unwrap());
        io.send(bytes).await;
        io.expect_end().await;
    }
    let gone = async {
        while site.broker.counters().connections > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("all have gone");
    assert_eq!(site.broker.counters().connects_refused, 10);
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_bounded_behind_every_door() {
    let mut settings = Settings::default();
    settings.limits.queue_messages = 10;
    settings.limits.publish_hold = Duration::from_millis(100);
    let site = Site::open(false, settings);
    let mut publisher = Bytes(site.plain().await);
    publisher.connect("publisher").await;
    async fn join(wire: &mut impl Wire) {
        wire.connect("slow").await;
        // At QoS 1: what is for a subscriber at QoS 0 is dropped instead, and it stays.
        let mut filter = subscribe("t");
        *filter.last_mut().unwrap() = 1;
        wire.send(&filter).await;
        wire.expect(&[0x90, 3, 0, 7, 1]).await;
    }
    let mut body = vec![0, 1, b't', 0, 9];
    body.resize(100_000, b'x');
    let message = packet(0x32, &body);
    for door in 1..4 {
        let mut tls = Bytes(site.tls(site.authority.client(None, &[])).await.unwrap());
        let (mut ws, mut wss) = (site.ws().await, site.wss().await);
        match door {
            1 => join(&mut tls).await,
            2 => join(&mut ws).await,
            _ => join(&mut wss).await,
        }
        let is_connected = || site.broker.client("slow").is_some_and(|client| client.connected);
        assert!(is_connected(), "door {door}");
        // What the kernel's buffers and the queue take, and then the end.
        let mut sent = 0;
        while is_connected() {
            publisher.send(&message).await;
            publisher.expect(&[0x40, 2, 0, 9]).await;
            sent += 1;
            assert!(sent < 1_000, "100 MB went to a client that reads nothing, by door {door}");
        }
    }
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_and_ipv4_stand_side_by_side() {
    let listeners =
        broker::bind(&["[::1]:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()]).unwrap();
    let addresses = listeners.local_addrs();
    assert!(addresses[0].is_ipv6() && addresses[1].is_ipv4());
    let server = Server::start(Settings::default(), Vec::new()).unwrap();
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let served = tokio::spawn(async move { server.serve(listeners, stop).await });
    for address in addresses {
        Bytes(TcpStream::connect(address).await.unwrap()).connect("c").await;
    }
    cancel.cancel();
    served.await.unwrap();
}

#[test]
fn files_that_cannot_be_used_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("site");
    let (one, two) = (authority.server(), authority.server());
    let load = |files: TlsFiles| Tls::load(files).map(|_| ()).unwrap_err();
    let expect = |part: TlsPart, words: &str| {
        let error = load(files_in(&dir));
        assert_eq!(error.part, part, "{error}");
        let line = error.to_string();
        assert!(line.contains(words) && !line.contains('\n'), "{line}");
    };
    expect(TlsPart::Cert, "cannot be read");
    one.write(&dir);
    assert!(Tls::load(files_in(&dir)).is_ok());
    std::fs::remove_file(dir.path().join("key.pem")).unwrap();
    expect(TlsPart::Key, "cannot be read");
    std::fs::write(dir.path().join("key.pem"), two.key.serialize_pem()).unwrap();
    expect(TlsPart::Key, "is not the key of the certificate");
    std::fs::write(dir.path().join("key.pem"), "nothing").unwrap();
    expect(TlsPart::Key, "holds no private key");
    one.write(&dir);
    std::fs::write(dir.path().join("cert.pem"), one.key.serialize_pem()).unwrap();
    expect(TlsPart::Cert, "holds no certificate");
    authority.issue_expired("localhost").write(&dir);
    expect(TlsPart::Cert, "has expired");
    one.write(&dir);
    let mut files = files_in(&dir);
    files.client_ca = Some(dir.path().join("key.pem"));
    assert_eq!(load(files).part, TlsPart::ClientCa);
}
