//! The watcher: looks at the origin, tells what settled, takes it in.
//!
//! It looks when a notification says so, when a file that was seen to change may have settled,
//! every `poll_interval`, and when asked. Every look is a whole listing, so that nothing depends
//! on a notification having come. One task owns all the state here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::digest::Digest;
use crate::event::{Change, Dropped, Event, Known};
use crate::ingest::{self, Ingested, Outcome};
use crate::inventory::{Inventory, Item, State};
use crate::listen::{Hints, Listener};
use crate::names::NameParts;
use crate::origin::Listing;
use crate::settle::{Heard, Kind, Ledger, Verdict, is_below};
use crate::store::Shared;

/// Files that are copied at the same time. The disk or the line is the limit, not the number.
const COPIES: usize = 2;

/// How long notifications of deletions may lag behind the deletions.
const LAG: Duration = Duration::from_millis(200);

/// New folders may hold folders; none of the contract lies deeper than this.
const DEPTH: usize = 3;

/// The receiver is gone, and with it the reason to watch.
struct Closed;

/// The state of the watcher between two looks.
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    hints: Arc<Hints>,
    /// Of a directory only.
    listener: Option<Arc<Mutex<Listener>>>,
    ledger: Ledger,
    /// Which bytes were seen at which path, told or not.
    known: HashMap<String, Known>,
    /// What was told, by path.
    told: BTreeMap<String, Told>,
    /// Deletions that were notified since the last look that accounted for all files.
    gone: HashSet<String>,
    root: Option<(u64, u64)>,
    /// When the first look succeeded.
    began: Option<Instant>,
    first_batch_told: bool,
    unavailable: bool,
    /// Since when something complete waits for what settles soon after it.
    due_since: Option<Instant>,
}

/// What was told of a path.
#[derive(Debug)]
enum Told {
    Present {
        state: State,
        digest: Digest,
        size: u64,
    },
    /// `state` is absent where there is no file to speak of. With `again` it is tried then.
    Refused {
        state: Option<State>,
        reason: String,
        again: Option<Instant>,
    },
    /// Not told: it is not what `FILE.sha256` says, perhaps because it is not whole yet.
    Mismatched {
        state: State,
    },
}

