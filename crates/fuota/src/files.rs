//! The file rows, and what a batch of the store does to them (rules 6 and 10).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use store::{Change, Digest, Dropped, Fingerprint, Known, Verdict};

use crate::{
    catalog::{facts_text, sidecar_text, signature_text},
    db::{FileRow, Op},
    engine::Engine,
    fleet::target::Target,
    transfer::unix_now,
};

/// The file rows, as the database holds them, and what is wrong at which path.
pub struct Files {
    pub rows: Vec<FileRow>,
    /// By path. Not stored: the store says it again at each start.
    pub troubles: BTreeMap<String, Trouble>,
    next_id: i64,
    next_seq: i64,
}

/// What is wrong with what lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is not accepted. A row of that path is of what was accepted there before: it keeps its
    /// deployments, and they offer nothing until those bytes are there again.
    Refused(String),
    /// It cannot be read now; its row stands.
    Unreadable(String),
}

/// Of each path, where the row of its file is; uploads are in it too.
type Present = HashMap<String, usize>;

/// What came of a batch.
#[derive(Default)]
pub struct Applied {
    /// What is to be written.
    pub ops: Vec<Op>,
    pub added: Vec<FileRow>,
    pub removed: Vec<FileRow>,
    /// Those of the added that were there when the store began to look.
    pub found: HashSet<i64>,
}

impl Files {
    /// `last_seq`: the last place in the order of creations and removals that is not a file's.
    pub fn new(rows: Vec<FileRow>, last_seq: i64) -> Files {
        let next_id = rows.iter().map(|row| row.id + 1).max().unwrap_or(1);
        let last = |row: &FileRow| row.removed_seq.unwrap_or(0).max(row.created_seq);
        let next_seq = rows.iter().map(|row| last(row) + 1).max().unwrap_or(1).max(last_seq + 1);
        Files { rows, troubles: BTreeMap::new(), next_id, next_seq }
    }

    /// What the store need not hash again.
    pub fn known(&self) -> Vec<Known> {
        let present = self.rows.iter().filter(|row| row.removed_seq.is_none() && !row.uploaded);
        present
            .map(|row| Known {
                path: row.path.clone(),
                fingerprint: Fingerprint::new(row.fingerprint.clone()),
                digest: row.digest,
                size: row.size,
                facts: row.facts.as_deref().and_then(|facts| serde_json::from_str(facts).ok()),
            })
            .collect()
    }

    /// What was withdrawn, and is not missed where it is gone.
    pub fn withdrawn(&self) -> HashSet<Digest> {
        let rows = self.rows.iter().filter(|row| row.withdrawn.is_some());
        rows.map(|row| row.digest).collect()
    }

    /// Takes in what settled together. What it does not name stays as it was.
    pub fn apply(&mut self, batch: Vec<Change>) -> Applied {
        let mut applied = Applied::default();
        let rows = self.rows.iter().enumerate().filter(|(_, row)| row.removed_seq.is_none());
        let mut present: Present = rows.map(|(at, row)| (row.path.clone(), at)).collect();
        for change in batch {
            match change {
                Change::Present(dropped) => {
                    self.troubles.remove(&dropped.path);
                    self.present(dropped, &mut present, &mut applied);
                }
                Change::Removed { path } => {
                    self.troubles.remove(&path);
                    self.remove(&path, &mut present, &mut applied);
                }
                Change::Refused { path, reason } => {
                    self.troubles.insert(path, Trouble::Refused(reason));
                }
                Change::Troubled { path, reason } => {
                    self.troubles.insert(path, Trouble::Unreadable(reason));
                }
            }
        }
        applied
    }

    /// The next place in the order of creations and removals.
    pub fn take_seq(&mut self) -> i64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    /// Adds a file; its id and its place in the order are given here.
    pub fn add(&mut self, row: FileRow, applied: &mut Applied) -> FileRow {
        let row = FileRow { id: self.next_id, created_seq: self.take_seq(), ..row };
        self.next_id += 1;
        let detail = format!("{} {}", row.target, row.digest);
        applied.ops.push(Op::File(row.clone()));
        applied.ops.push(Engine::audit(&row.path, "file added", Some(detail)));
        applied.added.push(row.clone());
        self.rows.push(row.clone());
        row
    }

