//! A broker to talk to, sockets to talk over, and packets to say.

pub mod disk;
pub mod nonsense;
pub mod packets;

use broker::{Persistence, Server, Settings, journal};
use disk::Disk;
use hook::{Broker, Hook};
use std::{
    io::{BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

pub use nonsense::*;
pub use packets::*;

/// Longer than anything here takes: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker on a port of its own, gone at the end of the test.
pub struct Site {
    pub port: u16,
    pub server: Arc<Server>,
    pub broker: Arc<dyn Broker>,
    pub cancel: CancellationToken,
    _runtime: tokio::runtime::Runtime,
}

pub fn site() -> Site {
    site_with(Settings::default())
}

/// What was promised goes to a disk of its own, as it does where the daemon runs the broker.
pub fn site_with(settings: Settings) -> Site {
    site_on(settings, &Disk::default())
}

pub fn site_with_hooks(settings: Settings, hooks: Vec<Arc<dyn Hook>>) -> Site {
    start(settings, hooks, &Disk::default())
}

/// Nothing is promised beyond the process.
pub fn site_without_log(settings: Settings) -> Site {
    start_on(settings, Vec::new(), None, 2)
}

/// A broker with one worker thread: whoever does not yield keeps all others waiting.
pub fn site_on_one_thread(hooks: Vec<Arc<dyn Hook>>) -> Site {
    start_on(Settings::default(), hooks, Some(&Disk::default()), 1)
}

/// A broker that syncs before it acknowledges.
pub fn careful(settings: Settings) -> Settings {
    let persistence = Persistence { sync: journal::Sync::Always, ..Persistence::default() };
    Settings { persistence: Some(persistence), ..settings }
}

/// A broker that goes on with what is on this disk.
pub fn site_on(settings: Settings, disk: &Disk) -> Site {
    start(settings, Vec::new(), disk)
}

/// A broker with plugins that goes on with what is on this disk.
pub fn start(settings: Settings, hooks: Vec<Arc<dyn Hook>>, disk: &Disk) -> Site {
    start_on(settings, hooks, Some(disk), 2)
}

fn start_on(
    settings: Settings,
    hooks: Vec<Arc<dyn Hook>>,
    disk: Option<&Disk>,
    threads: usize,
) -> Site {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(threads).enable_all().build().unwrap();
    let cancel = CancellationToken::new();
    let (port, server) = {
        let _inside = runtime.enter();
        let listeners = broker::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let port = listeners.local_addrs()[0].port();
        let server = match disk {
            Some(disk) => Server::start_on(settings, hooks, Arc::new(disk.clone())),
            None => Server::start(settings, hooks),
        };
        let server = Arc::new(server.unwrap());
        let (serving, stop) = (server.clone(), cancel.clone());
        runtime.spawn(async move { serving.serve(listeners, stop).await });
        (port, server)
    };
    Site { port, broker: server.handle(), server, cancel, _runtime: runtime }
}

/// Waits for what sends no event.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

impl Site {
    /// A socket on which nothing has been said.
    pub fn open(&self) -> Wire {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Wire { read: BufReader::new(stream.try_clone().unwrap()), stream, version: V5 }
    }

    /// Says this CONNECT; the CONNACK is still to be read.
    pub fn greet(&self, connect: &Connect) -> Wire {
        let mut wire = self.open();
        wire.version = connect.version;
        wire.send(&connect.bytes());
        wire
    }

    /// Is accepted with this CONNECT; `present` is what the CONNACK says of the session.
    pub fn enter(&self, connect: &Connect, present: bool) -> Wire {
        let mut wire = self.greet(connect);
        let ack = wire.packet();
        assert_eq!(ack[0], 0x20, "{ack:02x?}");
        assert_eq!((ack[2], ack[3]), (u8::from(present), 0), "session present, code: {ack:02x?}");
        wire
    }

    /// A client with a clean session that ends with its connection.
    pub fn client(&self, version: u8, id: &str) -> Wire {
        self.enter(&Connect::new(version, id), false)
    }

    /// A client that has subscribed to one filter with these options.
    pub fn subscriber(&self, version: u8, id: &str, filter: &str, options: u8) -> Wire {
        let mut wire = self.client(version, id);
        wire.subscribe(filter, options);
        wire
    }

    /// Publishes, and waits until the broker has taken it.
    pub fn publish(&self, publish: Publish) {
        let mut wire = self.client(V5, "");
        wire.send(&publish.bytes(V5));
        match publish.qos {
            0 => wire.silent(),
            1 => wire.expect(&puback(publish.id)),
            _ => wire.expect(&pubrec(publish.id)),
        }
    }
}

/// One connection, seen as bytes.
pub struct Wire {
    stream: TcpStream,
    read: BufReader<TcpStream>,
    pub version: u8,
}

impl Wire {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends without regard for a broker that has closed already.
    pub fn throw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn publish(&mut self, publish: Publish) {
        self.send(&publish.bytes(self.version));
    }

    /// Subscribes under packet id 100 and is granted the QoS of the options.
    pub fn subscribe(&mut self, filter: &str, options: u8) {
        self.send(&subscribe(self.version, 100, &[], &[(filter, options)]));
        self.expect(&suback(self.version, 100, &[options & 3]));
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.read.read(&mut byte) {
            Ok(0) => None,
            Ok(_) => Some(byte[0]),
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                None
            }
            Err(e) => panic!("nothing came: {e}"),
        }
    }

    /// The next packet as it stands on the wire; `None` where the broker has closed.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![self.byte()?];
        let (mut len, mut shift) = (0usize, 0);
        loop {
            let byte = self.byte()?;
            packet.push(byte);
            len |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let start = packet.len();
        packet.resize(start + len, 0);
        self.read.read_exact(&mut packet[start..]).unwrap();
        Some(packet)
    }

    pub fn packet(&mut self) -> Vec<u8> {
        self.next().expect("the broker has closed the connection")
    }

    /// The next packet is exactly this one.
    #[track_caller]
    pub fn expect(&mut self, expected: &[u8]) {
        let packet = self.packet();
        assert_eq!(packet, expected, "\n got {packet:02x?}\nwant {expected:02x?}");
    }

    /// The next packet is this PUBLISH.
    #[track_caller]
    pub fn expect_publish(&mut self, publish: Publish) {
        self.expect(&publish.bytes(self.version));
    }

    /// The next packet, taken apart: it has to be a PUBLISH.
    #[track_caller]
    pub fn received(&mut self) -> Received {
        Received::parse(&self.packet(), self.version)
    }

    /// Nothing waits for this client: the answer to a PINGREQ is the next that comes. And that
    /// twice, since the first one may be answered in one go with what was sent before it, ahead
    /// of what that sets off.
    #[track_caller]
    pub fn silent(&mut self) {
        for _ in 0..2 {
            self.send(&PINGREQ);
            loop {
                let packet = self.packet();
                if packet[0] == 0xd0 {
                    break;
                }
                // Acknowledgements of what this client has just published are no news.
                assert!(matches!(packet[0], 0x40 | 0x50), "not silent: {packet:02x?}");
            }
        }
    }

    /// The broker closes without a word.
    #[track_caller]
    pub fn closed(&mut self) {
        let next = self.next();
        assert!(next.is_none(), "instead of the end: {next:02x?}");
    }

    /// The broker ends the connection: with a DISCONNECT of this code where the version has one.
    #[track_caller]
    pub fn ended(&mut self, code: u8) {
        if self.version == V5 {
            let packet = self.packet();
            assert_eq!((packet[0], packet[2]), (0xe0, code), "{packet:02x?}");
        }
        self.closed();
    }

    /// Leaves in order.
    pub fn leave(mut self) {
        self.send(&DISCONNECT);
        self.closed();
    }

    /// How long anything may take from now on.
    pub fn patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    /// Says nothing more; what the broker sends can still be read.
    pub fn cut(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Cuts the connection, as a power cut does; returns when the broker knows.
    pub fn vanish(mut self) {
        self.cut();
        while self.next().is_some() {}
    }
}
