//! Connections: how many, how slow they may be, and how they end.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::Request};
use hook::Seldom;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::{
    doors::{LocalAddress, PeerAddress},
    places::Places,
    stall::Stall,
};

/// Where the TLS configuration is found that the next connection is accepted with: it changes
/// when a certificate is renewed.
pub type TlsSource = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// Bounds on what one listener's clients may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait in the listener's queue until one ends. One address
    /// gets three quarters of them, and more of it are closed at once: whoever opens all that it can
    /// leaves room for the others.
    pub connections: usize,
    /// Whether an address stands for many clients, and so may have all of them: this machine's own
    /// does, where a proxy runs on it.
    pub is_shared: fn(IpAddr) -> bool,
    /// How long the headers of a request may take, the first and each further one of a
    /// connection: an idle connection ends after this, too.
    pub headers: Duration,
    /// How long a client may read nothing of an answer.
    pub stall: Duration,
    /// How long an orderly stop waits for answers that are under way.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 256,
            is_shared: |address| address.to_canonical().is_loopback(),
            headers: Duration::from_secs(10),
            stall: Duration::from_secs(10),
            drain: Duration::from_secs(3),
        }
    }
}

/// The most bytes that the headers of a request may have.
const HEADER_BYTES: usize = 32 * 1024;
/// A pause after the process ran out of file descriptors, so that the loop does not spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Serves until cancelled, then lets running answers end, and returns.
pub async fn serve(listener: TcpListener, router: Router, cancel: CancellationToken) {
    serve_with(listener, router, None, cancel, Limits::default()).await;
}

/// As [`serve`], with bounds of the caller's, and over TLS where that is given.
pub async fn serve_with(
    listener: TcpListener,
    router: Router,
    tls: Option<TlsSource>,
    cancel: CancellationToken,
    limits: Limits,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let (places, crowded) =
        (Places::new((limits.connections * 3).div_ceil(4), usize::MAX), Seldom::default());
    let connections = TaskTracker::new();
    loop {
        let next = tokio::select! {
            () = cancel.cancelled() => break,
            next = accept(&listener, &permits) => next,
        };
        match next {
            Ok(Some((socket, peer, permit))) => {
                let place = places.take(&hook::network(peer.ip()).to_string());
                if place.is_none() && !(limits.is_shared)(peer.ip()) {
                    if let Some(times) = crowded.note() {
                        warn!(address = %peer.ip(), times, "connections of HTTP refused: their address has three quarters of all");
                    }
                    continue;
                }
                let tls = tls.as_ref().map(|source| source());
                let task = connection(socket, tls, router.clone(), cancel.clone(), limits);
                connections.spawn(async move {
                    task.await;
                    drop((place, permit));
                });
            }
            Ok(None) => break,
            Err(error) => {
                warn!(%error, "a connection of HTTP cannot be accepted");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    // What is still not done then is dropped with the runtime.
    let _ = tokio::time::timeout(limits.drain, connections.wait()).await;
}

/// `None` only if the semaphore was closed, which nobody does.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)>> {
    let Ok(permit) = Arc::clone(permits).acquire_owned().await else { return Ok(None) };
    let (socket, peer) = listener.accept().await?;
    Ok(Some((socket, peer, permit)))
}

async fn connection(
    socket: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    cancel: CancellationToken,
    limits: Limits,
) {
    let (Ok(local), Ok(peer)) = (socket.local_addr(), socket.peer_addr()) else { return };
    let ends = (LocalAddress(local), PeerAddress(peer));
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let Some(tls) = tls else {
        return requests(socket, ends, router, cancel, limits).await;
    };
    let handshake = tokio::time::timeout(limits.headers, TlsAcceptor::from(tls).accept(socket));
    let outcome = tokio::select! {
        outcome = handshake => outcome,
        () = cancel.cancelled() => return,
    };
    match outcome {
        Ok(Ok(stream)) => requests(stream, ends, router, cancel, limits).await,
        Ok(Err(error)) => debug!(%error, "no TLS with a client of HTTP"),
        Err(_) => debug!("a client of HTTP was too slow with TLS"),
    }
}

async fn requests(
    socket: impl AsyncRead + AsyncWrite + Unpin,
    (local, peer): (LocalAddress, PeerAddress),
    router: Router,
    cancel: CancellationToken,
    limits: Limits,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(local);
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let stream = TokioIo::new(Stall::new(socket, limits.stall));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(stream, service);
    tokio::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = cancel.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "a connection of HTTP ended early");
    }
}
