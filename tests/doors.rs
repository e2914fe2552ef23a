//! The running daemon over TLS and WebSocket: who gets in, as whom, and what the log says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../crates/broker/tests/certificates/mod.rs"]
mod certificates;
mod support;

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use certificates::{Authority, Issued};
use serde_json::json;
use support::{
    Client, Connect, Daemon, Device, Publish, Site, Version, client::Refused, client::Transport,
    image,
};
use tokio_rustls::rustls::{ClientConnection, StreamOwned};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket, client::IntoClientRequest};

/// TLS over a blocking socket.
struct Tls(StreamOwned<ClientConnection, TcpStream>);

impl Tls {
    fn open(address: SocketAddr, authority: &Authority, certificate: Option<&Issued>) -> Self {
        let config = Arc::new(authority.client(certificate, &[]));
        let session = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        let socket = TcpStream::connect_timeout(&address, support::PATIENCE).unwrap();
        socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
        Tls(StreamOwned::new(session, socket))
    }

    /// The server's certificate, after the handshake.
    fn shown(&mut self) -> Vec<u8> {
        while self.0.conn.is_handshaking() {
            self.0.conn.complete_io(&mut self.0.sock).unwrap();
        }
        self.0.conn.peer_certificates().unwrap()[0].to_vec()
    }
}

impl Read for Tls {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Transport for Tls {
    fn set_read_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.0.sock.set_read_timeout(Some(timeout))
    }
}

/// WebSocket over any of these; each write is a message.
struct Ws<S: Read + Write>(WebSocket<S>, Vec<u8>);

impl<S: Transport> Ws<S> {
    fn open(url: &str, stream: S) -> Self {
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
        request.headers_mut().insert("Origin", "https://elsewhere.example".parse().unwrap());
        Ws(tungstenite::client(request, stream).expect("upgraded").0, Vec::new())
    }
}

fn plain_error(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        error => io::Error::new(io::ErrorKind::UnexpectedEof, error),
    }
}

impl<S: Transport> Read for Ws<S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.1.is_empty() {
            match self.0.read().map_err(plain_error)? {
                Message::Binary(payload) => self.1 = payload.into(),
                Message::Close(_) => return Ok(0),
                other => panic!("not binary: {other:?}"),
            }
        }
        let n = bytes.len().min(self.1.len());
        bytes[..n].copy_from_slice(&self.1[..n]);
        self.1.drain(..n);
        Ok(n)
    }
}

impl<S: Transport> Write for Ws<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(Message::binary(bytes.to_vec())).map_err(plain_error)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(plain_error)
    }
}

impl<S: Transport> Transport for Ws<S> {
    fn set_read_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.0.get_mut().set_read_timeout(timeout)
    }
}

const TLS: &str = "mqtt over TLS listening on ";
const WS: &str = "mqtt over WebSocket listening on ws://";
const WSS: &str = "mqtt over secure WebSocket listening on wss://";

/// A site with every listener, and the authority of its certificates.
fn site(client_certificates: bool) -> (Site, Authority) {
    let mut site = Site::new();
    let authority = Authority::new("site");
    replace(&site, &authority.server());
    fs::write(site.path().join("ca.pem"), authority.pem()).unwrap();
    site.set("mqtt.tls.cert", "\"cert.pem\"").set("mqtt.tls.key", "\"key.pem\"");
    for listener in ["mqtt.tls.listen", "mqtt.ws.listen", "mqtt.wss.listen"] {
        site.set(listener, "\"127.0.0.1:0\"");
    }
    if client_certificates {
        site.set("mqtt.tls.client_ca", "\"ca.pem\"");
    }
    (site, authority)
}

fn replace(site: &Site, issued: &Issued) {
    fs::write(site.path().join("cert.pem"), issued.certificate.pem()).unwrap();
    fs::write(site.path().join("key.pem"), issued.key.serialize_pem()).unwrap();
}

/// Logs in over TLS.
fn log_in(
    daemon: &Daemon,
    authority: &Authority,
    certificate: Option<&Issued>,
    connect: &Connect,
) -> Result<Client, Refused> {
    let stream = Tls::open(daemon.address_after(TLS), authority, certificate);
    Client::over(stream, connect.version).log_in(connect).map(|(client, _)| client)
}

