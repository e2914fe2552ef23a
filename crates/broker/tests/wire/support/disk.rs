//! A disk in memory that can be full, and from which the broker can be cut off.

use broker::journal::{LogFile, Storage};
use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind, Result},
    sync::{Arc, Condvar, Mutex},
};

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: usize,
}

type Shared = Arc<Mutex<Content>>;

#[derive(Default)]
struct Names {
    now: BTreeMap<String, Shared>,
    /// As they were when they were last synced.
    synced: BTreeMap<String, Shared>,
}

/// What a broker writes to in these tests.
#[derive(Clone, Default)]
pub struct Disk {
    names: Arc<Mutex<Names>>,
    full: Arc<Mutex<bool>>,
    held: Arc<(Mutex<bool>, Condvar)>,
    /// What fails the next time.
    fails: Arc<Mutex<Option<Sync>>>,
    /// No file can be synced.
    broken: Arc<Mutex<bool>>,
}

/// What makes something durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// The names of files.
    Names,
    /// The bytes of one.
    File,
}

fn fails(next: &Mutex<Option<Sync>>, what: Sync) -> Result<()> {
    let failed = next.lock().unwrap().take_if(|next| *next == what);
    failed.map_or(Ok(()), |_| Err(Error::other("it failed, as the test wants")))
}

impl Disk {
    /// What the next start finds when the process ends now: all that was written.
    pub fn after_kill(&self) -> Disk {
        let copy = Disk::default();
        for (name, content) in &self.names.lock().unwrap().now {
            let content = content.lock().unwrap().clone();
            copy.put(name, content.bytes);
        }
        copy
    }

    /// What it finds when the power fails now: all that was synced, and some bytes of the rest.
    pub fn after_power_cut(&self, torn: usize) -> Disk {
        let copy = Disk::default();
        for (name, content) in &self.names.lock().unwrap().synced {
            let content = content.lock().unwrap().clone();
            let end = content.bytes.len().min(content.synced + torn);
            copy.put(name, content.bytes[..end].to_vec());
        }
        copy
    }

    /// From now on nothing can be appended, or it can again.
    pub fn set_full(&self, full: bool) {
        *self.full.lock().unwrap() = full;
    }

    /// Until this is dropped, whoever appends waits.
    pub fn hold(&self) -> Held {
        *self.held.0.lock().unwrap() = true;
        Held(self.clone())
    }

    /// From now on no file can be synced, or it can again.
    pub fn set_broken(&self, broken: bool) {
        *self.broken.lock().unwrap() = broken;
    }

    /// The next time it is to do this, it fails.
    pub fn fail_once(&self, what: Sync) {
        *self.fails.lock().unwrap() = Some(what);
    }

    /// Whether it has.
    pub fn has_failed(&self) -> bool {
        self.fails.lock().unwrap().is_none()
    }

    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let content = Content { synced: bytes.len(), bytes };
        let mut names = self.names.lock().unwrap();
        let content = Arc::new(Mutex::new(content));
        names.now.insert(name.into(), content.clone());
        names.synced.insert(name.into(), content);
    }

    pub fn names(&self) -> Vec<String> {
        self.names.lock().unwrap().now.keys().cloned().collect()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.names.lock().unwrap().now[name].lock().unwrap().bytes.clone()
    }

    /// Bytes in all files.
    pub fn len(&self) -> usize {
        let names = self.names.lock().unwrap();
        names.now.values().map(|content| content.lock().unwrap().bytes.len()).sum()
    }

    /// Whether these bytes stand anywhere.
    pub fn holds(&self, needle: &[u8]) -> bool {
        self.names()
            .iter()
            .any(|name| self.bytes(name).windows(needle.len()).any(|window| window == needle))
    }
}

impl Storage for Disk {
    fn list(&self) -> Result<Vec<String>> {
        Ok(self.names())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.bytes(name))
    }

    fn open(&self, name: &str, keep: u64) -> Result<Arc<dyn LogFile>> {
        let content = self.names.lock().unwrap().now.entry(name.into()).or_default().clone();
        content.lock().unwrap().bytes.truncate(keep as usize);
        Ok(Arc::new(Open { content, disk: self.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut names = self.names.lock().unwrap();
        let content = names.now.remove(from).ok_or(ErrorKind::NotFound)?;
        names.now.insert(to.into(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let removed = self.names.lock().unwrap().now.remove(name);
        removed.map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> Result<()> {
        fails(&self.fails, Sync::Names)?;
        let mut names = self.names.lock().unwrap();
        names.synced = names.now.clone();
        Ok(())
    }
}

/// See [`Disk::hold`].
pub struct Held(Disk);

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.held.0.lock().unwrap() = false;
        self.0.held.1.notify_all();
    }
}

struct Open {
    content: Shared,
    disk: Disk,
}

impl LogFile for Open {
    fn append(&self, bytes: &[u8]) -> Result<()> {
        let (held, released) = &*self.disk.held;
        drop(released.wait_while(held.lock().unwrap(), |held| *held).unwrap());
        let full = *self.disk.full.lock().unwrap();
        // A full disk takes what still fits.
        let bytes = if full { &bytes[..bytes.len() / 2] } else { bytes };
        self.content.lock().unwrap().bytes.extend_from_slice(bytes);
        if full { Err(Error::from(ErrorKind::StorageFull)) } else { Ok(()) }
    }

    fn cut(&self, len: u64) -> Result<()> {
        let mut content = self.content.lock().unwrap();
        content.bytes.truncate(len as usize);
        content.synced = content.synced.min(len as usize);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        fails(&self.disk.fails, Sync::File)?;
        if *self.disk.broken.lock().unwrap() {
            return Err(Error::other("it failed, as the test wants"));
        }
        let mut content = self.content.lock().unwrap();
        content.synced = content.bytes.len();
        Ok(())
    }
}
