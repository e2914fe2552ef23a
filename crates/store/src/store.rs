//! [`FirmwareStore`]: the one thing that the rest of the daemon holds of this crate.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::digest::Digest;
use crate::event::{Event, Known};
use crate::image::Image;
use crate::ingest::{self, IngestError, Ingested, Place};
use crate::objects::Objects;
use crate::origin::Origin;
use crate::reader::Reader;
use crate::record::Counts;
use crate::settings::{Settings, StoreError};
use crate::signature::{Signature, Trust, Verdict};
use crate::status_file;
use crate::watch::Watcher;

/// Events that wait for the receiver. A batch is the unit, so few are enough; when they are all
/// taken, the watcher stops looking until the receiver catches up, and nothing is lost by it.
const EVENTS: usize = 16;

/// Firmware bytes: where they are dropped, when they appear, a range of them.
#[derive(Debug)]
pub struct FirmwareStore {
    shared: Arc<Shared>,
}

/// What the store and its watcher share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) tuning: Mutex<Tuning>,
    pub(crate) origin: Origin,
    pub(crate) objects: Arc<Objects>,
    /// Rung by [`FirmwareStore::rescan`].
    pub(crate) asked: Notify,
    /// How often it was rung.
    pub(crate) questions: AtomicU64,
    /// Up to which of those the watcher has looked.
    pub(crate) answered: watch::Sender<u64>,
    /// How many events were told.
    pub(crate) told: AtomicU64,
    pub(crate) reader: Arc<Reader>,
    /// Rung by a reader that found a copy missing or damaged.
    pub(crate) damaged: Arc<Notify>,
    /// Images whose files may be gone without a sign.
    pub(crate) given_up: Mutex<HashSet<Digest>>,
    /// Written by the watcher after each look, copied by whoever asks.
    pub(crate) status: Mutex<Scan>,
}

/// Those of [`Settings`] that can change while the store is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// [`Settings::settle`].
    pub settle: Duration,
    /// [`Settings::poll_interval`].
    pub poll_interval: Duration,
    /// [`Settings::max_size`].
    pub max_size: u64,
    /// [`Settings::trust`].
    pub trust: Arc<Trust>,
}

impl Tuning {
    /// Those of these settings.
    pub fn of(settings: &Settings) -> Self {
        Tuning {
            settle: settings.settle,
            poll_interval: settings.poll_interval,
            max_size: settings.max_size,
            trust: settings.trust.clone(),
        }
    }
}

/// What came of the last look.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) available: Result<(), String>,
    pub(crate) counts: Counts,
    pub(crate) scanned: Option<SystemTime>,
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Where firmware is dropped, as it was configured.
    pub url: String,
    /// Whether that can be read; else one sentence that says what to do.
    pub available: Result<(), String>,
    /// Accepted files.
    pub files: usize,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// Files and folders that are there and not accepted.
    pub refused: usize,
    /// Accepted files that cannot be read now.
    pub troubled: usize,
    /// When the last look ended that succeeded.
    pub scanned: Option<SystemTime>,
    /// Bytes of images in memory; see [`Settings::cache_bytes`].
    pub cached_bytes: usize,
    /// Copies in `data_dir`, needed or not.
    pub copies: usize,
    /// Their sizes together, in bytes; see [`Settings::quota`].
    pub copied_bytes: u64,
}

impl FirmwareStore {
    /// Checks the settings and prepares the place for copies. Does not touch the place where
    /// firmware is dropped: that may come later than the daemon, and is told by
    /// [`FirmwareStore::watch`].
    ///
    /// # Errors
    /// If the settings are wrong or `data_dir` cannot be written to.
    pub fn open(settings: Settings) -> Result<Arc<Self>, StoreError> {
        let origin = Origin::open(&settings)?;
        let objects = Objects::open(&settings.data_dir, settings.quota)
            .map_err(|source| StoreError::DataDir { path: settings.data_dir.clone(), source })?;
        let objects = Arc::new(objects);
        let damaged = Arc::new(Notify::new());
        let reader = Reader::new(objects.clone(), settings.cache_bytes, damaged.clone());
        let status = Scan {
            available: Err("the firmware store was not looked at yet".into()),
            counts: Counts::default(),
            scanned: None,
        };
        let shared = Shared {
            tuning: Mutex::new(Tuning::of(&settings)),
            settings,
            origin,
            objects,
            asked: Notify::new(),
            questions: AtomicU64::new(0),
            answered: watch::Sender::new(0),
            told: AtomicU64::new(0),
            reader: Arc::new(reader),
            damaged,
            given_up: Mutex::default(),
            status: Mutex::new(status),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }

    /// Watches where firmware is dropped, until `cancel` or until the receiver is dropped. Must
    /// be called within a Tokio runtime, and once: a second watcher would do all work twice.
    ///
    /// `known` are the files that earlier runs told: their bytes are taken as unchanged while
    /// their fingerprint is, and one that is gone is told as removed.
    ///
    /// The channel is bounded; while it is full the watcher waits.
    pub fn watch(
        self: &Arc<Self>,
        known: Vec<Known>,
        cancel: CancellationToken,
    ) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(EVENTS);
        let watcher = Watcher::new(self.shared.clone(), known, sender);
        tokio::spawn(watcher.run(cancel));
        receiver
    }

