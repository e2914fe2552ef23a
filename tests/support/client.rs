//! A raw MQTT client on a blocking socket, or on what a test puts over one.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::{
    PATIENCE,
    wire::{self, Connect, Packet, Publish, Version},
};

/// What bytes travel on.
pub trait Transport: Read + Write + Send {
    /// As [`TcpStream::set_read_timeout`]; a read that takes longer fails with `WouldBlock` or
    /// `TimedOut`, and nothing is lost.
    fn set_read_timeout(&mut self, timeout: Duration) -> io::Result<()>;
}

impl Transport for TcpStream {
    fn set_read_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        TcpStream::set_read_timeout(self, Some(timeout))
    }
}

/// One connection. It acknowledges what it receives at QoS 1 and 2 when it is read.
pub struct Client {
    stream: Box<dyn Transport>,
    version: Version,
    unread: Vec<u8>,
    /// Packets that arrived while another kind was waited for.
    inbox: VecDeque<Packet>,
    next_id: u16,
}

/// The refusal of a CONNECT.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused(pub u8);

impl Client {
    /// Connects; the CONNACK must accept.
    pub fn connect(address: SocketAddr, connect: &Connect) -> Self {
        Self::connect_session(address, connect).0
    }

    /// Connects, and says whether the session was present.
    pub fn connect_session(address: SocketAddr, connect: &Connect) -> (Self, bool) {
        match Self::try_connect(address, connect) {
            Ok(connected) => connected,
            Err(Refused(code)) => panic!("CONNECT refused with {code:#04x}: {connect:?}"),
        }
    }

    /// Connects, or says with which code it was refused.
    pub fn try_connect(address: SocketAddr, connect: &Connect) -> Result<(Self, bool), Refused> {
        Self::open(address, connect.version).log_in(connect)
    }

    /// Sends the CONNECT on a connection that stands, and waits for the answer.
    pub fn log_in(self, connect: &Connect) -> Result<(Self, bool), Refused> {
        let mut client = self;
        client.send_bytes(&connect.encode());
        match client.next_packet().expect("a CONNACK before the connection ends") {
            Packet::ConnAck { session_present, code: 0 } => Ok((client, session_present)),
            Packet::ConnAck { code, .. } => Err(Refused(code)),
            other => panic!("expected a CONNACK, got {other:?}"),
        }
    }

    /// Opens the socket and sends nothing.
    pub fn open(address: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the broker listens");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self::over(stream, version)
    }

    /// A client on a connection that stands; sends nothing.
    pub fn over(stream: impl Transport + 'static, version: Version) -> Self {
        let stream = Box::new(stream);
        Client { stream, version, unread: Vec::new(), inbox: VecDeque::new(), next_id: 0 }
    }

