//! The attributes that say what a device should run.

use serde_json::{Map, Value};

use crate::dialect::Offer;

/// The attributes that say what the device should run.
pub const KEYS: [&str; 5] =
    ["fw_title", "fw_version", "fw_size", "fw_checksum_algorithm", "fw_checksum"];

/// Beginnings of all that assign firmware or software: those without the last letters of some.
pub const ASSIGNING: [&str; 12] = [
    "fw_title",
    "fw_version",
    "fw_size",
    "fw_checksum",
    "fw_tag",
    "fw_url",
    "sw_title",
    "sw_version",
    "sw_size",
    "sw_checksum",
    "sw_tag",
    "sw_url",
];

pub fn attributes(offer: &Offer<'_>, keys: &[&str]) -> Map<String, Value> {
    let value = |key: &str| match key {
        "fw_title" => Some(title(offer).into()),
        "fw_version" => Some(offer.version.into()),
        "fw_size" => Some(offer.size.into()),
        "fw_checksum_algorithm" => {
            Some(offer.checksum.map_or("SHA256", |checksum| checksum.algorithm.name()).into())
        }
        "fw_checksum" => {
            Some(offer.checksum.map_or(offer.sha256, |checksum| &*checksum.value).into())
        }
        _ => None,
    };
    keys.iter().filter_map(|key| Some(((*key).to_owned(), value(key)?))).collect()
}

/// A title is never missing: devices compare it, and some name a file by it.
fn title<'a>(offer: &Offer<'a>) -> &'a str {
    if let Some(title) = offer.title {
        return title;
    }
    let stem = offer.file.rsplit_once('.').map_or(offer.file, |(stem, _)| stem);
    let name = stem.strip_suffix(offer.version).unwrap_or(stem);
    let name = name.trim_end_matches(['v', 'V']).trim_end_matches(['-', '_', ' ', '.']);
    [name, stem, "firmware"].into_iter().find(|name| !name.is_empty()).unwrap_or("firmware")
}
