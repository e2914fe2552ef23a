//! Detached signatures in minisign's format, `FILE.minisig`, and the keys that are trusted.
//!
//! ```text
//! untrusted comment: …
//! base64 of: "ED" (over BLAKE2b-512 of the file) or "Ed" (over the file), key id, Ed25519
//! trusted comment: …
//! base64 of: Ed25519 over the first signature and the trusted comment
//! ```
//!
//! A public key has a line of comment and the base64 of "Ed", its id and the key. Ids are 8 bytes
//! and are shown as minisign shows them. The primitives are `ed25519-dalek`'s; the four lines are
//! read here, because the digest of a file is kept and compared again when keys change, which
//! libraries that take the file do not allow.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use blake2::{Blake2b512, Digest as _};
use ed25519_dalek::{Signature as Ed25519, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::paths::is_valid_name;

/// The longest key file and the longest comment, in bytes.
const MAX_KEY_FILE: u64 = 4096;
const MAX_COMMENT: usize = 8192;
/// The longest title or version; as in a sidecar.
const MAX_TEXT: usize = 128;

/// Which signatures are believed, and whether there must be one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Trust {
    keys: Vec<PublicKey>,
    require: bool,
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

/// The 8 bytes that name a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A minisign public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    key: VerifyingKey,
}

impl PublicKey {
    /// Reads a key file, or the line with the key alone.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(bytes).map_err(|_| "it is not text")?;
        if text.contains("secret key") {
            return Err(
                "it is a secret key: keep it away from here, and name the public one".into()
            );
        }
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines.find(|line| !line.starts_with("untrusted comment:"));
        let bytes = line.and_then(|line| BASE64.decode(line).ok());
        let Some([b'E', b'd', rest @ ..]) = bytes.as_deref() else {
            return Err("it is no public key of minisign".into());
        };
        let (id, key) = rest.split_at_checked(8).ok_or("it is cut short")?;
        let (Ok(id), Ok(key)) = (id.try_into(), <[u8; 32]>::try_from(key)) else {
            return Err("it is no public key of minisign: its length is wrong".into());
        };
        let key = VerifyingKey::from_bytes(&key).map_err(|_| "it is no Ed25519 key")?;
        Ok(Self { id: KeyId(id), key })
    }

    /// The id that signatures name.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

/// What a signature is made over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prehashed,
    WholeFile,
}

/// A detached signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    kind: Kind,
    key: KeyId,
    signature: [u8; 64],
    comment: String,
    /// Over the signature and the comment.
    global: [u8; 64],
    /// Of the whole file with the signature.
    digest: Digest,
}

