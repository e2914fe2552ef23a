//! The one truth about filters: which sessions want a topic.
//!
//! A tree with one node per filter level, so that matching a topic costs its depth and not the
//! number of filters. Readers share the lock; a version number lets a publisher keep the
//! receivers of a topic until the next subscription changes anything.

use hook::Qos;
use parking_lot::RwLock;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::{message::Share, session::Session, topic::Filter};

/// One subscription in the tree. Filters and topics are compared byte by byte [MQTT-4.7.3-4].
#[derive(Clone)]
pub(crate) struct Entry {
    /// Whose it is.
    pub session: Arc<Session>,
    /// The granted quality of service.
    pub qos: Qos,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Subscription Identifier.
    pub identifier: Option<u32>,
    /// The [epoch](crate::inbox::Inbox::epoch) of the session's queues when it was made.
    pub epoch: u32,
}

/// A session that gets a message, with its overlapping subscriptions merged.
#[derive(Clone)]
pub(crate) struct Receiver {
    /// Who.
    pub session: Arc<Session>,
    /// The highest granted quality of service [MQTT-3.3.4-2].
    pub qos: Qos,
    /// At least one matching subscription says Retain As Published.
    pub retain_as_published: bool,
    /// The identifiers of all that matched [MQTT-3.3.4-3].
    pub identifiers: Option<Arc<[u32]>>,
    /// See [`Entry::epoch`].
    pub epoch: u32,
    /// The shared subscription whose member it is.
    pub share: Option<Arc<Share>>,
}

impl Receiver {
    fn of(entry: &Entry) -> Self {
        Receiver {
            session: entry.session.clone(),
            qos: entry.qos,
            retain_as_published: entry.retain_as_published,
            identifiers: entry.identifier.map(|id| Arc::from([id])),
            epoch: entry.epoch,
            share: None,
        }
    }

    fn merge(&mut self, other: Receiver) {
        self.qos = self.qos.max(other.qos);
        self.retain_as_published |= other.retain_as_published;
        self.identifiers = match (self.identifiers.take(), other.identifiers) {
            (Some(a), Some(b)) => Some(a.iter().chain(b.iter()).copied().collect()),
            (a, b) => a.or(b),
        };
    }
}

/// A shared subscription: each message goes to one member.
pub(crate) struct Group {
    name: Box<str>,
    /// The whole filter.
    pub share: Arc<Share>,
    members: Vec<Entry>,
    next: AtomicUsize,
}

impl Group {
    /// The same with other members.
    fn with(&self, members: Vec<Entry>) -> Arc<Self> {
        let (name, share) = (self.name.clone(), self.share.clone());
        Arc::new(Group { name, share, members, next: AtomicUsize::new(0) })
    }

    /// The member whose turn it is: connected ones first, in turn.
    pub fn pick(&self) -> Option<Receiver> {
        self.turn().map(|entry| Receiver { share: Some(self.share.clone()), ..Receiver::of(entry) })
    }

    fn turn(&self) -> Option<&Entry> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |i: usize| &self.members[(start.wrapping_add(i)) % self.members.len()];
        (0..self.members.len())
            .map(turn)
            .find(|entry| entry.session.inbox.is_connected())
            .or_else(|| (!self.members.is_empty()).then(|| turn(0)))
    }
}

/// Everybody who gets a message on one topic.
#[derive(Default, Clone)]
pub(crate) struct Receivers {
    /// Each session once.
    pub sessions: Vec<Receiver>,
    /// One member of each.
    pub groups: Vec<Arc<Group>>,
}

#[derive(Default)]
struct Subscribers {
    entries: Vec<Entry>,
    groups: Vec<Arc<Group>>,
}

