//! What lies in the watched directory or was uploaded, what became of each file, and what
//! offers it (rules 8 to 11).
//!
//! The catalog is rebuilt from the rows of files and deployments at each change and shared as
//! an immutable snapshot: whether a file is accepted, held or in conflict follows from all files
//! and from what is known of the devices, so it is computed and never stored.

mod release;
mod shown;

pub use release::{
    Named, Release, facts_text, semantic, sidecar_text, signature_text, upload_text,
};

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use store::{Digest, Trust, Verdict as Signed};

use crate::{
    db::FileRow,
    files::Trouble,
    fleet::{
        deployment::{Deployment, DeploymentState},
        target::Target,
    },
    policy::Facts as DeviceFacts,
    views::{FirmwareState, FirmwareView},
};
use shown::{FORMERLY, refused_view, unreadable, view};

/// What devices say about the site, as far as it decides about files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    pub models: BTreeSet<String>,
    pub titles: BTreeSet<String>,
}

/// The snapshot.
#[derive(Default)]
pub struct Catalog {
    site: Site,
    /// That, and what the files name.
    known: Site,
    views: Vec<FirmwareView>,
    files: HashMap<i64, Arc<Release>>,
    /// By the text of the target; of labels and rollbacks each device asks all.
    by_target: HashMap<String, Vec<Arc<Release>>>,
    by_labels: Vec<Arc<Release>>,
    rollbacks: Vec<Arc<Release>>,
    /// Files that were uploaded.
    uploads: BTreeSet<i64>,
    /// Deployments that are in here.
    deployed: BTreeSet<i64>,
    /// Deployments that offer nothing, and why.
    blocked: HashMap<i64, String>,
    /// Those of them whose file is refused now: they keep out what they kept out before.
    suspended: BTreeSet<i64>,
    /// Digest of the accepted file at each path.
    accepted: HashMap<String, Digest>,
}

