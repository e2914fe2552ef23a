//! Records with addresses become one binary, from the lowest address to the highest, with 0xFF
//! where nothing is said, as erased flash has it.
//!
//! A file is read twice: first for the [`Ranges`] that it covers, which decide whether it is one
//! image at all, and then to put each record where it belongs. Records may come in any order.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use super::{Problem, refuse};

/// Separate ranges in one file. Those of an image that was linked are some dozen.
const MAX_RANGES: usize = 4096;

/// The widest gap within one image. Wider ones lie between an application and a boot loader, a
/// file system or registers that are flashed with it by cable.
const MAX_GAP: u64 = 1 << 20;

/// The addresses that records cover: from, and up to but without.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a record, which may touch another and not overlap it.
    pub(super) fn add(&mut self, address: u64, len: usize) -> Result<(), Problem> {
        if len == 0 {
            return Ok(());
        }
        let (mut from, mut to) = (address, address + len as u64);
        if let Some((before, end)) = self.0.range(..=from).next_back().map(|(a, b)| (*a, *b)) {
            if end > from {
                return refuse(format!(
                    "two of its records are for the address {from:#x}: build it again, or drop \
                     the .bin"
                ));
            }
            if end == from {
                self.0.remove(&before);
                from = before;
            }
        }
        if let Some((after, end)) = self.0.range(from..).next().map(|(a, b)| (*a, *b)) {
            if after < to {
                return refuse(format!(
                    "two of its records are for the address {after:#x}: build it again, or drop \
                     the .bin"
                ));
            }
            if after == to {
                self.0.remove(&after);
                to = end;
            }
        }
        self.0.insert(from, to);
        if self.0.len() > MAX_RANGES {
            return refuse(format!(
                "its records cover more than {MAX_RANGES} separate ranges of addresses: drop the \
                 .bin instead"
            ));
        }
        Ok(())
    }

    /// Whether this is one image of at most `limit` bytes.
    pub(super) fn check(self, limit: u64) -> Result<Self, Problem> {
        let (Some(begin), Some(end)) = (self.begin(), self.0.values().next_back().copied()) else {
            return refuse("it has no data: build it again");
        };
        for (to, from) in self.gaps() {
            if from - to > MAX_GAP {
                return refuse(format!(
                    "its records lie up to {to:#x} and again from {from:#x} on, which is more \
                     than one image: drop the application alone"
                ));
            }
        }
        if end - begin > limit {
            return refuse(format!(
                "its addresses {begin:#x} to {end:#x} make an image of {} bytes, more than \
                 store.max_size allows ({limit})",
                end - begin
            ));
        }
        Ok(self)
    }

    fn begin(&self) -> Option<u64> {
        self.0.keys().next().copied()
    }

    fn gaps(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.values().copied().zip(self.0.keys().copied().skip(1))
    }
}

/// The binary in the making.
pub(super) struct Image<'a, W: Write + Seek> {
    out: BufWriter<&'a mut W>,
    ranges: &'a Ranges,
    begin: u64,
    /// The address that the next byte is written to.
    at: u64,
}

impl<'a, W: Write + Seek> Image<'a, W> {
    pub(super) fn new(ranges: &'a Ranges, out: &'a mut W) -> Result<Self, Problem> {
        let begin = ranges.begin().unwrap_or_default();
        let out = BufWriter::with_capacity(super::CHUNK, out);
        Ok(Self { out, ranges, begin, at: begin })
    }

    pub(super) fn put(&mut self, address: u64, data: &[u8]) -> Result<(), Problem> {
        if data.is_empty() {
            return Ok(());
        }
        self.go_to(address)?;
        self.out.write_all(data)?;
        self.at += data.len() as u64;
        Ok(())
    }

    /// Fills the gaps. Returns the size of the whole.
    pub(super) fn finish(mut self) -> Result<u64, Problem> {
        let empty = [0xFF; 4096];
        for (mut from, to) in self.ranges.gaps().collect::<Vec<_>>() {
            self.go_to(from)?;
            while from < to {
                let part = &empty[..usize::try_from(to - from).unwrap_or(4096).min(4096)];
                self.put(from, part)?;
                from += part.len() as u64;
            }
        }
        self.out.flush()?;
        let end = self.ranges.0.values().next_back().copied().unwrap_or(self.begin);
        Ok(end - self.begin)
    }

    fn go_to(&mut self, address: u64) -> io::Result<()> {
        if self.at != address {
            self.out.seek(SeekFrom::Start(address.saturating_sub(self.begin)))?;
            self.at = address;
        }
        Ok(())
    }
}
