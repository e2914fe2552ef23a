//! Firmware and where it lies as the service shows and takes them.

use serde::Serialize;

/// One file, dropped or uploaded, accepted or not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FirmwareView {
    /// Names this content at this path.
    pub id: String,
    /// Relative to the watched root, with `/`.
    pub path: String,
    /// What became of it.
    pub state: FirmwareState,
    /// Why it is not accepted, and what to do; or a warning about an accepted one.
    pub reason: Option<String>,
    /// What is odd about it and worth a look before it is offered, a sentence each.
    pub warnings: Vec<String>,
    /// Its title, and what decided it.
    pub title: Option<Decided>,
    /// Its version, and what decided it.
    pub version: Option<Decided>,
    /// The model that it is for, and what decided it.
    pub model: Option<Decided>,
    /// The lowest reported version that it may follow.
    pub min_version: Option<String>,
    /// What the sidecar notes.
    pub notes: Option<String>,
    /// Whom its folder names: `all`, `group:NAME`, `model:NAME` or `device:ID`; `None` for an
    /// upload, which is for nobody by itself.
    pub target: Option<String>,
    /// The deployments that offer it, or wait for an approval to.
    pub deployments: Vec<String>,
    /// What its bytes are, as in `ESP-IDF` or `binary`; of what was unpacked, what it was.
    pub format: Option<&'static str>,
    /// The chip that the image names.
    pub chip: Option<String>,
    /// The devices that a container names, in its own words.
    pub hardware: Vec<String>,
    /// The security version or counter in the image.
    pub security_counter: Option<u32>,
    /// What its signature is worth.
    pub signature: Option<SignatureView>,
    /// SHA-256 in hex of what devices get.
    pub digest: Option<String>,
    /// The same of what was dropped, where what devices get was unpacked from it.
    pub dropped_digest: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// When it was accepted, in seconds since 1970.
    pub created: Option<u64>,
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// The value.
    pub value: String,
    /// `trusted comment`, `sidecar`, `upload`, `image header`, `file name`, `folder`,
    /// `unverified comment` or `digest`.
    pub from: &'static str,
}

/// What the signature of a file is worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignatureView {
    /// `trusted`, `unknown` (by a key that is not trusted) or `unsigned`.
    pub state: &'static str,
    /// The key that made it, as minisign names it.
    pub key: Option<String>,
    /// Whether the image carries a signature for the device to check.
    pub embedded: bool,
}

/// The place where firmware is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreView {
    /// Where it is.
    pub url: String,
    /// Why it cannot be read now.
    pub problem: Option<String>,
    /// Accepted files.
    pub files: usize,
    /// Their images together, in bytes.
    pub bytes: u64,
    /// Files and folders that are not accepted.
    pub refused: usize,
    /// Accepted files that cannot be read now; what is known of them stands.
    pub troubled: usize,
    /// When the last look ended that succeeded, in seconds since 1970.
    pub scanned: Option<u64>,
    /// Copies in `data_dir`, and their bytes.
    pub copies: usize,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Bytes of images in memory.
    pub cached_bytes: usize,
}

/// What became of a dropped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareState {
    /// It is offered to whom it fits.
    Accepted,
    /// It can be deployed; nothing offers it by itself.
    Catalogued,
    /// An operator withdrew its bytes for good.
    Withdrawn,
    /// It cannot be used as it is.
    Refused,
    /// Somebody must say more before it is offered.
    Held,
    /// It contradicts an earlier file.
    Conflict,
    /// Its file was overwritten or is gone, and it is offered no more; a rollback could give it out.
    Replaced,
}

impl FirmwareState {
    /// As they are shown.
    pub const NAMES: [&'static str; 7] =
        ["accepted", "catalogued", "withdrawn", "refused", "held", "conflict", "replaced"];
}
