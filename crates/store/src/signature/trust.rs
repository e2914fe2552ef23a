//! Whose signatures are believed.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::minisign::{Kind, PublicKey, Signature};
use super::{Comment, KeyId, Verdict};
use crate::digest::Digest;

/// The longest key file, in bytes.
const MAX_KEY_FILE: u64 = 4096;

/// Which signatures are believed, and whether there must be one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Trust {
    pub(super) keys: Vec<PublicKey>,
    pub(super) require: bool,
}

impl Trust {
    /// Reads the key files.
    ///
    /// # Errors
    /// The file that cannot be used, and why; or that signatures are required and nobody's are
    /// believed.
    pub fn load(files: &[PathBuf], require: bool) -> Result<Arc<Self>, TrustError> {
        let keys = files.iter().map(|path| {
            let key = read_key_file(path).and_then(|bytes| PublicKey::parse(&bytes));
            key.map_err(|reason| TrustError::Key { path: path.clone(), reason })
        });
        let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
        if require && keys.is_empty() {
            return Err(TrustError::NoKeys);
        }
        Ok(Arc::new(Self { keys, require }))
    }

    /// The keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Whether what none of them signed is refused.
    pub(crate) fn is_required(&self) -> bool {
        self.require
    }

    /// Whether an image may be given to devices whose signature was judged before, perhaps by other
    /// keys.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn still_accepts(&self, verdict: &Verdict) -> Result<(), String> {
        let known = |id: &str| self.keys.iter().any(|key| key.id.to_string() == id);
        match verdict {
            _ if !self.require => Ok(()),
            Verdict::Trusted { key, .. } if known(key) => Ok(()),
            Verdict::Trusted { key, .. } | Verdict::Unknown { key, .. } => Err(format!(
                "its signature is by key {key}, store.require_signature is set, and the key is none \
                 of store.trusted_keys: sign it with one of those and give it in again"
            )),
            Verdict::Unsigned => {
                Err("it is not signed, and store.require_signature is set: sign it \
                                      and give it in again"
                    .into())
            }
        }
    }

    /// Whether a signature can be worth anything, so that files are hashed for it.
    pub(crate) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    fn key(&self, id: KeyId) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// What must be known of a file to judge this signature.
    pub(crate) fn needs(&self, signature: Option<&Signature>) -> Needs {
        match signature.filter(|signature| self.key(signature.key).is_some()) {
            None => Needs::Nothing,
            Some(signature) => match signature.kind {
                Kind::Prehashed => Needs::Prehash,
                Kind::WholeFile => Needs::WholeFile(self.mark(signature)),
            },
        }
    }

    /// Marks that an old signature was checked: itself and the key.
    fn mark(&self, signature: &Signature) -> Digest {
        let key = self.key(signature.key).map(|key| *key.key.as_bytes()).unwrap_or_default();
        Digest::of(&[&signature.digest.as_bytes()[..], &key].concat())
    }

    /// Checks an old signature against a whole file. `None` where it does not match.
    pub(crate) fn check_whole(
        &self,
        signature: &Signature,
        file: &mut impl Read,
    ) -> io::Result<Option<Digest>> {
        let Some(key) = self.key(signature.key) else { return Ok(None) };
        Ok(signature.matches(key, file)?.then(|| self.mark(signature)))
    }

    /// What a signature is worth.
    ///
    /// # Errors
    /// Why the file is not accepted, as the end of a sentence that begins with its name.
    pub(crate) fn judge(
        &self,
        signature: Option<&Signature>,
        evidence: Evidence<'_>,
    ) -> Result<Verdict, String> {
        let Some(signature) = signature else {
            if self.require {
                return Err(
                    "it is not signed, and store.require_signature is set: put FILE.minisig beside \
                     it, as `fuotad firmware sign` makes it"
                        .into(),
                );
            }
            return Ok(Verdict::Unsigned);
        };
        let Some(key) = self.key(signature.key) else {
            if self.require {
                return Err(format!(
                    "it is signed by key {}, which is none of store.trusted_keys: sign it with one \
                     of those",
                    signature.key
                ));
            }
            let (key, line) = (signature.key.to_string(), signature.line());
            let model = Comment::parse(&signature.comment).ok().and_then(|comment| comment.model);
            return Ok(Verdict::Unknown { key, line, model });
        };
        let matches = match signature.kind {
            Kind::Prehashed => {
                evidence.prehash.is_some_and(|hash| signature.matches_prehash(key, hash))
            }
            Kind::WholeFile => evidence.checked == Some(self.mark(signature)),
        };
        signature
            .outcome(key, matches)
            .map_err(|why| format!("{why}: copy both again, or sign it anew"))?;
        let comment = Comment::parse(&signature.comment)
            .map_err(|why| format!("its trusted comment cannot be used ({why}): sign it anew"))?;
        Ok(Verdict::Trusted { key: signature.key.to_string(), comment, line: signature.line() })
    }
}

/// What is at hand of a file to check its signature with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence<'a> {
    /// [`Prehash`] of its bytes.
    pub(crate) prehash: Option<&'a [u8; 64]>,
    /// The mark of an old signature that was checked against these bytes before.
    pub(crate) checked: Option<Digest>,
}

/// See [`Trust::needs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    Prehash,
    /// With the mark that shows that it was checked.
    WholeFile(Digest),
}

fn read_key_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_KEY_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_KEY_FILE {
        return Err("it is too large for a key".into());
    }
    Ok(bytes)
}

/// Why trusted keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A key file.
    #[error("the key {path} cannot be used: {reason}", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing could ever be accepted.
    #[error("signatures are required and no key is trusted: name the key files in trusted_keys")]
    NoKeys,
}
