//! A long link: every byte arrives half a round trip later, at no more than the rate, and a
//! connection breaks after so many bytes. The first bytes of a connection come a whole round trip
//! later, since on a real link TCP's own greeting comes first.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What the link is like.
#[derive(Clone)]
pub struct Link {
    pub one_way: Duration,
    pub bytes_per_second: f64,
    /// Bytes to the device after which its connection breaks.
    pub cut_after: Option<u64>,
}

/// A running link; it ends when this is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

/// Read at once: about what a segment of a fast link brings.
const PIECE: usize = 4096;
/// Pieces under way: more than the link holds.
const UNDER_WAY: usize = 256;

impl Proxy {
    pub async fn start(to: SocketAddr, link: Link) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((device, _)) = listener.accept().await {
                tokio::spawn(carry(device, to, link.clone()));
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(device: TcpStream, to: SocketAddr, link: Link) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    if device.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_device, to_device) = device.into_split();
    let (from_server, to_server) = server.into_split();
    let greeting = link.one_way * 2;
    tokio::select! {
        () = way(from_device, to_server, &link, greeting, None) => {}
        () = way(from_server, to_device, &link, Duration::ZERO, link.cut_after) => {}
    }
    // Both ends are dropped: the connection is gone for both.
}

/// One direction, until it ends or breaks.
async fn way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    link: &Link,
    greeting: Duration,
    mut left: Option<u64>,
) {
    let (pieces, mut arrivals) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async move {
        let mut free = Instant::now() + greeting;
        loop {
            let mut piece = vec![0; PIECE];
            let Ok(length @ 1..) = from.read(&mut piece).await else { return };
            piece.truncate(length);
            free = free.max(Instant::now())
                + Duration::from_secs_f64(length as f64 / link.bytes_per_second);
            if pieces.send((free + link.one_way, piece)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, mut piece)) = arrivals.recv().await {
            tokio::time::sleep_until(at).await;
            if let Some(left) = &mut left {
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= piece.len() as u64;
            }
            if to.write_all(&piece).await.is_err() || left == Some(0) {
                return;
            }
        }
    };
    // When the reader ends, what is under way still arrives.
    tokio::select! {
        () = write => {}
        () = async { read.await; std::future::pending().await } => {}
    }
}