impl Subscribers {
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.groups.is_empty()
    }

    fn collect(&self, publisher: u64, found: &mut Receivers) {
        // [MQTT-3.8.3-3]
        let wants = |entry: &&Entry| !(entry.no_local && entry.session.key == publisher);
        found.sessions.extend(self.entries.iter().filter(wants).map(Receiver::of));
        found.groups.extend(self.groups.iter().cloned());
    }

    fn insert(&mut self, filter: Filter<'_>, entry: Entry) -> bool {
        let Some(name) = filter.share else { return upsert(&mut self.entries, entry) };
        match self.groups.iter_mut().find(|group| &*group.name == name) {
            Some(group) => {
                let mut members = group.members.clone();
                let new = upsert(&mut members, entry);
                *group = group.with(members);
                new
            }
            None => {
                let share = Arc::new(Share(format!("$share/{name}/{}", filter.levels).into()));
                let (members, next) = (vec![entry], AtomicUsize::new(0));
                self.groups.push(Arc::new(Group { name: name.into(), share, members, next }));
                true
            }
        }
    }

    fn remove(&mut self, share: Option<&str>, key: u64) {
        match share {
            None => self.entries.retain(|e| e.session.key != key),
            Some(name) => {
                let Some(at) = self.groups.iter().position(|g| &*g.name == name) else { return };
                let members: Vec<Entry> = self.groups[at]
                    .members
                    .iter()
                    .filter(|e| e.session.key != key)
                    .cloned()
                    .collect();
                if members.is_empty() {
                    self.groups.swap_remove(at);
                } else {
                    self.groups[at] = self.groups[at].with(members);
                }
            }
        }
    }
}

/// Replaces the session's entry or adds it; `true` where it is new.
fn upsert(entries: &mut Vec<Entry>, entry: Entry) -> bool {
    match entries.iter_mut().find(|e| e.session.key == entry.session.key) {
        Some(old) => {
            *old = entry;
            false
        }
        None => {
            entries.push(entry);
            true
        }
    }
}

#[derive(Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    plus: Option<Box<Node>>,
    /// Filters that end here.
    here: Subscribers,
    /// Filters that end here with `/#`.
    below: Subscribers,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.plus.is_none()
            && self.here.is_empty()
            && self.below.is_empty()
    }

    /// The subscribers at the end of a filter, made on the way.
    fn at(&mut self, levels: &str) -> &mut Subscribers {
        let mut node = self;
        for level in levels.split('/') {
            match level {
                "#" => return &mut node.below,
                "+" => node = node.plus.get_or_insert_default(),
                name => node = node.children.entry(name.into()).or_default(),
            }
        }
        &mut node.here
    }

    /// Removes and prunes on the way back. The depth is bounded by [`crate::topic::MAX_LEVELS`].
    fn remove(&mut self, levels: Option<&str>, share: Option<&str>, key: u64) {
        let Some(levels) = levels else { return self.here.remove(share, key) };
        let (level, rest) = match levels.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (levels, None),
        };
        match level {
            "#" => self.below.remove(share, key),
            "+" => {
                if let Some(plus) = &mut self.plus {
                    plus.remove(rest, share, key);
                    if plus.is_empty() {
                        self.plus = None;
                    }
                }
            }
            name => {
                if let Some(child) = self.children.get_mut(name) {
                    child.remove(rest, share, key);
                    if child.is_empty() {
                        self.children.remove(name);
                    }
                }
            }
        }
    }

    /// `wild` is false for the first level of a `$` topic [MQTT-4.7.2-1].
    fn collect(&self, levels: Option<&str>, wild: bool, publisher: u64, found: &mut Receivers) {
        if wild {
            self.below.collect(publisher, found);
        }
        let Some(levels) = levels else { return self.here.collect(publisher, found) };
        let (level, rest) = match levels.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (levels, None),
        };
        if let Some(child) = self.children.get(level) {
            child.collect(rest, true, publisher, found);
        }
        if let (true, Some(plus)) = (wild, &self.plus) {
            plus.collect(rest, true, publisher, found);
        }
    }
}

/// The index of all filters of all sessions.
#[derive(Default)]
pub(crate) struct Index {
    root: RwLock<Node>,
    version: AtomicU64,
    len: AtomicUsize,
}

