//! Who has subscribed to one filter.

use hook::Qos;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::Receivers;
use crate::{message::Share, session::Session, topic::Filter};

#[cfg(test)]
thread_local! {
    /// How often this thread has looked at whose an entry is, to find one.
    pub(super) static COMPARED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// One subscription in the index. Filters and topics are compared byte by byte [MQTT-4.7.3-4].
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
    /// The whole filter.
    pub share: Arc<Share>,
    /// Sorted by session key.
    members: Vec<Entry>,
    /// Where the next turn begins: at most the number of members, or it begins anew.
    next: AtomicUsize,
}

/// As it is now: a publisher may hold the old one while members come and go.
impl Clone for Group {
    fn clone(&self) -> Self {
        Group {
            name: self.name.clone(),
            share: self.share.clone(),
            members: self.members.clone(),
            next: AtomicUsize::new(self.next.load(Ordering::Relaxed)),
        }
    }
}

impl Group {
    /// How many members there are.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The member whose turn it is: connected ones first, in turn.
    pub fn pick(&self) -> Option<Receiver> {
        self.turn().map(|entry| Receiver { share: Some(self.share.clone()), ..Receiver::of(entry) })
    }

    /// The next turn is that of the member behind it: else who comes behind some that are away would
    /// have all of theirs.
    fn turn(&self) -> Option<&Entry> {
        let (before, after) = self
            .members
            .split_at_checked(self.next.load(Ordering::Relaxed))
            .unwrap_or((&[], &self.members));
        let places = (before.len()..self.members.len()).chain(0..before.len());
        let mut in_turn = places.zip(after.iter().chain(before));
        let first = in_turn.clone().next();
        let connected = in_turn.find(|(_, entry)| entry.session.inbox.is_connected());
        let (place, entry) = connected.or(first)?;
        self.next.store(place + 1, Ordering::Relaxed);
        Some(entry)
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

/// Entries are sorted by session key and groups by name, so that thousands of either can share a
/// filter.
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
    pub fn insert(&mut self, filter: Filter<'_>, entry: Entry) -> bool {
        match self {
            Subscribers::None if filter.share.is_none() => {
                *self = Subscribers::One(entry);
                true
            }
            Subscribers::One(old)
                if filter.share.is_none() && old.session.key == entry.session.key =>
            {
                *old = entry;
                false
            }
            Subscribers::Some(several) => several.insert(filter, entry),
            Subscribers::None | Subscribers::One(_) => {
                let mut several = Box::<Several>::default();
                if let Subscribers::One(old) = std::mem::take(self) {
                    several.entries.push(old);
                }
                let new = several.insert(filter, entry);
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
    fn insert(&mut self, filter: Filter<'_>, entry: Entry) -> bool {
        let Some(name) = filter.share else { return upsert(&mut self.entries, entry) };
        match self.find_group(name) {
            Ok(at) => upsert(&mut Arc::make_mut(&mut self.groups[at]).members, entry),
            Err(at) => {
                let share = Arc::new(Share(format!("$share/{name}/{}", filter.levels).into()));
                let (members, next) = (vec![entry], AtomicUsize::new(0));
                let group = Group { name: name.into(), share, members, next };
                self.groups.insert(at, Arc::new(group));
                true
            }
        }
    }

    /// Where the group of this name is, or belongs.
    fn find_group(&self, name: &str) -> Result<usize, usize> {
        self.groups.binary_search_by(|group| {
            #[cfg(test)]
            COMPARED.set(COMPARED.get() + 1);
            (*group.name).cmp(name)
        })
    }

    fn remove(&mut self, share: Option<&str>, key: u64) {
        match share {
            None => take_out(&mut self.entries, key),
            Some(name) => {
                let Ok(at) = self.find_group(name) else { return };
                let group = Arc::make_mut(&mut self.groups[at]);
                take_out(&mut group.members, key);
                if group.members.is_empty() {
                    self.groups.remove(at);
                }
            }
        }
    }
}

/// Replaces the session's entry or adds it; `true` where it is new.
fn upsert(entries: &mut Vec<Entry>, entry: Entry) -> bool {
    match find(entries, entry.session.key) {
        Ok(at) => {
            entries[at] = entry;
            false
        }
        Err(at) => {
            entries.insert(at, entry);
            true
        }
    }
}

fn take_out(entries: &mut Vec<Entry>, key: u64) {
    if let Ok(at) = find(entries, key) {
        entries.remove(at);
    }
}

/// Where the entry of a session is, or belongs.
fn find(entries: &[Entry], key: u64) -> Result<usize, usize> {
    entries.binary_search_by(|entry| {
        #[cfg(test)]
        COMPARED.set(COMPARED.get() + 1);
        entry.session.key.cmp(&key)
    })
}
