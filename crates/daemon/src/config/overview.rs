//! Every setting that applies, for people: what `check-config` prints.

use serde::Serialize;
use serde_json::Value;

use super::{keys::KEYS, secret::REDACTED, tree::Tree};

/// One key and its value, secrets redacted.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The key's name.
    pub key: &'static str,
    /// The value as it is written in the file; `None` where the key is not set and has no default.
    #[serde(skip)]
    pub value: Option<String>,
    /// The same as JSON has it; null for `None`.
    #[serde(rename = "value")]
    pub json: Value,
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
                json: if key.secret { REDACTED.into() } else { entry.raw.json() },
                source: tree.place(key.name, entry.origin),
            },
            None => Setting {
                key: key.name,
                value: (!key.default.is_empty()).then(|| written(key.default)),
                json: default_json(key.default),
                source: "default".to_owned(),
            },
        })
        .collect()
}

/// The default as JSON has it.
fn default_json(default: &str) -> Value {
    match (default.parse::<u64>(), default.parse::<bool>()) {
        _ if default.is_empty() => Value::Null,
        (Ok(number), _) => number.into(),
        (_, Ok(switch)) => switch.into(),
        _ => default.into(),
    }
}

/// The default as TOML has it: numbers and switches bare, all else in quotes.
pub fn written(default: &str) -> String {
    if default.parse::<u64>().is_ok() || default.parse::<bool>().is_ok() {
        default.to_owned()
    } else {
        format!("{default:?}")
    }
}
