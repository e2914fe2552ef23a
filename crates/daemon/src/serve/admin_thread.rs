//! The admin interface on a thread of its own.

use std::{net::SocketAddr, sync::Arc, thread};

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
    let one = |address: &SocketAddr| {
        broker::bind_socket(*address).map_err(|error| anyhow!("{key}: {error}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The system would let the one have what the other asks for.
    #[test]
    fn all_addresses_of_both_families_may_stand_side_by_side() {
        let any = bind("admin.listen", &["[::]:0".parse().unwrap()]).unwrap();
        let port = any.local_addrs()[0].port();
        bind("admin.listen", &[([0, 0, 0, 0], port).into()]).unwrap();
        let taken = bind("admin.listen", &[([0, 0, 0, 0], 0).into(), any.local_addrs()[0]]);
        let error = taken.err().unwrap().to_string();
        assert!(error.contains("admin.listen: cannot listen on [::]"), "{error}");
    }
}
