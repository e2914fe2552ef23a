//! MQTT packets as bytes, written by hand from the two standards.

/// The protocol level of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.0.
    V5,
}

/// What a CONNECT says. The default is the reference device's: 3.1.1, empty client id, clean
/// session, keep alive 60.
#[derive(Clone, Debug)]
pub struct Connect {
    pub version: Version,
    pub client_id: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub username: Option<String>,
    pub password: Option<Vec<u8>>,
    pub will: Option<Publish>,
    /// MQTT 5: Session Expiry Interval in seconds.
    pub session_expiry: Option<u32>,
    /// MQTT 5: Maximum Packet Size in bytes.
    pub maximum_packet_size: Option<u32>,
    /// MQTT 5: user properties.
    pub user_properties: Vec<(String, String)>,
}

impl Default for Connect {
    fn default() -> Self {
        Connect {
            version: Version::V4,
            client_id: String::new(),
            clean: true,
            keep_alive: 60,
            username: None,
            password: None,
            will: None,
            session_expiry: None,
            maximum_packet_size: None,
            user_properties: Vec::new(),
        }
    }
}

impl Connect {
    /// A client with this id.
    pub fn id(client_id: &str) -> Self {
        Connect { client_id: client_id.into(), ..Connect::default() }
    }

    /// The reference's login: user `Token`, the token as password.
    pub fn token(token: &str) -> Self {
        Connect {
            username: Some("Token".into()),
            password: Some(token.into()),
            ..Connect::default()
        }
    }

    /// The same, as MQTT 5.
    pub fn v5(mut self) -> Self {
        self.version = Version::V5;
        self
    }

    /// The same, with a session that outlives the connection.
    pub fn persistent(mut self) -> Self {
        self.clean = false;
        self.session_expiry = Some(3600);
        self
    }

    /// The same, with a will.
    pub fn will(mut self, will: Publish) -> Self {
        self.will = Some(will);
        self
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_str(&mut body, b"MQTT");
        body.push(if self.version == Version::V5 { 5 } else { 4 });
        let mut flags = 0;
        if self.clean {
            flags |= 0x02;
        }
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        if self.password.is_some() {
            flags |= 0x40;
        }
        if self.username.is_some() {
            flags |= 0x80;
        }
        body.push(flags);
        body.extend_from_slice(&self.keep_alive.to_be_bytes());
        if self.version == Version::V5 {
            let mut properties = Vec::new();
            if let Some(seconds) = self.session_expiry {
                properties.push(0x11);
                properties.extend_from_slice(&seconds.to_be_bytes());
            }
            if let Some(bytes) = self.maximum_packet_size {
                properties.push(0x27);
                properties.extend_from_slice(&bytes.to_be_bytes());
            }
            for (name, value) in &self.user_properties {
                properties.push(0x26);
                put_str(&mut properties, name.as_bytes());
                put_str(&mut properties, value.as_bytes());
            }
            put_length(&mut body, properties.len());
            body.extend_from_slice(&properties);
        }
        put_str(&mut body, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            if self.version == Version::V5 {
                put_length(&mut body, will.properties.len());
                body.extend_from_slice(&will.properties);
            }
            put_str(&mut body, will.topic.as_bytes());
            put_str(&mut body, &will.payload);
        }
        if let Some(username) = &self.username {
            put_str(&mut body, username.as_bytes());
        }
        if let Some(password) = &self.password {
            put_str(&mut body, password);
        }
        frame(0x10, &body)
    }
}

/// A PUBLISH.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    /// Packet id, where the QoS is not 0.
    pub id: u16,
    /// MQTT 5 properties, as bytes.
    pub properties: Vec<u8>,
    /// Length of the whole packet on the wire, where it was received.
    pub wire_length: usize,
}

impl Publish {
    /// QoS 0, not retained.
    pub fn new(topic: &str, payload: impl Into<Vec<u8>>) -> Self {
        Publish { topic: topic.into(), payload: payload.into(), ..Publish::default() }
    }

    pub fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self
    }

    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    /// The payload as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The payload as text, for messages and comparisons.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    pub(super) fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = Vec::new();
        put_str(&mut body, self.topic.as_bytes());
        if self.qos > 0 {
            body.extend_from_slice(&self.id.to_be_bytes());
        }
        if version == Version::V5 {
            put_length(&mut body, self.properties.len());
            body.extend_from_slice(&self.properties);
        }
        body.extend_from_slice(&self.payload);
        frame(0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain), &body)
    }
}

