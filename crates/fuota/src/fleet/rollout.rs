//! Waves: how many devices a deployment may reach before those before them have shown that it
//! works (rule 21). Pure: who is in and how it went comes in, what follows comes out.

use serde::{Deserialize, Serialize};

/// The share of a wave that may fail before the rollout pauses, where nobody names another.
const PAUSE_AT_PERCENT: u8 = 5;
/// The most waves of one plan.
const MAX_WAVES: usize = 20;

/// How a deployment reaches its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// In order; the last is `{"percent": 100}`.
    pub waves: Vec<Wave>,
    /// It pauses when this share of a wave's devices, of the present one or of one before it, has
    /// failed or is silent; `None`: it never does by itself.
    #[serde(default = "pause_at_percent", deserialize_with = "crate::whole::maybe")]
    pub pause_at_percent: Option<u8>,
}

fn pause_at_percent() -> Option<u8> {
    Some(PAUSE_AT_PERCENT)
}

/// Up to how many devices a wave goes, those of the waves before it included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wave {
    /// So many devices.
    Count(#[serde(deserialize_with = "crate::whole::number")] u32),
    /// This share of the devices that are to get it, rounded up.
    Percent(#[serde(deserialize_with = "crate::whole::number")] u8),
}

/// A plan as REST names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PlanView {
    /// `all` or `canary`.
    Named(PlanName),
    /// Waves.
    Waves(Plan),
}

/// A plan with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanName {
    /// Everybody at once.
    All,
    /// One device, then a tenth, then the rest.
    Canary,
}

impl Plan {
    /// Everybody at once, and no pause.
    pub fn all() -> Plan {
        Plan { waves: vec![Wave::Percent(100)], pause_at_percent: None }
    }

    /// One device, then 10 %, then the rest.
    pub fn canary() -> Plan {
        Plan {
            waves: vec![Wave::Count(1), Wave::Percent(10), Wave::Percent(100)],
            pause_at_percent: Some(PAUSE_AT_PERCENT),
        }
    }

    /// From what was named.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn from_view(view: &PlanView) -> Result<Plan, String> {
        let plan = match view {
            PlanView::Named(PlanName::All) => return Ok(Plan::all()),
            PlanView::Named(PlanName::Canary) => return Ok(Plan::canary()),
            PlanView::Waves(plan) => plan,
        };
        if plan.waves.is_empty() || plan.waves.len() > MAX_WAVES {
            return Err(format!("a rollout has 1 to {MAX_WAVES} waves"));
        }
        if plan.waves.last() != Some(&Wave::Percent(100)) {
            return Err(
                "the last wave must be {\"percent\":100}, so that everybody gets it in the end"
                    .into(),
            );
        }
        let possible = |wave: &Wave| match wave {
            Wave::Count(count) => *count > 0,
            Wave::Percent(percent) => (1..=100).contains(percent),
        };
        if !plan.waves.iter().all(possible) {
            return Err("a wave has a count of at least 1, or a percent of 1 to 100".into());
        }
        let falls = |pair: &[Wave]| match pair {
            [Wave::Count(a), Wave::Count(b)] => a >= b,
            [Wave::Percent(a), Wave::Percent(b)] => a >= b,
            _ => false,
        };
        if plan.waves.windows(2).any(falls) {
            return Err("each wave says up to how many devices it goes in all, so each is larger than the one before".into());
        }
        if plan.pause_at_percent.is_some_and(|percent| !(1..=100).contains(&percent)) {
            return Err("pause_at_percent is 1 to 100, or null for never".into());
        }
        Ok(plan.clone())
    }

    /// Whether this wave is the last, in which everybody may have it.
    pub fn is_last(&self, wave: usize) -> bool {
        wave + 1 >= self.waves.len()
    }

    /// Up to how many of `total` devices this wave goes: at least one, so that a wave for which
    /// there is nobody yet takes whoever comes first.
    pub fn size(&self, wave: usize, total: usize) -> usize {
        match self.waves.get(wave) {
            Some(Wave::Count(count)) => *count as usize,
            Some(Wave::Percent(percent)) => (total * usize::from(*percent)).div_ceil(100).max(1),
            None => total,
        }
    }

    /// How many devices of a wave of `size` must have failed for a pause; `None`: never. Of the
    /// canary, which is the first wave of several, one.
    fn tolerated(&self, wave: usize, size: usize) -> Option<usize> {
        let percent = usize::from(self.pause_at_percent?);
        Some(if wave == 0 && self.waves.len() > 1 {
            1
        } else {
            (size * percent).div_ceil(100).max(1)
        })
    }
}

/// How a rollout stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The wave that is under way, from 0.
    pub wave: usize,
    /// Up to how many devices it goes in all; 0 while that is not known yet.
    pub size: usize,
    /// Devices that are in, of all waves.
    pub admitted: usize,
    /// Of those, devices whose outcome is open.
    pub open: usize,
    /// Of each wave until then, the first one first.
    pub waves: Vec<Tally>,
}

/// How one wave stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Devices that got in with it.
    pub members: usize,
    /// Of those, devices that failed or are silent, and of which nobody knew when the rollout was
    /// resumed.
    pub failed: usize,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for outcomes.
    Stay,
    /// Too many failed, for this reason.
    Pause(String),
    /// The wave has room, and everybody in it has an outcome: look for further devices, and if
    /// there are none, go on to the next wave.
    Fill,
    /// The next wave.
    Next,
}

