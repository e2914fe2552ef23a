//! The subscriptions of one session.

use std::sync::Arc;

use hook::Qos;

use crate::{index::Entry, packet::SubscribeFilter, session::Session};

/// One subscription, as the session holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// As granted.
    pub qos: Qos,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Subscription Identifier.
    pub identifier: Option<u32>,
    /// A hook consumed it: it does not stand in the index.
    pub consumed: bool,
}

impl Held {
    /// What was asked for is granted.
    pub fn new(options: &SubscribeFilter, identifier: Option<u32>, consumed: bool) -> Self {
        Held {
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            identifier,
            consumed,
        }
    }

    /// The entry of the index that this subscription makes.
    pub fn entry(&self, session: &Arc<Session>) -> Entry {
        Entry {
            session: session.clone(),
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            identifier: self.identifier,
            epoch: session.inbox.epoch(),
        }
    }
}

/// Subscriptions by filter, in its order. A vector, since most sessions have few: with one it
/// takes 32 bytes, where a map takes twenty times that.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    list: Vec<(Arc<str>, Held)>,
    /// Of all filters together.
    bytes: usize,
}

impl Subscriptions {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// How long all filters are together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn find(&self, filter: &str) -> Result<usize, usize> {
        self.list.binary_search_by(|(one, _)| (**one).cmp(filter))
    }

    /// The one on this filter.
    pub fn get(&self, filter: &str) -> Option<&Held> {
        self.find(filter).ok().map(|at| &self.list[at].1)
    }

    /// The same to be changed, beside its filter.
    pub fn get_mut(&mut self, filter: &str) -> Option<(&Arc<str>, &mut Held)> {
        let at = self.find(filter).ok()?;
        let (filter, held) = &mut self.list[at];
        Some((filter, held))
    }

    /// Adds it, or replaces the one on the same filter.
    pub fn insert(&mut self, filter: Arc<str>, held: Held) {
        match self.find(&filter) {
            Ok(at) => self.list[at].1 = held,
            Err(at) => {
                if self.list.len() == self.list.capacity() {
                    self.list.reserve_exact(self.list.len() / 2 + 1);
                }
                self.bytes += filter.len();
                self.list.insert(at, (filter, held));
            }
        }
    }

    /// Takes the one on this filter out.
    pub fn remove(&mut self, filter: &str) -> Option<Held> {
        let at = self.find(filter).ok()?;
        self.bytes -= filter.len();
        Some(self.list.remove(at).1)
    }

    /// All of them, in the order of their filters.
    pub fn iter(&self) -> impl Iterator<Item = &(Arc<str>, Held)> {
        self.list.iter()
    }
}

impl IntoIterator for Subscriptions {
    type Item = (Arc<str>, Held);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn held(identifier: u32) -> Held {
        Held {
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            identifier: Some(identifier),
            consumed: false,
        }
    }

    proptest! {
        #[test]
        fn says_the_same_as_a_map(steps in prop::collection::vec(("[a-c]{1,2}", any::<bool>()), 0..60)) {
            let (mut ours, mut map) = (Subscriptions::default(), BTreeMap::new());
            for (n, (filter, insert)) in steps.into_iter().enumerate() {
                if insert {
                    ours.insert(filter.as_str().into(), held(n as u32));
                    map.insert(filter.clone(), held(n as u32));
                } else {
                    prop_assert_eq!(ours.remove(&filter), map.remove(&filter));
                }
                prop_assert_eq!(ours.get(&filter), map.get(&filter));
                prop_assert_eq!(ours.len(), map.len());
                prop_assert_eq!(ours.bytes(), map.keys().map(String::len).sum::<usize>());
            }
            let ours: Vec<_> = ours.iter().map(|(f, held)| (f.to_string(), held.clone())).collect();
            prop_assert_eq!(ours, map.into_iter().collect::<Vec<_>>());
        }
    }
}
