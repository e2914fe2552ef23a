//! What a password is kept as.
//!
//! New ones are Argon2id. What mosquitto made is kept as it came, so that an imported account
//! needs no new password; its first login replaces it ([`PasswordHash::is_foreign`]).

use std::io;

use argon2::{Algorithm, Argon2, Params, Version};
use base64_simd::{STANDARD, STANDARD_NO_PAD};
use pbkdf2::pbkdf2_hmac;
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;

use crate::secret::random_bytes;

/// Rounds of PBKDF2 that are taken: one login computes so many on the passwords' one thread,
/// half a second at most. `mosquitto_passwd` makes 101, or 1000 since version 2.1.
const MAX_ROUNDS: u32 = 1_000_000;
/// KiB, passes and lanes of Argon2id that are taken, for the same reason. Mosquitto makes 46 MiB,
/// one and one.
const MAX_MEMORY: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// How a hash was computed, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 9106, with `memory` in KiB.
    Argon2id { memory: u32, passes: u32, lanes: u32 },
    /// PBKDF2 with HMAC-SHA-512: `$7$` of mosquitto.
    Pbkdf2 { rounds: u32 },
    /// One SHA-512 over password and salt: `$6$` of mosquitto.
    Sha512,
}

/// Of new passwords.
const OURS: Scheme = Scheme::Argon2id {
    memory: Params::DEFAULT_M_COST,
    passes: Params::DEFAULT_T_COST,
    lanes: Params::DEFAULT_P_COST,
};

/// See [the module](self).
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    pub scheme: Scheme,
    /// At most 64 bytes.
    pub salt: Vec<u8>,
    /// 32 or 64 bytes.
    pub hash: Vec<u8>,
}

impl PasswordHash {
    /// Hashes a new password. Takes long: see [`super::password`].
    pub fn make(password: &[u8]) -> io::Result<PasswordHash> {
        let scheme = OURS;
        let salt = random_bytes::<16>()?.to_vec();
        let hash = compute(scheme, &salt, password, 32)
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(PasswordHash { scheme, salt, hash })
    }

    /// What no password is kept as, to compute in the place of one that there is not.
    pub fn nobodys() -> PasswordHash {
        PasswordHash { scheme: OURS, salt: vec![0; 16], hash: vec![0; 32] }
    }

    /// Whether this is the password. Takes long: see [`super::password`].
    pub fn matches(&self, password: &[u8]) -> bool {
        compute(self.scheme, &self.salt, password, self.hash.len())
            .is_ok_and(|hash| hash.ct_eq(&self.hash).into())
    }

    /// Whether it is of a kind that this program does not make, and that costs an attacker less.
    pub fn is_foreign(&self) -> bool {
        !matches!(self.scheme, Scheme::Argon2id { .. })
    }

    /// Reads the second field of a line of mosquitto's password file.
    ///
    /// # Errors
    /// What is wrong, without showing any of it.
    pub fn from_mosquitto(text: &str) -> Result<PasswordHash, &'static str> {
        let Some(text) = text.strip_prefix('$') else {
            return Err(
                "the password is not hashed: run `mosquitto_passwd -U` on a copy of the file first",
            );
        };
        let fields: Vec<&str> = text.split('$').collect();
        let read = match fields[..] {
            ["6", salt, hash] => sha512(Scheme::Sha512, salt, hash),
            ["7", rounds, salt, hash] => {
                let rounds = rounds.parse().ok().filter(|rounds| (1..=MAX_ROUNDS).contains(rounds));
                rounds.and_then(|rounds| sha512(Scheme::Pbkdf2 { rounds }, salt, hash))
            }
            ["argon2id", "v=19", parameters, salt, hash] => argon2id(parameters, salt, hash),
            ["6" | "7" | "argon2id", ..] => None,
            _ => {
                return Err("this kind of hash is not known: only $6$, $7$ and $argon2id$ are");
            }
        };
        read.ok_or("the hash is damaged, or its parameters are beyond what is computed here")
    }
}

fn sha512(scheme: Scheme, salt: &str, hash: &str) -> Option<PasswordHash> {
    let salt = STANDARD.decode_to_vec(salt).ok()?;
    let hash = STANDARD.decode_to_vec(hash).ok()?;
    // Mosquitto's own lengths: 12 bytes of salt, or 64 since version 2.1.
    (matches!(salt.len(), 12 | 64) && hash.len() == 64).then_some(PasswordHash {
        scheme,
        salt,
        hash,
    })
}