impl Signature {
    /// Reads a `FILE.minisig`.
    ///
    /// # Errors
    /// A phrase that says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(bytes).map_err(|_| "it is not text")?;
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        if !first.starts_with("untrusted comment:") {
            return Err("it is no signature of minisign: its first line is no comment".into());
        }
        let bytes =
            lines.next().and_then(|line| BASE64.decode(line.trim()).ok()).unwrap_or_default();
        let kind = match bytes.get(..2) {
            Some(b"ED") => Kind::Prehashed,
            Some(b"Ed") => Kind::WholeFile,
            _ => return Err("it is no signature of minisign: its second line is none".into()),
        };
        let (key, signature) =
            bytes[2..].split_at_checked(8).ok_or("its second line is cut short")?;
        let comment = lines.next().and_then(|line| line.strip_prefix("trusted comment: "));
        let comment = comment.ok_or("its third line is no trusted comment")?.trim_end_matches('\r');
        if comment.len() > MAX_COMMENT {
            return Err("its trusted comment is too long".into());
        }
        let global =
            lines.next().and_then(|line| BASE64.decode(line.trim()).ok()).unwrap_or_default();
        let (Ok(key), Ok(signature), Ok(global)) =
            (key.try_into(), signature.try_into(), global.try_into())
        else {
            return Err("one of its signatures has the wrong length".into());
        };
        Ok(Self {
            kind,
            key: KeyId(key),
            signature,
            comment: comment.to_owned(),
            global,
            digest: Digest::of(text.as_bytes()),
        })
    }

    /// The key that it names.
    pub fn key(&self) -> KeyId {
        self.key
    }

    /// What a device needs to check it, as the second line of the file holds it, in hex: `ED` or, of
    /// old ones, `Ed`, the 8 bytes that name the key, and the 64 of the signature.
    pub fn line(&self) -> String {
        let kind = match self.kind {
            Kind::Prehashed => b"ED",
            Kind::WholeFile => b"Ed",
        };
        hex::encode([kind, &self.key.0[..], &self.signature].concat())
    }

    /// The trusted comment; to be believed only after [`Signature::verify`].
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// Checks it against a key and a whole file.
    ///
    /// # Errors
    /// What does not match; or what the system said.
    pub fn verify(&self, key: &PublicKey, file: &mut impl Read) -> io::Result<Result<(), String>> {
        Ok(self.outcome(key, self.matches(key, file)?))
    }

    fn matches(&self, key: &PublicKey, file: &mut impl Read) -> io::Result<bool> {
        let mut buffer = vec![0; 64 << 10];
        Ok(match self.kind {
            Kind::Prehashed => {
                let mut hash = Prehash::default();
                read_through(file, &mut buffer, |bytes| hash.update(bytes))?;
                self.matches_prehash(key, &hash.finish())
            }
            Kind::WholeFile => {
                let verifier = key.key.verify_stream(&Ed25519::from_bytes(&self.signature));
                match verifier {
                    Ok(mut verifier) => {
                        read_through(file, &mut buffer, |bytes| verifier.update(bytes))?;
                        verifier.finalize_and_verify().is_ok()
                    }
                    Err(_) => false,
                }
            }
        })
    }

    fn matches_prehash(&self, key: &PublicKey, hash: &[u8; 64]) -> bool {
        key.key.verify_strict(hash, &Ed25519::from_bytes(&self.signature)).is_ok()
    }

    fn outcome(&self, key: &PublicKey, matches: bool) -> Result<(), String> {
        let signed = [&self.signature[..], self.comment.as_bytes()].concat();
        let comment = key.key.verify_strict(&signed, &Ed25519::from_bytes(&self.global)).is_ok();
        match (matches, comment) {
            (true, true) => Ok(()),
            (false, _) => Err(format!("the signature by key {} does not match the file", self.key)),
            (true, false) => {
                Err(format!("its trusted comment was changed after key {} signed it", self.key))
            }
        }
    }
}

