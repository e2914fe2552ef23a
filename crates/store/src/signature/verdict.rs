//! What a signature is worth.

use serde::{Deserialize, Serialize};

use super::Comment;
#[cfg(doc)]
use super::Signature;

/// What a signature is worth here. It travels with the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Verdict {
    /// There is no signature.
    #[default]
    Unsigned,
    /// There is one, and no trusted key to check it with.
    Unknown {
        /// The key that it names.
        key: String,
        /// [`Signature::line`]; empty where an earlier version wrote it down, and where the
        /// signature is gone.
        #[serde(default)]
        line: String,
        /// The model that its comment names, or that it named when it was trusted. Nobody vouches
        /// for that, so it can only keep the image from other models.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
    /// A trusted key made it, of these bytes and this comment.
    Trusted {
        /// That key.
        key: String,
        /// What the trusted comment says.
        comment: Comment,
        /// [`Signature::line`]; empty where an earlier version wrote it down.
        #[serde(default)]
        line: String,
    },
}

impl Verdict {
    /// The same bytes are judged anew, and `self` was what their signature was worth before. What
    /// that said of the model goes on to keep the image from others: a key that is removed, or a
    /// signature that is lost, must not give it to more devices than before.
    pub fn then(self, now: Self) -> Self {
        let (key, before) = match self {
            Self::Unsigned => return now,
            Self::Unknown { key, model, .. } => (key, model),
            Self::Trusted { key, comment, .. } => (key, comment.model),
        };
        match (now, before) {
            (Self::Unsigned, Some(model)) => {
                Self::Unknown { key, line: String::new(), model: Some(model) }
            }
            (Self::Unknown { key, line, model }, before) => {
                Self::Unknown { key, line, model: model.or(before) }
            }
            (now, _) => now,
        }
    }

    /// [`Signature::line`] of the signature, whatever it is worth.
    pub fn line(&self) -> Option<&str> {
        match self {
            Self::Unsigned => None,
            Self::Unknown { line, .. } | Self::Trusted { line, .. } => {
                Some(&**line).filter(|line| !line.is_empty())
            }
        }
    }
}
