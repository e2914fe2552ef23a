//! The retained message of each topic.

use parking_lot::RwLock;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{message::Message, settings::Limits};

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

/// All retained messages, in a tree by topic level.
pub(crate) struct Retained {
    tree: RwLock<Tree>,
    sequence: AtomicU64,
    max_messages: usize,
    max_bytes: usize,
}

impl Retained {
    pub fn new(limits: &Limits) -> Self {
        Retained {
            tree: RwLock::default(),
            sequence: AtomicU64::new(0),
            max_messages: limits.retained_messages,
            max_bytes: limits.retained_bytes,
        }
    }

    /// The place of the next retained publish in the broker-wide order; never 0.
    pub fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Keeps a message, or forgets the topic's where the payload is empty [MQTT-3.3.1-6].
    /// An older message (by sequence) never replaces a newer one. `false` where a bound is
    /// reached: the message is delivered but not retained. Topics below `$` are the broker's own:
    /// a handful, which neither counts nor is bounded.
    pub fn store(&self, message: &Arc<Message>) -> bool {
        let own = message.topic.starts_with('$');
        let mut tree = self.tree.write();
        if message.payload.is_empty() {
            if let Some(old) = tree.root.take(Some(&message.topic))
                && !own
            {
                tree.messages -= 1;
                tree.bytes -= old.cost();
            }
            return true;
        }
        let (messages, bytes) = (tree.messages, tree.bytes);
        let old = tree.root.find(&message.topic).map(|m| (m.cost(), m.sequence));
        if old.is_some_and(|(_, sequence)| sequence > message.sequence) {
            return true;
        }
        let messages = messages + usize::from(old.is_none());
        let bytes = bytes + message.cost() - old.filter(|_| !own).map_or(0, |(cost, _)| cost);
        if !own && (messages > self.max_messages || bytes > self.max_bytes) {
            return false;
        }
        let mut node = &mut tree.root;
        for level in message.topic.split('/') {
            node = node.children.entry(level.into()).or_default();
        }
        node.message = Some(message.clone());
        if !own {
            tree.messages = messages;
            tree.bytes = bytes;
        }
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
    use bytes::Bytes;
    use hook::Qos;

    fn message(retained: &Retained, topic: &str, payload: &'static str) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: Qos::AtMostOnce,
            retain: true,
            properties: None,
            publisher: 1,
            sequence: retained.next_sequence(),
            expires: None,
        })
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        let mut found: Vec<String> =
            retained.matching(filter).iter().map(|m| m.topic.to_string()).collect();
        found.sort();
        found
    }

    #[test]
    fn matches_as_filters_do() {
        let retained = Retained::new(&Limits::default());
        for topic in ["a", "a/b", "a/b/c", "é/x", "$SYS/x", "/a"] {
            assert!(retained.store(&message(&retained, topic, "1")));
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
        let retained = Retained::new(&Limits::default());
        retained.store(&message(&retained, "a/b", "1"));
        retained.store(&message(&retained, "a/b", ""));
        assert_eq!(retained.len(), 0);
        assert!(retained.tree.read().root.children.is_empty());
        assert_eq!(retained.tree.read().bytes, 0);
    }

    #[test]
    fn bounds_hold_and_a_replacement_counts_once() {
        let limits = Limits { retained_messages: 1, retained_bytes: 70, ..Limits::default() };
        let retained = Retained::new(&limits);
        assert!(retained.store(&message(&retained, "a", "1")));
        assert!(retained.store(&message(&retained, "a", "2")), "the same topic again");
        assert!(!retained.store(&message(&retained, "b", "1")), "one message is the bound");
        assert!(!retained.store(&message(&retained, "a", "123456")), "70 bytes are the bound");
        assert_eq!(retained.matching("a")[0].payload, "2");
    }

    #[test]
    fn the_brokers_own_are_replaced_and_do_not_count() {
        let limits = Limits { retained_messages: 0, retained_bytes: 0, ..Limits::default() };
        let retained = Retained::new(&limits);
        for payload in ["1", "2", "", "3", "4"] {
            assert!(retained.store(&message(&retained, "$SYS/x", payload)));
        }
        assert_eq!(retained.matching("$SYS/#")[0].payload, "4");
        assert_eq!((retained.len(), retained.tree.read().bytes), (0, 0));
    }

    #[test]
    fn expired_ones_give_their_room_back() {
        let retained = Retained::new(&Limits::default());
        retained.store(&message(&retained, "a", "stays"));
        let late = message(&retained, "a/b/c", "1");
        let expires = Some(std::time::Instant::now());
        let late = Message { expires, ..Arc::into_inner(late).unwrap() };
        retained.store(&Arc::new(late));
        assert_eq!(retained.len(), 2);
        retained.forget_expired();
        assert_eq!(retained.len(), 1);
        let tree = retained.tree.read();
        assert_eq!(tree.bytes, tree.root.find("a").unwrap().cost());
        assert!(tree.root.children["a"].children.is_empty());
    }

    #[test]
    fn an_older_publish_does_not_replace_a_newer_one() {
        let retained = Retained::new(&Limits::default());
        let (old, new) = (message(&retained, "a", "old"), message(&retained, "a", "new"));
        retained.store(&new);
        retained.store(&old);
        assert_eq!(retained.matching("a")[0].payload, "new");
    }
}