fn read_through(
    file: &mut impl Read,
    buffer: &mut [u8],
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => each(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The hash that new signatures are made over.
#[derive(Debug, Default, Clone)]
pub(crate) struct Prehash(Blake2b512);

impl Prehash {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> [u8; 64] {
        self.0.finalize().into()
    }
}

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

/// What is at hand of a file to check its signature with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence<'a> {
    /// [`Prehash`] of its bytes.
    pub(crate) prehash: Option<&'a [u8; 64]>,
    /// The mark of an old signature that was checked against these bytes before.
    pub(crate) checked: Option<Digest>,
}

impl Trust {
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

/// See [`Trust::needs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    Prehash,
    /// With the mark that shows that it was checked.
    WholeFile(Digest),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fixture(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/formats/");
        std::fs::read(format!("{folder}{name}")).unwrap()
    }

    fn trust(require: bool) -> Trust {
        Trust { keys: vec![PublicKey::parse(&fixture("minisign.pub")).unwrap()], require }
    }

    fn judge(trust: &Trust, signature: &Signature, file: &[u8]) -> Result<Verdict, String> {
        let mut hash = Prehash::default();
        hash.update(file);
        let prehash = Some(&hash.finish());
        let checked = trust.check_whole(signature, &mut &file[..]).unwrap();
        trust.judge(Some(signature), Evidence { prehash, checked })
    }

    #[test]
    fn what_minisign_signed_is_trusted() {
        let file = fixture("signed.bin");
        let text = String::from_utf8(fixture("minisign.pub")).unwrap();
        for name in ["signed.bin.minisig", "signed-old.minisig"] {
            let signature = Signature::parse(&fixture(name)).unwrap();
            let Verdict::Trusted { key, comment, .. } =
                judge(&trust(true), &signature, &file).unwrap()
            else {
                panic!("{name} is not trusted");
            };
            assert!(text.contains(&key), "minisign names it so too: {key}");
            let second = fixture(name).split(|byte| *byte == b'\n').nth(1).unwrap().to_vec();
            assert_eq!(hex::encode(BASE64.decode(second).unwrap()), signature.line());
            assert_eq!(comment.title.as_deref(), Some("pump"));
            assert_eq!(comment.version.as_deref(), Some("1.5.0"));
            assert_eq!(comment.model.as_deref(), Some("px"));

            let mut other = file.clone();
            other[399] ^= 1;
            let why = judge(&trust(false), &signature, &other).unwrap_err();
            assert!(why.contains("does not match the file"), "{name}: {why}");
            let mut changed = signature.clone();
            changed.comment = changed.comment.replace("1.5.0", "9.5.0");
            let why = judge(&trust(false), &changed, &file).unwrap_err();
            assert!(why.contains("trusted comment was changed"), "{name}: {why}");
        }
    }

    #[test]
    fn what_is_not_trusted() {
        let signature = Signature::parse(&fixture("signed.bin.minisig")).unwrap();
        let nobody = Trust::default();
        let unknown = judge(&nobody, &signature, b"").unwrap();
        let (key, line) = (signature.key().to_string(), signature.line());
        let model = Comment::parse(&signature.comment).unwrap().model;
        assert_eq!(unknown, Verdict::Unknown { key, line, model });
        let nothing = Evidence { prehash: None, checked: None };
        assert_eq!(trust(false).judge(None, nothing), Ok(Verdict::Unsigned));
        assert!(trust(true).judge(None, nothing).unwrap_err().contains("not signed"));
        let mut other = trust(true);
        other.keys[0].id = KeyId([1; 8]);
        assert!(judge(&other, &signature, b"").unwrap_err().contains("none of store.trusted_keys"));
        // The same id, made up by somebody with another key.
        let mut forged = trust(false);
        forged.keys[0].key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
        assert!(judge(&forged, &signature, &fixture("signed.bin")).is_err());
        assert!(Trust::load(&[], true).is_err());
    }

    #[test]
    fn key_files_that_are_none() {
        let dir = tempfile::tempdir().unwrap();
        for (text, says) in [
            ("", "no public key"),
            ("untrusted comment: minisign encrypted secret key\nRWQ", "secret key"),
            ("untrusted comment: x\nRWQAAAAA", "cut short"),
            ("untrusted comment: x\nhello", "no public key"),
        ] {
            let path = dir.path().join("key.pub");
            std::fs::write(&path, text).unwrap();
            let error = Trust::load(std::slice::from_ref(&path), false).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("key.pub"), "{text}: {error}");
        }
        let missing = Trust::load(&[dir.path().join("missing")], false).unwrap_err();
        assert!(missing.to_string().contains("missing"));
    }

    #[test]
    fn comments_as_they_are_written() {
        let parse = |text| Comment::parse(text).map(|it| (it.title, it.version, it.model));
        let some = |text: &str| Some(text.to_owned());
        let all = Ok((some("heat pump"), some("1.0.0"), some("m")));
        assert_eq!(parse("timestamp:17\ttitle:heat pump\tversion:1.0.0\tmodel:m\thashed"), all);
        assert_eq!(parse("version=1.0.0 model=m"), Ok((None, some("1.0.0"), some("m"))));
        assert_eq!(parse("timestamp:1700000000\tfile:pump.bin\thashed"), Ok((None, None, None)));
        for wrong in ["version:", "version:1 version:2", "model:a/b", "title:\u{7}"] {
            assert!(Comment::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Signature::parse(&bytes);
            let _ = PublicKey::parse(&bytes);
            let _ = Comment::parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn a_changed_signature_is_never_trusted(at in 0usize..290, with in 1u8..) {
            let mut bytes = fixture("signed.bin.minisig");
            let at = at % bytes.len();
            bytes[at] ^= with;
            let first_line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
            let original = Signature::parse(&fixture("signed.bin.minisig")).unwrap();
            if let Ok(signature) = Signature::parse(&bytes)
                && at > first_line
                // White space around a line, and bits of base64 that carry nothing.
                && (signature.signature, signature.global, &signature.comment)
                    != (original.signature, original.global, &original.comment)
            {
                let verdict = judge(&trust(false), &signature, &fixture("signed.bin"));
                let trusted = matches!(verdict, Ok(Verdict::Trusted { .. }));
                prop_assert!(!trusted);
            }
        }
    }
}
