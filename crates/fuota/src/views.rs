//! What the service shows and takes: plain data, as REST and the command line print it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Who asks for a change, for the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// The account.
    pub name: Option<String>,
    /// The address that the request came from.
    pub origin: Option<String>,
}

impl Actor {
    /// The name for sentences.
    pub(crate) fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or("an operator")
    }
}

/// Which devices, in the order of their ids.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DeviceQuery {
    /// Only ids after this one.
    pub after: Option<String>,
    /// At most this many; 0 means 1000.
    pub limit: usize,
    /// Only connected (`true`) or away (`false`) ones.
    pub online: Option<bool>,
    /// Only registered (`true`) or merely seen (`false`) ones.
    pub registered: Option<bool>,
    /// Only members of this group.
    pub group: Option<String>,
    /// Only devices of this model.
    pub model: Option<String>,
    /// Only devices in this state, by its name.
    pub state: Option<String>,
    /// Only devices that reported this version.
    pub version: Option<String>,
    /// Only devices whose newest offer is of this digest, in hex.
    pub digest: Option<String>,
    /// Only devices whose id or original client id contains this.
    pub search: Option<String>,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceView {
    /// Its id.
    pub id: String,
    /// Whether a connection of it lives now.
    pub online: bool,
    /// The version that it runs; `None` where that is not known.
    pub version: Option<String>,
    /// How that is known.
    pub version_from: Option<VersionFrom>,
    /// The state of its newest offer, by name; `None` where it was offered nothing.
    pub state: Option<String>,
    /// Why it failed, or why nothing is offered to it.
    pub reason: Option<String>,
    /// When what failed is offered again at the earliest, in seconds since 1970; `None` where it
    /// may be at any time, or is not.
    pub next_attempt: Option<u64>,
    /// How far its newest offer is.
    pub progress: Progress,
    /// Why its download stands still; `None` where it goes on, or there is none.
    pub stalled: Option<String>,
    /// What its newest offer is.
    pub firmware: Option<OfferedFirmware>,
    /// The parameters of the reference for its newest offer; `None` where it was offered nothing.
    pub parameters: Option<Parameters>,
    /// Whether it is registered.
    pub registered: bool,
    /// Its groups.
    pub groups: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its model.
    pub model: Option<String>,
    /// The title of the firmware that it got last, where a sidecar named one.
    pub title: Option<String>,
    /// How it asks for firmware; `None` while it has not acted.
    pub dialect: Option<String>,
    /// Its MQTT version, `3.1.1` or `5`, while it is online.
    pub protocol: Option<String>,
    /// Where its newest connection comes from, while it is online.
    pub address: Option<String>,
    /// The client id of its newest connection; known also for a device that is away where the
    /// id above is only a fingerprint of it.
    pub client_id: Option<String>,
    /// When it was last seen, in seconds since 1970; `None` if never.
    pub last_seen: Option<u64>,
}

/// Blocks of one transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Different blocks that were written to the device's connections.
    pub chunks_sent: u32,
    /// Blocks of the image.
    pub chunks_total: u32,
    /// Firmware bytes a second, as a mean over some seconds; `None` before the first block and
    /// when it is over.
    pub bytes_per_second: Option<u64>,
}

/// How it is known which version a device runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionFrom {
    /// It said so.
    Report,
    /// It reports nothing; it got that image and was heard long enough after its last block.
    Outcome,
}

/// What the reference keeps for a device, replaced at each new update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// The address that an operator named, or else the image's path.
    pub ota_url: String,
    /// Bytes of the image.
    pub ota_size: u64,
    /// Blocks of the image.
    pub ota_chunks: u32,
}

/// The image of an offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OfferedFirmware {
    /// Its title.
    pub title: Option<String>,
    /// Its version.
    pub version: String,
    /// Its SHA-256 in hex.
    pub digest: String,
    /// Bytes before encoding in each block but the last.
    pub chunk_size: u32,
    /// The how manieth offer of this image to this device.
    pub attempt: u32,
}

/// A device to register.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDevice {
    /// Its id.
    pub id: String,
    /// Its token, at least 16 characters; made up where none is given.
    #[serde(default)]
    pub token: Option<String>,
    /// Its groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its model.
    #[serde(default)]
    pub model: Option<String>,
}

/// A registered device and its token, which is shown only here.
#[derive(Clone, Debug, Serialize)]
pub struct AddedDevice {
    /// Its id.
    pub id: String,
    /// Its token.
    pub token: String,
}

/// What to change of a device; what is `None` stays.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DevicePatch {
    /// All its groups from now on.
    pub groups: Option<Vec<String>>,
    /// All its labels from now on.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its model from now on; the empty text forgets it.
    pub model: Option<String>,
    /// Gives a registered device a new token. The old one works until the new one logs in, for
    /// a day at most.
    pub rotate_token: bool,
    /// With `rotate_token`: the old token ends now.
    pub now: bool,
}

/// What became of a change.
#[derive(Clone, Debug, Serialize)]
pub struct ChangedDevice {
    /// The device after it.
    #[serde(flatten)]
    pub device: DeviceView,
    /// Its new token, shown only here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserRole {
    /// A device that logs in with a password; its id is the user's name.
    Device,
    /// A program that reads and writes messages: a dashboard, a historian.
    Service,
    /// A person who runs updates.
    Operator,
    /// A person who may do everything.
    Admin,
}

