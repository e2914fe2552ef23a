//! Filters with wildcards: a tree with one node per level, so that matching a topic costs its
//! depth and not the number of filters.

use std::collections::HashMap;

use super::{Receivers, subscribers::Subscribers};

/// Up to so many children are looked through one by one, which takes less memory and no longer.
const FEW: usize = 8;

/// What may follow a level.
#[derive(Default)]
pub(super) struct Node {
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
    pub fn at(&mut self, levels: &str) -> &mut Subscribers {
        let mut node = self;
        for level in levels.split('/') {
            match level {
                "#" => return &mut node.below,
                "+" => node = node.plus.get_or_insert_default(),
                name => node = node.children.get_or_insert(name),
            }
        }
        &mut node.here
    }

    /// Removes and prunes on the way back. The depth is bounded by [`crate::topic::MAX_LEVELS`].
    pub fn remove(&mut self, levels: Option<&str>, share: Option<&str>, key: u64) {
        let Some(levels) = levels else { return self.here.remove(share, key) };
        let (level, rest) = first(levels);
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
    pub fn collect(&self, levels: Option<&str>, wild: bool, publisher: u64, found: &mut Receivers) {
        if wild {
            self.below.collect(publisher, found);
        }
        let Some(levels) = levels else { return self.here.collect(publisher, found) };
        let (level, rest) = first(levels);
        if let Some(child) = self.children.get(level) {
            child.collect(rest, true, publisher, found);
        }
        if let (true, Some(plus)) = (wild, &self.plus) {
            plus.collect(rest, true, publisher, found);
        }
    }
}

/// The first level, and those that follow.
fn first(levels: &str) -> (&str, Option<&str>) {
    match levels.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (levels, None),
    }
}
