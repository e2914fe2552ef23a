//! A real S3 server inside the test: s3s-fs over HTTP on a free port, with signatures checked.
//!
//! Included by `#[path]`, so that it serves the tests of several crates.
#![allow(dead_code, reason = "each test uses its own part of this")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The only key that the server accepts.
pub const ACCESS_KEY_ID: &str = "site-1";
/// The secret that belongs to it.
pub const SECRET_ACCESS_KEY: &str = "only for tests";
/// The only bucket.
pub const BUCKET: &str = "firmware";

/// What the server does wrong with requests for objects whose name has `pump` in it; with all
/// requests where it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// This status to whoever wants the bytes.
    Status(u16),
    /// This status to whoever asks about the object.
    HeadStatus(u16),
    /// The status 500 to whoever asks about the object whose name ends so.
    HeadOf(&'static str),
    /// This status, for listings too.
    EveryStatus(u16),
    /// Half of the body, and then the connection ends.
    HalfBody,
    /// A body that is one byte shorter than what was listed, and says so.
    ShortBody,
    /// No answer to anything, until there is another fault.
    Frozen,
}

/// What a server and its connections share.
struct Shared {
    service: S3Service,
    fault: watch::Sender<Fault>,
    /// Bytes of objects that were sent.
    sent: AtomicU64,
}

/// The server. Dropped, it is gone with all that was stored.
pub struct S3Server {
    root: tempfile::TempDir,
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Starts it with an empty bucket.
    pub async fn start() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(root.path().join(BUCKET)).expect("the bucket");
        let files = s3s_fs::FileSystem::new(root.path()).expect("s3s-fs");
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        let shared = Arc::new(Shared {
            service: builder.build(),
            fault: watch::Sender::new(Fault::None),
            sent: AtomicU64::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        Self { root, accepting: Some(accept(listener, shared.clone())), shared, address }
    }

    /// The base address for clients.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes all connections and the port.
    pub async fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    /// Opens the port again.
    pub async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the same port");
        self.accepting = Some(accept(listener, self.shared.clone()));
    }

    /// Does this wrong from now on.
    pub fn set_fault(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// How many bytes of objects it sent.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Puts an object into the bucket from behind the server's back, at once and whole.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.path(key);
        let staged = self.root.path().join("staged");
        std::fs::write(&staged, bytes).expect("a staged object");
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("its folder");
        std::fs::rename(staged, path).expect("the object");
    }

    /// Deletes an object likewise.
    pub fn delete(&self, key: &str) {
        std::fs::remove_file(self.path(key)).expect("the object");
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.path().join(BUCKET).join(key)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

/// Serves connections until aborted, which aborts them too.
fn accept(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let shared = shared.clone();
            connections.spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let service = service_fn(move |request| answer(shared.clone(), request));
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
            while connections.try_join_next().is_some() {}
        }
    })
}

/// Answers one request, as wrong as it should.
async fn answer(
    shared: Arc<Shared>,
    request: hyper::Request<Incoming>,
) -> Result<HttpResponse, s3s::HttpError> {
    let mut fault = shared.fault.subscribe();
    let frozen = |fault: &Fault| *fault != Fault::Frozen;
    let fault = fault.wait_for(frozen).await.map_or(Fault::None, |fault| *fault);
    let is_object = request.uri().path().trim_matches('/') != BUCKET;
    let is_pump = request.uri().path().contains("pump");
    let is_get = request.method() == hyper::Method::GET;
    let status = match fault {
        Fault::Status(status) if is_pump && is_get => Some(status),
        Fault::HeadStatus(status) if is_pump && !is_get => Some(status),
        Fault::HeadOf(name) if !is_get && request.uri().path().ends_with(name) => Some(500),
        Fault::EveryStatus(status) => Some(status),
        _ => None,
    };
    if let Some(status) = status {
        // As real servers say it.
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>SomeCode</Code><Message>No for {ACCESS_KEY_ID}\
             </Message><AWSAccessKeyId>{ACCESS_KEY_ID}</AWSAccessKeyId>\
             <StringToSign>AWS4-HMAC-SHA256</StringToSign></Error>"
        );
        let mut response = HttpResponse::new(Body::from(body));
        *response.status_mut() = status.try_into().expect("a status");
        return Ok(response);
    }
    let mut response = shared.service.call(request.map(Body::from)).await?;
    if is_object && is_get {
        let body = response.body_mut().store_all_limited(1 << 30).await;
        let mut bytes = body.expect("the object's bytes");
        match fault {
            // The length in the header stays.
            Fault::HalfBody if is_pump => bytes.truncate(bytes.len() / 2),
            Fault::ShortBody if is_pump => {
                bytes.truncate(bytes.len().saturating_sub(1));
                response.headers_mut().insert("content-length", bytes.len().into());
            }
            _ => {}
        }
        shared.sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        *response.body_mut() = Body::from(bytes);
    }
    Ok(response)
}
