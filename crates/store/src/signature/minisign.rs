//! Public keys and signatures, as minisign writes them into files.

use std::fmt;
use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use blake2::{Blake2b512, Digest as _};
use ed25519_dalek::{Signature as Ed25519, VerifyingKey};

use crate::digest::Digest;

/// The longest trusted comment, in bytes.
const MAX_COMMENT: usize = 8192;

/// The 8 bytes that name a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId(pub(super) [u8; 8]);

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
    pub(super) id: KeyId,
    pub(super) key: VerifyingKey,
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
pub(super) enum Kind {
    Prehashed,
    WholeFile,
}

/// A detached signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub(super) kind: Kind,
    pub(super) key: KeyId,
    pub(super) signature: [u8; 64],
    pub(super) comment: String,
    /// Over the signature and the comment.
    pub(super) global: [u8; 64],
    /// Of the whole file with the signature.
    pub(super) digest: Digest,
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

    pub(super) fn matches(&self, key: &PublicKey, file: &mut impl Read) -> io::Result<bool> {
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

    pub(super) fn matches_prehash(&self, key: &PublicKey, hash: &[u8; 64]) -> bool {
        key.key.verify_strict(hash, &Ed25519::from_bytes(&self.signature)).is_ok()
    }

    pub(super) fn outcome(&self, key: &PublicKey, matches: bool) -> Result<(), String> {
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
