//! The retained message of each topic.

use parking_lot::RwLock;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{limits::LiveLimits, message::Message};

#[derive(Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    message: Option<Arc<Message>>,
}

impl Node {
    fn take(&mut self, levels: Option<&str>) -> Option<Arc<Message>> {
        let Some(levels) = levels else { return self.message.take() };
        let (level, rest) = split(levels);
        let child = self.children.get_mut(level)?;
        let old = child.take(rest);
        if child.message.is_none() && child.children.is_empty() {
            self.children.remove(level);
        }
        old
    }

    fn find(&self, topic: &str) -> Option<&Arc<Message>> {
        let mut levels = topic.split('/');
        let node = levels.try_fold(self, |node, level| node.children.get(level))?;
        node.message.as_ref()
    }

    /// Takes the expired messages out and calls `gone` with each.
    fn prune(&mut self, gone: &mut impl FnMut(&Message)) {
        if let Some(expired) = self.message.take_if(|message| message.expired()) {
            gone(&expired);
        }
        self.children.retain(|_, child| {
            child.prune(gone);
            child.message.is_some() || !child.children.is_empty()
        });
    }

    fn all(&self, found: &mut Vec<Arc<Message>>) {
        found.extend(self.message.clone());
        for child in self.children.values() {
            child.all(found);
        }
    }

    fn collect(&self, filter: Option<&str>, first: bool, found: &mut Vec<Arc<Message>>) {
        let Some(filter) = filter else { return found.extend(self.message.clone()) };
        let (level, rest) = split(filter);
        // Wildcards at the first level do not match `$` topics [MQTT-4.7.2-1].
        let below = || self.children.iter().filter(|(name, _)| !first || !name.starts_with('$'));
        match level {
            "#" => {
                if !first {
                    found.extend(self.message.clone());
                }
                below().for_each(|(_, child)| child.all(found));
            }
            "+" => below().for_each(|(_, child)| child.collect(rest, false, found)),
            name => {
                if let Some(child) = self.children.get(name) {
                    child.collect(rest, false, found);
                }
            }
        }
    }
}

fn split(levels: &str) -> (&str, Option<&str>) {
    match levels.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (levels, None),
    }
}

#[derive(Default)]
struct Tree {
    root: Node,
    messages: usize,
    bytes: usize,
}

impl Tree {
    /// Puts a message in the place of its topic's.
    fn put(&mut self, message: Arc<Message>) {
        let mut node = &mut self.root;
        for level in message.topic.split('/') {
            node = node.children.entry(level.into()).or_default();
        }
        let (own, cost) = (message.topic.starts_with('$'), message.cost());
        let old = node.message.replace(message);
        if !own {
            self.messages += usize::from(old.is_none());
            self.bytes = self.bytes + cost - old.map_or(0, |old| old.cost());
        }
    }
}

/// All retained messages, in a tree by topic level. They are no part of any session
/// [MQTT311-3.1.2-7].
pub(crate) struct Retained {
    tree: RwLock<Tree>,
    sequence: AtomicU64,
    limits: Arc<LiveLimits>,
}

impl Retained {
    pub fn new(limits: Arc<LiveLimits>) -> Self {
        Retained { tree: RwLock::default(), sequence: AtomicU64::new(0), limits }
    }

