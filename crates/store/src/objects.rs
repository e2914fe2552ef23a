//! The content-addressed place: `objects/sha256/ab/abcdef…` under `data_dir`.
//!
//! A copy is written under a temporary name in `objects/incoming/`, synced, and renamed to the
//! name that its own digest gives it. So a name in `sha256/` always had the right bytes once,
//! and what a crash leaves behind lies in `incoming/` alone, which is emptied at start.
//!
//! All functions block; callers run them where blocking is allowed.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::copy::{Copied, Writer};
use crate::digest::Digest;
use crate::shelf::Shelf;

/// The content-addressed place.
#[derive(Debug)]
pub(crate) struct Objects {
    objects: PathBuf,
    incoming: PathBuf,
    /// Makes temporary names unique within the process, which holds `data_dir` alone.
    next: AtomicU64,
    shelf: Mutex<Shelf>,
    /// The most bytes that copies may have together.
    quota: Option<u64>,
    /// Rung for all who wait when a copy came to its place.
    pub(crate) kept: Notify,
}

impl Objects {
    /// Creates the directories below `data_dir` and removes what an earlier run left unfinished.
    pub(crate) fn open(data_dir: &Path, quota: Option<u64>) -> io::Result<Self> {
        let objects = data_dir.join("objects").join("sha256");
        let incoming = data_dir.join("objects").join("incoming");
        create_private_dir(&objects)?;
        create_private_dir(&incoming)?;
        for entry in fs::read_dir(&incoming)? {
            let path = entry?.path();
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove an unfinished copy");
            }
        }
        let mut shelf = Shelf::default();
        for folder in folders(&objects)? {
            for object in fs::read_dir(folder)? {
                let object = object?;
                let name = object.file_name();
                if let Some(digest) = name.to_str().and_then(|name| name.parse().ok()) {
                    shelf.add(digest, object.metadata()?.len(), None);
                }
            }
        }
        let shelf = Mutex::new(shelf);
        let (next, kept) = (AtomicU64::new(0), Notify::new());
        Ok(Self { objects, incoming, next, shelf, quota, kept })
    }

    /// Tells which copies the watched place names.
    pub(crate) fn set_dropped(&self, digests: HashSet<Digest>) {
        self.shelf.lock().set_dropped(digests);
    }

    /// Tells which copies the user of the store names.
    pub(crate) fn set_needed(&self, digests: HashSet<Digest>) {
        self.shelf.lock().set_needed(digests);
    }

    /// How many copies there are, and their bytes.
    pub(crate) fn sum(&self) -> (usize, u64) {
        self.shelf.lock().sum()
    }

    /// Removes what was unused for so long. `read` are the copies that readers hold.
    pub(crate) fn sweep(&self, keep_unused: Duration, read: &HashSet<Digest>) {
        let mut shelf = self.shelf.lock();
        for digest in shelf.superfluous(Instant::now(), keep_unused, read) {
            match self.unlink(digest) {
                Ok(()) => {
                    shelf.remove(digest);
                    tracing::info!(%digest, "removed a copy that nothing needs any more");
                }
                Err(error) => tracing::warn!(%digest, %error, "cannot remove a superfluous copy"),
            }
        }
    }

    /// Whether a copy of that size fits into the quota.
    pub(crate) fn has_room(&self, digest: Digest, size: u64) -> bool {
        self.quota.is_none_or(|quota| self.shelf.lock().bytes_with(digest, size) <= quota)
    }

    /// Where the copy with this digest is, or would be.
    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.objects.join(&name[..2]).join(name)
    }

    /// Whether a copy of that size is there. Its bytes are verified when they are first read.
    pub(crate) fn has(&self, digest: Digest, size: u64) -> bool {
        fs::symlink_metadata(self.path(digest)).is_ok_and(|m| m.is_file() && m.len() == size)
    }

    /// Removes a copy that turned out to be bad, which is open as `file`, so that the next scan
    /// makes a new one. Where that happened already, the new one stays.
    pub(crate) fn remove(&self, digest: Digest, file: &File) -> io::Result<()> {
        let mut shelf = self.shelf.lock();
        let now = match fs::symlink_metadata(self.path(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            now => Some(now?),
        };
        if let Some(now) = now
            && !is_same_file(&now, &file.metadata()?)
        {
            return Ok(());
        }
        self.unlink(digest)?;
        shelf.remove(digest);
        Ok(())
    }

    fn unlink(&self, digest: Digest) -> io::Result<()> {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Copies all copies to below another `data_dir`. Returns how many there were, and their bytes.
    /// One that is removed meanwhile is left out.
    pub(crate) fn copy_to(&self, data_dir: &Path) -> io::Result<(usize, u64)> {
        let (mut count, mut bytes) = (0, 0);
        let target = data_dir.join("objects").join("sha256");
        create_private_dir(&target)?;
        for folder in folders(&self.objects)? {
            let target = target.join(folder.file_name().unwrap_or_default());
            create_private_dir(&target)?;
            for object in fs::read_dir(folder)? {
                let object = object?;
                if !object.file_type()?.is_file() {
                    continue;
                }
                let copy = target.join(object.file_name());
                match fs::copy(object.path(), &copy) {
                    Ok(length) => {
                        (count, bytes) = (count + 1, bytes + length);
                        File::open(&copy)?.sync_all()?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            sync_dir(&target)?;
        }
        sync_dir(&target)?;
        Ok((count, bytes))
    }

    /// Begins a copy.
    pub(crate) fn writer(&self) -> io::Result<Writer> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.incoming.join(format!("{number}.tmp"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        Ok(Writer::new(file, path))
    }

    /// Makes a finished copy durable under the name of its digest. A copy that is there
    /// already is replaced, which heals it if it was damaged; who reads it keeps the old one.
    pub(crate) fn keep(&self, copy: Copied) -> io::Result<()> {
        let path = self.path(copy.digest);
        let folder = path.parent().unwrap_or(&self.objects);
        create_private_dir(folder)?;
        copy.sync()?;
        {
            // Held over the rename, so that nothing that is not there is counted, and no copy is
            // removed in place of the one before it.
            let mut shelf = self.shelf.lock();
            let bytes = shelf.bytes_with(copy.digest, copy.size);
            if let Some(quota) = self.quota.filter(|quota| bytes > *quota) {
                return Err(io::Error::new(
                    io::ErrorKind::QuotaExceeded,
                    format!(
                        "with its {} bytes the copies would have more than store.quota allows \
                         ({quota})",
                        copy.size
                    ),
                ));
            }
            copy.rename(&path)?;
            shelf.add(copy.digest, copy.size, Some(Instant::now()));
        }
        self.kept.notify_waiters();
        sync_dir(folder)?;
        sync_dir(&self.objects)
    }
}

/// The folders of copies, by the first two digits of what is in them. Whatever else somebody put
/// there is none of ours.
fn folders(objects: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(objects)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours =
            name.len() == 2 && name.to_str().is_some_and(|name| hex::decode(name).is_ok());
        if is_ours && entry.file_type()?.is_dir() {
            folders.push(entry.path());
        } else {
            tracing::warn!(path = %entry.path().display(), "is no copy of firmware; left alone");
        }
    }
    Ok(folders)
}

/// Whether both are of one file, whatever it is called.
#[cfg(unix)]
fn is_same_file(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same_file(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    a.created().ok() == b.created().ok() && a.modified().ok() == b.modified().ok()
}

/// Creates a directory that only the daemon's user may enter, with its parents.
fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes the entries of a directory durable. Elsewhere than on Unix a directory cannot be
/// synced, and a rename is durable by itself or not at all.
fn sync_dir(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> usize {
        fs::read_dir(path).unwrap().count()
    }

    #[tokio::test]
    async fn a_copy_gets_the_name_of_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(dir.path(), None).unwrap();
        let mut writer = objects.writer().unwrap();
        for part in ["ab", "c"] {
            writer = writer.write(part.into()).await.unwrap();
        }
        let copy = writer.finish().unwrap();
        let digest = Digest::of(b"abc");
        assert_eq!((copy.digest, copy.size), (digest, 3));
        assert!(!objects.has(digest, 3));
        objects.keep(copy).unwrap();
        assert!(objects.has(digest, 3));
        assert!(!objects.has(digest, 4));
        let path = dir.path().join(format!("objects/sha256/ba/{digest}"));
        assert_eq!(fs::read(path).unwrap(), b"abc");
        assert_eq!(names(&objects.incoming), 0);
    }

    #[tokio::test]
    async fn what_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(dir.path(), None).unwrap();
        drop(objects.writer().unwrap().write("ab".into()).await.unwrap());
        drop(objects.writer().unwrap().finish().unwrap());
        assert_eq!(names(&objects.incoming), 0);

        // A crash runs no destructor.
        fs::write(objects.incoming.join("7.tmp"), b"half").unwrap();
        let objects = Objects::open(dir.path(), None).unwrap();
        assert_eq!(names(&objects.incoming), 0);
        assert_eq!(names(&objects.objects), 0);
    }

    #[tokio::test]
    async fn a_damaged_copy_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(dir.path(), None).unwrap();
        let digest = Digest::of(b"abc");
        for _ in 0..2 {
            objects.keep(written(&objects).await).unwrap();
            assert_eq!(fs::read(objects.path(digest)).unwrap(), b"abc");
            fs::write(objects.path(digest), b"xyz").unwrap();
        }
        let open = || File::open(objects.path(digest)).unwrap();
        let bad = open();
        objects.keep(written(&objects).await).unwrap();
        objects.remove(digest, &bad).unwrap();
        assert!(objects.has(digest, 3), "the new one is none the worse");
        let bad = open();
        objects.remove(digest, &bad).unwrap();
        objects.remove(digest, &bad).unwrap();
        assert!(!objects.has(digest, 3));
        assert_eq!(objects.sum(), (0, 0));
    }

    async fn written(objects: &Objects) -> Copied {
        objects.writer().unwrap().write("abc".into()).await.unwrap().finish().unwrap()
    }

    #[tokio::test]
    async fn what_is_not_in_its_place_is_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(dir.path(), Some(3)).unwrap();
        let copy = written(&objects).await;
        // Something is in the way of the rename.
        fs::create_dir_all(objects.path(copy.digest).join("full")).unwrap();
        assert!(objects.keep(copy).is_err());
        assert_eq!(objects.sum(), (0, 0));
        fs::remove_dir_all(objects.path(Digest::of(b"abc"))).unwrap();
        objects.keep(written(&objects).await).unwrap();
        assert_eq!(objects.sum(), (1, 3));
    }

    #[tokio::test]
    async fn what_somebody_else_put_there_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(dir.path(), None).unwrap();
        objects.keep(written(&objects).await).unwrap();
        fs::write(objects.objects.join("README"), "not ours").unwrap();
        fs::write(objects.objects.join("ab"), "not ours").unwrap();
        fs::create_dir(objects.objects.join("lost+found")).unwrap();
        fs::create_dir(objects.objects.join("ba").join("folder")).unwrap();
        let objects = Objects::open(dir.path(), None).unwrap();
        assert_eq!(objects.sum(), (1, 3));
        let backup = tempfile::tempdir().unwrap();
        assert_eq!(objects.copy_to(backup.path()).unwrap(), (1, 3));
    }
}
