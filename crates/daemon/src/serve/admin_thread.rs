//! The admin interface on a thread of its own.

use std::{io, net::SocketAddr, sync::Arc, thread};

use anyhow::{Context as _, anyhow};
use axum::Router;
use broker::Tls;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Sockets that are bound and not yet served.
pub struct Doors(Vec<std::net::TcpListener>);

/// Binds all addresses of this key, or none.
///
/// # Errors
/// The first that cannot be bound, with the reason.
pub fn bind(key: &'static str, addresses: &[SocketAddr]) -> anyhow::Result<Doors> {
    let one = |address: &SocketAddr| -> anyhow::Result<std::net::TcpListener> {
        let listener = std::net::TcpListener::bind(address).map_err(|error| {
            let reason = match error.kind() {
                io::ErrorKind::AddrInUse => "the port is taken by another program".to_owned(),
                io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need the privilege for it".to_owned()
                }
                _ => error.to_string(),
            };
            anyhow!("{key}: cannot listen on {address}: {reason}")
        })?;
        listener.set_nonblocking(true).context(key)?;
        Ok(listener)
    };
    addresses.iter().map(one).collect::<anyhow::Result<_>>().map(Doors)
}

impl Doors {
    /// The addresses, with the ports that the system chose where 0 was asked for.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

/// The running thread.
pub struct AdminThread {
    /// Its other half lives in the thread: when that ends, however it ends, this is closed.
    alive: watch::Receiver<()>,
}

impl AdminThread {
    /// Starts the thread, which serves until cancelled: so many connections at once, over all
    /// addresses.
    pub fn start(
        doors: Doors,
        router: Router,
        tls: Option<Arc<Tls>>,
        connections: usize,
        cancel: CancellationToken,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the admin interface does not start")?;
        let (held, alive) = watch::channel(());
        thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                let _held = held;
                runtime.block_on(serve(doors, router, tls, connections, cancel));
            })
            .context("the admin interface does not start")?;
        Ok(AdminThread { alive })
    }

    /// Waits until the thread has ended.
    pub async fn ended(&mut self) {
        while self.alive.changed().await.is_ok() {}
    }
}

/// Serves until cancelled: so many connections at once, over all addresses.
pub async fn serve(
    doors: Doors,
    router: Router,
    tls: Option<Arc<Tls>>,
    connections: usize,
    cancel: CancellationToken,
) {
    let limits = admin::Limits {
        connections: (connections / doors.0.len().max(1)).max(1),
        ..admin::Limits::default()
    };
    let tls: Option<admin::TlsSource> =
        tls.map(|tls| -> admin::TlsSource { Arc::new(move || tls.config()) });
    let mut serving = tokio::task::JoinSet::new();
    for listener in doors.0 {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                let (router, cancel) = (router.clone(), cancel.clone());
                serving.spawn(admin::serve_with(listener, router, tls.clone(), cancel, limits));
            }
            Err(error) => {
                tracing::error!(%error, "an address for HTTP is not served")
            }
        }
    }
    serving.join_all().await;
}
