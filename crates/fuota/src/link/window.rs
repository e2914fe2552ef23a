//! What one connection asked for from one transfer: its window of blocks and the limits of rule 17.

use std::{
    collections::{HashMap, VecDeque},
    ops::{Deref, DerefMut, Range},
    sync::{Arc, LazyLock},
    time::Duration,
};

use store::Segment;
use tokio::time::Instant;

use super::{Cut, Lane, Wanted};
use crate::{
    dialect::{BlockSize, Echo, ImageTag},
    limits::Bucket,
};

/// How often one block may be asked for within [`REPEAT_WINDOW`] before it is slowed down.
const REPEATS: u32 = 5;
const REPEAT_WINDOW: Duration = Duration::from_secs(60);
/// Then it is answered once in this time.
const REPEAT_PACE: Duration = Duration::from_secs(1);
/// How many image sizes one connection may ask for.
const LOOP_FACTOR: u64 = 3;
/// Blocks whose repetition is noticed, in words of 64: an image of the largest size in blocks of
/// 4 KB has fewer.
const MAX_ASKED_WORDS: usize = 1 << 14;
/// Blocks whose repetition is remembered.
const MAX_REPEATS: usize = 1 << 16;
/// Ranges of blocks that may wait for room in the window.
const MAX_BACKLOG: usize = 2048;

/// What one connection asked for from one transfer.
#[derive(Default)]
pub struct Window {
    /// Accepted and not yet written: in the outbox, due or paced.
    pub open: u32,
    /// To be sent in this order: the outbox has no room for the first one, or it is being read.
    pub due: VecDeque<Wanted>,
    /// Named by requests for many blocks, and not yet their turn.
    pub backlog: VecDeque<(Range<u32>, BlockSize, Option<ImageTag>, Echo)>,
    /// Whether a task reads the first of what is due.
    pub reading: bool,
    /// Whether a timer is set that tries again, since the outbox had no room.
    pub retries: bool,
    /// The caps on bytes a second that its blocks pay into.
    pub buckets: Vec<Arc<Bucket>>,
    /// Admitted, and waiting for their turn under those.
    pub paced: VecDeque<Wanted>,
    /// When the turn of the first of those comes: a timer is set.
    pub turn: Option<Instant>,
    /// The cached part of the image that the last block came from.
    pub held: Option<Segment>,
    /// Whether the device was told that its window is full, since it last was not.
    pub told_full: bool,
    pub last_request: Option<Instant>,
    /// The receipt of blocks of the size that was asked for last, where it is another.
    pub cut: Option<Arc<Cut>>,
    /// What the indices below count.
    size: BlockSize,
    /// Firmware bytes that were accepted on this connection.
    bytes: u64,
    asked: Vec<u64>,
    repeats: HashMap<u32, Repeat>,
    gaps: Gaps,
}

/// The same, with memory once something was asked for: most devices idle, and most clients never
/// ask.
#[derive(Default)]
pub struct LazyWindow(Option<Box<Window>>);

/// What everybody has asked for who asked for nothing.
static NOTHING: LazyLock<Window> = LazyLock::new(Window::default);

impl Deref for LazyWindow {
    type Target = Window;