/// A file that may be read.
struct Due {
    path: String,
    item: Item,
    known: Option<Ingested>,
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
        let settings = &shared.settings;
        Self {
            ledger: Ledger::new(settings.settle, settings.poll_interval),
            known: known.into_iter().map(|known| (known.path.clone(), known)).collect(),
            shared,
            events,
            hints,
            listener,
            told: BTreeMap::new(),
            gone: HashSet::new(),
            root: None,
            began: None,
            first_batch_told: false,
            unavailable: false,
            due_since: None,
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
                    () = shared.damaged.notified() => {}
                    () = sleep_until(next) => {}
                }
            }
        };
        cancel.run_until_cancelled(work).await;
    }

    /// Looks once and tells what is new. Returns when to look again at the latest.
    async fn look(&mut self) -> Result<Instant, Closed> {
        let poll = Instant::now() + self.shared.settings.poll_interval;
        let (listing, heard) = match self.list().await {
            Ok(listed) => listed,
            Err(reason) => {
                self.tell_unavailable(reason).await?;
                return Ok(poll);
            }
        };
        let now = Instant::now();
        let initial = self.began.is_none();
        let inventory = Inventory::sort(&listing);
        if let Some(reason) = self.looks_unmounted(&inventory) {
            self.tell_unavailable(reason).await?;
            return Ok(poll);
        }
        self.ledger.observe(&listing.files, &heard, initial, now);
        self.began.get_or_insert(now);
        self.tell_available().await?;

        let (due, settling) = self.sort_out(&inventory, now).await;
        if let Some(later) = self.wait_for_more(&due, &settling, now) {
            return Ok(later.min(poll));
        }
        self.due_since = None;
        let mut changes = self.missing(&inventory, &listing);
        changes.extend(self.misplaced(&inventory));
        let (taken, again) = self.take_in(due).await;
        changes.extend(taken);
        self.gone.clear();
        if !self.first_batch_told || !changes.is_empty() {
            self.first_batch_told = true;
            self.send(Event::Batch(changes)).await?;
        }
        self.note_status();
        Ok(settling.into_iter().chain(again).min().unwrap_or(poll).min(poll))
    }

    /// Lists the origin, and listens to the folders that are there. What was heard is taken
    /// before the listing: what happens during it is heard at the next look.
    async fn list(&mut self) -> Result<(Listing, Heard), String> {
        let mut heard = self.hear();
        let mut listing = self.shared.origin.list().await?;
        let Some(listener) = self.listener.clone() else {
            return Ok((listing, heard));
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
        if !self.told.is_empty() && Inventory::sort(&listing).firmware.is_empty() {
            // Perhaps all was just deleted. Then the notifications are on their way.
            sleep(LAG).await;
            let more = self.hear();
            heard.touched.extend(more.touched);
            heard.fresh.extend(more.fresh);
            heard.lost |= more.lost;
        }
        Ok((listing, heard))
    }

    fn hear(&mut self) -> Heard {
        let heard = self.hints.take();
        if heard.lost {
            self.gone.clear();
        }
        for path in heard.touched.keys().chain(&heard.fresh) {
            self.gone.remove(path);
        }
        self.gone.extend(heard.gone.iter().cloned());
        heard
    }

    /// No firmware where firmware was is a missing mount, unless each deletion was notified.
    fn looks_unmounted(&self, inventory: &Inventory) -> Option<String> {
        if !inventory.firmware.is_empty() {
            return None;
        }
        let told = self
            .told
            .iter()
            .filter_map(|(path, told)| matches!(told, Told::Present { .. }).then_some(path));
        let vanished: Vec<&String> =
            if self.first_batch_told { told.collect() } else { self.known.keys().collect() };
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

    /// Which files may be read now, and when others may.
    async fn sort_out(&self, inventory: &Inventory, now: Instant) -> (Vec<Due>, Vec<Instant>) {
        let lost = self.lost_copies(inventory).await;
        let mut due = Vec::new();
        let mut settling = Vec::new();
        for (path, item) in &inventory.firmware {
            let known = self.known.get(path).filter(|known| {
                known.fingerprint == item.listed.fingerprint && known.size == item.listed.size
            });
            let state = item.state();
            let has_copy = known.is_some_and(|known| !lost.contains(&known.digest));
            let mut early_tried = false;
            match self.told.get(path) {
                Some(Told::Present { state: told, .. }) if *told == state && has_copy => continue,
                Some(Told::Refused { state: Some(told), again, .. }) if *told == state => {
                    match again {
                        None => continue,
                        Some(at) if *at > now => {
                            settling.push(*at);
                            continue;
                        }
                        Some(_) => {}
                    }
                }
                Some(Told::Mismatched { state: told }) => early_tried = *told == state,
                _ => {}
            }
            let companions = [&item.sidecar, &item.sum]
                .into_iter()
                .flatten()
                .map(|beside| self.verdict(&beside.path, Kind::Companion, now));
            let companions = companions.fold(Verdict::Complete, later);
            let file = match known {
                // The same bytes as before are whole.
                Some(_) => Verdict::Complete,
                None => self.verdict(path, Kind::Binary, now),
            };
            let early = file != Verdict::Complete
                && companions == Verdict::Complete
                && item.sum.is_some()
                && !early_tried
                && self.ledger.is_closed(path);
            match later(file, companions) {
                Verdict::At(at) if !early => settling.push(at),
                Verdict::Writing if !early => {}
                _ => due.push(Due {
                    path: path.clone(),
                    item: item.clone(),
                    known: known
                        .filter(|_| has_copy)
                        .map(|known| Ingested { digest: known.digest, size: known.size }),
                    early,
                }),
            }
        }
        (due, settling)
    }

    /// Objects of a bucket appear whole; files settle.
    fn verdict(&self, path: &str, kind: Kind, now: Instant) -> Verdict {
        match self.listener {
            Some(_) => self.ledger.verdict(path, kind, now),
            None => Verdict::Complete,
        }
    }

    /// The digests of listed files whose copy is not there, or not any more.
    async fn lost_copies(&self, inventory: &Inventory) -> HashSet<Digest> {
        let wanted: Vec<(Digest, u64)> = inventory
            .firmware
            .keys()
            .filter_map(|path| self.known.get(path))
            .map(|known| (known.digest, known.size))
            .collect();
        let objects = self.shared.objects.clone();
        let check = move || {
            let lost = wanted.into_iter().filter(|(digest, size)| !objects.has(*digest, *size));
            lost.map(|(digest, _)| digest).collect()
        };
        tokio::task::spawn_blocking(check).await.unwrap_or_default()
    }

    /// Until when to wait with what is complete, so that what was dropped together is told
    /// together. The first batch waits for everything that stands still.
    fn wait_for_more(
        &mut self,
        due: &[Due],
        settling: &[Instant],
        now: Instant,
    ) -> Option<Instant> {
        let settle = self.shared.settings.settle;
        let until = if self.first_batch_told {
            if due.is_empty() {
                return None;
            }
            let group = (settle / 4).clamp(Duration::from_millis(10), Duration::from_millis(500));
            let patience = *self.due_since.get_or_insert(now) + settle;
            (now + group).min(patience)
        } else {
            self.began? + settle
        };
        settling.iter().copied().filter(|at| *at <= until && *at > now).min()
    }

    /// Paths that were told, or known from an earlier run, and are not there any more.
    fn missing(&mut self, inventory: &Inventory, listing: &Listing) -> Vec<Change> {
        let unknown: HashSet<String> = listing.unknown.iter().cloned().collect();
        let is_missing = |path: &String| {
            !inventory.firmware.contains_key(path)
                && !inventory.refused.contains_key(path)
                && !is_below(path, &unknown)
        };
        let mut missing: Vec<String> =
            self.told.keys().filter(|path| is_missing(path)).cloned().collect();
        if !self.first_batch_told {
            missing.extend(self.known.keys().filter(|path| is_missing(path)).cloned());
        }
        missing.sort();
        missing.dedup();
        let mut changes = Vec::new();
        for path in missing {
            self.known.remove(&path);
            if !matches!(self.told.remove(&path), Some(Told::Mismatched { .. })) {
                changes.push(Change::Removed { path });
            }
        }
        changes
    }

    /// What has no place there, as far as it is new.
    fn misplaced(&mut self, inventory: &Inventory) -> Vec<Change> {
        let mut changes = Vec::new();
        for (path, reason) in &inventory.refused {
            changes.extend(self.refuse(path, None, reason.clone(), None));
        }
        changes
    }

    /// Notes a refusal; tells it if its reason is new.
    fn refuse(
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

    /// Copies what is due. Returns what to tell, and when to try again what did not work.
    async fn take_in(&mut self, due: Vec<Due>) -> (Vec<Change>, Vec<Instant>) {
        let shared = self.shared.clone();
        let max_size = shared.settings.max_size;
        let outcomes: Vec<(Due, Outcome)> = stream::iter(due)
            .map(|due| async {
                let (origin, objects) = (&shared.origin, &shared.objects);
                let outcome =
                    ingest::take_in(origin, objects, max_size, &due.path, &due.item, due.known);
                let outcome = outcome.await;
                (due, outcome)
            })
            .buffered(COPIES)
            .collect()
            .await;
        let mut changes = Vec::new();
        let mut again = Vec::new();
        for (due, outcome) in outcomes {
            let state = due.item.state();
            match outcome {
                Outcome::Stored { ingested, sidecar } => {
                    changes.extend(self.stored(due, state, ingested, sidecar));
                }
                Outcome::Changed => {
                    // If no notification comes of it, the next settled look is soon enough.
                    let settle = self.shared.settings.settle;
                    again.push(Instant::now() + settle.max(Duration::from_millis(100)));
                }
                Outcome::Mismatch(_) if due.early => {
                    self.told.entry(due.path).or_insert(Told::Mismatched { state });
                    again.push(Instant::now());
                }
                Outcome::Mismatch(digest) => {
                    let name = due.path.rsplit('/').next().unwrap_or(&due.path);
                    let reason = format!(
                        "its SHA-256 is {digest}, which is not what {name}.sha256 says: copy \
                         the file again, or correct or remove {name}.sha256"
                    );
                    changes.extend(self.refuse(&due.path, Some(state), reason, None));
                }
                Outcome::Refused { reason, retry } => {
                    let at = retry.then(|| Instant::now() + self.shared.settings.poll_interval);
                    changes.extend(self.refuse(&due.path, Some(state), reason, at));
                }
            }
        }
        (changes, again)
    }

    /// Notes a file whose copy is there; tells it unless only the copy was made anew.
    fn stored(
        &mut self,
        due: Due,
        state: State,
        ingested: Ingested,
        sidecar: Option<crate::sidecar::Sidecar>,
    ) -> Option<Change> {
        let Ingested { digest, size } = ingested;
        let Due { path, item, .. } = due;
        self.ledger.used(&path);
        for beside in [&item.sidecar, &item.sum].into_iter().flatten() {
            self.ledger.used(&beside.path);
        }
        let known = Known {
            path: path.clone(),
            fingerprint: item.listed.fingerprint.clone(),
            digest,
            size,
        };
        self.known.insert(path.clone(), known);
        let told = Told::Present { state: state.clone(), digest, size };
        if let Some(Told::Present { state: before, digest: digest_before, .. }) =
            self.told.insert(path.clone(), told)
            && before == state
            && digest_before == digest
        {
            return None;
        }
        let name = path.rsplit('/').next().unwrap_or(&path);
        tracing::info!(path, %digest, size, "firmware file is complete and copied");
        Some(Change::Present(Dropped {
            from_name: NameParts::parse(name),
            target: item.target,
            fingerprint: item.listed.fingerprint,
            path,
            digest,
            size,
            sidecar,
        }))
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
        let refused = self.told.values().filter(|told| matches!(told, Told::Refused { .. }));
        status.refused = refused.count();
        let present = self.told.values().filter_map(|told| match told {
            Told::Present { size, .. } => Some(*size),
            _ => None,
        });
        (status.files, status.bytes) =
            present.fold((0, 0), |(files, bytes), size| (files + 1, bytes + size));
        status.scanned = Some(std::time::SystemTime::now());
    }

    async fn send(&self, event: Event) -> Result<(), Closed> {
        self.events.send(event).await.map_err(|_| Closed)
    }
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