/// `m=47104,t=1,p=1`, salt and hash without padding.
fn argon2id(parameters: &str, salt: &str, hash: &str) -> Option<PasswordHash> {
    let mut numbers = parameters.split(',').zip(["m=", "t=", "p="]).map(|(field, name)| {
        field.strip_prefix(name).and_then(|number| number.parse::<u32>().ok())
    });
    let (memory, passes, lanes) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let salt = STANDARD_NO_PAD.decode_to_vec(salt).ok()?;
    let hash = STANDARD_NO_PAD.decode_to_vec(hash).ok()?;
    let taken = parameters.split(',').count() == 3
        && memory <= MAX_MEMORY
        && passes <= MAX_PASSES
        && lanes <= MAX_LANES
        && Params::new(memory, passes, lanes, Some(hash.len())).is_ok()
        && (8..=64).contains(&salt.len())
        && (32..=64).contains(&hash.len());
    taken.then_some(PasswordHash { scheme: Scheme::Argon2id { memory, passes, lanes }, salt, hash })
}

fn compute(
    scheme: Scheme,
    salt: &[u8],
    password: &[u8],
    length: usize,
) -> Result<Vec<u8>, argon2::Error> {
    let mut hash = vec![0; length];
    match scheme {
        Scheme::Argon2id { memory, passes, lanes } => {
            let params = Params::new(memory, passes, lanes, Some(length))?;
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(password, salt, &mut hash)?;
        }
        Scheme::Pbkdf2 { rounds } => pbkdf2_hmac::<Sha512>(password, salt, rounds, &mut hash),
        Scheme::Sha512 => {
            hash = Sha512::new().chain_update(password).chain_update(salt).finalize().to_vec();
        }
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The user's hash in a file that mosquitto_passwd wrote.
    fn written(user: &str) -> &'static str {
        let file = include_str!("../../../../tests/fixtures/mosquitto/passwords");
        let line = file.lines().find_map(|line| line.strip_prefix(user)?.strip_prefix(':'));
        line.unwrap()
    }

    #[test]
    fn a_password_matches_itself_alone_and_is_salted() {
        let one = PasswordHash::make(b"correct horse").unwrap();
        let two = PasswordHash::make(b"correct horse").unwrap();
        assert!(one.matches(b"correct horse") && two.matches(b"correct horse"));
        assert!(!one.matches(b"correct horsf") && !one.matches(b""));
        assert_ne!(one.hash, two.hash);
        assert!(!one.is_foreign());
    }

    #[test]
    fn what_mosquitto_made_matches() {
        for (user, password, foreign) in [
            ("grafana", "tulip-mania-1637", true),
            ("node-red", "größe: 7 $ällig", true),
            ("pump-1", "pw1", true),
            ("telegraf", "crab-nebula-1054", false),
            ("historian", "south-sea-1720", true),
            ("archive", "old and long ago", true),
        ] {
            let hash = PasswordHash::from_mosquitto(written(user)).unwrap();
            assert!(hash.matches(password.as_bytes()), "{user}");
            assert!(!hash.matches(b"another") && !hash.matches(b""), "{user}");
            assert_eq!(hash.is_foreign(), foreign, "{user}");
        }
    }

    #[test]
    fn says_what_is_wrong_without_showing_it() {
        let damaged = "damaged";
        for (text, problem) in [
            ("secret", "not hashed"),
            ("", "not hashed"),
            ("$5$c2VjcmV0$c2VjcmV0", "not known"),
            ("$2y$10$secret", "not known"),
            ("$6$c2VjcmV0c2Vj$c2VjcmV0", damaged),
            ("$6$!$c2VjcmV0", damaged),
            ("$6$c2VjcmV0c2Vj", damaged),
            (&written("pump-1").replace("$101$", "$0$"), damaged),
            (&written("pump-1").replace("$101$", "$1000001$"), damaged),
            (&written("telegraf").replace("m=47104", "m=262145"), damaged),
            (&written("telegraf").replace("m=47104", "m=7"), damaged),
            (&written("telegraf").replace("t=1", "t=17"), damaged),
            (&written("telegraf").replace("p=1", "p=17"), damaged),
            (&written("telegraf").replace(",p=1", ""), damaged),
            (&written("telegraf").replace("p=1", "p=1,q=1"), damaged),
            (&written("telegraf").replace("v=19", "v=16"), damaged),
            (&written("telegraf")[..60], damaged),
        ] {
            let error = PasswordHash::from_mosquitto(text).err();
            assert!(error.is_some_and(|error| error.contains(problem)), "{text}: {error:?}");
        }
    }

    #[test]
    fn the_largest_parameters_are_taken() {
        let telegraf = written("telegraf");
        for (part, largest) in [("m=47104", "m=262144"), ("t=1", "t=16"), ("p=1", "p=16")] {
            assert!(PasswordHash::from_mosquitto(&telegraf.replace(part, largest)).is_ok());
        }
    }
}
