//! The watcher: looks at the origin, tells what settled, takes it in.
//!
//! It looks when a notification says so, when a file that was seen to change may have settled,
//! every `poll_interval`, and when asked. Every look is a whole listing, so that nothing depends
//! on a notification having come. One task owns all the state here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::digest::Digest;
use crate::event::{Batch, Change, Event, Known};
use crate::found::Found;
use crate::ingest::{self, Ingested, Outcome};
use crate::inventory::{Inventory, Item, State};
use crate::listen::{Hints, Listener};
use crate::origin::Listing;
use crate::record::{Record, Task};
use crate::settle::{Heard, Kind, Ledger, Verdict, is_below};
use crate::status_file;
use crate::store::{Shared, Tuning};

/// Files that are copied at the same time. The disk or the line is the limit, not the number.
const COPIES: usize = 2;

/// How long notifications of deletions may lag behind the deletions.
const LAG: Duration = Duration::from_millis(200);

/// After so many readings that were not what was listed a file is refused: somebody writes to it
/// all the time, or the server says one thing and gives another.
const UNSTEADY: u32 = 4;

/// From a copy that was found damaged to the look that makes it anew.
const DAMAGE_PAUSE: Duration = Duration::from_millis(300);

/// How long the answer to a question waits for what settles, where that takes longer.
const ANSWER: Duration = Duration::from_secs(30);

/// New folders may hold folders; none of the contract lies deeper than this.
const DEPTH: usize = 3;

/// Of a file whose file system is not there.
const UNMOUNTED: &str = "the file system that it lies on is not mounted: mount it; if the file is \
                         gone for good, withdraw it";

/// The receiver is gone, and with it the reason to watch.
struct Closed;

/// The state of the watcher between two looks.
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    hints: Arc<Hints>,
    /// Of a directory only.
    listener: Option<Arc<Mutex<Listener>>>,
    tuning: Tuning,
    ledger: Ledger,
    record: Record,
    found: Found,
    /// Deletions that were notified since the last look that accounted for all files.
    gone: HashSet<String>,
    /// What was heard since the last look that could list the origin.
    heard: Heard,
    root: Option<(u64, u64)>,
    /// When the first look succeeded.
    began: Option<Instant>,
    unavailable: bool,
    /// Since when something complete waits for what settles soon after it.
    due_since: Option<Instant>,
    /// Files that were not what was listed when they were read, and how often in that state.
    unsteady: HashMap<String, (State, u32)>,
    /// When the next of what the last look saw is complete, or is tried again.
    settles: Option<Instant>,
    /// The question that is to be answered next, and until when what settles is waited for.
    question: Option<(u64, Instant)>,
    /// Notifications that were late for that question were waited for.
    listened: bool,
}

/// A file that may be read.
struct Due {
    path: String,
    item: Item,
    /// These bytes were copied before.
    copy: Option<Ingested>,
    /// It has not settled; only a matching `FILE.sha256` lets it in.
    early: bool,
}

impl Watcher {
    pub(crate) fn new(shared: Arc<Shared>, known: Vec<Known>, events: mpsc::Sender<Event>) -> Self {
        let hints = Arc::new(Hints::default());
        let listener = shared
            .origin
            .directory()
            .map(|root| Arc::new(Mutex::new(Listener::new(root, hints.clone()))));
        let tuning = shared.tuning.lock().clone();
        Self {
            ledger: Ledger::new(tuning.settle, tuning.poll_interval, listener.is_none()),
            tuning,
            record: Record::new(known),
            found: Found::default(),
            shared,
            events,
            hints,
            listener,
            gone: HashSet::new(),
            heard: Heard::default(),
            root: None,
            began: None,
            unavailable: false,
            due_since: None,
            unsteady: HashMap::new(),
            settles: None,
            question: None,
            listened: false,
        }
    }