    fn present(&mut self, dropped: Dropped, present: &mut Present, applied: &mut Applied) {
        let sidecar = sidecar_text(dropped.sidecar.as_ref());
        let facts = Some(facts_text(&dropped.facts));
        let signature = Some(signature_text(&dropped.signature));
        let fingerprint = dropped.fingerprint.as_str().to_owned();
        let known = present.insert(dropped.path.clone(), self.rows.len());
        if let Some(at) = known
            && let Some(row) = self.rows.get_mut(at)
        {
            if row.digest == dropped.digest {
                // The same bytes seen again; the sidecar or the signature may be new.
                let before = row.signature.as_deref().map(serde_json::from_str::<Verdict>);
                let signature = match before {
                    Some(Ok(before)) => Some(signature_text(&before.then(dropped.signature))),
                    _ => signature,
                };
                let before = (&row.sidecar, &row.fingerprint, &row.facts, &row.signature);
                if before != (&sidecar, &fingerprint, &facts, &signature) {
                    row.sidecar = sidecar;
                    row.fingerprint = fingerprint;
                    row.facts = facts;
                    row.signature = signature;
                    applied.ops.push(Op::File(row.clone()));
                }
                present.insert(dropped.path, at);
                return;
            }
            // The removal and the creation share their place in the order: nothing is between.
            row.removed_seq = Some(self.next_seq);
            applied.ops.push(Op::File(row.clone()));
            applied.removed.push(row.clone());
        }
        let row = FileRow {
            id: 0,
            path: dropped.path,
            fingerprint,
            digest: dropped.digest,
            size: dropped.size,
            target: Target::from(&dropped.target).to_string(),
            sidecar,
            name_title: dropped.from_name.title,
            name_version: dropped.from_name.version,
            created_seq: 0,
            created_at: unix_now(),
            removed_seq: None,
            uploaded: false,
            withdrawn: None,
            facts,
            signature,
        };
        let row = self.add(row, applied);
        if dropped.found {
            applied.found.insert(row.id);
        }
    }

    fn remove(&mut self, path: &str, present: &mut Present, applied: &mut Applied) {
        if let Some(row) = present.remove(path).and_then(|at| self.rows.get_mut(at)) {
            row.removed_seq = Some(self.next_seq);
            self.next_seq += 1;
            applied.ops.push(Op::File(row.clone()));
            applied.ops.push(Engine::audit(path, "file removed", None));
            applied.removed.push(row.clone());
        }
    }

