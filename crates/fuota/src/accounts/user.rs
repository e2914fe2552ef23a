//! One user, and the snapshot of all of them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hook::Role;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::hash::PasswordHash;
use crate::{db::UserRow, secret::TokenHash, views::UserRole};

/// How long a verified password is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// All users by name; replaced as a whole by every change.
pub type Users = HashMap<Arc<str>, Arc<User>>;

/// A user as it is now. A change makes another one, so what is remembered of the old password
/// ends with it.
pub struct User {
    pub name: Arc<str>,
    pub role: UserRole,
    pub password: PasswordHash,
    /// Seconds since 1970.
    pub created: u64,
    /// What logins that last hang on; see [`crate::Service::credential`]. Kept when only the
    /// hash of the same password is another.
    pub stamp: [u8; 32],
    verified: Mutex<Option<(TokenHash, Instant)>>,
    /// Its hash is being replaced by one of ours.
    renewing: AtomicBool,
}

impl User {
    pub fn new(name: Arc<str>, role: UserRole, password: PasswordHash, created: u64) -> User {
        let (verified, renewing) = (Mutex::new(None), AtomicBool::new(false));
        let stamp = stamp(role, &password);
        User { name, role, password, created, stamp, verified, renewing }
    }

    pub fn from_row(row: UserRow) -> User {
        User::new(row.name.into(), row.role, row.password, row.created)
    }

    pub fn row(&self) -> UserRow {
        UserRow {
            name: self.name.to_string(),
            role: self.role,
            password: self.password.clone(),
            created: self.created,
        }
    }

    /// Whether this is the keyed hash of a password that was verified not long ago.
    pub fn remembers(&self, hash: &TokenHash, now: Instant) -> bool {
        self.verified.lock().is_some_and(|(known, until)| known.matches(hash) && now < until)
    }

    pub fn remember(&self, hash: TokenHash, now: Instant) {
        *self.verified.lock() = Some((hash, now + REMEMBERED));
    }

    /// Whether the caller is to replace the hash, since nobody else does.
    pub fn start_renewal(&self) -> bool {
        self.password.is_foreign() && !self.renewing.swap(true, Ordering::Relaxed)
    }

    /// It was not replaced; the next login tries again.
    pub fn give_up_renewal(&self) {
        self.renewing.store(false, Ordering::Relaxed);
    }
}

/// Another one for each role, and for each password that was set.
fn stamp(role: UserRole, password: &PasswordHash) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [role.name().as_bytes(), &password.salt, &password.hash] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

impl From<UserRole> for Role {
    fn from(role: UserRole) -> Role {
        match role {
            UserRole::Device => Role::Device,
            UserRole::Service => Role::Service,
            UserRole::Operator => Role::Operator,
            UserRole::Admin => Role::Admin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Key;

    #[test]
    fn rule_28_a_verified_password_is_remembered_for_ten_minutes() {
        let key = Key::from_bytes([1; 32]);
        let password = PasswordHash::make(b"correct horse").unwrap();
        let user = User::new("a".into(), UserRole::Service, password, 0);
        let hash = |password| key.password(&user.name, &user.password.salt, password);
        let now = Instant::now();
        assert!(!user.remembers(&hash(b"correct horse"), now));
        user.remember(hash(b"correct horse"), now);
        assert!(user.remembers(&hash(b"correct horse"), now + Duration::from_secs(599)));
        assert!(!user.remembers(&hash(b"correct horse"), now + Duration::from_secs(600)));
        assert!(!user.remembers(&hash(b"another"), now));
    }
}