/// What the server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    ConnAck { session_present: bool, code: u8 },
    Publish(Publish),
    PubAck { id: u16, code: u8 },
    PubRec { id: u16, code: u8 },
    PubRel { id: u16 },
    PubComp { id: u16 },
    SubAck { id: u16, codes: Vec<u8> },
    UnsubAck { id: u16 },
    PingResp,
    Disconnect { code: u8 },
}

/// SUBSCRIBE.
pub(super) fn subscribe(version: Version, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    for (filter, qos) in filters {
        put_str(&mut body, filter.as_bytes());
        body.push(*qos);
    }
    frame(0x82, &body)
}

/// UNSUBSCRIBE.
pub(super) fn unsubscribe(version: Version, id: u16, filter: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    put_str(&mut body, filter.as_bytes());
    frame(0xA2, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP, by its first byte.
pub(super) fn acknowledgement(first: u8, id: u16) -> Vec<u8> {
    frame(first, &id.to_be_bytes())
}

/// A fixed header and what follows it.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    put_length(&mut bytes, body.len());
    bytes.extend_from_slice(body);
    bytes
}

/// Takes one packet off the front of `buffer`, or `None` while it is not whole.
pub(super) fn take(buffer: &mut Vec<u8>, version: Version) -> Option<Packet> {
    let first = *buffer.first()?;
    let (length, digits) = length(&buffer[1..])?;
    let whole = 1 + digits + length;
    if buffer.len() < whole {
        return None;
    }
    let rest = buffer.split_off(whole);
    let packet = std::mem::replace(buffer, rest);
    Some(decode(first, &packet[1 + digits..], version, whole))
}

fn decode(first: u8, body: &[u8], version: Version, wire_length: usize) -> Packet {
    let id = || u16::from_be_bytes([body[0], body[1]]);
    // In an acknowledgement of MQTT 5 the reason code may be left out: 0.
    let code = || body.get(2).copied().unwrap_or(0);
    match first >> 4 {
        2 => Packet::ConnAck { session_present: body[0] & 1 == 1, code: body[1] },
        3 => {
            let qos = first >> 1 & 3;
            let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
            let topic = String::from_utf8(body[2..topic_end].to_vec()).expect("UTF-8 topic");
            let mut at = topic_end;
            let mut id = 0;
            if qos > 0 {
                id = u16::from_be_bytes([body[at], body[at + 1]]);
                at += 2;
            }
            let mut properties = Vec::new();
            if version == Version::V5 {
                let (bytes, digits) = length(&body[at..]).expect("property length");
                properties = body[at + digits..at + digits + bytes].to_vec();
                at += digits + bytes;
            }
            Packet::Publish(Publish {
                topic,
                payload: body[at..].to_vec(),
                qos,
                retain: first & 1 == 1,
                dup: first & 8 == 8,
                id,
                properties,
                wire_length,
            })
        }
        4 => Packet::PubAck { id: id(), code: code() },
        5 => Packet::PubRec { id: id(), code: code() },
        6 => Packet::PubRel { id: id() },
        7 => Packet::PubComp { id: id() },
        9 => {
            let mut at = 2;
            if version == Version::V5 {
                let (bytes, digits) = length(&body[2..]).expect("property length");
                at += digits + bytes;
            }
            Packet::SubAck { id: id(), codes: body[at..].to_vec() }
        }
        11 => Packet::UnsubAck { id: id() },
        13 => Packet::PingResp,
        14 => Packet::Disconnect { code: body.first().copied().unwrap_or(0) },
        other => panic!("a server never sends packet type {other}"),
    }
}

/// Two bytes of length, then the bytes.
fn put_str(into: &mut Vec<u8>, text: &[u8]) {
    into.extend_from_slice(&u16::try_from(text.len()).expect("below 64 KB").to_be_bytes());
    into.extend_from_slice(text);
}

/// A Variable Byte Integer.
fn put_length(into: &mut Vec<u8>, mut value: usize) {
    loop {
        let digit = u8::try_from(value % 128).expect("below 128");
        value /= 128;
        into.push(if value > 0 { digit | 0x80 } else { digit });
        if value == 0 {
            return;
        }
    }
}

/// The value of a Variable Byte Integer and how many bytes it took; `None` while it is not whole.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (position, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * position);
        if byte & 0x80 == 0 {
            return Some((value, position + 1));
        }
    }
    None
}
