//! MQTT over a socket, with the packets of `mqttrust`.

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use mqttrust::{
    Mqtt, MqttError, Packet, QoS,
    encoding::v4::{Connect, Pid, Protocol, decode_slice, encode_slice},
};

/// How long a read waits, so that the agent's timers run.
const TICK: Duration = Duration::from_millis(20);

pub struct Wire<'a> {
    thing: &'a str,
    socket: RefCell<Option<TcpStream>>,
    read: RefCell<Vec<u8>>,
    number: Cell<Pid>,
}

impl<'a> Wire<'a> {
    pub fn new(thing: &'a str) -> Self {
        let (socket, read) = Default::default();
        Wire { thing, socket, read, number: Cell::new(Pid::new()) }
    }

    pub fn connect(&self, port: u16) -> io::Result<()> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(TICK))?;
        socket.set_nodelay(true)?;
        *self.socket.borrow_mut() = Some(socket);
        self.read.borrow_mut().clear();
        let connect = Connect {
            protocol: Protocol::MQTT311,
            keep_alive: 60,
            client_id: self.thing,
            clean_session: true,
            last_will: None,
            username: None,
            password: None,
        };
        self.write(&Packet::Connect(connect))
    }

    fn write(&self, packet: &Packet<'_>) -> io::Result<()> {
        let mut bytes = [0; 2048];
        let length = encode_slice(packet, &mut bytes)
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
        let bytes = &mut bytes[..length];
        if let Packet::Publish(publish) = packet
            && publish.qos != QoS::AtMostOnce
        {
            // `mqttrust` leaves room for the packet's number before the payload.
            let place = length - publish.payload.len() - 2;
            self.number.set(self.number.get() + 1);
            bytes[place..place + 2].copy_from_slice(&self.number.get().get().to_be_bytes());
        }
        self.socket.borrow_mut().as_mut().ok_or(ErrorKind::NotConnected)?.write_all(bytes)
    }

    /// The topic and payload of the next message; `None` where there was none for a tick, or
    /// another packet.
    pub fn next(&self) -> io::Result<Option<(String, Vec<u8>)>> {
        let mut read = self.read.borrow_mut();
        let mut heard = None;
        if take(&mut read, &mut heard) {
            return self.heard(heard);
        }
        let mut more = [0; 16 * 1024];
        let length = match self.socket.borrow_mut().as_mut() {
            None => return Err(ErrorKind::NotConnected.into()),
            Some(socket) => match socket.read(&mut more) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
        };
        read.extend(&more[..length]);
        Ok(None)
    }

    fn heard(&self, heard: Option<Heard>) -> io::Result<Option<(String, Vec<u8>)>> {
        let Some(Heard { topic, payload, acknowledge }) = heard else { return Ok(None) };
        if let Some(number) = acknowledge {
            self.write(&Packet::Puback(number))?;
        }
        Ok(Some((topic, payload)))
    }
}

struct Heard {
    topic: String,
    payload: Vec<u8>,
    acknowledge: Option<Pid>,
}

/// Takes a packet from the beginning of what was read; `false` where there is no whole one.
fn take(read: &mut Vec<u8>, heard: &mut Option<Heard>) -> bool {
    match decode_slice(read).expect("a packet as mqttrust reads it") {
        None => return false,
        Some(Packet::Publish(publish)) => {
            *heard = Some(Heard {
                topic: publish.topic_name.to_owned(),
                payload: publish.payload.to_vec(),
                acknowledge: publish.pid.filter(|_| publish.qos != QoS::AtMostOnce),
            });
        }
        Some(_) => {}
    }
    let digits = read[1..].iter().take_while(|digit| **digit >= 0x80).count() + 1;
    let length =
        read[1..=digits].iter().rev().fold(0, |sum, digit| sum << 7 | usize::from(*digit & 0x7f));
    read.drain(..1 + digits + length);
    true
}

impl Mqtt for Wire<'_> {
    fn send(&self, packet: Packet<'_>) -> Result<(), MqttError> {
        self.write(&packet).map_err(|_| MqttError::Full)
    }

    fn client_id(&self) -> &str {
        self.thing
    }
}
