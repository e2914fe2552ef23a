//! One file with what is known of it: title, version, model, and what decided each.

use semver::Version;
use serde::{Deserialize, Serialize};
use store::{Checksum, Comment, Digest, Facts, Header, Verdict as Signed};

use crate::{
    db::FileRow,
    fleet::{deployment::Deployment, target::Target},
    policy::same_version,
    views::Decided,
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
    /// The comment of a signature that nobody trusted made, or that is gone. It only narrows.
    Unverified,
    /// The image itself.
    Header,
    FileName,
    Digest,
}

impl Named {
    fn new(text: impl Into<String>, from: Source) -> Named {
        Named { text: text.into(), from }
    }

    pub fn view(&self) -> Decided {
        Decided { value: self.text.clone(), from: self.from.name() }
    }
}

impl Source {
    /// The name in listings.
    pub fn name(self) -> &'static str {
        match self {
            Source::Signature => "trusted comment",
            Source::Sidecar => "sidecar",
            Source::Upload => "upload",
            Source::Folder => "folder",
            Source::Unverified => "unverified comment",
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
        let (comment, unverified) = match &signature {
            Signed::Trusted { comment, .. } => (comment.clone(), None),
            Signed::Unknown { model, .. } => (Comment::default(), model.clone()),
            Signed::Unsigned => (Comment::default(), None),
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
                .or(from_folder)
                .or_else(|| named(unverified, Source::Unverified)),
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
        if let Signed::Unknown { key, line, .. } = &self.signature {
            warnings.push(match line.is_empty() {
                true => format!("its signature by key {key} is gone: put FILE.minisig back"),
                false => format!(
                    "it is signed by key {key}, which is none of store.trusted_keys, so the \
                     signature says nothing"
                ),
            });
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
    pub fn deployed(&self, by: &Deployment) -> Release {
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