    fn deref(&self) -> &Window {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for LazyWindow {
    fn deref_mut(&mut self) -> &mut Window {
        self.0.get_or_insert_default()
    }
}

struct Repeat {
    since: Instant,
    count: u32,
    last: Instant,
    /// An answer is due at `last` plus [`REPEAT_PACE`].
    deferred: bool,
}

/// What follows from the limits of rule 17 for one request.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Answer it.
    Answer,
    /// Answer it at this time.
    Later(Instant),
    /// An answer to the same is due already.
    Merged,
    /// The window is full; tell the device.
    Full,
    /// The window is full, and the device was told.
    StillFull,
    /// It asked for more than three times the image.
    Loop,
}

impl Window {
    /// Admits a request for block `index` of `length` bytes at `now`.
    pub fn admit(
        &mut self,
        index: u32,
        size: BlockSize,
        length: usize,
        image: u64,
        max_window: u32,
        now: Instant,
    ) -> Admission {
        if self.size != size {
            // Repeats are told by the index; what is asked for in all counts on.
            self.size = size;
            self.asked.clear();
            self.repeats.clear();
        }
        if let Some(last) = self.last_request.replace(now) {
            self.gaps.add(now - last);
        }
        if self.open >= max_window {
            return if std::mem::replace(&mut self.told_full, true) {
                Admission::StillFull
            } else {
                Admission::Full
            };
        }
        self.told_full = false;
        if self.bytes + length as u64 > image * LOOP_FACTOR {
            return Admission::Loop;
        }
        if self.note(index)
            && let Some(other) = self.repeat(index, now)
        {
            return other;
        }
        self.bytes += length as u64;
        self.open += 1;
        Admission::Answer
    }

    /// A deferred answer is due: it enters the window.
    pub fn admit_deferred(&mut self, index: u32, length: usize, now: Instant) {
        if let Some(repeat) = self.repeats.get_mut(&index) {
            repeat.deferred = false;
            repeat.last = now;
        }
        self.bytes += length as u64;
        self.open += 1;
    }

    /// Queues the blocks of one request; `false` where too many wait already.
    pub fn queue(&mut self, wanted: Wanted) -> bool {
        if self.backlog.len() + wanted.more.len() >= MAX_BACKLOG {
            return false;
        }
        let Wanted { index, more, size, image, echo, .. } = wanted;
        self.backlog.push_back((index..index.saturating_add(1), size, image, echo.clone()));
        self.backlog.extend(more.into_iter().map(|range| (range, size, image, echo.clone())));
        true
    }

    /// The next block of those, while the window has room.
    pub fn next_queued(&mut self, max_window: u32) -> Option<Wanted> {
        if self.open >= max_window {
            return None;
        }
        let (range, size, image, echo) = self.backlog.front_mut()?;
        let wanted = Wanted {
            index: range.start,
            more: Vec::new(),
            size: *size,
            image: *image,
            trims: false,
            echo: echo.clone(),
            since: Instant::now(),
        };
        range.start += 1;
        if range.start >= range.end {
            self.backlog.pop_front();
        }
        Some(wanted)
    }

    /// Gives up what was asked for and is not with the outbox. Returns the first of it, whose answer
    /// is that of all.
    pub fn abandon(&mut self) -> Option<Wanted> {
        let mut given_up: VecDeque<_> = self.due.drain(..).chain(self.paced.drain(..)).collect();
        self.open = self.open.saturating_sub(given_up.len() as u32);
        self.turn = None;
        let first = given_up.pop_front().or_else(|| self.next_queued(u32::MAX));
        self.backlog.clear();
        first
    }

    /// The receipt of blocks of this size.
    pub fn cut(&mut self, lane: &Arc<Lane>, size: BlockSize) -> Arc<Cut> {
        match &self.cut {
            Some(cut) if cut.size == size && Arc::ptr_eq(&cut.lane, lane) => Arc::clone(cut),
            _ => {
                let cut = Arc::new(Cut { lane: Arc::clone(lane), size });
                Arc::clone(self.cut.insert(cut))
            }
        }
    }

