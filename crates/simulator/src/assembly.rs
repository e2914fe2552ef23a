//! An image on its way: blocks in any order in, a verified image out.

use std::collections::BTreeMap;

use blake2::Blake2b512;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::trust::TrustedKey;
use crate::wire::Manifest;

/// Puts the blocks of one manifest together.
///
/// The bytes are hashed in order as they come and then let go, unless the image is wanted; only
/// blocks that came before an earlier one are held. So a thousand devices need no thousand images.
pub(crate) struct Assembly {
    manifest: Manifest,
    /// Blocks from here on are missing or in `early`.
    next: u32,
    early: BTreeMap<u32, Bytes>,
    hasher: Sha256,
    /// Bytes hashed.
    size: u64,
    /// The image, where it is wanted.
    image: Option<Vec<u8>>,
    /// Where a key is trusted: that, and what its signatures are made over.
    signed: Option<(TrustedKey, Blake2b512)>,
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It was missing and is there now.
    New,
    /// It was there already.
    Repeated,
}

/// Why a block or an image is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("block {index} came, but the manifest knows only {chunks}")]
    Index { index: u32, chunks: u32 },
    #[error("block {index} holds {size} bytes instead of {expected}")]
    Length { index: u32, size: usize, expected: u64 },
    #[error("chunk {0} is missing")]
    Missing(u32),
    #[error("the image has {size} bytes instead of {expected}")]
    Size { size: u64, expected: u64 },
    #[error("the image's SHA-256 is {found}, the manifest says {expected}")]
    ManifestDigest { found: Digest, expected: Digest },
    #[error("the image's SHA-256 is {found}, expected was {expected}")]
    ExpectedDigest { found: Digest, expected: Digest },
    #[error("the image is not signed, and only signed ones are trusted")]
    Unsigned,
    #[error("the signature is not trusted: {0}")]
    Signature(&'static str),
}

/// A complete image that passed all checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub manifest: Manifest,
    pub digest: Digest,
    pub image: Option<Vec<u8>>,
}

