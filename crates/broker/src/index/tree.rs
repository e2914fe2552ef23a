//! Filters with wildcards: a tree by level, in which a node stands only where filters part or end.
//!
//! A topic costs the nodes whose levels match its own. Where the filters of a site are of a few
//! forms, those are about as many as its levels, however many filters there are. At most they are
//! twice as many as the filters with wildcards, and that is what somebody gets who makes the worst
//! of them: a session has `limits.subscriptions`.

use std::collections::HashMap;

use super::{Receivers, subscribers::Subscribers};

/// Up to so many children are looked through one by one, which takes less memory and no longer.
const FEW: usize = 8;

#[cfg(test)]
thread_local! {
    /// Nodes that this thread has looked at.
    pub(super) static VISITED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// What may follow a level.
#[derive(Default)]
pub(super) struct Node {
    /// Levels between the one that leads here and those that follow, at which nothing else parts or
    /// ends.
    tail: Option<Box<str>>,
    children: Children,
    plus: Option<Box<Node>>,
    /// Filters that end here.
    here: Subscribers,
    /// Filters that end here with `/#`.
    below: Subscribers,
}

/// Nodes by the name of their level.
#[expect(clippy::box_collection, reason = "most nodes have few children, and are smaller for it")]
enum Children {
    Few(Vec<(Box<str>, Node)>),
    Many(Box<HashMap<Box<str>, Node>>),
}

impl Default for Children {
    fn default() -> Self {
        Children::Few(Vec::new())
    }
}

impl Children {
    fn is_empty(&self) -> bool {
        matches!(self, Children::Few(few) if few.is_empty())
    }

    fn get(&self, name: &str) -> Option<&Node> {
        match self {
            Children::Few(few) => few.iter().find(|(child, _)| **child == *name).map(|(_, n)| n),
            Children::Many(many) => many.get(name),
        }
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        match self {
            Children::Few(few) => {
                few.iter_mut().find(|(child, _)| **child == *name).map(|(_, node)| node)
            }
            Children::Many(many) => many.get_mut(name),
        }
    }

    fn get_or_insert(&mut self, name: &str) -> &mut Node {
        if let Children::Few(few) = self
            && few.len() == FEW
            && !few.iter().any(|(child, _)| **child == *name)
        {
            *self = Children::Many(Box::new(few.drain(..).collect()));
        }
        match self {
            Children::Many(many) => many.entry(name.into()).or_default(),
            Children::Few(few) => {
                let at = few.iter().position(|(child, _)| **child == *name);
                let at = at.unwrap_or_else(|| {
                    few.reserve_exact(1);
                    few.push((name.into(), Node::default()));
                    few.len() - 1
                });
                &mut few[at].1
            }
        }
    }

    fn remove(&mut self, name: &str) {
        match self {
            Children::Few(few) => few.retain(|(child, _)| **child != *name),
            Children::Many(many) => {
                many.remove(name);
                // Not at FEW, so that one that comes and goes does not move all each time.
                if many.len() <= FEW / 2 {
                    *self = Children::Few(many.drain().collect());
                }
            }
        }
    }
}

impl Node {
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.plus.is_none()
            && self.here.is_empty()
            && self.below.is_empty()
    }

    /// The subscribers at the end of a filter, made on the way.
    pub fn at(&mut self, filter: &str) -> &mut Subscribers {
        let (mut path, all) = end(filter);
        let mut node = self;
        while let Some(levels) = path {
            let (level, rest) = first(levels);
            node = match level {
                "+" => node.plus.get_or_insert_default(),
                name => node.children.get_or_insert(name),
            };
            path = if node.is_empty() {
                node.tail = rest.map(Box::from);
                None
            } else {
                node.enter(rest)
            };
        }
        if all { &mut node.below } else { &mut node.here }
    }

    /// What is left of a path behind the node's tail. Where the path leaves the tail or ends in it,
    /// the node is parted there.
    fn enter<'a>(&mut self, path: Option<&'a str>) -> Option<&'a str> {
        let Some(tail) = self.tail.take() else { return path };
        let (same, lower, rest) = common(&tail, path);
        let Some(lower) = lower else {
            self.tail = Some(tail);
            return rest;
        };
        let (level, below) = first(lower);
        let node = Node { tail: below.map(Box::from), ..std::mem::take(self) };
        self.tail = same.map(Box::from);
        match level {
            "+" => self.plus = Some(Box::new(node)),
            name => *self.children.get_or_insert(name) = node,
        }
        rest
    }

    /// Removes and prunes on the way back. The depth is bounded by [`crate::topic::MAX_LEVELS`].
    pub fn remove(&mut self, filter: &str, share: Option<&str>, key: u64) {
        let (path, all) = end(filter);
        self.prune(path, &|node| {
            let subscribers = if all { &mut node.below } else { &mut node.here };
            subscribers.remove(share, key);
        });
    }

    /// Changes the node at the end of a path.
    fn prune(&mut self, path: Option<&str>, change: &impl Fn(&mut Node)) {
        let Some(levels) = path else { return change(self) };
        let (level, rest) = first(levels);
        let child = match level {
            "+" => self.plus.as_deref_mut(),
            name => self.children.get_mut(name),
        };
        let Some(child) = child else { return };
        let rest = match &child.tail {
            None => rest,
            Some(tail) => match common(tail, rest) {
                (_, None, rest) => rest,
                _ => return,
            },
        };
        child.prune(rest, change);
        if !child.is_empty() {
            child.join();
        } else if level == "+" {
            self.plus = None;
        } else {
            self.children.remove(level);
        }
    }

    /// Takes the place of its only child, where nothing ends here.
    fn join(&mut self) {
        if !self.here.is_empty() || !self.below.is_empty() {
            return;
        }
        let only = match (&mut self.children, &mut self.plus) {
            (Children::Few(few), None) if few.len() == 1 => few.pop(),
            (children, plus) if children.is_empty() => plus.take().map(|plus| ("+".into(), *plus)),
            _ => None,
        };
        let Some((level, child)) = only else { return };
        let tails = [self.tail.as_deref(), Some(&level), child.tail.as_deref()];
        let tail = tails.into_iter().flatten().collect::<Vec<_>>().join("/");
        *self = Node { tail: Some(tail.into()), ..child };
    }

    /// Nodes in all: this one and what is below it.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        let children: Vec<&Node> = match &self.children {
            Children::Few(few) => few.iter().map(|(_, node)| node).collect(),
            Children::Many(many) => many.values().collect(),
        };
        1 + children.into_iter().chain(self.plus.as_deref()).map(Node::count).sum::<usize>()
    }

    /// `wild` is false for the first level of a `$` topic [MQTT-4.7.2-1].
    pub fn collect(&self, levels: Option<&str>, wild: bool, publisher: u64, found: &mut Receivers) {
        #[cfg(test)]
        VISITED.set(VISITED.get() + 1);
        if wild {
            self.below.collect(publisher, found);
        }
        let Some(levels) = levels else { return self.here.collect(publisher, found) };
        let (level, rest) = first(levels);
        let plus = self.plus.as_deref().filter(|_| wild);
        for node in self.children.get(level).into_iter().chain(plus) {
            let rest = match (&node.tail, rest) {
                (None, rest) => Some(rest),
                (Some(tail), Some(rest)) => behind(tail, rest),
                (Some(_), None) => None,
            };
            if let Some(rest) = rest {
                node.collect(rest, true, publisher, found);
            }
        }
    }
}