    /// Watches until `cancel` or until nobody listens.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let hints = self.hints.clone();
        let shared = self.shared.clone();
        let work = async {
            while let Ok(next) = self.look().await {
                tokio::select! {
                    () = hints.wait() => {}
                    () = shared.asked.notified() => {}
                    () = damage(&shared) => {}
                    () = sleep_until(next) => {}
                }
            }
        };
        cancel.run_until_cancelled(work).await;
    }

    /// Looks once and tells what is new. Returns when to look again at the latest.
    async fn look(&mut self) -> Result<Instant, Closed> {
        let question = self.shared.questions.load(Ordering::Acquire);
        self.settles = None;
        let next = self.look_once().await?;
        if self.question.is_none() && question > *self.shared.answered.borrow() {
            // What the look saw for the first time settles before that.
            let until = Instant::now() + self.tuning.settle.min(ANSWER);
            self.question = Some((question, until));
        }
        // While something complete waits for what comes with it, the look is not over.
        if self.due_since.is_some() {
            return Ok(next);
        }
        self.sweep().await;
        let settles = self.settles;
        let over = self.question.take_if(|(_, until)| settles.is_none_or(|at| at > *until));
        let Some((question, until)) = over else { return Ok(next) };
        if self.listener.is_some() && !self.listened && self.ledger.is_unheard() {
            // Perhaps it was closed just before the question. Then the notification is on its way.
            sleep(LAG).await;
            self.listened = true;
            self.question = Some((question, until + LAG));
            return Ok(Instant::now());
        }
        self.listened = false;
        self.shared.answered.send_replace(question);
        // Another one may have come meanwhile.
        let more = self.shared.questions.load(Ordering::Acquire) > question;
        Ok(if more { Instant::now() } else { next })
    }

    /// Removes copies that nothing needs any more.
    async fn sweep(&self) {
        self.shared.objects.set_dropped(self.record.copies().iter().map(|(it, _)| *it).collect());
        let (place, keep) = (self.shared.place(), self.shared.settings.keep_unused);
        let _ = tokio::task::spawn_blocking(move || place.sweep(keep)).await;
    }

    async fn look_once(&mut self) -> Result<Instant, Closed> {
        self.take_tuning();
        let poll = Instant::now() + self.tuning.poll_interval;
        let listing = match self.list().await {
            Ok(listing) => listing,
            Err(reason) => {
                self.tell_unavailable(reason).await?;
                return Ok(poll);
            }
        };
        let inventory = Inventory::sort(&listing);
        if let Some(reason) = self.looks_unmounted(&inventory) {
            self.tell_unavailable(reason).await?;
            return Ok(poll);
        }
        let now = Instant::now();
        let heard = std::mem::take(&mut self.heard);
        self.ledger.observe(&listing.files, &heard, self.began.is_none(), now);
        self.began.get_or_insert(now);
        self.found.look(&inventory, listing.root);
        self.tell_available().await?;

        let (due, settling) = self.sort_out(&inventory, now).await;
        self.settles = settling.iter().copied().min();
        let missing = self.record.missing(&inventory).into_iter();
        let (away, missing): (Vec<_>, Vec<_>) =
            missing.partition(|path| self.is_unmounted(path, &inventory));
        if let Some(until) = self.wait_for_more(!due.is_empty(), !missing.is_empty(), now)
            && let Some(next) = settling.iter().copied().filter(|at| *at <= until).min()
        {
            return Ok(next.min(poll));
        }
        self.due_since = None;
        self.gone.clear();
        let mut changes: Vec<Change> =
            missing.into_iter().map(|path| self.record.removed(path)).collect();
        for path in &away {
            if self.record.is_accepted(path) {
                changes.extend(self.record.troubled(path, None, UNMOUNTED.into(), None));
            }
        }
        for (path, reason) in &inventory.refused {
            let reason = reason.clone();
            // What cannot be looked at now stays what it was.
            let stands = inventory.unknown.contains(path) && self.record.is_accepted(path);
            changes.extend(match stands {
                true => self.record.troubled(path, None, reason, None),
                false => self.record.refused(path, None, reason, None),
            });
        }
        let (taken, again) = self.take_in(due).await;
        changes.extend(taken);
        self.note_status();
        if !self.record.complete {
            self.tidy(inventory.spoken_of).await;
        }
        if !self.record.complete || !changes.is_empty() {
            self.record.complete = true;
            let caught_up = self.found.is_told();
            self.send(Event::Batch(Batch { changes, caught_up })).await?;
        }
        Ok(settling.into_iter().chain(again).min().unwrap_or(poll).min(poll))
    }

    /// What was configured since the last look counts from this one on.
    fn take_tuning(&mut self) {
        let tuning = self.shared.tuning.lock().clone();
        if tuning.trust != self.tuning.trust {
            self.record.judge_again(Instant::now());
        }
        if tuning.max_size != self.tuning.max_size {
            self.record.try_refused_again(Instant::now());
        }
        self.ledger.tune(tuning.settle, tuning.poll_interval);
        self.tuning = tuning;
    }

    /// Lists the origin, and listens to the folders that are there. What was heard is taken
    /// before the listing: what happens during it is heard at the next look.
    async fn list(&mut self) -> Result<Listing, String> {
        self.hear();
        let mut listing = self.shared.origin.list().await?;
        let Some(listener) = self.listener.clone() else {
            return Ok(listing);
        };
        if self.root != listing.root {
            // Another directory at the same path: deletions in the old one say nothing of it.
            self.root = listing.root;
            self.gone.clear();
        }
        for _ in 0..DEPTH {
            let (listener, root) = (listener.clone(), listing.root);
            let (folders, gone) = (listing.folders.clone(), self.gone.clone());
            let follow = move || listener.lock().follow(root, &folders, &gone);
            if !tokio::task::spawn_blocking(follow).await.unwrap_or(false) {
                break;
            }
            listing = self.shared.origin.list().await?;
        }
        let accepted = !self.record.accepted().is_empty();
        if accepted && Inventory::sort(&listing).firmware.is_empty() {
            // Perhaps all was just deleted. Then the notifications are on their way.
            sleep(LAG).await;
            self.hear();
        }
        Ok(listing)
    }

    /// Takes what was heard. It stays until a listing could be compared with it.
    fn hear(&mut self) {
        let heard = self.hints.take();
        if heard.lost {
            self.gone.clear();
        }
        for path in heard.touched.keys().chain(&heard.fresh) {
            self.gone.remove(path);
        }
        self.gone.extend(heard.gone.iter().cloned());
        self.heard.extend(heard);
    }

    /// No firmware where firmware was is a missing mount, unless each deletion was notified.
    fn looks_unmounted(&self, inventory: &Inventory) -> Option<String> {
        if !inventory.firmware.is_empty() {
            return None;
        }
        let given_up = self.shared.given_up.lock();
        let mut vanished = self.record.accepted();
        vanished.retain(|path| self.record.digest(path).is_none_or(|it| !given_up.contains(&it)));
        let unexplained = vanished
            .iter()
            .filter(|path| !inventory.refused.contains_key(**path) && !is_below(path, &self.gone));
        (unexplained.count() > 0).then(|| {
            format!(
                "{} is empty where {} firmware files were: mount what belongs there; if they \
                 were deleted on purpose, drop any other firmware file or withdraw them",
                self.shared.settings.url,
                vanished.len()
            )
        })
    }

    /// A file that is gone together with the file system that it lay on is not deleted, unless
    /// that was notified before.
    fn is_unmounted(&self, path: &str, inventory: &Inventory) -> bool {
        let digest = self.record.digest(path);
        self.record.was_mounted(path)
            && !is_below(path, &inventory.mounts)
            && !is_below(path, &self.gone)
            && !digest.is_some_and(|digest| self.shared.given_up.lock().contains(&digest))
    }

    /// Which files may be read now, and when others may.
    async fn sort_out(&self, inventory: &Inventory, now: Instant) -> (Vec<Due>, Vec<Instant>) {
        let lost = self.lost_copies().await;
        let mut due = Vec::new();
        let mut settling = Vec::new();
        for (path, item) in &inventory.firmware {
            let known = self.record.known(path, &item.listed.fingerprint);
            let copy = known.clone().filter(|known| !lost.contains(&known.digest));
            let task = self.record.task(path, &item.state(), copy.is_some(), now);
            match task {
                Task::Nothing => continue,
                Task::Again(at) => {
                    settling.push(at);
                    continue;
                }
                Task::Read | Task::ReadWhenSettled => {}
            }
            // What is beside it as it was then is whole, and so are the same bytes as before.
            let companions = match self.record.stands(path, &item.state(), false) {
                true => Verdict::Complete,
                false => item
                    .companions()
                    .map(|beside| self.ledger.verdict(&beside.path, Kind::Companion, now))
                    .fold(Verdict::Complete, later),
            };
            let file = match known {
                Some(_) => Verdict::Complete,
                None => self.ledger.verdict(path, Kind::Binary, now),
            };
            let early = file != Verdict::Complete
                && companions == Verdict::Complete
                && item.sum.is_some()
                && task == Task::Read
                && self.ledger.is_closed(path);
            match later(file, companions) {
                Verdict::At(at) if !early => settling.push(at),
                Verdict::Writing if !early => {}
                _ => due.push(Due { path: path.clone(), item: item.clone(), copy, early }),
            }
        }
        (due, settling)
    }

    /// The digests of files whose copy is not there, or not any more.
    async fn lost_copies(&self) -> HashSet<Digest> {
        let copies = self.record.copies();
        let objects = self.shared.objects.clone();
        let check = move || {
            let lost = copies.into_iter().filter(|(digest, size)| !objects.has(*digest, *size));
            lost.map(|(digest, _)| digest).collect()
        };
        tokio::task::spawn_blocking(check).await.unwrap_or_default()
    }

    /// Until when to wait for files that settle soon, so that what was dropped together is told
    /// together. The first batch waits for everything that stands still. A path that is gone may
    /// have been moved, so it waits for its new place to settle.
    fn wait_for_more(&mut self, due: bool, missing: bool, now: Instant) -> Option<Instant> {
        let settle = self.tuning.settle;
        if !self.record.complete {
            return self.began.map(|began| began + settle);
        }
        if !due && !missing {
            return None;
        }
        let group = (settle / 4).clamp(Duration::from_millis(10), Duration::from_millis(500));
        let patience = *self.due_since.get_or_insert(now) + settle;
        Some(if missing { patience } else { patience.min(now + group) })
    }

    /// Removes the status files of files that went while nobody watched.
    async fn tidy(&self, spoken_of: Vec<String>) {
        let Some(root) = self.shared.origin.directory() else { return };
        let work = move || {
            for path in spoken_of {
                if let Err(error) = status_file::remove_left(&root, &path) {
                    tracing::debug!(path, %error, "its status file stays");
                }
            }
        };
        let _ = tokio::task::spawn_blocking(work).await;
    }

    /// Copies what is due. Returns what to tell, and when to try again what did not work.
    async fn take_in(&mut self, due: Vec<Due>) -> (Vec<Change>, Vec<Instant>) {
        let (shared, tuning) = (self.shared.clone(), self.tuning.clone());
        let outcomes: Vec<(Due, Outcome)> = stream::iter(due)
            .map(|due| async {
                let (origin, place, tuning) = (&shared.origin, shared.place(), &tuning);
                let copy = due.copy.as_ref();
                let outcome =
                    ingest::take_in(origin, &place, tuning, &due.path, &due.item, copy).await;
                (due, outcome)
            })
            .buffered(COPIES)
            .collect()
            .await;
        let mut changes = Vec::new();
        let mut again = Vec::new();
        for (due, outcome) in outcomes {
            let state = due.item.state();
            let outcome = self.count_unsteady(&due.path, &state, outcome);
            match outcome {
                Outcome::Stored { ingested, sidecar, verdict } => {
                    self.ledger.used(&due.path);
                    for beside in due.item.companions() {
                        self.ledger.used(&beside.path);
                    }
                    let Due { path, item, .. } = due;
                    let found = self.found.told(&path, &item.listed.fingerprint);
                    changes
                        .extend(self.record.stored(path, item, ingested, sidecar, verdict, found));
                }
                Outcome::Changed => {
                    // If no notification comes of it, the next settled look is soon enough.
                    let settle = self.tuning.settle;
                    again.push(Instant::now() + settle.max(Duration::from_millis(100)));
                }
                Outcome::Mismatch(_) if due.early => {
                    self.record.compared(due.path, state);
                    again.push(Instant::now());
                }
                Outcome::Mismatch(digest) => {
                    let name = due.path.rsplit('/').next().unwrap_or(&due.path);
                    self.found.refused(&due.path, &state.file, false);
                    let reason = format!(
                        "its SHA-256 is {digest}, which is not what {name}.sha256 says: copy \
                         the file again, or correct or remove {name}.sha256"
                    );
                    changes.extend(self.record.refused(&due.path, Some(state), reason, None));
                }
                Outcome::Refused { reason, retry } => {
                    self.found.refused(&due.path, &state.file, retry);
                    let at = retry.then(|| Instant::now() + self.tuning.poll_interval);
                    let required = self.tuning.trust.is_required();
                    let stands = retry && self.record.stands(&due.path, &state, required);
                    let (path, state) = (&due.path, Some(state));
                    changes.extend(match stands {
                        true => self.record.troubled(path, state, reason, at),
                        false => self.record.refused(path, state, reason, at),
                    });
                }
            }
        }
        (changes, again)
    }

    /// What is never what was listed gets a status in the end.
    fn count_unsteady(&mut self, path: &str, state: &State, outcome: Outcome) -> Outcome {
        if !matches!(outcome, Outcome::Changed) {
            self.unsteady.remove(path);
            return outcome;
        }
        let (known, times) =
            self.unsteady.entry(path.to_owned()).or_insert_with(|| (state.clone(), 0));
        if known != state {
            (*known, *times) = (state.clone(), 0);
        }
        *times += 1;
        if *times < UNSTEADY {
            return Outcome::Changed;
        }
        self.unsteady.remove(path);
        let reason = "what is read of it is not what was listed, again and again: the listing and \
                      the file differ in size, ETag or date; copy it there again, or look at the \
                      server";
        Outcome::Refused { reason: reason.into(), retry: true }
    }

    async fn tell_unavailable(&mut self, reason: String) -> Result<(), Closed> {
        self.shared.status.lock().available = Err(reason.clone());
        if std::mem::replace(&mut self.unavailable, true) {
            return Ok(());
        }
        tracing::error!(reason, "firmware store unavailable");
        self.send(Event::Unavailable { reason }).await
    }

    async fn tell_available(&mut self) -> Result<(), Closed> {
        self.shared.status.lock().available = Ok(());
        if !std::mem::replace(&mut self.unavailable, false) {
            return Ok(());
        }
        tracing::info!("firmware store available again");
        self.send(Event::Available).await
    }

    fn note_status(&self) {
        let mut status = self.shared.status.lock();
        status.counts = self.record.counts();
        status.scanned = Some(std::time::SystemTime::now());
    }

    async fn send(&self, event: Event) -> Result<(), Closed> {
        self.events.send(event).await.map_err(|_| Closed)?;
        self.shared.told.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// Waits for a reader that found a copy missing or damaged. Not more often than now and then: if
/// the file is gone where it was dropped, each further read finds the same.
async fn damage(shared: &Shared) {
    shared.damaged.notified().await;
    sleep(DAMAGE_PAUSE).await;
}

/// Of two verdicts, the one that comes later.
fn later(a: Verdict, b: Verdict) -> Verdict {
    match (a, b) {
        (Verdict::Writing, _) | (_, Verdict::Writing) => Verdict::Writing,
        (Verdict::At(a), Verdict::At(b)) => Verdict::At(a.max(b)),
        (Verdict::At(at), Verdict::Complete) | (Verdict::Complete, Verdict::At(at)) => {
            Verdict::At(at)
        }
        (Verdict::Complete, Verdict::Complete) => Verdict::Complete,
    }
}
