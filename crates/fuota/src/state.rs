//! Where one device stands with one image, and the only function that moves it.
//!
//! ```text
//! offered ─ request ─▶ downloading ─ last block ─▶ downloaded ─ heard ─▶ updated_unconfirmed
//!                                                     │ reports: verified, updating
//!                                                     ├─ away too long ─▶ silent
//!    from anywhere: the version is reported ─▶ updated; failure ─▶ failed
//!    while blocks are missing: an operator cancels ─▶ cancelled
//!                              asks no more, stays away ─▶ stalled ─ request ─▶ downloading
//!                                                             └─ an operator retries ─▶ offered
//! ```

/// One state of [the machine](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateState {
    /// Pinned; the manifest is out or on its way.
    Offered,
    /// A block was asked for.
    Downloading,
    /// Every block was written to the device's connection.
    Downloaded,
    /// The device says that the image is whole.
    Verified,
    /// The device says that it installs the image.
    Updating,
    /// The device reports the image's version.
    Updated,
    /// It reports nothing, and was still heard long after its last block.
    UpdatedUnconfirmed,
    /// It went away after its last block and did not come back in time.
    Silent,
    /// It asked no more, or went away for long, before it had the image; it goes on with its next
    /// request. Shown as `silent`, and stored so: which of the two it is, the missing blocks tell.
    Stalled,
    /// It ended badly, for this reason.
    Failed(String),
    /// An operator ended it before the device had the image.
    Cancelled,
}

/// What can happen to a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The device asked for a block.
    Requested,
    /// The last missing block was written.
    Served,
    /// The device says that it has checked the image.
    ReportedVerified,
    /// The device says that it installs the image.
    ReportedUpdating,
    /// The device runs the image's version.
    ReportedVersion,
    /// The device was heard `confirm_after` after its last block.
    Heard,
    /// The device stayed away for `confirm_within`.
    StayedAway,
    /// The device asks no more while blocks are missing: every nudge was in vain, or it stayed
    /// away for `confirm_within`.
    StoppedAsking,
    /// An operator had it offered again to a device that asked no more.
    OfferedAgain,
    /// It went wrong, for this reason.
    WentWrong(String),
    /// An operator cancelled its deployment, or withdrew the image.
    Cancelled,
}

impl UpdateState {
    /// The state after `happened`; `None` where it changes nothing.
    pub fn next(&self, happened: &Happened) -> Option<UpdateState> {
        use Happened as H;
        use UpdateState as S;
        match (self, happened) {
            // The version that runs is the truth, whatever was believed before.
            (S::Updated, _) => None,
            (_, H::ReportedVersion) => Some(S::Updated),
            // The last blocks may have been on their way already.
            (S::Offered | S::Downloading | S::Stalled | S::Cancelled, H::Served) => {
                Some(S::Downloaded)
            }
            // What ended stays ended.
            (S::Failed(_) | S::Cancelled, _) => None,
            (_, H::WentWrong(reason)) => Some(S::Failed(reason.clone())),
            (S::Offered | S::Downloading | S::Stalled, H::Cancelled) => Some(S::Cancelled),

            (S::Offered | S::Stalled, H::Requested) => Some(S::Downloading),
            (S::Offered | S::Downloading, H::StoppedAsking) => Some(S::Stalled),
            (S::Stalled, H::OfferedAgain) => Some(S::Offered),

            (S::Downloaded | S::UpdatedUnconfirmed | S::Silent, H::ReportedVerified) => {
                Some(S::Verified)
            }
            (
                S::Downloaded | S::Verified | S::UpdatedUnconfirmed | S::Silent,
                H::ReportedUpdating,
            ) => Some(S::Updating),

            (S::Downloaded | S::Verified | S::Updating, H::Heard) => Some(S::UpdatedUnconfirmed),
            (S::Downloaded | S::Verified | S::Updating, H::StayedAway) => Some(S::Silent),
            _ => None,
        }
    }

    /// Whether blocks are still missing: the device is being offered this image.
    pub fn is_running(&self) -> bool {
        self.is_under_way() || *self == UpdateState::Stalled
    }

    /// Of those, whether the device is expected to ask for them.
    pub fn is_under_way(&self) -> bool {
        matches!(self, UpdateState::Offered | UpdateState::Downloading)
    }

    /// Whether every block was served and the outcome is open.
    pub fn awaits_outcome(&self) -> bool {
        matches!(self, UpdateState::Downloaded | UpdateState::Verified | UpdateState::Updating)
    }

    /// Whether the device has the whole image, whatever it makes of it.
    pub fn has_image(&self) -> bool {
        use UpdateState as S;
        matches!(
            self,
            S::Downloaded
                | S::Verified
                | S::Updating
                | S::Updated
                | S::UpdatedUnconfirmed
                | S::Silent
        )
    }

    /// Whether the outcome is known.
    pub fn is_settled(&self) -> bool {
        !self.is_under_way() && !self.awaits_outcome()
    }

