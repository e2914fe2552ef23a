//! Devices as the service shows and takes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
