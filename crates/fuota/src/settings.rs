//! What the daemon configures.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{Allow, Limits, OpenError, Rule, Windows, fleet::rollout::Plan};

/// The largest chunk that may be configured, in bytes before encoding. Base64 makes a third
/// more of it, and a whole block is one allocation.
pub const MAX_CHUNK_SIZE: u32 = 1024 * 1024;

/// Whom a site lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Everybody; accounts and registered devices need their proof all the same.
    Open,
    /// Only who proves to be a device or a user.
    Token,
}

/// How a dropped file reaches more than one device (rule 21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropRollout {
    /// All of them at once.
    All,
    /// One, then a tenth, then the rest.
    Canary,
}

/// What becomes of files that are found at the very first start (rule 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExisting {
    /// They are deployed as if they were dropped now.
    Deploy,
    /// They wait for an operator.
    Hold,
}

/// How firmware updates are done on this site. Every duration is monotonic.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where the database (`fuota.db`) and the key of the token hashes (`token.key`) lie.
    pub data_dir: PathBuf,
    /// Bytes of firmware in one block, before encoding: 1 to [`MAX_CHUNK_SIZE`]. Applies to new
    /// offers; a running transfer keeps what its manifest said.
    pub chunk_size: u32,
    /// Blocks in flight to one connection: asked for and not yet written to its socket.
    pub max_window: u32,
    /// How often one image is offered to one device, at most.
    pub max_attempts: u32,
    /// How long a device is left alone after its first failed attempt at an image; each further
    /// wait is longer. Zero: the next attempt comes with the next connection.
    pub retry_after: Duration,
    /// How long a device that reconnects in the middle of a transfer may take to ask again,
    /// before the manifest is sent again.
    pub resume_grace: Duration,
    /// How long after its last block a device must still be heard to count as
    /// `updated_unconfirmed`.
    pub confirm_after: Duration,
    /// How long a device may stay away after its last block before it is `silent`.
    pub confirm_within: Duration,
    /// The largest PUBLISH to a device, in bytes on the wire; `None`: only its own limit counts.
    pub max_message: Option<u32>,
    /// Whom the site lets in.
    pub mode: AuthMode,
    /// Whether devices, and clients without an account, are limited to what `rules` allow.
    pub strict: bool,
    /// Who may publish and subscribe where, the first that applies; then come the defaults.
    pub rules: Vec<Rule>,
    /// How long a rotated token goes on working, unless the new one logs in before.
    pub rotation_grace: Duration,
    /// Whether clients without an account may write to `fuota/devices/ID/down`.
    pub open_downlink: bool,
    /// How many devices without registration are remembered.
    pub max_unregistered: usize,
    /// The shortest silence after which a manifest is repeated to a device that stopped asking.
    pub nudge_after: Duration,
    /// Whether a dropped file is deployed; else it waits for an operator's deployment.
    pub deploy_drops: bool,
    /// How a dropped file reaches many devices; `None`: as the mode suggests.
    pub drop_rollout: Option<DropRollout>,
    /// What becomes of files found at the very first start; `None`: as the mode suggests.
    pub on_existing: Option<OnExisting>,
    /// When manifests go out, where a deployment names no windows of its own.
    pub windows: Windows,
    /// Caps over the whole site.
    pub limits: Limits,
    /// Caps over the members of a group, by its name. A device in several groups is held back by
    /// each; `starts_per_minute` is not for groups.
    pub group_limits: BTreeMap<String, Limits>,
    /// Firmware bytes a second to one connection, before encoding; `None`: no cap.
    pub device_bytes_per_second: Option<u64>,
    /// A manifest that could go out to many devices at once waits for a random time up to this.
    pub jitter: Duration,
    /// Where operators' messages may have images fetched from; empty: nowhere.
    pub fetch_allow: Vec<Allow>,
    /// How long lines of timelines are kept, and deployments that are over, with what became of
    /// each device.
    pub retention: Duration,
    /// How long lines of the audit are kept.
    pub audit_retention: Duration,
    /// How often progress is written to the database, and so what a crash may forget.
    pub flush_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            data_dir: PathBuf::from("data"),
            chunk_size: 4096,
            max_window: 64,
            max_attempts: 3,
            retry_after: Duration::from_secs(30),
            resume_grace: Duration::from_secs(5),
            confirm_after: Duration::from_secs(600),
            confirm_within: Duration::from_secs(1800),
            max_message: None,
            mode: AuthMode::Open,
            strict: false,
            rules: Vec::new(),
            rotation_grace: Duration::from_secs(24 * 3600),
            open_downlink: false,
            max_unregistered: 10_000,
            nudge_after: Duration::from_secs(60),
            deploy_drops: true,
            drop_rollout: None,
            on_existing: None,
            windows: Windows::default(),
            limits: Limits::default(),
            group_limits: BTreeMap::new(),
            device_bytes_per_second: None,
            jitter: Duration::ZERO,
            fetch_allow: Vec::new(),
            retention: Duration::from_secs(365 * 24 * 3600),
            audit_retention: Duration::from_secs(365 * 24 * 3600),
            flush_interval: Duration::from_secs(1),
        }
    }
}

