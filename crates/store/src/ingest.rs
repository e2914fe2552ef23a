//! From the origin into the content-addressed place: copied once, hashed on the way.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};

use crate::checksum::Checksum;
use crate::copy::{Copied, blocking};
use crate::digest::Digest;
use crate::format::{self, Header, Problem, Source};
use crate::inventory::{Beside, Item};
use crate::objects::Objects;
use crate::origin::{Origin, OriginError};
use crate::reader::Reader;
use crate::sidecar::{self, MAX_COMPANION, Sidecar};
use crate::signature::{Evidence, Needs, Signature, Trust, Verdict};
use crate::store::Tuning;

/// An image that is in the content-addressed place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What was found out about what it came from.
    pub facts: Facts,
}

/// What the readers of formats know, which is more with each number. What an older one said of a file
/// is not used again: it may have taken what would brick a device.
const READERS: u32 = 2;

/// What was found out about a file when it was read. To be kept with it, as JSON, so that it need
/// not be read again by the same readers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// What its bytes say.
    pub header: Header,
    /// Who said that; see [`READERS`].
    readers: u32,
    /// The SHA-256 of what was dropped, where the image was unpacked from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Digest>,
    /// Nothing was looked at, because the sidecar said so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    as_is: bool,
    /// BLAKE2b-512 of what was dropped, in hex, where a signature was checked with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    prehash: Option<String>,
    /// Marks an old signature that was checked with the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<Digest>,
    /// The checksum that the sidecar asks for, of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
    /// The states of the companions that it was told with; see `State::companions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) companions: Option<String>,
    /// It lay on another file system than the root of the watched directory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) mounted: bool,
}

impl Facts {
    /// Whether they say what a signature needs to be judged.
    fn meet(&self, needs: Needs) -> bool {
        match needs {
            Needs::Nothing => true,
            Needs::Prehash => self.prehash.is_some(),
            Needs::WholeFile(mark) => self.checked == Some(mark),
        }
    }

    fn judge(&self, trust: &Trust, signature: Option<&Signature>) -> Result<Verdict, String> {
        let mut hash = [0; 64];
        let decoded = self.prehash.as_deref().map(|text| hex::decode_to_slice(text, &mut hash));
        let prehash = matches!(decoded, Some(Ok(()))).then_some(&hash);
        trust.judge(signature, Evidence { prehash, checked: self.checked })
    }
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
    /// It is nothing that a device should get.
    #[error("{0}")]
    Refused(String),
    /// The copy could not be written.
    #[error("the copy could not be written into data_dir ({0}): {hint}", hint = hint(.0))]
    Write(io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        // The system's errors have a number, our own has none.
        io::ErrorKind::QuotaExceeded if error.raw_os_error().is_none() => {
            "withdraw or delete firmware that no device needs, or raise store.quota; it is tried \
             again by itself"
        }
        io::ErrorKind::QuotaExceeded => {
            "the disk quota of the daemon's user is used up: free some space or raise it, it is \
             tried again by itself"
        }
        io::ErrorKind::StorageFull => "free some space there, it is tried again by itself",
        io::ErrorKind::FileTooLarge => {
            "a limit of the daemon (as ulimit -f, LimitFSIZE of systemd) or of the file system \
             allows no file of that size: raise it, it is tried again by itself"
        }
        _ => "let the daemon's user write there, it is tried again by itself",
    }
}

/// Whether the disk has no room, or none for the daemon's user.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What came of a file that was read.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every one is the large one")]
pub(crate) enum Outcome {
    /// It is in the content-addressed place.
    Stored { ingested: Ingested, sidecar: Option<Sidecar>, verdict: Verdict },
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

/// Where copies go, and who reads them.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) objects: Arc<Objects>,
    pub(crate) reader: Arc<Reader>,
}

impl Place {
    /// Removes what was unused for so long. Blocks.
    pub(crate) fn sweep(&self, keep_unused: Duration) {
        self.objects.sweep(keep_unused, &self.reader.in_use());
    }

    /// A disk that is full may have room for the next try when what nothing needs is gone.
    async fn make_room_after(&self, error: &io::Error) {
        if is_full(error) {
            let place = self.clone();
            let _ = tokio::task::spawn_blocking(move || place.sweep(Duration::ZERO)).await;
        }
    }
}

