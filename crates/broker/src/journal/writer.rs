//! The one thread that writes the log.

use bytes::BytesMut;
use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

use super::{
    Entry, JournalError, Last, MOST_BYTES, Shared, Sync, Waiting,
    file::{self, BEGINNING},
    image::Image,
    record::{Mark, Record},
    recover::{Recovered, log_name, numbers},
    snapshot::{remove_before, write_snapshot},
    storage::Storage,
    sync::{SYNC_EVERY, Syncer, Tail},
};

/// A log is followed by the next one when it is larger than this and than the last snapshot: so
/// the files have a few times the size of what is in them, and each byte is copied a few times.
/// Tests follow each of its steps, and more of them in the same time.
const LOG_BYTES: u64 = if cfg!(test) { 64 * 1024 } else { 16 * 1024 * 1024 };
/// Bytes in one write.
const WRITE_BYTES: usize = 4 * 1024 * 1024;
/// How often a log that cannot be written is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 250 });
/// While it cannot be written, so many records are kept to be appended. More are taken into the
/// state, which is then written as a whole.
const KEPT_RECORDS: usize = 65_536;
/// The same in bytes.
const KEPT_BYTES: usize = MOST_BYTES / 2;

pub(super) struct Writer {
    storage: Arc<dyn Storage>,
    sync: Sync,
    shared: Arc<Shared>,
    /// The state that is on the disk, and what `whole` adds.
    image: Image,
    /// Records that are to be written next.
    entries: Vec<Entry>,
    /// Who waits for the state. Here, so that they hear of a panic when everybody can see it.
    copies: Vec<oneshot::Sender<Image>>,
    tail: Arc<Tail>,
    /// The name in the marks of this log.
    name: u64,
    /// What its last mark says is synced.
    marked: u64,
    /// Nothing has come for [`SYNC_EVERY`].
    idle: bool,
    number: u64,
    len: u64,
    snapshot_len: u64,
    /// No snapshot is begun before the log has this size.
    next_snapshot: u64,
    snapshot: Option<JoinHandle<io::Result<u64>>>,
    /// What is in the log is unknown, or less than the state: only a new snapshot mends that.
    whole: bool,
    /// Who waits for that snapshot.
    held_back: Vec<oneshot::Sender<bool>>,
    /// Sequences below it were given out before the last snapshot was begun.
    pruned: u64,
    syncer: Syncer,
    buffer: BytesMut,
}

impl Writer {
    pub fn new(
        storage: Arc<dyn Storage>,
        sync: Sync,
        recovered: Recovered,
        shared: Arc<Shared>,
    ) -> Result<Self, JournalError> {
        let Recovered { image, mut number, len, snapshot_len, name } = recovered;
        let file_name = log_name(number);
        let opened = (|| {
            let begun = if len == 0 {
                begin_log(&*storage, number)?
            } else {
                // Whole and durable, since what comes relies on it.
                let file = storage.open(&file_name, len)?;
                file.sync()?;
                if let Some(name) = name {
                    (Tail::new(file, len), name)
                } else {
                    // What is written now belongs into a file that an older program refuses.
                    number += 1;
                    begin_log(&*storage, number)?
                }
            };
            let (snapshots, _) = numbers(&*storage)?;
            remove_before(&*storage, snapshots.last().copied().unwrap_or(0))?;
            // Snapshots that were not completed.
            for name in storage.list()?.iter().filter(|name| name.ends_with(".tmp")) {
                storage.remove(name)?;
            }
            Ok(begun)
        })();
        let (tail, name) = opened.map_err(|error| JournalError::Io { file: file_name, error })?;
        let syncer = Syncer::start(sync, tail.clone())
            .map_err(|error| JournalError::Io { file: "its thread".into(), error })?;
        Ok(Writer {
            storage,
            sync,
            shared,
            pruned: image.next.sequence,
            image,
            entries: Vec::new(),
            copies: Vec::new(),
            len: tail.written.load(Ordering::Relaxed),
            tail,
            name,
            marked: BEGINNING as u64,
            idle: false,
            number,
            snapshot_len,
            next_snapshot: 0,
            snapshot: None,
            whole: false,
            held_back: Vec::new(),
            syncer,
            buffer: BytesMut::new(),
        })
    }

