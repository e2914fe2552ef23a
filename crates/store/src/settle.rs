//! When a dropped file counts as complete (rule 7).
//!
//! | last heard of the file | complete |
//! | --- | --- |
//! | renamed into place | at once |
//! | closed after writing | a companion at once, a binary after `settle` without a change |
//! | found at the first look, or in a folder that just appeared | after `settle` without a change, before the look included |
//! | nothing | when two looks at least `poll_interval` apart (and `settle`) see the same |
//! | written to | not before it is closed |
//! | listed in a bucket | after `settle` without a change, at the first look before the look included |
//!
//! An object of a bucket is whole as soon as it is listed. It waits for what belongs beside it,
//! which comes a moment later. Its time is that of another clock, so it counts from the listing that
//! showed it first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::origin::{Fingerprint, Listed};

/// What was last heard of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// It came to its name whole.
    Renamed,
    /// Its writer closed it.
    Closed,
    /// It was there when looking began, and what happens to it since then is heard; or it lies in a
    /// bucket.
    Found,
    /// Nothing; perhaps nothing ever is, as on a network file system.
    Silent,
    /// Somebody writes to it.
    Writing,
    /// Nothing since it was read as it stands.
    Used,
}

/// What notifications told since the last look.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Files that something happened to; without an activity it was no write.
    pub(crate) touched: HashMap<String, Option<Activity>>,
    /// Files and folders that were deleted or renamed away, each of them or with a folder
    /// above.
    pub(crate) gone: HashSet<String>,
    /// Folders that appeared.
    pub(crate) fresh: HashSet<String>,
    /// Some notifications were lost: what was heard before proves nothing.
    pub(crate) lost: bool,
}

impl Heard {
    /// Adds what was heard later.
    pub(crate) fn extend(&mut self, later: Self) {
        for path in &later.gone {
            self.touched.remove(path);
            self.fresh.remove(path);
        }
        for (path, activity) in later.touched {
            self.gone.remove(&path);
            let known = self.touched.entry(path).or_default();
            *known = activity.or(*known);
        }
        self.fresh.extend(later.fresh);
        self.gone.extend(later.gone);
        self.lost |= later.lost;
    }
}

/// The two kinds of files, by what a half of one would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Firmware: nothing in it tells that it is whole.
    Binary,
    /// A small file that is written at once.
    Companion,
}

/// Whether a file may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is whole.
    Complete,
    /// It is whole if it does not change before then.
    At(Instant),
    /// It is being written; a notification will say more.
    Writing,
}

/// What is known of each listed file's rest.
#[derive(Debug)]
pub(crate) struct Ledger {
    stands: HashMap<String, Stand>,
    settle: Duration,
    poll_interval: Duration,
    /// Of what changed while nothing was heard.
    unheard: Activity,
}

#[derive(Debug)]
struct Stand {
    fingerprint: Fingerprint,
    activity: Activity,
    /// When it was last seen or heard to change.
    since: Instant,
    /// How long it had stood unchanged before `since`, by its own dates.
    before: Duration,
}

impl Ledger {
    pub(crate) fn new(settle: Duration, poll_interval: Duration, is_bucket: bool) -> Self {
        let unheard = if is_bucket { Activity::Found } else { Activity::Silent };
        Self { stands: HashMap::new(), settle, poll_interval, unheard }
    }

    /// From now on these times.
    pub(crate) fn tune(&mut self, settle: Duration, poll_interval: Duration) {
        self.settle = settle;
        self.poll_interval = poll_interval;
    }

