//! From the origin into the content-addressed place: copied once, hashed on the way.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use crate::digest::Digest;
use crate::inventory::{Beside, Item};
use crate::objects::{Copied, Objects};
use crate::origin::{Origin, OriginError};
use crate::sidecar::{self, MAX_COMPANION, Sidecar};

/// An image that is in the content-addressed place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingested {
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Why a stream of bytes was not taken in. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// There was not a single byte.
    #[error("it is empty: an image has at least one byte")]
    Empty,
    /// It has more bytes than an image may.
    #[error("it has more than {0} bytes: raise store.max_size if that is intended")]
    TooLarge(u64),
    /// The stream broke off.
    #[error("it broke off: {0}")]
    Source(io::Error),
    /// The copy could not be written.
    #[error("the copy could not be written into data_dir ({0}): {hint}", hint = hint(.0))]
    Write(io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space there, it is tried again by itself"
        }
        _ => "let the daemon's user write there, it is tried again by itself",
    }
}

/// What came of a file that was read.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is in the content-addressed place.
    Stored { ingested: Ingested, sidecar: Option<Sidecar> },
    /// It is being changed, or gone: look again.
    Changed,
    /// It is not what `FILE.sha256` says; the digest that it has.
    Mismatch(Digest),
    /// It cannot be used as it is; a sentence. With `retry` it may work later as it is.
    Refused { reason: String, retry: bool },
}

impl Outcome {
    fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into(), retry: false }
    }
}

/// Why a copy was not made.
enum CopyError<E> {
    Source(E),
    TooLarge,
    Write(io::Error),
}

/// Takes in the file at `path`. `known` is its digest if these very bytes were copied before
/// and the copy is still there.
pub(crate) async fn take_in(
    origin: &Origin,
    objects: &Arc<Objects>,
    max_size: u64,
    path: &str,
    item: &Item,
    known: Option<Ingested>,
) -> Outcome {
    let size = item.listed.size;
    if size == 0 {
        return Outcome::refused("it is empty (0 bytes): copy it again");
    }
    if size > max_size {
        return Outcome::refused(format!(
            "it has {size} bytes, more than store.max_size allows ({max_size}): raise \
             store.max_size or drop a smaller file"
        ));
    }
    // Before the copy, because it is quick and its mistakes are frequent.
    let sidecar = match companion(origin, item.sidecar.as_ref(), Sidecar::parse).await {
        Ok(sidecar) => sidecar,
        Err(outcome) => return outcome,
    };
    let sum = match companion(origin, item.sum.as_ref(), sidecar::parse_sum).await {
        Ok(sum) => sum,
        Err(outcome) => return outcome,
    };
    let mismatch = |digest| sum.is_some_and(|sum| sum != digest);
    if let Some(ingested) = known {
        if mismatch(ingested.digest) {
            return Outcome::Mismatch(ingested.digest);
        }
        return Outcome::Stored { ingested, sidecar };
    }
    let parts = std::pin::pin!(origin.read(path, &item.listed));
    let copied = match copy(objects, parts, size).await {
        Ok(copied) => copied,
        Err(CopyError::Source(error)) => return unreadable(error),
        Err(CopyError::TooLarge) => return Outcome::Changed,
        Err(CopyError::Write(error)) => return unwritable(error),
    };
    match origin.confirm(path, &item.listed).await {
        Ok(()) if copied.size == size => {}
        Ok(()) => return Outcome::Changed,
        Err(error) => return unreadable(error),
    }
    if mismatch(copied.digest) {
        return Outcome::Mismatch(copied.digest);
    }
    match keep(objects, copied).await {
        Ok(ingested) => Outcome::Stored { ingested, sidecar },
        Err(error) => unwritable(error),
    }
}

/// Takes in bytes that come by another way than the watched place.
pub(crate) async fn take_in_stream(
    objects: &Arc<Objects>,
    max_size: u64,
    parts: impl Stream<Item = io::Result<Bytes>>,
) -> Result<Ingested, IngestError> {
    let parts = std::pin::pin!(parts);
    let copied = copy(objects, parts, max_size).await.map_err(|error| match error {
        CopyError::Source(error) => IngestError::Source(error),
        CopyError::TooLarge => IngestError::TooLarge(max_size),
        CopyError::Write(error) => IngestError::Write(error),
    })?;
    if copied.size == 0 {
        return Err(IngestError::Empty);
    }
    keep(objects, copied).await.map_err(IngestError::Write)
}

/// Copies part after part, hashing and writing where blocking is allowed.
async fn copy<E>(
    objects: &Arc<Objects>,
    mut parts: impl Stream<Item = Result<Bytes, E>> + Unpin,
    max_size: u64,
) -> Result<Copied, CopyError<E>> {
    let begin = objects.clone();
    let mut writer = blocking(move || begin.writer()).await.map_err(CopyError::Write)?;
    while let Some(part) = parts.next().await {
        let part = part.map_err(CopyError::Source)?;
        if writer.size() + part.len() as u64 > max_size {
            return Err(CopyError::TooLarge);
        }
        let written = blocking(move || {
            writer.write(&part)?;
            Ok(writer)
        });
        writer = written.await.map_err(CopyError::Write)?;
    }
    blocking(move || Ok(writer.finish())).await.map_err(CopyError::Write)
}

async fn keep(objects: &Arc<Objects>, copied: Copied) -> io::Result<Ingested> {
    let ingested = Ingested { digest: copied.digest, size: copied.size };
    let objects = objects.clone();
    blocking(move || objects.keep(copied)).await?;
    Ok(ingested)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::other("the daemon is stopping")),
    }
}

/// Reads and parses a companion file, if there is one.
async fn companion<T>(
    origin: &Origin,
    beside: Option<&Beside>,
    parse: impl Fn(&[u8]) -> Result<T, String>,
) -> Result<Option<T>, Outcome> {
    let Some(Beside { path, listed }) = beside else {
        return Ok(None);
    };
    let name = path.rsplit('/').next().unwrap_or(path);
    if listed.size > MAX_COMPANION {
        return Err(Outcome::refused(format!(
            "{name} has {} bytes, more than {MAX_COMPANION}: shorten or remove it",
            listed.size
        )));
    }
    match origin.read_small(path, listed).await {
        Ok(bytes) => parse(&bytes)
            .map(Some)
            .map_err(|reason| Outcome::refused(format!("{name}: {reason}; correct or remove it"))),
        Err(OriginError::Failed(reason)) => Err(Outcome::Refused {
            reason: format!("{name} cannot be read: {reason}"),
            retry: true,
        }),
        Err(OriginError::Changed) => Err(Outcome::Changed),
    }
}

fn unreadable(error: OriginError) -> Outcome {
    match error {
        OriginError::Changed => Outcome::Changed,
        OriginError::Failed(reason) => {
            Outcome::Refused { reason: format!("it cannot be read: {reason}"), retry: true }
        }
    }
}

fn unwritable(error: io::Error) -> Outcome {
    Outcome::Refused { reason: IngestError::Write(error).to_string(), retry: true }
}
