//! The broker's own durable log: what was promised to clients survives `kill -9`.
//!
//! Retained messages, sessions with their subscriptions, QoS 1 and 2 messages that wait for them,
//! their wills, and the packet ids of QoS 2 in both directions. Before a client hears of it, one record of
//! it is in the log. One thread writes: whatever has come while it wrote goes with its next write
//! (and, with [`Sync::Always`], its next sync), so that many publishers share the price.
//!
//! | file | subject |
//! | --- | --- |
//! | this one | how the rest of the broker writes |
//! | `record`, `form`, `fields` | what can happen, and its bytes |
//! | `image` | the state that records build |
//! | `file` | the form of the files |
//! | `storage` | where files are |
//! | `writer` | the thread |
//! | `snapshot` | the whole state in a file |
//! | `sync` | syncing beside the writer |
//! | `recover` | from files to a state, at the start |
//! | `restore` | from a state to sessions |
//!
//! **When the log cannot be written** (the disk is full), publishes that need it are refused with
//! 0x97, and so is what a session that lasts would be promised: that it begins, that it is gone, a
//! subscription or its end. What was promised goes on: a session that is there is resumed, with
//! its will, and what it gets and acknowledges is kept in memory and written when it can be; only a
//! QoS 2 exchange waits, since going on could deliver twice.

#[cfg(test)]
mod ended_tests;
mod fields;
mod file;
mod form;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod image;
#[cfg(test)]
mod power_tests;
mod record;
mod recover;
mod restore;
mod snapshot;
mod storage;
mod sync;
#[cfg(test)]
mod tests;
mod writer;

use parking_lot::{Condvar, Mutex};
use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::sync::oneshot;

pub(crate) use image::Image;
pub(crate) use record::{Owner, Published, Record, Retained as RetainedRecord, Target};
pub use recover::JournalError;
pub(crate) use restore::restore;
pub use storage::{Directory, LogFile, Storage};

use writer::Writer;

/// Where the log lies, and when it is synced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persistence {
    /// A directory of the broker's own.
    pub directory: PathBuf,
    /// When.
    pub sync: Sync,
}

/// When what was written is made durable against a power cut. Against the end of the process,
/// however it ends, it is durable as soon as it is written, which is before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sync {
    /// Once a second.
    #[default]
    Os,
    /// Before the acknowledgement.
    Always,
    /// When a file is complete, and when the broker stops.
    Never,
}

/// The log cannot be written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unwritable;

/// What becomes of a record that somebody waits for, when it cannot be written.
#[derive(Debug)]
enum Waiting {
    /// It is dropped, and the one who waits is told.
    Refuse(oneshot::Sender<bool>),
    /// It is kept, and the one who waits goes on.
    Defer(oneshot::Sender<bool>),
    /// It is kept until the one who waits, who hears of it, has taken it back.
    Report(oneshot::Sender<bool>),
    /// It is kept, and the one who waits goes on waiting.
    Wait(oneshot::Sender<bool>),
}

struct Entry {
    /// `None` where somebody only waits for what came before.
    record: Option<Record>,
    waiting: Option<Waiting>,
}

impl Entry {
    /// What it takes, in bytes.
    fn cost(&self) -> usize {
        size_of::<Self>() + self.record.as_ref().map_or(0, Record::cost)
    }
}

/// What has come since the writer looked last. It is bounded: a connection that waits for
/// [`MOST_WAITING`] answers is not read on, and while more than [`MOST_BYTES`] wait in all, none is
/// that has something among them (see [`Journal::is_behind`]). So beyond that there is a packet of
/// each connection at most, and what ended ones left (see [`crate::left`]).
#[derive(Default)]
struct Queue {
    entries: Vec<Entry>,
    copies: Vec<oneshot::Sender<Image>>,
    stop: bool,
    /// The writer is gone, and nothing is written any more.
    ended: bool,
}

/// Publishes of one connection that wait for the log, before it is read on; and as many SUBSCRIBEs
/// and UNSUBSCRIBEs.
pub(crate) const MOST_WAITING: usize = 64;
/// Bytes that may wait for the writer, of all connections, before those that sent them wait as
/// well: four of its writes.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// What the writer and its clients share.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    failing: AtomicBool,
    problem: Mutex<Option<String>>,
    written: AtomicU64,
    /// What was appended and is neither written nor in the state that is to be written.
    waiting: AtomicUsize,
}

/// The log, as the rest of the broker sees it.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    deliveries: AtomicU64,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// A record that is on its way into the log.
#[derive(Debug)]
pub(crate) struct Ticket(oneshot::Receiver<bool>);

impl Ticket {
    /// Ready when it is there.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unwritable>> {
        match ready!(Pin::new(&mut self.0).poll(cx)) {
            Ok(true) => Poll::Ready(Ok(())),
            // Refused; or the writer is gone.
            Ok(false) | Err(_) => Poll::Ready(Err(Unwritable)),
        }
    }

    /// One for a record that is appended later, and what is appended with it.
    pub fn pair() -> (oneshot::Sender<bool>, Self) {
        let (told, ticket) = oneshot::channel();
        (told, Ticket(ticket))
    }

    /// One for a record that could not be appended.
    pub fn refused() -> Self {
        Ticket(oneshot::channel().1)
    }
}

