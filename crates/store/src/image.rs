//! Reading an image: ranges out of verified segments.
//!
//! The first read of an image hashes its whole copy and compares it with the digest that names
//! it; on the way the digest of each segment is noted. From then on each segment is verified
//! when it is loaded, so bytes that rot on the disk, or are changed there, are never served. A
//! copy that fails is removed; the next scan copies it again from where it was dropped.
//!
//! A file is open only while a segment is loaded: a site where each device has an image of its
//! own needs no more file descriptors than one with a single image.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::cache::{Key, Loaded, SEGMENT, Segment};
use crate::digest::{Digest, Hasher};
use crate::reader::Reader;

/// How long [`Image::renewed`] waits: a small image has come over a slow line by then.
const RENEWAL: Duration = Duration::from_secs(5);

/// Of a copy whose bytes are not those that its name says.
const DAMAGED: &str = "its copy was damaged; it is copied again";

/// One image in the content-addressed place. Cheap to clone and to keep.
#[derive(Debug, Clone)]
pub struct Image {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    digest: Digest,
    size: u64,
    reader: Arc<Reader>,
    /// The verified copy. A failure is not kept: the next read tries again.
    opened: Mutex<Option<Arc<Opened>>>,
    /// Work under way, so that equal reads are done once. Entries remove themselves; there
    /// are never more than segments being waited for.
    loading: Mutex<HashMap<u64, Loading>>,
    opening: Mutex<Option<Opening>>,
}

type Loading = Shared<BoxFuture<'static, Result<Arc<Loaded>, ReadError>>>;
type Opening = Shared<BoxFuture<'static, Result<Arc<Opened>, ReadError>>>;

/// The segments of a copy whose bytes were all seen to be right.
#[derive(Debug)]
struct Opened {
    segments: Box<[Digest]>,
}

/// Why a range could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {digest}: {message}", digest = .digest.short())]
pub struct ReadError {
    /// What went wrong, for a program.
    pub kind: ReadErrorKind,
    /// Whether the same read may succeed later, without anybody's doing.
    pub retry: bool,
    digest: Digest,
    message: String,
}

/// The kinds of [`ReadError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadErrorKind {
    /// The range is not within the image. No retry helps.
    OutOfRange,
    /// There is no copy of the image, or one of another size.
    Missing,
    /// The copy's bytes are not those that its digest names; it was removed.
    Corrupt,
    /// The operating system could not read the copy.
    Io,
}

impl Image {
    pub(crate) fn new(digest: Digest, size: u64, reader: Arc<Reader>) -> Self {
        let (opened, loading, opening) = Default::default();
        Self { inner: Arc::new(Inner { digest, size, reader, opened, loading, opening }) }
    }

    /// Whether there is another handle than this one.
    pub(crate) fn is_held_elsewhere(&self) -> bool {
        Arc::strong_count(&self.inner) > 1
    }

    /// The digest that names the image.
    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.inner.size
    }

    /// The bytes at `offset`, if they are in memory; `None` means that [`Image::read`] must load
    /// them, or that the range is not within the image.
    ///
    /// `held` is the reader's own note of the segment that it used last: while the range is
    /// within it, no lock is taken. Otherwise the cache is asked once for each segment that the
    /// range touches. A range within one segment is not copied.
    pub fn cached(&self, offset: u64, len: usize, held: &mut Option<Segment>) -> Option<Bytes> {
        self.inner.check(offset, len).ok()?;
        self.inner.gather(offset, len, |key| {
            let found = held.as_ref().and_then(|segment| segment.get(key));
            found.or_else(|| {
                let loaded = self.inner.reader.cache.get(key)?;
                *held = Some(Segment::new(&loaded));
                Some(loaded)
            })
        })
    }

    /// The bytes at `offset`, loaded if need be. Equal loads are done once, whoever waits for
    /// them; a caller that goes away stops nothing.
    ///
    /// # Errors
    /// See [`ReadErrorKind`]; `retry` says whether it is worth asking again.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Bytes, ReadError> {
        self.inner.check(offset, len)?;
        let mut loaded: Vec<Arc<Loaded>> = Vec::new();
        for index in segments_of(offset, len) {
            let key = self.inner.key(index);
            let segment = match self.inner.reader.cache.get(key) {
                Some(segment) => segment,
                None => self.inner.load(index).await?,
            };
            loaded.push(segment);
        }
        let bytes = self
            .inner
            .gather(offset, len, |key| loaded.iter().find(|segment| segment.key == key).cloned());
        bytes.ok_or_else(|| self.inner.error(ReadErrorKind::Io, "a segment has the wrong length"))
    }

    /// Waits, after a read that failed, until a copy is there: it is made anew from where the file
    /// was dropped, as soon as that can be read. Returns after 5 s in any case.
    pub async fn renewed(&self) {
        let there = async {
            loop {
                let mut kept = pin!(self.inner.reader.objects.kept.notified());
                // From here on, so that none that comes after the look is missed.
                kept.as_mut().enable();
                let inner = self.inner.clone();
                let has = move || inner.reader.objects.has(inner.digest, inner.size);
                if tokio::task::spawn_blocking(has).await.unwrap_or(true) {
                    return;
                }
                kept.await;
            }
        };
        let _ = timeout(RENEWAL, there).await;
    }
}

