//! Bound sockets, what is spoken below MQTT on each, and the accept loop; knows nothing of MQTT.

use hook::Seldom;
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::tls::Tls;

/// Connections that may wait to be accepted: a site's devices all come back at once after a
/// power cut.
const BACKLOG: i32 = 4096;
/// A pause after the process ran out of file descriptors, so that the loop does not spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// What is spoken between TCP and MQTT: all of it gives an ordered, lossless stream [MQTT-4.2-1].
#[derive(Clone, Debug)]
pub enum Door {
    /// Nothing.
    Plain,
    /// TLS.
    Tls(Arc<Tls>),
    /// WebSocket at this path.
    WebSocket {
        /// Begins with a slash.
        path: Arc<str>,
    },
    /// WebSocket over TLS at this path.
    SecureWebSocket {
        /// Begins with a slash.
        path: Arc<str>,
        /// Certificate and key.
        tls: Arc<Tls>,
    },
}

/// Sockets that are bound and listen; nothing is accepted before the server serves them.
#[derive(Debug, Default)]
pub struct Listeners(Vec<(TcpListener, Door)>);

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

/// Binds all addresses for plain MQTT, or none. Must run inside the runtime.
///
/// # Errors
/// The first address that cannot be bound.
pub fn bind(addresses: &[SocketAddr]) -> Result<Listeners, BindError> {
    Listeners::default().and(addresses, &Door::Plain)
}

/// Binds one address, for whatever is spoken there.
///
/// # Errors
/// It cannot be bound.
pub fn bind_socket(address: SocketAddr) -> Result<std::net::TcpListener, BindError> {
    listening(address).map_err(|source| BindError { address, source })
}

fn listening(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` may stand side by side.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Listeners {
    /// These and further addresses. Must run inside the runtime.
    ///
    /// # Errors
    /// The first address that cannot be bound; then none is.
    pub fn and(mut self, addresses: &[SocketAddr], door: &Door) -> Result<Listeners, BindError> {
        for &address in addresses {
            let listener = TcpListener::from_std(bind_socket(address)?)
                .map_err(|source| BindError { address, source })?;
            self.0.push((listener, door.clone()));
        }
        Ok(self)
    }

    /// The addresses in the order of their binding, with the ports that the system chose where 0
    /// was asked for.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.doors().map(|(address, _)| address).collect()
    }

    /// The same, each with what is spoken there.
    pub fn doors(&self) -> impl Iterator<Item = (SocketAddr, &Door)> {
        self.0.iter().filter_map(|(listener, door)| Some((listener.local_addr().ok()?, door)))
    }

    /// Accepts on all of them until cancelled. `start` gets each connection and must not wait:
    /// it starts a task, whose size is then that of its kind of connection.
    pub(crate) async fn accept(
        self,
        cancel: CancellationToken,
        start: impl Fn(TcpStream, SocketAddr, &Door) + Clone + Send + 'static,
    ) {
        let mut loops = tokio::task::JoinSet::new();
        for (listener, door) in self.0 {
            loops.spawn(accept_loop(listener, door, cancel.clone(), start.clone()));
        }
        while loops.join_next().await.is_some() {}
    }
}

async fn accept_loop(
    listener: TcpListener,
    door: Door,
    cancel: CancellationToken,
    start: impl Fn(TcpStream, SocketAddr, &Door),
) {
    let exhausted = Seldom::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                // Nagle's delay would hold a PINGRESP back by 40 ms.
                if stream.set_nodelay(true).is_ok() {
                    start(stream, address, &door);
                }
            }
            // The peer left before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if let Some(times) = exhausted.note() {
                    tracing::warn!(%error, times, "cannot accept connections");
                }
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}
