//! Notifications of the operating system about the watched directory.
//!
//! They are hints: what is there is always found out by looking. They tell when to look, that a
//! file came to its name whole, that its writer is done, and that a file was deleted rather
//! than lost with a mount.
//!
//! | state | guarded by | bounded by |
//! | --- | --- | --- |
//! | [`Heard`] since the last look | a mutex, held by the listener's thread for one event and by the watcher to take it | [`MAX_HEARD`] paths; beyond that it is forgotten and marked as lost |

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::settle::{Activity, Heard};

/// Paths that are remembered between two looks.
const MAX_HEARD: usize = 65_536;

/// Files that are dropped by one command come within milliseconds of each other.
const QUIET: Duration = Duration::from_millis(30);

/// A look is never put off longer than this by further notifications.
const QUIET_AT_MOST: Duration = Duration::from_millis(250);

/// Whether this system tells when a writer closes a file. Elsewhere the last write stands for
/// the closing, so that a binary must rest after it.
const CLOSING_IS_TOLD: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// What was heard, and a bell.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    heard: Mutex<Heard>,
    bell: Notify,
}

impl Hints {
    /// Takes what was heard since the last time.
    pub(crate) fn take(&self) -> Heard {
        std::mem::take(&mut *self.heard.lock())
    }

    /// Waits until something was heard that is worth a look, and a little longer for what
    /// comes with it.
    pub(crate) async fn wait(&self) {
        self.bell.notified().await;
        let latest = Instant::now() + QUIET_AT_MOST;
        while Instant::now() < latest {
            tokio::select! {
                () = self.bell.notified() => {}
                () = sleep(QUIET) => break,
            }
        }
    }

    fn take_in(&self, root: &Path, event: notify::Result<Event>) {
        let mut heard = self.heard.lock();
        let worth_a_look = match event {
            Ok(event) if event.need_rescan() => {
                heard.lost = true;
                true
            }
            Ok(event) => note(&mut heard, root, &event),
            Err(error) => {
                tracing::warn!(%error, "notifications of the watched directory were lost");
                heard.lost = true;
                true
            }
        };
        if heard.touched.len() + heard.gone.len() + heard.fresh.len() > MAX_HEARD {
            *heard = Heard { lost: true, ..Heard::default() };
        }
        drop(heard);
        if worth_a_look {
            self.bell.notify_one();
        }
    }
}

/// Notes one event; says whether it is worth a look.
fn note(heard: &mut Heard, root: &Path, event: &Event) -> bool {
    let mut worth_a_look = false;
    for path in &event.paths {
        let Some(path) = path.strip_prefix(root).ok().and_then(Path::to_str) else {
            worth_a_look = true;
            continue;
        };
        if path.ends_with(crate::status_file::ENDING) || path.ends_with(".status.json.tmp") {
            continue; // our own
        }
        let path = path.to_owned();
        let (activity, look) = match event.kind {
            EventKind::Create(CreateKind::Folder) => {
                heard.gone.remove(&path);
                heard.fresh.insert(path);
                worth_a_look = true;
                continue;
            }
            EventKind::Remove(RemoveKind::Folder | RemoveKind::File | RemoveKind::Any)
            | EventKind::Remove(RemoveKind::Other)
            | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                heard.touched.remove(&path);
                heard.fresh.remove(&path);
                heard.gone.insert(path);
                worth_a_look = true;
                continue;
            }
            // Both names were told one by one before.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => continue,
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                // A folder that was moved here whole; for a file this says nothing.
                heard.fresh.insert(path.clone());
                (Some(Activity::Renamed), true)
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                (Some(Activity::Closed), true)
            }
            EventKind::Modify(ModifyKind::Metadata(_)) => (None, true),
            // Of a link or a FIFO nothing else is ever heard.
            EventKind::Create(_) => (None, true),
            EventKind::Modify(_) if CLOSING_IS_TOLD => (Some(Activity::Writing), false),
            EventKind::Modify(_) => (Some(Activity::Closed), true),
            _ => continue,
        };
        heard.gone.remove(&path);
        let known = heard.touched.entry(path).or_default();
        *known = activity.or(*known);
        worth_a_look |= look;
    }
    worth_a_look
}

