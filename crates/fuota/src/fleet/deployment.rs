//! One deployment: what, to whom, in which waves, and what each device made of it.

use std::{collections::HashMap, sync::Arc};

use super::{
    conditions::Conditions,
    rollout::{Plan, Standing, Tally},
    target::Target,
};
use crate::{
    db::{DeploymentRow, MemberRow, Op},
    policy::History,
    state::UpdateState,
    transfer::unix_now,
};

/// What a deployment does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeploymentState {
    /// It waits for an operator's approval: nothing is offered, nothing superseded.
    Held,
    /// It is offered as far as its waves go.
    Running,
    /// Nothing new is offered until an operator resumes it; running transfers finish.
    Paused,
    /// An operator stopped it for good, or withdrew its firmware.
    Cancelled,
    /// Its file is gone or was overwritten; running transfers finish.
    Ended,
}

impl DeploymentState {
    /// Each with its name in listings and in the database.
    const NAMES: [(DeploymentState, &'static str); 5] = [
        (DeploymentState::Held, "held"),
        (DeploymentState::Running, "running"),
        (DeploymentState::Paused, "paused"),
        (DeploymentState::Cancelled, "cancelled"),
        (DeploymentState::Ended, "ended"),
    ];

    /// The names alone.
    pub const NAME_LIST: [&'static str; 5] = {
        let mut names = [""; 5];
        let mut at = 0;
        while at < names.len() {
            names[at] = Self::NAMES[at].1;
            at += 1;
        }
        names
    };

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    pub fn from_name(name: &str) -> Option<DeploymentState> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(state, _)| *state)
    }

    /// Whether it will never offer anything again.
    pub fn is_over(self) -> bool {
        matches!(self, DeploymentState::Cancelled | DeploymentState::Ended)
    }
}

/// See [the module](self).
#[derive(Clone, Debug)]
pub struct Deployment {
    pub id: i64,
    /// Which row of the catalog's files it offers.
    pub file: i64,
    pub target: Target,
    /// [`Target::tier`]; of a rollback that of the deployment which it takes back.
    pub tier: u8,
    pub plan: Plan,
    /// It may go below the version that a device runs, and to a device that had it before.
    pub downgrade: bool,
    pub state: DeploymentState,
    /// Why it is held, paused or over.
    pub reason: Option<String>,
    /// The wave under way, from 0.
    pub wave: usize,
    /// Up to how many devices that goes in all; 0 while it is not known yet.
    pub size: usize,
    /// Position in the order of creations and removals, as a file's.
    pub created: i64,
    /// Seconds since 1970.
    pub created_at: u64,
    pub created_by: String,
    /// Position in the same order, once it is over.
    pub ended: Option<i64>,
    /// What the creator named the request, so that it can be repeated.
    pub key: Option<String>,
    /// Its windows and caps.
    pub conditions: Conditions,
    pub members: HashMap<Arc<str>, Member>,
    /// Members that are in and count (rule 5).
    pub(super) admitted: usize,
}

/// One device in one deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    /// The wave in which it got in; `None`: a rollback lists it.
    pub wave: Option<usize>,
    /// Whether it counts in waves and thresholds (rule 5).
    pub counts: bool,
    /// Where it stands; `None` before it was offered the image.
    pub state: Option<UpdateState>,
    /// It failed or fell silent, and has not run the image since.
    pub failed: bool,
    /// Whoever resumed the rollout knew of that.
    pub forgiven: bool,
    /// It was brought to downloaded or further.
    pub reached: bool,
    /// What it experienced because of this deployment.
    pub history: History,
    /// The file that it was confirmed with before.
    pub before: Option<i64>,
    /// When it last moved, in seconds since 1970.
    pub at: u64,
    /// Who took it out: it is offered this no more, until a retry names it.
    pub cancelled: Option<String>,
}

impl Member {
    /// Takes over what its transfer says.
    pub fn moved(&mut self, state: UpdateState) {
        match state {
            // A further failure is another one than that of which somebody knew.
            UpdateState::Failed(_) | UpdateState::Silent | UpdateState::Stalled => {
                (self.failed, self.forgiven) = (true, false);
            }
            UpdateState::Updated | UpdateState::UpdatedUnconfirmed => {
                (self.failed, self.forgiven) = (false, false);
            }
            _ => {}
        }
        self.reached |= state.has_image();
        self.at = unix_now();
        self.state = Some(state);
    }

