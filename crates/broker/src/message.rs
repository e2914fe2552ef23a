//! A message on its way, shared by all who get it.

use bytes::Bytes;
use hook::{Properties, Qos};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What each queued message costs beside its topic and payload, in bytes: the bound of a queue
/// counts it so that empty messages are bounded too.
const OVERHEAD: usize = 64;

/// An application message, immutable once it is accepted.
#[derive(Debug)]
pub(crate) struct Message {
    /// The topic name.
    pub topic: Arc<str>,
    /// The payload.
    pub payload: Bytes,
    /// The publisher's quality of service.
    pub qos: Qos,
    /// Whether the publisher set RETAIN.
    pub retain: bool,
    /// MQTT 5 properties, where there are any.
    pub properties: Option<Box<Properties>>,
    /// The key of the session that published it, for No Local; 0 is the broker itself.
    pub publisher: u64,
    /// Place in the broker-wide order of retained publishes; 0 for the others. A session that
    /// has sent retained message N drops live copies up to N.
    pub sequence: u64,
    /// When it stops being of use, from its expiry interval.
    pub expires: Option<Instant>,
}

impl Message {
    /// What it counts against a queue's bound, in bytes.
    pub fn cost(&self) -> usize {
        self.topic.len() + self.payload.len() + OVERHEAD
    }

    /// Whether its expiry interval has passed.
    pub fn expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= Instant::now())
    }

    /// Seconds that it has left, rounded up, for the subscriber [MQTT-3.3.2-6].
    pub fn seconds_left(&self) -> Option<u32> {
        let left = self.expires?.saturating_duration_since(Instant::now());
        Some(u32::try_from(left.as_secs() + u64::from(left.subsec_nanos() > 0)).unwrap_or(u32::MAX))
    }

    /// When a message that arrives now with these properties expires.
    pub fn expiry(properties: Option<&Properties>) -> Option<Instant> {
        let seconds = properties?.expiry_seconds?;
        Instant::now().checked_add(Duration::from_secs(u64::from(seconds)))
    }
}

/// One message for one session.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// The message.
    pub message: Arc<Message>,
    /// The lower of publisher's and subscription's quality of service.
    pub qos: Qos,
    /// The RETAIN flag that the subscriber sees.
    pub retain: bool,
    /// Subscription identifiers of the filters that matched, MQTT 5 only.
    pub subscriptions: Option<Arc<[u32]>>,
}
