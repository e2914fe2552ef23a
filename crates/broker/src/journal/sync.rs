//! Syncing the log beside its writer.

use parking_lot::Mutex;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Sync, storage::LogFile};

/// How often the log is synced with [`Sync::Os`].
pub(super) const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The log that is written now, and how much of it is where, in bytes.
pub(super) struct Tail {
    pub file: Arc<dyn LogFile>,
    /// Handed to the system.
    pub written: AtomicU64,
    /// Durable.
    pub synced: AtomicU64,
}

impl Tail {
    /// A file that is durable as it is.
    pub fn new(file: Arc<dyn LogFile>, len: u64) -> Arc<Self> {
        Arc::new(Tail { file, written: len.into(), synced: len.into() })
    }

    /// Makes durable what was written before.
    pub fn sync(&self) -> io::Result<()> {
        let written = self.written.load(Ordering::Acquire);
        self.file.sync()?;
        self.synced.fetch_max(written, Ordering::AcqRel);
        Ok(())
    }
}

/// Syncs the log once a second beside the writer, which goes on meanwhile.
pub(super) struct Syncer {
    /// Something was appended since the last sync.
    pub dirty: Arc<AtomicBool>,
    /// A sync has failed since somebody looked.
    pub failed: Arc<AtomicBool>,
    file: Arc<Mutex<Arc<Tail>>>,
    stop: Option<std::sync::mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub fn start(sync: Sync, file: Arc<Tail>) -> io::Result<Self> {
        let mut syncer = Syncer {
            dirty: Arc::default(),
            failed: Arc::default(),
            file: Arc::new(Mutex::new(file)),
            stop: None,
            thread: None,
        };
        if sync != Sync::Os {
            return Ok(syncer);
        }
        let (dirty, failed) = (syncer.dirty.clone(), syncer.failed.clone());
        let file = syncer.file.clone();
        let (stop, stopped) = std::sync::mpsc::sync_channel(0);
        let run = move || {
            let pause = || stopped.recv_timeout(SYNC_EVERY);
            while pause() == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                if dirty.swap(false, Ordering::AcqRel) {
                    let began = Instant::now();
                    let file = file.lock().clone();
                    if let Err(error) = file.sync() {
                        tracing::error!(%error, "the broker's log could not be synced");
                        failed.store(true, Ordering::Release);
                    }
                    if began.elapsed() > SYNC_EVERY {
                        tracing::warn!(took = ?began.elapsed(), "the disk is slow to sync");
                    }
                }
            }
        };
        syncer.thread = Some(std::thread::Builder::new().name("broker-sync".into()).spawn(run)?);
        syncer.stop = Some(stop);
        Ok(syncer)
    }

    /// From now on another file is written.
    pub fn go_on_with(&self, file: Arc<Tail>) {
        *self.file.lock() = file;
    }

    /// From now on nothing is synced here.
    pub fn stop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It only syncs: a panic there is logged by the process.
            drop(thread.join());
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.stop();
    }
}
