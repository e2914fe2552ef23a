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
//!
//! | module | subject |
//! | --- | --- |
//! | `minisign` | [`PublicKey`] and [`Signature`], as files hold them |
//! | `comment` | what a trusted comment says: [`Comment`] |
//! | `verdict` | what a signature is worth: [`Verdict`] |
//! | `trust` | whose are believed: [`Trust`] |

mod comment;
mod minisign;
#[cfg(test)]
mod tests;
mod trust;
mod verdict;

pub use comment::Comment;
pub(crate) use minisign::Prehash;
pub use minisign::{KeyId, PublicKey, Signature};
pub(crate) use trust::{Evidence, Needs};
pub use trust::{Trust, TrustError};
pub use verdict::Verdict;
