//! Changing how a deployment that exists goes on: its windows, its caps, when it pauses.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{conditions::Conditions, deployment::Deployment, operate::unknown, rollout::Plan};
use crate::{
    Limits, Windows,
    db::Op,
    engine::Engine,
    registration::invalid,
    views::{Actor, ServiceError},
    whole,
};

/// What to change of a deployment; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeploymentPatch {
    /// Its maintenance windows; an empty list: at any time; null: those of the site.
    #[serde(deserialize_with = "named")]
    pub windows: Option<Option<Vec<String>>>,
    /// Its caps.
    pub limits: LimitsPatch,
    /// When it pauses by itself, in percent of a wave's devices; null: never.
    #[serde(deserialize_with = "whole::named")]
    pub pause_at_percent: Option<Option<u8>>,
}

/// Caps to change; null: none from now on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsPatch {
    /// [`Limits::transfers`].
    #[serde(deserialize_with = "whole::named")]
    pub transfers: Option<Option<u32>>,
    /// [`Limits::bytes_per_second`].
    #[serde(deserialize_with = "whole::named")]
    pub bytes_per_second: Option<Option<u64>>,
    /// [`Limits::starts_per_minute`].
    #[serde(deserialize_with = "whole::named")]
    pub starts_per_minute: Option<Option<u32>>,
}

fn named<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<Option<Vec<String>>>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

/// What a deployment was asked for with at first, where it was changed since: the request that
/// made it may come again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    plan: Plan,
    windows: Option<Windows>,
    limits: Limits,
}

impl Deployment {
    /// What it was asked for with at first.
    pub fn asked(&self) -> Asked {
        self.conditions.asked.clone().unwrap_or_else(|| Asked {
            plan: self.plan.clone(),
            windows: self.conditions.windows.clone(),
            limits: self.conditions.limits.clone(),
        })
    }
}

impl Engine {
    /// Changes a deployment that is not over, at once: a cap that is lowered ends nothing that
    /// runs, and lets nothing begin until there is room again.
    pub async fn change_deployment(
        self: &Arc<Self>,
        id: i64,
        patch: &DeploymentPatch,
        actor: &Actor,
    ) -> Result<(), ServiceError> {
        let windows = match &patch.windows {
            Some(Some(texts)) => Some(Some(
                Windows::parse(texts).map_err(|error| invalid("windows", error.to_string()))?,
            )),
            Some(None) => Some(None),
            None => None,
        };
        if patch.pause_at_percent.flatten().is_some_and(|percent| !(1..=100).contains(&percent)) {
            let why = "it is 1 to 100, or null for never";
            return Err(invalid("pause_at_percent", why.into()));
        }
        let written = {
            let mut fleet = self.fleet.lock();
            let deployment = fleet.deployments.get_mut(&id).ok_or_else(|| unknown(id))?;
            if deployment.state.is_over() {
                return Err(ServiceError::Conflict(format!("deployment {id}: it is over")));
            }
            let (before, asked) = (deployment.conditions.limits.clone(), deployment.asked());
            let limits = patch.limits.over(&before);
            limits.check().map_err(|problem| invalid("limits", problem))?;
            let conditions = Conditions {
                windows: windows.unwrap_or_else(|| deployment.conditions.windows.clone()),
                limits,
                asked: deployment.key.is_some().then_some(asked),
                ..deployment.conditions.clone()
            };
            let pause = patch.pause_at_percent.unwrap_or(deployment.plan.pause_at_percent);
            let changes = changes(deployment, &conditions, pause);
            deployment.conditions = conditions;
            deployment.plan.pause_at_percent = pause;
            // Also where it is so already: that may not be written yet.
            let mut ops = vec![Op::Deployment(deployment.row())];
            if !changes.is_empty() {
                let subject = format!("deployment {id}");
                ops.push(Engine::audit_by(actor, &subject, "changed", Some(changes)));
            }
            // Queued before anybody else can change it.
            let written = self.keep(ops);
            let same_rate =
                deployment.conditions.limits.starts_per_minute == before.starts_per_minute;
            fleet.due.insert(id);
            if !same_rate {
                // Who names another rate need not wait for the old one.
                fleet.starts.forget(id);
            }
            written
        };
        tracing::info!(deployment = id, by = actor.shown(), "changed");
        self.tell_deployments(&[id]);
        let written = written.await;
        self.set_caps();
        // Whoever waited may begin, and a wave may have failed by the new measure.
        self.rollouts.notify_one();
        self.reconsider_all().await;
        written.map_err(|error| ServiceError::Unavailable(error.to_string()))
    }
}

impl LimitsPatch {
    fn over(&self, limits: &Limits) -> Limits {
        Limits {
            transfers: self.transfers.unwrap_or(limits.transfers),
            bytes_per_second: self.bytes_per_second.unwrap_or(limits.bytes_per_second),
            starts_per_minute: self.starts_per_minute.unwrap_or(limits.starts_per_minute),
        }
    }
}

/// What becomes of it, for the audit; empty where nothing does.
fn changes(deployment: &Deployment, conditions: &Conditions, pause: Option<u8>) -> String {
    let mut changes = Vec::new();
    let is = &deployment.conditions;
    if is.windows != conditions.windows {
        changes.push(match &conditions.windows {
            None => "windows: those of the site".to_owned(),
            Some(windows) if windows.is_empty() => "windows: at any time".to_owned(),
            Some(windows) => format!("windows: {windows}"),
        });
    }
    let number = |number: Option<u64>| number.map_or_else(|| "none".into(), |n| n.to_string());
    for (name, was, now) in [
        (
            "transfers",
            is.limits.transfers.map(u64::from),
            conditions.limits.transfers.map(u64::from),
        ),
        ("bytes_per_second", is.limits.bytes_per_second, conditions.limits.bytes_per_second),
        (
            "starts_per_minute",
            is.limits.starts_per_minute.map(u64::from),
            conditions.limits.starts_per_minute.map(u64::from),
        ),
        ("pause_at_percent", deployment.plan.pause_at_percent.map(u64::from), pause.map(u64::from)),
    ] {
        if was != now {
            changes.push(format!("{name}: {}, was {}", number(now), number(was)));
        }
    }
    changes.join("; ")
}