/// The path to where a filter ends, and whether everything below matches as well.
fn end(filter: &str) -> (Option<&str>, bool) {
    match filter.strip_suffix('#') {
        Some(path) => (path.strip_suffix('/'), true),
        None => (Some(filter), false),
    }
}

/// The first level, and those that follow.
fn first(levels: &str) -> (&str, Option<&str>) {
    match levels.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (levels, None),
    }
}

/// The levels that a tail and a path both begin with, and what is left of each.
fn common<'a, 'b>(
    tail: &'a str,
    path: Option<&'b str>,
) -> (Option<&'a str>, Option<&'a str>, Option<&'b str>) {
    let (mut lower, mut rest, mut same) = (Some(tail), path, None);
    while let (Some(one), Some(other)) = (lower, rest) {
        let ((level, below), (wanted, behind)) = (first(one), first(other));
        if level != wanted {
            break;
        }
        (lower, rest) = (below, behind);
        same = Some(&tail[..below.map_or(tail.len(), |below| tail.len() - below.len() - 1)]);
    }
    (same, lower, rest)
}

/// What is left of a topic behind a tail that matches it. Compared in pieces as long as they are
/// between two `+`, since there may be a hundred levels.
fn behind<'a>(tail: &str, topic: &'a str) -> Option<Option<&'a str>> {
    let mut pieces = tail.split('+');
    let mut rest = topic.strip_prefix(pieces.next().unwrap_or_default())?;
    for piece in pieces {
        let level = rest.find('/').unwrap_or(rest.len());
        rest = rest[level..].strip_prefix(piece)?;
    }
    if rest.is_empty() { Some(None) } else { rest.strip_prefix('/').map(Some) }
}
