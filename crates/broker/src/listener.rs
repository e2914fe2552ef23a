//! Bound sockets and the accept loop; knows nothing of MQTT.

use socket2::{Domain, Protocol, Socket, Type};
use std::{future::Future, io, net::SocketAddr, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Connections that may wait to be accepted: a site's devices all come back at once after a
/// power cut.
const BACKLOG: i32 = 4096;
/// A pause after the process ran out of file descriptors, so that the loop does not spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Sockets that are bound and listen; nothing is accepted before the server serves them.
#[derive(Debug)]
pub struct Listeners(Vec<TcpListener>);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", hint(.source))]
pub struct BindError {
    /// Which address.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

fn hint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is taken by another program".into(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need the privilege for it".into(),
        _ => error.to_string(),
    }
}

/// Binds all addresses, or none. Must run inside the runtime.
///
/// # Errors
/// The first address that cannot be bound.
pub fn bind(addresses: &[SocketAddr]) -> Result<Listeners, BindError> {
    let one = |address: &SocketAddr| {
        bind_one(*address).map_err(|source| BindError { address: *address, source })
    };
    addresses.iter().map(one).collect::<Result<_, _>>().map(Listeners)
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` may stand side by side.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl Listeners {
    /// The addresses, with the ports that the system chose where 0 was asked for.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Accepts on all of them until cancelled, and starts a task for each connection.
    pub(crate) async fn accept<F>(
        self,
        cancel: CancellationToken,
        serve: impl Fn(TcpStream, SocketAddr) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut loops = tokio::task::JoinSet::new();
        for listener in self.0 {
            loops.spawn(accept_loop(listener, cancel.clone(), serve.clone()));
        }
        while loops.join_next().await.is_some() {}
    }
}

async fn accept_loop<F>(
    listener: TcpListener,
    cancel: CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                // Nagle's delay would hold a PINGRESP back by 40 ms.
                if stream.set_nodelay(true).is_ok() {
                    tokio::spawn(serve(stream, address));
                }
            }
            // The peer left before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}
