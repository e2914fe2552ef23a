//! A broker with four doors, and clients that are not ours.

use super::certificates::{Authority, files_in};
use broker::{Door, Listeners, Server, Settings, Tls};
use futures_util::{SinkExt, StreamExt};
use hook::{BoxFuture, ConnectRequest, ConnectVerdict, Hook};
use parking_lot::Mutex;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error as WsError, Message, client::IntoClientRequest},
};
use tokio_util::sync::CancellationToken;

/// Decides only how soon a failure shows.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Notes what each CONNECT proved.
#[derive(Default)]
pub struct Names(pub Mutex<Vec<Option<String>>>);

impl Hook for Names {
    fn name(&self) -> &'static str {
        "names"
    }
    fn connect<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, ConnectVerdict> {
        self.0.lock().push(request.certificate_cn.clone());
        Box::pin(std::future::ready(ConnectVerdict::Continue))
    }
}

pub struct Site {
    pub addresses: Vec<SocketAddr>,
    pub names: Arc<Names>,
    pub authority: Authority,
    pub tls: Arc<Tls>,
    pub dir: TempDir,
    pub broker: Arc<dyn hook::Broker>,
    pub cancel: CancellationToken,
    pub served: tokio::task::JoinHandle<()>,
}

impl Site {
    /// Four doors on loopback: plain, TLS, WebSocket, secure WebSocket.
    pub fn open(client_certificates: bool, settings: Settings) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("site");
        authority.server().write(&dir);
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        let mut files = files_in(&dir);
        files.client_ca = client_certificates.then(|| dir.path().join("ca.pem"));
        let tls = Tls::load(files).unwrap();
        let local = ["127.0.0.1:0".parse().unwrap()];
        let path: Arc<str> = "/mqtt".into();
        let doors = [
            Door::Plain,
            Door::Tls(tls.clone()),
            Door::WebSocket { path: path.clone() },
            Door::SecureWebSocket { path, tls: tls.clone() },
        ];
        let listeners =
            doors.iter().fold(Listeners::default(), |all, door| all.and(&local, door).unwrap());
        let addresses = listeners.local_addrs();
        let names = Arc::new(Names::default());
        let server = Server::start(settings, vec![names.clone()]).unwrap();
        let (broker, cancel) = (server.handle(), CancellationToken::new());
        let stop = cancel.clone();
        let served = tokio::spawn(async move { server.serve(listeners, stop).await });
        Site { addresses, names, authority, tls, dir, broker, cancel, served }
    }

    pub async fn close(self) {
        self.cancel.cancel();
        timeout(PATIENCE, self.served).await.expect("stops").unwrap();
    }

    pub async fn plain(&self) -> TcpStream {
        TcpStream::connect(self.addresses[0]).await.unwrap()
    }

    pub async fn tls(&self, config: rustls::ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        shake(self.addresses[1], config).await
    }

    pub async fn ws(&self) -> Frames<TcpStream> {
        let io = TcpStream::connect(self.addresses[2]).await.unwrap();
        Frames(upgrade("ws://site/mqtt", io, "mqtt").await.unwrap())
    }

    pub async fn wss(&self) -> Frames<TlsStream<TcpStream>> {
        let io = shake(self.addresses[3], self.authority.client(None, &[])).await.unwrap();
        Frames(upgrade("wss://site/mqtt", io, "mqtt").await.unwrap())
    }
}

pub async fn shake(
    address: SocketAddr,
    config: rustls::ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = "localhost".try_into().unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

pub async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    url: &str,
    io: S,
    subprotocol: &str,
) -> Result<WebSocketStream<S>, WsError> {
    let mut request = url.into_client_request().unwrap();
    if !subprotocol.is_empty() {
        request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol.parse().unwrap());
    }
    let (stream, answer) =
        timeout(PATIENCE, tokio_tungstenite::client_async(request, io)).await.unwrap()?;
    assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "mqtt");
    Ok(stream)
}

/// The ways in which a test sends packets and hears others.
pub trait Wire {
    async fn send(&mut self, bytes: &[u8]);
    /// The next bytes; `None` at the end of the connection.
    async fn hear(&mut self) -> Option<Vec<u8>>;

    /// Hears exactly these bytes, in whatever pieces.
    async fn expect(&mut self, expected: &[u8]) {
        let mut heard = Vec::new();
        while heard.len() < expected.len() {
            let more = timeout(PATIENCE, self.hear()).await.expect("in time");
            heard.extend(more.unwrap_or_else(|| panic!("ended after {heard:?}, not {expected:?}")));
        }
        assert_eq!(heard, expected);
    }

    async fn expect_end(&mut self) {
        while timeout(PATIENCE, self.hear()).await.expect("ends in time").is_some() {}
    }

    async fn connect(&mut self, id: &str) {
        self.send(&connect(id, true)).await;
        self.expect(&[0x20, 2, 0, 0]).await;
    }
}

pub struct Bytes<S>(pub S);

impl<S: AsyncRead + AsyncWrite + Unpin> Wire for Bytes<S> {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }
    async fn hear(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 4096];
        let n = self.0.read(&mut bytes).await.unwrap_or(0);
        bytes.truncate(n);
        (n > 0).then_some(bytes)
    }
}

pub struct Frames<S>(pub WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Wire for Frames<S> {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.send(Message::binary(bytes.to_vec())).await.unwrap();
    }
    async fn hear(&mut self) -> Option<Vec<u8>> {
        match self.0.next().await?.ok()? {
            Message::Binary(bytes) => Some(bytes.into()),
            Message::Close(_) => None,
            other => panic!("not binary: {other:?}"),
        }
    }
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut len = body.len();
    loop {
        bytes.push((len % 128) as u8 | if len >= 128 { 0x80 } else { 0 });
        len /= 128;
        if len == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

pub fn connect(id: &str, clean: bool) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.extend_from_slice(&[if clean { 2 } else { 0 }, 0, 60, 0, id.len() as u8]);
    body.extend_from_slice(id.as_bytes());
    packet(0x10, &body)
}

pub fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 7, 0, filter.len() as u8];
    body.extend_from_slice(filter.as_bytes());
    body.push(0);
    packet(0x82, &body)
}

pub fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0, topic.len() as u8];
    body.extend_from_slice(topic.as_bytes());
    body.extend_from_slice(payload);
    packet(0x30, &body)
}
