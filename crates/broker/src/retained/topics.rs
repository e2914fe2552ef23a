//! The retained messages, sorted by the levels of their topics.
//!
//! One entry for each message, so that it takes what it counts, however many levels its topic has.
//! What is below a level stands together, and a filter skips what it cannot match: it costs as many
//! looks as it has matches, and one more for each beginning of a topic that stands for a `+`.
//!
//! A filter is looked up in pages: nobody holds the lock, or a list, for as many messages as a
//! filter may match, and the next page begins behind the last one whatever changed meanwhile.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::BTreeSet,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

use crate::message::Message;

/// Topics that one page looks at, at most: a filter may match few of many.
pub(super) const PAGE_STEPS: usize = 2048;
/// The same where it is only asked whether there is anything.
pub(super) const PEEK_STEPS: usize = 64;
/// Behind a level, what sorts after everything below it: no topic has this character.
const BEHIND: char = '\0';

/// Something that stands in the order of topics.
trait Place {
    fn text(&self) -> &str;
}

impl Place for &str {
    fn text(&self) -> &str {
        self
    }
}

/// A message in its topic's place.
struct Kept(Arc<Message>);

impl Place for Kept {
    fn text(&self) -> &str {
        &self.0.topic
    }
}

/// Level by level: as texts, but that `/` comes before all other characters.
impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, other) = (self.text().as_bytes(), other.text().as_bytes());
        let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
        match one.iter().zip(other).find(|(a, b)| a != b) {
            Some((a, b)) => rank(*a).cmp(&rank(*b)),
            None => one.len().cmp(&other.len()),
        }
    }
}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for dyn Place + '_ {}

impl<'a> Borrow<dyn Place + 'a> for Kept {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> Ordering {
        <dyn Place>::cmp(self, other)
    }
}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Kept {}

/// Some of the messages that a filter matches, in the order of their topics' levels.
pub(crate) struct Page {
    /// The messages.
    pub messages: Vec<Arc<Message>>,
    /// Where the next page begins: behind this topic. `None` where there is nothing more.
    pub next: Option<Box<str>>,
}

#[derive(Default)]
pub(super) struct Topics {
    kept: BTreeSet<Kept>,
    /// Of all topics but those below `$`.
    pub messages: usize,
    /// What those cost.
    pub bytes: usize,
}

/// What a filter says to a topic.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// It matches.
    Match,
    /// The next one may.
    Next,
    /// Nothing before this one does.
    From(String),
    /// Nothing behind it does.
    Over,
}

impl Topics {
    /// Puts a message in the place of its topic's.
    pub fn put(&mut self, message: Arc<Message>) {
        let (own, cost) = (message.topic.starts_with('$'), message.cost());
        let old = self.kept.replace(Kept(message));
        if !own {
            self.messages += usize::from(old.is_none());
            self.bytes = self.bytes + cost - old.map_or(0, |Kept(old)| old.cost());
        }
    }

    /// Takes a topic's message out.
    pub fn take(&mut self, topic: &str) -> Option<Arc<Message>> {
        let Kept(old) = self.kept.take::<dyn Place>(&topic)?;
        if !topic.starts_with('$') {
            self.messages -= 1;
            self.bytes -= old.cost();
        }
        Some(old)
    }

    pub fn find(&self, topic: &str) -> Option<&Arc<Message>> {
        self.kept.get::<dyn Place>(&topic).map(|Kept(message)| message)
    }

    /// Takes the expired messages out.
    pub fn forget_expired(&mut self) {
        let Topics { kept, messages, bytes } = self;
        kept.retain(|Kept(message)| {
            let expired = message.expired();
            if expired && !message.topic.starts_with('$') {
                *messages -= 1;
                *bytes -= message.cost();
            }
            !expired
        });
    }

    /// At most `room` messages that a filter (without share prefix) matches, behind `after`, and
    /// what is found in so many `steps`; the expired ones are left out. Both are at least 1.
    pub fn page(&self, filter: &str, after: Option<&str>, room: usize, mut steps: usize) -> Page {
        let (mut messages, mut last) = (Vec::new(), after);
        let mut from: Option<String> = None;
        loop {
            let place = from.take();
            let begin: &dyn Place = &place.as_deref().or(last).unwrap_or_default();
            let begin = if place.is_some() { Included(begin) } else { Excluded(begin) };
            for Kept(message) in self.kept.range::<dyn Place, _>((begin, Unbounded)) {
                let look = look(filter, &message.topic);
                let matches = look == Look::Match && !message.expired();
                if steps == 0 || (matches && messages.len() == room) {
                    return Page { messages, next: Some(last.unwrap_or_default().into()) };
                }
                steps -= 1;
                last = Some(&message.topic);
                match look {
                    Look::Match if matches => messages.push(message.clone()),
                    Look::Match | Look::Next => {}
                    Look::From(place) => {
                        from = Some(place);
                        break;
                    }
                    Look::Over => return Page { messages, next: None },
                }
            }
            if from.is_none() {
                return Page { messages, next: None };
            }
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

/// What a filter says to a topic, and where it goes on.
fn look(filter: &str, topic: &str) -> Look {
    // Behind everything that has the same level where the filter has its last `+` so far.
    let behind = |level: Option<usize>| match level {
        Some(end) => Look::From(format!("{}{BEHIND}", &topic[..end])),
        None => Look::Over,
    };
    let (mut rest, mut at, mut plus) = (Some(topic), 0, None);
    for (number, wanted) in filter.split('/').enumerate() {
        let (level, below) = match rest {
            Some(rest) => rest.split_once('/').map_or((rest, None), |(l, below)| (l, Some(below))),
            // `a/#` matches `a` as well (4.7.1.2).
            None if wanted == "#" => return Look::Match,
            None if wanted == "+" => return Look::Next,
            None => return Look::From(format!("{topic}/{wanted}")),
        };
        let end = at + level.len();
        match wanted {
            // Wildcards at the first level do not match `$` topics [MQTT-4.7.2-1].
            "#" | "+" if number == 0 && level.starts_with('$') => return behind(Some(end)),
            "#" => return Look::Match,
            "+" => plus = Some(end),
            _ => match level.cmp(wanted) {
                Ordering::Less => return Look::From(format!("{}{wanted}", &topic[..at])),
                Ordering::Equal => {}
                Ordering::Greater => return behind(plus),
            },
        }
        (rest, at) = (below, end + 1);
    }
    if rest.is_none() { Look::Match } else { behind(plus) }
}
