//! What never changes of a transfer: the image, and the blocks that it is cut into.

use store::Digest;

use crate::{
    catalog::Release,
    dialect::{BlockSize, ImageTag},
};

/// What never changes of a transfer (rule 14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub digest: Digest,
    /// The digest in hex, as manifests carry it.
    pub sha256: String,
    pub size: u64,
    /// Bytes of each block but the last.
    pub chunk_size: u32,
    /// Blocks.
    pub total: u32,
    pub path: String,
    /// Only where a sidecar named one.
    pub title: Option<String>,
    pub version: String,
    /// Whether a device may report the version; false where it is the digest's beginning.
    pub own_version: bool,
    /// The how manieth offer of this image to this device, from 1.
    pub attempt: u32,
    /// The deployment that it comes from; `None` only where an older version did not note it.
    pub deployment: Option<i64>,
    /// The file that it comes from, likewise.
    pub file: Option<i64>,
}

/// Bytes, and the blocks that they are cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    digest: Digest,
    chunk_size: u32,
}

impl Pin {
    /// `None` where the image has too many blocks of this size to be counted.
    pub fn new(release: &Release, chunk_size: u32, attempt: u32) -> Option<Pin> {
        Some(Pin {
            digest: release.digest,
            sha256: release.digest.to_string(),
            size: release.size,
            chunk_size,
            total: blocks(release.size, chunk_size)?,
            path: release.path.clone(),
            title: release.explicit_title().map(str::to_owned),
            version: release.version.text.clone(),
            own_version: release.has_own_version(),
            attempt,
            deployment: Some(release.deployment),
            file: Some(release.file),
        })
    }

    pub fn layout(&self) -> Layout {
        Layout { digest: self.digest, chunk_size: self.chunk_size }
    }

    /// Bytes of a block of this size.
    fn bytes_of(&self, size: BlockSize) -> u64 {
        match size {
            BlockSize::Pinned => u64::from(self.chunk_size),
            BlockSize::Bytes(bytes) => u64::from(bytes.get()),
            BlockSize::Whole => self.size,
            BlockSize::Run { bytes, .. } => u64::from(bytes.get()),
        }
    }

    /// The offsets between which blocks of this size lie.
    fn bounds(&self, size: BlockSize) -> (u64, u64) {
        match size {
            BlockSize::Run { from, to, .. } => (from, to.min(self.size)),
            _ => (0, self.size),
        }
    }

    /// Blocks of this size; at most as many as can be counted.
    pub fn total_in(&self, size: BlockSize) -> u32 {
        match size {
            BlockSize::Pinned => self.total,
            _ => {
                let (from, to) = self.bounds(size);
                let total = to.saturating_sub(from).div_ceil(self.bytes_of(size).max(1));
                u32::try_from(total).unwrap_or(u32::MAX - 1)
            }
        }
    }

    /// Where block `index` of this size lies: its offset and length in bytes. `None` past the end.
    pub fn range(&self, index: u32, size: BlockSize) -> Option<(u64, usize)> {
        let (bytes, (from, to)) = (self.bytes_of(size), self.bounds(size));
        let offset = from.checked_add(u64::from(index) * bytes)?;
        (offset < to).then(|| (offset, bytes.min(to - offset) as usize))
    }

    /// By which requests name the image.
    pub fn tag(&self) -> ImageTag {
        tag_of(&self.digest)
    }
}

/// By which requests name an image: the beginning of its digest.
pub fn tag_of(digest: &Digest) -> ImageTag {
    digest.as_bytes().iter().take(8).fold(0, |tag, byte| tag << 8 | u64::from(*byte))
}

/// How many blocks of this size an image has.
pub fn blocks(size: u64, chunk_size: u32) -> Option<u32> {
    let total = size.div_ceil(u64::from(chunk_size.max(1)));
    u32::try_from(total).ok().filter(|total| *total > 0 && *total < u32::MAX)
}
