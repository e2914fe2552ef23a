//! Which image should a device run, and why not: pure functions over a snapshot (rules 8, 12
//! and 13).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use semver::{BuildMetadata, Version};
use store::Digest;

use crate::{
    backoff::Wait,
    catalog::{Catalog, Release, semantic},
    fleet::target::Target,
};

/// What one device experienced with one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// How often it was offered.
    pub offers: u32,
    /// How often all its blocks were served.
    pub deliveries: u32,
    /// Whether the device reported another version since the last complete delivery.
    pub differs: bool,
    /// Until when the next attempt waits.
    pub wait: Option<Wait>,
}

/// What is known of a device.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub id: &'a str,
    pub groups: &'a [String],
    pub labels: &'a BTreeMap<String, String>,
    pub model: Option<&'a str>,
    /// Title of the firmware that it got last, if a person gave it one.
    pub title: Option<&'a str>,
    /// The version that it reported last; `None` while it never reported.
    pub version: Option<&'a str>,
    /// The file that it was confirmed with last.
    pub confirmed: Option<i64>,
    pub history: &'a HashMap<Digest, History>,
}

/// What follows for a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Offer it this.
    Run(Arc<Release>),
    /// Offer it nothing, for this reason.
    Nothing(String),
}

/// What deployments say about one device beside whom they are for.
pub trait Gate {
    /// Whether a rollback lists the device.
    fn lists(&self, release: &Release) -> bool;
    /// Why the device may not be offered this now, where waves, a pause or a freeze say so.
    fn holds(&self, release: &Release) -> Option<String>;
    /// What counts instead of what the device experienced with this image before; `None`:
    /// nothing does.
    fn history(&self, release: &Release) -> Option<History>;
}

/// Which image the device should be offered now.
pub fn decide(
    catalog: &Catalog,
    device: &Facts<'_>,
    max_attempts: u32,
    gate: &dyn Gate,
) -> Decision {
    // What nearly went is a better answer than what could not.
    let (mut misfit, mut why_not) = (None, None);
    let mut fitting: Vec<&Arc<Release>> = Vec::new();
    for release in catalog.releases_for(device) {
        if matches!(release.target, Target::Rollback(_)) && !gate.lists(release) {
            continue;
        }
        match fits(release, device, catalog) {
            Ok(()) => fitting.push(release),
            Err(reason) => drop(misfit.get_or_insert(reason)),
        }
    }
    best_first(&mut fitting);
    for (position, release) in fitting.iter().enumerate() {
        if release.removed.is_some() || is_superseded(release, &fitting[..position]) {
            continue;
        }
        let needed = needs(release, device, max_attempts, gate.history(release));
        let suspended = || catalog.suspended(release.deployment).map(str::to_owned);
        let held = |()| match suspended().or_else(|| gate.holds(release)) {
            Some(reason) => Err(format!("{} waits: {reason}", describe(release))),
            None => Ok(()),
        };
        match needed.and_then(held) {
            Ok(()) => return Decision::Run(Arc::clone(release)),
            Err(reason) => drop(why_not.get_or_insert(reason)),
        }
    }
    let reason = why_not.or(misfit);
    Decision::Nothing(reason.unwrap_or_else(|| "no firmware is for this device".into()))
}

/// Whether one of the better ones keeps this from being offered. One that is over cannot be
/// offered itself, but it keeps what is older than its end from coming back; not the same
/// bytes, which then only moved to another folder.
fn is_superseded(release: &Release, better: &[&Arc<Release>]) -> bool {
    better.iter().any(|better| {
        comparable(better, release)
            && better
                .removed
                .is_none_or(|removed| release.created < removed && better.digest != release.digest)
    })
}

/// Rule 8 and the narrowing of rule 9.
fn fits(release: &Release, device: &Facts<'_>, catalog: &Catalog) -> Result<(), String> {
    let name = describe(release);
    if let (Some(chip), Some(own)) = (&release.header.chip, device.labels.get("chip"))
        && *chip != plain_chip(own)
    {
        return Err(format!("{name} is for the chip {chip}, this device has an {own}"));
    }
    if let Some(runs) = device.confirmed.and_then(|file| catalog.file(file))
        && runs.digest != release.digest
        && let Some(why) = release.counter_forbids(runs)
    {
        return Err(format!("{name}: {why}"));
    }
    match (&release.model, device.model) {
        (Some(model), Some(own)) if model.text != own => {
            return Err(format!("{name} is for model {}, this device is a {own}", model.text));
        }
        (Some(model), None) => {
            return Err(format!(
                "{name} is for model {}, and this device's model is unknown",
                model.text
            ));
        }
        (None, _) => {
            if let (Some(title), Some(own)) = (release.explicit_title(), device.title)
                && title != own
            {
                return Err(format!("{name} has another title than what this device runs, {own}"));
            }
        }
        _ => {}
    }
    if let Some(least) = &release.min_version {
        match device.version.and_then(semantic) {
            Some(version) if version >= *least => {}
            Some(version) => {
                return Err(format!(
                    "{name} needs version {least} first, this device runs {version}"
                ));
            }
            None => {
                return Err(format!(
                    "{name} needs version {least} first, and what this device runs is unknown"
                ));
            }
        }
    }
    Ok(())
}