    /// Writes until the journal is closed.
    pub fn run(mut self) {
        let _last = Last(self.shared.clone());
        loop {
            let stop = self.gather();
            if self.syncer.failed.swap(false, Ordering::AcqRel) {
                self.whole = true;
            }
            let result = if self.whole { self.write_whole() } else { self.write_entries() };
            match result {
                Ok(()) => self.recovered(),
                Err(error) => self.failed(&error),
            }
            self.copy();
            self.write_mark();
            self.look_after_snapshots();
            if stop {
                return self.end();
            }
        }
    }

    /// Takes what has come, or waits for it.
    fn gather(&mut self) -> bool {
        let failing = self.shared.failing.load(Ordering::Acquire);
        let mut queue = self.shared.queue.lock();
        if failing {
            // What comes meanwhile is no reason to try earlier.
            let deadline = Instant::now() + TRY_AGAIN;
            while !queue.stop && !self.shared.wake.wait_until(&mut queue, deadline).timed_out() {}
        }
        self.idle = false;
        while !failing
            && queue.entries.is_empty()
            && queue.copies.is_empty()
            && !queue.stop
            && !self.syncer.failed.load(Ordering::Acquire)
            && !self.has_time_for_a_mark()
        {
            self.idle = self.shared.wake.wait_for(&mut queue, SYNC_EVERY).timed_out();
        }
        self.entries.append(&mut queue.entries);
        self.copies.append(&mut queue.copies);
        queue.stop
    }

