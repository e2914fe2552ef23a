//! The one truth about filters: which sessions want a topic.
//!
//! A filter without wildcards is found under its text, and those with wildcards in a tree, so
//! that neither costs more where there are many that a topic has nothing to do with. Readers share the lock; a version number lets a
//! publisher keep the receivers of a topic until the next subscription changes anything.

mod subscribers;
mod tree;

use parking_lot::RwLock;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use self::{
    subscribers::{Group, Subscribers},
    tree::Node,
};
use crate::topic::Filter;

pub(crate) use self::subscribers::{Entry, Receiver};

/// Everybody who gets a message on one topic.
#[derive(Default, Clone)]
pub(crate) struct Receivers {
    /// Each session once.
    pub sessions: Vec<Receiver>,
    /// One member of each.
    pub groups: Vec<Arc<Group>>,
}

/// The index of all filters of all sessions.
#[derive(Default)]
pub(crate) struct Index {
    filters: RwLock<Filters>,
    version: AtomicU64,
    len: AtomicUsize,
}

#[derive(Default)]
struct Filters {
    plain: HashMap<Arc<str>, Subscribers>,
    wild: Node,
}

impl Filters {
    fn collect(&self, topic: &str, publisher: u64, found: &mut Receivers) {
        if let Some(subscribers) = self.plain.get(topic) {
            subscribers.collect(publisher, found);
        }
        self.wild.collect(Some(topic), !topic.starts_with('$'), publisher, found);
    }

