//! What lies in the watched directory, and what became of each file (rules 8 to 10).
//!
//! The catalog is rebuilt from the file rows at each change and shared as an immutable
//! snapshot: whether a file is accepted, held or in conflict follows from all files and from
//! what is known of the devices, so it is computed and never stored.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use semver::Version;
use serde::{Deserialize, Serialize};
use store::{Digest, Target};

use crate::{
    db::FileRow,
    views::{Decided, FirmwareState, FirmwareView},
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
    Sidecar,
    Folder,
    FileName,
    Digest,
}

impl Named {
    fn new(text: impl Into<String>, from: Source) -> Named {
        Named { text: text.into(), from }
    }

    fn view(&self) -> Decided {
        let from = match self.from {
            Source::Sidecar => "sidecar",
            Source::Folder => "folder",
            Source::FileName => "file name",
            Source::Digest => "digest",
        };
        Decided { value: self.text.clone(), from }
    }
}

/// One content at one path: what a deployment by dropping consists of.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    pub path: String,
    pub digest: Digest,
    pub size: u64,
    pub target: Target,
    /// For people; [`Release::explicit_title`] is what counts for devices.
    pub title: Option<Named>,
    pub version: Named,
    pub model: Option<Named>,
    pub min_version: Option<Version>,
    pub notes: Option<String>,
    /// Position in the order of creations and removals.
    pub created: i64,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Position in the same order, once its file is gone or replaced.
    pub removed: Option<i64>,
}

impl Release {
    /// The title, unless only the file's name says so (rule 8).
    pub fn explicit_title(&self) -> Option<&str> {
        let title = self.title.as_ref().filter(|title| title.from == Source::Sidecar);
        title.map(|title| &*title.text)
    }

    /// Whether the version is more than the beginning of the digest, so that a device may
    /// report it.
    pub fn has_own_version(&self) -> bool {
        self.version.from != Source::Digest
    }

    /// The version as a semantic one; a leading `v` is no part of it.
    pub fn semantic(&self) -> Option<Version> {
        self.has_own_version().then(|| semantic(&self.version.text)).flatten()
    }