#[test]
fn a_device_gets_its_update_through_every_door() {
    let (site, authority) = site(false);
    let daemon = site.start();
    let image = image(7, 9 * 4096 + 11);
    site.drop_file("pump-1.0.0.bin", &image);
    type Open<'a> = Box<dyn Fn() -> Client + 'a>;
    let streams: [(&str, Open<'_>); 3] = [
        (
            "by-tls",
            Box::new(|| {
                Client::over(Tls::open(daemon.address_after(TLS), &authority, None), Version::V4)
            }),
        ),
        (
            "by-ws",
            Box::new(|| {
                let socket = TcpStream::connect(daemon.address_after(WS)).unwrap();
                Client::over(Ws::open("ws://site/mqtt", socket), Version::V4)
            }),
        ),
        (
            "by-wss",
            Box::new(|| {
                let stream = Tls::open(daemon.address_after(WSS), &authority, None);
                Client::over(Ws::open("wss://site/mqtt", stream), Version::V4)
            }),
        ),
    ];
    for (id, open) in streams {
        let (client, _) = open().log_in(&Connect::id(id)).unwrap();
        let mut device = Device::on(client);
        device.expect_update(&image);
        // What others publish on the plain port arrives as well.
        device.client.subscribe("news", 1);
        Client::connect(daemon.mqtt(), &Connect::id("other"))
            .publish(&Publish::new("news", "x").qos(1));
        assert_eq!(device.client.next_publish().payload, b"x");
    }
}

#[test]
fn a_certificate_is_the_device() {
    let (site, authority) = site(true);
    let daemon = site.start();
    let admin = daemon.admin();
    let mut tokens = Vec::new();
    for id in ["pump-7", "pump-8"] {
        let made = admin.request("POST", "/api/v1/devices", Some(&json!({"id": id})));
        tokens.push(made.json()["token"].as_str().expect("a token").to_owned());
    }
    let image = image(8, 5_000);
    site.drop_file("devices/pump-7/image.bin", &image);
    let pump_7 = authority.issue(&["pump-7"]);
    let log_in = |connect: &Connect| log_in(&daemon, &authority, Some(&pump_7), connect);

    // Registered, and let in without its token; another client id changes nothing.
    Device::on(log_in(&Connect::id("whatever")).unwrap()).expect_update(&image);
    log_in(&Connect::id("pump-7")).unwrap().ping();
    log_in(&Connect::token(&tokens[0])).unwrap().ping();
    // Two proofs of different devices, and the client id of another.
    assert_eq!(log_in(&Connect::token(&tokens[1])).err(), Some(Refused(5)));
    assert_eq!(log_in(&Connect::token("a token that nobody has")).err(), Some(Refused(5)));
    assert_eq!(log_in(&Connect::id("pump-8")).err(), Some(Refused(4)));
    // A certificate that names no device.
    for names in [&["not a device id"][..], &[], &["pump-7", "pump-8"]] {
        let issued = authority.issue(names);
        let refused = self::log_in(&daemon, &authority, Some(&issued), &Connect::id("pump-9"));
        assert_eq!(refused.err(), Some(Refused(5)), "{names:?}");
    }
    // Without one, the registered id stays shut at the plain door.
    assert_eq!(Client::try_connect(daemon.mqtt(), &Connect::id("pump-7")).err(), Some(Refused(4)));
}

#[test]
fn certificates_are_read_again_on_sighup() {
    let (site, authority) = site(false);
    let daemon = site.start();
    let address = daemon.address_after(TLS);
    let mut standing = log_in(&daemon, &authority, None, &Connect::id("standing")).unwrap();
    let next = authority.server();
    replace(&site, &next);
    daemon.hang_up();
    daemon.expect_log(&["mqtt.tls", "certificates", "read again"]);
    assert_eq!(Tls::open(address, &authority, None).shown(), next.certificate.der().to_vec());
    standing.ping();

    fs::write(site.path().join("key.pem"), authority.server().key.serialize_pem()).unwrap();
    daemon.hang_up();
    daemon.expect_log(&[
        "mqtt.tls.key",
        "key.pem",
        "is not the key of the certificate",
        "old ones stay",
    ]);
    assert_eq!(Tls::open(address, &authority, None).shown(), next.certificate.der().to_vec());
    // Without a signal: the watch finds the change.
    let third = authority.server();
    replace(&site, &third);
    support::eventually("the third certificate", || {
        let shown = Tls::open(address, &authority, None).shown();
        (shown == third.certificate.der().to_vec()).then_some(())
    });
    standing.ping();
    assert_eq!(daemon.stop().status.code(), Some(0));
}

#[test]
fn a_hangup_without_certificates_is_survived() {
    let daemon = Site::new().start();
    daemon.hang_up();
    daemon.expect_log(&["SIGHUP", "done"]);
    Client::connect(daemon.mqtt(), &Connect::id("client")).ping();
}

#[test]
fn bad_files_are_one_clear_line_for_start_and_check() {
    let (site, authority) = site(false);
    let path = |name: &str| site.path().join(name);
    let good = authority.server();
    type Spoil<'a> = Box<dyn Fn() + 'a>;
    let cases: [(&str, &str, Spoil<'_>); 4] = [
        (
            "mqtt.tls.cert",
            "has expired",
            Box::new(|| replace(&site, &authority.issue_expired("localhost"))),
        ),
        (
            "mqtt.tls.cert",
            "cannot be read",
            Box::new(|| fs::remove_file(path("cert.pem")).unwrap()),
        ),
        (
            "mqtt.tls.key",
            "is not the key",
            Box::new(|| {
                replace(&site, &good);
                fs::write(path("key.pem"), authority.server().key.serialize_pem()).unwrap();
            }),
        ),
        (
            "mqtt.tls.key",
            "holds no private key",
            Box::new(|| fs::write(path("key.pem"), "x").unwrap()),
        ),
    ];
    for (key, words, spoil) in cases {
        spoil();
        let file = if key.ends_with("cert") { "cert.pem" } else { "key.pem" };
        for command in ["serve", "check-config"] {
            let ended = site.run(&[command]);
            assert!(!ended.status.success(), "{command}: {words}");
            let lines: Vec<_> = ended.log.iter().filter(|line| line.contains(words)).collect();
            assert_eq!(lines.len(), 1, "{command}: {:?}", ended.log);
            assert!(
                lines[0].contains(&format!("{key}: ")) && lines[0].contains(file),
                "{}",
                lines[0]
            );
        }
    }
    replace(&site, &good);
    assert_eq!(site.run(&["check-config"]).status.code(), Some(0));
}

#[test]
fn the_plain_port_may_be_off() {
    let (mut site, authority) = site(false);
    site.set("mqtt.listen", "\"off\"");
    let daemon = site.start();
    assert!(!daemon.log().iter().any(|line| line.starts_with("mqtt listening on")));
    log_in(&daemon, &authority, None, &Connect::id("client")).unwrap().ping();
}

/// At a port that speaks TLS.
fn plain_http_gets_nothing(address: SocketAddr, path: &str) {
    let mut plain = TcpStream::connect(address).unwrap();
    plain.set_read_timeout(Some(support::PATIENCE)).unwrap();
    // It may close as soon as it has seen the first byte.
    let _ = write!(plain, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[test]
fn downloads_over_tls() {
    let bytes = support::image(7, 200_000);
    let mut site = Site::new();
    let authority = Authority::new("site");
    let folder = site.path().to_owned();
    let write = |issued: &Issued| {
        fs::write(folder.join("cert.pem"), issued.certificate.pem()).unwrap();
        fs::write(folder.join("key.pem"), issued.key.serialize_pem()).unwrap();
    };
    write(&authority.server());
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    fs::write(folder.join("other.pem"), Authority::new("other").pem()).unwrap();
    site.set("http.tls.cert", "\"cert.pem\"").set("http.tls.key", "\"key.pem\"");
    site.set("http.listen", "\"127.0.0.1:0\"");
    site.drop_file("pump-1.4.2.bin", &bytes);
    let daemon = site.start();
    let address = daemon.address_after("downloads listening on https://");
    let url = format!("https://localhost:{}/devices/dev-1/firmware", address.port());
    let curl = |authority: &str| {
        let trusted = folder.join(authority);
        let command = ["--silent", "--fail", "--ipv4", "--range", "100-", "--cacert"];
        std::process::Command::new("curl")
            .args(command)
            .arg(trusted)
            .arg(&url)
            .output()
            .expect("curl")
    };
    assert!(curl("ca.pem").stdout == bytes[100..], "the image from its byte 100 on");
    let refused = curl("other.pem");
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(60), 0));
    plain_http_gets_nothing(address, "/devices/dev-1/firmware");

    let next = authority.server();
    write(&next);
    daemon.hang_up();
    daemon.expect_log(&["http.tls", "read again"]);
    let shown = Tls::open(address, &authority, None).shown();
    assert_eq!(shown, next.certificate.der().to_vec());
}

#[test]
fn the_admin_interface_over_tls() {
    let mut site = Site::new();
    let authority = Authority::new("site");
    let folder = site.path().to_owned();
    let write = |issued: &Issued| {
        // The chain up to the root, which the commands trust where it is configured.
        let chain = issued.certificate.pem() + &authority.pem();
        fs::write(folder.join("cert.pem"), chain).unwrap();
        fs::write(folder.join("key.pem"), issued.key.serialize_pem()).unwrap();
    };
    write(&authority.server());
    site.set("admin.tls.cert", "\"cert.pem\"").set("admin.tls.key", "\"key.pem\"");
    // The network needs no further word then.
    site.set("admin.listen", "\"0.0.0.0:0\"");
    assert_eq!(site.run(&["check-config"]).status.code(), Some(0));
    site.set("admin.listen", "\"127.0.0.1:0\"");
    let daemon = site.start();
    let address = daemon.admin_address();
    daemon.expect_log(&[&format!("admin listening on https://{address}")]);

    let ask = || {
        let mut stream = Tls::open(address, &authority, None);
        let shown = stream.shown();
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        shown
    };
    ask();
    // The commands find the certificate in the configuration.
    let url = format!("https://localhost:{}", address.port());
    let ended = site.run(&["status", "--url", &url]);
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.log);
    plain_http_gets_nothing(address, "/readyz");

    let next = authority.server();
    write(&next);
    daemon.hang_up();
    daemon.expect_log(&["admin.tls", "read again"]);
    assert_eq!(ask(), next.certificate.der().to_vec());
}