/// Listens to the folders that matter, and to no others: not below them, and not through links.
#[derive(Debug)]
pub(crate) struct Listener {
    hints: Arc<Hints>,
    root: PathBuf,
    /// The directory that `watcher` listens to; another one at the same path is another one.
    identity: Option<(u64, u64)>,
    watcher: Option<RecommendedWatcher>,
    folders: HashSet<String>,
    warned: bool,
}

impl Listener {
    pub(crate) fn new(root: PathBuf, hints: Arc<Hints>) -> Self {
        Self { hints, root, identity: None, watcher: None, folders: HashSet::new(), warned: false }
    }

    /// Listens to `folders` (relative to the root, which is the empty path) of the root directory
    /// that `identity` names. Folders in `gone` were replaced since. Says whether a folder was
    /// added, so that a look is due at what happened in it before. Blocks.
    pub(crate) fn follow(
        &mut self,
        identity: Option<(u64, u64)>,
        folders: &[String],
        gone: &HashSet<String>,
    ) -> bool {
        if self.identity != identity || self.watcher.is_none() {
            self.start();
            self.identity = identity;
        }
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let listed: HashSet<&String> = folders.iter().collect();
        let root = &self.root;
        self.folders.retain(|folder| {
            let keep = listed.contains(folder) && !gone.contains(folder);
            if !keep {
                let _ = watcher.unwatch(&root.join(folder));
            }
            keep
        });
        let mut added = false;
        for folder in folders {
            if self.folders.contains(folder) {
                continue;
            }
            match watcher.watch(&root.join(folder), RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.folders.insert(folder.clone());
                    added = true;
                }
                Err(error) if !self.warned => {
                    self.warned = true;
                    tracing::warn!(
                        %error,
                        folder,
                        "no notifications from this folder; it is looked through every \
                         store.poll_interval"
                    );
                }
                Err(_) => {}
            }
        }
        added
    }

    fn start(&mut self) {
        self.folders.clear();
        let hints = self.hints.clone();
        let root = self.root.clone();
        let watcher = notify::recommended_watcher(move |event| hints.take_in(&root, event));
        self.watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(
                        %error,
                        "no notifications from the watched directory; it is looked through \
                         every store.poll_interval"
                    );
                }
                None
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, path: &str) -> notify::Result<Event> {
        Ok(Event::new(kind).add_path(PathBuf::from(path)))
    }

    const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const FROM: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::From));
    const TO: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::To));

    #[test]
    fn the_last_word_counts() {
        let hints = Hints::default();
        let root = Path::new("/r");
        hints.take_in(root, event(TO, "/r/all/a"));
        hints.take_in(root, event(CLOSED, "/r/all/a"));
        hints.take_in(root, event(FROM, "/r/b"));
        hints.take_in(root, event(TO, "/r/b"));
        hints.take_in(root, event(CLOSED, "/r/c"));
        hints.take_in(root, event(FROM, "/r/c"));
        let heard = hints.take();
        assert_eq!(heard.touched["all/a"], Some(Activity::Closed));
        assert_eq!(heard.touched["b"], Some(Activity::Renamed));
        assert!(!heard.touched.contains_key("c"));
        assert_eq!(heard.gone, HashSet::from(["c".to_owned()]));
        assert!(hints.take().touched.is_empty());
    }

    #[test]
    fn what_is_heard_is_bounded() {
        let hints = Hints::default();
        for number in 0..=MAX_HEARD {
            hints.take_in(Path::new("/r"), event(CLOSED, &format!("/r/{number}")));
        }
        let heard = hints.take();
        assert!(heard.lost);
        assert!(heard.touched.len() < MAX_HEARD);
    }
}