/// A chip's name as images have it: people write `ESP32-S3`.
fn plain_chip(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
}

/// Rule 12, best first.
///
/// "The higher version where both are semantic, else the later creation" alone is no order:
/// 1.0 dropped third, `x` second and 2.0 first would each be better than the next. So a
/// semantic version counts as created with the latest one that it is not lower than.
///
/// A downgrade is meant to go below what there is: what is older than it stays behind it.
fn best_first(releases: &mut [&Arc<Release>]) {
    let downgrades: Vec<_> = releases
        .iter()
        .filter(|release| release.downgrade)
        .map(|release| (release.tier, release.created))
        .collect();
    // The last downgrade that a release is not older than.
    let epoch = |release: &Release| {
        let before = downgrades
            .iter()
            .filter(|(tier, created)| *tier == release.tier && *created <= release.created);
        before.map(|(_, created)| *created).max().unwrap_or(0)
    };
    let all: Vec<_> = releases
        .iter()
        .map(|release| (release.tier, epoch(release), precedence(release), release.created))
        .collect();
    releases.sort_by_cached_key(|release| {
        let (tier, epoch, version) = (release.tier, epoch(release), precedence(release));
        let not_higher = all.iter().filter(|(other_tier, other_epoch, other, _)| {
            (*other_tier, *other_epoch) == (tier, epoch)
                && version.is_some()
                && other.is_some()
                && *other <= version
        });
        let created = not_higher.map(|(.., created)| *created).fold(release.created, i64::max);
        (tier, Reverse(epoch), Reverse(created), Reverse(version), Reverse(release.created))
    });
}

/// The semantic version without its build metadata, which has no rank.
fn precedence(release: &Release) -> Option<Version> {
    release.semantic().map(|version| Version { build: BuildMetadata::EMPTY, ..version })
}

/// Whether one can supersede the other: they share a title, or one has none.
fn comparable(a: &Release, b: &Release) -> bool {
    match (a.explicit_title(), b.explicit_title()) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}

/// Why an image that was offered, and that the device has not begun, is not for it any more: what
/// it experienced with it and who waits does not matter for that.
pub fn misfit(
    release: &Release,
    downgrade: bool,
    device: &Facts<'_>,
    catalog: &Catalog,
) -> Option<String> {
    let fits = fits(release, device, catalog);
    fits.and_then(|()| improves(release, downgrade, device)).err()
}

/// Whether the version that a device reports says something about this image.
fn speaks(release: &Release, device: &Facts<'_>) -> bool {
    // Not about another title, nor about an image that has none of its own.
    release.has_own_version()
        && match (release.explicit_title(), device.title) {
            (Some(title), Some(own)) => title == own,
            _ => true,
        }
}

/// Rule 13, of versions alone.
fn improves(release: &Release, downgrade: bool, device: &Facts<'_>) -> Result<(), String> {
    let Some(version) = device.version.filter(|_| speaks(release, device)) else { return Ok(()) };
    let name = describe(release);
    if same_version(version, &release.version.text) {
        return Err(format!("it runs {name}"));
    }
    if let (Some(own), Some(new)) = (semantic(version), release.semantic())
        && own > new
        && !downgrade
    {
        return Err(format!("it runs {version}, which is higher than {name}"));
    }
    Ok(())
}

/// Rule 13. `own` counts instead of all that the device experienced with the image.
fn needs(
    release: &Release,
    device: &Facts<'_>,
    max_attempts: u32,
    own: Option<History>,
) -> Result<(), String> {
    let name = describe(release);
    let history =
        own.unwrap_or_else(|| device.history.get(&release.digest).copied().unwrap_or_default());
    improves(release, release.downgrade, device)?;
    let speaks = speaks(release, device);
    if let Some(version) = device.version.filter(|_| speaks)
        && history.differs
        && history.deliveries >= 2
    {
        return Err(format!(
            "version mismatch: it reports {version} after {} complete deliveries of {name}",
            history.deliveries,
        ));
    }
    if history.deliveries > 0 && !(history.differs && speaks) {
        return Err(format!("it was given {name}"));
    }
    if history.offers >= max_attempts {
        return Err(format!("{name} was offered to it {} times without success", history.offers));
    }
    Ok(())
}

/// Whether two texts name one version: equal, or equal as semantic versions.
pub fn same_version(a: &str, b: &str) -> bool {
    a == b || semantic(a).zip(semantic(b)).is_some_and(|(a, b)| a == b)
}

/// Title, version and path, for people.
pub fn describe(release: &Release) -> String {
    match &release.title {
        Some(title) => format!("{} {} ({})", title.text, release.version.text, release.path),
        None => format!("{} ({})", release.version.text, release.path),
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
