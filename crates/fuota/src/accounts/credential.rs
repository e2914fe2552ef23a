//! Logins that last: what a session of the admin interface hangs on, and what guessing costs.

use std::net::SocketAddr;

use tokio::time::Instant;

use super::{Failure, Tried};
use crate::{Service, engine::Counters, views::UserRole};

/// What the admin token is among the names that failed at an address; no user can have it.
const ADMIN_TOKEN: &str = "(admin token)";

impl Service {
    /// The role of a user, and a stamp of its password and role: who logged in while it was
    /// another has to log in again. `None` where there is no such user.
    pub fn credential(&self, name: &str) -> Option<(UserRole, [u8; 32])> {
        self.0.accounts.get(name).map(|user| (user.role, user.stamp))
    }

    /// Whether so many logins failed from this address that it waits with the admin token as well: that
    /// is one more account.
    pub fn is_slowed(&self, address: Option<SocketAddr>) -> bool {
        let slowed = |address: SocketAddr| {
            let throttle = &self.0.accounts.throttle;
            throttle.is_slowed(address.ip(), Some(ADMIN_TOKEN), Instant::now())
        };
        address.is_some_and(slowed)
    }

    /// Notes that somebody at this address tried a wrong admin token.
    pub fn wrong_admin_token(&self, address: Option<SocketAddr>) {
        Counters::add(&self.0.counters.failed_logins, 1);
        let address = address.map(|address| address.ip());
        match self.0.accounts.failed(Tried::Password, Some(ADMIN_TOKEN), address) {
            Failure::Noted => {
                tracing::warn!(?address, reason = "not the admin token", "a login failed");
            }
            Failure::Slowed(wait) => {
                let seconds = wait.as_secs();
                tracing::warn!(
                    ?address,
                    reason = "not the admin token",
                    seconds,
                    "a login failed, and the address waits before the next"
                );
            }
            Failure::Waiting => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{PasswordHash, User};

    #[test]
    fn a_stamp_ends_with_password_and_role() {
        let password = PasswordHash::make(b"correct horse").unwrap();
        let user = |role, password: &PasswordHash| {
            User::new("ann".into(), role, password.clone(), 0).stamp
        };
        let now = user(UserRole::Operator, &password);
        assert_eq!(now, user(UserRole::Operator, &password));
        assert_ne!(now, user(UserRole::Service, &password));
        let again = PasswordHash::make(b"correct horse").unwrap();
        assert_ne!(now, user(UserRole::Operator, &again), "the salt is another");
    }
}
