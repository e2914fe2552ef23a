//! A message on its way, shared by all who get it.

use bytes::Bytes;
use hook::{Properties, Qos, clock};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What each queued message costs beside its topic, payload and properties, in bytes: the bound of a queue
/// counts it so that empty messages are bounded too.
const OVERHEAD: usize = 64;
/// What each user property takes beside its two texts, in bytes: so many tiny ones are bounded too.
const USER_PROPERTY: usize = 64;

/// MQTT 5 properties that travel with a message, where there are any, and what they count against
/// a bound. That is summed up once: there may be hundreds of thousands, and queues ask often.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    properties: Option<Box<Properties>>,
    cost: usize,
}

impl From<Option<Box<Properties>>> for Carried {
    fn from(properties: Option<Box<Properties>>) -> Self {
        let cost = properties.as_deref().map_or(0, properties_cost);
        Carried { properties, cost }
    }
}

impl Carried {
    /// The properties.
    pub fn as_deref(&self) -> Option<&Properties> {
        self.properties.as_deref()
    }
}

/// In bytes. Those that stand once and have a length of their own take none.
fn properties_cost(properties: &Properties) -> usize {
    let Properties {
        payload_is_utf8: _,
        expiry_seconds: _,
        content_type,
        response_topic,
        correlation_data,
        user_properties,
    } = properties;
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let user = |(name, value): &(String, String)| USER_PROPERTY + name.len() + value.len();
    text(content_type)
        + text(response_topic)
        + correlation_data.as_ref().map_or(0, Bytes::len)
        + user_properties.iter().map(user).sum::<usize>()
}

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
    pub properties: Carried,
    /// The key of the session that published it, for No Local; 0 is the broker itself.
    pub publisher: u64,
    /// Place in the broker-wide order of retained publishes; 0 for the others. See
    /// [`crate::backlog`] for what it is compared with.
    pub sequence: u64,
    /// When it stops being of use, from its expiry interval.
    pub expires: Option<Instant>,
}

#[cfg(test)]
impl Message {
    /// One on the topic `t`, for tests.
    pub fn plain(qos: Qos, payload: impl Into<Bytes>) -> Arc<Message> {
        Arc::new(Message {
            topic: "t".into(),
            payload: payload.into(),
            qos,
            retain: false,
            properties: Carried::default(),
            publisher: 0,
            sequence: 0,
            expires: None,
        })
    }
}

impl Message {
    /// What it counts against a queue's bound, in bytes.
    pub fn cost(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.cost + OVERHEAD
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

    /// The same for one that had these properties at a time in the past, in seconds since 1970. A
    /// wall clock that was stepped since makes it live longer, but never longer than it had then.
    pub fn expiry_since(properties: Option<&Properties>, at: u64) -> Option<Instant> {
        let seconds = u64::from(properties?.expiry_seconds?);
        let gone = clock::passed(at, clock::unix_now());
        Instant::now().checked_add(Duration::from_secs(seconds.saturating_sub(gone)))
    }
}

/// One message for one session.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Its number in the broker's log; 0 where it is not there, and ends with the process.
    pub id: u64,
    /// The message.
    pub message: Arc<Message>,
    /// The lower of publisher's and subscription's quality of service.
    pub qos: Qos,
    /// The RETAIN flag that the subscriber sees.
    pub retain: bool,
    /// Subscription identifiers of the filters that matched, MQTT 5 only.
    pub subscriptions: Option<Arc<[u32]>>,
    /// The shared subscription that it comes by.
    pub share: Option<Arc<Share>>,
}

/// A shared subscription, by its whole filter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Share(pub Box<str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_not_set_lets_nothing_expire() {
        let properties = Properties { expiry_seconds: Some(100), ..Properties::default() };
        let left = |at| {
            let expires = Message::expiry_since(Some(&properties), at);
            expires.unwrap().saturating_duration_since(Instant::now()).as_secs()
        };
        let now = clock::unix_now();
        assert!((40..=50).contains(&left(now - 50)), "{}", left(now - 50));
        assert_eq!(left(now - 500), 0);
        for wrong in [7, now + 500] {
            assert!((90..=100).contains(&left(wrong)), "{}", left(wrong));
        }
    }
}
