//! The admin interface over a real update service and a broker that is not one.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use admin::Check;
use bytes::Bytes;
use hook::{
    Broker, ClientQuery, ClientStatus, Counters, Identity, Properties, Protocol, Qos, Reason,
    ReasonKind, RetainedMessage, RetainedPage, Role, Subscription,
};
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Remembers who was disconnected.
#[derive(Default)]
struct FakeBroker {
    sessions: BTreeMap<String, ClientStatus>,
    disconnected: Mutex<Vec<(String, ReasonKind)>>,
    retained: Mutex<Vec<RetainedMessage>>,
}

impl FakeBroker {
    fn with(ids: &[&str]) -> Self {
        let status = |id: &str| ClientStatus {
            id: id.into(),
            connected: id != "away",
            identity: Identity { name: Some("hall".into()), role: Role::Service },
            protocol: Protocol::V5,
            address: Some("192.0.2.1:5000".parse().unwrap()),
            since: Duration::from_secs(90),
            idle: (id != "away").then_some(Duration::from_secs(3)),
            queued_messages: 4,
            queued_bytes: 500,
            inflight: 2,
            subscription_count: 1,
            subscriptions: vec![Subscription { filter: "plant/#".into(), qos: Qos::AtLeastOnce }],
        };
        let sessions = ids.iter().map(|id| ((*id).to_owned(), status(id))).collect();
        FakeBroker { sessions, ..FakeBroker::default() }
    }
}

impl Broker for FakeBroker {
    fn publish(&self, _: &str, _: Bytes, _: Qos, _: bool, _: Option<Properties>) {}

    fn publish_to(&self, _: &str, _: Bytes, _: Qos, _: &dyn Fn(&Identity) -> bool) {}

    fn disconnect(&self, client_id: &str, reason: &Reason) -> bool {
        let connected = self.sessions.get(client_id).is_some_and(|session| session.connected);
        if connected {
            self.disconnected.lock().unwrap().push((client_id.to_owned(), reason.kind));
        }
        connected
    }

    fn end_sessions(&self, _: &dyn Fn(&Identity) -> bool, _: &Reason) -> usize {
        0
    }

    fn clients(&self) -> Vec<ClientStatus> {
        // In no order that anybody may rely on.
        self.sessions.values().rev().cloned().collect()
    }

    fn clients_page(&self, query: &ClientQuery) -> Vec<ClientStatus> {
        let fits = |session: &&ClientStatus| {
            session.id.starts_with(&query.prefix)
                && query.after.as_deref().is_none_or(|after| *session.id > *after)
                && query.connected.is_none_or(|connected| session.connected == connected)
        };
        self.sessions.values().filter(fits).take(query.limit).cloned().collect()
    }

    fn client(&self, client_id: &str) -> Option<ClientStatus> {
        self.sessions.get(client_id).cloned()
    }

