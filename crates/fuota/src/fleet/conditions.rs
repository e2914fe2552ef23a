//! What a deployment waits for beside its waves: its maintenance windows and its caps.

use serde::{Deserialize, Serialize};

use super::change::Asked;
use crate::{limits::Limits, settings::Settings, window::Windows};

/// See [the module](self).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Instead of the site's; empty: at any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<Windows>,
    /// Beside the site's.
    #[serde(skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// The address that an operator named for this update, where one did (rule 27).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What it was asked for with at first, where it was changed since and may be asked for again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
}

impl Conditions {
    /// The windows that count.
    pub fn windows<'a>(&'a self, settings: &'a Settings) -> &'a Windows {
        self.windows.as_ref().unwrap_or(&settings.windows)
    }
}
