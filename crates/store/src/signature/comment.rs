//! What the signer says of a file.

use serde::{Deserialize, Serialize};

use crate::paths::is_valid_name;

/// The longest title or version; as in a sidecar.
const MAX_TEXT: usize = 128;

/// What a trusted comment says of a file, in fields as minisign's own: `title:pump`, `version:1.2.0`,
/// `model:px`, separated by tabs, or by spaces where there is no tab; `=` is as good as `:`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Comment {
    /// What the firmware is called.
    pub title: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The model that it is for.
    pub model: Option<String>,
}

impl Comment {
    /// Reads a trusted comment. What it does not know, such as minisign's own `timestamp:…`, is
    /// left alone.
    ///
    /// # Errors
    /// A phrase that names the field: what is signed must not be half understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut comment = Self::default();
        let fields: Vec<&str> = match text.contains('\t') {
            true => text.split('\t').collect(),
            false => text.split(' ').collect(),
        };
        for field in fields {
            let Some((name, value)) = field.split_once([':', '=']) else { continue };
            let place = match name.trim() {
                "title" => &mut comment.title,
                "version" => &mut comment.version,
                "model" => &mut comment.model,
                _ => continue,
            };
            let value = value.trim();
            if value.is_empty() || value.len() > MAX_TEXT || value.chars().any(char::is_control) {
                return Err(format!("`{}` must be 1 to {MAX_TEXT} bytes of text", name.trim()));
            }
            if place.replace(value.to_owned()).is_some() {
                return Err(format!("it names `{}` twice", name.trim()));
            }
        }
        if let Some(model) = comment.model.as_deref().filter(|model| !is_valid_name(model)) {
            return Err(format!(
                "`model` {model:?} cannot name a model: use the characters A-Z a-z 0-9 . _ : -"
            ));
        }
        Ok(comment)
    }
}
