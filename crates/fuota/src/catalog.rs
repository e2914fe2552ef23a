//! What lies in the watched directory or was uploaded, what became of each file, and what
//! offers it (rules 8 to 11).
//!
//! The catalog is rebuilt from the rows of files and deployments at each change and shared as
//! an immutable snapshot: whether a file is accepted, held or in conflict follows from all files
//! and from what is known of the devices, so it is computed and never stored.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use semver::Version;
use serde::{Deserialize, Serialize};
use store::{Checksum, Comment, Digest, Facts, Header, Verdict as Signed};

use crate::{
    db::FileRow,
    fleet::{
        deployment::{Deployment, DeploymentState},
        target::Target,
    },
    policy::{Facts as DeviceFacts, same_version},
    views::{Decided, FirmwareState, FirmwareView, SignatureView},
};

/// A value and what decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub text: String,
    pub from: Source,
}

/// What decided a title, version or model; the earlier wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The trusted comment of a signature (rule 30).
    Signature,
    Sidecar,
    Upload,
    Folder,
    /// The image itself.
    Header,
    FileName,
    Digest,
}

impl Named {
    fn new(text: impl Into<String>, from: Source) -> Named {
        Named { text: text.into(), from }
    }

    fn view(&self) -> Decided {
        Decided { value: self.text.clone(), from: self.from.name() }
    }
}

impl Source {
    /// The name in listings.
    fn name(self) -> &'static str {
        match self {
            Source::Signature => "trusted comment",
            Source::Sidecar => "sidecar",
            Source::Upload => "upload",
            Source::Folder => "folder",
            Source::Header => "image header",
            Source::FileName => "file name",
            Source::Digest => "digest",
        }
    }
}

/// One file for one target: what a deployment offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    pub path: String,
    /// Its row among the files.
    pub file: i64,
    pub digest: Digest,
    pub size: u64,
    /// The deployment that offers it; 0 for a file that is only looked at.
    pub deployment: i64,
    pub target: Target,
    /// [`Target::tier`], or that of what a rollback takes back.
    pub tier: u8,
    /// It may go below the version that a device runs.
    pub downgrade: bool,
    /// For people; [`Release::explicit_title`] is what counts for devices.
    pub title: Option<Named>,
    pub version: Named,
    pub model: Option<Named>,
    pub min_version: Option<Version>,
    pub notes: Option<String>,
    /// The version in the file's name.
    pub label: Option<String>,
    /// What its bytes say.
    pub header: Header,
    /// The digest of what was dropped, where the image was unpacked from it.
    pub dropped: Option<Digest>,
    pub signature: Signed,
    /// The one that its sidecar asks for.
    pub checksum: Option<Checksum>,
    /// Position in the order of creations and removals.
    pub created: i64,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Position in the same order, once it is over.
    pub removed: Option<i64>,
}

impl Release {
    /// The title, unless only the file's name says so (rule 8).
    pub fn explicit_title(&self) -> Option<&str> {
        let said = |title: &&Named| title.from != Source::FileName;
        let title = self.title.as_ref().filter(said);
        title.map(|title| &*title.text)
    }

    /// Whether the version is more than the beginning of the digest, so that a device may
    /// report it.
    pub fn has_own_version(&self) -> bool {
        self.version.from != Source::Digest
    }

    /// The signature, as [`store::Signature::line`] has it, where it is of the image itself, and of
    /// its hash, which a device can make as the blocks come.
    pub fn signature_line(&self) -> Option<&str> {
        let hashed = |line: &&str| line.starts_with(&hex::encode("ED"));
        self.signature.line().filter(hashed).filter(|_| self.dropped.is_none())
    }

    /// The version as a semantic one; a leading `v` is no part of it.
    pub fn semantic(&self) -> Option<Version> {
        self.has_own_version().then(|| semantic(&self.version.text)).flatten()
    }