    /// Takes in a look and what was heard up to its beginning. `initial` is set for the first
    /// look, which trusts the files' own dates.
    pub(crate) fn observe(
        &mut self,
        files: &BTreeMap<String, Listed>,
        heard: &Heard,
        initial: bool,
        now: Instant,
    ) {
        self.stands.retain(|path, _| files.contains_key(path));
        for (path, listed) in files {
            let touch = heard.touched.get(path).copied();
            let Some(stand) = self.stands.get_mut(path) else {
                let found = initial || is_below(path, &heard.fresh);
                let rest = if found { Activity::Found } else { self.unheard };
                let stand = Stand {
                    fingerprint: listed.fingerprint.clone(),
                    activity: touch.flatten().unwrap_or(rest),
                    since: now,
                    before: listed.age.filter(|_| initial).unwrap_or_default(),
                };
                self.stands.insert(path.clone(), stand);
                continue;
            };
            let changed = stand.fingerprint != listed.fingerprint;
            match touch {
                Some(Some(activity)) => stand.activity = activity,
                // New dates or permissions: the bytes are as whole as they were, unless what was
                // heard of them is used up.
                Some(None) if changed && stand.activity == Activity::Used => {
                    stand.activity = self.unheard;
                }
                Some(None) => {}
                None if changed || heard.lost => stand.activity = self.unheard,
                None => {}
            }
            if changed || heard.lost || matches!(touch, Some(Some(_))) {
                stand.since = now;
                stand.before = Duration::ZERO;
                stand.fingerprint = listed.fingerprint.clone();
            }
        }
    }

    /// Whether the file may be read now.
    pub(crate) fn verdict(&self, path: &str, kind: Kind, now: Instant) -> Verdict {
        let Some(stand) = self.stands.get(path) else {
            return Verdict::Writing;
        };
        let rest = match (stand.activity, kind) {
            (Activity::Renamed | Activity::Used, _) | (Activity::Closed, Kind::Companion) => {
                Duration::ZERO
            }
            (Activity::Closed, Kind::Binary) | (Activity::Found, _) => self.settle,
            (Activity::Silent, _) => self.settle.max(self.poll_interval),
            (Activity::Writing, _) => return Verdict::Writing,
        };
        let at = stand.since + rest.saturating_sub(stand.before);
        if at <= now { Verdict::Complete } else { Verdict::At(at) }
    }

    /// Whether the file's writer closed it, so that it may be compared with a digest already.
    pub(crate) fn is_closed(&self, path: &str) -> bool {
        self.stands.get(path).is_some_and(|stand| stand.activity == Activity::Closed)
    }

    /// Whether there are files of which a notification may say more.
    pub(crate) fn is_unheard(&self) -> bool {
        let unheard =
            |stand: &Stand| matches!(stand.activity, Activity::Silent | Activity::Writing);
        self.stands.values().any(unheard)
    }

    /// Notes that the file was read as it stands: what was heard of it is used up and says
    /// nothing about its next change.
    pub(crate) fn used(&mut self, path: &str) {
        if let Some(stand) = self.stands.get_mut(path)
            && stand.activity != Activity::Writing
        {
            stand.activity = Activity::Used;
        }
    }
}