    /// Takes over what the log describes, whatever the bounds are now.
    pub fn restore<'a>(
        &self,
        next_sequence: u64,
        messages: impl Iterator<Item = &'a Arc<Message>>,
    ) {
        self.sequence.fetch_max(next_sequence.saturating_sub(1), Ordering::Relaxed);
        let mut tree = self.tree.write();
        for message in messages.filter(|message| !message.expired()) {
            tree.put(message.clone());
        }
    }

    /// Keeps the message that `make` makes with its place in the broker-wide order of retained
    /// publishes (never 0), or forgets the topic's where the payload is empty [MQTT-3.3.1-6],
    /// [MQTT-3.3.1-7].
    /// Both under one lock, so that the newest by that order is the one that is kept. `false`
    /// where a bound is reached: the message is delivered but not retained. Topics below `$` are
    /// the broker's own: a handful, which neither counts nor is bounded.
    pub fn store(&self, make: impl FnOnce(u64) -> Arc<Message>) -> (Arc<Message>, bool) {
        let mut tree = self.tree.write();
        let message = make(self.sequence.fetch_add(1, Ordering::Relaxed) + 1);
        let kept = self.keep(&mut tree, &message);
        (message, kept)
    }

    fn keep(&self, tree: &mut Tree, message: &Arc<Message>) -> bool {
        let own = message.topic.starts_with('$');
        if message.payload.is_empty() {
            if let Some(old) = tree.root.take(Some(&message.topic))
                && !own
            {
                tree.messages -= 1;
                tree.bytes -= old.cost();
            }
            return true;
        }
        let old = tree.root.find(&message.topic).map(|old| old.cost());
        if !own {
            let old_cost = old.unwrap_or(0);
            let messages = tree.messages + usize::from(old.is_none());
            let bytes = tree.bytes - old_cost + message.cost();
            // What does not grow is kept, also where the limits were lowered below what is there.
            let grows = (messages > tree.messages && messages > self.limits.retained_messages())
                || (message.cost() > old_cost && bytes > self.limits.retained_bytes());
            if grows {
                return false;
            }
        }
        tree.put(message.clone());
        true
    }

    /// All retained messages that a filter (without share prefix) matches; expired ones are
    /// left out.
    pub fn matching(&self, filter: &str) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        self.tree.read().root.collect(Some(filter), true, &mut found);
        found.retain(|message| !message.expired());
        found
    }

    /// Whether a message is still the retained one of its topic.
    pub fn is_current(&self, message: &Message) -> bool {
        let tree = self.tree.read();
        tree.root.find(&message.topic).is_some_and(|found| found.sequence == message.sequence)
    }

    /// Gives the room of expired messages back.
    pub fn forget_expired(&self) {
        let mut tree = self.tree.write();
        let Tree { root, messages, bytes } = &mut *tree;
        root.prune(&mut |expired| {
            if !expired.topic.starts_with('$') {
                *messages -= 1;
                *bytes -= expired.cost();
            }
        });
    }

    /// How many topics have one.
    pub fn len(&self) -> usize {
        self.tree.read().messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Limits;
    use bytes::Bytes;
    use hook::Qos;

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

    fn store(retained: &Retained, topic: &str, payload: &'static str) -> bool {
        retained.store(|sequence| Arc::new(message(topic, payload, sequence))).1
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        let mut found: Vec<String> =
            retained.matching(filter).iter().map(|m| m.topic.to_string()).collect();
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
    fn an_empty_payload_forgets_and_prunes() {
        let retained = Retained::new(Arc::default());
        store(&retained, "a/b", "1");
        store(&retained, "a/b", "");
        assert_eq!(retained.len(), 0);
        assert!(retained.tree.read().root.children.is_empty());
        assert_eq!(retained.tree.read().bytes, 0);
    }

    #[test]
    fn bounds_hold_and_a_replacement_counts_once() {
        let limits = Limits { retained_messages: 1, retained_bytes: 70, ..Limits::default() };
        let retained = Retained::new(Arc::new(LiveLimits::new(&limits)));
        assert!(store(&retained, "a", "1"));
        assert!(store(&retained, "a", "2"), "the same topic again");
        assert!(!store(&retained, "b", "1"), "one message is the bound");
        assert!(!store(&retained, "a", "123456"), "70 bytes are the bound");
        assert_eq!(retained.matching("a")[0].payload, "2");
    }

    #[test]
    fn what_is_there_may_be_replaced_below_lowered_limits() {
        let live = Arc::new(LiveLimits::default());
        let retained = Retained::new(live.clone());
        assert!(store(&retained, "a", "12"));
        live.set(&Limits { retained_messages: 0, retained_bytes: 10, ..Limits::default() });
        assert!(store(&retained, "a", "3"));
        assert_eq!(retained.matching("a")[0].payload, "3");
        assert!(!store(&retained, "a", "45"), "but it may not grow");
    }

    #[test]
    fn the_brokers_own_are_replaced_and_do_not_count() {
        let limits = Limits { retained_messages: 0, retained_bytes: 0, ..Limits::default() };
        let retained = Retained::new(Arc::new(LiveLimits::new(&limits)));
        for payload in ["1", "2", "", "3", "4"] {
            assert!(store(&retained, "$SYS/x", payload));
        }
        assert_eq!(retained.matching("$SYS/#")[0].payload, "4");
        assert_eq!((retained.len(), retained.tree.read().bytes), (0, 0));
    }

    #[test]
    fn expired_ones_give_their_room_back() {
        let retained = Retained::new(Arc::default());
        store(&retained, "a", "stays");
        let expires = Some(std::time::Instant::now());
        retained.store(|n| Arc::new(Message { expires, ..message("a/b/c", "1", n) }));
        assert_eq!(retained.len(), 2);
        retained.forget_expired();
        assert_eq!(retained.len(), 1);
        let tree = retained.tree.read();
        assert_eq!(tree.bytes, tree.root.find("a").unwrap().cost());
        assert!(tree.root.children["a"].children.is_empty());
    }

    #[test]
    fn a_later_publish_has_a_higher_place_and_is_the_current_one() {
        let retained = Retained::new(Arc::default());
        let put = |payload| retained.store(|n| Arc::new(message("a", payload, n))).0;
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
        let (next, _) = retained.store(|n| Arc::new(message("a", "2", n)));
        assert!(next.sequence >= 10, "{}", next.sequence);
    }
}