    /// Whether its outcome is open. Of a device that was cancelled and that nobody took out, it
    /// is: the server ended before it wrote that all of its deployment was cancelled. One that had
    /// an outcome before was offered it again, and that was taken back.
    fn is_open(&self) -> bool {
        let cut_short = self.state == Some(UpdateState::Cancelled)
            && self.cancelled.is_none()
            && !self.failed
            && !self.reached;
        let settled = self.state.as_ref().is_some_and(UpdateState::is_settled);
        self.wave.is_some() && (!settled || cut_short)
    }

    pub fn row(&self, deployment: i64, device: &str) -> MemberRow {
        MemberRow {
            deployment,
            device: device.into(),
            wave: self.wave.map(|wave| wave as i64),
            counts: self.counts,
            state: self.state.as_ref().map(|state| state.name().into()),
            reason: self.state.as_ref().and_then(|state| state.reason().map(str::to_owned)),
            failed: self.failed,
            reached: self.reached,
            offers: self.history.offers,
            deliveries: self.history.deliveries,
            differs: self.history.differs,
            before: self.before,
            at: self.at,
            cancelled: self.cancelled.clone(),
            forgiven: self.forgiven,
        }
    }

    pub fn from_row(row: &MemberRow) -> Member {
        let state = row.state.as_deref();
        let state = state.and_then(|name| UpdateState::from_name(name, row.reason.clone()));
        Member {
            wave: row.wave.map(|wave| wave.max(0) as usize),
            counts: row.counts,
            state: match state {
                Some(UpdateState::Silent) if !row.reached => Some(UpdateState::Stalled),
                state => state,
            },
            failed: row.failed,
            forgiven: row.forgiven,
            reached: row.reached,
            history: History {
                offers: row.offers,
                deliveries: row.deliveries,
                differs: row.differs,
                // What waits is the device's, whatever deployment it failed in.
                wait: None,
            },
            before: row.before,
            at: row.at,
            cancelled: row.cancelled.clone(),
        }
    }
}

impl Deployment {
    /// A running one of this file, for everybody at once, by nobody; the caller changes what
    /// differs.
    pub fn new(id: i64, file: i64, target: Target, created: i64) -> Deployment {
        Deployment {
            id,
            file,
            tier: target.tier(),
            target,
            plan: Plan::all(),
            downgrade: false,
            state: DeploymentState::Running,
            reason: None,
            wave: 0,
            size: 0,
            created,
            created_at: unix_now(),
            created_by: String::new(),
            ended: None,
            key: None,
            conditions: Conditions::default(),
            members: HashMap::new(),
            admitted: 0,
        }
    }

    /// As the database holds it; `None` where the row makes no sense.
    pub fn from_row(row: &DeploymentRow) -> Option<Deployment> {
        let target = Target::from_text(&row.target)?;
        Some(Deployment {
            tier: row.tier,
            plan: serde_json::from_str(&row.plan).ok()?,
            downgrade: row.downgrade,
            state: DeploymentState::from_name(&row.state)?,
            reason: row.reason.clone(),
            wave: row.wave,
            size: row.size,
            created_at: row.created_at,
            created_by: row.created_by.clone(),
            ended: row.ended_seq,
            key: row.key.clone(),
            conditions: serde_json::from_str(&row.conditions).ok()?,
            ..Deployment::new(row.id, row.file, target, row.created_seq)
        })
    }

    pub fn row(&self) -> DeploymentRow {
        DeploymentRow {
            id: self.id,
            file: self.file,
            target: self.target.to_string(),
            tier: self.tier,
            // A struct of numbers always serializes.
            plan: serde_json::to_string(&self.plan).unwrap_or_default(),
            downgrade: self.downgrade,
            state: self.state.name().into(),
            reason: self.reason.clone(),
            wave: self.wave,
            size: self.size,
            created_seq: self.created,
            created_at: self.created_at,
            created_by: self.created_by.clone(),
            ended_seq: self.ended,
            key: self.key.clone(),
            conditions: serde_json::to_string(&self.conditions).unwrap_or_default(),
        }
    }