impl Catalog {
    /// From all rows, what is wrong at which path, and what is known of the devices.
    pub fn build<'a>(
        rows: &[FileRow],
        deployments: impl Iterator<Item = &'a Deployment> + Clone,
        troubles: &BTreeMap<String, Trouble>,
        site: Site,
        trust: &Trust,
    ) -> Catalog {
        let mut releases: Vec<_> = rows.iter().map(Release::from_row).map(Arc::new).collect();
        releases.sort_by_key(|release| release.created);
        let withdrawn: BTreeMap<Digest, &str> =
            rows.iter().filter_map(|row| Some((row.digest, row.withdrawn.as_deref()?))).collect();
        let uploads: BTreeSet<i64> =
            rows.iter().filter(|row| row.uploaded).map(|row| row.id).collect();
        let mut offered: HashMap<i64, Vec<&Deployment>> = HashMap::new();
        for deployment in deployments.clone().filter(|one| !one.state.is_over()) {
            offered.entry(deployment.file).or_default().push(deployment);
        }

        let mut known = site.clone();
        let live = || releases.iter().filter(|release| release.removed.is_none());
        let refused = |release: &Release| match troubles.get(&release.path)? {
            Trouble::Refused(reason) => Some(reason),
            Trouble::Unreadable(_) => None,
        };
        // What is refused for a while counts, or something else would be let in meanwhile.
        for release in live() {
            known.models.extend(release.model.iter().map(|model| model.text.clone()));
            known.titles.extend(release.explicit_title().map(str::to_owned));
        }

        let mut catalog = Catalog { site, ..Catalog::default() };
        let mut earlier: HashMap<(&str, &str), &Release> = HashMap::new();
        for release in live() {
            let by = offered.get(&release.file).map_or(&[][..], Vec::as_slice);
            let uploaded = uploads.contains(&release.file);
            // The store looks after those that lie where it watches.
            let trusted = || match uploaded {
                true => trust.still_accepts(&release.signature),
                false => Ok(()),
            };
            let verdict = judge(release, withdrawn.get(&release.digest).copied(), &earlier)
                .and_then(|()| trusted().map_err(|reason| (FirmwareState::Held, reason)));
            if let Some(title) = &release.title
                && verdict.is_ok()
            {
                earlier.entry((&title.text, &release.version.text)).or_insert(release);
            }
            let is_withdrawn = matches!(verdict, Err((FirmwareState::Withdrawn, _)));
            let refusal = refused(release).filter(|_| !is_withdrawn);
            let verdict = match refusal {
                Some(reason) => Err((FirmwareState::Refused, reason.clone())),
                None => verdict,
            };
            // Of one that cannot be used nothing is offered, whoever deploys it. What is refused now
            // is not there, which is nothing to a rollback.
            let is_rollback = |one: &&&Deployment| matches!(one.target, Target::Rollback(_));
            if let Err((_, reason)) = &verdict {
                let stopped = by.iter().filter(|one| refusal.is_none() || !is_rollback(one));
                catalog.blocked.extend(stopped.clone().map(|one| (one.id, reason.clone())));
                catalog.suspended.extend(stopped.filter(|_| refusal.is_some()).map(|one| one.id));
            }
            let (state, mut reason) = match verdict.and_then(|()| {
                if uploaded { Ok(()) } else { which_model(release, &release.target, &known) }
            }) {
                Ok(()) => standing(by),
                Err((state, reason)) => (state, Some(reason)),
            };
            if state == FirmwareState::Accepted {
                catalog.accepted.insert(release.path.clone(), release.digest);
            }
            let gone = releases.iter().filter(|release| release.removed.is_some());
            if let Some(before) = overwritten_without_new_version(release, gone) {
                reason.get_or_insert_with(|| {
                    format!(
                        "warning: the file was overwritten and still names version {}; its digest was {} and is {} now",
                        release.version.text, before.digest.short(), release.digest.short(),
                    )
                });
                let warning = "overwritten by other bytes that name the same version".to_owned();
                catalog.views.push(view(
                    before,
                    FirmwareState::Replaced,
                    Some(warning),
                    &[],
                    false,
                ));
            }
            let mut view = view(release, state, reason, by, uploaded);
            match troubles.get(&release.path) {
                Some(Trouble::Refused(_)) => view.warnings.push(FORMERLY.into()),
                Some(Trouble::Unreadable(why)) => unreadable(&mut view, why),
                None => {}
            }
            catalog.views.push(view);
        }
        catalog.files =
            releases.iter().map(|release| (release.file, Arc::clone(release))).collect();
        for deployment in deployments {
            catalog.deploy(deployment, &known, trust);
        }
        catalog.known = known;
        catalog.uploads = uploads;
        let shown: BTreeSet<&str> = live().map(|release| &*release.path).collect();
        for (path, trouble) in troubles.iter().filter(|(path, _)| !shown.contains(&***path)) {
            let (Trouble::Refused(reason) | Trouble::Unreadable(reason)) = trouble;
            catalog.views.push(refused_view(path, reason));
        }
        catalog.views.sort_by(|a, b| (&a.path, a.created).cmp(&(&b.path, b.created)));
        catalog
    }

    /// Puts a deployment where its devices find it, if it offers or keeps out anything.
    fn deploy(&mut self, deployment: &Deployment, known: &Site, trust: &Trust) {
        let Some(release) = self.files.get(&deployment.file) else { return };
        let suspended = self.suspended.contains(&deployment.id);
        if deployment.state == DeploymentState::Held
            || self.blocked.contains_key(&deployment.id) && !suspended
        {
            return;
        }
        let model = || which_model(release, &deployment.target, known);
        // Also of what was there before, to which a rollback leads.
        let trusted = trust.still_accepts(&release.signature);
        if !suspended
            && !deployment.state.is_over()
            && let Err(reason) = trusted.and_then(|()| model().map_err(|(_, reason)| reason))
        {
            self.blocked.insert(deployment.id, reason);
            return;
        }
        let release = Arc::new(release.deployed(deployment));
        if !suspended {
            self.deployed.insert(deployment.id);
        }
        match &release.target {
            Target::Labels(_) => self.by_labels.push(release),
            Target::Rollback(_) => self.rollbacks.push(release),
            target => self.by_target.entry(target.to_string()).or_default().push(release),
        }
    }

    /// What was known of the devices.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Every file, accepted or not, by path.
    pub fn views(&self) -> &[FirmwareView] {
        &self.views
    }

    /// One file of those that are remembered, there or not.
    pub fn file(&self, id: i64) -> Option<&Arc<Release>> {
        self.files.get(&id)
    }

    /// Whether a file was uploaded, so that nothing is to be seen of it where files are dropped.
    pub fn is_upload(&self, file: i64) -> bool {
        self.uploads.contains(&file)
    }

    /// Whether a file can be for a target on this site (rule 8).
    pub fn fits_site(&self, release: &Release, target: &Target) -> Result<(), String> {
        which_model(release, target, &self.known).map_err(|(_, reason)| reason)
    }

    /// Whether a deployment can offer anything: it is known here, and nothing blocks it.
    pub fn offers(&self, deployment: i64) -> bool {
        self.deployed.contains(&deployment)
    }

    /// Why a deployment offers nothing, although it runs.
    pub fn blocked(&self, deployment: i64) -> Option<&str> {
        self.blocked.get(&deployment).map(String::as_str)
    }

    /// The same where that is so because its file is refused now: what its devices were offered and
    /// have not begun waits.
    pub fn suspended(&self, deployment: i64) -> Option<&str> {
        self.blocked(deployment).filter(|_| self.suspended.contains(&deployment))
    }

    /// What is, or was, for this device; of rollbacks all.
    pub fn releases_for(&self, device: &DeviceFacts<'_>) -> impl Iterator<Item = &Arc<Release>> {
        let mut targets = vec![format!("device:{}", device.id), "all".into()];
        targets.extend(device.groups.iter().map(|group| format!("group:{group}")));
        targets.extend(device.model.map(|model| format!("model:{model}")));
        let named = targets.into_iter().filter_map(|target| self.by_target.get(&target)).flatten();
        let labelled = self.by_labels.iter().filter(|release| {
            matches!(&release.target, Target::Labels(labels) if labels.matches(device.labels))
        });
        named.chain(labelled).chain(&self.rollbacks)
    }

    /// Whether the file that a transfer came from holds other accepted bytes now (rule 15).
    pub fn was_overwritten(&self, path: &str, digest: &Digest) -> bool {
        self.accepted.get(path).is_some_and(|now| now != digest)
    }
}