/// Takes in the file at `path`. `known` is what is known of these very bytes, if they were copied
/// before and the copy is still there.
pub(crate) async fn take_in(
    origin: &Origin,
    place: &Place,
    tuning: &Tuning,
    path: &str,
    item: &Item,
    known: Option<&Ingested>,
) -> Outcome {
    let (size, max_size) = (item.listed.size, tuning.max_size);
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
    let signature = match companion(origin, item.signature.as_ref(), Signature::parse).await {
        Ok(signature) => signature,
        Err(outcome) => return outcome,
    };
    let needs = tuning.trust.needs(signature.as_ref());
    let judge = |facts: &Facts| facts.judge(&tuning.trust, signature.as_ref());
    if needs == Needs::Nothing
        && let Err(reason) = judge(&Facts::default())
    {
        // Whatever its bytes are.
        return Outcome::refused(reason);
    }
    let as_is = sidecar.as_ref().is_some_and(|sidecar| sidecar.as_is);
    let checksum = sidecar.as_ref().and_then(|sidecar| sidecar.checksum);
    let mismatch = |digest| sum.is_some_and(|sum| sum != digest);
    let known = known.filter(|known| known.facts.readers == READERS);
    let known = known.filter(|known| known.facts.as_is == as_is && known.facts.meet(needs));
    let known =
        known.filter(|known| checksum == known.facts.checksum.as_ref().map(|it| it.algorithm));
    let (ingested, copied) = match known {
        Some(known) => (known.clone(), None),
        None => {
            let parts = std::pin::pin!(origin.read(path, &item.listed));
            let copied = match copy(place, parts, size, needs == Needs::Prehash).await {
                Ok(copied) => copied,
                Err(CopyError::Source(error)) => return unreadable(error),
                Err(CopyError::TooLarge) => return Outcome::Changed,
                Err(CopyError::Write(error)) => return unwritable(place, error).await,
            };
            match origin.confirm(path, &item.listed).await {
                Ok(()) if copied.size == size => {}
                Ok(()) => return Outcome::Changed,
                Err(error) => return unreadable(error),
            }
            if mismatch(copied.digest) {
                return Outcome::Mismatch(copied.digest);
            }
            let trust = tuning.trust.clone();
            let whole = signature.clone().filter(|_| matches!(needs, Needs::WholeFile(_)));
            let checked = blocking(move || {
                let mut copied = copied;
                let checked = match &whole {
                    Some(signature) => trust.check_whole(signature, copied.file()?)?,
                    None => None,
                };
                Ok((copied, checked))
            });
            let (copied, checked) = match checked.await {
                Ok(checked) => checked,
                Err(error) => return unwritable(place, error).await,
            };
            let prehash = copied.prehash.map(hex::encode);
            let facts = Facts { as_is, readers: READERS, prehash, checked, ..Facts::default() };
            // Nothing reads bytes that somebody else than the signer may have made.
            if let Err(reason) = judge(&facts) {
                return Outcome::refused(reason);
            }
            let objects = place.objects.clone();
            let looked = blocking(move || {
                Ok(look(&objects, copied, max_size, facts).and_then(
                    |(mut ingested, mut copied)| {
                        if let Some(algorithm) = checksum {
                            ingested.facts.checksum = Some(algorithm.of(copied.file()?)?);
                        }
                        Ok((ingested, copied))
                    },
                ))
            });
            match looked.await {
                Ok(Ok((ingested, copied))) => (ingested, Some(copied)),
                Ok(Err(Problem::Refused(reason))) => return Outcome::refused(reason),
                Ok(Err(Problem::Io(error))) | Err(error) => return unwritable(place, error).await,
            }
        }
    };
    let digest = ingested.facts.dropped.unwrap_or(ingested.digest);
    if mismatch(digest) {
        return Outcome::Mismatch(digest);
    }
    let verdict = match judge(&ingested.facts) {
        Ok(verdict) => verdict,
        Err(reason) => return Outcome::refused(reason),
    };
    if let Some(copied) = copied
        && let Err(error) = keep(place, copied).await
    {
        return unwritable(place, error).await;
    }
    Outcome::Stored { ingested, sidecar, verdict }
}

/// Takes in bytes that come by another way than the watched place.
pub(crate) async fn take_in_stream(
    place: &Place,
    tuning: &Tuning,
    parts: impl Stream<Item = io::Result<Bytes>>,
) -> Result<Ingested, IngestError> {
    let parts = std::pin::pin!(parts);
    let max_size = tuning.max_size;
    let copied = copy(place, parts, max_size, tuning.trust.has_keys()).await;
    let copied = copied.map_err(|error| match error {
        CopyError::Source(error) => IngestError::Source(error),
        CopyError::TooLarge => IngestError::TooLarge(max_size),
        CopyError::Write(error) => IngestError::Write(error),
    })?;
    if copied.size == 0 {
        return Err(IngestError::Empty);
    }
    let objects = place.objects.clone();
    let facts = Facts { prehash: copied.prehash.map(hex::encode), ..Facts::default() };
    let looked = blocking(move || Ok(look(&objects, copied, max_size, facts))).await;
    let (ingested, copied) = match looked {
        Ok(Ok(looked)) => looked,
        Ok(Err(Problem::Refused(reason))) => return Err(IngestError::Refused(reason)),
        Ok(Err(Problem::Io(error))) | Err(error) => return Err(IngestError::Write(error)),
    };
    keep(place, copied).await.map_err(IngestError::Write)?;
    Ok(ingested)
}

