//! What was told lately, for whoever listens: a bounded log that nobody waits for.
//!
//! A listener that falls behind by more than the log keeps loses the oldest and is told how
//! many. It can go on from a place that it names, also on another connection; a place of an
//! earlier run of the program is unknown, since the log ends with it.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::secret::random_bytes;

/// See [the module](self).
pub struct Ring<T> {
    log: Mutex<Log<T>>,
    /// How far the log has come; its end is the end of all listeners.
    come: watch::Sender<u64>,
    capacity: usize,
    /// Tells the places of this run from those of others.
    run: String,
}

struct Log<T> {
    kept: VecDeque<T>,
    /// Where the oldest that is kept stands.
    first: u64,
    open: bool,
}

impl<T> Log<T> {
    fn next(&self) -> u64 {
        self.first + self.kept.len() as u64
    }
}

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard<T> {
    /// The next one.
    One(T),
    /// So many are lost to this listener; `None`: nobody knows how many.
    Missed(Option<u64>),
}

impl<T: Clone> Ring<T> {
    pub fn new(capacity: usize) -> Ring<T> {
        // Without random numbers two runs might be taken for one another, for a moment.
        let run = random_bytes::<4>().unwrap_or_default();
        Ring {
            log: Mutex::new(Log { kept: VecDeque::new(), first: 0, open: true }),
            come: watch::Sender::new(0),
            capacity,
            run: hex::encode(run),
        }
    }

    pub fn tell(&self, one: T) {
        let mut log = self.log.lock();
        if !log.open {
            return;
        }
        if log.kept.len() == self.capacity {
            log.kept.pop_front();
            log.first += 1;
        }
        log.kept.push_back(one);
        self.come.send_replace(log.next());
    }

    /// Nothing is told any more.
    pub fn close(&self) {
        let mut log = self.log.lock();
        log.open = false;
        self.come.send_replace(log.next());
    }

    /// Where a new listener stands.
    pub fn end(&self) -> Place {
        Place { next: self.log.lock().next(), lost: false }
    }

    /// The oldest that is kept.
    pub fn start(&self) -> Place {
        Place { next: self.log.lock().first, lost: false }
    }

    /// Behind what [`Ring::name`] named; where that is of another run, at the start, and something
    /// was missed.
    pub fn behind(&self, name: &str) -> Place {
        let number = name.strip_prefix(self.run.as_str()).and_then(|rest| rest.strip_prefix('-'));
        let next = number.and_then(|number| number.parse::<u64>().ok());
        let log = self.log.lock();
        match next {
            Some(next) if next <= log.next() => Place { next, lost: false },
            _ => Place { next: log.next(), lost: true },
        }
    }

    /// The name of a place, to go on from.
    pub fn name(&self, place: &Place) -> String {
        format!("{}-{}", self.run, place.next)
    }

    /// What comes next, where it is there already.
    pub fn look(&self, place: &mut Place) -> Option<Heard<T>> {
        if std::mem::take(&mut place.lost) {
            return Some(Heard::Missed(None));
        }
        let log = self.log.lock();
        if place.next < log.first {
            let missed = log.first - place.next;
            place.next = log.first;
            return Some(Heard::Missed(Some(missed)));
        }
        let one = log.kept.get((place.next - log.first) as usize)?;
        place.next += 1;
        Some(Heard::One(one.clone()))
    }

    /// Waits for what comes next; `None` at the end. May be dropped at any moment.
    pub async fn next(&self, place: &mut Place) -> Option<Heard<T>> {
        let mut come = self.come.subscribe();
        loop {
            come.mark_unchanged();
            if let Some(heard) = self.look(place) {
                return Some(heard);
            }
            if !self.log.lock().open {
                return None;
            }
            come.changed().await.ok()?;
        }
    }
}

/// How far a listener has come.
#[derive(Clone, Debug)]
pub struct Place {
    next: u64,
    /// It cannot know what came before.
    lost: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_listener_is_told_what_it_lost_and_the_end_comes() {
        let ring = Ring::new(4);
        let mut place = ring.end();
        for number in 0..6 {
            ring.tell(number);
        }
        assert_eq!(ring.next(&mut place).await, Some(Heard::Missed(Some(2))));
        for number in 2..6 {
            assert_eq!(ring.next(&mut place).await, Some(Heard::One(number)));
        }
        assert_eq!(ring.look(&mut place), None);
        let waiting = async { ring.next(&mut place).await };
        let (heard, ()) = tokio::join!(waiting, async { ring.tell(6) });
        assert_eq!(heard, Some(Heard::One(6)));
        ring.tell(7);
        ring.close();
        ring.tell(8);
        assert_eq!(
            ring.next(&mut place).await,
            Some(Heard::One(7)),
            "what was told before the end"
        );
        assert_eq!(ring.next(&mut place).await, None);
    }

    #[test]
    fn a_listener_goes_on_where_another_stood() {
        let ring = Ring::new(4);
        let place = ring.end();
        let name = ring.name(&place);
        ring.tell('a');
        ring.tell('b');
        let mut again = ring.behind(&name);
        assert_eq!(ring.look(&mut again), Some(Heard::One('a')));
        assert_eq!(ring.look(&mut ring.behind(&ring.name(&again))), Some(Heard::One('b')));
        for unknown in
            ["", "x", "00000000-0", &format!("{}-9", ring.run), &format!("{}--1", ring.run)]
        {
            if unknown == format!("{}-0", ring.run) {
                continue;
            }
            let mut place = ring.behind(unknown);
            assert_eq!(ring.look(&mut place), Some(Heard::Missed(None)), "{unknown:?}");
            assert_eq!(ring.look(&mut place), None, "it goes on from now");
        }
        assert_eq!(ring.look(&mut ring.start()), Some(Heard::One('a')));
    }
}