    /// Whether requests are still answered with blocks.
    pub fn is_servable(&self) -> bool {
        !matches!(self, UpdateState::Failed(_) | UpdateState::Cancelled)
    }

    /// Every name, in the order of an update.
    pub const NAMES: [&str; 10] = [
        "offered",
        "downloading",
        "downloaded",
        "verified",
        "updating",
        "updated",
        "updated_unconfirmed",
        "silent",
        "failed",
        "cancelled",
    ];

    /// The name in listings and in the database.
    pub fn name(&self) -> &'static str {
        match self {
            UpdateState::Offered => "offered",
            UpdateState::Downloading => "downloading",
            UpdateState::Downloaded => "downloaded",
            UpdateState::Verified => "verified",
            UpdateState::Updating => "updating",
            UpdateState::Updated => "updated",
            UpdateState::UpdatedUnconfirmed => "updated_unconfirmed",
            UpdateState::Silent | UpdateState::Stalled => "silent",
            UpdateState::Failed(_) => "failed",
            UpdateState::Cancelled => "cancelled",
        }
    }

    /// Why it failed.
    pub fn reason(&self) -> Option<&str> {
        match self {
            UpdateState::Failed(reason) => Some(reason),
            _ => None,
        }
    }

    /// Back from its [`name`](UpdateState::name) and reason.
    pub fn from_name(name: &str, reason: Option<String>) -> Option<UpdateState> {
        use UpdateState as S;
        Some(match name {
            "failed" => S::Failed(reason.unwrap_or_default()),
            _ => [
                S::Offered,
                S::Downloading,
                S::Downloaded,
                S::Verified,
                S::Updating,
                S::Updated,
                S::UpdatedUnconfirmed,
                S::Silent,
                S::Cancelled,
            ]
            .into_iter()
            .find(|state| state.name() == name)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named() -> impl Strategy<Value = UpdateState> {
        prop::sample::select(UpdateState::NAMES.to_vec())
            .prop_map(|name| UpdateState::from_name(name, Some("loop".into())).expect("a name"))
    }

    fn states() -> impl Strategy<Value = UpdateState> {
        prop_oneof![9 => named(), 1 => Just(UpdateState::Stalled)]
    }

    fn events() -> impl Strategy<Value = Happened> {
        prop::sample::select(vec![
            Happened::Requested,
            Happened::Served,
            Happened::ReportedVerified,
            Happened::ReportedUpdating,
            Happened::ReportedVersion,
            Happened::Heard,
            Happened::StayedAway,
            Happened::StoppedAsking,
            Happened::OfferedAgain,
            Happened::WentWrong("loop".into()),
            Happened::Cancelled,
        ])
    }

    #[test]
    fn rule_19_asking_no_more_is_never_success() {
        let mut state = UpdateState::Offered;
        for happened in [Happened::Requested, Happened::Heard, Happened::StayedAway] {
            state = state.next(&happened).unwrap_or(state);
        }
        assert_eq!(state, UpdateState::Downloading);
        state = state.next(&Happened::Served).expect("all served");
        assert_eq!(state, UpdateState::Downloaded);
        assert_eq!(state.next(&Happened::Heard), Some(UpdateState::UpdatedUnconfirmed));
        assert_eq!(state.next(&Happened::StayedAway), Some(UpdateState::Silent));
    }

    #[test]
    fn rule_16_who_asks_no_more_goes_on_with_its_next_request() {
        let stalled = UpdateState::Downloading.next(&Happened::StoppedAsking).expect("stalled");
        assert_eq!(stalled, UpdateState::Stalled);
        assert!(stalled.is_settled() && stalled.is_servable() && !stalled.has_image());
        assert_eq!(stalled.name(), "silent");
        assert_eq!(stalled.next(&Happened::Requested), Some(UpdateState::Downloading));
        assert_eq!(stalled.next(&Happened::Heard), None, "hearing it is no progress");
        assert_eq!(UpdateState::Silent.next(&Happened::Requested), None, "it has the image");
    }

    proptest! {
        #[test]
        fn success_is_never_lost_and_ends_are_ends(state in states(), happened in events()) {
            let next = state.next(&happened);
            if state == UpdateState::Updated {
                prop_assert_eq!(next, None);
            } else if happened == Happened::ReportedVersion {
                prop_assert_eq!(next, Some(UpdateState::Updated));
            } else if state == UpdateState::Cancelled && happened == Happened::Served {
                prop_assert_eq!(next, Some(UpdateState::Downloaded), "it has the image after all");
            } else if !state.is_servable() {
                prop_assert_eq!(next, None);
            } else if happened == Happened::Cancelled {
                let expected = state.is_running().then_some(UpdateState::Cancelled);
                prop_assert_eq!(next, expected, "who has the image keeps its outcome");
            }
        }

        #[test]
        fn names_round_trip(state in named()) {
            let back = UpdateState::from_name(state.name(), state.reason().map(str::to_owned));
            prop_assert_eq!(back, Some(state));
        }
    }
}