    /// Goes on with this, beginning with a look at everything: what was refused may not be any
    /// more. Returns at once.
    pub fn tune(&self, tuning: Tuning) {
        *self.shared.tuning.lock() = tuning;
        self.rescan();
    }

    /// What it goes by now.
    pub fn tuning(&self) -> Tuning {
        self.shared.tuning.lock().clone()
    }

    /// Looks now instead of after `poll_interval`. Returns at once.
    pub fn rescan(&self) {
        self.shared.questions.fetch_add(1, Ordering::AcqRel);
        self.shared.asked.notify_one();
    }

    /// The same, and waits for the end of that look, and for what it saw that settles within
    /// `settle`, or within half a minute where that is longer. It waits as long as the origin takes,
    /// and for ever where nobody watches. Returns how many events were told up to then: whoever
    /// took as many in knows what the look found.
    pub async fn rescanned(&self) -> u64 {
        self.rescan();
        let question = self.shared.questions.load(Ordering::Acquire);
        let mut answered = self.shared.answered.subscribe();
        // The sender lives as long as the store.
        let _ = answered.wait_for(|answered| *answered >= question).await;
        self.shared.told.load(Ordering::Acquire)
    }

    /// Says which images must be kept beside those that lie where firmware is dropped and those
    /// that are being read: all that may still be asked for. The others go, by and by.
    pub fn need(&self, digests: HashSet<Digest>) {
        self.shared.objects.set_needed(digests);
    }

    /// Says of which images no file is missed any more: one that is not there is gone, however it
    /// looks. Those that were named before are meant no more.
    pub fn give_up(&self, digests: HashSet<Digest>) {
        *self.shared.given_up.lock() = digests;
        self.rescan();
    }

    /// Writes `FILE.status.json` beside a file of the watched directory, or removes it. That it
    /// cannot be written is no error: a folder may well be read-only. In a bucket there is none.
    pub async fn publish_status(&self, path: String, status: Option<Vec<u8>>) {
        let Some(root) = self.shared.origin.directory() else { return };
        let work = move || {
            if let Err(error) = status_file::write(&root, &path, status.as_deref()) {
                tracing::debug!(path, %error, "the status file was not written");
            }
        };
        let _ = tokio::task::spawn_blocking(work).await;
    }

    /// A handle for reading an image whose copy should be there. No I/O happens here.
    pub fn image(&self, digest: Digest, size: u64) -> Image {
        self.shared.reader.image(digest, size)
    }

    /// Takes in an image that comes by another way than the watched place, such as an upload.
    /// Only one part of it is in memory at a time.
    ///
    /// # Errors
    /// If there are no bytes, more than [`Settings::max_size`], the stream fails, the copy cannot
    /// be written, or it is nothing that a device should get. Nothing is left behind then.
    pub async fn ingest_stream(
        &self,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<Ingested, IngestError> {
        let tuning = self.shared.tuning.lock().clone();
        ingest::take_in_stream(&self.shared.place(), &tuning, bytes).await
    }

    /// What the detached signature of an upload is worth.
    ///
    /// # Errors
    /// Why the upload is not accepted, as the end of a sentence that begins with its name.
    pub fn judge_upload(
        &self,
        uploaded: &Ingested,
        signature: Option<&[u8]>,
    ) -> Result<Verdict, String> {
        let trust = self.shared.tuning.lock().trust.clone();
        let signature = signature.map(Signature::parse).transpose()?;
        ingest::judge_upload(&trust, uploaded, signature.as_ref())
    }

    /// The largest image that is taken in, in bytes.
    pub fn max_size(&self) -> u64 {
        self.shared.tuning.lock().max_size
    }

    /// Copies all images to below another `data_dir`, for a backup. Returns how many there are, and
    /// their bytes. Blocks.
    ///
    /// # Errors
    /// What the system said.
    pub fn copy_to(&self, data_dir: &Path) -> io::Result<(usize, u64)> {
        self.shared.objects.copy_to(data_dir)
    }

    /// How the store is now.
    pub fn status(&self) -> Status {
        let (copies, copied_bytes) = self.shared.objects.sum();
        let scan = self.shared.status.lock();
        Status {
            url: self.shared.settings.url.clone(),
            available: scan.available.clone(),
            files: scan.counts.files,
            bytes: scan.counts.bytes,
            refused: scan.counts.refused,
            troubled: scan.counts.troubled,
            scanned: scan.scanned,
            cached_bytes: self.shared.reader.cached_bytes(),
            copies,
            copied_bytes,
        }
    }
}

impl Shared {
    /// Where copies go.
    pub(crate) fn place(&self) -> Place {
        Place { objects: self.objects.clone(), reader: self.reader.clone() }
    }
}

impl Drop for FirmwareStore {
    fn drop(&mut self) {
        self.shared.reader.close();
    }
}