/// What its deployments make of a file that can be used.
fn standing(deployments: &[&Deployment]) -> (FirmwareState, Option<String>) {
    let held = deployments.iter().find(|one| one.state == DeploymentState::Held);
    if deployments.iter().any(|one| one.state != DeploymentState::Held) {
        (FirmwareState::Accepted, None)
    } else if let Some(held) = held {
        (FirmwareState::Held, held.reason.clone())
    } else {
        let reason = "no deployment offers it: `fuotad deployment create` does".to_owned();
        (FirmwareState::Catalogued, Some(reason))
    }
}

impl Catalog {
    /// Shows those of the files `ways` that are gone: a rollback could give them to a device, so
    /// it must be possible to withdraw them (rules 10 and 22).
    pub fn show_ways_back(&mut self, rows: &[FileRow], ways: &HashSet<i64>) {
        let mut shown: HashSet<_> = self.views.iter().map(|view| view.id.clone()).collect();
        // Of one that came and went several times the newest.
        for row in rows.iter().rev() {
            let gone = row.removed_seq.is_some() && ways.contains(&row.id);
            let Some(release) = self.files.get(&row.id).filter(|_| gone) else { continue };
            if !shown.insert(release_id(release)) {
                continue;
            }
            let (state, reason) = match &row.withdrawn {
                Some(by) => (FirmwareState::Withdrawn, format!("{by} withdrew these bytes")),
                None => {
                    let reason = "gone from its place, and kept: a rollback could give it to a \
                                  device that ran it; `fuotad firmware withdraw` forbids that";
                    (FirmwareState::Replaced, reason.to_owned())
                }
            };
            // For nobody any more, as an upload.
            self.views.push(view(release, state, Some(reason), &[], true));
        }
        self.views.sort_by(|a, b| (&a.path, a.created).cmp(&(&b.path, b.created)));
    }
}

