//! What was there when looking began, as far as it is not told yet.
//!
//! Whoever sets up a site on a directory that has been in use for years wants to be asked before
//! all of it is deployed. The first batch does not suffice for that: what cannot be read at the
//! first look, and what is still being written, comes later. Bounded by what is at the origin.

use std::collections::{HashMap, HashSet};

use crate::inventory::Inventory;
use crate::origin::Fingerprint;
use crate::settle::is_below;

/// See [the module](self).
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Files that will be told, and in which state they were refused for now.
    waiting: HashMap<String, Option<Fingerprint>>,
    /// Files that were refused for good, and in which state.
    refused: HashMap<String, Fingerprint>,
    /// What could not be looked at.
    unknown: HashSet<String>,
    /// The root at the first look.
    root: Option<(u64, u64)>,
    began: bool,
    any: bool,
}

impl Found {
    /// Takes in a look. While nothing was ever there, another root is a beginning too: what
    /// belongs there was mounted late.
    pub(crate) fn look(&mut self, inventory: &Inventory, root: Option<(u64, u64)>) {
        let begins = !self.began || !self.any && self.root != root;
        self.any |= !inventory.firmware.is_empty() || !inventory.unknown.is_empty();
        (self.began, self.root) = (true, root);
        let there = inventory.firmware.keys();
        if begins {
            self.waiting = there.map(|path| (path.clone(), None)).collect();
            self.unknown = inventory.unknown.clone();
            return;
        }
        if self.is_over() {
            return;
        }
        let opened: HashSet<String> =
            self.unknown.difference(&inventory.unknown).cloned().collect();
        let come = there.filter(|path| is_below(path, &opened));
        self.waiting.extend(come.map(|path| (path.clone(), None)));
        self.unknown.retain(|path| !opened.contains(path));
        let gone = |path: &String| {
            !inventory.firmware.contains_key(path) && !is_below(path, &inventory.unknown)
        };
        self.waiting.retain(|path, _| !gone(path));
        self.refused.retain(|path, _| !gone(path));
    }

    /// Notes that a file is told. Returns whether it was there when looking began.
    pub(crate) fn told(&mut self, path: &str, state: &Fingerprint) -> bool {
        let same = |refused: &Fingerprint| refused == state;
        let waited = self.waiting.remove(path).is_some_and(|at| at.as_ref().is_none_or(same));
        let refused = self.refused.remove(path).is_some_and(|at| same(&at));
        waited || refused
    }

    /// Notes that a file is refused, until it is tried again or for good.
    pub(crate) fn refused(&mut self, path: &str, state: &Fingerprint, for_now: bool) {
        let Some(at) = self.waiting.get_mut(path) else { return };
        if for_now {
            at.get_or_insert_with(|| state.clone());
        } else if self.waiting.remove(path).is_some_and(|at| at.is_none_or(|at| at == *state)) {
            self.refused.insert(path.to_owned(), state.clone());
        }
    }

    /// Whether nothing of it is left to be told.
    pub(crate) fn is_told(&self) -> bool {
        self.any && self.waiting.is_empty() && self.unknown.is_empty()
    }

    /// Whether nothing that comes can be of it.
    fn is_over(&self) -> bool {
        self.is_told() && self.refused.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{Listed, Listing};

    fn look(found: &mut Found, root: u64, files: &[&str], unknown: &[&str]) {
        let listed = Listed { size: 1, fingerprint: Fingerprint::new("1"), age: None, dated: None };
        let files = files.iter().map(|path| (path.to_string(), listed.clone()));
        let listing = Listing {
            files: files.collect(),
            unknown: unknown.iter().map(ToString::to_string).collect(),
            ..Listing::default()
        };
        found.look(&Inventory::sort(&listing), Some((root, 1)));
    }

    fn told(found: &mut Found, path: &str) -> bool {
        found.told(path, &Fingerprint::new("1"))
    }

    #[test]
    fn what_could_not_be_read_at_first_was_there() {
        let mut found = Found::default();
        look(&mut found, 1, &["a.bin", "b.bin"], &["models/m"]);
        assert!(told(&mut found, "a.bin") && !found.is_told());
        found.refused("b.bin", &Fingerprint::new("1"), true);
        look(&mut found, 1, &["a.bin", "b.bin", "c.bin"], &["models/m"]);
        assert!(told(&mut found, "b.bin") && !told(&mut found, "c.bin"));
        look(&mut found, 1, &["a.bin", "models/m/d.bin", "models/m/e.bin"], &[]);
        assert!(told(&mut found, "models/m/d.bin") && !found.is_told());
        look(&mut found, 1, &["a.bin"], &[]);
        assert!(found.is_told(), "the other one went");
        look(&mut found, 1, &["a.bin", "models/m/e.bin"], &[]);
        assert!(!told(&mut found, "models/m/e.bin") && !told(&mut found, "a.bin"));
    }

    #[test]
    fn what_was_refused_was_there_while_it_is_the_same() {
        let mut found = Found::default();
        look(&mut found, 1, &["a.bin", "b.bin"], &[]);
        for path in ["a.bin", "b.bin"] {
            found.refused(path, &Fingerprint::new("1"), false);
        }
        assert!(found.is_told());
        look(&mut found, 1, &["a.bin", "b.bin"], &[]);
        assert!(told(&mut found, "a.bin") && !found.told("b.bin", &Fingerprint::new("2")));
    }

    #[test]
    fn what_is_mounted_late_was_there() {
        let mut found = Found::default();
        look(&mut found, 1, &[], &[]);
        assert!(!found.is_told());
        look(&mut found, 2, &["a.bin"], &[]);
        assert!(told(&mut found, "a.bin") && found.is_told());
        look(&mut found, 3, &["a.bin", "b.bin"], &[]);
        assert!(!told(&mut found, "b.bin"), "something was there before");

        let mut found = Found::default();
        look(&mut found, 1, &[], &[]);
        look(&mut found, 1, &["a.bin"], &[]);
        assert!(!told(&mut found, "a.bin"), "it was dropped");
    }
}
