//! What was told of each path, and which bytes were seen there.

use std::collections::{BTreeMap, HashMap};

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
    /// Files of which what was told stands, although they cannot be read now.
    troubled: HashMap<String, Trouble>,
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

/// Why a file cannot be read.
#[derive(Debug)]
struct Trouble {
    /// Absent where not even that can be learnt.
    state: Option<State>,
    reason: String,
    /// When it is tried again.
    again: Option<Instant>,
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

/// Whether two reasons say the same: some tell how long they took.
fn is_same(a: &str, b: &str) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    words(a) == words(b)
}

/// Sums over all that was told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) refused: usize,
    pub(crate) troubled: usize,
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
        if let Some(trouble) = self.troubled.get(path) {
            let same = trouble.state.as_ref() == Some(state);
            return match trouble.again.filter(|at| same && *at > now) {
                Some(at) => Task::Again(at),
                None => Task::Read,
            };
        }
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
        found: bool,
    ) -> Option<Change> {
        let state = item.state();
        let mut ingested = ingested;
        ingested.facts.companions = Some(state.companions());
        ingested.facts.mounted = item.mounted;
        let Ingested { digest, size, facts } = ingested.clone();
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
        let recovered = self.troubled.remove(&path).is_some();
        let told = Told::Present {
            state: state.clone(),
            ingested: ingested.clone(),
            verdict: verdict.clone(),
            again: false,
        };
        if let Some(Told::Present { state: before, ingested: copied, verdict: judged, .. }) =
            self.told.insert(path.clone(), told)
            && (before, copied, judged) == (state, ingested, verdict.clone())
            && !recovered
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
            found,
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
        self.troubled.remove(path);
        let before = self.told.insert(path.to_owned(), told);
        if matches!(&before, Some(Told::Refused { reason: told, .. }) if is_same(told, &reason)) {
            return None;
        }
        tracing::warn!(path, reason, "refused");
        Some(Change::Refused { path: path.to_owned(), reason })
    }

    /// Whether what was told of a path still holds, although it cannot be read now: it is listed
    /// as it was then. `required`: nothing is accepted whose signature was not judged.
    pub(crate) fn stands(&self, path: &str, state: &State, required: bool) -> bool {
        match self.told.get(path) {
            Some(Told::Present { state: told, again, .. }) => {
                told == state && !(*again && required)
            }
            Some(Told::Refused { .. }) => false,
            None => self.known.get(path).is_some_and(|known| {
                let facts = known.facts.as_ref();
                let companions = facts.and_then(|facts| facts.companions.as_ref());
                known.fingerprint == state.file
                    && companions == Some(&state.companions())
                    && !required
            }),
        }
    }

    /// Notes that a file cannot be read now, and that what was told of it stands. Nothing is to be
    /// told if the reason is the same as before.
    pub(crate) fn troubled(
        &mut self,
        path: &str,
        state: Option<State>,
        reason: String,
        again: Option<Instant>,
    ) -> Option<Change> {
        let trouble = Trouble { state, reason: reason.clone(), again };
        let before = self.troubled.insert(path.to_owned(), trouble);
        if before.is_some_and(|before| is_same(&before.reason, &reason)) {
            return None;
        }
        tracing::warn!(path, reason, "cannot be read now; what is known of it stands");
        Some(Change::Troubled { path: path.to_owned(), reason })
    }

    /// What was refused is to be tried again as it is: another setting may allow it.
    pub(crate) fn try_refused_again(&mut self, now: Instant) {
        for trouble in self.troubled.values_mut() {
            trouble.again = None;
        }
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

    /// Paths that were told, or known from an earlier run, and are not there any more.
    pub(crate) fn missing(&self, inventory: &Inventory) -> Vec<String> {
        let mut missing: Vec<String> = (self.told.keys().chain(self.known.keys()))
            .filter(|path| {
                !inventory.firmware.contains_key(*path)
                    && !inventory.refused.contains_key(*path)
                    && !is_below(path, &inventory.unknown)
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
        self.troubled.remove(&path);
        self.compared.remove(&path);
        tracing::info!(path, "firmware file is gone");
        Change::Removed { path }
    }

    /// The paths of accepted files, told in this run or not yet.
    pub(crate) fn accepted(&self) -> Vec<&String> {
        self.known.keys().filter(|path| self.is_accepted(path)).collect()
    }

    /// Which image the file at this path is, or was.
    pub(crate) fn digest(&self, path: &str) -> Option<Digest> {
        Some(self.known.get(path)?.digest)
    }

    /// Whether the file at this path lay on another file system than the root.
    pub(crate) fn was_mounted(&self, path: &str) -> bool {
        let facts = self.known.get(path).and_then(|known| known.facts.as_ref());
        facts.is_some_and(|facts| facts.mounted)
    }

    /// Whether the file at this path is accepted; one of an earlier run is until it is told.
    pub(crate) fn is_accepted(&self, path: &str) -> bool {
        self.known.contains_key(path) && !matches!(self.told.get(path), Some(Told::Refused { .. }))
    }

    /// The copies that should be there.
    pub(crate) fn copies(&self) -> Vec<(Digest, u64)> {
        self.known.values().map(|known| (known.digest, known.size)).collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        let refused = |told: &&Told| matches!(told, Told::Refused { .. });
        let mut counts = Counts {
            refused: self.told.values().filter(refused).count(),
            troubled: self.troubled.len(),
            ..Counts::default()
        };
        for known in self.known.values().filter(|known| self.is_accepted(&known.path)) {
            counts.files += 1;
            counts.bytes += known.size;
        }
        counts
    }
}
