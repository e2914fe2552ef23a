//! A message on its way, shared by all who get it.

use bytes::Bytes;
use hook::{Properties, Qos, clock};
use std::{
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

/// What each queued message costs beside what it carries, in bytes: the bound of a queue counts it
/// so that empty messages are bounded too.
const OVERHEAD: usize = 64;
/// What each user property costs beside its name and value, in bytes: two strings in a list, and
/// what the allocator adds to each. On the wire an empty one has five.
const USER_PROPERTY: usize = size_of::<(String, String)>() + 16;

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
    pub properties: Option<Carried>,
    /// The key of the session that published it, for No Local; 0 is the broker itself.
    pub publisher: u64,
    /// Place in the broker-wide order of retained publishes; 0 for the others. See
    /// [`crate::backlog`] for what it is compared with.
    pub sequence: u64,
    /// When it stops being of use, from its expiry interval.
    pub expires: Option<Instant>,
}

/// The properties of a message, weighed once: they are asked for at each queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    properties: Box<Properties>,
    cost: usize,
}

impl From<Box<Properties>> for Carried {
    fn from(properties: Box<Properties>) -> Self {
        let texts = [&properties.content_type, &properties.response_topic];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let data = properties.correlation_data.as_ref().map_or(0, Bytes::len);
        let user = properties.user_properties.iter();
        let user: usize = user.map(|(name, value)| USER_PROPERTY + name.len() + value.len()).sum();
        Carried { properties, cost: texts + data + user }
    }
}

impl Deref for Carried {
    type Target = Properties;

    fn deref(&self) -> &Properties {
        &self.properties
    }
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
            properties: None,
            publisher: 0,
            sequence: 0,
            expires: None,
        })
    }
}

impl Message {
    /// What it counts against a queue's bound, in bytes.
    pub fn cost(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, |carried| carried.cost);
        self.topic.len() + self.payload.len() + properties + OVERHEAD
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
    fn properties_count_as_what_they_take() {
        let cost = |properties: Properties| {
            let message = Arc::into_inner(Message::plain(Qos::AtLeastOnce, "payload")).unwrap();
            let properties = Some(Box::new(properties).into());
            Message { properties, ..message }.cost() - OVERHEAD - "t".len() - "payload".len()
        };
        let none = Properties::default;
        assert_eq!(cost(none()), 0);
        assert_eq!(cost(Properties { content_type: Some("text".into()), ..none() }), 4);
        assert_eq!(cost(Properties { response_topic: Some("a/b".into()), ..none() }), 3);
        assert_eq!(cost(Properties { correlation_data: Some("12345".into()), ..none() }), 5);
        let user_properties = vec![("a".into(), "bc".into()), Default::default()];
        assert_eq!(cost(Properties { user_properties, ..none() }), 2 * USER_PROPERTY + 3);
    }

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