/// Whether a folder of `folders` is above `path`, or is `path`.
pub(crate) fn is_below(path: &str, folders: &HashSet<String>) -> bool {
    !folders.is_empty()
        && (folders.contains(path)
            || path.match_indices('/').any(|(end, _)| folders.contains(&path[..end])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(2);
    const POLL: Duration = Duration::from_secs(30);

    /// A file `a` whose fingerprint is `state`.
    fn files(state: &str, age: Option<Duration>) -> BTreeMap<String, Listed> {
        let listed = Listed { size: 1, fingerprint: Fingerprint::new(state), age, dated: None };
        BTreeMap::from([("x/a".to_owned(), listed)])
    }

    fn heard(activity: impl Into<Option<Activity>>) -> Heard {
        Heard { touched: HashMap::from([("x/a".to_owned(), activity.into())]), ..Heard::default() }
    }

    struct Test {
        ledger: Ledger,
        start: Instant,
    }

    impl Test {
        fn new() -> Self {
            Self::of(false)
        }

        fn of(is_bucket: bool) -> Self {
            Self { ledger: Ledger::new(SETTLE, POLL, is_bucket), start: Instant::now() }
        }

        fn look(&mut self, second: u64, state: &str, heard: &Heard) -> &mut Self {
            let now = self.start + Duration::from_secs(second);
            self.ledger.observe(&files(state, None), heard, false, now);
            self
        }

        /// The second at which the binary is complete, if known.
        fn complete(&self) -> Option<u64> {
            match self.ledger.verdict("x/a", Kind::Binary, self.start) {
                Verdict::Complete => Some(0),
                Verdict::At(at) => Some((at - self.start).as_secs()),
                Verdict::Writing => None,
            }
        }
    }

    #[test]
    fn the_table() {
        for (activity, binary) in
            [(Activity::Renamed, Some(0)), (Activity::Closed, Some(2)), (Activity::Writing, None)]
        {
            let mut test = Test::new();
            assert_eq!(test.look(0, "1", &heard(activity)).complete(), binary, "{activity:?}");
        }
        assert_eq!(Test::new().look(0, "1", &Heard::default()).complete(), Some(30));

        let test = &mut Test::new();
        test.look(0, "1", &heard(Activity::Closed));
        let companion = test.ledger.verdict("x/a", Kind::Companion, test.start);
        assert_eq!(companion, Verdict::Complete);
    }

    #[test]
    fn each_write_and_each_change_starts_over() {
        let mut test = Test::new();
        test.look(0, "1", &heard(Activity::Closed));
        // Closed again without a difference that a listing shows.
        assert_eq!(test.look(1, "1", &heard(Activity::Closed)).complete(), Some(3));
        assert_eq!(test.look(2, "2", &heard(Activity::Writing)).complete(), None);
        assert_eq!(test.look(50, "2", &Heard::default()).complete(), None);
        assert_eq!(test.look(60, "3", &heard(Activity::Closed)).complete(), Some(62));
        // A look without news leaves it.
        assert_eq!(test.look(61, "3", &Heard::default()).complete(), Some(62));
    }

    #[test]
    fn a_rename_says_nothing_of_a_later_change() {
        let mut test = Test::new();
        test.look(0, "1", &heard(Activity::Renamed));
        assert_eq!(test.look(5, "2", &Heard::default()).complete(), Some(35));
        // Other permissions or dates are no other bytes.
        let mut test = Test::new();
        test.look(0, "1", &heard(Activity::Renamed));
        assert_eq!(test.look(0, "2", &heard(None)).complete(), Some(0));
        // Once it was read, neither.
        test.ledger.used("x/a");
        assert_eq!(test.look(5, "3", &heard(None)).complete(), Some(35));
    }

    #[test]
    fn lost_notifications_prove_nothing() {
        let mut test = Test::new();
        test.look(0, "1", &heard(Activity::Writing));
        let lost = Heard { lost: true, ..Heard::default() };
        assert_eq!(test.look(7, "1", &lost).complete(), Some(37));
    }

    #[test]
    fn the_first_look_trusts_dates() {
        let mut test = Test::new();
        let second = Duration::from_secs(1);
        for (age, complete) in [(None, 2), (Some(second), 1), (Some(5 * second), 0)] {
            test.ledger.stands.clear();
            let now = test.start;
            test.ledger.observe(&files("1", age), &Heard::default(), true, now);
            assert_eq!(test.complete(), Some(complete));
        }
    }

    #[test]
    fn an_object_waits_from_the_listing_that_showed_it() {
        let test = &mut Test::of(true);
        assert_eq!(test.look(4, "1", &Heard::default()).complete(), Some(6));
        assert_eq!(test.look(5, "1", &Heard::default()).complete(), Some(6));
        let companion = test.ledger.verdict("x/a", Kind::Companion, test.start);
        assert!(matches!(companion, Verdict::At(_)), "{companion:?}");
        assert_eq!(test.look(6, "2", &Heard::default()).complete(), Some(8));
        test.ledger.used("x/a");
        assert_eq!(test.look(9, "2", &Heard::default()).complete(), Some(6));
        assert_eq!(test.look(10, "3", &Heard::default()).complete(), Some(12));
    }

    #[test]
    fn a_new_folder_is_listened_to_from_its_beginning() {
        let mut test = Test::new();
        let fresh = Heard { fresh: HashSet::from(["x".to_owned()]), ..Heard::default() };
        assert_eq!(test.look(0, "1", &fresh).complete(), Some(2));
    }
}
