//! What is published and subscribed to.

use bytes::Bytes;

/// Quality of service of a publish or a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// May be lost.
    #[default]
    AtMostOnce = 0,
    /// Arrives, perhaps twice.
    AtLeastOnce = 1,
    /// Arrives once.
    ExactlyOnce = 2,
}

impl Qos {
    /// From the two bits of the wire; `None` for 3, which MQTT forbids [MQTT-3.3.1-4].
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Qos::AtMostOnce),
            1 => Some(Qos::AtLeastOnce),
            2 => Some(Qos::ExactlyOnce),
            _ => None,
        }
    }
}

/// Where a publish comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The client sent it.
    Live,
    /// The broker sends it for a client that is gone: its will.
    Will,
}

/// MQTT 5 properties that travel with a message from publisher to subscriber.
///
/// Topic aliases and subscription identifiers belong to one connection and are not here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Payload Format Indicator: `Some(true)` is UTF-8 text [MQTT-3.3.2.3.2].
    pub payload_is_utf8: Option<bool>,
    /// Message Expiry Interval in seconds, as the publisher sent it.
    pub expiry_seconds: Option<u32>,
    /// Content Type.
    pub content_type: Option<String>,
    /// Response Topic.
    pub response_topic: Option<String>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
    /// User properties, in order.
    pub user_properties: Vec<(String, String)>,
}

/// A publish on its way in, borrowed from the connection's buffer.
///
/// A hook that keeps any of it copies that part.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// The topic name; an alias has been resolved, wildcards have been refused.
    pub topic: &'a str,
    /// The application message.
    pub payload: &'a [u8],
    /// The publisher's quality of service.
    pub qos: Qos,
    /// Whether the publisher asked to retain it.
    pub retain: bool,
    /// Live, or a will.
    pub origin: Origin,
    /// MQTT 5 properties, where there are any.
    pub properties: Option<&'a Properties>,
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The filter, as the client sent it (with `$share/NAME/` where it did).
    pub filter: String,
    /// The granted quality of service.
    pub qos: Qos,
}
