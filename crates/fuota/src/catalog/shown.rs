//! Files as listings show them.

use store::Verdict as Signed;

use super::{Named, Release, release_id, view_id};
use crate::{
    fleet::deployment::Deployment,
    views::{FirmwareState, FirmwareView, SignatureView},
};

pub fn view(
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

/// Of a path where something else than what is shown may lie now.
pub const FORMERLY: &str = "what is shown is what was accepted here before; its deployments offer \
                            nothing until it is here again, and end when something else is accepted \
                            here or the file is deleted";

/// Says that a file cannot be read now, before what else is odd about it.
pub fn unreadable(view: &mut FirmwareView, why: &str) {
    let warning = format!("it cannot be read now, and what is known of it stands: {why}");
    if view.reason.as_deref().is_none_or(|reason| reason.starts_with("warning: ")) {
        view.reason = Some(format!("warning: {warning}"));
    }
    view.warnings.insert(0, warning);
}

fn signature_view(release: &Release) -> SignatureView {
    let (state, key) = match &release.signature {
        Signed::Unsigned => ("unsigned", None),
        Signed::Unknown { key, .. } => ("unknown", Some(key.clone())),
        Signed::Trusted { key, .. } => ("trusted", Some(key.clone())),
    };
    SignatureView { state, key, embedded: release.header.signed }
}

pub fn refused_view(path: &str, reason: &str) -> FirmwareView {
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