impl UserRole {
    /// The name in requests, listings and the database.
    pub fn name(self) -> &'static str {
        match self {
            UserRole::Device => "device",
            UserRole::Service => "service",
            UserRole::Operator => "operator",
            UserRole::Admin => "admin",
        }
    }
}

/// A password on its way in, or on its only way out. No log shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// One user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UserView {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: UserRole,
    /// When it was added, in seconds since 1970.
    pub created: u64,
}

/// A user to add.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Its name, in the form of a device id.
    pub name: String,
    /// What it may do.
    pub role: UserRole,
    /// Its password, at least 8 characters; made up where none is given.
    #[serde(default)]
    pub password: Option<Password>,
}

/// An added user.
#[derive(Clone, Debug, Serialize)]
pub struct AddedUser {
    /// The user.
    #[serde(flatten)]
    pub user: UserView,
    /// Its password, where it was made up; shown only here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
}

/// What to change of a user; what is not named stays.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserPatch {
    /// What it may do from now on.
    pub role: Option<UserRole>,
    /// Its password from now on.
    pub password: Option<Password>,
    /// Makes up a password.
    pub new_password: bool,
}

/// What became of a change; as [`AddedUser`].
pub type ChangedUser = AddedUser;

/// A token to make for a user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewToken {
    /// What it is for, in the words of whoever makes it.
    pub label: String,
    /// After how many days it ends; `None`: it does not.
    #[serde(deserialize_with = "crate::whole::maybe")]
    pub expires_in_days: Option<u32>,
}

/// A user's token for the admin interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenView {
    /// Names it; 8 hex digits.
    pub id: String,
    /// What it is for.
    pub label: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When it ends; `None`: never.
    pub expires: Option<u64>,
    /// When it was last used, to the hour; `None`: not yet.
    pub last_used: Option<u64>,
}

/// A made token, which is shown only here. No log shows it.
#[derive(Clone, Serialize)]
pub struct AddedToken {
    /// What is known of it.
    #[serde(flatten)]
    pub view: TokenView,
    /// The token.
    pub token: String,
}

/// Devices and users to add, all or none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Import {
    /// Devices with tokens.
    pub devices: Vec<NewDevice>,
    /// Users of another broker.
    pub users: Vec<ImportedUser>,
}

/// A user of another broker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedUser {
    /// Its name, in the form of a device id.
    pub name: String,
    /// What it may do.
    pub role: UserRole,
    /// Its password as mosquitto's password file has it: `$6$…`, `$7$…` or `$argon2id$…`.
    pub password_hash: Password,
}

/// What an import added.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Imported {
    /// The devices, in the order of the import.
    pub devices: Vec<ImportedDevice>,
    /// How many users.
    pub users: usize,
}

/// A device out of an import.
#[derive(Clone, Debug, Serialize)]
pub struct ImportedDevice {
    /// Its id.
    pub id: String,
    /// Its token, where it was made up; shown only here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Why one row of an import cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowProblem {
    /// `devices` or `users`.
    pub list: &'static str,
    /// Its place in that list; the first is 0.
    pub row: usize,
    /// What is wrong, and what to do.
    pub detail: String,
}

/// Why nothing was imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// These rows cannot be added.
    #[error("{} rows cannot be added; nothing was changed", .0.len())]
    Rows(Vec<RowProblem>),
    /// It cannot be done, whatever the rows are.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

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
    /// `trusted comment`, `sidecar`, `upload`, `image header`, `file name`, `folder` or `digest`.
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
    /// Its file was replaced by one that names the same version; it is no longer offered.
    Replaced,
}

impl FirmwareState {
    /// As they are shown.
    pub const NAMES: [&'static str; 7] =
        ["accepted", "catalogued", "withdrawn", "refused", "held", "conflict", "replaced"];
}

/// The site at a glance. Counters since the start; none counts what was only delayed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SiteStatus {
    /// Whether the first full scan of the store was taken in; nothing is offered before.
    pub ready: bool,
    /// Why the store cannot be read now.
    pub store_problem: Option<String>,
    /// Why the database cannot be written now.
    pub database_problem: Option<String>,
    /// Why the site's maintenance window is closed now: nothing new is offered.
    pub window_closed: Option<String>,
    /// Why the wall clock cannot be right; maintenance windows are closed then.
    pub clock_problem: Option<String>,
    /// Devices by registration and presence.
    pub devices: DeviceCounts,
    /// Devices per state of their newest offer.
    pub states: BTreeMap<&'static str, usize>,
    /// Files per state.
    pub firmware: BTreeMap<&'static str, usize>,
    /// Blocks queued to devices.
    pub blocks: u64,
    /// Firmware bytes in those, before encoding.
    pub block_bytes: u64,
    /// Manifests queued to devices, repeated ones included.
    pub manifests: u64,
    /// Errors sent to devices.
    pub errors: u64,
    /// Changes of the store, as many files as settled together, that were taken in and acted on.
    pub batches: u64,
    /// Publishes and subscriptions refused as forged or not allowed.
    pub refused: u64,
    /// Logins refused because a password or token was wrong, or the address had failed too often.
    pub failed_logins: u64,
}

/// How many devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceCounts {
    /// Known.
    pub total: usize,
    /// Of those, registered.
    pub registered: usize,
    /// Of those known, connected.
    pub online: usize,
}

/// Why the service did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It exists already, or contradicts what exists.
    #[error("{0}")]
    Conflict(String),
    /// A field cannot be accepted.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// It could not be written now; trying again may help.
    #[error("{0}; try again")]
    Unavailable(String),
}