    fn write_entries(&mut self) -> io::Result<()> {
        while !self.entries.is_empty() {
            self.buffer.clear();
            let mark = self.mark();
            if let Some(mark) = mark {
                file::put(&mut self.buffer, &Record::Mark(mark));
            }
            let (mut count, mut bytes, mut retains) = (0, 0, false);
            for entry in &mut self.entries {
                bytes += entry.cost();
                if let Some(record) = &mut entry.record {
                    // The state is that of the last write: what this one retains is not in it.
                    if !retains {
                        self.image.refer(record);
                    }
                    retains |= matches!(&record, Record::Publish(it) if it.retained);
                    file::put(&mut self.buffer, record);
                }
                count += 1;
                if self.buffer.len() >= WRITE_BYTES {
                    break;
                }
            }
            if let Err(error) = self.append() {
                self.take_back(count);
                return Err(error);
            }
            if self.sync == Sync::Always
                && let Err(error) = self.tail.sync()
            {
                // The system may have thrown away what it could not write.
                self.whole = true;
                self.len -= self.buffer.len() as u64;
                self.take_back(count);
                return Err(error);
            }
            self.marked = mark.map_or(self.marked, |mark| mark.synced);
            self.shared.written.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
            self.syncer.dirty.store(true, Ordering::Release);
            self.no_longer_waiting(bytes);
            for Entry { record, waiting } in self.entries.drain(..count) {
                if let Some(record) = record {
                    self.image.apply(record);
                }
                if let Some(waiting) = waiting {
                    waiting.tell(true);
                }
            }
        }
        if self.buffer.capacity() > WRITE_BYTES {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Writes the buffer.
    fn append(&mut self) -> io::Result<()> {
        self.tail.file.append(&self.buffer)?;
        self.len += self.buffer.len() as u64;
        self.tail.written.store(self.len, Ordering::Release);
        Ok(())
    }

    /// What the log does not say yet of how much of it is durable.
    fn mark(&self) -> Option<Mark> {
        let synced = self.tail.synced.load(Ordering::Acquire);
        (synced > self.marked).then_some(Mark { log: self.name, synced })
    }

    fn has_time_for_a_mark(&self) -> bool {
        self.idle && self.mark().is_some()
    }

    /// Where nothing came for a while, the mark goes alone, and is not synced for its own sake: what
    /// it says is true, and without it less is known.
    fn write_mark(&mut self) {
        let Some(mark) = self.mark().filter(|_| self.idle && !self.whole) else { return };
        self.buffer.clear();
        file::put(&mut self.buffer, &Record::Mark(mark));
        match self.append() {
            Ok(()) => self.marked = mark.synced,
            Err(_) => self.take_back(0),
        }
    }

    /// So many entries could not be written for good: what is refused now must not be there if the
    /// next start finds this file. Where not even that is possible, the file can no longer be
    /// trusted, and who would be refused hears nothing before another one says what is so.
    fn take_back(&mut self, count: usize) {
        if self.tail.file.cut(self.len).is_ok() {
            return;
        }
        self.whole = true;
        for entry in self.entries.iter_mut().take(count) {
            entry.waiting = match entry.waiting.take() {
                Some(Waiting::Refuse(told) | Waiting::Report(told)) => Some(Waiting::Wait(told)),
                waiting => waiting,
            };
        }
    }

    /// The whole state into a new snapshot, and a new log behind it.
    fn write_whole(&mut self) -> io::Result<()> {
        self.absorb();
        let number = self.number + 1;
        // The log first, since the snapshot says that it is there. Where that fails a start sees that
        // there is nothing in it.
        let (tail, name) = begin_log(&*self.storage, number)?;
        let len = write_snapshot(&*self.storage, number, &self.image, Some(name))?;
        self.go_on_with(number, tail, name);
        self.snapshot_len = len;
        self.whole = false;
        for told in self.held_back.drain(..) {
            // Nobody may wait any more.
            let _ = told.send(true);
        }
        self.write_entries()
    }

    /// Takes records into the state that are not in the log, but for what may yet be refused.
    fn absorb(&mut self) {
        for entry in std::mem::take(&mut self.entries) {
            if matches!(entry.waiting, Some(Waiting::Refuse(_))) {
                self.entries.push(entry);
                continue;
            }
            self.no_longer_waiting(entry.cost());
            let Entry { record, waiting } = entry;
            match waiting {
                Some(Waiting::Wait(told) | Waiting::Report(told)) => self.held_back.push(told),
                Some(told) => told.tell(true),
                None => {}
            }
            if let Some(record) = record {
                self.image.apply(record);
            }
        }
    }

    /// Tells who waits for the state. What is kept to be written belongs to it: whoever did it went
    /// on.
    fn copy(&mut self) {
        for copy in self.copies.drain(..) {
            let mut image = self.image.clone();
            self.entries.iter().filter_map(|entry| entry.record.clone()).for_each(|record| {
                image.apply(record);
            });
            // The receiver may have given up.
            drop(copy.send(image));
        }
    }

    fn go_on_with(&mut self, number: u64, tail: Arc<Tail>, name: u64) {
        self.syncer.go_on_with(tail.clone());
        (self.tail, self.name, self.number) = (tail, name, number);
        let begun = BEGINNING as u64;
        (self.len, self.marked, self.next_snapshot) = (begun, begun, 0);
    }

    fn failed(&mut self, error: &io::Error) {
        let first = !self.shared.failing.swap(true, Ordering::AcqRel);
        let full = error.kind() == io::ErrorKind::StorageFull;
        let hint = if full { "the disk is full" } else { "it is tried again" };
        *self.shared.problem.lock() =
            Some(format!("the broker's log cannot be written ({error}): {hint}"));
        if first {
            tracing::error!(
                %error,
                "the broker's log cannot be written: publishes that need it are refused until it can"
            );
        }
        let (mut kept, mut dropped, mut told) = (0, 0, Vec::new());
        self.entries.retain_mut(|entry| {
            let refused = matches!(entry.waiting, Some(Waiting::Refuse(_)));
            *if refused { &mut dropped } else { &mut kept } += entry.cost();
            if !matches!(entry.waiting, Some(Waiting::Wait(_))) {
                let reported = matches!(entry.waiting, Some(Waiting::Report(_)));
                told.extend(entry.waiting.take().map(|it| (it, !refused && !reported)));
            }
            !refused
        });
        self.no_longer_waiting(dropped);
        if self.entries.len() > KEPT_RECORDS || kept > KEPT_BYTES {
            self.absorb();
            self.whole = true;
        }
        told.into_iter().for_each(|(waiting, goes_on)| waiting.tell(goes_on));
    }

    /// So many bytes are written, or in the state that is to be written.
    fn no_longer_waiting(&self, bytes: usize) {
        self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn recovered(&mut self) {
        if self.shared.failing.swap(false, Ordering::AcqRel) {
            *self.shared.problem.lock() = None;
            tracing::info!("the broker's log can be written again");
        }
    }

    /// Begins a snapshot when the log has grown enough, and hears how the last one went.
    fn look_after_snapshots(&mut self) {
        if let Some(running) = self.snapshot.take_if(|running| running.is_finished()) {
            match running.join() {
                Ok(Ok(len)) => self.snapshot_len = len,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "no snapshot of the broker's log could be made; later again");
                }
                Err(_) => tracing::error!("the snapshot of the broker's log panicked"),
            }
        }
        let due = self.len > LOG_BYTES.max(self.snapshot_len).max(self.next_snapshot);
        if !due || self.snapshot.is_some() || self.shared.failing.load(Ordering::Acquire) {
            return;
        }
        // Not before it has grown by as much again, should this fail.
        self.next_snapshot = self.len + LOG_BYTES;
        // Whole and durable, since the next one relies on it.
        if let Err(error) = self.tail.sync() {
            tracing::error!(%error, "the broker's log could not be synced");
            // All of it is written anew at once.
            self.syncer.failed.store(true, Ordering::Release);
            return;
        }
        match begin_log(&*self.storage, self.number + 1) {
            Ok((tail, name)) => self.go_on_with(self.number + 1, tail, name),
            Err(error) => {
                tracing::warn!(%error, "no new file of the broker's log could be begun; later again");
                return;
            }
        }
        self.image.prune(self.pruned);
        self.pruned = self.image.next.sequence;
        let (storage, number, image) = (self.storage.clone(), self.number, self.image.clone());
        let name = self.name;
        let run = move || write_snapshot(&*storage, number, &image, Some(name));
        match std::thread::Builder::new().name("broker-snapshot".into()).spawn(run) {
            Ok(running) => self.snapshot = Some(running),
            Err(error) => tracing::warn!(%error, "no thread for a snapshot; later again"),
        }
    }

    /// The journal is closed, and what was appended is written as far as it can be.
    fn end(&mut self) {
        if let Some(running) = self.snapshot.take() {
            // It is complete or it has no name: nothing depends on it.
            drop(running.join());
        }
        // Behind it nobody else syncs, and hears of an error in our place.
        self.syncer.stop();
        let synced = self.tail.sync();
        if let Err(error) = &synced {
            tracing::error!(%error, "the broker's log could not be synced at its end");
        }
        if synced.is_err() || self.syncer.failed.load(Ordering::Acquire) {
            // The system may have thrown away what it could not write.
            self.whole = true;
            if let Err(error) = self.write_whole() {
                tracing::error!(%error, "the broker's log could not be written anew at its end");
            }
        }
        self.idle = true;
        self.write_mark();
        let left = self.entries.len() + self.held_back.len();
        if left > 0 || self.whole {
            tracing::error!(left, "the broker's log could not be written to its end");
            *self.shared.problem.lock() = Some(
                "the broker's log could not be written to its end: what sessions that last did while \
                 it could not be written is lost"
                    .into(),
            );
        }
    }
}

/// Makes a log with nothing in it, durable and with a name of its own.
fn begin_log(storage: &dyn Storage, number: u64) -> io::Result<(Arc<Tail>, u64)> {
    let file_name = log_name(number);
    // Drawn by lot.
    let name = RandomState::new().hash_one(number);
    let begin = || {
        let file = storage.open(&file_name, 0)?;
        file.append(&file::beginning(name))?;
        file.sync()?;
        storage.sync_names()?;
        Ok(file)
    };
    let file = begin().inspect_err(|_: &io::Error| {
        // The last one is still written, and is the one that may end in the middle of a record.
        // Should this fail as well, a start sees that there is nothing in it.
        drop(storage.remove(&file_name));
    })?;
    Ok((Tail::new(file, BEGINNING as u64), name))
}

impl Waiting {
    /// Nobody may wait any more.
    fn tell(self, written: bool) {
        let (Waiting::Refuse(told)
        | Waiting::Defer(told)
        | Waiting::Report(told)
        | Waiting::Wait(told)) = self;
        let _ = told.send(written);
    }
}
