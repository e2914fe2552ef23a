//! Who has subscribed to one filter.

use hook::Qos;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::Receivers;
use crate::session::Session;

/// One subscription in the index.
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
}

impl Receiver {
    fn of(entry: &Entry) -> Self {
        Receiver {
            session: entry.session.clone(),
            qos: entry.qos,
            retain_as_published: entry.retain_as_published,
            identifiers: entry.identifier.map(|id| Arc::from([id])),
            epoch: entry.epoch,
        }
    }

    pub fn merge(&mut self, other: Receiver) {
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
    members: Vec<Entry>,
    next: AtomicUsize,
}

impl Group {
    /// The member whose turn it is: connected ones first, in turn.
    pub fn pick(&self) -> Option<Receiver> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |i: usize| &self.members[(start.wrapping_add(i)) % self.members.len()];
        (0..self.members.len())
            .map(turn)
            .find(|entry| entry.session.inbox.is_connected())
            .or_else(|| (!self.members.is_empty()).then(|| turn(0)))
            .map(Receiver::of)
    }
}

/// The subscribers of one filter. Nearly every filter has one, and there are many filters.
#[derive(Default)]
pub(super) enum Subscribers {
    #[default]
    None,
    One(Entry),
    Some(Box<Several>),
}

#[derive(Default)]
pub(super) struct Several {
    entries: Vec<Entry>,
    groups: Vec<Arc<Group>>,
}

impl Subscribers {
    pub fn is_empty(&self) -> bool {
        matches!(self, Subscribers::None)
    }

    pub fn collect(&self, publisher: u64, found: &mut Receivers) {
        // [MQTT-3.8.3-3]
        let wants = |entry: &&Entry| !(entry.no_local && entry.session.key == publisher);
        match self {
            Subscribers::None => {}
            Subscribers::One(entry) => {
                found.sessions.extend(Some(entry).filter(wants).map(Receiver::of));
            }
            Subscribers::Some(several) => {
                found.sessions.extend(several.entries.iter().filter(wants).map(Receiver::of));
                found.groups.extend(several.groups.iter().cloned());
            }
        }
    }

    /// `true` where the subscription is new, and replaces none of the same session.
    pub fn insert(&mut self, share: Option<&str>, entry: Entry) -> bool {
        match self {
            Subscribers::None if share.is_none() => {
                *self = Subscribers::One(entry);
                true
            }
            Subscribers::One(old) if share.is_none() && old.session.key == entry.session.key => {
                *old = entry;
                false
            }
            Subscribers::Some(several) => several.insert(share, entry),
            Subscribers::None | Subscribers::One(_) => {
                let mut several = Box::<Several>::default();
                if let Subscribers::One(old) = std::mem::take(self) {
                    several.entries.push(old);
                }
                let new = several.insert(share, entry);
                *self = Subscribers::Some(several);
                new
            }
        }
    }

    pub fn remove(&mut self, share: Option<&str>, key: u64) {
        match self {
            Subscribers::None => {}
            Subscribers::One(entry) => {
                if share.is_none() && entry.session.key == key {
                    *self = Subscribers::None;
                }
            }
            Subscribers::Some(several) => {
                several.remove(share, key);
                if several.groups.is_empty() && several.entries.len() <= 1 {
                    *self = several.entries.pop().map_or(Subscribers::None, Subscribers::One);
                }
            }
        }
    }
}

impl Several {
    fn insert(&mut self, share: Option<&str>, entry: Entry) -> bool {
        match share {
            None => upsert(&mut self.entries, entry),
            Some(name) => {
                let (mut members, at) = match self.groups.iter().position(|g| &*g.name == name) {
                    Some(at) => (self.groups[at].members.clone(), Some(at)),
                    None => (Vec::new(), None),
                };
                let new = upsert(&mut members, entry);
                let group =
                    Arc::new(Group { name: name.into(), members, next: AtomicUsize::new(0) });
                match at {
                    Some(at) => self.groups[at] = group,
                    None => self.groups.push(group),
                }
                new
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
                    let name = name.into();
                    self.groups[at] = Arc::new(Group { name, members, next: AtomicUsize::new(0) });
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