    /// Drops removed rows that nothing needs: no deployment and no device's way back names
    /// them, no present one was written over them, and they are not remembered as withdrawn.
    pub fn forget(&mut self, needed: &HashSet<i64>, ops: &mut Vec<Op>) {
        let live = self.rows.iter().filter(|row| row.removed_seq.is_none());
        let replaced: BTreeSet<_> = live.map(|row| (row.path.clone(), row.created_seq)).collect();
        self.rows.retain(|row| {
            let Some(removed) = row.removed_seq else { return true };
            let keep = needed.contains(&row.id)
                || replaced.contains(&(row.path.clone(), removed))
                || row.withdrawn.is_some();
            if !keep {
                ops.push(Op::FileGone(row.id));
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{NameParts, Target};

    /// Applies a batch, forgetting what is not needed by these rows.
    fn apply(files: &mut Files, batch: Vec<Change>, needed: &[i64]) -> Vec<Op> {
        let mut ops = files.apply(batch).ops;
        files.forget(&needed.iter().copied().collect(), &mut ops);
        ops
    }

    fn present(path: &str, bytes: &str) -> Change {
        Change::Present(Dropped {
            path: path.into(),
            target: Target::All,
            digest: Digest::of(bytes.as_bytes()),
            size: bytes.len() as u64,
            fingerprint: Fingerprint::new(bytes),
            facts: store::Facts::default(),
            signature: store::Verdict::Unsigned,
            sidecar: None,
            from_name: NameParts::default(),
            found: false,
        })
    }

    fn paths(files: &Files) -> Vec<(&str, bool)> {
        files.rows.iter().map(|row| (&*row.path, row.removed_seq.is_none())).collect()
    }

    #[test]
    fn rule_6_the_same_bytes_at_the_same_path_do_nothing() {
        let mut files = Files::new(Vec::new(), 0);
        assert_eq!(apply(&mut files, vec![present("a", "1")], &[]).len(), 2);
        assert!(apply(&mut files, vec![present("a", "1")], &[]).is_empty());
        let later = apply(&mut files, Vec::new(), &[]);
        assert!(later.is_empty(), "a later batch is no whole listing");
        assert_eq!(paths(&files), [("a", true)]);
    }

    #[test]
    fn rule_8_a_signature_that_is_trusted_no_more_widens_nothing() {
        let signed = |signature: &Verdict| {
            let Change::Present(dropped) = present("a", "1") else { unreachable!() };
            vec![Change::Present(Dropped { signature: signature.clone(), ..dropped })]
        };
        let (key, line) = (String::from("K"), String::from("l"));
        let model = Some("px".to_owned());
        let comment = store::Comment { model: model.clone(), ..Default::default() };
        let trusted = Verdict::Trusted { key: key.clone(), comment, line: line.clone() };
        let silent = Verdict::Unknown { key: key.clone(), line: line.clone(), model: None };
        let narrows = |line| Verdict::Unknown { key: key.clone(), line, model: model.clone() };
        let mut files = Files::new(Vec::new(), 0);
        for (now, expected) in [
            (Verdict::Unsigned, Verdict::Unsigned),
            (trusted.clone(), trusted.clone()),
            (Verdict::Unsigned, narrows(String::new())),
            (Verdict::Unsigned, narrows(String::new())),
            (silent, narrows(line)),
            (trusted.clone(), trusted),
        ] {
            apply(&mut files, signed(&now), &[]);
            let row: Verdict =
                serde_json::from_str(files.rows[0].signature.as_deref().unwrap()).unwrap();
            assert_eq!((row, files.rows.len()), (expected, 1), "{now:?}");
        }
    }

    #[test]
    fn rule_6_what_the_first_scan_does_not_name_is_not_gone() {
        let mut files = Files::new(Vec::new(), 0);
        drop(apply(&mut files, vec![present("a", "1"), present("b", "2")], &[]));
        let mut files = Files::new(files.rows, 0);
        assert!(apply(&mut files, vec![present("a", "1")], &[2]).is_empty());
        assert_eq!(paths(&files), [("a", true), ("b", true)]);
        drop(apply(&mut files, vec![Change::Removed { path: "b".into() }], &[2]));
        assert_eq!(files.known().len(), 1);
        assert_eq!(paths(&files), [("a", true), ("b", false)], "its deployment is remembered");
        drop(apply(&mut files, Vec::new(), &[]));
        assert_eq!(paths(&files), [("a", true)]);
    }

    #[test]
    fn rule_10_overwriting_replaces() {
        let mut files = Files::new(Vec::new(), 0);
        drop(apply(&mut files, vec![present("a", "1")], &[]));
        drop(apply(&mut files, vec![present("a", "2")], &[]));
        assert_eq!(files.rows[0].removed_seq, Some(files.rows[1].created_seq));
        for number in 0..100 {
            drop(apply(&mut files, vec![present("a", &number.to_string())], &[]));
        }
        assert_eq!(files.rows.len(), 2, "what nothing needs is forgotten");
    }

    fn refused(path: &str) -> Change {
        Change::Refused { path: path.into(), reason: "no".into() }
    }

    #[test]
    fn what_is_refused_is_remembered_until_it_is_gone() {
        let mut files = Files::new(Vec::new(), 0);
        drop(files.apply(vec![present("a", "1")]));
        assert!(files.apply(vec![refused("a")]).ops.is_empty());
        assert_eq!(files.troubles["a"], Trouble::Refused("no".into()));
        assert!(files.apply(vec![present("a", "1")]).added.is_empty(), "the same is the same");
        assert!(files.troubles.is_empty());
        drop(files.apply(vec![refused("a")]));
        assert_eq!(files.apply(vec![Change::Removed { path: "a".into() }]).removed.len(), 1);
        assert!(files.troubles.is_empty() && files.known().is_empty());
    }

    #[test]
    fn rule_10_what_was_refused_in_between_was_overwritten_all_the_same() {
        let mut files = Files::new(Vec::new(), 0);
        drop(files.apply(vec![present("a", "1")]));
        drop(files.apply(vec![refused("a")]));
        let applied = files.apply(vec![present("a", "2")]);
        assert_eq!((applied.added.len(), applied.removed.len()), (1, 1));
        assert_eq!(files.rows[0].removed_seq, Some(files.rows[1].created_seq));
    }

    #[test]
    fn a_batch_may_name_a_path_more_than_once() {
        let mut files = Files::new(Vec::new(), 0);
        let gone = || Change::Removed { path: "a".into() };
        let batch = vec![present("a", "1"), present("a", "1"), present("a", "2"), gone(), gone()];
        let applied = files.apply(batch);
        assert_eq!((applied.added.len(), applied.removed.len()), (2, 2));
        assert!(files.known().is_empty());
        drop(files.apply(vec![present("a", "3"), present("b", "3")]));
        assert_eq!(files.known().len(), 2);
    }
}
