//! Which copies are needed, and which may go.
//!
//! A copy stays while one of these names it:
//! - a file that is where firmware is dropped,
//! - a reader: every transfer holds an [`Image`](crate::Image),
//! - whoever uses the store ([`FirmwareStore::need`](crate::FirmwareStore::need)): what is
//!   catalogued, and what devices ran before,
//! - nobody yet, because it came in the last minute.
//!
//! What nothing names goes after [`Settings::keep_unused`](crate::Settings::keep_unused), and
//! at once where [`Settings::quota`](crate::Settings::quota) or a full disk asks for the room, the
//! longest unused first. Nothing goes before the user of the store has said what it needs.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::digest::Digest;

/// A copy that came just now is named by nobody yet. From there to the catalog it is a matter of
/// milliseconds; a database that is behind may take longer.
const YOUNG: Duration = Duration::from_secs(60);

/// What there is, and what is known of its use. Guarded by one mutex, which is held while a copy
/// is removed, so that one that comes back meanwhile is not removed after it came.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    copies: HashMap<Digest, Copy>,
    bytes: u64,
    /// By the watched place.
    dropped: HashSet<Digest>,
    /// By the user of the store; `None` before it said so.
    needed: Option<HashSet<Digest>>,
}

#[derive(Debug)]
struct Copy {
    size: u64,
    /// When it came, in this run.
    came: Option<Instant>,
    /// Since when nothing names it.
    unused: Option<Instant>,
}

impl Shelf {
    /// Notes a copy, old or new.
    pub(crate) fn add(&mut self, digest: Digest, size: u64, came: Option<Instant>) {
        let copy = Copy { size, came, unused: None };
        let before = self.copies.insert(digest, copy);
        self.bytes = self.bytes - before.map_or(0, |copy| copy.size) + size;
    }

    /// Notes that a copy is not there any more.
    pub(crate) fn remove(&mut self, digest: Digest) {
        if let Some(copy) = self.copies.remove(&digest) {
            self.bytes -= copy.size;
        }
    }

    pub(crate) fn set_dropped(&mut self, digests: HashSet<Digest>) {
        self.dropped = digests;
    }

    pub(crate) fn set_needed(&mut self, digests: HashSet<Digest>) {
        self.needed = Some(digests);
    }

    /// How many copies there are, and their bytes.
    pub(crate) fn sum(&self) -> (usize, u64) {
        (self.copies.len(), self.bytes)
    }

    /// How many bytes there would be with this copy.
    pub(crate) fn bytes_with(&self, digest: Digest, size: u64) -> u64 {
        self.bytes - self.copies.get(&digest).map_or(0, |copy| copy.size) + size
    }

    /// The copies that may go now, the longest unused first. `read` says what readers hold.
    pub(crate) fn superfluous(
        &mut self,
        now: Instant,
        keep_unused: Duration,
        read: &HashSet<Digest>,
    ) -> Vec<Digest> {
        let Some(needed) = &self.needed else { return Vec::new() };
        let mut gone = Vec::new();
        for (digest, copy) in &mut self.copies {
            let young = copy.came.is_some_and(|came| now.duration_since(came) < YOUNG);
            if young || [&self.dropped, needed, read].iter().any(|set| set.contains(digest)) {
                copy.unused = None;
                continue;
            }
            let since = *copy.unused.get_or_insert(now);
            if now.duration_since(since) >= keep_unused {
                gone.push((since, *digest));
            }
        }
        gone.sort();
        gone.into_iter().map(|(_, digest)| digest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn digest(number: u8) -> Digest {
        Digest::from_bytes([number; 32])
    }

    fn set(numbers: &[u8]) -> HashSet<Digest> {
        numbers.iter().map(|number| digest(*number)).collect()
    }

    #[test]
    fn only_what_nothing_names_goes_and_only_after_a_while() {
        let start = Instant::now();
        let mut shelf = Shelf::default();
        for number in 1..=5 {
            shelf.add(digest(number), 10, None);
        }
        shelf.add(digest(5), 10, Some(start + HOUR));
        assert_eq!(shelf.sum(), (5, 50));
        // Nobody said yet what is needed.
        assert!(shelf.superfluous(start, Duration::ZERO, &set(&[])).is_empty());
        shelf.set_dropped(set(&[1]));
        shelf.set_needed(set(&[2]));
        assert!(shelf.superfluous(start, HOUR, &set(&[3])).is_empty());
        let later = start + HOUR;
        assert_eq!(shelf.superfluous(later, HOUR, &set(&[3])), [digest(4)], "5 came just now");
        // Named again for a moment, it begins anew.
        assert!(shelf.superfluous(later, HOUR, &set(&[3, 4])).is_empty());
        assert!(shelf.superfluous(later + HOUR / 2, HOUR, &set(&[3])).is_empty());
        // Where room is needed nothing waits.
        let at_once = shelf.superfluous(later + YOUNG, Duration::ZERO, &set(&[3]));
        assert_eq!(at_once.len(), 2, "{at_once:?}");
        shelf.remove(digest(4));
        assert_eq!(shelf.sum(), (4, 40));
        assert_eq!((shelf.bytes_with(digest(4), 7), shelf.bytes_with(digest(5), 7)), (47, 37));
    }
}
