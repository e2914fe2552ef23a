//! The signature of an image, as a device checks it that trusts one key.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, VerifyingKey};

/// The field `signature` of a native manifest: `ED`, the key that made it, and the signature.
pub(crate) type Signed = [u8; 74];

/// A public key in the form of minisign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedKey {
    id: [u8; 8],
    key: VerifyingKey,
}

/// The text is no public key of minisign.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("it is no public key of minisign, as `fuotad firmware keygen` and minisign write it")]
pub struct NotAKey;

impl FromStr for TrustedKey {
    type Err = NotAKey;

    /// Reads the text of a key file: a line of comment, and the key in base64.
    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let line = text.lines().rfind(|line| !line.trim().is_empty()).ok_or(NotAKey)?;
        let bytes = BASE64.decode(line.trim()).map_err(|_| NotAKey)?;
        let [b'E', b'd', rest @ ..] = &bytes[..] else { return Err(NotAKey) };
        let (id, key) = rest.split_first_chunk().ok_or(NotAKey)?;
        let key = VerifyingKey::from_bytes(key.try_into().map_err(|_| NotAKey)?);
        Ok(Self { id: *id, key: key.map_err(|_| NotAKey)? })
    }
}

impl TrustedKey {
    /// Checks a signature of an image that has this BLAKE2b-512.
    pub(crate) fn check(&self, signed: &Signed, hash: &[u8; 64]) -> Result<(), &'static str> {
        let (head, signature) = signed.split_at(10);
        if head[..2] != *b"ED" {
            return Err("it is of another kind");
        }
        if head[2..] != self.id {
            return Err("another key made it");
        }
        let signature = Signature::from_slice(signature).map_err(|_| "it is cut short")?;
        self.key.verify_strict(hash, &signature).map_err(|_| "it is not of this image")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    #[test]
    fn a_key_is_read_and_its_signatures_are_known() {
        let secret = SigningKey::from_bytes(&[7; 32]);
        let key = [&b"Ed12345678"[..], secret.verifying_key().as_bytes()].concat();
        let text = format!("untrusted comment: a key\n{}\n", BASE64.encode(&key));
        let trusted: TrustedKey = text.parse().unwrap();
        for wrong in ["", "untrusted comment: x", &BASE64.encode(&key[..41]), "RWQ="] {
            assert_eq!(wrong.parse::<TrustedKey>(), Err(NotAKey), "{wrong}");
        }
        let hash = [9; 64];
        let signed: Signed =
            [&b"ED12345678"[..], &secret.sign(&hash).to_bytes()].concat().try_into().unwrap();
        assert_eq!(trusted.check(&signed, &hash), Ok(()));
        assert_eq!(trusted.check(&signed, &[8; 64]), Err("it is not of this image"));
        for (at, why) in [(1, "it is of another kind"), (5, "another key made it")] {
            let mut changed = signed;
            changed[at] ^= 1;
            assert_eq!(trusted.check(&changed, &hash), Err(why));
        }
    }
}
