//! The fleet counted, for people and for machines: which versions are in the field, which groups
//! and models there are, how many deployments are in which state, and what took how long.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{Service, state::UpdateState};

/// Rows of each list; what has fewer devices than all of them is summed up.
const MOST: usize = 100;

/// The fleet counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FleetView {
    /// What devices run, the most frequent first.
    pub versions: Vec<VersionCount>,
    /// Devices with a version that is not listed, since there are too many.
    pub other_versions: usize,
    /// Groups by name.
    pub groups: Vec<Named>,
    /// Models by name.
    pub models: Vec<Named>,
    /// Labels by name, each with how many devices have it.
    pub labels: Vec<Named>,
    /// Deployments by state.
    pub deployments: BTreeMap<&'static str, usize>,
}

/// How many devices run one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VersionCount {
    /// The title of the firmware, where the device got it from here and a title is known.
    pub title: Option<String>,
    /// As the device reported it; where it reports nothing, what was delivered to it last; `None`
    /// where neither is known.
    pub version: Option<String>,
    /// Devices that run it.
    pub devices: usize,
    /// Of those, connected.
    pub online: usize,
}

/// A name and how many devices have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// The name.
    pub name: String,
    /// Devices.
    pub devices: usize,
}

/// How long things took since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latencies {
    /// From a request of a device to its block in the outbox of its connection.
    pub block: hook::Distribution,
    /// Reads of blocks that were not in the cache.
    pub store_read: hook::Distribution,
    /// Commits of the database.
    pub commit: hook::Distribution,
}

impl Service {
    /// Counts the fleet. It looks at every device.
    pub fn fleet(&self) -> FleetView {
        let mut versions: BTreeMap<(Option<String>, Option<String>), (usize, usize)> =
            BTreeMap::new();
        let (mut groups, mut models, mut labels) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for device in self.0.registry.all() {
            let state = device.state.lock();
            let delivered = state.transfer.as_ref().filter(|transfer| {
                use UpdateState as S;
                matches!(
                    transfer.state(),
                    S::Downloaded | S::Verified | S::Updated | S::UpdatedUnconfirmed
                )
            });
            let version = state
                .version
                .clone()
                .or_else(|| delivered.map(|transfer| transfer.pin.version.clone()));
            let title = delivered
                .filter(|transfer| Some(&transfer.pin.version) == version.as_ref())
                .and_then(|transfer| transfer.pin.title.clone())
                .or_else(|| version.is_some().then(|| state.title.clone()).flatten());
            let (devices, online) = versions.entry((title, version)).or_default();
            *devices += 1;
            *online += usize::from(!state.links.is_empty());
            for (counts, names) in [
                (&mut groups, state.groups.iter().collect::<Vec<_>>()),
                (&mut models, state.model.iter().collect()),
                (&mut labels, state.labels.keys().collect()),
            ] {
                for name in names {
                    *counts.entry(name.clone()).or_insert(0) += 1;
                }
            }
        }
        let mut versions: Vec<_> = versions
            .into_iter()
            .map(|((title, version), (devices, online))| VersionCount {
                title,
                version,
                devices,
                online,
            })
            .collect();
        versions.sort_by_key(|one| std::cmp::Reverse(one.devices));
        let other_versions = versions.iter().skip(MOST).map(|one| one.devices).sum();
        versions.truncate(MOST);
        FleetView {
            versions,
            other_versions,
            groups: most(groups),
            models: most(models),
            labels: most(labels),
            deployments: self.deployment_counts(),
        }
    }

    /// How long things took since the start.
    pub fn latencies(&self) -> Latencies {
        let engine = &self.0;
        Latencies {
            block: engine.counters.block_time.read(),
            store_read: engine.counters.read_time.read(),
            commit: engine.db.commit_time.read(),
        }
    }

    /// Deployments by state. It looks at no device.
    pub fn deployment_counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for one in self.0.fleet.lock().deployments.values() {
            *counts.entry(one.state.name()).or_default() += 1;
        }
        counts
    }
}

/// The most frequent ones, by name.
fn most(counts: BTreeMap<String, usize>) -> Vec<Named> {
    let mut all: Vec<_> =
        counts.into_iter().map(|(name, devices)| Named { name, devices }).collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.devices));
    all.truncate(MOST);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_cut_to_the_most_frequent_in_their_order() {
        let counts = (0..300).map(|number| (format!("g{number:03}"), number)).collect();
        let names = most(counts);
        assert_eq!(names.len(), MOST);
        assert_eq!((names[0].name.as_str(), names[MOST - 1].name.as_str()), ("g200", "g299"));
    }
}
