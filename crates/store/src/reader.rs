//! What all images share, and the one handle for each of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::cache::Cache;
use crate::digest::Digest;
use crate::image::Image;
use crate::objects::Objects;

/// Images that are remembered as verified although nobody uses them. Using one that was forgotten
/// means to hash it again.
const IDLE_IMAGES: usize = 64;

/// Segments that are read and verified at the same time, over all images. Each takes a thread
/// and [`SEGMENT`] bytes; two cores gain nothing from more.
const LOADS: usize = 8;

/// What all images share: the copies, the cache, and the images in use.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) objects: Arc<Objects>,
    pub(crate) cache: Cache,
    pub(crate) loads: Semaphore,
    /// Locked when a transfer begins.
    images: Mutex<Images>,
    /// Told when a copy was found missing or bad, so that the watcher looks.
    pub(crate) damaged: Arc<Notify>,
}

/// Images in use, and some that were.
#[derive(Debug, Default)]
struct Images {
    /// With the number of the last use.
    by_digest: HashMap<Digest, (Image, u64)>,
    uses: u64,
}

impl Reader {
    pub(crate) fn new(objects: Arc<Objects>, cache_bytes: usize, damaged: Arc<Notify>) -> Self {
        Self {
            objects,
            cache: Cache::new(cache_bytes),
            loads: Semaphore::new(LOADS),
            images: Mutex::default(),
            damaged,
        }
    }

    /// The one handle for an image, so that it is verified once and read by one file.
    pub(crate) fn image(self: &Arc<Self>, digest: Digest, size: u64) -> Image {
        let mut images = self.images.lock();
        let Images { by_digest, uses } = &mut *images;
        *uses += 1;
        if let Some((image, used)) = by_digest.get_mut(&digest)
            && image.size() == size
        {
            *used = *uses;
            return image.clone();
        }
        let image = Image::new(digest, size, self.clone());
        by_digest.insert(digest, (image.clone(), *uses));
        // Those in use stay: they are as many as there are different images under way.
        while by_digest.len() > IDLE_IMAGES {
            let idle = by_digest
                .iter()
                .filter(|(_, (image, _))| !image.is_held_elsewhere())
                .min_by_key(|(_, (_, used))| *used)
                .map(|(digest, _)| *digest);
            let Some(idle) = idle else { break };
            by_digest.remove(&idle);
        }
        image
    }

    /// The images that somebody holds.
    pub(crate) fn in_use(&self) -> HashSet<Digest> {
        let images = self.images.lock();
        let held = images.by_digest.iter().filter(|(_, (image, _))| image.is_held_elsewhere());
        held.map(|(digest, _)| *digest).collect()
    }

    /// Lets go of all images, which refer back to the reader.
    pub(crate) fn close(&self) {
        self.images.lock().by_digest.clear();
    }

    /// Bytes of images in memory now.
    pub(crate) fn cached_bytes(&self) -> usize {
        self.cache.bytes()
    }
}
