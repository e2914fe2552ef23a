//! What was told of each path, and which bytes were seen there.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio::time::Instant;

use crate::digest::Digest;
use crate::event::{Change, Dropped, Known};
use crate::ingest::Ingested;
use crate::inventory::{Inventory, Item, State};
use crate::names::NameParts;
use crate::origin::Fingerprint;
use crate::settle::is_below;
use crate::sidecar::Sidecar;
use crate::signature::Verdict;

/// The watcher's memory. Bounded by what is at the origin.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Which bytes were seen at which path, told or not.
    known: HashMap<String, Known>,
    told: BTreeMap<String, Told>,
    /// Files that were not what their `FILE.sha256` says before they settled.
    compared: HashMap<String, State>,
    /// Whether the first batch was told; before it, what is known counts as told.
    pub(crate) complete: bool,
}

/// What was told of a path.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every one is the large one")]
enum Told {
    Present {
        state: State,
        ingested: Ingested,
        verdict: Verdict,
        /// Its signature is to be judged once more.
        again: bool,
    },
    /// `state` is absent where there is no file to speak of. With `again` it is tried then.
    Refused { state: Option<State>, reason: String, again: Option<Instant> },
}

/// What there is to do about a file in the state that it is in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Nothing: it was told.
    Nothing,
    /// Nothing before that time, when it is tried again as it is.
    Again(Instant),
    /// To read it, once it is complete.
    Read,
    /// The same, but it was compared with its `FILE.sha256` already, in vain.
    ReadWhenSettled,
}

/// Sums over all that was told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) refused: usize,
}

impl Record {
    /// Begins with what earlier runs told.
    pub(crate) fn new(known: Vec<Known>) -> Self {
        Self {
            known: known.into_iter().map(|known| (known.path.clone(), known)).collect(),
            ..Self::default()
        }
    }

    /// Which bytes these are, if they were seen before at that path.
    pub(crate) fn known(&self, path: &str, fingerprint: &Fingerprint) -> Option<Ingested> {
        let known = self.known.get(path)?;
        let facts = known.facts.clone().filter(|_| known.fingerprint == *fingerprint)?;
        Some(Ingested { digest: known.digest, size: known.size, facts })
    }

    /// What there is to do about a file; `has_copy` says whether its bytes are at hand.
    pub(crate) fn task(&self, path: &str, state: &State, has_copy: bool, now: Instant) -> Task {
        match self.told.get(path) {
            Some(Told::Present { state: told, again: false, .. }) if told == state && has_copy => {
                Task::Nothing
            }
            Some(Told::Refused { state: Some(told), again, .. }) if told == state => match again {
                None => Task::Nothing,
                Some(at) if *at > now => Task::Again(*at),
                Some(_) => Task::Read,
            },
            _ if self.compared.get(path) == Some(state) => Task::ReadWhenSettled,
            _ => Task::Read,
        }
    }

    /// Notes a file whose copy is there. Nothing is to be told if only the copy was made anew.
    pub(crate) fn stored(
        &mut self,
        path: String,
        item: Item,
        ingested: Ingested,
        sidecar: Option<Sidecar>,
        verdict: Verdict,
    ) -> Option<Change> {
        let Ingested { digest, size, facts } = ingested.clone();
        let state = item.state();
        let fingerprint = item.listed.fingerprint;
        let known = Known {
            path: path.clone(),
            fingerprint: fingerprint.clone(),
            digest,
            size,
            facts: Some(facts.clone()),
        };
        self.known.insert(path.clone(), known);
        self.compared.remove(&path);
        let told = Told::Present {
            state: state.clone(),
            ingested: ingested.clone(),
            verdict: verdict.clone(),
            again: false,
        };
        if let Some(Told::Present { state: before, ingested: copied, verdict: judged, .. }) =
            self.told.insert(path.clone(), told)
            && (before, copied, judged) == (state, ingested, verdict.clone())
        {
            return None;
        }
        tracing::info!(path, %digest, size, "firmware file is complete and copied");
        let name = path.rsplit('/').next().unwrap_or(&path);
        Some(Change::Present(Dropped {
            from_name: NameParts::parse(name),
            target: item.target,
            path,
            digest,
            size,
            fingerprint,
            facts,
            signature: verdict,
            sidecar,
        }))
    }

    /// Notes a refusal. Nothing is to be told if its reason is the same as before.
    pub(crate) fn refused(
        &mut self,
        path: &str,
        state: Option<State>,
        reason: String,
        again: Option<Instant>,
    ) -> Option<Change> {
        let told = Told::Refused { state, reason: reason.clone(), again };
        let before = self.told.insert(path.to_owned(), told);
        if matches!(&before, Some(Told::Refused { reason: told, .. }) if *told == reason) {
            return None;
        }
        tracing::warn!(path, reason, "refused");
        Some(Change::Refused { path: path.to_owned(), reason })
    }

    /// What was refused is to be tried again as it is: another setting may allow it.
    pub(crate) fn try_refused_again(&mut self, now: Instant) {
        for told in self.told.values_mut() {
            if let Told::Refused { again, .. } = told {
                *again = Some(now);
            }
        }
    }

    /// Other keys are trusted: every signature is judged once more, and what was refused is tried
    /// again.
    pub(crate) fn judge_again(&mut self, now: Instant) {
        self.try_refused_again(now);
        for told in self.told.values_mut() {
            if let Told::Present { again, .. } = told {
                *again = true;
            }
        }
    }

    /// Notes that a file is not what its `FILE.sha256` says, before it settled. What was told
    /// of the path stays: whoever overwrites a file is still writing.
    pub(crate) fn compared(&mut self, path: String, state: State) {
        self.compared.insert(path, state);
    }

    /// Paths that were told, or known from an earlier run, and are not there any more. What is
    /// in the folders `unknown` may be there.
    pub(crate) fn missing(&self, inventory: &Inventory, unknown: &HashSet<String>) -> Vec<String> {
        let known = self.known.keys().filter(|_| !self.complete);
        let mut missing: Vec<String> = (self.told.keys().chain(known))
            .filter(|path| {
                !inventory.firmware.contains_key(*path)
                    && !inventory.refused.contains_key(*path)
                    && !is_below(path, unknown)
            })
            .cloned()
            .collect();
        missing.sort();
        missing.dedup();
        missing
    }

    /// Notes that a path is gone.
    pub(crate) fn removed(&mut self, path: String) -> Change {
        self.known.remove(&path);
        self.told.remove(&path);
        self.compared.remove(&path);
        tracing::info!(path, "firmware file is gone");
        Change::Removed { path }
    }

    /// The paths of accepted files; before the first batch those of earlier runs.
    pub(crate) fn accepted(&self) -> Vec<&String> {
        if !self.complete {
            return self.known.keys().collect();
        }
        let accepted = self
            .told
            .iter()
            .filter_map(|(path, told)| matches!(told, Told::Present { .. }).then_some(path));
        accepted.collect()
    }

    /// The copies that should be there.
    pub(crate) fn copies(&self) -> Vec<(Digest, u64)> {
        self.known.values().map(|known| (known.digest, known.size)).collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for told in self.told.values() {
            match told {
                Told::Present { ingested, .. } => {
                    counts.files += 1;
                    counts.bytes += ingested.size;
                }
                Told::Refused { .. } => counts.refused += 1,
            }
        }
        counts
    }
}
