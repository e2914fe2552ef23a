//! The packets of a client, byte by byte.

pub const V4: u8 = 4;
pub const V5: u8 = 5;
pub const BOTH: [u8; 2] = [V4, V5];

pub const PINGREQ: [u8; 2] = [0xc0, 0];
pub const PINGRESP: [u8; 2] = [0xd0, 0];
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

/// Subscription options beside the QoS.
pub const NO_LOCAL: u8 = 0x04;
pub const RETAIN_AS_PUBLISHED: u8 = 0x08;
pub const SEND_IF_NEW: u8 = 0x10;
pub const DO_NOT_SEND: u8 = 0x20;

/// A variable byte integer.
pub fn variable(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}

/// A string or binary with its length in front.
pub fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let mut out = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(text);
    out
}

pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first][..], &variable(body.len()), body].concat()
}

/// A property block, where the version has one.
fn block(version: u8, properties: &[u8]) -> Vec<u8> {
    if version == V5 { [&variable(properties.len())[..], properties].concat() } else { Vec::new() }
}

/// A user property.
pub fn user(name: &str, value: &str) -> Vec<u8> {
    [vec![0x26], text(name), text(value)].concat()
}

/// A property of four bytes.
pub fn seconds(id: u8, value: u32) -> Vec<u8> {
    [&[id][..], &value.to_be_bytes()].concat()
}

/// A will as it stands in a CONNECT.
#[derive(Clone, Default)]
pub struct Will {
    pub topic: String,
    pub payload: String,
    pub qos: u8,
    pub retain: bool,
    pub properties: Vec<u8>,
}

impl Will {
    /// QoS 0, not retained.
    pub fn new(topic: &str, payload: &str) -> Self {
        Will { topic: topic.into(), payload: payload.into(), ..Will::default() }
    }
}

/// A CONNECT.
#[derive(Clone)]
pub struct Connect {
    pub version: u8,
    pub id: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub properties: Vec<u8>,
    pub will: Option<Will>,
    pub user_name: Option<Vec<u8>>,
    pub password: Option<Vec<u8>>,
}

impl Connect {
    /// A clean start that asks for nothing.
    pub fn new(version: u8, id: &str) -> Self {
        Connect {
            version,
            id: id.into(),
            clean: true,
            keep_alive: 0,
            properties: Vec::new(),
            will: None,
            user_name: None,
            password: None,
        }
    }

    /// A session that outlives its connection.
    pub fn lasting(version: u8, id: &str) -> Self {
        let properties = if version == V5 { seconds(0x11, 1000) } else { Vec::new() };
        Connect { clean: false, properties, ..Connect::new(version, id) }
    }

    pub fn with(mut self, property: &[u8]) -> Self {
        self.properties.extend_from_slice(property);
        self
    }

    pub fn will(self, will: Will) -> Self {
        Connect { will: Some(will), ..self }
    }

    pub fn user(self, name: impl AsRef<[u8]>) -> Self {
        Connect { user_name: Some(name.as_ref().to_vec()), ..self }
    }

    pub fn password(self, password: impl AsRef<[u8]>) -> Self {
        Connect { password: Some(password.as_ref().to_vec()), ..self }
    }

    pub fn flags(&self) -> u8 {
        let will = self.will.as_ref();
        let will = will.map_or(0, |w| 4 | w.qos << 3 | u8::from(w.retain) << 5);
        let login =
            u8::from(self.user_name.is_some()) << 7 | u8::from(self.password.is_some()) << 6;
        login | u8::from(self.clean) << 1 | will
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_with_flags(self.flags())
    }

    pub fn bytes_with_flags(&self, flags: u8) -> Vec<u8> {
        self.frame(flags, &self.payload())
    }