/// What the signature of an upload is worth. Its file was hashed if any key was trusted.
pub(crate) fn judge_upload(
    trust: &Trust,
    uploaded: &Ingested,
    signature: Option<&Signature>,
) -> Result<Verdict, String> {
    match trust.needs(signature) {
        Needs::WholeFile(_) => {
            Err("its signature is of minisign's old form: sign it without -l".into())
        }
        _ => uploaded.facts.judge(trust, signature),
    }
}

/// Looks at what was copied, adds that to its facts, and unpacks it where a device could not take it as it is. Returns the
/// copy that is to be kept. Blocks.
fn look(
    objects: &Objects,
    mut copied: Copied,
    max_size: u64,
    mut facts: Facts,
) -> Result<(Ingested, Copied), Problem> {
    if facts.as_is {
        return Ok((Ingested { digest: copied.digest, size: copied.size, facts }, copied));
    }
    let size = copied.size;
    let mut source = Source::new(copied.file()?, size);
    let examined = format::examine(&mut source, max_size)?;
    facts.header = examined.header;
    if let Some(how) = examined.unpack {
        let unpacked = objects
            .writer()?
            .fill(|file| format::unpack(&mut source, &how, max_size, file).map(drop));
        let mut unpacked = unpacked?;
        let size = unpacked.size;
        let inner = format::examine(&mut Source::new(unpacked.file()?, size), max_size)?;
        if inner.unpack.is_some() {
            return Err(Problem::Refused(format!(
                "it is {} with {} in it: drop what is in it",
                facts.header.format.name(),
                inner.header.format.name(),
            )));
        }
        facts.header = format::joined(facts.header, inner.header);
        facts.dropped = Some(copied.digest);
        copied = unpacked;
    }
    Ok((Ingested { digest: copied.digest, size: copied.size, facts }, copied))
}

/// Copies part after part: one is hashed and written while the next is read.
async fn copy<E>(
    place: &Place,
    mut parts: impl Stream<Item = Result<Bytes, E>> + Unpin,
    max_size: u64,
    prehash: bool,
) -> Result<Copied, CopyError<E>> {
    let objects = place.objects.clone();
    let mut writer = blocking(move || objects.writer()).await.map_err(CopyError::Write)?;
    if prehash {
        writer = writer.prehash();
    }
    let mut next = parts.next().await;
    while let Some(part) = next {
        let part = part.map_err(CopyError::Source)?;
        if writer.size() + part.len() as u64 > max_size {
            return Err(CopyError::TooLarge);
        }
        let (read, written) = tokio::join!(parts.next(), writer.write(part));
        writer = written.map_err(CopyError::Write)?;
        next = read;
    }
    blocking(move || writer.finish()).await.map_err(CopyError::Write)
}

async fn keep(place: &Place, copied: Copied) -> io::Result<()> {
    let place = place.clone();
    let kept = blocking(move || {
        if !place.objects.has_room(copied.digest, copied.size) {
            place.sweep(Duration::ZERO);
        }
        place.objects.keep(copied)
    });
    kept.await
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

async fn unwritable(place: &Place, error: io::Error) -> Outcome {
    place.make_room_after(&error).await;
    Outcome::Refused { reason: IngestError::Write(error).to_string(), retry: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn what_cannot_be_written_says_what_to_do() {
        let own = io::Error::new(io::ErrorKind::QuotaExceeded, "with its 5 bytes");
        for (error, full, says) in [
            (io::Error::from_raw_os_error(libc::ENOSPC), true, "free some space there"),
            (io::Error::from_raw_os_error(libc::EDQUOT), true, "disk quota"),
            (io::Error::from_raw_os_error(libc::EFBIG), false, "ulimit -f"),
            (io::Error::from_raw_os_error(libc::EACCES), false, "let the daemon's user write"),
            (own, true, "store.quota"),
        ] {
            assert_eq!(is_full(&error), full, "{error}");
            let text = IngestError::Write(error).to_string();
            assert!(text.contains(says), "{text}");
        }
    }
}
