//! A copy on its way into the content-addressed place: written under a temporary name, and hashed.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::digest::{Digest, Hasher};
use crate::signature::Prehash;
use crate::sink::Sink;

/// A copy in the making. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Writer {
    sink: Sink,
    temporary: Temporary,
    hashes: Hashes,
    size: u64,
}

/// What is computed of a copy's bytes on their way.
#[derive(Debug, Default)]
struct Hashes {
    digest: Hasher,
    /// If a signature asks for it.
    prehash: Option<Prehash>,
}

impl Hashes {
    fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        if let Some(prehash) = &mut self.prehash {
            prehash.update(bytes);
        }
    }
}

impl Writer {
    /// Into a new file, whose temporary name is `path`.
    pub(crate) fn new(file: File, path: PathBuf) -> Self {
        let (sink, temporary) = (Sink::new(file), Temporary(path));
        Self { sink, temporary, hashes: Hashes::default(), size: 0 }
    }

    /// Hashes it for a signature as well.
    pub(crate) fn prehash(mut self) -> Self {
        self.hashes.prehash = Some(Prehash::default());
        self
    }

    /// Hashes the next part while it is written, so that a copy takes as long as the slower of the
    /// two.
    pub(crate) async fn write(self, bytes: Bytes) -> io::Result<Self> {
        let Self { mut sink, temporary, mut hashes, size } = self;
        let size = size + bytes.len() as u64;
        let part = bytes.clone();
        let hash = blocking(move || {
            hashes.update(&part);
            Ok(hashes)
        });
        let write = blocking(move || {
            sink.write(&bytes)?;
            Ok(sink)
        });
        let (hashes, sink) = tokio::try_join!(hash, write)?;
        Ok(Self { sink, temporary, hashes, size })
    }

    /// Lets `fill` write the file in any order, and hashes what came of it. Blocks.
    pub(crate) fn fill<E: From<io::Error>>(
        self,
        fill: impl FnOnce(&mut File) -> Result<(), E>,
    ) -> Result<Copied, E> {
        let Self { sink, temporary, mut hashes, mut size } = self;
        let mut file = sink.finish()?;
        fill(&mut file)?;
        file.rewind()?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(Copied::new(file, temporary, hashes, size));
            }
            hashes.update(&buffer[..read]);
            size += read as u64;
        }
    }

    /// Bytes written so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Ends the copy. Blocks.
    pub(crate) fn finish(self) -> io::Result<Copied> {
        Ok(Copied::new(self.sink.finish()?, self.temporary, self.hashes, self.size))
    }
}

/// A whole copy that is not yet in its place. Dropped, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) digest: Digest,
    /// If it was asked for.
    pub(crate) prehash: Option<[u8; 64]>,
    pub(crate) size: u64,
    file: File,
    temporary: Temporary,
}

impl Copied {
    fn new(file: File, temporary: Temporary, hashes: Hashes, size: u64) -> Self {
        let digest = hashes.digest.finish();
        let prehash = hashes.prehash.map(Prehash::finish);
        Self { digest, prehash, size, file, temporary }
    }

    /// The file, for reading from its beginning.
    pub(crate) fn file(&mut self) -> io::Result<&mut File> {
        self.file.rewind()?;
        Ok(&mut self.file)
    }

    /// Makes its bytes last. Blocks.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Gives it the name that it is to keep. Blocks.
    pub(crate) fn rename(&self, path: &Path) -> io::Result<()> {
        fs::rename(&self.temporary.0, path)
    }
}

/// Removes the file of that name when dropped; after the rename there is none.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs `work` where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::other("the daemon is stopping")),
    }
}