    /// From a row of the database.
    pub fn from_row(row: &FileRow) -> Release {
        let sidecar: SidecarText = serde_json::from_str(&row.sidecar).unwrap_or_default();
        let target = target_from(&row.target);
        let named = |text: Option<String>, from| text.map(|text| Named::new(text, from));
        let from_folder = match &target {
            Target::Model(model) => Some(Named::new(model, Source::Folder)),
            _ => None,
        };
        Release {
            title: named(sidecar.name, Source::Sidecar)
                .or_else(|| named(row.name_title.clone(), Source::FileName)),
            version: named(sidecar.version, Source::Sidecar)
                .or_else(|| named(row.name_version.clone(), Source::FileName))
                .unwrap_or_else(|| Named::new(row.digest.short(), Source::Digest)),
            model: named(sidecar.model, Source::Sidecar).or(from_folder),
            // The store refuses a sidecar whose bound is not semantic.
            min_version: sidecar.min_version.as_deref().and_then(semantic),
            notes: sidecar.notes,
            path: row.path.clone(),
            digest: row.digest,
            size: row.size,
            target,
            created: row.created_seq,
            created_at: row.created_at,
            removed: row.removed_seq,
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

/// For the `target` column and for listings.
pub fn target_text(target: &Target) -> String {
    match target {
        Target::All => "all".into(),
        Target::Group(name) => format!("group:{name}"),
        Target::Model(name) => format!("model:{name}"),
        Target::Device(id) => format!("device:{id}"),
    }
}

fn target_from(text: &str) -> Target {
    match text.split_once(':') {
        Some(("group", name)) => Target::Group(name.into()),
        Some(("model", name)) => Target::Model(name.into()),
        Some(("device", id)) => Target::Device(id.into()),
        _ => Target::All,
    }
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
    views: Vec<FirmwareView>,
    by_target: HashMap<Target, Vec<Arc<Release>>>,
    /// Digest of the accepted file at each path.
    accepted: HashMap<String, Digest>,
}

impl Catalog {
    /// From all rows, the refused paths with their reasons, and what is known of the devices.
    pub fn build(rows: &[FileRow], refused: &BTreeMap<String, String>, site: Site) -> Catalog {
        let mut releases: Vec<_> = rows.iter().map(Release::from_row).map(Arc::new).collect();
        releases.sort_by_key(|release| release.created);
        let (live, gone): (Vec<_>, Vec<_>) =
            releases.into_iter().partition(|release| release.removed.is_none());

        let mut known = site.clone();
        for release in &live {
            known.models.extend(release.model.iter().map(|model| model.text.clone()));
            known.titles.extend(release.explicit_title().map(str::to_owned));
        }

        let mut catalog = Catalog { site, ..Catalog::default() };
        let mut earlier: HashMap<(&str, &str), &Release> = HashMap::new();
        for release in &live {
            let (state, mut reason) = match judge(release, &known, &earlier) {
                Ok(()) => (FirmwareState::Accepted, None),
                Err((state, reason)) => (state, Some(reason)),
            };
            if let Some(title) = &release.title
                && !matches!(state, FirmwareState::Conflict | FirmwareState::Refused)
            {
                earlier.entry((&title.text, &release.version.text)).or_insert(release);
            }
            if state == FirmwareState::Accepted {
                catalog.accepted.insert(release.path.clone(), release.digest);
                catalog
                    .by_target
                    .entry(release.target.clone())
                    .or_default()
                    .push(Arc::clone(release));
            }
            if let Some(before) = overwritten_without_new_version(release, &gone) {
                reason.get_or_insert_with(|| {
                    format!(
                        "warning: the file was overwritten and still names version {}; its digest was {} and is {} now",
                        release.version.text, before.digest.short(), release.digest.short(),
                    )
                });
                let warning = "overwritten by other bytes that name the same version".to_owned();
                catalog.views.push(view(before, FirmwareState::Replaced, Some(warning)));
            }
            catalog.views.push(view(release, state, reason));
        }
        for release in gone {
            catalog.by_target.entry(release.target.clone()).or_default().push(release);
        }
        for (path, reason) in refused {
            catalog.views.push(refused_view(path, reason));
        }
        catalog.views.sort_by(|a, b| (&a.path, a.created).cmp(&(&b.path, b.created)));
        catalog
    }

    /// What was known of the devices.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Every file, accepted or not, by path.
    pub fn views(&self) -> &[FirmwareView] {
        &self.views
    }

    /// What is, or was, for this target.
    pub fn releases_for(&self, target: &Target) -> &[Arc<Release>] {
        self.by_target.get(target).map_or(&[], Vec::as_slice)
    }

    /// Whether the file that a transfer came from holds other accepted bytes now (rule 15).
    pub fn was_overwritten(&self, path: &str, digest: &Digest) -> bool {
        self.accepted.get(path).is_some_and(|now| now != digest)
    }
}

type Verdict = Result<(), (FirmwareState, String)>;

fn judge(release: &Release, known: &Site, earlier: &HashMap<(&str, &str), &Release>) -> Verdict {
    if let (Target::Model(folder), Some(model)) = (&release.target, &release.model)
        && *folder != model.text
    {
        return Err((
            FirmwareState::Refused,
            format!(
                "the sidecar names model {:?}, the folder {folder:?}: a sidecar may only narrow; move the file to models/{}/",
                model.text, model.text,
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
    if release.target == Target::All && release.model.is_none() {
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
    gone: &'a [Arc<Release>],
) -> Option<&'a Arc<Release>> {
    gone.iter().find(|before| {
        before.path == release.path
            && before.removed == Some(release.created)
            && before.version.text == release.version.text
            && before.digest != release.digest
    })
}

fn view(release: &Release, state: FirmwareState, reason: Option<String>) -> FirmwareView {
    FirmwareView {
        id: view_id(&release.path, &release.digest.to_string()),
        path: release.path.clone(),
        state,
        reason,
        title: release.title.as_ref().map(Named::view),
        version: Some(release.version.view()),
        model: release.model.as_ref().map(Named::view),
        min_version: release.min_version.as_ref().map(ToString::to_string),
        notes: release.notes.clone(),
        target: Some(target_text(&release.target)),
        digest: Some(release.digest.to_string()),
        size: Some(release.size),
        created: Some(release.created_at),
    }
}

fn refused_view(path: &str, reason: &str) -> FirmwareView {
    FirmwareView {
        id: view_id(path, "refused"),
        path: path.into(),
        state: FirmwareState::Refused,
        reason: Some(reason.into()),
        title: None,
        version: None,
        model: None,
        min_version: None,
        notes: None,
        target: None,
        digest: None,
        size: None,
        created: None,
    }
}

/// The same for the same content at the same path, also after a restart.
fn view_id(path: &str, content: &str) -> String {
    Digest::of(format!("{path}\0{content}").as_bytes()).to_string()[..16].into()
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
pub(crate) mod tests;
