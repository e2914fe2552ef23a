//! A site for tests: a real store on a temporary directory, the plugin, and sessions whose
//! broker is this file.

mod session;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hook::{
    BoxFuture, Broker, Client, ClientQuery, ClientStatus, ConnectRequest, ConnectVerdict, Counters,
    Hook, Identity, Outbox, Properties, Protocol, Qos, Reason, RetainedPage, Sink, Slot,
    Subscription,
};
use parking_lot::Mutex;
use store::FirmwareStore;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use session::{FakeSink, Session};

use crate::{
    Act, Acted, Actor, DeploymentView, DeviceView, Fuota, NewDeployment, Service, Settings, Upload,
};

pub const TOPIC: &str = "tago/data/post";
/// Longer than anything takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Site {
    pub dir: tempfile::TempDir,
    pub fuota: Arc<Fuota>,
    pub hook: Arc<dyn Hook>,
    pub service: Service,
    pub broker: Arc<FakeBroker>,
    pub store: Arc<FirmwareStore>,
    settings: Settings,
    cancel: CancellationToken,
    running: JoinHandle<()>,
}

#[derive(Default)]
pub struct FakeBroker {
    pub disconnected: Mutex<Vec<String>>,
    pub silent: AtomicBool,
    /// Whose session each client id has; of others nobody is known.
    pub owners: Mutex<HashMap<String, Identity>>,
}