    /// A file for whom its folder names; an upload is for nobody by itself.
    pub fn from_row(row: &FileRow) -> Release {
        let sidecar: SidecarText = serde_json::from_str(&row.sidecar).unwrap_or_default();
        let target = Target::from_text(&row.target).unwrap_or(Target::All);
        let said = if row.uploaded { Source::Upload } else { Source::Sidecar };
        let named = |text: Option<String>, from| text.map(|text| Named::new(text, from));
        let json = |text: &Option<String>| text.clone().unwrap_or_else(|| "{}".into());
        let facts: Facts = serde_json::from_str(&json(&row.facts)).unwrap_or_default();
        let signature: Signed = serde_json::from_str(&json(&row.signature)).unwrap_or_default();
        let comment = match &signature {
            Signed::Trusted { comment, .. } => comment.clone(),
            _ => Comment::default(),
        };
        let header = facts.header;
        let from_folder = match &target {
            Target::Model(model) => Some(Named::new(model, Source::Folder)),
            _ => None,
        };
        Release {
            title: named(comment.title, Source::Signature)
                .or_else(|| named(sidecar.name, said))
                .or_else(|| named(header.title.clone(), Source::Header))
                .or_else(|| named(row.name_title.clone(), Source::FileName)),
            version: named(comment.version, Source::Signature)
                .or_else(|| named(sidecar.version, said))
                .or_else(|| named(header.version.clone(), Source::Header))
                .or_else(|| named(row.name_version.clone(), Source::FileName))
                .unwrap_or_else(|| Named::new(row.digest.short(), Source::Digest)),
            model: named(comment.model, Source::Signature)
                .or_else(|| named(sidecar.model, said))
                .or(from_folder),
            label: row.name_version.clone(),
            header,
            dropped: facts.dropped,
            checksum: facts.checksum,
            signature,
            // The store refuses a sidecar whose bound is not semantic.
            min_version: sidecar.min_version.as_deref().and_then(semantic),
            notes: sidecar.notes,
            path: row.path.clone(),
            file: row.id,
            digest: row.digest,
            size: row.size,
            deployment: 0,
            tier: target.tier(),
            downgrade: false,
            target,
            created: row.created_seq,
            created_at: row.created_at,
            removed: row.removed_seq,
        }
    }

    /// What is odd about it and worth a look before it is offered, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(inside) = &self.header.version {
            let differs = |label: &&str| !same_version(label, inside);
            let (label, from) = match self.version.from {
                Source::Header => (self.label.as_deref(), Source::FileName),
                from => (Some(&*self.version.text), from),
            };
            if let Some(label) = label.filter(differs) {
                let counts = if self.version.from == Source::Header { inside } else { label };
                warnings.push(format!(
                    "the {} says version {label}, the image itself {inside}: {counts} counts here, \
                     and devices most likely report {inside}",
                    from.name(),
                ));
            }
        }
        if let Signed::Unknown { key, .. } = &self.signature {
            warnings.push(format!(
                "it is signed by key {key}, which is none of store.trusted_keys, so the signature \
                 says nothing"
            ));
        }
        warnings.extend(self.header.warnings.iter().cloned());
        warnings
    }

    /// Why a device that has run `newer` cannot go to this one: its boot loader counts (rule 22).
    pub fn counter_forbids(&self, newer: &Release) -> Option<String> {
        let (own, seen) = (self.header.security_counter, newer.header.security_counter);
        let (own, seen) = (own.unwrap_or(0), seen.unwrap_or(0));
        (self.header.format == newer.header.format && own < seen).then(|| {
            format!(
                "its security counter is {own} and that of {} {} is {seen}: the boot loader \
                 would refuse it",
                newer.title.as_ref().map_or("version", |title| &title.text),
                newer.version.text,
            )
        })
    }

    /// This file as a deployment offers it.
    fn deployed(&self, by: &Deployment) -> Release {
        Release {
            deployment: by.id,
            target: by.target.clone(),
            tier: by.tier,
            downgrade: by.downgrade,
            created: by.created,
            removed: by.ended,
            ..self.clone()
        }
    }
}

/// A semantic version; a leading `v` is no part of it.
pub fn semantic(text: &str) -> Option<Version> {
    Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()
}

/// A sidecar as the database holds it.
#[derive(Default, Serialize, Deserialize)]
struct SidecarText {
    name: Option<String>,
    version: Option<String>,
    model: Option<String>,
    min_version: Option<String>,
    notes: Option<String>,
}

/// For the `sidecar` column.
pub fn sidecar_text(sidecar: Option<&store::Sidecar>) -> String {
    let sidecar = sidecar.cloned().unwrap_or_default();
    let text = SidecarText {
        name: sidecar.name,
        version: sidecar.version,
        model: sidecar.model,
        min_version: sidecar.min_version,
        notes: sidecar.notes,
    };
    // A struct of texts always serializes.
    serde_json::to_string(&text).unwrap_or_default()
}

/// For the `facts` column.
pub fn facts_text(facts: &Facts) -> String {
    serde_json::to_string(facts).unwrap_or_default()
}

/// For the `signature` column.
pub fn signature_text(verdict: &Signed) -> String {
    serde_json::to_string(verdict).unwrap_or_default()
}

/// The same as `sidecar_text` of an upload.
pub fn upload_text(
    name: Option<String>,
    version: Option<String>,
    model: Option<String>,
    notes: Option<String>,
) -> String {
    let text = SidecarText { name, version, model, min_version: None, notes };
    serde_json::to_string(&text).unwrap_or_default()
}

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
    /// Deployments that are in here.
    deployed: BTreeSet<i64>,
    /// Deployments that offer nothing, and why.
    blocked: HashMap<i64, String>,
    /// Digest of the accepted file at each path.
    accepted: HashMap<String, Digest>,
}

