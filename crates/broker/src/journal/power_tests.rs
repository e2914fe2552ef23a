//! The power fails, or the process ends, behind each step that the log takes on the disk; and each
//! of them fails.

use bytes::Bytes;
use hook::Qos;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
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
const PAYLOAD: usize = 8 * 1024;
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
    /// The places of those that were refused.
    refused: Mutex<BTreeSet<u64>>,
    steps: AtomicUsize,
    /// The steps that fail; the first is 1.
    fails: Mutex<Range<usize>>,
    /// What a start would have found wrong; the steps are taken by several threads.
    wrong: Mutex<Option<String>>,
}

#[derive(Clone, Default)]
struct Disk(Arc<Watched>);

impl Disk {
    fn step<T>(&self, step: impl FnOnce(&mut Files) -> io::Result<T>) -> io::Result<T> {
        self.step_or_half(step, |_| {})
    }

    /// Takes a step, and looks at what a start would find behind it. One that fails does `half`.
    fn step_or_half<T>(
        &self,
        step: impl FnOnce(&mut Files) -> io::Result<T>,
        half: impl FnOnce(&mut Files),
    ) -> io::Result<T> {
        let promised = self.0.acknowledged.each_ref().map(|it| it.load(Ordering::Acquire));
        let refused = self.0.refused.lock().clone();
        let mut files = self.0.files.lock();
        let number = self.0.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let done = match self.0.fails.lock().contains(&number) {
            false => Ok(step(&mut files)?),
            true => {
                half(&mut files);
                Err(io::ErrorKind::StorageFull.into())
            }
        };
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
            let names: Vec<_> = found.0.keys().collect();
            let mut places = [0; TOPICS];
            let mut wrong = None;
            match recover(&found) {
                Ok(found) => found.image.retained().for_each(|one| {
                    places[one.topic.parse::<usize>().unwrap()] = one.sequence;
                }),
                Err(error) => wrong = Some(error.to_string()),
            }
            if places.iter().zip(promised).any(|(is, was)| *is < was) {
                wrong = wrong.or(Some("one that was acknowledged is lost".into()));
            }
            if places.iter().any(|is| refused.contains(is)) {
                wrong = wrong.or(Some("one that was refused is there".into()));
            }
            if let Some(wrong) = wrong {
                let wrong = format!(
                    "{wrong} behind step {number} and {what}: {places:?} of {promised:?} in {names:?}"
                );
                self.0.wrong.lock().get_or_insert(wrong);
            }
        }
        done
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
        let append = |files: &mut Files, bytes| files.contents[self.1].extend_from_slice(bytes);
        let all = |files: &mut Files| {
            append(files, bytes);
            Ok(())
        };
        self.0.step_or_half(all, |files| append(files, &bytes[..bytes.len() / 2]))
    }
    fn cut(&self, len: u64) -> io::Result<()> {
        self.0.step(|files| {
            files.contents[self.1].truncate(len as usize);
            files.synced[self.1] = files.synced[self.1].min(len as usize);
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

/// Publishes, and closes the log. What is refused is another message the next time.
async fn publish(disk: &Disk) {
    let (journal, _) = Journal::open(Arc::new(disk.clone()), Sync::Always).unwrap();
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    let mut sequence = 0;
    for number in 0..PUBLISHES {
        let topic = number as usize % TOPICS;
        loop {
            sequence += 1;
            let message = Arc::new(Message {
                topic: topic.to_string().into(),
                payload: payload.clone(),
                retain: true,
                sequence,
                ..Arc::into_inner(Message::plain(Qos::AtLeastOnce, "")).unwrap()
            });
            let (received, instead, targets) = (None, None, Vec::new());
            let published =
                Published { message, at: 7, retained: true, received, instead, targets };
            let written = match journal.promise(Record::Publish(Box::new(published))) {
                Ok(mut ticket) => std::future::poll_fn(|cx| ticket.poll(cx)).await,
                Err(unwritable) => Err(unwritable),
            };
            if written.is_ok() {
                disk.0.acknowledged[topic].store(sequence, Ordering::Release);
                break;
            }
            disk.0.refused.lock().insert(sequence);
            tokio::task::yield_now().await;
        }
    }
    tokio::task::spawn_blocking(move || journal.close()).await.unwrap();
    assert_eq!(*disk.0.wrong.lock(), None, "steps {:?} failed", *disk.0.fails.lock());
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_behind_any_step() {
    let disk = Disk::default();
    publish(&disk).await;
    let files = disk.0.files.lock();
    let names: Vec<_> = files.names.keys().map(String::as_str).collect();
    // Twice, where the first snapshot was done in time.
    let followed = [["log-00000002", "snapshot-00000002"], ["log-00000003", "snapshot-00000003"]];
    assert!(followed.iter().any(|all| names == *all), "it was followed: {names:?}");
    assert!(files.durable_names.contains_key(names[1]));
}

#[tokio::test]
async fn nor_where_any_step_fails() {
    fail(1).await;
}

/// Also what would mend it.
#[tokio::test]
async fn nor_where_any_few_steps_fail() {
    fail(3).await;
}

async fn fail(steps: usize) {
    // The first are those of the start, which says so and ends.
    for fails in 5.. {
        let disk = Disk::default();
        *disk.0.fails.lock() = fails..fails + steps;
        publish(&disk).await;
        let files = disk.0.files.lock();
        let all = files.names.iter().map(|(name, it)| (name.clone(), files.contents[*it].clone()));
        let image = recover(&Found(all.collect())).unwrap().image;
        let mut found: Vec<_> = image.retained().map(|one| one.sequence).collect();
        let mut last = disk.0.acknowledged.each_ref().map(|it| it.load(Ordering::Relaxed));
        found.sort_unstable();
        last.sort_unstable();
        assert_eq!(found, last, "step {fails} failed");
        if disk.0.steps.load(Ordering::Relaxed) < fails {
            break;
        }
    }
}