    /// Subscribes to one filter, and gives the SUBACK's code.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
        self.subscribe_all(&[(filter, qos)])[0]
    }

    /// Subscribes to filters in one packet, and gives the SUBACK's codes.
    pub fn subscribe_all(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        let id = self.take_id();
        self.send_bytes(&wire::subscribe(self.version, id, filters));
        self.wait(|packet| match packet {
            Packet::SubAck { id: acknowledged, codes } if *acknowledged == id => {
                Some(codes.clone())
            }
            _ => None,
        })
    }

    /// Unsubscribes and waits for the UNSUBACK.
    pub fn unsubscribe(&mut self, filter: &str) {
        let id = self.take_id();
        self.send_bytes(&wire::unsubscribe(self.version, id, filter));
        self.wait(|packet| (*packet == Packet::UnsubAck { id }).then_some(()));
    }

    /// Publishes and waits for what the QoS promises; gives the code of the first acknowledgement
    /// (0 at QoS 0).
    pub fn publish(&mut self, publish: &Publish) -> u8 {
        let id = self.send_publish(publish);
        match publish.qos {
            0 => 0,
            1 => self.wait(|packet| match packet {
                Packet::PubAck { id: acknowledged, code } if *acknowledged == id => Some(*code),
                _ => None,
            }),
            _ => {
                let code = self.wait(|packet| match packet {
                    Packet::PubRec { id: received, code } if *received == id => Some(*code),
                    _ => None,
                });
                // A reason code of 0x80 or more ends the exchange [MQTT-4.3.3-4].
                if code < 0x80 {
                    self.send_bytes(&wire::acknowledgement(0x62, id));
                    self.wait(|packet| (*packet == Packet::PubComp { id }).then_some(()));
                }
                code
            }
        }
    }

    /// Publishes without waiting; gives the packet id that it took.
    pub fn send_publish(&mut self, publish: &Publish) -> u16 {
        let mut publish = publish.clone();
        if publish.qos > 0 && publish.id == 0 {
            publish.id = self.take_id();
        }
        self.send_bytes(&publish.encode(self.version));
        publish.id
    }

    /// The next PUBLISH, acknowledged as its QoS asks.
    pub fn next_publish(&mut self) -> Publish {
        self.wait(|packet| match packet {
            Packet::Publish(publish) => Some(publish.clone()),
            _ => None,
        })
    }

    /// The next packet in the order of the wire, without acknowledging it; `None` when the
    /// connection has ended.
    pub fn next_packet(&mut self) -> Option<Packet> {
        if let Some(packet) = self.inbox.pop_front() {
            return Some(packet);
        }
        self.read(Instant::now() + PATIENCE)
    }

    /// A PINGREQ and its PINGRESP; what arrives meanwhile stays in the inbox.
    pub fn ping(&mut self) {
        self.send_bytes(&[0xC0, 0]);
        self.wait(|packet| (*packet == Packet::PingResp).then_some(()));
    }

    /// Fails if a PUBLISH has arrived, or arrives before the answer to a PINGREQ.
    pub fn expect_silence(&mut self) {
        if let Some(publish) = self.next_publish_before_ping() {
            panic!("expected silence, got {} on {}", publish.text(), publish.topic);
        }
    }

    /// The next PUBLISH that has arrived, or arrives before the answer to a PINGREQ.
    pub fn next_publish_before_ping(&mut self) -> Option<Publish> {
        self.ping();
        let position = self.inbox.iter().position(|packet| matches!(packet, Packet::Publish(_)))?;
        match self.inbox.remove(position) {
            Some(Packet::Publish(publish)) => Some(publish),
            _ => None,
        }
    }

    /// Waits until the server has closed the connection; gives the code of a DISCONNECT.
    pub fn expect_closed(mut self) -> Option<u8> {
        let mut code = None;
        while let Some(packet) = self.next_packet() {
            if let Packet::Disconnect { code: said } = packet {
                code = Some(said);
            }
        }
        code
    }

    /// Ends the connection with a DISCONNECT and waits until the server has closed it.
    pub fn disconnect(mut self) {
        let body: &[u8] = &[0xE0, 0];
        self.send_bytes(body);
        while self.read(Instant::now() + PATIENCE).is_some() {}
    }

    /// Breaks the connection off, as a device does that loses its power.
    pub fn break_off(self) {
        // Dropping the socket closes it without a DISCONNECT.
        drop(self);
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush())
            .expect("the connection is open");
    }

    fn take_id(&mut self) -> u16 {
        self.next_id = self.next_id % u16::MAX + 1;
        self.next_id
    }

    /// The first packet, of those in the inbox and those to come, for which `pick` has an answer.
    fn wait<T>(&mut self, mut pick: impl FnMut(&Packet) -> Option<T>) -> T {
        for position in 0..self.inbox.len() {
            if let Some(picked) = pick(&self.inbox[position]) {
                self.inbox.remove(position);
                return picked;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let packet = self.read(deadline).expect("the server closed the connection");
            self.acknowledge(&packet);
            if let Some(picked) = pick(&packet) {
                return picked;
            }
            self.inbox.push_back(packet);
        }
    }

    fn acknowledge(&mut self, packet: &Packet) {
        match packet {
            Packet::Publish(publish) if publish.qos == 1 => {
                self.send_bytes(&wire::acknowledgement(0x40, publish.id));
            }
            Packet::Publish(publish) if publish.qos == 2 => {
                self.send_bytes(&wire::acknowledgement(0x50, publish.id));
            }
            Packet::PubRel { id } => self.send_bytes(&wire::acknowledgement(0x70, *id)),
            _ => {}
        }
    }

    /// One packet from the socket; `None` when the connection has ended.
    fn read(&mut self, deadline: Instant) -> Option<Packet> {
        loop {
            if let Some(packet) = wire::take(&mut self.unread, self.version) {
                return Some(packet);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no packet within {PATIENCE:?}; waiting: {:?}", self.inbox);
            self.stream.set_read_timeout(left.max(Duration::from_millis(1))).expect("timeout");
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(length) => self.unread.extend_from_slice(&bytes[..length]),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
                    ) =>
                {
                    return None;
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => panic!("reading from the broker: {error}"),
            }
        }
    }
}
