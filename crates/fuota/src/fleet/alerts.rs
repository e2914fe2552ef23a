//! What an operator is to hear of without looking: something is held, paused, failed or silent,
//! or the store is away. Each follows from a change, where that is the beginning of it.

use std::collections::HashMap;

use serde::Serialize;

use super::events::Change;
use crate::FirmwareState;

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A file, or a deployment, waits for somebody.
    Held,
    /// A deployment stands still.
    Paused,
    /// An update of a device failed.
    Failed,
    /// A device did not come back from an update.
    Silent,
    /// The store cannot be read.
    StoreAway,
    /// It can be read again.
    StoreBack,
    /// There were more than a listener could take.
    Missed,
}

impl AlertKind {
    /// Each with its name in topics, settings and messages.
    pub const NAMES: [(AlertKind, &'static str); 7] = [
        (AlertKind::Held, "held"),
        (AlertKind::Paused, "paused"),
        (AlertKind::Failed, "failed"),
        (AlertKind::Silent, "silent"),
        (AlertKind::StoreAway, "store_away"),
        (AlertKind::StoreBack, "store_back"),
        (AlertKind::Missed, "missed"),
    ];

    /// The name in topics, settings and messages.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// Back from its name.
    pub fn from_name(name: &str) -> Option<AlertKind> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }
}

/// One message to operators. What does not belong to its kind is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// What it is about.
    pub event: AlertKind,
    /// When, in seconds since 1970.
    pub at: u64,
    /// One sentence.
    pub text: String,
    /// The device that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The deployment that is meant, or that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// The file that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The version that the device was offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many messages are lost, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

impl Alert {
    fn new(event: AlertKind, at: u64, text: String) -> Alert {
        Alert {
            event,
            at,
            text,
            device: None,
            deployment: None,
            path: None,
            version: None,
            reason: None,
            lost: None,
        }
    }

    /// In the place of what a listener could not take.
    pub fn missed(at: u64, lost: Option<u64>) -> Alert {
        let text = "more happened than could be told: look at the site itself".into();
        Alert { lost, ..Alert::new(AlertKind::Missed, at, text) }
    }
}

/// What is known, so that only beginnings are told. Bounded by the deployments that are not over.
#[derive(Default)]
pub struct Watch {
    deployments: HashMap<String, &'static str>,
    store_away: bool,
}

impl Watch {
    /// What follows from a change.
    pub fn follow(&mut self, change: &Change) -> Option<Alert> {
        match change {
            Change::Device { at, device, state, reason, deployment, version } => {
                let (event, text) = match *state {
                    "failed" => {
                        let why = reason.as_deref().unwrap_or("no reason is known");
                        (
                            AlertKind::Failed,
                            format!("the update of {device} to {version} failed: {why}"),
                        )
                    }
                    "silent" => (
                        AlertKind::Silent,
                        format!("{device} did not come back from the update to {version}"),
                    ),
                    _ => return None,
                };
                Some(Alert {
                    device: Some(device.clone()),
                    deployment: deployment.clone(),
                    version: Some(version.clone()),
                    reason: reason.clone(),
                    ..Alert::new(event, *at, text)
                })
            }
            Change::Deployment { at, deployment, state, reason, .. } => {
                let before = match matches!(*state, "cancelled" | "ended") {
                    true => self.deployments.remove(deployment),
                    false => self.deployments.insert(deployment.clone(), state),
                };
                let event = match *state {
                    "held" => AlertKind::Held,
                    "paused" => AlertKind::Paused,
                    _ => return None,
                };
                if before == Some(*state) {
                    return None;
                }
                let why = reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
                Some(Alert {
                    deployment: Some(deployment.clone()),
                    reason: reason.clone(),
                    ..Alert::new(event, *at, format!("deployment {deployment} is {state}{why}"))
                })
            }
            Change::Firmware { at, path, state: FirmwareState::Held, reason } => {
                let why = reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
                Some(Alert {
                    path: Some(path.clone()),
                    reason: reason.clone(),
                    ..Alert::new(AlertKind::Held, *at, format!("{path} is held{why}"))
                })
            }
            Change::Site { at, store_problem, .. } => {
                let away = store_problem.is_some();
                if std::mem::replace(&mut self.store_away, away) == away {
                    return None;
                }
                let (event, text) = match store_problem {
                    Some(why) => {
                        (AlertKind::StoreAway, format!("the firmware cannot be read: {why}"))
                    }
                    None => (AlertKind::StoreBack, "the firmware can be read again".into()),
                };
                Some(Alert { reason: store_problem.clone(), ..Alert::new(event, *at, text) })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(state: &'static str) -> Change {
        Change::Deployment { at: 1, deployment: "7".into(), state, reason: None, wave: 1 }
    }

    fn site(problem: Option<&str>) -> Change {
        Change::Site { at: 1, frozen: false, store_problem: problem.map(str::to_owned) }
    }

    fn kinds(changes: &[Change]) -> Vec<Option<AlertKind>> {
        let mut watch = Watch::default();
        changes.iter().map(|change| watch.follow(change).map(|alert| alert.event)).collect()
    }

    #[test]
    fn only_beginnings_are_told() {
        let states = ["held", "held", "running", "paused", "paused", "running", "paused", "ended"];
        assert_eq!(
            kinds(&states.map(deployment)),
            [
                Some(AlertKind::Held),
                None,
                None,
                Some(AlertKind::Paused),
                None,
                None,
                Some(AlertKind::Paused),
                None,
            ]
        );
        let stores = [None, Some("away"), Some("away still"), None, None];
        assert_eq!(
            kinds(&stores.map(site)),
            [None, Some(AlertKind::StoreAway), None, Some(AlertKind::StoreBack), None,]
        );
    }

    #[test]
    fn names_are_the_serialized_ones() {
        for (kind, name) in AlertKind::NAMES {
            assert_eq!(serde_json::to_value(kind).unwrap(), name);
            assert_eq!(AlertKind::from_name(name), Some(kind));
        }
    }
}
