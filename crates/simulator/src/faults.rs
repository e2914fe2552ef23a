//! The dice of a device: what goes wrong, repeatably.

use std::time::Duration;

use crate::options::Faults;

/// Rolls a device's faults from a seed.
pub(crate) struct Dice {
    faults: Faults,
    random: Random,
    /// Blocks until the connection is dropped.
    until_reconnect: Option<u32>,
    reboots_left: u32,
    /// Blocks until the device reboots, once a download runs.
    until_reboot: Option<u32>,
}

/// What happens to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    Lost,
    Twice,
}

/// What happens to the device after a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    Reconnect,
    Reboot,
}

impl Dice {
    /// The dice of device `number` in a run with `seed`.
    pub(crate) fn new(faults: Faults, seed: u64, number: u32) -> Self {
        Self {
            faults,
            random: Random(seed ^ (u64::from(number) << 32)),
            until_reconnect: Some(faults.reconnect_every).filter(|&every| every > 0),
            reboots_left: faults.reboots,
            until_reboot: None,
        }
    }

    /// A download of `chunks` begins: if a reboot is left, it comes somewhere within.
    pub(crate) fn started(&mut self, chunks: u32) {
        self.until_reboot = None;
        if self.reboots_left > 0 {
            self.reboots_left -= 1;
            // Not after the last block: the download would be over.
            self.until_reboot = Some(1 + self.random.below(chunks.saturating_sub(1).max(1)));
        }
    }

    /// How long the device that reboots is gone.
    pub(crate) fn down(&mut self) -> Duration {
        let most = u32::try_from(self.faults.down.as_millis()).unwrap_or(u32::MAX);
        Duration::from_millis(self.random.below(most.saturating_add(1)).into())
    }

    /// What happens to a request or a block.
    pub(crate) fn fate(&mut self) -> Fate {
        if self.random.happens(self.faults.loss) {
            Fate::Lost
        } else if self.random.happens(self.faults.duplicates) {
            Fate::Twice
        } else {
            Fate::Arrives
        }
    }

    /// What happens after a block has arrived.
    pub(crate) fn after_block(&mut self) -> Option<Mishap> {
        let reconnect = count_down(&mut self.until_reconnect);
        if reconnect {
            self.until_reconnect = Some(self.faults.reconnect_every);
        }
        if count_down(&mut self.until_reboot) {
            return Some(Mishap::Reboot);
        }
        reconnect.then_some(Mishap::Reconnect)
    }
}

/// Counts one down; whether that was the last.
fn count_down(left: &mut Option<u32>) -> bool {
    let Some(count) = left else { return false };
    *count -= 1;
    let over = *count == 0;
    if over {
        *left = None;
    }
    over
}

/// SplitMix64: small, and good enough for dice.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `end` - 1.
    fn below(&mut self, end: u32) -> u32 {
        (((self.next() >> 32) * u64::from(end)) >> 32) as u32
    }

    fn happens(&mut self, probability: f64) -> bool {
        // 53 bits are what an f64 holds exactly.
        let roll = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        roll < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(seed: u64, number: u32) -> Vec<Fate> {
        let faults = Faults { loss: 0.2, duplicates: 0.2, ..Faults::default() };
        let mut dice = Dice::new(faults, seed, number);
        (0..1000).map(|_| dice.fate()).collect()
    }

    #[test]
    fn the_same_seed_rolls_the_same() {
        assert_eq!(fates(7, 3), fates(7, 3));
        assert_ne!(fates(7, 3), fates(8, 3));
        assert_ne!(fates(7, 3), fates(7, 4));
    }

    #[test]
    fn probabilities_are_kept() {
        let all = fates(1, 0);
        let share = |fate| all.iter().filter(|&&f| f == fate).count();
        assert!((150..250).contains(&share(Fate::Lost)), "{}", share(Fate::Lost));
        assert!((110..210).contains(&share(Fate::Twice)), "{}", share(Fate::Twice));
        let mut none = Dice::new(Faults::default(), 1, 0);
        assert!((0..1000).all(|_| none.fate() == Fate::Arrives));
        let mut all = Dice::new(Faults { loss: 1.0, ..Faults::default() }, 1, 0);
        assert!((0..1000).all(|_| all.fate() == Fate::Lost));
    }

    #[test]
    fn reconnects_come_every_so_many_blocks() {
        let mut dice = Dice::new(Faults { reconnect_every: 3, ..Faults::default() }, 1, 0);
        let mishaps: Vec<_> = (0..7).map(|_| dice.after_block()).collect();
        let drop = Some(Mishap::Reconnect);
        assert_eq!(mishaps, [None, None, drop, None, None, drop, None]);
    }

    #[test]
    fn each_reboot_comes_before_the_last_block() {
        for seed in 0..200 {
            let mut dice = Dice::new(Faults { reboots: 2, ..Faults::default() }, seed, 0);
            for _ in 0..2 {
                dice.started(5);
                let at = (1..5).find(|_| dice.after_block().is_some());
                assert!(at.is_some(), "seed {seed}");
            }
            dice.started(5);
            assert!((0..5).all(|_| dice.after_block().is_none()), "no reboot is left");
        }
    }
}
