//! What the tests of the store share: a watched directory, and its events.
#![allow(dead_code, reason = "each test uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use store::{Change, Digest, Dropped, Event, FirmwareStore, Known, Settings};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store that watches, and what it needs.
pub struct Site {
    pub store: Arc<FirmwareStore>,
    pub events: mpsc::Receiver<Event>,
    pub settings: Settings,
    /// The watched directory.
    pub root: PathBuf,
    cancel: CancellationToken,
    dir: tempfile::TempDir,
}

/// Settings for a directory `firmware` and a `data_dir` in `dir`. Rescans come rarely, so that
/// what a test sees quickly it owes to notifications.
pub fn settings(dir: &Path) -> Settings {
    Settings {
        url: "file:firmware".into(),
        base_dir: dir.to_owned(),
        data_dir: dir.join("data"),
        settle: Duration::from_millis(200),
        poll_interval: Duration::from_secs(3600),
        ..Settings::default()
    }
}

impl Site {
    /// Watches an empty directory; the first batch is taken already.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with other settings.
    pub async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut site = Self::prepare(change, |root| std::fs::create_dir(root).unwrap(), vec![]);
        assert_eq!(site.batch().await, []);
        site
    }

    /// Watches what `fill` puts in place; nothing is taken yet.
    pub fn prepare(
        change: impl FnOnce(&mut Settings),
        fill: impl FnOnce(&Path),
        known: Vec<Known>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("firmware");
        fill(&root);
        let mut settings = settings(dir.path());
        change(&mut settings);
        Self::open(dir, root, settings, known)
    }

    fn open(dir: tempfile::TempDir, root: PathBuf, settings: Settings, known: Vec<Known>) -> Self {
        let store = FirmwareStore::open(settings.clone()).unwrap();
        let cancel = CancellationToken::new();
        let events = store.watch(known, cancel.clone());
        Self { store, events, settings, root, cancel, dir }
    }

    /// Stops, lets `meanwhile` happen, and starts again with what was known.
    pub async fn restart(self, known: Vec<Known>, meanwhile: impl FnOnce(&Path)) -> Self {
        let Self { dir, root, settings, cancel, mut events, .. } = self;
        cancel.cancel();
        while events.recv().await.is_some() {}
        meanwhile(&root);
        Self::open(dir, root, settings, known)
    }

    pub async fn event(&mut self) -> Event {
        let event = timeout(PATIENCE, self.events.recv()).await;
        event.expect("an event in time").expect("a running watcher")
    }

    pub async fn batch(&mut self) -> Vec<Change> {
        match self.event().await {
            Event::Batch(batch) => batch.changes,
            event => panic!("{event:?} instead of a batch"),
        }
    }

    /// The one change of the next batch.
    pub async fn change(&mut self) -> Change {
        let mut changes = self.batch().await;
        assert_eq!(changes.len(), 1, "{changes:?}");
        changes.remove(0)
    }

    /// The one file that is told next.
    pub async fn present(&mut self) -> Dropped {
        match self.change().await {
            Change::Present(dropped) => dropped,
            change => panic!("{change:?} instead of a file"),
        }
    }

    /// The path and reason of the one refusal that is told next.
    pub async fn refused(&mut self) -> (String, String) {
        match self.change().await {
            Change::Refused { path, reason } => (path, reason),
            change => panic!("{change:?} instead of a refusal"),
        }
    }

    pub async fn unavailable(&mut self) -> String {
        match self.event().await {
            Event::Unavailable { reason } => reason,
            event => panic!("{event:?} instead of unavailability"),
        }
    }

    /// Shows that nothing was told up to now: what is dropped now is told next.
    pub async fn silence(&mut self, marker: &str) {
        self.rename_in(marker, marker.as_bytes());
        assert_eq!(self.present().await.path, marker);
    }

    /// Writes beside the watched directory and renames into place.
    pub fn rename_in(&self, path: &str, bytes: &[u8]) {
        let staged = self.dir.path().join("staged");
        std::fs::write(&staged, bytes).unwrap();
        std::fs::rename(staged, self.path(path)).unwrap();
    }

    /// Writes in place, as `cp` does.
    pub fn write(&self, path: &str, bytes: &[u8]) {
        std::fs::write(self.path(path), bytes).unwrap();
    }

    pub fn path(&self, path: &str) -> PathBuf {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Where the copy is.
    pub fn copy_of(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.settings.data_dir.join("objects/sha256").join(&name[..2]).join(name)
    }

    /// The directory that holds everything of this test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// What is to be kept for the next start.
pub fn known(dropped: &Dropped) -> Known {
    Known {
        path: dropped.path.clone(),
        fingerprint: dropped.fingerprint.clone(),
        digest: dropped.digest,
        size: dropped.size,
        facts: Some(dropped.facts.clone()),
    }
}

/// The paths and digests of the files in a batch.
pub fn files(changes: &[Change]) -> Vec<(&str, Digest)> {
    changes
        .iter()
        .map(|change| match change {
            Change::Present(dropped) => (dropped.path.as_str(), dropped.digest),
            change => panic!("{change:?} instead of a file"),
        })
        .collect()
}