impl Settings {
    /// These, but with what cannot change while the engine runs as it `is`.
    pub(crate) fn below(self, is: &Settings) -> Settings {
        Settings {
            data_dir: is.data_dir.clone(),
            mode: is.mode,
            on_existing: is.on_existing,
            rotation_grace: is.rotation_grace,
            nudge_after: is.nudge_after,
            flush_interval: is.flush_interval,
            ..self
        }
    }

    /// [`Settings::on_existing`], or what the mode suggests.
    pub(crate) fn on_existing(&self) -> OnExisting {
        self.on_existing.unwrap_or(match self.mode {
            AuthMode::Open => OnExisting::Deploy,
            AuthMode::Token => OnExisting::Hold,
        })
    }

    /// The waves of a dropped file.
    pub(crate) fn drop_plan(&self) -> Plan {
        match (self.drop_rollout, self.mode) {
            (Some(DropRollout::All), _) | (None, AuthMode::Open) => Plan::all(),
            (Some(DropRollout::Canary), _) | (None, AuthMode::Token) => Plan::canary(),
        }
    }

    /// Refuses what cannot work, naming the key.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let invalid = |key, problem: String| Err(OpenError::Setting { key, problem });
        if !(1..=MAX_CHUNK_SIZE).contains(&self.chunk_size) {
            return invalid(
                "fuota.chunk_size",
                format!("{} is not between 1 and {MAX_CHUNK_SIZE} bytes", self.chunk_size),
            );
        }
        if !(1..=4096).contains(&self.max_window) {
            return invalid(
                "fuota.max_window",
                format!("{} is not between 1 and 4096 blocks", self.max_window),
            );
        }
        if self.max_attempts == 0 {
            return invalid("fuota.max_attempts", "0 would offer nothing; use at least 1".into());
        }
        if let Err(problem) = self.limits.check() {
            return invalid("fuota.limits", problem);
        }
        for (name, limits) in &self.group_limits {
            if let Err(problem) = limits.check() {
                return invalid("fuota.limits.groups", format!("{name}: {problem}"));
            }
        }
        if self.device_bytes_per_second == Some(0) {
            return invalid("fuota.limits.device_bytes_per_second", "0 would send nothing".into());
        }
        if self.max_message.is_some_and(|limit| limit < 256) {
            return invalid(
                "fuota.max_message",
                "fewer than 256 bytes cannot hold a manifest".into(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_key_that_cannot_work() {
        assert!(Settings::default().check().is_ok());
        for (broken, key) in [
            (Settings { chunk_size: 0, ..Settings::default() }, "fuota.chunk_size"),
            (Settings { max_window: 0, ..Settings::default() }, "fuota.max_window"),
            (Settings { max_attempts: 0, ..Settings::default() }, "fuota.max_attempts"),
            (Settings { max_message: Some(80), ..Settings::default() }, "fuota.max_message"),
        ] {
            let error = broken.check().expect_err(key).to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