    /// Two at a time at most, and every other page is empty: so may the real one do it.
    fn retained(
        &self,
        filter: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<RetainedPage, Reason> {
        if filter == "a#" {
            return Err(Reason::new(ReasonKind::TopicNameInvalid, "a wildcard stands alone"));
        }
        let behind = |message: &&RetainedMessage| after.is_none_or(|after| *message.topic > *after);
        let retained = self.retained.lock().unwrap();
        let mut rest = retained.iter().filter(behind);
        if after.is_none() {
            return Ok(RetainedPage { messages: Vec::new(), next: Some("".into()) });
        }
        let messages: Vec<_> = rest.by_ref().take(limit.min(2)).cloned().collect();
        let next = rest.next().and(messages.last()).map(|last| last.topic.as_ref().into());
        Ok(RetainedPage { messages, next })
    }

    fn remove_retained(&self, filter: &str) -> Result<usize, Reason> {
        match filter {
            "#" => Ok(self.retained.lock().unwrap().drain(..).count()),
            _ => Err(Reason::new(ReasonKind::ServerBusy, "the log cannot be written")),
        }
    }

    fn publish_time(&self) -> hook::Distribution {
        hook::Distribution::default()
    }

    fn counters(&self) -> Counters {
        Counters { connections: 7, router_renewals: 1, ..Counters::default() }
    }
}

struct Interface {
    _dir: tempfile::TempDir,
    address: SocketAddr,
    broker: Arc<FakeBroker>,
    /// What the store's check says.
    problem: Arc<Mutex<Option<String>>>,
    service: fuota::Service,
    http: reqwest::Client,
    cancel: CancellationToken,
}

impl Drop for Interface {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Interface {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let firmware = dir.path().join("firmware");
        std::fs::create_dir_all(firmware.join("attic")).unwrap();
        std::fs::write(firmware.join("pump-1.0.0.bin"), b"firmware").unwrap();
        std::fs::write(firmware.join("attic/lost.bin"), b"firmware too").unwrap();
        let settings = store::Settings {
            base_dir: dir.path().to_owned(),
            data_dir: dir.path().join("data"),
            settle: Duration::ZERO,
            poll_interval: Duration::from_millis(50),
            ..store::Settings::default()
        };
        let store = store::FirmwareStore::open(settings).unwrap();
        let settings =
            fuota::Settings { data_dir: dir.path().join("data"), ..fuota::Settings::default() };
        let fuota = fuota::Fuota::open(settings, store).unwrap();
        let (service, cancel) = (fuota.service(), CancellationToken::new());
        tokio::spawn(Arc::clone(&fuota).run(cancel.clone()));

        let broker = Arc::new(FakeBroker::with(&["away", "a/b c", "dashboard"]));
        let problem = Arc::new(Mutex::new(None));
        let readiness: admin::Readiness = {
            let problem = Arc::clone(&problem);
            Arc::new(move || {
                let store = problem.lock().unwrap().clone().map_or(Ok(()), Err);
                vec![Check { name: "mqtt", result: Ok(()) }, Check { name: "store", result: store }]
            })
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let settings = admin::Settings {
            token: TOKEN.into(),
            listen: vec![address],
            allowed_hosts: Vec::new(),
            version: "1.2.3".into(),
            sessions: None,
            tls: false,
            connections: 16,
            show_life: Duration::from_millis(50),
        };
        let as_broker: Arc<dyn Broker> = broker.clone();
        let backup: admin::Backup = Arc::new(|_| Box::pin(async { Err(admin::BackupError::Busy) }));
        let router = admin::router(settings, service.clone(), as_broker, readiness, backup);
        tokio::spawn(admin::serve(listener, router, cancel.clone()));
        // As in main: a client needs one provider even where only http is spoken.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Interface { _dir: dir, address, broker, problem, service, http, cancel }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request =
            self.http.request(method, format!("http://{}{path}", self.address)).bearer_auth(TOKEN);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        Answer { status, headers, body }
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.ask(Method::GET, path, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        answer.body
    }

    /// The answer must be a problem, complete, with a sentence.
    async fn problem(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let answer = self.ask(method, path, body).await;
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
        assert_eq!(answer.body["status"], answer.status.as_u16(), "{path}: {}", answer.body);
        assert_eq!(answer.body["title"], answer.status.canonical_reason().unwrap(), "{path}");
        assert!(answer.body["detail"].as_str().unwrap().len() > 10, "{}", answer.body);
        answer
    }
}

#[tokio::test]
async fn a_device_from_registration_to_rotation() {
    let interface = Interface::start().await;
    let new =
        json!({"id": "pump-1", "groups": ["b", "a"], "labels": {"floor": "2"}, "model": "P1"});
    let added = interface.ask(Method::POST, "/api/v1/devices", Some(new.clone())).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.body);
    assert_eq!(added.headers["location"], "/api/v1/devices/pump-1");
    assert_eq!(added.headers["cache-control"], "no-store", "it carries a token");
    let token = added.body["token"].as_str().unwrap().to_owned();