impl Index {
    /// Adds a subscription or replaces the session's own on the same filter [MQTT-3.8.4-3].
    pub fn insert(&self, filter: Filter<'_>, entry: Entry) {
        let mut root = self.root.write();
        if root.at(filter.levels).insert(filter, entry) {
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        // Under the lock: whoever reads the new version finds the new tree.
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Takes a session's subscription out [MQTT-3.10.4-2]; it must be there.
    pub fn remove(&self, filter: Filter<'_>, key: u64) {
        let mut root = self.root.write();
        root.remove(Some(filter.levels), filter.share, key);
        self.len.fetch_sub(1, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Changes whenever a subscription does.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Everybody who wants this topic [MQTT-3.3.2-3] from the session `publisher`, each session once, and the
    /// version that this is true of.
    pub fn receivers(&self, topic: &str, publisher: u64) -> (Receivers, u64) {
        let mut found = Receivers::default();
        let root = self.root.read();
        let version = self.version();
        root.collect(Some(topic), !topic.starts_with('$'), publisher, &mut found);
        drop(root);
        if found.sessions.len() > 1 {
            found.sessions.sort_by_key(|r| r.session.key);
            found.sessions.dedup_by(|next, kept| {
                let same = next.session.key == kept.session.key;
                if same {
                    kept.merge(next.clone());
                }
                same
            });
        }
        (found, version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{check_filter, matches};
    use proptest::prelude::*;

    fn entry(session: &Arc<Session>, qos: Qos, identifier: Option<u32>) -> Entry {
        Entry {
            session: session.clone(),
            qos,
            no_local: false,
            retain_as_published: false,
            identifier,
            epoch: 0,
        }
    }

    fn keys(index: &Index, topic: &str) -> Vec<u64> {
        index.receivers(topic, 0).0.sessions.iter().map(|r| r.session.key).collect()
    }

    #[test]
    fn overlapping_filters_are_one_delivery() {
        let index = Index::default();
        let s = Session::for_test(7);
        index.insert(check_filter("a/+").unwrap(), entry(&s, Qos::AtMostOnce, Some(1)));
        index.insert(check_filter("a/#").unwrap(), entry(&s, Qos::ExactlyOnce, Some(2)));
        let (found, _) = index.receivers("a/b", 0);
        assert_eq!(found.sessions.len(), 1);
        assert_eq!(found.sessions[0].qos, Qos::ExactlyOnce);
        let mut ids = found.sessions[0].identifiers.as_deref().unwrap().to_vec();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2]);
    }

    #[test]
    fn groups_take_turns_and_leave_nothing() {
        let index = Index::default();
        let (a, b) = (Session::for_test(1), Session::for_test(2));
        let filter = check_filter("$share/g/x/#").unwrap();
        index.insert(filter, entry(&a, Qos::AtMostOnce, None));
        index.insert(filter, entry(&b, Qos::AtMostOnce, None));
        let (found, _) = index.receivers("x/y", 0);
        assert!(found.sessions.is_empty());
        let picks: Vec<u64> = (0..4).map(|_| found.groups[0].pick().unwrap().session.key).collect();
        assert_eq!(picks, [1, 2, 1, 2]);
        index.remove(filter, 1);
        index.remove(filter, 2);
        assert!(index.root.read().is_empty() && index.len() == 0);
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![Just("a"), Just("b"), Just(""), Just("$x")].prop_map(String::from)
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => level(), 2 => Just("+".to_string())];
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(mut levels, hash)| {
            if hash {
                levels.push("#".into());
            }
            levels.join("/")
        })
    }

    proptest! {
        /// The tree says the same as the plain statement of the standard, after any mix of
        /// insertions and removals.
        #[test]
        fn agrees_with_the_plain_rule(
            filters in prop::collection::vec(filter(), 1..12),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            topic in prop::collection::vec(level(), 1..4).prop_map(|l| l.join("/")),
        ) {
            prop_assume!(!topic.is_empty());
            let filters: Vec<_> = filters.into_iter().filter(|f| !f.is_empty()).collect();
            prop_assume!(!filters.is_empty());
            let index = Index::default();
            let mut live: Vec<bool> = vec![true; filters.len()];
            for (key, f) in filters.iter().enumerate() {
                index.insert(check_filter(f).unwrap(), entry(&Session::for_test(key as u64), Qos::AtMostOnce, None));
            }
            for r in removed {
                let at = r.index(filters.len());
                if std::mem::take(&mut live[at]) {
                    index.remove(check_filter(&filters[at]).unwrap(), at as u64);
                }
            }
            let expected: Vec<u64> = (0..filters.len())
                .filter(|&i| live[i] && matches(&filters[i], &topic))
                .map(|i| i as u64)
                .collect();
            prop_assert_eq!(keys(&index, &topic), expected);
            for at in (0..filters.len()).filter(|&i| live[i]) {
                index.remove(check_filter(&filters[at]).unwrap(), at as u64);
            }
            prop_assert!(index.root.read().is_empty(), "nothing stays behind");
        }
    }
}