impl Broker for FakeBroker {
    fn publish(&self, _: &str, _: Bytes, _: Qos, _: bool, _: Option<Properties>) {}
    fn publish_to(&self, _: &str, _: Bytes, _: Qos, _: &dyn Fn(&Identity) -> bool) {}
    fn disconnect(&self, client_id: &str, _: &Reason) -> bool {
        self.disconnected.lock().push(client_id.into());
        true
    }
    fn end_sessions(&self, of: &dyn Fn(&Identity) -> bool, _: &Reason) -> BoxFuture<'static, bool> {
        self.owners.lock().retain(|_, identity| !of(identity));
        Box::pin(std::future::ready(true))
    }
    fn clients(&self) -> Vec<ClientStatus> {
        let owners: Vec<_> = self.owners.lock().keys().cloned().collect();
        owners.iter().filter_map(|id| self.client(id)).collect()
    }
    fn client(&self, client_id: &str) -> Option<ClientStatus> {
        Some(ClientStatus {
            id: client_id.into(),
            connected: true,
            identity: self.owners.lock().get(client_id).cloned().unwrap_or(Identity::ANONYMOUS),
            protocol: Protocol::V311,
            address: None,
            since: Duration::ZERO,
            idle: Some(if self.silent.load(Ordering::Relaxed) {
                Duration::from_secs(3600)
            } else {
                Duration::ZERO
            }),
            queued_messages: 0,
            queued_bytes: 0,
            inflight: 0,
            subscription_count: 0,
            subscriptions: Vec::new(),
        })
    }
    fn clients_page(&self, _: &ClientQuery) -> Vec<ClientStatus> {
        self.clients()
    }
    fn retained(&self, _: &str, _: Option<&str>, _: usize) -> Result<RetainedPage, Reason> {
        Ok(RetainedPage::default())
    }
    fn remove_retained(&self, _: &str) -> Result<usize, Reason> {
        Ok(0)
    }
    fn publish_time(&self) -> hook::Distribution {
        hook::Distribution::default()
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

impl Site {
    pub async fn start() -> Site {
        Site::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Settings)) -> Site {
        Site::with_files(&[], change).await
    }

    /// With files that are there at the very first start.
    pub async fn with_files(files: &[(&str, &[u8])], change: impl FnOnce(&mut Settings)) -> Site {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("firmware")).unwrap();
        for (path, bytes) in files {
            std::fs::write(dir.path().join("firmware").join(path), bytes).unwrap();
        }
        let mut settings = Settings {
            data_dir: dir.path().join("data"),
            chunk_size: 100,
            flush_interval: Duration::from_millis(20),
            // Each test that is about it says how long.
            retry_after: Duration::ZERO,
            ..Settings::default()
        };
        change(&mut settings);
        let site = Site::open(dir, settings);
        site.until("the first scan", |site| site.service.status().ready).await;
        site
    }

    fn open(dir: tempfile::TempDir, settings: Settings) -> Site {
        let store = FirmwareStore::open(store::Settings {
            base_dir: dir.path().into(),
            data_dir: dir.path().join("data"),
            settle: Duration::ZERO,
            poll_interval: Duration::from_millis(50),
            ..store::Settings::default()
        })
        .unwrap();
        let fuota = Fuota::open(settings.clone(), Arc::clone(&store)).unwrap();
        let broker = Arc::new(FakeBroker::default());
        let hook = fuota.hook();
        hook.start(Arc::clone(&broker) as Arc<dyn Broker>);
        let cancel = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&fuota).run(cancel.clone()));
        let service = fuota.service();
        Site { dir, fuota, hook, service, broker, store, settings, cancel, running }
    }

    /// Ends without writing what is not queued yet, and starts again.
    pub async fn crash(self) -> Site {
        self.running.abort();
        drop(self.running.await);
        // What is left of it must not take in files beside the next one.
        self.cancel.cancel();
        // Two writers at once there never are: some task of it may go on.
        let engine = Arc::clone(&self.service.0);
        tokio::task::spawn_blocking(move || engine.db.kill()).await.unwrap();
        crate::db::full::allow(&database(&self.settings));
        let site = Site::open(self.dir, self.settings);
        site.until("the first scan", |site| site.service.status().ready).await;
        site
    }

    /// Goes on with other settings.
    pub async fn configure(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.fuota.configure(self.settings.clone()).await.unwrap();
    }

    /// Stops in order and starts again, with other settings.
    pub async fn restart(self, change: impl FnOnce(&mut Settings)) -> Site {
        self.cancel.cancel();
        self.running.await.unwrap();
        let mut settings = self.settings;
        change(&mut settings);
        let site = Site::open(self.dir, settings);
        site.until("the first scan", |site| site.service.status().ready).await;
        site
    }

    /// The same with the settings as they are, when this was done in the watched directory. Does
    /// not wait for the first scan.
    pub async fn restart_after(self, meanwhile: impl FnOnce(&std::path::Path)) -> Site {
        self.cancel.cancel();
        self.running.await.unwrap();
        meanwhile(&self.dir.path().join("firmware"));
        Site::open(self.dir, self.settings)
    }

    /// From now on the database takes no row of these tables, or of any where none is named.
    pub fn forbid_writing(&self, tables: &[&str]) {
        crate::db::full::forbid(&database(&self.settings), tables);
    }

    /// It takes them again.
    pub fn allow_writing(&self) {
        crate::db::full::allow(&database(&self.settings));
    }

    /// Waits until the database has nothing more to write that it was to.
    pub async fn until_all_is_written(&self) {
        let engine = &self.service.0;
        self.until("the database is written again", |_| {
            engine.unwritten.lock().is_empty() && engine.db.problem().is_none()
        })
        .await;
        engine.db.commit(Vec::new()).await.unwrap();
    }

    /// Waits until so many further jobs were queued for the database.
    pub async fn until_jobs(&self, more: u64) {
        let before = self.service.0.db.jobs();
        self.until("jobs", |site| site.service.0.db.jobs() >= before + more).await;
    }

    /// Drops a file by rename and waits until it is in the catalog.
    pub async fn drop_file(&self, path: &str, bytes: &[u8]) {
        let before = self.service.status().batches;
        let target = self.dir.path().join("firmware").join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        let temporary = self.dir.path().join("dropping");
        std::fs::write(&temporary, bytes).unwrap();
        std::fs::rename(temporary, target).unwrap();
        self.store.rescan();
        let digest = store::Digest::of(bytes).to_string();
        self.until(path, |site| {
            site.service.status().batches > before
                && site
                    .service
                    .firmware()
                    .iter()
                    .any(|view| view.path == path && view.digest.as_ref() == Some(&digest))
        })
        .await;
    }

    pub async fn remove_file(&self, path: &str) {
        let before = self.service.status().batches;
        std::fs::remove_file(self.dir.path().join("firmware").join(path)).unwrap();
        self.store.rescan();
        self.until(path, |site| {
            site.service.status().batches > before
                && site.service.firmware().iter().all(|view| view.path != path)
        })
        .await;
    }

    /// Uploads an image, and gives its id.
    pub async fn upload(&self, file_name: &str, bytes: &[u8]) -> String {
        let upload = Upload { file_name: file_name.into(), ..Upload::default() };
        let bytes = Bytes::copy_from_slice(bytes);
        let stream = futures_util::stream::iter([Ok(bytes)]);
        let bytes = self.service.take_upload(stream).await.unwrap();
        self.service.add_firmware(upload, bytes, None, &ann()).await.unwrap().0.id
    }

    /// The id of the firmware at this path.
    pub fn firmware_id(&self, path: &str) -> String {
        let found = self.service.firmware().into_iter().find(|view| view.path == path);
        found.unwrap_or_else(|| panic!("no {path}")).id
    }

    /// Deploys firmware; `target` and `rollout` are JSON.
    pub async fn deploy(&self, firmware: &str, target: &str, rollout: &str) -> i64 {
        let new = deployment(firmware, target, rollout);
        let (view, is_new) = self.service.create_deployment(new, None, &ann()).await.unwrap();
        assert!(is_new);
        view.id.parse().unwrap()
    }

    pub async fn act(&self, id: i64, act: Act) -> Acted {
        self.service.act_on_deployment(id, act, None, &ann()).await.unwrap()
    }

    /// How many devices of a deployment are in this state.
    pub fn count(&self, id: i64, state: &str) -> usize {
        self.service.deployment(id).unwrap().counts[state]
    }

    pub async fn until_deployment(&self, id: i64, state: &str) -> DeploymentView {
        self.until(&format!("deployment {id} {state}"), |site| {
            site.service.deployment(id).is_some_and(|view| view.state == state)
        })
        .await;
        self.service.deployment(id).unwrap()
    }

    /// Waits until this is in the device's timeline, which is in the database.
    pub async fn until_written(&self, device: &str, action: &str) {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let lines = self.service.timeline(device, None, 100).await.unwrap_or_default();
                if lines.iter().any(|line| line.action == action) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{device}: {action} was not written"));
    }

    pub async fn until(&self, what: &str, mut reached: impl FnMut(&Site) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !reached(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        if waited.await.is_err() {
            panic!(
                "{what} did not happen: {:?} {:?}",
                self.service.status(),
                self.service.firmware()
            );
        }
    }

    pub async fn until_state(&self, id: &str, state: &str) -> DeviceView {
        self.until(&format!("{id} {state}"), |site| {
            site.service.device(id).is_some_and(|device| device.state.as_deref() == Some(state))
        })
        .await;
        self.service.device(id).unwrap()
    }

    pub async fn identify(&self, request: &ConnectRequest) -> ConnectVerdict {
        self.hook.connect(request).await
    }

    /// Connects a client of this id without a proof.
    pub async fn connect(&self, id: &str) -> Session {
        self.connect_as(request(id)).await.unwrap()
    }

    /// Connects one that listens as the reference's devices do.
    pub async fn listening(&self, id: &str) -> Session {
        let mut device = self.connect(id).await;
        device.subscribe(TOPIC);
        device
    }

    /// So many of them: `dev-0`, `dev-1` and so on.
    pub async fn field(&self, number: usize) -> Vec<Session> {
        let mut devices = Vec::new();
        for index in 0..number {
            devices.push(self.listening(&format!("dev-{index}")).await);
        }
        devices
    }

    pub async fn connect_as(&self, request: ConnectRequest) -> Result<Session, Reason> {
        self.connect_limited(request, u32::MAX).await
    }

    pub async fn connect_limited(
        &self,
        request: ConnectRequest,
        maximum_packet_size: u32,
    ) -> Result<Session, Reason> {
        let identity = match self.identify(&request).await {
            ConnectVerdict::Continue => Identity::ANONYMOUS,
            ConnectVerdict::Accept(identity) => identity,
            ConnectVerdict::Reject(reason) => return Err(reason),
        };
        Ok(self.session(request, identity, maximum_packet_size, &[]))
    }

    /// A session of any role, resuming these subscriptions.
    pub fn session(
        &self,
        request: ConnectRequest,
        identity: Identity,
        maximum_packet_size: u32,
        resumed: &[Subscription],
    ) -> Session {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (sender, receiver) = mpsc::unbounded_channel();
        let sink = Arc::new(FakeSink {
            sender,
            room: AtomicUsize::new(usize::MAX),
            open: AtomicBool::new(true),
        });
        let client = Arc::new(Client {
            connection: match request.connection {
                0 => NEXT.fetch_add(1, Ordering::Relaxed),
                number => number,
            },
            id: request.client_id,
            assigned_id: request.assigned_id,
            identity,
            username: request.username.map(Into::into),
            protocol: request.protocol,
            address: request.address,
            maximum_packet_size,
            receive_maximum: u16::MAX,
            user_properties: request.user_properties.into(),
        });
        let mut session = Session {
            hook: Arc::clone(&self.hook),
            outbox: Outbox::new(Arc::clone(&sink) as Arc<dyn Sink>),
            client,
            slot: Slot::default(),
            sink,
            receiver,
        };
        let hook = Arc::clone(&session.hook);
        hook.session_start(session.context(), resumed);
        for subscription in resumed {
            session.hook.clone().subscribe(session.context(), subscription);
        }
        session
    }
}

fn database(settings: &Settings) -> std::path::PathBuf {
    settings.data_dir.join(crate::engine::DATABASE)
}

/// An operator.
pub fn ann() -> Actor {
    Actor { name: Some("ann".into()), origin: Some("192.0.2.1".into()) }
}

/// A deployment to make; `target` and `rollout` are JSON.
pub fn deployment(firmware: &str, target: &str, rollout: &str) -> NewDeployment {
    let json = format!(r#"{{"firmware":"{firmware}","target":{target},"rollout":{rollout}}}"#);
    serde_json::from_str(&json).unwrap()
}

/// A CONNECT of this client id without a proof.
pub fn request(id: &str) -> ConnectRequest {
    ConnectRequest {
        connection: 0,
        client_id: id.into(),
        assigned_id: false,
        username: None,
        password: None,
        certificate_cn: None,
        protocol: Protocol::V311,
        address: None,
        user_properties: Vec::new(),
    }
}

/// A CONNECT with the user name `Token`, as the reference's devices send it.
pub fn token_request(token: &str) -> ConnectRequest {
    ConnectRequest {
        assigned_id: true,
        username: Some("Token".into()),
        password: Some(token.into()),
        ..request("assigned")
    }
}
