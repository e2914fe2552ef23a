//! Every setting that applies, for people: what `check-config` prints.

use serde::Serialize;

use super::{keys::KEYS, secret::REDACTED, tree::Tree};

/// One key and its value, secrets redacted.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The key's name.
    pub key: &'static str,
    /// The value as it is written in the file; `None` where the key is not set and has no default.
    pub value: Option<String>,
    /// `default`, the name of the file, or that of the environment variable.
    pub source: String,
}

/// All settings.
pub fn settings(tree: &Tree) -> Vec<Setting> {
    KEYS.iter()
        .map(|key| match tree.entries.get(key.name) {
            Some(entry) => Setting {
                key: key.name,
                value: Some(if key.secret { REDACTED.to_owned() } else { entry.raw.to_string() }),
                source: tree.place(key.name, entry.origin),
            },
            None => Setting {
                key: key.name,
                value: (!key.default.is_empty()).then(|| written(key.default)),
                source: "default".to_owned(),
            },
        })
        .collect()
}

/// The default as TOML has it: numbers and switches bare, all else in quotes.
pub fn written(default: &str) -> String {
    if default.parse::<u64>().is_ok() || default.parse::<bool>().is_ok() {
        default.to_owned()
    } else {
        format!("{default:?}")
    }
}
