//! What becomes of those who wait when the writer is gone.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{Journal, LogFile, Record, Storage, Sync};

/// Files that hold nothing; appending to them panics behind the header.
struct Broken;

impl Storage for Broken {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn read(&self, _: &str) -> io::Result<Vec<u8>> {
        unreachable!("there is none")
    }
    fn open(&self, _: &str, _: u64) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(Broken))
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl LogFile for Broken {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        assert!(super::file::name(bytes).is_some(), "the disk is broken");
        Ok(())
    }
    fn cut(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn end() -> Record {
    Record::End { session: 1 }
}

fn is_refused(mut ticket: super::Ticket) -> bool {
    matches!(ticket.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
}

#[test]
fn who_comes_behind_the_stop_waits_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(super::Directory::open(dir.path()).unwrap());
    let (journal, _) = Journal::open(storage, Sync::Os).unwrap();
    assert!(journal.snapshot().is_some());
    journal.close();
    assert!(journal.snapshot().is_none());
    assert!(is_refused(journal.require(end())) && is_refused(journal.barrier()));
    journal.append(end());
    assert_eq!((journal.waiting(), journal.problem()), (0, None));
}

#[test]
fn a_writer_that_fails_says_so() {
    let (journal, _) = Journal::open(Arc::new(Broken), Sync::Os).unwrap();
    journal.append(end());
    // It is asked before it has looked, or behind its end.
    assert!(journal.snapshot().is_none());
    assert!(journal.problem().unwrap().contains("has failed"));
    assert!(journal.promise(end()).is_err());
    assert!(is_refused(journal.require(end())));
    assert_eq!(journal.waiting(), 0);
}
