//! The key of this site and the keyed hashes of tokens.
//!
//! A token itself is never kept: the database and the memory hold its HMAC-SHA-256 under a key
//! that lies beside the database, so that a copy of the database alone logs nobody in.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// File name of the key in the data directory.
const KEY_FILE: &str = "token.key";
/// The shortest token that may be given, in characters (128 bits at least).
pub const MIN_TOKEN: usize = 16;
/// The longest token that may be given, in characters.
pub const LONGEST_TOKEN: usize = 1024;
/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 4 * LONGEST_TOKEN;

/// The key, 256 bits.
pub struct Key([u8; 32]);

/// The keyed hash of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// Compares in a time that does not depend on where the hashes differ.
    pub fn matches(&self, other: &TokenHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Key {
    /// Copies the file with the key into another data directory.
    pub fn copy_to(&self, data_dir: &Path, other: &Path) -> io::Result<()> {
        let copy = other.join(KEY_FILE);
        fs::copy(data_dir.join(KEY_FILE), &copy)?;
        fs::File::open(copy)?.sync_all()
    }

    /// The key in `data_dir`, made on first use. `may_create` is false where hashes under an
    /// older key exist: a new key would silently lock every device out.
    pub fn open(data_dir: &Path, may_create: bool) -> io::Result<Key> {
        let path = data_dir.join(KEY_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let mut key = [0; 32];
                hex::decode_to_slice(text.trim(), &mut key).map_err(|_| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!(
                            "{} does not hold 64 hex digits; restore it from a backup",
                            path.display()
                        ),
                    )
                })?;
                Ok(Key(key))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_create => {
                let key = Key::random()?;
                key.write(&path)?;
                Ok(key)
            }
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!(
                    "{}: {error}; registered tokens cannot be checked without it",
                    path.display()
                ),
            )),
        }
    }

    /// A fresh key.
    pub fn random() -> io::Result<Key> {
        Ok(Key(random_bytes()?))
    }

    #[cfg(test)]
    pub fn from_bytes(bytes: [u8; 32]) -> Key {
        Key(bytes)
    }

    /// Written under another name and renamed, so that a crash leaves no half a key; and its name
    /// synced, since the tokens in the database are worth nothing without it.
    fn write(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("key.tmp");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary)?;
        writeln!(file, "{}", hex::encode(self.0))?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        match path.parent() {
            Some(parent) if cfg!(unix) => fs::File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    }

    /// The hash that a registered token is kept as.
    pub fn token(&self, token: &[u8]) -> TokenHash {
        TokenHash(self.hash("token", token))
    }

    /// The hash that a verified password is remembered as, in memory alone. The salt makes it
    /// another one when the same password is set again.
    pub fn password(&self, user: &str, salt: &[u8], password: &[u8]) -> TokenHash {
        // A name holds no NUL, and a user has one salt at a time: the parts cannot run together.
        TokenHash(self.hash("password", &[user.as_bytes(), &[0], salt, password].concat()))
    }

    /// What makes a link for downloads one of this site's: hex digits. `seed` is the device's.
    pub fn link(&self, device: &str, expires: u64, seed: i64) -> String {
        // A name holds no NUL: the parts cannot run together.
        hex::encode(self.hash("link", format!("{device}\0{expires}\0{seed}").as_bytes()))
    }

    /// The hash that a user's token for the admin interface is kept as.
    pub fn user_token(&self, token: &[u8]) -> TokenHash {
        TokenHash(self.hash("user token", token))
    }

    /// What a request is recognised by when it is repeated.
    pub fn request(&self, wanted: &[u8]) -> TokenHash {
        TokenHash(self.hash("request", wanted))
    }

    /// A secret of 160 bits in hex that nobody can compute without the key.
    pub fn derived(&self, nonce: &[u8; 16], subject: &str) -> String {
        hex::encode(&self.hash("made", &[nonce, subject.as_bytes()].concat())[..20])
    }

    /// The first 16 hex digits of a keyed hash; `purpose` keeps the name spaces apart.
    pub fn short(&self, purpose: &str, text: &[u8]) -> String {
        hex::encode(&self.hash(purpose, text)[..8])
    }

    fn hash(&self, purpose: &str, text: &[u8]) -> [u8; 32] {
        // HMAC takes keys of any length, so this cannot fail.
        #[allow(clippy::expect_used)]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length is a key");
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(text);
        mac.finalize().into_bytes().into()
    }
}

/// Compares in a time that does not depend on where they differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// A new token: 160 random bits in hex.
pub fn new_token() -> io::Result<String> {
    Ok(hex::encode(random_bytes::<20>()?))
}

/// What the links of a device are signed with from now on.
pub fn new_link_seed() -> io::Result<i64> {
    random_bytes().map(i64::from_le_bytes)
}

pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_never_replaced() {
        let dir = tempfile::tempdir().expect("temp dir");
        let first = Key::open(dir.path(), true).expect("made");
        let second = Key::open(dir.path(), false).expect("read");
        assert!(first.token(b"x").matches(&second.token(b"x")));
        assert!(!first.token(b"x").matches(&second.token(b"y")));
        fs::remove_file(dir.path().join(KEY_FILE)).expect("removed");
        assert!(Key::open(dir.path(), false).is_err(), "hashes exist, so no new key");
        fs::write(dir.path().join(KEY_FILE), "zz").expect("written");
        assert!(Key::open(dir.path(), true).is_err(), "a damaged key is no reason for a new one");
    }

    #[test]
    fn a_new_token_is_long_enough() {
        assert!(new_token().expect("entropy").len() >= 2 * MIN_TOKEN);
    }
}
