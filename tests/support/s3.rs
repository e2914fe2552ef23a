//! A real S3 server inside the test: s3s-fs over HTTP on a free port, with signatures checked.
//!
//! Included by `#[path]`, so that it serves the tests of several crates.
#![allow(dead_code, reason = "each test uses its own part of this")]

use std::net::SocketAddr;
use std::path::PathBuf;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// The only key that the server accepts.
pub const ACCESS_KEY_ID: &str = "site-1";
/// The secret that belongs to it.
pub const SECRET_ACCESS_KEY: &str = "only for tests";
/// The only bucket.
pub const BUCKET: &str = "firmware";

/// The server. Dropped, it is gone with all that was stored.
pub struct S3Server {
    root: tempfile::TempDir,
    service: S3Service,
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
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        Self { root, accepting: Some(accept(listener, service.clone())), service, address }
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
        self.accepting = Some(accept(listener, self.service.clone()));
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
fn accept(listener: TcpListener, service: S3Service) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            connections.spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
            while connections.try_join_next().is_some() {}
        }
    })
}