    /// One is written, or could not be served.
    pub fn close_one(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Whether the index was asked for before on this connection.
    fn note(&mut self, index: u32) -> bool {
        let (word, bit) = (index as usize / 64, 1u64 << (index % 64));
        if word >= MAX_ASKED_WORDS || self.repeats.len() >= MAX_REPEATS {
            return false; // what is asked for in all is bounded still
        }
        if self.asked.len() <= word {
            self.asked.resize(word + 1, 0);
        }
        let before = self.asked[word] & bit != 0;
        self.asked[word] |= bit;
        before
    }

    fn repeat(&mut self, index: u32, now: Instant) -> Option<Admission> {
        let repeat = self.repeats.entry(index).or_insert(Repeat {
            since: now,
            count: 1,
            last: now,
            deferred: false,
        });
        if now - repeat.since >= REPEAT_WINDOW {
            *repeat = Repeat { since: now, count: 0, last: repeat.last, deferred: repeat.deferred };
        }
        repeat.count = repeat.count.saturating_add(1);
        if repeat.deferred {
            return Some(Admission::Merged);
        }
        let due = repeat.last + REPEAT_PACE;
        if repeat.count > REPEATS && now < due {
            repeat.deferred = true;
            return Some(Admission::Later(due));
        }
        repeat.last = now;
        None
    }

    /// The device's own median time between two requests.
    pub fn median_gap(&self) -> Duration {
        self.gaps.median()
    }
}

/// The last times between requests.
#[derive(Default)]
struct Gaps {
    last: [Duration; 16],
    count: usize,
}

impl Gaps {
    fn add(&mut self, gap: Duration) {
        self.last[self.count % self.last.len()] = gap;
        self.count += 1;
    }

    fn median(&self) -> Duration {
        let mut gaps = self.last;
        let known = &mut gaps[..self.count.min(self.last.len())];
        known.sort_unstable();
        known.get(known.len() / 2).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: u64 = 100_000;

    fn ask(window: &mut Window, index: u32, now: Instant) -> Admission {
        let admission = window.admit(index, BlockSize::Pinned, 1000, IMAGE, 4, now);
        if admission == Admission::Answer {
            window.close_one();
        }
        admission
    }

    #[test]
    fn rule_17_the_window_answers_one_error() {
        let (mut window, now) = (Window::default(), Instant::now());
        for index in 0..4 {
            assert_eq!(
                window.admit(index, BlockSize::Pinned, 1000, IMAGE, 4, now),
                Admission::Answer
            );
        }
        assert_eq!(window.admit(4, BlockSize::Pinned, 1000, IMAGE, 4, now), Admission::Full);
        assert_eq!(window.admit(5, BlockSize::Pinned, 1000, IMAGE, 4, now), Admission::StillFull);
        window.close_one();
        assert_eq!(window.admit(4, BlockSize::Pinned, 1000, IMAGE, 4, now), Admission::Answer);
        assert_eq!(
            window.admit(5, BlockSize::Pinned, 1000, IMAGE, 4, now),
            Admission::Full,
            "a new fullness is told anew"
        );
    }

    #[test]
    fn rule_17_the_same_index_more_than_five_times_a_minute_is_answered_once_a_second() {
        let (mut window, start) = (Window::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        for millis in 0..5 {
            assert_eq!(ask(&mut window, 7, at(millis)), Admission::Answer);
        }
        assert_eq!(ask(&mut window, 7, at(10)), Admission::Later(at(1004)));
        assert_eq!(ask(&mut window, 7, at(20)), Admission::Merged);
        assert_eq!(ask(&mut window, 8, at(21)), Admission::Answer, "another index is not slowed");
        window.admit_deferred(7, 1000, at(1004));
        assert_eq!(ask(&mut window, 7, at(1100)), Admission::Later(at(2004)));
        window.admit_deferred(7, 1000, at(2004));
        assert_eq!(
            ask(&mut window, 7, at(62_000)),
            Admission::Answer,
            "a minute later it counts anew"
        );
    }

    #[test]
    fn rule_17_more_than_three_times_the_image_is_a_loop() {
        let (mut window, start) = (Window::default(), Instant::now());
        for turn in 0..3u64 {
            for index in 0..100 {
                let now = start + Duration::from_secs(turn * 100 + u64::from(index));
                assert_eq!(ask(&mut window, index, now), Admission::Answer);
            }
        }
        assert_eq!(ask(&mut window, 0, start + Duration::from_secs(400)), Admission::Loop);
    }

    #[test]
    fn rule_16_the_median_is_the_devices_own() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.median(), Duration::ZERO);
        for seconds in [9, 1, 5] {
            gaps.add(Duration::from_secs(seconds));
        }
        assert_eq!(gaps.median(), Duration::from_secs(5));
    }
}