    fn remove(&mut self, filter: Filter<'_>, key: u64) {
        if filter.has_wildcards() {
            return self.wild.remove(filter.levels, filter.share, key);
        }
        if let Some(subscribers) = self.plain.get_mut(filter.levels) {
            subscribers.remove(filter.share, key);
            if subscribers.is_empty() {
                self.plain.remove(filter.levels);
            }
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.wild.is_empty()
    }
}

impl Index {
    /// Adds a subscription or replaces the session's own on the same filter [MQTT-3.8.4-3]. `text` is the
    /// filter as it was sent; it is kept where that saves a copy.
    pub fn insert(&self, filter: Filter<'_>, text: &Arc<str>, entry: Entry) {
        let mut filters = self.filters.write();
        let subscribers = if filter.has_wildcards() {
            filters.wild.at(filter.levels)
        } else {
            let shared = filter.share.is_some();
            let name = if shared { filter.levels.into() } else { text.clone() };
            filters.plain.entry(name).or_default()
        };
        if subscribers.insert(filter, entry) {
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        // Under the lock: whoever reads the new version finds the new filters.
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Takes a session's subscription out [MQTT-3.10.4-2]; it must be there.
    pub fn remove(&self, filter: Filter<'_>, key: u64) {
        let mut filters = self.filters.write();
        filters.remove(filter, key);
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

    /// Everybody who wants this topic [MQTT-3.3.2-3] from the session `publisher`, each session
    /// once, and the version that this is true of.
    pub fn receivers(&self, topic: &str, publisher: u64) -> (Receivers, u64) {
        let mut found = Receivers::default();
        let filters = self.filters.read();
        let version = self.version();
        filters.collect(topic, publisher, &mut found);
        drop(filters);
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
    use crate::{
        session::Session,
        topic::{check_filter, matches},
    };
    use hook::Qos;
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

    fn insert(index: &Index, filter: &str, entry: Entry) {
        index.insert(check_filter(filter).unwrap(), &filter.into(), entry);
    }

    fn keys(index: &Index, topic: &str) -> Vec<u64> {
        index.receivers(topic, 0).0.sessions.iter().map(|r| r.session.key).collect()
    }

    #[test]
    fn overlapping_filters_are_one_delivery() {
        let index = Index::default();
        let s = Session::for_test(7);
        insert(&index, "a/+", entry(&s, Qos::AtMostOnce, Some(1)));
        insert(&index, "a/#", entry(&s, Qos::ExactlyOnce, Some(2)));
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
        insert(&index, "$share/g/x/#", entry(&a, Qos::AtMostOnce, None));
        insert(&index, "$share/g/x/#", entry(&b, Qos::AtMostOnce, None));
        let (found, _) = index.receivers("x/y", 0);
        assert!(found.sessions.is_empty());
        let picks: Vec<u64> = (0..4).map(|_| found.groups[0].pick().unwrap().session.key).collect();
        assert_eq!(picks, [1, 2, 1, 2]);
        index.remove(filter, 1);
        index.remove(filter, 2);
        assert!(index.filters.read().is_empty() && index.len() == 0);
    }

    /// Members that are away leave their turns to all others, and not to the next one alone.
    #[test]
    fn who_is_away_makes_nobodys_share_larger() {
        let index = Index::default();
        for key in 1..=6 {
            let session = Session::for_test(key);
            if key >= 4 {
                assert!(session.inbox.attach(key, || true));
            }
            insert(&index, "$share/g/x", entry(&session, Qos::AtLeastOnce, None));
        }
        let pick = || index.receivers("x", 0).0.groups[0].pick().unwrap().session.key;
        assert_eq!((0..7).map(|_| pick()).collect::<Vec<_>>(), [4, 5, 6, 4, 5, 6, 4]);
        // Fewer than the turn's number are left.
        for key in 2..=6 {
            index.remove(check_filter("$share/g/x").unwrap(), key);
        }
        assert_eq!([pick(), pick()], [1, 1]);
    }

    #[test]
    fn many_siblings_come_and_go() {
        let index = Index::default();
        let filters: Vec<String> = (0..40).map(|n| format!("{}/+", n / 2)).collect();
        for (key, filter) in filters.iter().enumerate() {
            let session = Session::for_test(key as u64);
            insert(&index, filter, entry(&session, Qos::AtMostOnce, None));
        }
        for gone in 0..40 {
            for n in 0..20u64 {
                let expected: Vec<u64> = (2 * n..2 * n + 2).filter(|key| *key >= gone).collect();
                assert_eq!(keys(&index, &format!("{n}/x")), expected);
            }
            index.remove(check_filter(&filters[gone as usize]).unwrap(), gone);
        }
        assert!(index.filters.read().is_empty() && index.len() == 0);
    }

    /// Filters that part in each of their first levels, and are as deep as filters may be: what a
    /// topic costs is bounded by their number alone, and they leave nothing.
    #[test]
    fn a_topic_costs_no_more_than_the_number_of_filters() {
        use super::tree::VISITED;
        let index = Index::default();
        let session = Session::for_test(1);
        let filters: Vec<String> = (0..1000u32)
            .map(|n| {
                let mut levels: Vec<&str> =
                    (0..10).map(|bit| if n >> bit & 1 == 1 { "+" } else { "a" }).collect();
                levels.resize(127, "a");
                levels.push("x");
                levels.join("/")
            })
            .collect();
        for filter in &filters {
            insert(&index, filter, entry(&session, Qos::AtMostOnce, None));
        }
        let topic = |last: &str| format!("{}{last}", "a/".repeat(127));
        for (last, receivers) in [("y", 0), ("x", 1)] {
            VISITED.set(0);
            assert_eq!(index.receivers(&topic(last), 0).0.sessions.len(), receivers);
            assert!(VISITED.get() <= 2 * filters.len(), "{} nodes", VISITED.get());
        }
        for filter in &filters {
            index.remove(check_filter(filter).unwrap(), 1);
        }
        assert!(index.filters.read().is_empty() && index.len() == 0);
    }

    /// A whole site subscribes to one filter and leaves it: each looks at a few of the others.
    #[test]
    fn thousands_share_a_filter() {
        use super::subscribers::COMPARED;
        const SESSIONS: u64 = 20_000;
        for filter in ["site/all/cmd", "$share/g/site/+/cmd"] {
            let index = Index::default();
            COMPARED.set(0);
            // In an order of their own, as devices come back; the factor and the number have no
            // common divisor.
            let order = || (0..SESSIONS).map(|n| n * 7_919 % SESSIONS);
            for key in order() {
                insert(&index, filter, entry(&Session::for_test(key), Qos::AtMostOnce, None));
            }
            let (found, _) = index.receivers("site/all/cmd", 0);
            let members = found.groups.first().map_or(0, |group| group.size());
            assert_eq!(found.sessions.len() + members, SESSIONS as usize);
            drop(found);
            for key in order() {
                index.remove(check_filter(filter).unwrap(), key);
            }
            let each = COMPARED.get() as u64 / SESSIONS;
            assert!(each <= 2 * 16, "{filter}: {each} comparisons for one");
            assert!(index.filters.read().is_empty() && index.len() == 0);
        }
    }

    /// As many groups on one filter, made and left in an order of their own.
    #[test]
    fn thousands_of_groups_share_a_filter() {
        use super::subscribers::COMPARED;
        const GROUPS: u64 = 20_000;
        for filter in ["site/+/cmd", "site/all/cmd"] {
            let (index, session) = (Index::default(), Session::for_test(1));
            COMPARED.set(0);
            let names = || (0..GROUPS).map(|n| format!("$share/{}/{filter}", n * 7_919 % GROUPS));
            for name in names() {
                insert(&index, &name, entry(&session, Qos::AtMostOnce, None));
                insert(&index, &name, entry(&session, Qos::AtLeastOnce, None));
            }
            let (found, _) = index.receivers("site/all/cmd", 0);
            assert_eq!((found.groups.len() as u64, index.len() as u64), (GROUPS, GROUPS));
            drop(found);
            for name in names() {
                index.remove(check_filter(&name).unwrap(), 1);
            }
            let each = COMPARED.get() as u64 / GROUPS;
            assert!(each <= 3 * 17, "{filter}: {each} comparisons for one");
            assert!(index.filters.read().is_empty() && index.len() == 0);
        }
    }

    /// What a publisher holds stays as it was; who looks again sees what has changed.
    #[test]
    fn a_group_that_somebody_holds_is_not_changed() {
        let index = Index::default();
        let filter = "$share/g/x";
        for key in [2, 1] {
            insert(&index, filter, entry(&Session::for_test(key), Qos::AtMostOnce, None));
        }
        let (held, _) = index.receivers("x", 0);
        assert_eq!(held.groups[0].pick().unwrap().session.key, 1);
        index.remove(check_filter(filter).unwrap(), 2);
        assert_eq!(held.groups[0].pick().unwrap().session.key, 2, "it was a member then");
        let (now, _) = index.receivers("x", 0);
        assert_eq!((now.groups[0].size(), now.groups[0].pick().unwrap().session.key), (1, 1));
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![Just("a"), Just("b"), Just(""), Just("$x")].prop_map(String::from)
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => level(), 2 => Just("+".to_string())];
        (prop::collection::vec(level, 1..7), any::<bool>()).prop_map(|(mut levels, hash)| {
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
            topic in prop::collection::vec(level(), 1..7).prop_map(|l| l.join("/")),
        ) {
            prop_assume!(!topic.is_empty());
            let filters: Vec<_> = filters.into_iter().filter(|f| !f.is_empty()).collect();
            prop_assume!(!filters.is_empty());
            let index = Index::default();
            let mut live: Vec<bool> = vec![true; filters.len()];
            for (key, f) in filters.iter().enumerate() {
                insert(&index, f, entry(&Session::for_test(key as u64), Qos::AtMostOnce, None));
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
            let mut left = live.iter().filter(|live| **live).count();
            for at in (0..filters.len()).filter(|&i| live[i]) {
                let nodes = index.filters.read().wild.count();
                prop_assert!(nodes <= 2 * left + 1, "{} nodes for {} filters", nodes, left);
                index.remove(check_filter(&filters[at]).unwrap(), at as u64);
                left -= 1;
            }
            prop_assert!(index.filters.read().is_empty(), "nothing stays behind");
        }
    }
}