impl Catalog {
    /// From all rows, the refused paths with their reasons, and what is known of the devices.
    pub fn build<'a>(
        rows: &[FileRow],
        deployments: impl Iterator<Item = &'a Deployment> + Clone,
        refused: &BTreeMap<String, String>,
        site: Site,
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
        for release in live() {
            known.models.extend(release.model.iter().map(|model| model.text.clone()));
            known.titles.extend(release.explicit_title().map(str::to_owned));
        }

        let mut catalog = Catalog { site, ..Catalog::default() };
        let mut earlier: HashMap<(&str, &str), &Release> = HashMap::new();
        for release in live() {
            let by = offered.get(&release.file).map_or(&[][..], Vec::as_slice);
            let uploaded = uploads.contains(&release.file);
            let verdict = judge(release, withdrawn.get(&release.digest).copied(), &earlier);
            if let Some(title) = &release.title
                && verdict.is_ok()
            {
                earlier.entry((&title.text, &release.version.text)).or_insert(release);
            }
            // Of one that cannot be used nothing is offered, whoever deploys it.
            if let Err((_, reason)) = &verdict {
                let all = by.iter().map(|one| (one.id, reason.clone()));
                catalog.blocked.extend(all);
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
            catalog.views.push(view(release, state, reason, by, uploaded));
        }
        catalog.files =
            releases.iter().map(|release| (release.file, Arc::clone(release))).collect();
        for deployment in deployments {
            catalog.deploy(deployment, &known);
        }
        catalog.known = known;
        for (path, reason) in refused {
            catalog.views.push(refused_view(path, reason));
        }
        catalog.views.sort_by(|a, b| (&a.path, a.created).cmp(&(&b.path, b.created)));
        catalog
    }

    /// Puts a deployment where its devices find it, if it offers or keeps out anything.
    fn deploy(&mut self, deployment: &Deployment, known: &Site) {
        let Some(release) = self.files.get(&deployment.file) else { return };
        if deployment.state == DeploymentState::Held || self.blocked.contains_key(&deployment.id) {
            return;
        }
        if !deployment.state.is_over()
            && let Err((_, reason)) = which_model(release, &deployment.target, known)
        {
            self.blocked.insert(deployment.id, reason);
            return;
        }
        let release = Arc::new(release.deployed(deployment));
        self.deployed.insert(deployment.id);
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

fn view(
    release: &Release,
    state: FirmwareState,
    reason: Option<String>,
    deployments: &[&Deployment],
    uploaded: bool,
) -> FirmwareView {
    let mut warnings = release.warnings();
    warnings.extend(
        reason.as_deref().and_then(|reason| reason.strip_prefix("warning: ")).map(str::to_owned),
    );
    // Where nothing keeps it from being offered, a list has room for what is odd about it.
    let reason = reason.or_else(|| Some(format!("warning: {}", warnings.first()?)));
    FirmwareView {
        id: release_id(release),
        path: release.path.clone(),
        state,
        reason,
        warnings,
        format: Some(release.header.format.name()),
        chip: release.header.chip.clone(),
        hardware: release.header.hardware.clone(),
        security_counter: release.header.security_counter,
        signature: Some(signature_view(release)),
        dropped_digest: release.dropped.map(|digest| digest.to_string()),
        title: release.title.as_ref().map(Named::view),
        version: Some(release.version.view()),
        model: release.model.as_ref().map(Named::view),
        min_version: release.min_version.as_ref().map(ToString::to_string),
        notes: release.notes.clone(),
        target: (!uploaded).then(|| release.target.to_string()),
        deployments: deployments.iter().map(|one| one.id.to_string()).collect(),
        digest: Some(release.digest.to_string()),
        size: Some(release.size),
        created: Some(release.created_at),
    }
}

fn signature_view(release: &Release) -> SignatureView {
    let (state, key) = match &release.signature {
        Signed::Unsigned => ("unsigned", None),
        Signed::Unknown { key, .. } => ("unknown", Some(key.clone())),
        Signed::Trusted { key, .. } => ("trusted", Some(key.clone())),
    };
    SignatureView { state, key, embedded: release.header.signed }
}

fn refused_view(path: &str, reason: &str) -> FirmwareView {
    FirmwareView {
        id: view_id(path, "refused"),
        path: path.into(),
        state: FirmwareState::Refused,
        reason: Some(reason.into()),
        warnings: Vec::new(),
        format: None,
        chip: None,
        hardware: Vec::new(),
        security_counter: None,
        signature: None,
        dropped_digest: None,
        title: None,
        version: None,
        model: None,
        min_version: None,
        notes: None,
        target: None,
        deployments: Vec::new(),
        digest: None,
        size: None,
        created: None,
    }
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
