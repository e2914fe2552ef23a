//! The retained message of each topic.

mod topics;

use parking_lot::RwLock;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{limits::LiveLimits, message::Message};
use topics::{PAGE_STEPS, PEEK_STEPS, Topics};

pub(crate) use topics::Page;

/// All retained messages, by their topics. They are no part of any session
/// [MQTT311-3.1.2-7].
pub(crate) struct Retained {
    topics: RwLock<Topics>,
    sequence: AtomicU64,
    limits: Arc<LiveLimits>,
}

/// What became of a publish that was to be retained.
#[derive(Debug)]
pub(crate) enum Stored {
    /// It is its topic's, or has taken that away.
    Kept(Arc<Message>),
    /// A bound is reached, and nothing has changed: its publisher is told.
    Refused,
    /// A bound is reached, and its publisher cannot be told: it is delivered to those who are there
    /// and not retained. What its topic had before is outdated then and is forgotten; if there was
    /// something, the place of that in the order stands here.
    Passing { message: Arc<Message>, outdated: Option<u64> },
}

impl Retained {
    pub fn new(limits: Arc<LiveLimits>) -> Self {
        Retained { topics: RwLock::default(), sequence: AtomicU64::new(0), limits }
    }

    /// Takes over what the log describes, whatever the bounds are now.
    pub fn restore<'a>(
        &self,
        next_sequence: u64,
        messages: impl Iterator<Item = &'a Arc<Message>>,
    ) {
        self.sequence.fetch_max(next_sequence.saturating_sub(1), Ordering::Relaxed);
        let mut topics = self.topics.write();
        for message in messages.filter(|message| !message.expired()) {
            topics.put(message.clone());
        }
    }

    /// Keeps the message that `make` makes with its place in the broker-wide order of retained
    /// publishes (never 0), or forgets the topic's where the payload is empty [MQTT-3.3.1-6],
    /// [MQTT-3.3.1-7].
    /// Both under one lock, so that the newest by that order is the one that is kept. Topics below
    /// `$` are the broker's own: a handful, which neither counts nor is bounded. `may_refuse` says
    /// what happens where a bound is reached.
    pub fn store(&self, may_refuse: bool, make: impl FnOnce(u64) -> Arc<Message>) -> Stored {
        let mut topics = self.topics.write();
        let place = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let mut message = make(place);
        if message.payload.is_empty() {
            topics.take(&message.topic);
            return Stored::Kept(message);
        }
        if self.has_room(&topics, &message) {
            topics.put(message.clone());
            return Stored::Kept(message);
        }
        if may_refuse {
            return Stored::Refused;
        }
        // It has no place among the retained ones.
        if let Some(message) = Arc::get_mut(&mut message) {
            message.sequence = 0;
        }
        let outdated = topics.take(&message.topic).map(|_| place);
        Stored::Passing { message, outdated }
    }

    fn has_room(&self, topics: &Topics, message: &Message) -> bool {
        if message.topic.starts_with('$') {
            return true;
        }
        let old = topics.find(&message.topic).map(|old| old.cost());
        let old_cost = old.unwrap_or(0);
        let messages = topics.messages + usize::from(old.is_none());
        let bytes = topics.bytes - old_cost + message.cost();
        // What does not grow is kept, also where the limits were lowered below what is there.
        let grows = (messages > topics.messages && messages > self.limits.retained_messages())
            || (message.cost() > old_cost && bytes > self.limits.retained_bytes());
        !grows
    }

    /// At most `room` messages that a filter (without share prefix) matches, from the beginning
    /// or behind the `next` of an earlier page. It may have fewer, or none, and yet a next page.
    pub fn page(&self, filter: &str, after: Option<&str>, room: usize) -> Page {
        self.topics.read().page(filter, after, room, PAGE_STEPS)
    }

    /// A first page after a few steps: whether there is anything, or might be.
    pub fn peek(&self, filter: &str) -> Page {
        self.topics.read().page(filter, None, PEEK_STEPS, PEEK_STEPS)
    }

    /// The place of the newest retained publish; 0 before the first.
    pub fn newest(&self) -> u64 {
        // Under the lock, so that whatever has a lower place is there.
        let _topics = self.topics.read();
        self.sequence.load(Ordering::Relaxed)
    }

    /// Forgets this message, if it still is its topic's. `make` makes the empty message that
    /// says so to the log, with its place in the order.
    pub fn forget(
        &self,
        message: &Message,
        make: impl FnOnce(u64) -> Arc<Message>,
    ) -> Option<Arc<Message>> {
        let mut topics = self.topics.write();
        topics.find(&message.topic).filter(|found| found.sequence == message.sequence)?;
        topics.take(&message.topic);
        Some(make(self.sequence.fetch_add(1, Ordering::Relaxed) + 1))
    }

    /// Whether a message is still the retained one of its topic.
    pub fn is_current(&self, message: &Message) -> bool {
        let topics = self.topics.read();
        topics.find(&message.topic).is_some_and(|found| found.sequence == message.sequence)
    }

    /// Gives the room of expired messages back.
    pub fn forget_expired(&self) {
        self.topics.write().forget_expired();
    }

    /// How many topics have one.
    pub fn len(&self) -> usize {
        self.topics.read().messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Limits;
    use bytes::Bytes;
    use hook::Qos;
    use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

    fn message(topic: &str, payload: &'static str, sequence: u64) -> Message {
        Message {
            topic: topic.into(),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: Qos::AtMostOnce,
            retain: true,
            properties: None,
            publisher: 1,
            sequence,
            expires: None,
        }
    }

    /// Whether it is kept; where it is not, nothing has changed.
    fn store(retained: &Retained, topic: &str, payload: &'static str) -> bool {
        let make = |sequence| Arc::new(message(topic, payload, sequence));
        matches!(retained.store(true, make), Stored::Kept(_))
    }

    fn put(retained: &Retained, topic: &str, payload: &'static str) -> Arc<Message> {
        match retained.store(false, |sequence| Arc::new(message(topic, payload, sequence))) {
            Stored::Kept(message) => message,
            other => panic!("{other:?}"),
        }
    }

    /// All pages, each with room for so many.
    fn pages(retained: &Retained, filter: &str, room: usize) -> Vec<Arc<Message>> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = retained.page(filter, after.as_deref(), room);
            assert!(page.messages.len() <= room);
            found.extend(page.messages);
            match page.next {
                Some(next) => after = Some(next),
                None => return found,
            }
        }
    }

    fn matching(retained: &Retained, filter: &str) -> Vec<Arc<Message>> {
        pages(retained, filter, usize::MAX)
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        let mut found: Vec<String> =
            matching(retained, filter).iter().map(|m| m.topic.to_string()).collect();
        found.sort();
        found
    }

    #[test]
    fn matches_as_filters_do() {
        let retained = Retained::new(Arc::default());
        for topic in ["a", "a/b", "a/b/c", "é/x", "$SYS/x", "/a"] {
            assert!(store(&retained, topic, "1"));
        }
        for (filter, expected) in [
            ("#", vec!["/a", "a", "a/b", "a/b/c", "é/x"]),
            ("a/#", vec!["a", "a/b", "a/b/c"]),
            ("+", vec!["a"]),
            ("+/+", vec!["/a", "a/b", "é/x"]),
            ("$SYS/#", vec!["$SYS/x"]),
            ("a/b", vec!["a/b"]),
            ("a/x", vec![]),
        ] {
            assert_eq!(topics(&retained, filter), expected, "{filter}");
        }
    }

    #[test]
    fn an_empty_payload_forgets() {
        let retained = Retained::new(Arc::default());
        store(&retained, "a/b", "1");
        store(&retained, "a/b", "");
        assert_eq!(retained.len(), 0);
        assert!(retained.topics.read().is_empty());
        assert_eq!(retained.topics.read().bytes, 0);
    }

    #[test]
    fn bounds_hold_and_a_replacement_counts_once() {
        let limits = Limits { retained_messages: 1, retained_bytes: 70, ..Limits::default() };
        let retained = Retained::new(Arc::new(LiveLimits::new(&limits)));
        assert!(store(&retained, "a", "1"));
        assert!(store(&retained, "a", "2"), "the same topic again");
        assert!(!store(&retained, "b", "1"), "one message is the bound");
        assert!(!store(&retained, "a", "123456"), "70 bytes are the bound");
        assert_eq!(matching(&retained, "a")[0].payload, "2");
    }

    /// What was replaced and could not be kept is outdated, and nobody is shown it as what holds.
    #[test]
    fn without_room_nothing_old_is_left() {
        let limits = Limits { retained_messages: 1, retained_bytes: 70, ..Limits::default() };
        let retained = Retained::new(Arc::new(LiveLimits::new(&limits)));
        let old = put(&retained, "a", "1");
        for (topic, payload, gone) in [("b", "1", false), ("a", "123456", true), ("a", "7", false)]
        {
            let stored = retained.store(false, |n| Arc::new(message(topic, payload, n)));
            match stored {
                Stored::Passing { message, outdated } => {
                    assert_eq!((message.sequence, &message.payload[..]), (0, payload.as_bytes()));
                    assert_eq!(outdated.is_some(), gone);
                    assert!(outdated.is_none_or(|place| place > old.sequence));
                }
                other => assert_eq!(payload, "7", "there is room again: {other:?}"),
            }
        }
        assert_eq!(matching(&retained, "#")[0].payload, "7");
    }

    #[test]
    fn what_is_there_may_be_replaced_below_lowered_limits() {
        let live = Arc::new(LiveLimits::default());
        let retained = Retained::new(live.clone());
        assert!(store(&retained, "a", "12"));
        live.set(&Limits { retained_messages: 0, retained_bytes: 10, ..Limits::default() });
        assert!(store(&retained, "a", "3"));
        assert_eq!(matching(&retained, "a")[0].payload, "3");
        assert!(!store(&retained, "a", "45"), "but it may not grow");
    }

    #[test]
    fn the_brokers_own_are_replaced_and_do_not_count() {
        let limits = Limits { retained_messages: 0, retained_bytes: 0, ..Limits::default() };
        let retained = Retained::new(Arc::new(LiveLimits::new(&limits)));
        for payload in ["1", "2", "", "3", "4"] {
            assert!(store(&retained, "$SYS/x", payload));
        }
        assert_eq!(matching(&retained, "$SYS/#")[0].payload, "4");
        assert_eq!((retained.len(), retained.topics.read().bytes), (0, 0));
    }

    #[test]
    fn expired_ones_give_their_room_back() {
        let retained = Retained::new(Arc::default());
        store(&retained, "a", "stays");
        let expires = Some(std::time::Instant::now());
        retained.store(false, |n| Arc::new(Message { expires, ..message("a/b/c", "1", n) }));
        assert_eq!(retained.len(), 2);
        retained.forget_expired();
        assert_eq!(retained.len(), 1);
        let topics = retained.topics.read();
        assert_eq!(topics.bytes, topics.find("a").unwrap().cost());
    }

    /// In pages of any size, with any filter, from topics of few names: the plain statement of
    /// what matches, in order and each once.
    #[test]
    fn pages_join_to_what_matches() {
        let retained = Retained::new(Arc::default());
        let mut runner = TestRunner::deterministic();
        // Some characters come before `/`, most behind it.
        let levels = prop::collection::vec("[ab$-]{0,2}", 1..4).prop_map(|levels| levels.join("/"));
        let mut all = Vec::new();
        for _ in 0..200 {
            let topic = levels.new_tree(&mut runner).unwrap().current();
            if !topic.is_empty() && store(&retained, &topic, "1") {
                all.push(topic);
            }
        }
        all.sort_by(|a, b| a.split('/').cmp(b.split('/')));
        all.dedup();
        let filters = [
            "#", "+", "+/+", "a/#", "+/b", "+/b/#", "a/+/b", "$/#", "$/+", "a", "/#", "x/#", "+/#",
            "+/+/#", "a/+", "+/+/a", "+/a/+", "a/+/#", "/+", "-/#", "a-/+", "+/-/#", "$a", "a/+/+",
        ];
        for filter in filters {
            let expected: Vec<&String> =
                all.iter().filter(|topic| crate::topic::matches(filter, topic)).collect();
            for room in [1, 2, 7, 1000] {
                let found = pages(&retained, filter, room);
                let found: Vec<String> = found.iter().map(|m| m.topic.to_string()).collect();
                assert_eq!(
                    found.iter().collect::<Vec<_>>(),
                    expected,
                    "{filter}, {room} at a time"
                );
            }
        }
    }

    /// One look stays short where a filter matches few of many, and goes on where it ended.
    #[test]
    fn a_page_may_be_empty_and_not_the_last() {
        let retained = Retained::new(Arc::default());
        for n in 0..10_000 {
            assert!(store(&retained, &format!("d/{n:05}/x"), "1"));
        }
        assert!(store(&retained, "d/09999/y", "1"));
        let page = retained.page("+/+/y", None, 10);
        assert!(page.messages.is_empty() && page.next.is_some());
        assert_eq!(topics(&retained, "+/+/y"), ["d/09999/y"]);
        // What changes between two pages is met once, or not at all.
        let page = retained.page("d/#", None, 2);
        store(&retained, "d/00000/x", "");
        store(&retained, "d/00001/a", "2");
        let next = retained.page("d/#", page.next.as_deref(), 1);
        assert_eq!(&*next.messages[0].topic, "d/00002/x");
    }

    /// What a filter cannot match is skipped: nobody pays for what others retain.
    #[test]
    fn a_filter_looks_at_what_it_may_match() {
        let retained = Retained::new(Arc::default());
        for n in 0..5_000 {
            for topic in [format!("a/{n:04}/x"), format!("b/{n:04}"), format!("c/{n:04}/{n}/y")] {
                assert!(store(&retained, &topic, "1"));
            }
        }
        for (filter, steps, found) in
            [("b/4999", 4, 1), ("b/5000", 3, 0), ("b", 2, 0), ("+/4999", 6, 1), ("d/#", 1, 0)]
        {
            let page = retained.topics.read().page(filter, None, 10, steps);
            assert_eq!((page.messages.len(), page.next), (found, None), "{filter}");
        }
    }

    /// Whether there is anything is said after few steps, where others do not wait meanwhile.
    #[test]
    fn a_peek_looks_at_few_topics() {
        let retained = Retained::new(Arc::default());
        for n in 0..5_000 {
            assert!(store(&retained, &format!("r/{n:04}"), "1"));
        }
        let page = retained.peek("r/+/x");
        assert!(page.messages.is_empty());
        assert_eq!(page.next.as_deref(), Some("r/0063"));
        assert_eq!(retained.peek("r/4999").messages.len(), 1);
        assert!(retained.peek("r/5000").next.is_none());
    }

    #[test]
    fn only_what_was_seen_is_forgotten() {
        let retained = Retained::new(Arc::default());
        let put = |payload| put(&retained, "a", payload);
        let old = put("old");
        let new = put("new");
        let empty = |sequence| Arc::new(message("a", "", sequence));
        assert!(retained.forget(&old, empty).is_none(), "somebody published meanwhile");
        let forgotten = retained.forget(&new, empty).unwrap();
        assert!(forgotten.sequence > new.sequence && forgotten.payload.is_empty());
        assert_eq!((retained.len(), retained.newest()), (0, forgotten.sequence));
        assert!(retained.forget(&new, empty).is_none());
    }

    #[test]
    fn a_later_publish_has_a_higher_place_and_is_the_current_one() {
        let retained = Retained::new(Arc::default());
        let put = |payload| put(&retained, "a", payload);
        let (old, new) = (put("old"), put("new"));
        assert!(old.sequence < new.sequence);
        assert!(!retained.is_current(&old) && retained.is_current(&new));
    }

    #[test]
    fn what_the_log_describes_is_taken_over_whatever_the_bounds_are() {
        let limits = Limits { retained_messages: 1, ..Limits::default() };
        let retained = Retained::new(Arc::new(LiveLimits::new(&limits)));
        let old = [message("a", "1", 7), message("b", "2", 9)].map(Arc::new);
        retained.restore(10, old.iter());
        assert_eq!(topics(&retained, "#"), ["a", "b"]);
        assert!(!store(&retained, "c", "3"), "new ones keep to the bound");
        let next = put(&retained, "a", "2");
        assert!(next.sequence >= 10, "{}", next.sequence);
    }
}
