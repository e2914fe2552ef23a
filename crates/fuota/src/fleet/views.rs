//! Deployments as REST and the command line show and take them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    rollout::{Plan, PlanView},
    target::TargetView,
};
use crate::{Limits, Windows};

/// A deployment to make.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDeployment {
    /// Which firmware, by its id.
    pub firmware: String,
    /// For whom.
    pub target: TargetView,
    /// In which waves; where none is named, as a dropped file is rolled out.
    #[serde(default)]
    pub rollout: Option<PlanView>,
    /// Whether it may go below the version that a device runs, and to a device that was given
    /// these bytes before.
    #[serde(default)]
    pub downgrade: bool,
    /// When its manifests may go out, instead of in the site's maintenance windows: texts such
    /// as `mon-fri 22:00-04:00 Europe/Berlin`; an empty list: at any time.
    #[serde(default)]
    pub windows: Option<Vec<String>>,
    /// Caps, beside those of the site.
    #[serde(default)]
    pub limits: Limits,
}

/// One deployment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeploymentView {
    /// Its number.
    pub id: String,
    /// `held`, `running`, `paused`, `cancelled` or `ended`.
    pub state: &'static str,
    /// Why it is held, paused or over, or why it offers nothing although it runs.
    pub reason: Option<String>,
    /// What it offers.
    pub firmware: DeployedFirmware,
    /// For whom.
    pub target: TargetView,
    /// Whether it may go below the version that a device runs.
    pub downgrade: bool,
    /// In which waves.
    pub rollout: Plan,
    /// Its own maintenance windows, where it has some; an empty list: at any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<Windows>,
    /// Its own caps, where it has some.
    #[serde(skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// The wave under way, from 1.
    pub wave: usize,
    /// Up to how many devices that wave goes in all; 0 while it is not open yet.
    pub wave_size: usize,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// By whom.
    pub created_by: String,
    /// Devices that were offered it, by the state in which it left them.
    pub counts: BTreeMap<&'static str, usize>,
    /// How many devices are meant and were not offered it: they are done already, do not fit,
    /// wait or are away. Only where one deployment is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_offered: Option<usize>,
    /// Whether everybody whom it is for has an outcome, or needs none. Only where one deployment
    /// is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
}

/// What a deployment offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeployedFirmware {
    /// Its id among the firmware, also when it is no longer listed there.
    pub id: String,
    /// Its path.
    pub path: String,
    /// Its title.
    pub title: Option<String>,
    /// Its version.
    pub version: String,
    /// SHA-256 in hex.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// One device of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberView {
    /// The device.
    pub device: String,
    /// Where it stands with this deployment; `None` before it was offered the image.
    pub state: Option<&'static str>,
    /// Why it failed, or why it was not offered the image.
    pub reason: Option<String>,
    /// The wave in which it got in, from 1.
    pub wave: Option<usize>,
    /// When it last moved, in seconds since 1970.
    pub at: Option<u64>,
}

/// What a deployment would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanReport {
    /// What would be offered.
    pub firmware: DeployedFirmware,
    /// Devices that would be offered it.
    pub devices: Vec<String>,
    /// Devices that are meant and would not, each with the reason.
    pub excluded: Vec<Excluded>,
    /// Firmware bytes to all of them.
    pub bytes: u64,
    /// How long the longest transfer takes, in seconds, at the pace of this site's transfers so
    /// far; `None` before there was one.
    pub seconds: Option<u64>,
    /// Up to how many devices each wave goes.
    pub waves: Vec<usize>,
}

/// A device that would not get a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excluded {
    /// The device.
    pub device: String,
    /// Why not.
    pub reason: String,
}

/// What an operator does with a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Releases a held one; opens the next wave of a running one.
    Approve,
    /// Stops new offers.
    Pause,
    /// Goes on; the failures until now are known.
    Resume,
    /// Stops it for good; running transfers end.
    Cancel,
    /// Offers it again to whom it failed for.
    Retry,
    /// Cancels it, and gives what it reached what they had before.
    Rollback,
}

impl Act {
    /// Each with its name in addresses and the audit.
    const NAMES: [(Act, &'static str); 6] = [
        (Act::Approve, "approve"),
        (Act::Pause, "pause"),
        (Act::Resume, "resume"),
        (Act::Cancel, "cancel"),
        (Act::Retry, "retry"),
        (Act::Rollback, "rollback"),
    ];

    /// The name in addresses and the audit.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(act, _)| *act == self).map_or("", |(_, name)| name)
    }

    /// Back from its name.
    pub fn from_name(name: &str) -> Option<Act> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(act, _)| *act)
    }
}

/// What became of an act.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Acted {
    /// The deployment after it.
    #[serde(flatten)]
    pub deployment: DeploymentView,
    /// Of a retry: how many devices may be offered it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retried: Option<usize>,
    /// Of a rollback: the deployments that give devices what they had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollbacks: Option<Vec<String>>,
    /// Of a rollback: the devices that it cannot take back, each with the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Vec<Excluded>>,
}

/// Whether offers of the site are stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FreezeView {
    /// Whether they are.
    pub frozen: bool,
    /// Since when, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What a device should run, and why it is or is not offered it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WhyView {
    /// The device.
    pub device: String,
    /// One sentence.
    pub sentence: String,
    /// The deployment that it is being given or would be.
    pub deployment: Option<String>,
    /// The state of its newest offer.
    pub state: Option<String>,
}

/// A line of a device's timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HappeningView {
    /// Its number; later ones are higher.
    pub id: String,
    /// In seconds since 1970.
    pub at: u64,
    /// What happened: `offered`, a state's name, …
    pub action: String,
    /// What belongs to it: a digest, a reason.
    pub detail: Option<String>,
    /// The deployment that it belongs to.
    pub deployment: Option<String>,
}

/// A line of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditView {
    /// Its number; later ones are higher.
    pub id: String,
    /// In seconds since 1970.
    pub at: u64,
    /// Who did it; `None`: the broker.
    pub actor: Option<String>,
    /// The address that the request came from.
    pub origin: Option<String>,
    /// To what.
    pub subject: String,
    /// What was done.
    pub action: String,
    /// What belongs to it.
    pub detail: Option<String>,
}
