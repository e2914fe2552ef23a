//! The parts that need no service: doors, bodies, queries, connections. The resources are tested
//! with a real service where all crates meet, in the daemon.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, Version},
    middleware,
    routing::post,
};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Limits, Settings,
    doors::{self, Doors},
    extract::{Json, MAX_BODY, Query},
    routes, serve_with,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn settings() -> Settings {
    Settings {
        token: TOKEN.into(),
        listen: vec!["192.0.2.7:8080".parse().unwrap(), "0.0.0.0:81".parse().unwrap()],
        allowed_hosts: vec!["Broker.example".into(), "203.0.113.9".into()],
        version: "0".into(),
        sessions: None,
        tls: false,
        connections: 256,
        show_life: Duration::from_secs(15),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Thing {
    size: u8,
}

/// A router of the same layers with a handler that needs nothing.
fn router() -> Router {
    let doors = Arc::new(Doors::new(&settings()));
    let echo = |Query(query): Query<Thing>, Json(thing): Json<Thing>| async move {
        format!("{} {}", query.size, thing.size)
    };
    Router::new()
        .route("/api/thing", post(echo))
        .layer(middleware::from_fn_with_state(Arc::clone(&doors), doors::bearer))
        .route("/open", axum::routing::get(|| async { "open" }))
        .route("/healthz", axum::routing::get(|| async { "ok" }))
        .route("/readyz", axum::routing::get(|| async { "ok" }))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(doors, doors::host_and_origin))
}

async fn ask(request: Request<Body>) -> (StatusCode, String) {
    let Ok(response) = TowerToHyperService::new(router()).call(request).await;
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn open(headers: &[(&str, &str)]) -> StatusCode {
    let mut request = Request::get("/open");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ask(request.body(Body::empty()).unwrap()).await.0
}

#[tokio::test]
async fn what_was_begun_is_finished_when_its_client_leaves() {
    let (begun, mut begins) = tokio::sync::mpsc::channel(1);
    let (finished, mut finishes) = tokio::sync::mpsc::channel(1);
    let release = Arc::new(tokio::sync::Notify::new());
    let released = Arc::clone(&release);
    let change = async move || {
        begun.send(()).await.unwrap();
        released.notified().await;
        finished.send(()).await.unwrap();
    };
    let router =
        Router::new().route("/", post(change)).layer(middleware::from_fn(routes::to_the_end));
    let request = Request::post("/").body(Body::empty()).unwrap();
    let service = TowerToHyperService::new(router);
    let call = service.call(request);
    tokio::select! {
        _ = call => panic!("it waits"),
        () = async { begins.recv().await.unwrap() } => {}
    }
    release.notify_one();
    finishes.recv().await.unwrap();
}

#[tokio::test]
async fn only_names_that_nobody_else_can_own_are_served() {
    for host in [
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "127.0.0.1",
        "127.9.9.9:1",
        "[::1]:8080",
        "[::ffff:127.0.0.1]",
        "192.0.2.7:8080",
        "broker.example:443",
        "203.0.113.9",
    ] {
        assert_eq!(open(&[("host", host)]).await, StatusCode::OK, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.8",
        "0.0.0.0",
        "broker.example.evil",
        "[::2]",
        "2130706433",
    ] {
        assert_eq!(open(&[("host", host)]).await, StatusCode::FORBIDDEN, "{host}");
    }
    for host in ["", "a b", "user@localhost", "localhost/", "a:b:c", "[::1"] {
        assert_eq!(open(&[("host", host)]).await, StatusCode::BAD_REQUEST, "{host:?}");
    }
    assert_eq!(open(&[]).await, StatusCode::BAD_REQUEST, "no Host at all");
    // Load balancers ask for these two in HTTP/1.0, which has no Host.
    let old = async |path: &str, host: Option<&str>, version| {
        let request = Request::get(path).version(version);
        let request = match host {
            Some(host) => request.header("host", host),
            None => request,
        };
        ask(request.body(Body::empty()).unwrap()).await.0
    };
    for path in ["/healthz", "/readyz"] {
        assert_eq!(old(path, None, Version::HTTP_10).await, StatusCode::OK, "{path}");
        assert_eq!(old(path, None, Version::HTTP_11).await, StatusCode::BAD_REQUEST, "{path}");
        let foreign = old(path, Some("evil.example"), Version::HTTP_10).await;
        assert_eq!(foreign, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(old("/open", None, Version::HTTP_10).await, StatusCode::BAD_REQUEST);
    assert_eq!(
        open(&[("host", "localhost"), ("host", "localhost")]).await,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn the_host_of_the_request_line_counts_too() {
    let request =
        Request::get("http://evil.example/open").header("host", "localhost").body(Body::empty());
    assert_eq!(ask(request.unwrap()).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_origin_must_be_ours() {
    for origin in ["http://localhost:8080", "https://LOCALHOST:8080"] {
        assert_eq!(
            open(&[("host", "localhost:8080"), ("origin", origin)]).await,
            StatusCode::OK,
            "{origin}"
        );
    }
    for origin in [
        "null",
        "",
        "http://localhost",
        "http://localhost:1",
        "http://evil.example",
        "file://localhost:8080",
    ] {
        let status = open(&[("host", "localhost:8080"), ("origin", origin)]).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{origin:?}");
    }
}

fn thing() -> axum::http::request::Builder {
    Request::post("/api/thing?size=1").header("host", "localhost")
}

#[tokio::test]
async fn the_token_stands_in_the_header_and_nowhere_else() {
    let with = |value: &str| thing().header("authorization", value).body(Body::empty()).unwrap();
    for value in [
        String::new(),
        "Bearer".into(),
        "Bearer ".into(),
        format!("Basic {TOKEN}"),
        format!("Bearer {TOKEN}x"),
        format!("Bearer {}", &TOKEN[1..]),
        TOKEN.to_owned(),
    ] {
        assert_eq!(ask(with(&value)).await.0, StatusCode::UNAUTHORIZED, "{value:?}");
    }
    assert_eq!(ask(thing().body(Body::empty()).unwrap()).await.0, StatusCode::UNAUTHORIZED);
    // The next door is the body's: the token was right.
    assert_eq!(ask(with(&format!("bearer {TOKEN}"))).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let query =
        Request::post(format!("/api/thing?size=1&token={TOKEN}")).header("host", "localhost");
    assert_eq!(ask(query.body(Body::empty()).unwrap()).await.0, StatusCode::UNAUTHORIZED);
    let both = Request::post(format!("/api/thing?size=1&token={TOKEN}"))
        .header("host", "localhost")
        .header("authorization", format!("Bearer {TOKEN}"));
    assert_eq!(ask(both.body(Body::empty()).unwrap()).await.0, StatusCode::BAD_REQUEST);
}

async fn post_body(kind: &str, body: impl Into<Body>) -> (StatusCode, String) {
    let request =
        thing().header("authorization", format!("Bearer {TOKEN}")).header("content-type", kind);
    ask(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn bodies_are_strict_and_bounded() {
    let json = "application/json; charset=utf-8";
    assert_eq!(post_body(json, "{\"size\": 5}").await, (StatusCode::OK, "1 5".into()));
    for (body, part) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "expected a JSON object"),
        ("[5]", "expected a JSON object"),
        ("5", "expected a JSON object"),
        ("{}", "missing field `size`"),
        ("{\"size\": 5, \"colour\": 1}", "colour"),
        ("{\"size\": 256}", "size"),
        ("{\"size\": 5} x", "trailing"),
    ] {
        let (status, text) = post_body(json, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {text}");
        assert!(text.contains(part), "{body}: {text}");
    }
    assert_eq!(post_body("text/plain", "{}").await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (status, text) = post_body(json, vec![b' '; MAX_BODY + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(text.contains("65536 bytes"), "{text}");
    let deep = "{\"size\":".to_owned() + &"[".repeat(60_000);
    assert_eq!(
        post_body(json, deep).await.0,
        StatusCode::BAD_REQUEST,
        "deep nesting is no stack overflow"
    );
}

#[tokio::test]
async fn queries_are_strict() {
    for (query, part) in [("size=x", "size"), ("", "size"), ("size=1&colour=2", "colour")] {
        let request = Request::post(format!("/api/thing?{query}"))
            .header("host", "localhost")
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", "application/json");
        let (status, text) = ask(request.body(Body::from("{\"size\":1}")).unwrap()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert!(
            text.contains("the query cannot be used") && text.contains(part),
            "{query}: {text}"
        );
    }
}

struct Running {
    address: SocketAddr,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn run(limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let task = tokio::spawn(serve_with(listener, router(), None, cancel.clone(), limits));
    Running { address, cancel, task }
}

/// All that the server sends until it closes the connection.
async fn rest(mut socket: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = socket.read_to_end(&mut bytes).await;
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn slow_headers_and_idle_connections_end() {
    let running = run(Limits { headers: Duration::from_millis(50), ..Limits::default() }).await;
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    slow.write_all(b"GET /open HT").await.unwrap();
    rest(slow).await;
    let silent = TcpStream::connect(running.address).await.unwrap();
    rest(silent).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /open HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert!(rest(idle).await.ends_with("open"), "answered, and then closed for idling");
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_their_turn() {
    let running = run(Limits { connections: 1, ..Limits::default() }).await;
    let first = TcpStream::connect(running.address).await.unwrap();
    let mut second = TcpStream::connect(running.address).await.unwrap();
    second
        .write_all(b"GET /open HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let answer = tokio::spawn(rest(second));
    drop(first);
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn one_address_leaves_room_for_others() {
    let running = run(Limits { connections: 4, is_shared: |_| false, ..Limits::default() }).await;
    let from = async |source: [u8; 4]| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let mut socket = socket.connect(running.address).await.unwrap();
        // The server may have closed it.
        let request = b"GET /open HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let _ = socket.write_all(request).await;
        socket
    };
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(running.address).await.unwrap());
    }
    let patience = Duration::from_secs(5);
    let answer = async |socket| tokio::time::timeout(patience, rest(socket)).await.unwrap();
    assert_eq!(answer(from([127, 0, 0, 1]).await).await, "");
    assert!(answer(from([127, 0, 0, 2]).await).await.starts_with("HTTP/1.1 200"));
    silent.pop();
    // Its place may be free a moment later.
    while answer(from([127, 0, 0, 1]).await).await.is_empty() {}
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_returns() {
    let running = run(Limits::default()).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /open HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut some = [0; 16];
    idle.read_exact(&mut some).await.unwrap();
    running.cancel.cancel();
    running.task.await.unwrap();
    rest(idle).await;
    assert!(TcpStream::connect(running.address).await.is_err(), "the door is closed");
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let running = run(Limits::default()).await;
    for bytes in [
        &b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"[..],
        b"\r\n\r\n\r\n\x00",
        b"GET\r\n\r\n",
        &[b'A'; 100_000],
    ] {
        let mut socket = TcpStream::connect(running.address).await.unwrap();
        // The server may close before all of it is written.
        let _ = socket.write_all(bytes).await;
        let answer = rest(socket).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
}
