//! The content-addressed place: `objects/sha256/ab/abcdef…` under `data_dir`.
//!
//! A copy is written under a temporary name in `objects/incoming/`, synced, and renamed to the
//! name that its own digest gives it. So a name in `sha256/` always had the right bytes once,
//! and what a crash leaves behind lies in `incoming/` alone, which is emptied at start.
//!
//! All functions block; callers run them where blocking is allowed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::digest::{Digest, Hasher};

/// The content-addressed place.
#[derive(Debug)]
pub(crate) struct Objects {
    objects: PathBuf,
    incoming: PathBuf,
    /// Makes temporary names unique within the process, which holds `data_dir` alone.
    next: AtomicU64,
}

impl Objects {
    /// Creates the directories below `data_dir` and removes what an earlier run left unfinished.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
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
        Ok(Self { objects, incoming, next: AtomicU64::new(0) })
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

    /// Removes a copy that turned out to be bad, so that the next scan makes a new one.
    pub(crate) fn remove(&self, digest: Digest) -> io::Result<()> {
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
        for folder in fs::read_dir(&self.objects)? {
            let folder = folder?;
            let target = target.join(folder.file_name());
            create_private_dir(&target)?;
            for object in fs::read_dir(folder.path())? {
                let object = object?;
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
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        Ok(Writer { file, temporary: Temporary(path), hasher: Hasher::default(), size: 0 })
    }

    /// Makes a finished copy durable under the name of its digest. A copy that is there
    /// already is replaced, which heals it if it was damaged; who reads it keeps the old one.
    pub(crate) fn keep(&self, copy: Copied) -> io::Result<()> {
        let path = self.path(copy.digest);
        let folder = path.parent().unwrap_or(&self.objects);
        create_private_dir(folder)?;
        copy.file.sync_all()?;
        fs::rename(&copy.temporary.0, &path)?;
        sync_dir(folder)?;
        sync_dir(&self.objects)
    }
}

/// A copy in the making. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    temporary: Temporary,
    hasher: Hasher,
    size: u64,
}

impl Writer {
    pub(crate) fn write(&mut self, bytes: &Bytes) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Ends the copy; [`Objects::keep`] makes it last.
    pub(crate) fn finish(self) -> Copied {
        Copied {
            digest: self.hasher.finish(),
            size: self.size,
            file: self.file,
            temporary: self.temporary,
        }
    }
}

/// A whole copy that is not yet in its place. Dropped, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    file: File,
    temporary: Temporary,
}

/// Removes the file of that name when dropped; after the rename there is none.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
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

    #[test]
    fn a_copy_gets_the_name_of_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(dir.path()).unwrap();
        let mut writer = objects.writer().unwrap();
        writer.write(&Bytes::from_static(b"ab")).unwrap();
        writer.write(&Bytes::from_static(b"c")).unwrap();
        let copy = writer.finish();
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

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(dir.path()).unwrap();
        let mut writer = objects.writer().unwrap();
        writer.write(&Bytes::from_static(b"ab")).unwrap();
        drop(writer);
        drop(objects.writer().unwrap().finish());
        assert_eq!(names(&objects.incoming), 0);

        // A crash runs no destructor.
        fs::write(objects.incoming.join("7.tmp"), b"half").unwrap();
        let objects = Objects::open(dir.path()).unwrap();
        assert_eq!(names(&objects.incoming), 0);
        assert_eq!(names(&objects.objects), 0);
    }

    #[test]
    fn a_damaged_copy_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(dir.path()).unwrap();
        let digest = Digest::of(b"abc");
        for _ in 0..2 {
            let mut writer = objects.writer().unwrap();
            writer.write(&Bytes::from_static(b"abc")).unwrap();
            objects.keep(writer.finish()).unwrap();
            assert_eq!(fs::read(objects.path(digest)).unwrap(), b"abc");
            fs::write(objects.path(digest), b"xyz").unwrap();
        }
        objects.remove(digest).unwrap();
        objects.remove(digest).unwrap();
        assert!(!objects.has(digest, 3));
    }
}