    /// Puts a device in, or changes how it stands.
    pub fn put(&mut self, device: &Arc<str>, member: Member) {
        let counts = |member: &Member| usize::from(member.wave.is_some() && member.counts);
        self.admitted += counts(&member);
        if let Some(old) = self.members.insert(Arc::clone(device), member) {
            self.admitted -= counts(&old);
        }
    }

    /// Takes a device out.
    pub fn take(&mut self, device: &str) -> Option<Member> {
        let member = self.members.remove(device)?;
        self.admitted -= usize::from(member.wave.is_some() && member.counts);
        Some(member)
    }

    /// Whether this device may be offered it now; else why not.
    pub fn admits(&self, device: &str, counts: bool) -> Result<(), String> {
        let number = self.id;
        match self.state {
            DeploymentState::Running => {}
            DeploymentState::Paused => {
                let reason = self.reason.as_deref().unwrap_or("an operator paused it");
                return Err(format!("deployment {number} is paused: {reason}"));
            }
            state => return Err(format!("deployment {number} is {}", state.name())),
        }
        let is_in = self.members.get(device).is_some_and(|member| member.wave.is_some());
        if is_in || self.plan.is_last(self.wave) {
            return Ok(());
        }
        let waves = self.plan.waves.len();
        let wave = self.wave + 1;
        if !counts {
            return Err(format!(
                "deployment {number} is at wave {wave} of {waves}, and devices without registration come last"
            ));
        }
        if self.admitted < self.size {
            return Ok(());
        }
        Err(format!(
            "deployment {number} is at wave {wave} of {waves}; this device's turn comes later"
        ))
    }

    /// Lets a device in that [`admits`](Deployment::admits) names.
    ///
    /// # Errors
    /// As there.
    pub fn admit(&mut self, device: &Arc<str>, counts: bool) -> Result<(), String> {
        self.admits(device, counts)?;
        let listed = self.members.get(device);
        if listed.is_none_or(|member| member.wave.is_none()) {
            let member = Member {
                wave: Some(self.wave),
                counts,
                at: unix_now(),
                ..listed.cloned().unwrap_or_default()
            };
            self.put(device, member);
        }
        Ok(())
    }

    /// Gives the place of a device that was let in and offered nothing to another one.
    pub fn release(&mut self, device: &Arc<str>) -> bool {
        match self.members.get(device) {
            Some(member) if member.wave.is_some() && member.state.is_none() => {}
            _ => return false,
        }
        let Some(member) = self.take(device) else { return false };
        if matches!(self.target, Target::Rollback(_)) {
            self.put(device, Member { wave: None, ..member });
        }
        true
    }

    /// An operator takes a device out. Its place goes to another one, unless it failed in it: a
    /// wave does not forget that.
    pub fn take_out(&mut self, device: &Arc<str>, by: &str) {
        let mut member = self.take(device).unwrap_or_default();
        member.counts &= member.failed;
        member.cancelled = Some(by.into());
        self.put(device, member);
    }

    /// A device may be offered it again, as if it had experienced nothing. One that was taken
    /// out without its place needs a new one.
    pub fn again(&mut self, device: &Arc<str>) -> Option<&Member> {
        let member = self.take(device)?;
        let lost = member.cancelled.is_some() && !member.counts;
        let member = Member {
            wave: member.wave.filter(|_| !lost),
            state: None,
            failed: false,
            forgiven: false,
            history: History::default(),
            at: unix_now(),
            cancelled: None,
            ..member
        };
        self.put(device, member);
        self.members.get(device)
    }

    /// How its rollout stands.
    pub fn standing(&self) -> Standing {
        let waves = self.wave.min(self.plan.waves.len()) + 1;
        let mut standing = Standing {
            wave: self.wave,
            size: self.size,
            admitted: self.admitted,
            open: 0,
            waves: vec![Tally::default(); waves],
        };
        for member in self.members.values().filter(|member| member.counts) {
            standing.open += usize::from(member.is_open());
            if let Some(tally) = member.wave.and_then(|wave| standing.waves.get_mut(wave)) {
                tally.members += 1;
                tally.failed += usize::from(member.failed && !member.forgiven);
            }
        }
        standing
    }

    /// Who resumes it knows of every failure until now. Returns what is to be written.
    pub fn forgive(&mut self) -> Vec<Op> {
        let id = self.id;
        let failed = self.members.iter_mut().filter(|(_, one)| one.failed && !one.forgiven);
        let forgiven = failed.map(|(device, member)| {
            member.forgiven = true;
            Op::Member(member.row(id, device))
        });
        forgiven.collect()
    }

