//! The admin interface over a real update service and a broker that is not one.

mod logins;
mod resources;

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

    fn end_sessions(
        &self,
        _: &dyn Fn(&Identity) -> bool,
        _: &Reason,
    ) -> hook::BoxFuture<'static, bool> {
        Box::pin(std::future::ready(true))
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
