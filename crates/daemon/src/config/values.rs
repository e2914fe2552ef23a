//! What two readings of the configuration have in common.

use std::collections::BTreeMap;

use super::{
    keys::{KEYS, Key},
    overview::written,
    secret::Secret,
    tree::Tree,
};

/// The value of every key as it was written, or its default; of a secret that comes from a file,
/// what was in the file. No output shows them.
#[derive(Clone, Debug)]
pub struct Values(BTreeMap<&'static str, Secret>);

/// What a second reading has that the first has not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that can change while the daemon runs.
    pub live: Vec<&'static str>,
    /// Keys that need a restart.
    pub restart: Vec<&'static str>,
}

impl Values {
    /// Those of this reading; `secrets` are the keys whose value may come from a file.
    pub fn of(tree: &Tree, secrets: [(&'static str, Option<&Secret>); 3]) -> Self {
        let of = |key: &Key| match tree.entries.get(key.name) {
            Some(entry) => format!("{:#}", entry.raw),
            None => written(key.default),
        };
        let mut values: BTreeMap<_, _> =
            KEYS.iter().map(|key| (key.name, Secret::new(of(key)))).collect();
        for (name, secret) in secrets {
            values.insert(name, secret.cloned().unwrap_or_else(|| Secret::new(String::new())));
        }
        Values(values)
    }

    /// What changed from these to the `other` ones.
    pub fn changes(&self, other: &Values) -> Changes {
        let mut changes = Changes::default();
        for key in KEYS.iter().filter(|key| self.0.get(key.name) != other.0.get(key.name)) {
            let list = if key.live { &mut changes.live } else { &mut changes.restart };
            list.push(key.name);
        }
        changes
    }

    /// Takes over what can change while the daemon runs.
    pub fn go_live(&mut self, other: &Values) {
        for key in KEYS.iter().filter(|key| key.live) {
            if let Some(value) = other.0.get(key.name) {
                self.0.insert(key.name, value.clone());
            }
        }
    }
}
