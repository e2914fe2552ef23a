//! What the store tells whoever watches it.

use crate::digest::Digest;
use crate::ingest::Facts;
use crate::names::NameParts;
use crate::origin::Fingerprint;
use crate::paths::Target;
use crate::sidecar::Sidecar;
use crate::signature::Verdict;

/// News of the watched place, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What settled together and is to be decided together. The first batch is the first scan:
    /// what is there, known before or not, and what was known and is gone. It comes even if it is
    /// empty, and only after a scan that succeeded. What it does not name is not gone: files that
    /// are still being written, and those of which nothing can be learnt now, come in a later one.
    Batch(Batch),
    /// The place cannot be read, or it looks as if something were not mounted. Nothing is known
    /// to be gone.
    Unavailable {
        /// One sentence that says what is wrong and what to do.
        reason: String,
    },
    /// The place can be read again.
    Available,
}

/// News of several paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// What is new, each path once or more.
    pub changes: Vec<Change>,
    /// Whether everything that was there when looking began is told by now; not before anything
    /// was there at all, nor while something could not be read or is still being written.
    pub caught_up: bool,
}

/// What is new at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "most changes are files, and there are few")]
pub enum Change {
    /// A file is there, complete, and its copy is in the content-addressed place: it is new, it
    /// was overwritten, or its sidecar came, changed or went. The digest may be the one that was
    /// told before; then only the fingerprint or the sidecar differs.
    Present(Dropped),
    /// A path that was told is no longer there.
    Removed {
        /// Relative to the root, with `/`.
        path: String,
    },
    /// Something is there that is not accepted, for now or for good. What was told of the path
    /// before is not to be offered; it may well be there again, the same.
    Refused {
        /// Relative to the root, with `/`; of a folder, if all of it is refused.
        path: String,
        /// One sentence that says what is wrong and what to do.
        reason: String,
    },
    /// A file that was told, in this run or before, cannot be read now, and it shows no sign of
    /// being another: what was told of it stands. When it can be read it is told anew.
    Troubled {
        /// As in [`Dropped::path`].
        path: String,
        /// One sentence that says what is wrong and what to do.
        reason: String,
    },
}

/// A firmware file that is complete and copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Relative to the root, with `/`.
    pub path: String,
    /// Whom its folder names.
    pub target: Target,
    /// The SHA-256 of the image that is served, which is what was dropped or was unpacked from it.
    pub digest: Digest,
    /// The image's size in bytes, at least 1.
    pub size: u64,
    /// What was found out about it; to be kept and given back as [`Known`] as well.
    pub facts: Facts,
    /// What its signature is worth.
    pub signature: Verdict,
    /// To be kept with the path and given back as [`Known`] at the next start.
    pub fingerprint: Fingerprint,
    /// What `FILE.toml` says, if there is one.
    pub sidecar: Option<Sidecar>,
    /// What the file's name says.
    pub from_name: NameParts,
    /// It was there when looking began in this run, told only now or not.
    pub found: bool,
}

/// A file that was told in an earlier run, so that it is not copied and hashed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// As in [`Dropped::path`].
    pub path: String,
    /// As in [`Dropped::fingerprint`].
    pub fingerprint: Fingerprint,
    /// As in [`Dropped::digest`].
    pub digest: Digest,
    /// As in [`Dropped::size`].
    pub size: u64,
    /// As in [`Dropped::facts`]; without them the file is read anew.
    pub facts: Option<Facts>,
}