    /// Whether its waves can change anything by themselves.
    pub fn is_staged(&self) -> bool {
        self.plan.waves.len() > 1 || self.plan.pause_at_percent.is_some()
    }

    /// Opens the next wave, for `total` devices that are to get it in all.
    pub fn open_wave(&mut self, wave: usize, total: usize) {
        self.wave = wave;
        self.size = self.plan.size(wave, total);
    }

    /// When anything last happened in it, in seconds since 1970.
    pub fn last_moved(&self) -> u64 {
        let members = self.members.values().map(|member| member.at);
        members.max().unwrap_or(0).max(self.created_at)
    }

    /// It is over.
    pub fn end(&mut self, state: DeploymentState, reason: String, seq: i64) {
        self.state = state;
        self.reason = Some(reason);
        self.ended = Some(seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::rollout::Step;

    /// Its first wave is done, and these are in the second.
    fn second_wave(number: usize) -> (Deployment, Vec<Arc<str>>) {
        let mut deployment = Deployment::new(1, 1, Target::All, 1);
        deployment.plan = Plan::canary();
        deployment.open_wave(1, 10 * number);
        let devices: Vec<Arc<str>> = (0..number).map(|at| format!("dev-{at}").into()).collect();
        for device in &devices {
            deployment.admit(device, true).unwrap();
        }
        (deployment, devices)
    }

    fn moved(deployment: &mut Deployment, device: &str, state: UpdateState) {
        deployment.members.get_mut(device).unwrap().moved(state);
    }

    fn pauses(deployment: &Deployment) -> bool {
        matches!(deployment.plan.step(&deployment.standing()), Step::Pause(_))
    }

    #[test]
    fn rule_21_a_forgiven_failure_hides_no_later_one() {
        let failed = || UpdateState::Failed("flash".into());
        let (mut deployment, devices) = second_wave(10);
        moved(&mut deployment, &devices[0], failed());
        assert!(pauses(&deployment));
        assert_eq!(deployment.forgive().len(), 1);
        assert!(!pauses(&deployment), "who resumed it knew");
        assert!(deployment.forgive().is_empty());
        // That one succeeds, and another fails.
        moved(&mut deployment, &devices[0], UpdateState::Updated);
        moved(&mut deployment, &devices[1], failed());
        assert!(pauses(&deployment));
        deployment.forgive();
        // The same device fails once more.
        moved(&mut deployment, &devices[1], UpdateState::Offered);
        assert!(!pauses(&deployment));
        moved(&mut deployment, &devices[1], failed());
        assert!(pauses(&deployment));
        // Five of a hundred, as the threshold has it.
        let (mut deployment, devices) = second_wave(100);
        for fail in [0..5, 5..10] {
            for at in fail.clone() {
                assert!(!pauses(&deployment));
                moved(&mut deployment, &devices[at], failed());
            }
            assert!(pauses(&deployment));
            deployment.forgive();
            fail.for_each(|at| moved(&mut deployment, &devices[at], UpdateState::Updated));
        }
    }

    #[test]
    fn rule_21_late_failures_of_the_waves_before_count_as_they_did_then() {
        let (mut deployment, devices) = second_wave(10);
        deployment.open_wave(2, 1000);
        assert!(!pauses(&deployment));
        moved(&mut deployment, &devices[3], UpdateState::Silent);
        assert!(pauses(&deployment), "a tenth of the second wave, whatever the third has");
    }

    #[test]
    fn rule_21_an_offer_taken_back_from_one_that_had_an_outcome_holds_no_wave() {
        let failed = UpdateState::Failed("flash".into());
        let outcomes = [(None, 1), (Some(failed), 0), (Some(UpdateState::Downloaded), 0)];
        for (outcome, open) in outcomes {
            let (mut deployment, devices) = second_wave(1);
            for state in outcome.clone().into_iter().chain([UpdateState::Offered]) {
                moved(&mut deployment, &devices[0], state);
            }
            assert_eq!(deployment.standing().open, 1, "{outcome:?}");
            moved(&mut deployment, &devices[0], UpdateState::Cancelled);
            assert_eq!(deployment.standing().open, open, "{outcome:?}");
        }
    }
}