type Verdict = Result<(), (FirmwareState, String)>;

/// Whether a file can be used at all.
fn judge(
    release: &Release,
    withdrawn: Option<&str>,
    earlier: &HashMap<(&str, &str), &Release>,
) -> Verdict {
    if let Some(by) = withdrawn {
        return Err((FirmwareState::Withdrawn, format!("{by} withdrew these bytes")));
    }
    if let (Target::Model(folder), Some(model)) = (&release.target, &release.model)
        && *folder != model.text
    {
        return Err((
            FirmwareState::Refused,
            format!(
                "the {} names model {:?}, the folder {folder:?}: it may only narrow; move the file to models/{}/",
                model.from.name(),
                model.text,
                model.text,
            ),
        ));
    }
    if let Signed::Unknown { model: Some(unverified), .. } = &release.signature
        && let Some(model) = release.model.as_ref().filter(|model| model.text != *unverified)
    {
        return Err((
            FirmwareState::Held,
            format!(
                "the {} names model {:?}, and a signature that is not trusted, or is gone, names \
                 {unverified:?}: name the key in store.trusted_keys, put the signature back, or \
                 drop a file with another one",
                model.from.name(),
                model.text,
            ),
        ));
    }
    if let Some(title) = &release.title
        && let Some(other) = earlier.get(&(&*title.text, &*release.version.text))
        && other.digest != release.digest
    {
        return Err((
            FirmwareState::Conflict,
            format!(
                "{} already is {} {} with other bytes ({}, this is {}): give this file another version",
                other.path,
                title.text,
                release.version.text,
                other.digest.short(),
                release.digest.short(),
            ),
        ));
    }
    Ok(())
}

/// Rule 8: a file for everybody needs a model where there are several.
fn which_model(release: &Release, target: &Target, known: &Site) -> Verdict {
    if *target == Target::All && release.model.is_none() {
        let models = known.models.len() > 1;
        let titles = known.titles.len() > 1 && release.explicit_title().is_none();
        if models || titles {
            let list = |names: &BTreeSet<String>| {
                names.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ")
            };
            let several = if models { list(&known.models) } else { list(&known.titles) };
            return Err((
                FirmwareState::Held,
                format!(
                    "which model? This site knows {several}: move the file to models/NAME/, or write model = \"NAME\" into {}.toml",
                    release.path,
                ),
            ));
        }
    }
    Ok(())
}

fn overwritten_without_new_version<'a>(
    release: &Release,
    mut gone: impl Iterator<Item = &'a Arc<Release>>,
) -> Option<&'a Arc<Release>> {
    gone.find(|before| {
        before.path == release.path
            && before.removed == Some(release.created)
            && before.version.text == release.version.text
            && before.digest != release.digest
    })
}

/// The id of a file's row in listings.
pub fn firmware_id(row: &FileRow) -> String {
    view_id(&row.path, &row.digest.to_string())
}

/// The same of a file in the catalog.
pub fn release_id(release: &Release) -> String {
    view_id(&release.path, &release.digest.to_string())
}

/// The same for the same content at the same path, also after a restart.
fn view_id(path: &str, content: &str) -> String {
    Digest::of(format!("{path}\0{content}").as_bytes()).to_string()[..16].into()
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
pub(crate) mod tests;