impl Plan {
    /// What follows from how a running rollout stands.
    pub fn step(&self, standing: &Standing) -> Step {
        let Standing { wave, size, admitted, open, ref waves } = *standing;
        // Also those before it: a device may fail late.
        for (number, Tally { members, failed }) in waves.iter().copied().enumerate() {
            let own = match number == wave {
                // The last wave may have been opened for fewer devices than it has by now.
                true => members.max((size + members).saturating_sub(admitted)),
                false => members,
            };
            if self.tolerated(number, own).is_some_and(|tolerated| failed >= tolerated) {
                let number = number + 1;
                return Step::Pause(format!(
                    "{failed} of {own} devices of wave {number} failed or fell silent"
                ));
            }
        }
        if self.is_last(wave) || open > 0 {
            Step::Stay
        } else if admitted == 0 || admitted < size {
            Step::Fill
        } else {
            Step::Next
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(wave: usize, size: usize, members: usize, failed: usize) -> Standing {
        let mut waves = vec![Tally::default(); wave];
        waves.push(Tally { members, failed });
        Standing { wave, size, admitted: size, open: 0, waves }
    }

    fn pauses(plan: &Plan, standing: Standing) -> bool {
        matches!(plan.step(&standing), Step::Pause(_))
    }

    #[test]
    fn rule_21_the_first_failed_canary_pauses_and_later_five_percent_do() {
        let plan = Plan::canary();
        assert!(pauses(&plan, standing(0, 1, 1, 1)));
        assert_eq!(plan.step(&standing(0, 1, 1, 0)), Step::Next);
        // 100 devices: 1, then 10 in all; of those 9, one is more than 5 %.
        assert!(pauses(&plan, standing(1, 10, 9, 1)));
        // 1000 devices: of 99, four are less and five are not.
        assert!(!pauses(&plan, standing(1, 100, 99, 4)));
        assert!(pauses(&plan, standing(1, 100, 99, 5)));
        // The last wave has 900.
        assert!(!pauses(&plan, standing(2, 1000, 900, 44)));
        assert!(pauses(&plan, standing(2, 1000, 900, 45)));
        assert!(!pauses(&Plan::all(), standing(0, 10, 10, 10)), "everybody at once never pauses");
    }

    #[test]
    fn rule_21_a_canary_that_fails_late_pauses_too() {
        let plan = Plan::canary();
        let mut late = standing(2, 1000, 900, 0);
        late.waves[1].members = 99;
        for (wave, failed, expected) in [(0, 1, true), (1, 4, false), (1, 5, true)] {
            let mut late = late.clone();
            late.waves[wave].failed = failed;
            assert_eq!(pauses(&plan, late), expected, "{failed} of wave {}", wave + 1);
        }
    }

    #[test]
    fn a_wave_ends_when_it_is_full_and_every_outcome_is_known() {
        let plan = Plan::canary();
        let open = Standing { open: 1, ..standing(1, 10, 9, 0) };
        assert_eq!(plan.step(&open), Step::Stay);
        assert_eq!(plan.step(&Standing { admitted: 8, ..standing(1, 10, 7, 0) }), Step::Fill);
        assert_eq!(plan.step(&standing(1, 10, 9, 0)), Step::Next);
        assert_eq!(plan.step(&standing(2, 100, 90, 0)), Step::Stay, "the last one stays open");
        let nobody = standing(0, 0, 0, 0);
        assert_eq!(plan.step(&nobody), Step::Fill, "nobody is no proof");
    }

    #[test]
    fn sizes_are_of_all_devices_so_far() {
        let plan = Plan::canary();
        assert_eq!([0, 1, 2].map(|wave| plan.size(wave, 1000)), [1, 100, 1000]);
        assert_eq!([0, 1, 2].map(|wave| plan.size(wave, 11)), [1, 2, 11]);
        assert_eq!([0, 1, 2].map(|wave| plan.size(wave, 1)), [1, 1, 1]);
        assert_eq!([0, 1].map(|wave| plan.size(wave, 0)), [1, 1], "whoever comes first");
    }

    #[test]
    fn plans_are_checked() {
        let read = |json: &str| {
            serde_json::from_str::<PlanView>(json)
                .map_err(|error| error.to_string())
                .and_then(|view| Plan::from_view(&view))
        };
        assert_eq!(read(r#""all""#), Ok(Plan::all()));
        let canary =
            r#"{"waves":[{"count":1},{"percent":10},{"percent":100}],"pause_at_percent":5}"#;
        assert_eq!(read(canary), Ok(Plan::canary()));
        assert_eq!(
            read(r#"{"waves":[{"count":1},{"percent":10},{"percent":100}]}"#),
            Ok(Plan::canary())
        );
        for (json, why) in [
            (r#"{"waves":[]}"#, "1 to 20"),
            (r#"{"waves":[{"count":1}]}"#, "last wave"),
            (r#"{"waves":[{"count":0},{"percent":100}]}"#, "at least 1"),
            (r#"{"waves":[{"percent":20},{"percent":10},{"percent":100}]}"#, "larger"),
            (r#"{"waves":[{"percent":100}],"pause_at_percent":0}"#, "pause_at_percent"),
        ] {
            let problem = read(json).expect_err(json);
            assert!(problem.contains(why), "{json}: {problem}");
        }
        assert!(read(r#""some""#).is_err() && read(r#"{"waves":[{"tenth":1}]}"#).is_err());
    }
}
