//! How large a message is on the wire.

use hook::{Protocol, Qos};

/// How a message travels, as far as it counts for its size on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    /// The largest PUBLISH on the wire, in bytes.
    pub limit: u32,
    /// Its quality of service.
    pub qos: Qos,
    /// Its MQTT version.
    pub protocol: Protocol,
}

impl Framing {
    /// Bytes of a PUBLISH with this payload on this topic [MQTT-3.3.1].
    pub fn publish_size(&self, topic: &str, payload: usize) -> usize {
        let packet_id = if self.qos == Qos::AtMostOnce { 0 } else { 2 };
        let properties = if self.protocol == Protocol::V5 { 1 } else { 0 };
        let remaining = 2 + topic.len() + packet_id + properties + payload;
        let length = match remaining {
            0..=127 => 1,
            128..=16_383 => 2,
            16_384..=2_097_151 => 3,
            _ => 4,
        };
        1 + length + remaining
    }
}