    let one = interface.get("/api/v1/devices/pump-1").await;
    assert_eq!(one["model"], "P1");
    assert_eq!(one["labels"], json!({"floor": "2"}));
    assert_eq!(one["online"], false);
    assert!(!one.to_string().contains(&token));

    let path = "/api/v1/devices/pump-1";
    let changed = interface.ask(Method::PATCH, path, Some(json!({"model": "P2"}))).await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_eq!(changed.body["model"], "P2");
    assert_eq!(changed.body["labels"], json!({"floor": "2"}), "what is not named stays");
    assert!(changed.body.get("token").is_none());
    let rotated = interface.ask(Method::PATCH, path, Some(json!({"rotate_token": true}))).await;
    assert_ne!(rotated.body["token"].as_str().unwrap(), token);

    let again = interface.problem(Method::POST, "/api/v1/devices", Some(new)).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn devices_come_in_pages_and_by_filter() {
    let interface = Interface::start().await;
    for (id, group) in [("d1", "odd"), ("d2", "even"), ("d3", "odd"), ("d4", "even"), ("d5", "odd")]
    {
        let new = json!({"id": id, "groups": [group]});
        let added = interface.ask(Method::POST, "/api/v1/devices", Some(new)).await;
        assert_eq!(added.status, StatusCode::CREATED);
    }
    let (mut ids, mut path) = (Vec::new(), "/api/v1/devices?limit=2".to_owned());
    loop {
        let page = interface.get(&path).await;
        ids.extend(page["devices"].as_array().unwrap().iter().map(|device| device["id"].clone()));
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/devices?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(ids, ["d1", "d2", "d3", "d4", "d5"]);
    let odd = interface.get("/api/v1/devices?group=odd&limit=3").await;
    assert_eq!(odd["devices"].as_array().unwrap().len(), 3);
    assert_eq!(odd["next"], Value::Null, "a full last page promises no other");
    assert_eq!(interface.get("/api/v1/devices?online=true").await["devices"], json!([]));
    assert_eq!(interface.get("/api/v1/devices?search=D9").await["devices"], json!([]));
    for query in ["limit=0", "limit=1001", "limit=x", "colour=red", "online=perhaps"] {
        let path = format!("/api/v1/devices?{query}");
        let answer = interface.problem(Method::GET, &path, None).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_device_names_the_field() {
    let interface = Interface::start().await;
    for (body, status, part) in [
        (json!({"id": "a b"}), 422, "id"),
        (json!({"id": "a", "groups": ["x y"]}), 422, "groups"),
        (json!({"id": "a", "model": "x y"}), 422, "model"),
        (json!({"id": "a", "token": "short"}), 422, "token"),
        (json!({"id": 5}), 400, "id"),
        (json!({}), 400, "id"),
        (json!({"id": "a", "colour": 1}), 400, "colour"),
        (json!([]), 400, "body"),
    ] {
        let answer = interface.problem(Method::POST, "/api/v1/devices", Some(body.clone())).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.body);
        assert!(answer.body["detail"].as_str().unwrap().contains(part), "{body}: {}", answer.body);
        if status == 422 {
            assert_eq!(answer.body["field"], part, "{body}");
        }
    }
    let unknown = interface.problem(Method::PATCH, "/api/v1/devices/nobody", Some(json!({}))).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn firmware_is_listed_with_what_was_refused() {
    let interface = Interface::start().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while interface.service.firmware().len() < 2 {
        assert!(tokio::time::Instant::now() < deadline, "the files are found");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let listed = interface.get("/api/v1/firmware").await;
    let files = listed["firmware"].as_array().unwrap();
    let by_path = |start: &str| {
        let is_it = |file: &&Value| file["path"].as_str().unwrap().starts_with(start);
        files.iter().find(is_it).unwrap_or_else(|| panic!("no {start} in {listed}")).clone()
    };
    let pump = by_path("pump-1.0.0.bin");
    assert_eq!(pump["state"], "accepted");
    assert_eq!(pump["version"], json!({"value": "1.0.0", "from": "file name"}));
    let lost = by_path("attic");
    assert_eq!(lost["state"], "refused");
    assert!(lost["reason"].as_str().unwrap().contains("folder"), "{lost}");
    let id = pump["id"].as_str().unwrap();
    assert_eq!(interface.get(&format!("/api/v1/firmware/{id}")).await, pump);
    let first = interface.get("/api/v1/firmware?limit=1").await;
    let next = first["next"].as_str().unwrap();
    let second = interface.get(&format!("/api/v1/firmware?limit=1&after={next}")).await;
    assert_eq!(second["next"], Value::Null);
    assert_ne!(first["firmware"], second["firmware"]);
}

#[tokio::test]
async fn clients_are_listed_shown_and_disconnected() {
    let interface = Interface::start().await;
    let listed = interface.get("/api/v1/clients").await;
    let ids: Vec<&Value> =
        listed["clients"].as_array().unwrap().iter().map(|client| &client["id"]).collect();
    assert_eq!(ids, ["a/b c", "away", "dashboard"], "in order");
    assert!(listed["clients"][0].get("subscriptions").is_none(), "a list stays bounded");
    let one = interface.get("/api/v1/clients/a%2Fb%20c").await;
    assert_eq!(
        one,
        json!({
            "id": "a/b c", "connected": true, "name": "hall", "role": "service", "protocol": "5",
            "address": "192.0.2.1:5000", "since_seconds": 90, "idle_seconds": 3,
            "queued_messages": 4, "queued_bytes": 500, "inflight": 2, "subscription_count": 1,
            "subscriptions": [{"filter": "plant/#", "qos": 1}],
        })
    );
    let away = interface.get("/api/v1/clients?connected=false").await;
    assert_eq!(away["clients"].as_array().unwrap().len(), 1);
    let some = interface.get("/api/v1/clients?prefix=a&limit=1").await;
    assert_eq!((&some["clients"][0]["id"], &some["next"]), (&json!("a/b c"), &json!("a/b c")));
    let rest = interface.get("/api/v1/clients?prefix=a&limit=1&after=a%2Fb%20c").await;
    assert_eq!((&rest["clients"][0]["id"], &rest["next"]), (&json!("away"), &Value::Null));

    let gone = interface.ask(Method::DELETE, "/api/v1/clients/a%2Fb%20c", None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let disconnected = interface.broker.disconnected.lock().unwrap().clone();
    assert_eq!(disconnected, [("a/b c".to_owned(), ReasonKind::AdministrativeAction)]);
    for path in ["/api/v1/clients/away", "/api/v1/clients/nobody"] {
        let answer = interface.problem(Method::DELETE, path, None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn retained_messages_are_listed_in_pages_and_removed_by_filter() {
    let interface = Interface::start().await;
    let message = |topic: &str, payload: &[u8]| RetainedMessage {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload),
        qos: Qos::AtLeastOnce,
        expires_in: (topic == "c").then_some(60),
    };
    let large = vec![b'x'; 3 << 20];
    *interface.broker.retained.lock().unwrap() = vec![
        message("a", "größe".as_bytes()),
        message("b", &[0xff, 0]),
        message("c", b"1"),
        message("d", &large),
        message("e", &large),
        message("f", b"2"),
    ];
    let all = interface.get("/api/v1/retained").await;
    assert_eq!(
        all["retained"].as_array().unwrap()[..3],
        [
            json!({"topic": "a", "qos": 1, "size": 7, "expires_in_seconds": null,
                   "encoding": "utf-8", "payload": "größe"}),
            json!({"topic": "b", "qos": 1, "size": 2, "expires_in_seconds": null,
                   "encoding": "base64", "payload": "/wA="}),
            json!({"topic": "c", "qos": 1, "size": 1, "expires_in_seconds": 60,
                   "encoding": "utf-8", "payload": "1"}),
        ]
    );
    let topics = |page: &Value| -> Vec<String> {
        let rows = page["retained"].as_array().unwrap();
        rows.iter().map(|row| row["topic"].as_str().unwrap().to_owned()).collect()
    };
    // A page ends where it would grow too large, and goes on with the next one.
    assert_eq!((topics(&all).join(""), &all["next"]), ("abcd".into(), &json!("d")));
    let rest = interface.get("/api/v1/retained?after=d").await;
    assert_eq!((topics(&rest).join(""), &rest["next"]), ("ef".into(), &Value::Null));
    let one = interface.get("/api/v1/retained?limit=3").await;
    assert_eq!((topics(&one).join(""), &one["next"]), ("abc".into(), &json!("c")));

    let wrong = interface.problem(Method::GET, "/api/v1/retained?filter=a%23", None).await;
    assert_eq!(
        (wrong.status, &wrong.body["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("filter"))
    );
    let missing = interface.problem(Method::DELETE, "/api/v1/retained", None).await;
    assert_eq!(missing.status, StatusCode::BAD_REQUEST, "{}", missing.body);
    let busy = interface.problem(Method::DELETE, "/api/v1/retained?filter=x", None).await;
    assert_eq!(busy.status, StatusCode::SERVICE_UNAVAILABLE);
    let removed = interface.ask(Method::DELETE, "/api/v1/retained?filter=%23", None).await;
    assert_eq!((removed.status, removed.body), (StatusCode::OK, json!({"removed": 6})));
}

#[tokio::test]
async fn nothing_there_and_not_like_that() {
    let interface = Interface::start().await;
    for path in [
        "/index.html",
        "/api",
        "/api/",
        "/api/v1",
        "/api/v1/nothing",
        "/api/v2/devices",
        "/nothing",
    ] {
        let answer = interface.problem(Method::GET, path, None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    for (method, path) in [
        (Method::DELETE, "/api/v1/status"),
        (Method::PUT, "/api/v1/devices"),
        (Method::POST, "/healthz"),
    ] {
        let answer = interface.problem(method, path, None).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert!(answer.headers["allow"].to_str().unwrap().contains("GET"), "{path}");
    }
    let bad = interface.problem(Method::GET, "/api/v1/devices/%ff", None).await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    // Without the token, an address that does not exist is told from none that does.
    let url = format!("http://{}/api/v1/nothing", interface.address);
    let answer = interface.http.get(url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"fuotad\"");
}

#[tokio::test]
async fn readiness_has_its_reasons() {
    let interface = Interface::start().await;
    let url = |path: &str| format!("http://{}{path}", interface.address);
    let ready = interface.http.get(url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK, "and it needs no token");
    *interface.problem.lock().unwrap() = Some("the disk is gone".to_owned());
    let ready = interface.http.get(url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body: Value = ready.json().await.unwrap();
    assert_eq!(
        body,
        json!({"ready": false, "checks": [
            {"name": "mqtt", "ok": true},
            {"name": "store", "ok": false, "reason": "the disk is gone"},
        ]})
    );
    let health = interface.http.get(url("/healthz")).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK, "the process lives all the same");
    let status = interface.get("/api/v1/status").await;
    assert_eq!(status["version"], "1.2.3");
    assert_eq!(status["ready"], false);
    assert_eq!(status["broker"]["connections"], 7);
    assert_eq!(status["broker"]["router_renewals"], 1);
    assert!(status["fuota"]["devices"]["total"].is_u64(), "{status}");
}

#[tokio::test]
async fn the_page_is_open_and_the_metrics_are_not() {
    let interface = Interface::start().await;
    let get = |path: &str| interface.http.get(format!("http://{}{path}", interface.address));
    let page = get("/").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    assert_eq!(get("/metrics").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let metrics = get("/metrics").bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(metrics.status(), StatusCode::OK);
    let text = metrics.text().await.unwrap();
    assert!(text.contains("\nfuotad_mqtt_connections 7\n"), "{text}");
    let user = fuota::NewUser {
        name: "prometheus".into(),
        role: fuota::UserRole::Service,
        password: Some(fuota::Password("correct horse".into())),
    };
    interface.service.add_user(user, None, &fuota::Actor::default()).await.unwrap();
    let as_user = get("/metrics").basic_auth("prometheus", Some("correct horse"));
    assert_eq!(as_user.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_login_is_a_cookie_and_ends_with_the_password() {
    let interface = Interface::start().await;
    let url = |path: &str| format!("http://{}/api/v1/{path}", interface.address);
    let user = fuota::NewUser {
        name: "ann".into(),
        role: fuota::UserRole::Operator,
        password: Some(fuota::Password("correct horse".into())),
    };
    interface.service.add_user(user, None, &fuota::Actor::default()).await.unwrap();
    let login = |body: Value| interface.http.post(url("session")).json(&body).send();
    for wrong in [
        json!({"name": "ann", "password": "wrong"}),
        json!({"token": "wrong"}),
        json!({"name": "ann"}),
        json!({"token": TOKEN, "name": "ann", "password": "correct horse"}),
    ] {
        let answer = login(wrong.clone()).await.unwrap();
        assert!(answer.status().is_client_error(), "{wrong}: {}", answer.status());
        assert!(!answer.headers().contains_key("set-cookie"), "{wrong}");
    }
    let answer = login(json!({"name": "ann", "password": "correct horse"})).await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let view: Value = answer.json().await.unwrap();
    assert_eq!((&view["name"], &view["role"]), (&json!("ann"), &json!("operator")));
    let csrf = view["csrf"].as_str().unwrap().to_owned();

    let with = |method: Method, path: &str, csrf: &str| {
        let request = interface.http.request(method, url(path)).header("cookie", &cookie);
        request.header("x-csrf-token", csrf).send()
    };
    let status = async |method, path, csrf| with(method, path, csrf).await.unwrap().status();
    assert_eq!(status(Method::GET, "devices", "").await, StatusCode::OK);
    assert_eq!(status(Method::PUT, "freeze", "").await, StatusCode::FORBIDDEN);
    assert_eq!(status(Method::PUT, "freeze", &csrf).await, StatusCode::OK);
    assert_eq!(interface.service.frozen().by.as_deref(), Some("ann"), "who did it");
    assert_eq!(status(Method::GET, "users", &csrf).await, StatusCode::FORBIDDEN, "an operator");

    let patch = fuota::UserPatch { new_password: true, ..fuota::UserPatch::default() };
    interface.service.set_user("ann", patch, &fuota::Actor::default()).await.unwrap();
    assert_eq!(status(Method::GET, "devices", "").await, StatusCode::UNAUTHORIZED);
    let nobody: Value = with(Method::GET, "session", "").await.unwrap().json().await.unwrap();
    assert_eq!(nobody["role"], Value::Null);
}

/// Of 16 connections a login gets two for streams of events, and all together eight.
#[tokio::test]
async fn streams_of_events_leave_places_for_others() {
    let interface = Interface::start().await;
    for name in ["ann", "bob", "cid", "dan"] {
        let user = fuota::NewUser {
            name: name.into(),
            role: fuota::UserRole::Service,
            password: Some(fuota::Password("correct horse".into())),
        };
        interface.service.add_user(user, None, &fuota::Actor::default()).await.unwrap();
    }
    let listen = async |name: &str| {
        let url = format!("http://{}/api/v1/events", interface.address);
        let request = interface.http.get(url).basic_auth(name, Some("correct horse"));
        request.send().await.unwrap()
    };
    let mut streams = Vec::new();
    for name in ["ann", "ann", "bob", "bob", "cid", "cid"] {
        streams.push(listen(name).await);
    }
    let refused = listen("ann").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.text().await.unwrap().contains("2 at once for one login"));
    streams.push(listen("dan").await);
    streams.push(listen("dan").await);
    assert!(streams.iter().all(|stream| stream.status() == StatusCode::OK));
    let all = interface.problem(Method::GET, "/api/v1/events", None).await;
    assert_eq!(all.status, StatusCode::SERVICE_UNAVAILABLE);
    let frozen = interface.ask(Method::PUT, "/api/v1/freeze", None).await;
    assert_eq!(frozen.status, StatusCode::OK);
    // The server notices on its own time that one is gone.
    drop(streams);
    while listen("ann").await.status() != StatusCode::OK {
        tokio::task::yield_now().await;
    }
}

/// What a stream of events says, and its end.
struct Stream(reqwest::Response, String);

impl Stream {
    /// With this header; the place has been heard.
    async fn open(interface: &Interface, name: &str, value: &str) -> Stream {
        let url = format!("http://{}/api/v1/events", interface.address);
        let response = interface.http.get(url).header(name, value).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut stream = Stream(response, String::new());
        stream.until("id: ").await;
        stream
    }

    /// Hears until these words; false where it ends before.
    async fn until(&mut self, words: &str) -> bool {
        let hear = async {
            while !self.1.contains(words) {
                match self.0.chunk().await.unwrap() {
                    Some(chunk) => self.1 += std::str::from_utf8(&chunk).unwrap(),
                    None => return false,
                }
            }
            true
        };
        tokio::time::timeout(Duration::from_secs(20), hear).await.expect("it goes on for ever")
    }
}

fn new_user(name: &str, role: fuota::UserRole) -> fuota::NewUser {
    let password = Some(fuota::Password("correct horse".into()));
    fuota::NewUser { name: name.into(), role, password }
}

/// The cookie of a login at the page, and what its changes carry.
async fn log_in(interface: &Interface, name: &str) -> (String, String) {
    let url = format!("http://{}/api/v1/session", interface.address);
    let login = json!({"name": name, "password": "correct horse"});
    let answer = interface.http.post(url).json(&login).send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let cookie = cookie.to_owned();
    let view: Value = answer.json().await.unwrap();
    (cookie, view["csrf"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_stream_of_events_ends_with_its_login() {
    let interface = Interface::start().await;
    let service = &interface.service;
    let actor = fuota::Actor::default();
    for name in ["ann", "bob", "cid", "dan"] {
        service.add_user(new_user(name, fuota::UserRole::Operator), None, &actor).await.unwrap();
    }
    let token = fuota::NewToken::default();
    let (token, _) = service.add_user_token("ann", token, None, &actor).await.unwrap();
    let bearer = format!("Bearer {}", token.token);
    let basic = |name: &str| {
        use base64::Engine as _;
        let login = format!("{name}:correct horse");
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login))
    };
    let (cookie, csrf) = log_in(&interface, "bob").await;
    let mut by_token = Stream::open(&interface, "authorization", &bearer).await;
    let mut by_cookie = Stream::open(&interface, "cookie", &cookie).await;
    let mut by_password = Stream::open(&interface, "authorization", &basic("cid")).await;
    let mut removed = Stream::open(&interface, "authorization", &basic("dan")).await;
    let add = async |id: &str| {
        let device = fuota::NewDevice { id: id.into(), ..fuota::NewDevice::default() };
        service.add_device(device, None, &actor).await.unwrap();
    };
    add("pump-1").await;
    for stream in [&mut by_token, &mut by_cookie, &mut by_password, &mut removed] {
        assert!(stream.until("pump-1").await);
    }

    service.remove_user_token("ann", &token.view.id, &actor).await.unwrap();
    let url = format!("http://{}/api/v1/session", interface.address);
    let out = interface.http.delete(url).header("cookie", &cookie).header("x-csrf-token", csrf);
    assert_eq!(out.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let demoted =
        fuota::UserPatch { role: Some(fuota::UserRole::Service), ..fuota::UserPatch::default() };
    service.set_user("cid", demoted, &actor).await.unwrap();
    service.remove_user("dan", &actor).await.unwrap();
    add("pump-2").await;
    for stream in [&mut by_token, &mut by_cookie, &mut by_password, &mut removed] {
        assert!(!stream.until("pump-2").await, "{}", stream.1);
        assert!(!stream.1.contains("pump-2"));
    }
}

/// Nothing happens, and the login ends: so does the stream, when it would show life.
#[tokio::test]
async fn a_stream_that_hears_nothing_ends_with_its_login_too() {
    let interface = Interface::start().await;
    let (service, actor) = (&interface.service, fuota::Actor::default());
    service.add_user(new_user("ann", fuota::UserRole::Service), None, &actor).await.unwrap();
    let token = fuota::NewToken::default();
    let (token, _) = service.add_user_token("ann", token, None, &actor).await.unwrap();
    let bearer = format!("Bearer {}", token.token);
    let mut stream = Stream::open(&interface, "authorization", &bearer).await;
    assert!(stream.until("\n:").await, "a comment shows life");
    service.remove_user_token("ann", &token.view.id, &actor).await.unwrap();
    assert!(!stream.until("nothing of this").await);
}

#[tokio::test]
async fn a_form_that_brings_no_field_is_refused_and_a_large_image_is_not() {
    let interface = Interface::start().await;
    let head =
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"pump-2.0.0.bin\"\r\n";
    let (filler, end) = ("x".repeat(1 << 20), "\r\n\r\nx\r\n--b--\r\n");
    let preamble = format!("{filler}\r\n{head}{end}");
    let headers = format!("{head}X-Filler: {filler}{end}");
    let large = format!("{head}\r\n{}\r\n--b--\r\n", "y".repeat(8 << 20));
    for (form, status) in [(preamble, 413), (headers, 413), (large, 201)] {
        let mut socket = tokio::net::TcpStream::connect(interface.address).await.unwrap();
        let request = format!(
            "POST /api/v1/firmware HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n",
            interface.address,
            form.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        // Beyond what is read before the answer nobody takes it.
        let (mut answers, mut form_to) = socket.split();
        let sending = form_to.write_all(form.as_bytes());
        let mut answer = [0; 12];
        let (_, answered) = tokio::join!(sending, answers.read_exact(&mut answer));
        answered.unwrap();
        assert_eq!(std::str::from_utf8(&answer[9..]).unwrap(), status.to_string());
    }
}

#[tokio::test]
async fn only_an_admin_hears_of_users() {
    let interface = Interface::start().await;
    let (service, actor) = (&interface.service, fuota::Actor::default());
    for (name, role) in [("ann", fuota::UserRole::Operator), ("bob", fuota::UserRole::Admin)] {
        service.add_user(new_user(name, role), None, &actor).await.unwrap();
    }
    let token = async |name: &str| {
        let made = service.add_user_token(name, fuota::NewToken::default(), None, &actor).await;
        format!("Bearer {}", made.unwrap().0.token)
    };
    let (ann, bob) = (token("ann").await, token("bob").await);
    let url = format!("http://{}/api/v1/events?type=user&follow=false", interface.address);
    for (login, status) in [(&ann, StatusCode::FORBIDDEN), (&bob, StatusCode::OK)] {
        let request = interface.http.get(&url).header("authorization", login);
        assert_eq!(request.send().await.unwrap().status(), status);
    }
    let mut hears = Stream::open(&interface, "authorization", &bob).await;
    let mut hears_not = Stream::open(&interface, "authorization", &ann).await;
    service.add_user(new_user("secret-cid", fuota::UserRole::Service), None, &actor).await.unwrap();
    let device = fuota::NewDevice { id: "pump-1".into(), ..fuota::NewDevice::default() };
    service.add_device(device, None, &actor).await.unwrap();
    assert!(hears.until("pump-1").await && hears_not.until("pump-1").await);
    assert!(hears.1.contains("secret-cid"));
    assert!(!hears_not.1.contains("secret-cid"), "{}", hears_not.1);
}
