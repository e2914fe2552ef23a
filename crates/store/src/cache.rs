//! Segments of images in memory, bounded in bytes.
//!
//! | state | guarded by | touched |
//! | --- | --- | --- |
//! | a shard's map | its own mutex, held for a look-up or an insertion | once per segment and reader, and whenever a held segment was evicted |
//!
//! A reader keeps a weak reference to its segment, so that a thousand slow readers at a thousand
//! places cannot hold more memory than the cache may. What is evicted while a block of it is
//! still being written lives until that block is gone.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::digest::Digest;

/// The unit that is read, verified and cached, in bytes: large enough that reading and hashing
/// cost little per block, small enough that a device at the end of an image does not wait long.
pub(crate) const SEGMENT: u64 = 1 << 20;

/// Which segment of which image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) digest: Digest,
    pub(crate) index: u64,
}

/// A segment that is in memory, verified.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) key: Key,
    pub(crate) bytes: Bytes,
}

/// The segment that a reader used last. As long as it stays in memory, reading on in it takes
/// no lock. Cheap to keep: it does not keep the bytes in memory by itself.
#[derive(Debug, Clone)]
pub struct Segment {
    key: Key,
    loaded: Weak<Loaded>,
}

impl Segment {
    pub(crate) fn new(loaded: &Arc<Loaded>) -> Self {
        Self { key: loaded.key, loaded: Arc::downgrade(loaded) }
    }

    /// The segment, if it is the wanted one and still in memory.
    pub(crate) fn get(&self, key: Key) -> Option<Arc<Loaded>> {
        (self.key == key).then(|| self.loaded.upgrade()).flatten()
    }
}

/// Segments by image and index; the least recently used goes first.
#[derive(Debug)]
pub(crate) struct Cache {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// Bytes that one shard may hold.
    shard_capacity: usize,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Key, Entry>,
    bytes: usize,
    /// Counts uses; an entry with a lower number was used longer ago.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    loaded: Arc<Loaded>,
    used: u64,
}

impl Cache {
    /// A cache for `capacity` bytes, at least for one segment.
    pub(crate) fn new(capacity: usize) -> Self {
        let segment = SEGMENT as usize;
        let capacity = capacity.max(segment);
        // Eight segments to a shard at least: with fewer, two busy segments that happen to meet
        // in one shard would push each other out while others stand empty.
        let shards = (capacity / (8 * segment)).clamp(1, 16);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            shard_capacity: capacity / shards,
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        let index = self.hasher.hash_one(key) as usize % self.shards.len();
        &self.shards[index]
    }

    pub(crate) fn get(&self, key: Key) -> Option<Arc<Loaded>> {
        let mut shard = self.shard(&key).lock();
        shard.clock += 1;
        let now = shard.clock;
        let entry = shard.entries.get_mut(&key)?;
        entry.used = now;
        Some(entry.loaded.clone())
    }

    /// Takes a segment in and pushes out what exceeds the capacity.
    pub(crate) fn insert(&self, loaded: Arc<Loaded>) {
        let mut shard = self.shard(&loaded.key).lock();
        let shard = &mut *shard;
        shard.clock += 1;
        shard.bytes += loaded.bytes.len();
        let entry = Entry { used: shard.clock, loaded };
        if let Some(old) = shard.entries.insert(entry.loaded.key, entry) {
            shard.bytes -= old.loaded.bytes.len();
        }
        // A shard holds some dozens of large segments and each insertion follows a read of one
        // from disk, so a look through all of them costs nothing that could be measured. Images
        // smaller than a segment make more entries, which is still a short walk.
        while shard.bytes > self.shard_capacity {
            let oldest = shard.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                break;
            };
            if let Some(entry) = shard.entries.remove(&oldest) {
                shard.bytes -= entry.loaded.bytes.len();
            }
        }
    }

    /// Drops every segment of an image whose copy turned out to be bad.
    pub(crate) fn forget(&self, digest: Digest) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let shard = &mut *shard;
            shard.entries.retain(|key, entry| {
                let keep = key.digest != digest;
                if !keep {
                    shard.bytes -= entry.loaded.bytes.len();
                }
                keep
            });
        }
    }

    /// Bytes held now.
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(index: u64, len: usize) -> Arc<Loaded> {
        Arc::new(Loaded {
            key: Key { digest: Digest::from_bytes([0; 32]), index },
            bytes: vec![0; len].into(),
        })
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mib = SEGMENT as usize;
        let cache = Cache::new(3 * mib);
        let segments: Vec<_> = (0..4).map(|index| segment(index, mib)).collect();
        for segment in &segments[..3] {
            cache.insert(segment.clone());
        }
        assert!(cache.get(segments[0].key).is_some());
        cache.insert(segments[3].clone());
        assert!(cache.get(segments[1].key).is_none());
        for index in [0, 2, 3] {
            assert!(cache.get(segments[index].key).is_some(), "{index}");
        }
        assert_eq!(cache.bytes(), 3 * mib);
    }

    #[test]
    fn it_never_holds_more_than_it_may() {
        for capacity in [0, 5 << 20, 100 << 20] {
            let cache = Cache::new(capacity);
            for index in 0..300 {
                cache.insert(segment(index % 200, 1 + index as usize * 4000 % (1 << 20)));
                assert!(cache.bytes() <= capacity.max(1 << 20));
            }
            let held: usize = (0..200)
                .filter_map(|index| cache.get(segment(index, 0).key))
                .map(|loaded| loaded.bytes.len())
                .sum();
            assert_eq!(held, cache.bytes());
            cache.forget(Digest::from_bytes([0; 32]));
            assert_eq!(cache.bytes(), 0);
        }
    }

    #[test]
    fn a_reader_keeps_nothing_in_memory() {
        let cache = Cache::new(0);
        let first = segment(0, 1 << 20);
        let key = first.key;
        let held = Segment::new(&first);
        cache.insert(first);
        assert!(held.get(key).is_some());
        assert!(held.get(segment(1, 0).key).is_none());
        cache.insert(segment(1, 1 << 20));
        assert!(held.get(key).is_none());
    }
}
