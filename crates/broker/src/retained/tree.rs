//! The tree of retained messages, one node per topic level, in the order of the levels.
//!
//! A filter is looked up in pages: nobody holds the lock, or a list, for as many messages as a
//! filter may match, and the next page begins behind the last one whatever changed meanwhile.

use std::{
    collections::BTreeMap,
    ops::Bound::{Included, Unbounded},
    sync::Arc,
};

use crate::message::Message;

/// Nodes that one page looks at, at most: a filter may match few of many.
pub(super) const PAGE_STEPS: usize = 4096;
/// The same where it is only asked whether there is anything.
pub(super) const PEEK_STEPS: usize = 64;

#[derive(Default)]
pub(super) struct Node {
    children: BTreeMap<Box<str>, Node>,
    message: Option<Arc<Message>>,
}

/// What a filter asks of a node and of what is below it.
#[derive(Clone, Copy)]
enum Want<'a> {
    /// The node's own message alone: the filter ends here.
    This,
    /// Everything: `#` was above.
    All,
    /// What these levels say of its children.
    Levels(&'a str),
}

/// How much of a node earlier pages have done.
#[derive(Clone, Copy)]
enum Done<'a> {
    Nothing,
    /// The node itself.
    This,
    /// The node itself, and below it everything up to the node of these levels, itself included.
    UpTo(&'a str),
}

/// A page in the making.
struct Walk<'a> {
    room: usize,
    steps: usize,
    found: Vec<Arc<Message>>,
    /// The levels of the node that is looked at.
    path: Vec<&'a str>,
    /// The same of the one that was done last.
    last: Vec<&'a str>,
}

/// Some of the messages that a filter matches, in the order of their topics' levels.
pub(crate) struct Page {
    /// The messages.
    pub messages: Vec<Arc<Message>>,
    /// Where the next page begins: behind this topic, or this beginning of topics. `None` where
    /// there is nothing more.
    pub next: Option<Box<str>>,
}

#[derive(Default)]
pub(super) struct Tree {
    root: Node,
    /// Of all topics but those below `$`.
    pub messages: usize,
    /// What those cost.
    pub bytes: usize,
}

fn split(levels: &str) -> (&str, Option<&str>) {
    match levels.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (levels, None),
    }
}

impl Tree {
    /// Puts a message in the place of its topic's.
    pub fn put(&mut self, message: Arc<Message>) {
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

    /// Takes a topic's message out.
    pub fn take(&mut self, topic: &str) -> Option<Arc<Message>> {
        let old = self.root.take(Some(topic))?;
        if !topic.starts_with('$') {
            self.messages -= 1;
            self.bytes -= old.cost();
        }
        Some(old)
    }

    pub fn find(&self, topic: &str) -> Option<&Arc<Message>> {
        let mut levels = topic.split('/');
        let node = levels.try_fold(&self.root, |node, level| node.children.get(level))?;
        node.message.as_ref()
    }

    /// Takes the expired messages out.
    pub fn forget_expired(&mut self) {
        let Tree { root, messages, bytes } = self;
        root.prune(&mut |expired| {
            if !expired.topic.starts_with('$') {
                *messages -= 1;
                *bytes -= expired.cost();
            }
        });
    }

    /// At most `room` messages that a filter (without share prefix) matches, behind `after`, and
    /// what is found in so many `steps`; the expired ones are left out.
    pub fn page(&self, filter: &str, after: Option<&str>, room: usize, steps: usize) -> Page {
        let mut walk = Walk { room, steps, found: Vec::new(), path: Vec::new(), last: Vec::new() };
        let done = after.map_or(Done::This, Done::UpTo);
        let complete = self.root.walk(Want::Levels(filter), done, &mut walk);
        let next = (!complete).then(|| walk.last.join("/").into_boxed_str());
        Page { messages: walk.found, next }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.root.children.is_empty()
    }
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

    /// `false` where the page is full before everything was looked at.
    fn walk<'a>(&'a self, want: Want<'_>, done: Done<'_>, walk: &mut Walk<'a>) -> bool {
        if let Done::Nothing = done {
            if walk.steps == 0 || walk.found.len() == walk.room {
                return false;
            }
            walk.steps -= 1;
            walk.last.clone_from(&walk.path);
            // `a/#` matches `a` as well (4.7.1.2).
            let own = matches!(want, Want::This | Want::All | Want::Levels("#"));
            let message = self.message.as_ref().filter(|message| own && !message.expired());
            walk.found.extend(message.cloned());
        }
        let (begun, below) = match done {
            Done::UpTo(levels) => {
                let (level, rest) = split(levels);
                (Some(level), rest.map_or(Done::This, Done::UpTo))
            }
            _ => (None, Done::Nothing),
        };
        let (level, want) = match want {
            Want::This => return true,
            Want::All => ("#", Want::All),
            Want::Levels(levels) => match split(levels) {
                ("#", _) => ("#", Want::All),
                (level, rest) => (level, rest.map_or(Want::This, Want::Levels)),
            },
        };
        let done_of = |name: &str| if begun == Some(name) { below } else { Done::Nothing };
        if !matches!(level, "#" | "+") {
            return match self.children.get_key_value(level) {
                Some((name, child)) if begun.is_none_or(|begun| begun <= &**name) => {
                    child.step(name, want, done_of(name), walk)
                }
                _ => true,
            };
        }
        // Wildcards at the first level do not match `$` topics [MQTT-4.7.2-1].
        let first = walk.path.is_empty();
        let from = begun.map_or(Unbounded, Included);
        self.children
            .range::<str, _>((from, Unbounded))
            .filter(|(name, _)| !(first && name.starts_with('$')))
            .all(|(name, child)| child.step(name, want, done_of(name), walk))
    }

    fn step<'a>(
        &'a self,
        name: &'a str,
        want: Want<'_>,
        done: Done<'_>,
        walk: &mut Walk<'a>,
    ) -> bool {
        walk.path.push(name);
        let complete = self.walk(want, done, walk);
        walk.path.pop();
        complete
    }
}