impl Journal {
    /// Reads what is there, and starts the writer behind it.
    ///
    /// # Errors
    /// Files that cannot be read or written, that are damaged, or that a newer version wrote.
    pub fn open(storage: Arc<dyn Storage>, sync: Sync) -> Result<(Arc<Self>, Image), JournalError> {
        let recovered = recover::recover(&*storage)?;
        let image = recovered.image.clone();
        let shared = Arc::new(Shared::default());
        let writer = Writer::new(storage, sync, recovered, shared.clone())?;
        let thread = std::thread::Builder::new()
            .name("broker-log".into())
            .spawn(move || writer.run())
            .map_err(|error| JournalError::Io { file: "its writer".into(), error })?;
        let journal = Journal {
            shared,
            deliveries: AtomicU64::new(image.next.delivery.max(1)),
            thread: Mutex::new(Some(thread)),
        };
        Ok((Arc::new(journal), image))
    }

    /// Numbers for this many deliveries; the first of them, never 0.
    pub fn deliveries(&self, count: usize) -> u64 {
        self.deliveries.fetch_add(count as u64, Ordering::Relaxed)
    }

    /// Nobody waits for it.
    pub fn append(&self, record: Record) {
        self.push(Some(record), None);
    }

    /// A publish, which is acknowledged when it is written.
    ///
    /// # Errors
    /// The log cannot be written; nothing was appended.
    pub fn promise(&self, record: Record) -> Result<Ticket, Unwritable> {
        if self.is_failing() {
            return Err(Unwritable);
        }
        Ok(self.wait(record, Waiting::Refuse))
    }

    /// What a client is told, by the ticket to `told`, when it is written, or at once where it cannot be: a session goes on
    /// while the disk is full.
    pub fn note(&self, record: Record, told: oneshot::Sender<bool>) {
        self.push(Some(record), Some(Waiting::Defer(told)));
    }

    /// The same for what is promised to a client, which hears where it cannot be written. The record
    /// is kept all the same: another must take it back.
    pub fn report(&self, record: Record, told: oneshot::Sender<bool>) {
        self.push(Some(record), Some(Waiting::Report(told)));
    }

    /// As [`Journal::note`], for all that was appended before.
    pub fn barrier(&self) -> Ticket {
        let (told, ticket) = Ticket::pair();
        self.push(None, Some(Waiting::Defer(told)));
        ticket
    }

    /// As [`Journal::report`], for all that was appended before.
    pub fn reporting_barrier(&self) -> Ticket {
        let (told, ticket) = Ticket::pair();
        self.push(None, Some(Waiting::Report(told)));
        ticket
    }

    /// When all that was appended before is written, however long that takes.
    pub fn written_before(&self) -> Ticket {
        let (told, ticket) = Ticket::pair();
        self.tell_written(told);
        ticket
    }

    /// Tells when all that was appended before is written, however long that takes; drops it where
    /// the writer ends before.
    pub fn tell_written(&self, told: oneshot::Sender<bool>) {
        self.push(None, Some(Waiting::Wait(told)));
    }

    /// What must not happen before it is written, however long that takes.
    pub fn require(&self, record: Record) -> Ticket {
        self.wait(record, Waiting::Wait)
    }

    fn wait(&self, record: Record, how: impl Fn(oneshot::Sender<bool>) -> Waiting) -> Ticket {
        let (told, ticket) = Ticket::pair();
        self.push(Some(record), Some(how(told)));
        ticket
    }

    fn push(&self, record: Option<Record>, waiting: Option<Waiting>) {
        let entry = Entry { record, waiting };
        let mut queue = self.shared.queue.lock();
        if queue.ended {
            // Who waits for it hears that with the ticket's other end.
            return;
        }
        self.shared.waiting.fetch_add(entry.cost(), Ordering::Relaxed);
        let idle = queue.entries.is_empty();
        queue.entries.push(entry);
        drop(queue);
        if idle {
            self.shared.wake.notify_one();
        }
    }

    /// Whether publishes that need it are refused.
    pub fn is_failing(&self) -> bool {
        self.shared.failing.load(Ordering::Acquire)
    }

    /// Why it cannot be written, in a sentence.
    pub fn problem(&self) -> Option<String> {
        self.shared.problem.lock().clone()
    }

    /// Bytes written since the start, snapshots left out.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Bytes that were appended and not written yet.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Whether so much waits that whoever added to it is to wait as well.
    pub fn is_behind(&self) -> bool {
        self.waiting() > MOST_BYTES
    }

    /// The state behind all that was appended before. Blocks; `None` where the writer has ended.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let (told, copy) = oneshot::channel();
        let mut queue = self.shared.queue.lock();
        if queue.ended {
            return None;
        }
        queue.copies.push(told);
        drop(queue);
        self.shared.wake.notify_one();
        copy.blocking_recv().ok().map(Snapshot)
    }

    /// Writes and syncs all that was appended, and ends the writer. Blocks.
    pub fn close(&self) {
        self.shared.queue.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the broker's log had panicked");
        }
    }
}

/// Held by the writer: when it is gone, whoever waits for it hears that instead of waiting for
/// ever, and where it panicked the broker says why it promises nothing.
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let problem = "its writer has failed, as the log of the daemon says; restart it";
            *self.0.problem.lock() = Some(problem.into());
            self.0.failing.store(true, Ordering::Release);
        }
        let mut queue = self.0.queue.lock();
        queue.ended = true;
        let left = (std::mem::take(&mut queue.entries), std::mem::take(&mut queue.copies));
        drop(queue);
        self.0.waiting.store(0, Ordering::Relaxed);
        drop(left);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// The durable state at one moment.
pub struct Snapshot(Image);

impl Snapshot {
    /// Writes it as the only file of a log, which a broker can start on. Blocks.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        snapshot::write_snapshot(&Directory::open(directory)?, 1, &self.0, None)?;
        Ok(())
    }
}

pub(crate) use hook::clock::unix_now as wall_seconds;
