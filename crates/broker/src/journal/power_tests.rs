//! The power fails, or the process ends, behind each step that the log takes on the disk.

use bytes::Bytes;
use hook::Qos;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{Journal, LogFile, Published, Record, Storage, Sync, recover::recover};
use crate::message::Message;

/// Retained messages that are replaced over and over.
const TOPICS: usize = 4;
/// So that a few of them make a log full.
const PAYLOAD: usize = 2 * 1024 * 1024;
/// Of those 9 are a log: it is followed twice.
const PUBLISHES: u64 = 20;

#[derive(Default)]
struct Files {
    contents: Vec<Vec<u8>>,
    /// How much of each is durable.
    synced: Vec<usize>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
}

#[derive(Default)]
struct Watched {
    files: Mutex<Files>,
    /// The place of the newest acknowledged message of each topic.
    acknowledged: [AtomicU64; TOPICS],
    steps: AtomicUsize,
}

#[derive(Clone, Default)]
struct Disk(Arc<Watched>);

impl Disk {
    /// Takes a step, and looks at what a start would find behind it.
    fn step<T>(&self, step: impl FnOnce(&mut Files) -> io::Result<T>) -> io::Result<T> {
        let promised = self.0.acknowledged.each_ref().map(|it| it.load(Ordering::Acquire));
        let mut files = self.0.files.lock();
        let done = step(&mut files)?;
        let number = self.0.steps.fetch_add(1, Ordering::Relaxed);
        let found = |names: &BTreeMap<String, usize>, end: &dyn Fn(usize) -> usize| {
            let bytes = |file: usize| files.contents[file][..end(file)].to_vec();
            Found(names.iter().map(|(name, file)| (name.clone(), bytes(*file))).collect())
        };
        let all = |file: usize| files.contents[file].len();
        // Of what was not synced a part may be there all the same.
        let torn = |file: usize| files.synced[file] + (all(file) - files.synced[file]) / 2;
        for (what, found) in [
            ("the end of the process", found(&files.names, &all)),
            ("a power cut", found(&files.durable_names, &|file| files.synced[file])),
            ("a torn write", found(&files.durable_names, &torn)),
        ] {
            let names: Vec<_> = found.0.keys().cloned().collect();
            let image = recover(&found).unwrap_or_else(|error| panic!("{what}: {error}")).image;
            let mut places = [0; TOPICS];
            for message in image.retained() {
                places[message.topic.parse::<usize>().unwrap()] = message.sequence;
            }
            for (is, was) in places.iter().zip(promised) {
                assert!(
                    *is >= was,
                    "step {number}, {what}: {places:?} of {promised:?} in {names:?}"
                );
            }
        }
        Ok(done)
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.files.lock().names.keys().cloned().collect())
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let files = self.0.files.lock();
        Ok(files.contents[files.names[name]].clone())
    }
    fn open(&self, name: &str, keep: u64) -> io::Result<Arc<dyn LogFile>> {
        self.step(|files| {
            let next = files.contents.len();
            let file = *files.names.entry(name.into()).or_insert(next);
            if file == next {
                files.contents.push(Vec::new());
                files.synced.push(0);
            }
            files.contents[file].truncate(keep as usize);
            files.synced[file] = files.synced[file].min(keep as usize);
            Ok(Arc::new(Open(self.clone(), file)) as Arc<dyn LogFile>)
        })
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(|files| {
            let file = files.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            files.names.insert(to.into(), file);
            Ok(())
        })
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.step(|files| {
            files.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
            // At the worst it is durable at once, and what was made before it is not.
            files.durable_names.remove(name);
            Ok(())
        })
    }
    fn sync_names(&self) -> io::Result<()> {
        self.step(|files| {
            files.durable_names = files.names.clone();
            Ok(())
        })
    }
}

struct Open(Disk, usize);

impl LogFile for Open {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.step(|files| {
            files.contents[self.1].extend_from_slice(bytes);
            Ok(())
        })
    }
    fn cut(&self, len: u64) -> io::Result<()> {
        self.0.step(|files| {
            files.contents[self.1].truncate(len as usize);
            Ok(())
        })
    }
    fn sync(&self) -> io::Result<()> {
        self.0.step(|files| {
            files.synced[self.1] = files.contents[self.1].len();
            Ok(())
        })
    }
}

/// What a start finds.
struct Found(BTreeMap<String, Vec<u8>>);

impl Storage for Found {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.keys().cloned().collect())
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.0[name].clone())
    }
    fn open(&self, _: &str, _: u64) -> io::Result<Arc<dyn LogFile>> {
        Err(io::Error::other("what was torn off is not kept here"))
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        unreachable!("a start that only reads renames nothing")
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        unreachable!("nor does it remove anything")
    }
    fn sync_names(&self) -> io::Result<()> {
        unreachable!("nor sync")
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_behind_any_step() {
    let disk = Disk::default();
    let (journal, _) = Journal::open(Arc::new(disk.clone()), Sync::Always).unwrap();
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    for sequence in 1..=PUBLISHES {
        let topic = (sequence % TOPICS as u64) as usize;
        let message = Arc::new(Message {
            topic: topic.to_string().into(),
            payload: payload.clone(),
            retain: true,
            sequence,
            ..Arc::into_inner(Message::plain(Qos::AtLeastOnce, "")).unwrap()
        });
        let (received, instead, targets) = (None, None, Vec::new());
        let published = Published { message, at: 7, retained: true, received, instead, targets };
        let mut ticket = journal.promise(Record::Publish(Box::new(published))).unwrap();
        std::future::poll_fn(|cx| ticket.poll(cx)).await.expect("it is written");
        disk.0.acknowledged[topic].store(sequence, Ordering::Release);
    }
    tokio::task::spawn_blocking(move || journal.close()).await.unwrap();
    let files = disk.0.files.lock();
    let names: Vec<_> = files.names.keys().collect();
    assert_eq!(names, ["log-00000003", "snapshot-00000003"], "it was followed twice");
    assert!(files.durable_names.contains_key("snapshot-00000003"));
}