/// The indices of the segments that a range touches. An empty range touches none.
fn segments_of(offset: u64, len: usize) -> std::ops::Range<u64> {
    if len == 0 {
        return 0..0;
    }
    offset / SEGMENT..(offset + len as u64).div_ceil(SEGMENT)
}

impl Inner {
    fn key(&self, index: u64) -> Key {
        Key { digest: self.digest, index }
    }

    fn error(&self, kind: ReadErrorKind, message: impl Into<String>) -> ReadError {
        ReadError {
            kind,
            retry: kind != ReadErrorKind::OutOfRange,
            digest: self.digest,
            message: message.into(),
        }
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), ReadError> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(self.error(
                ReadErrorKind::OutOfRange,
                format!("{len} bytes at {offset} are not within its {} bytes", self.size),
            )),
        }
    }

    /// Puts a range together from its segments, without a copy where there is only one.
    fn gather(
        &self,
        offset: u64,
        len: usize,
        mut segment: impl FnMut(Key) -> Option<Arc<Loaded>>,
    ) -> Option<Bytes> {
        let mut indices = segments_of(offset, len);
        let end = offset + len as u64;
        // The part of the range within one segment, relative to its beginning.
        let part = |index: u64| {
            let base = index * SEGMENT;
            let from = offset.max(base) - base;
            let to = end.min(base + SEGMENT) - base;
            from as usize..to as usize
        };
        if indices.end - indices.start <= 1 {
            let Some(index) = indices.next() else {
                return Some(Bytes::new());
            };
            let loaded = segment(self.key(index))?;
            let part = part(index);
            return (part.end <= loaded.bytes.len()).then(|| loaded.bytes.slice(part));
        }
        let mut bytes = BytesMut::with_capacity(len);
        for index in indices {
            let loaded = segment(self.key(index))?;
            bytes.extend_from_slice(loaded.bytes.get(part(index))?);
        }
        Some(bytes.freeze())
    }

    /// Loads one segment into the cache, or waits for whoever does so already.
    async fn load(self: &Arc<Self>, index: u64) -> Result<Arc<Loaded>, ReadError> {
        let loading = {
            let mut loading = self.loading.lock();
            loading
                .entry(index)
                .or_insert_with(|| {
                    let inner = self.clone();
                    self.spawn(async move {
                        let result = inner.load_now(index).await;
                        inner.loading.lock().remove(&index);
                        result
                    })
                })
                .clone()
        };
        loading.await
    }

    async fn load_now(self: &Arc<Self>, index: u64) -> Result<Arc<Loaded>, ReadError> {
        let opened = self.open().await?;
        let _permit = self.reader.loads.acquire().await;
        let inner = self.clone();
        let work = move || {
            let key = inner.key(index);
            let wanted = opened.segments.get(index as usize);
            let offset = index * SEGMENT;
            let mut bytes = vec![0; SEGMENT.min(inner.size - offset) as usize];
            let file = inner.file()?;
            read_exact_at(&file, &mut bytes, offset).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => inner.discard(&file, DAMAGED),
                _ => inner.io(&error),
            })?;
            if wanted != Some(&Digest::of(&bytes)) {
                return Err(inner.discard(&file, DAMAGED));
            }
            let loaded = Arc::new(Loaded { key, bytes: bytes.into() });
            inner.reader.cache.insert(loaded.clone());
            Ok(loaded)
        };
        self.blocking(work).await
    }

    /// The verified copy; verifies it, or waits for whoever does so already.
    async fn open(self: &Arc<Self>) -> Result<Arc<Opened>, ReadError> {
        let opening = {
            let mut opening = self.opening.lock();
            if let Some(opened) = &*self.opened.lock() {
                return Ok(opened.clone());
            }
            opening
                .get_or_insert_with(|| {
                    let inner = self.clone();
                    self.spawn(async move {
                        let _permit = inner.reader.loads.acquire().await;
                        let work = inner.clone();
                        let result = inner.blocking(move || work.verify().map(Arc::new)).await;
                        let mut opening = inner.opening.lock();
                        if let Ok(opened) = &result {
                            *inner.opened.lock() = Some(opened.clone());
                        }
                        *opening = None;
                        drop(opening);
                        result
                    })
                })
                .clone()
        };
        opening.await
    }

    /// Hashes the whole copy and each of its segments. Blocks.
    fn verify(&self) -> Result<Opened, ReadError> {
        let file = self.file()?;
        let size = file.metadata().map_err(|error| self.io(&error))?.len();
        if size != self.size {
            let message =
                format!("its copy has {size} bytes instead of {}; it is copied again", self.size);
            return Err(self.discard(&file, &message));
        }
        let mut whole = Hasher::default();
        let mut segments = Vec::with_capacity(size.div_ceil(SEGMENT) as usize);
        let mut buffer = vec![0; SEGMENT.min(size) as usize];
        let mut offset = 0;
        while offset < size {
            let part = &mut buffer[..SEGMENT.min(size - offset) as usize];
            read_exact_at(&file, part, offset).map_err(|error| self.io(&error))?;
            whole.update(part);
            segments.push(Digest::of(part));
            offset += part.len() as u64;
        }
        if whole.finish() != self.digest {
            return Err(self.discard(&file, DAMAGED));
        }
        Ok(Opened { segments: segments.into() })
    }

    /// Opens the copy. Blocks.
    fn file(&self) -> Result<File, ReadError> {
        let path = self.reader.objects.path(self.digest);
        File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                self.reader.damaged.notify_one();
                self.error(
                    ReadErrorKind::Missing,
                    "there is no copy; it is made again if \
                     the file is still where it was dropped",
                )
            }
            _ => self.io(&error),
        })
    }

    /// Removes the bad copy, which is open as `file`, unless a new one has taken its place already,
    /// and all that was read of it, and asks for a scan that makes a new one. Blocks.
    fn discard(&self, file: &File, message: &str) -> ReadError {
        *self.opened.lock() = None;
        self.reader.cache.forget(self.digest);
        if let Err(error) = self.reader.objects.remove(self.digest, file) {
            tracing::error!(digest = %self.digest, %error, "cannot remove a damaged copy");
        }
        tracing::warn!(digest = %self.digest, "{message}");
        self.reader.damaged.notify_one();
        self.error(ReadErrorKind::Corrupt, message)
    }

    fn io(&self, error: &io::Error) -> ReadError {
        self.error(ReadErrorKind::Io, format!("its copy cannot be read: {error}"))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(_) => Err(self.error(ReadErrorKind::Io, "the daemon is stopping")),
        }
    }

    /// Runs `work` on a task of its own, so that it ends even if nobody waits any more.
    fn spawn<T: Clone + Send + Sync + 'static>(
        &self,
        work: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Result<T, ReadError>>> {
        let stopped = self.error(ReadErrorKind::Io, "the daemon is stopping");
        let task = tokio::spawn(work);
        task.map(move |result| result.unwrap_or(Err(stopped))).boxed().shared()
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}