    /// With a payload that need not go with the flags.
    pub fn frame(&self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut body = text("MQTT");
        body.extend([self.version, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(block(self.version, &self.properties));
        body.extend(payload);
        frame(0x10, &body)
    }

    pub fn payload(&self) -> Vec<u8> {
        let mut body = text(&self.id);
        if let Some(will) = &self.will {
            body.extend(block(self.version, &will.properties));
            body.extend(text(&will.topic));
            body.extend(text(&will.payload));
        }
        for field in [&self.user_name, &self.password].into_iter().flatten() {
            body.extend(text(field));
        }
        body
    }
}

/// A PUBLISH.
#[derive(Clone, Default, Debug)]
pub struct Publish {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    pub id: u16,
    pub properties: Vec<u8>,
}

impl Publish {
    /// QoS 0.
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        let (topic, payload) = (topic.into(), payload.as_ref().to_vec());
        Publish { topic, payload, ..Publish::default() }
    }

    pub fn qos(self, qos: u8, id: u16) -> Self {
        Publish { qos, id, ..self }
    }

    pub fn retained(self) -> Self {
        Publish { retain: true, ..self }
    }

    pub fn dup(self) -> Self {
        Publish { dup: true, ..self }
    }

    pub fn with(mut self, property: &[u8]) -> Self {
        self.properties.extend_from_slice(property);
        self
    }

    pub fn bytes(&self, version: u8) -> Vec<u8> {
        let first = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let mut body = text(&self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        body.extend(block(version, &self.properties));
        body.extend(&self.payload);
        frame(first, &body)
    }
}

/// A PUBLISH from the broker, taken apart.
#[derive(Debug)]
pub struct Received {
    pub first: u8,
    pub topic: String,
    pub id: u16,
    /// The raw property block, without its length.
    pub properties: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Received {
    #[track_caller]
    pub fn parse(packet: &[u8], version: u8) -> Self {
        assert_eq!(packet[0] >> 4, 3, "not a PUBLISH: {packet:02x?}");
        let header = 1 + packet[1..].iter().position(|b| b & 0x80 == 0).unwrap() + 1;
        let mut rest = &packet[header..];
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at(n);
            rest = tail;
            head.to_vec()
        };
        let len = take(2);
        let topic = take(usize::from(u16::from_be_bytes([len[0], len[1]])));
        let id = if packet[0] & 6 > 0 { take(2) } else { vec![0, 0] };
        let mut properties = Vec::new();
        if version == V5 {
            let len = take(1)[0];
            assert!(len < 0x80, "these tests have short properties");
            properties = take(len.into());
        }
        Received {
            first: packet[0],
            topic: String::from_utf8(topic).unwrap(),
            id: u16::from_be_bytes([id[0], id[1]]),
            properties,
            payload: rest.to_vec(),
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

fn two(id: u16) -> [u8; 2] {
    id.to_be_bytes()
}

pub fn puback(id: u16) -> Vec<u8> {
    frame(0x40, &two(id))
}

pub fn pubrec(id: u16) -> Vec<u8> {
    frame(0x50, &two(id))
}

pub fn pubrel(id: u16) -> Vec<u8> {
    frame(0x62, &two(id))
}

pub fn pubcomp(id: u16) -> Vec<u8> {
    frame(0x70, &two(id))
}

/// An acknowledgement with a reason code, MQTT 5 only.
pub fn with_code(ack: Vec<u8>, code: u8) -> Vec<u8> {
    frame(ack[0], &[&ack[2..], &[code]].concat())
}

pub fn subscribe(version: u8, id: u16, properties: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = two(id).to_vec();
    body.extend(block(version, properties));
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    frame(0x82, &body)
}

/// With one filter that need not be UTF-8.
pub fn subscribe_raw(version: u8, filter: &[u8]) -> Vec<u8> {
    frame(0x82, &[&[0, 1][..], none(version), &text(filter), &[0]].concat())
}

/// The property block without properties.
pub fn none(version: u8) -> &'static [u8] {
    if version == V5 { &[0] } else { &[] }
}

pub fn suback(version: u8, id: u16, codes: &[u8]) -> Vec<u8> {
    frame(0x90, &[&two(id)[..], &block(version, &[]), codes].concat())
}

pub fn unsubscribe(version: u8, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = two(id).to_vec();
    body.extend(block(version, &[]));
    filters.iter().for_each(|filter| body.extend(text(filter)));
    frame(0xa2, &body)
}

/// The codes stand there for MQTT 5 only.
pub fn unsuback(version: u8, id: u16, codes: &[u8]) -> Vec<u8> {
    let codes = if version == V5 { codes } else { &[] };
    frame(0xb0, &[&two(id)[..], &block(version, &[]), codes].concat())
}
