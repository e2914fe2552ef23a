//! A listing, sorted into firmware files with their companions and what is refused.

use std::collections::{BTreeMap, HashSet};

use crate::origin::{Fingerprint, Listed, Listing};
use crate::paths::{self, Companion, Place, Target};
use crate::settle::is_below;
use crate::status_file;

/// A firmware file as it was listed.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) target: Target,
    pub(crate) listed: Listed,
    pub(crate) sidecar: Option<Beside>,
    pub(crate) sum: Option<Beside>,
    pub(crate) signature: Option<Beside>,
    /// It lies on another file system than the root.
    pub(crate) mounted: bool,
}

/// A companion file.
#[derive(Debug, Clone)]
pub(crate) struct Beside {
    pub(crate) path: String,
    pub(crate) listed: Listed,
}

/// The states of a file and of its companions: all that a decision about it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) file: Fingerprint,
    pub(crate) sidecar: Option<Fingerprint>,
    pub(crate) sum: Option<Fingerprint>,
    pub(crate) signature: Option<Fingerprint>,
}

impl State {
    /// Tells the companions' states apart, in one text.
    pub(crate) fn companions(&self) -> String {
        let all = [&self.sidecar, &self.sum, &self.signature];
        let all = all.map(|one| one.as_ref().map_or("", Fingerprint::as_str));
        all.join(" ")
    }
}

impl Item {
    pub(crate) fn state(&self) -> State {
        let of = |beside: &Option<Beside>| beside.as_ref().map(|b| b.listed.fingerprint.clone());
        State {
            file: self.listed.fingerprint.clone(),
            sidecar: of(&self.sidecar),
            sum: of(&self.sum),
            signature: of(&self.signature),
        }
    }

    /// The companion files that there are.
    pub(crate) fn companions(&self) -> impl Iterator<Item = &Beside> {
        [&self.sidecar, &self.sum, &self.signature].into_iter().flatten()
    }
}

/// What is at the origin.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) firmware: BTreeMap<String, Item>,
    /// What has no place there, with the reason.
    pub(crate) refused: BTreeMap<String, String>,
    /// Of these files, and of what is in these folders, nothing can be learnt now.
    pub(crate) unknown: HashSet<String>,
    /// Folders that lie on another file system than the root.
    pub(crate) mounts: HashSet<String>,
    /// Files that a status file speaks of, and that are not there.
    pub(crate) spoken_of: Vec<String>,
}

impl Inventory {
    pub(crate) fn sort(listing: &Listing) -> Self {
        let mut inventory = Self {
            refused: listing.unusable.clone(),
            unknown: listing.unknown.iter().cloned().collect(),
            mounts: listing.mounts.clone(),
            ..Self::default()
        };
        let mut companions = Vec::new();
        for (path, listed) in &listing.files {
            match paths::classify(path) {
                Place::Firmware(target) => {
                    let item = Item {
                        target,
                        listed: listed.clone(),
                        sidecar: None,
                        sum: None,
                        signature: None,
                        mounted: is_below(path, &listing.mounts),
                    };
                    inventory.firmware.insert(path.clone(), item);
                }
                Place::Companion { of, kind } => companions.push((path, listed, of, kind)),
                Place::Refused { path, reason } => {
                    inventory.refused.insert(path, reason);
                }
                Place::Ignored => {
                    let of = path.strip_suffix(status_file::ENDING).map(str::to_owned);
                    let is_there = |of: &String| {
                        listing.files.contains_key(of) || listing.unusable.contains_key(of)
                    };
                    inventory.spoken_of.extend(of.filter(|of| !is_there(of)));
                }
            }
        }
        for (path, listed, of, kind) in companions {
            let Some(item) = inventory.firmware.get_mut(&of) else {
                tracing::debug!(path, "stands beside no firmware file");
                continue;
            };
            let beside = Some(Beside { path: path.clone(), listed: listed.clone() });
            match kind {
                Companion::Sidecar => item.sidecar = beside,
                Companion::Sum => item.sum = beside,
                Companion::Signature => item.signature = beside,
            }
        }
        inventory.heed_companions(listing);
        inventory
    }

    /// A companion that cannot be used may narrow its file, so the file cannot be used either.
    fn heed_companions(&mut self, listing: &Listing) {
        for (path, reason) in &listing.unusable {
            let Place::Companion { of, .. } = paths::classify(path) else { continue };
            if self.firmware.remove(&of).is_none() {
                if self.refused.contains_key(&of) {
                    // It says enough for both.
                    self.refused.remove(path);
                }
                continue;
            }
            if self.unknown.contains(path) {
                self.unknown.insert(of.clone());
            }
            let name = path.rsplit('/').next().unwrap_or(path);
            self.refused.remove(path);
            self.refused.insert(of, format!("{name}: {reason}"));
        }
    }
}
