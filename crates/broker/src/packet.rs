//! The words of MQTT, as the rest of the broker speaks them. [`crate::codec`] turns them into
//! bytes and back; nothing else knows the wire or the library behind it.

use hook::{Properties, Protocol, Qos};

/// A packet from a client, borrowed from the read buffer where it is on the hot path.
#[derive(Debug)]
pub enum Packet<'a> {
    /// 3.1
    Connect(Box<Connect>),
    /// 3.3
    Publish(Publish<'a>),
    /// 3.4
    PubAck(Ack),
    /// 3.5
    PubRec(Ack),
    /// 3.6
    PubRel(Ack),
    /// 3.7
    PubComp(Ack),
    /// 3.8
    Subscribe(Box<Subscribe>),
    /// 3.10
    Unsubscribe(Box<Unsubscribe>),
    /// 3.12
    PingReq,
    /// 3.14
    Disconnect(Disconnect),
    /// 3.15, MQTT 5 only.
    Auth,
}

/// CONNECT.
#[derive(Debug)]
pub struct Connect {
    /// The version, from protocol name and level.
    pub protocol: Protocol,
    /// Another broker that connects as a client (3.1.1): see `subscribe.rs`.
    pub bridge: bool,
    /// As sent; may be empty.
    pub client_id: String,
    /// Clean Session (3.1.1) or Clean Start (5).
    pub clean_start: bool,
    /// Seconds; 0 turns the timeout off.
    pub keep_alive: u16,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
    /// The will.
    pub will: Option<Will>,
    /// Seconds that the session outlives the connection: Session Expiry Interval; for 3.1.1, 0
    /// with Clean Session and `u32::MAX` (never) without.
    pub session_expiry: u32,
    /// Receive Maximum; 65,535 where it is not set.
    pub receive_maximum: u16,
    /// Maximum Packet Size; `u32::MAX` where it is not set.
    pub maximum_packet_size: u32,
    /// Topic Alias Maximum of the client: how many aliases we may use.
    pub topic_alias_maximum: u16,
    /// Request Problem Information; true where it is not set.
    pub problem_information: bool,
    /// Whether an Authentication Method stands in it.
    pub enhanced_authentication: bool,
    /// User properties.
    pub user_properties: Vec<(String, String)>,
}

/// The will of a CONNECT.
#[derive(Clone, Debug)]
pub struct Will {
    /// Will Topic.
    pub topic: String,
    /// Will Payload.
    pub payload: Vec<u8>,
    /// Will QoS.
    pub qos: Qos,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval in seconds; 0 for 3.1.1.
    pub delay_seconds: u32,
    /// Properties that travel with it.
    pub properties: Option<Box<Properties>>,
}

/// PUBLISH.
#[derive(Debug)]
pub struct Publish<'a> {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: Qos,
    /// RETAIN.
    pub retain: bool,
    /// The topic name; empty where a topic alias stands for it.
    pub topic: &'a str,
    /// Packet Identifier; 0 at QoS 0.
    pub packet_id: u16,
    /// Topic Alias.
    pub alias: Option<u16>,
    /// The properties that travel on.
    pub properties: Option<Box<Properties>>,
    /// The application message.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Packet Identifier.
    pub packet_id: u16,
    /// Reason Code; 0 (success) for 3.1.1.
    pub reason: u8,
}

/// SUBSCRIBE.
#[derive(Debug)]
pub struct Subscribe {
    /// Packet Identifier.
    pub packet_id: u16,
    /// Subscription Identifier.
    pub identifier: Option<u32>,
    /// At least one.
    pub filters: Vec<SubscribeFilter>,
}

/// One filter of a SUBSCRIBE with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeFilter {
    /// As sent, not yet checked.
    pub filter: String,
    /// Maximum QoS.
    pub qos: Qos,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
}

/// When a subscription gets the retained messages (3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainHandling {
    /// 0
    Send,
    /// 1
    SendIfNew,
    /// 2
    DoNotSend,
}

/// UNSUBSCRIBE.
#[derive(Debug)]
pub struct Unsubscribe {
    /// Packet Identifier.
    pub packet_id: u16,
    /// At least one.
    pub filters: Vec<String>,
}

/// DISCONNECT from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Reason Code; 0 for 3.1.1, 4 asks for the will.
    pub reason: u8,
    /// A new Session Expiry Interval in seconds.
    pub session_expiry: Option<u32>,
}

/// CONNACK, as the handshake decides it.
#[derive(Clone, Debug, Default)]
pub struct ConnAck {
    /// Session Present.
    pub session_present: bool,
    /// The MQTT 5 reason code; the codec turns it into a return code for 3.1.1.
    pub reason: u8,
    /// Reason String, MQTT 5 only.
    pub reason_string: Option<String>,
    /// Assigned Client Identifier.
    pub assigned_client_id: Option<String>,
    /// Receive Maximum of the broker.
    pub receive_maximum: u16,
    /// Maximum Packet Size of the broker in bytes.
    pub maximum_packet_size: u32,
    /// Topic Alias Maximum of the broker.
    pub topic_alias_maximum: u16,
    /// Session Expiry Interval, where it differs from what was asked.
    pub session_expiry: Option<u32>,
    /// Server Keep Alive in seconds, where the client must use that instead of its own.
    pub server_keep_alive: Option<u16>,
}

/// Reason codes that the broker sends (MQTT 5.0, 2.4), by their names there.
pub mod reason {
    #![allow(missing_docs)]
    pub const SUCCESS: u8 = 0x00;
    pub const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub const MALFORMED_PACKET: u8 = 0x81;
    pub const PROTOCOL_ERROR: u8 = 0x82;
    pub const IMPLEMENTATION_SPECIFIC_ERROR: u8 = 0x83;
    pub const UNSUPPORTED_PROTOCOL_VERSION: u8 = 0x84;
    pub const CLIENT_IDENTIFIER_NOT_VALID: u8 = 0x85;
    pub const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const SERVER_BUSY: u8 = 0x89;
    pub const SERVER_SHUTTING_DOWN: u8 = 0x8B;
    pub const BAD_AUTHENTICATION_METHOD: u8 = 0x8C;
    pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
    pub const SESSION_TAKEN_OVER: u8 = 0x8E;
    pub const TOPIC_FILTER_INVALID: u8 = 0x8F;
    pub const TOPIC_NAME_INVALID: u8 = 0x90;
    pub const PACKET_IDENTIFIER_NOT_FOUND: u8 = 0x92;
    pub const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
    pub const TOPIC_ALIAS_INVALID: u8 = 0x94;
    pub const PACKET_TOO_LARGE: u8 = 0x95;
    pub const QUOTA_EXCEEDED: u8 = 0x97;
    pub const ADMINISTRATIVE_ACTION: u8 = 0x98;
    pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
    pub const CONNECTION_RATE_EXCEEDED: u8 = 0x9F;
}