impl Assembly {
    /// Starts the image of `manifest`; `keep` holds its bytes for [`Verified::image`]. With a `key`
    /// it must be signed by that.
    pub(crate) fn new(manifest: Manifest, keep: bool, key: Option<TrustedKey>) -> Self {
        Self {
            manifest,
            next: 0,
            early: BTreeMap::new(),
            hasher: Sha256::new(),
            size: 0,
            image: keep.then(Vec::new),
            signed: key.map(|key| (key, Blake2b512::new())),
        }
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How many of the blocks are here.
    pub(crate) fn stored(&self) -> u32 {
        // No more than there are chunks, which is a u32.
        self.next + self.early.len() as u32
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.next == self.manifest.total_chunks
    }

    /// Takes a block, whose index and length must be what the manifest promised.
    pub(crate) fn store(&mut self, index: u32, data: Bytes) -> Result<Stored, Wrong> {
        let chunks = self.manifest.total_chunks;
        if index >= chunks {
            return Err(Wrong::Index { index, chunks });
        }
        let chunk_size = u64::from(self.manifest.chunk_size);
        let rest = self.manifest.total_size - u64::from(index) * chunk_size;
        let expected = rest.min(chunk_size);
        if data.len() as u64 != expected {
            return Err(Wrong::Length { index, size: data.len(), expected });
        }
        if index < self.next || self.early.contains_key(&index) {
            return Ok(Stored::Repeated);
        }
        self.early.insert(index, data);
        while let Some(data) = self.early.remove(&self.next) {
            self.hasher.update(&data);
            if let Some((_, hasher)) = &mut self.signed {
                hasher.update(&data);
            }
            self.size += data.len() as u64;
            if let Some(image) = &mut self.image {
                image.extend_from_slice(&data);
            }
            self.next += 1;
        }
        Ok(Stored::New)
    }

    /// Checks that all blocks are here and that the image is the promised one.
    pub(crate) fn verify(self, expected: Option<Digest>) -> Result<Verified, Wrong> {
        if !self.is_complete() {
            return Err(Wrong::Missing(self.next));
        }
        if self.size != self.manifest.total_size {
            return Err(Wrong::Size { size: self.size, expected: self.manifest.total_size });
        }
        let found = Digest(self.hasher.finalize().into());
        if let Some(promised) = self.manifest.sha256.filter(|&digest| digest != found) {
            return Err(Wrong::ManifestDigest { found, expected: promised });
        }
        if let Some(expected) = expected.filter(|&digest| digest != found) {
            return Err(Wrong::ExpectedDigest { found, expected });
        }
        if let Some((key, hasher)) = self.signed {
            let signature = self.manifest.signature.ok_or(Wrong::Unsigned)?;
            key.check(&signature, &hasher.finalize().into()).map_err(Wrong::Signature)?;
        }
        Ok(Verified { manifest: self.manifest, digest: found, image: self.image })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn manifest_of(image: &[u8], chunk_size: u32) -> Manifest {
        Manifest {
            total_size: image.len() as u64,
            total_chunks: (image.len() as u32).div_ceil(chunk_size),
            chunk_size,
            version: "1.0".into(),
            sha256: Some(digest_of(image)),
            image: None,
            signature: None,
        }
    }

    pub(crate) fn digest_of(image: &[u8]) -> Digest {
        Digest(Sha256::digest(image).into())
    }

    pub(crate) fn chunk(image: &[u8], chunk_size: u32, index: u32) -> Bytes {
        let start = (index * chunk_size) as usize;
        let end = (start + chunk_size as usize).min(image.len());
        Bytes::copy_from_slice(&image[start..end])
    }

    #[test]
    fn refuses_what_the_manifest_did_not_promise() {
        let image = vec![7; 100];
        let mut assembly = Assembly::new(manifest_of(&image, 40), false, None);
        assert_eq!(
            assembly.store(3, Bytes::from_static(b"x")),
            Err(Wrong::Index { index: 3, chunks: 3 })
        );
        assert_eq!(
            assembly.store(2, Bytes::from(vec![7; 40])),
            Err(Wrong::Length { index: 2, size: 40, expected: 20 })
        );
        assert_eq!(assembly.store(1, Bytes::from(vec![7; 40])), Ok(Stored::New));
        assert_eq!(assembly.verify(None), Err(Wrong::Missing(0)));
    }

    #[test]
    fn refuses_other_bytes() {
        let image = vec![7; 40];
        let wrong = |expected, bytes: &[u8]| {
            let mut assembly = Assembly::new(manifest_of(&image, 40), true, None);
            assembly.store(0, Bytes::copy_from_slice(bytes)).unwrap();
            assembly.verify(expected)
        };
        assert!(matches!(wrong(None, &[8; 40]), Err(Wrong::ManifestDigest { .. })));
        assert!(matches!(wrong(Some(Digest([0; 32])), &image), Err(Wrong::ExpectedDigest { .. })));
        assert_eq!(wrong(Some(digest_of(&image)), &image).unwrap().image, Some(image.clone()));
    }

    #[test]
    fn an_empty_image_is_complete_at_once() {
        let assembly = Assembly::new(manifest_of(&[], 4096), false, None);
        assert!(assembly.is_complete());
        assert_eq!(assembly.verify(None).unwrap().digest, digest_of(&[]));
    }

    proptest! {
        #[test]
        fn any_order_with_repeats_gives_the_image(
            image in prop::collection::vec(any::<u8>(), 1..2000),
            chunk_size in 1u32..300,
            seed in any::<prop::sample::Index>(),
        ) {
            let manifest = manifest_of(&image, chunk_size);
            let chunks = manifest.total_chunks;
            let mut assembly = Assembly::new(manifest, true, None);
            // A stride that is coprime to the number of chunks visits each once.
            let stride = (1..=chunks).rev().find(|s| gcd(*s, chunks) == 1).unwrap_or(1);
            let start = seed.index(chunks as usize) as u32;
            for step in 0..chunks {
                let index = (u64::from(start) + u64::from(step) * u64::from(stride)) % u64::from(chunks);
                let index = index as u32;
                prop_assert!(!assembly.is_complete());
                prop_assert_eq!(assembly.store(index, chunk(&image, chunk_size, index)), Ok(Stored::New));
                prop_assert_eq!(assembly.store(index, chunk(&image, chunk_size, index)), Ok(Stored::Repeated));
                prop_assert_eq!(assembly.stored(), step + 1);
            }
            prop_assert_eq!(assembly.verify(None).unwrap().image, Some(image));
        }
    }

    fn gcd(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { gcd(b, a % b) }
    }
}
