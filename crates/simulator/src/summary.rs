//! How a run went, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::digest::Digest;

/// How a run went. As JSON it has the fields as they are named here.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Devices that took part.
    pub devices: usize,
    /// Devices that have a verified image.
    pub ok: usize,
    /// Devices that have none.
    pub failed: usize,
    /// From the first connection to the last device's end, in seconds.
    pub seconds: f64,
    /// Blocks received, repeated ones too.
    pub blocks: u64,
    /// Bytes of firmware in them.
    pub bytes: u64,
    /// `blocks` per second.
    pub blocks_per_second: f64,
    /// Requests for a chunk that had been asked for before.
    pub retries: u64,
    /// Blocks that a device had already.
    pub repeated: u64,
    /// Connections after each device's first, wanted and unwanted.
    pub reconnects: u64,
    /// Reboots, all of them wanted.
    pub reboots: u64,
    /// Requests and blocks that were lost on purpose.
    pub lost: u64,
    /// `fuota_error` messages received.
    pub errors: u64,
    /// Messages of the server that were not as they should be.
    pub malformed: u64,
    /// The seed of the faults.
    pub seed: u64,
    /// Why devices failed: kind of failure, and how many.
    pub reasons: BTreeMap<String, usize>,
    /// Each device, in order.
    pub reports: Vec<DeviceReport>,
}

/// How one device fared.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DeviceReport {
    /// Client id, or the name it would have where it connected with an empty one.
    pub name: String,
    /// The verified image's digest; absent if there is none.
    pub sha256: Option<Digest>,
    /// The verified image's bytes.
    pub size: Option<u64>,
    /// The version in the manifest.
    pub version: Option<String>,
    /// From the first manifest to the verified image, in seconds.
    pub seconds: Option<f64>,
    /// Manifests that started a download.
    pub manifests: u64,
    /// See [`Summary::blocks`].
    pub blocks: u64,
    /// See [`Summary::bytes`].
    pub bytes: u64,
    /// See [`Summary::retries`].
    pub retries: u64,
    /// See [`Summary::repeated`].
    pub repeated: u64,
    /// See [`Summary::reconnects`].
    pub reconnects: u64,
    /// See [`Summary::reboots`].
    pub reboots: u64,
    /// See [`Summary::lost`].
    pub lost: u64,
    /// See [`Summary::errors`].
    pub errors: u64,
    /// See [`Summary::malformed`].
    pub malformed: u64,
    /// Why the device failed, as a sentence; absent if it did not.
    pub reason: Option<String>,
    /// The kind of failure in a few words, by which [`Summary::reasons`] counts.
    pub kind: Option<String>,
}

impl DeviceReport {
    /// Whether the device has a verified image and nothing went wrong with it.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.sha256.is_some() && self.reason.is_none()
    }
}

impl Summary {
    /// Whether every device has a verified image.
    #[must_use]
    pub fn all_ok(&self) -> bool {
        self.devices > 0 && self.failed == 0
    }

    pub(crate) fn new(reports: Vec<DeviceReport>, seconds: f64, seed: u64) -> Self {
        let total = |count: fn(&DeviceReport) -> u64| reports.iter().map(count).sum::<u64>();
        let ok = reports.iter().filter(|report| report.is_ok()).count();
        let blocks = total(|report| report.blocks);
        let mut reasons = BTreeMap::new();
        for kind in reports.iter().filter_map(|report| report.kind.clone()) {
            *reasons.entry(kind).or_insert(0) += 1;
        }
        Self {
            devices: reports.len(),
            ok,
            failed: reports.len() - ok,
            seconds,
            blocks,
            bytes: total(|report| report.bytes),
            blocks_per_second: if seconds > 0.0 { blocks as f64 / seconds } else { 0.0 },
            retries: total(|report| report.retries),
            repeated: total(|report| report.repeated),
            reconnects: total(|report| report.reconnects),
            reboots: total(|report| report.reboots),
            lost: total(|report| report.lost),
            errors: total(|report| report.errors),
            malformed: total(|report| report.malformed),
            seed,
            reasons,
            reports,
        }
    }
}

/// How many failed devices the text names.
const NAMED: usize = 10;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "devices   {} ok, {} failed, of {}", self.ok, self.failed, self.devices)?;
        writeln!(
            f,
            "received  {} in {} blocks, {:.2} s, {:.0} blocks/s",
            indicatif::BinaryBytes(self.bytes),
            self.blocks,
            self.seconds,
            self.blocks_per_second
        )?;
        let mut images: BTreeMap<String, usize> = BTreeMap::new();
        for report in self.reports.iter().filter(|report| report.is_ok()) {
            if let (Some(digest), Some(size), Some(version)) =
                (report.sha256, report.size, &report.version)
            {
                *images
                    .entry(format!("version {version}, {size} bytes, sha256 {digest}"))
                    .or_default() += 1;
            }
        }
        for (image, count) in images {
            writeln!(f, "image     {image}: {count}")?;
        }
        writeln!(
            f,
            "faults    {} lost, {} repeated, {} retries, {} reconnects, {} reboots (seed {})",
            self.lost, self.repeated, self.retries, self.reconnects, self.reboots, self.seed
        )?;
        if self.errors + self.malformed > 0 {
            writeln!(
                f,
                "server    {} error messages, {} malformed messages",
                self.errors, self.malformed
            )?;
        }
        for (kind, count) in &self.reasons {
            writeln!(f, "failed    {kind}: {count}")?;
        }
        let failed: Vec<_> = self.reports.iter().filter(|report| !report.is_ok()).collect();
        for report in failed.iter().take(NAMED) {
            writeln!(
                f,
                "          {}: {}",
                report.name,
                report.reason.as_deref().unwrap_or("no image")
            )?;
        }
        if failed.len() > NAMED {
            writeln!(f, "          and {} more", failed.len() - NAMED)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(name: &str) -> DeviceReport {
        DeviceReport {
            name: name.into(),
            sha256: Some(Digest([0xab; 32])),
            size: Some(10),
            version: Some("1.2".into()),
            blocks: 3,
            bytes: 10,
            ..DeviceReport::default()
        }
    }

    fn bad(name: &str) -> DeviceReport {
        DeviceReport {
            name: name.into(),
            blocks: 1,
            reason: Some("no answer to 11 requests for chunk 1".into()),
            kind: Some("no answer".into()),
            ..DeviceReport::default()
        }
    }

    #[test]
    fn counts_and_reasons() {
        let summary = Summary::new(vec![good("a"), bad("b"), bad("c")], 2.0, 7);
        assert_eq!((summary.ok, summary.failed, summary.blocks), (1, 2, 5));
        assert!(!summary.all_ok());
        assert_eq!(summary.reasons["no answer"], 2);
        let text = summary.to_string();
        assert!(text.contains("1 ok, 2 failed, of 3"), "{text}");
        assert!(text.contains("version 1.2, 10 bytes, sha256 abab"), "{text}");
        assert!(text.contains("b: no answer to 11"), "{text}");
        assert!(Summary::new(vec![good("a")], 1.0, 7).all_ok());
        assert!(!Summary::new(vec![], 1.0, 7).all_ok(), "nobody is not everybody");
    }

    #[test]
    fn as_json() {
        let summary = Summary::new(vec![good("a")], 2.0, 7);
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["ok"], 1);
        assert_eq!(json["seed"], 7);
        assert_eq!(json["reports"][0]["sha256"], "ab".repeat(32));
        assert_eq!(json["reports"][0]["reason"], serde_json::Value::Null);
    }
}
