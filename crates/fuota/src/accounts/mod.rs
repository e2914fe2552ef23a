//! Users with passwords and roles, and what each role may say and hear (rules 3 and 24 to 29).
//!
//! Devices and their tokens are in the registry; what is here are the accounts of people and
//! programs. Everything that a connection asks is answered from memory: the users are one
//! immutable snapshot that a change replaces, and so are the rules.
//!
//! | module | subject |
//! | --- | --- |
//! | `user` | one user, and the snapshot of all |
//! | `hash` | what a password is kept as |
//! | `password` | the one thread that computes it |
//! | `renew` | from mosquitto's hashes to ours, at the first login |
//! | `throttle` | addresses that failed to log in, and how long they wait |
//! | `rule` | one line of `auth.rules`; `pattern`: what a filter covers and overlaps |
//! | `authorize` | rules and defaults together: may this client do this? |
//! | `service` | what the admin interface asks and changes |
//! | `cuts` | logins under way when their account's connections are ended |
//! | `credential` | what a session of the admin interface hangs on |
//! | `tokens` | bearer tokens of users for that interface |

mod authorize;
mod credential;
mod cuts;
mod hash;
mod password;
mod pattern;
mod renew;
mod rule;
mod service;
mod throttle;
mod tokens;
mod user;

use std::{io, net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::{Settings, db::UserRow, secret::Key};
use authorize::RuleSet;
use cuts::Cuts;
use password::PasswordThread;
use throttle::Throttle;
use user::Users;

pub use authorize::EVENTS;
pub use hash::{PasswordHash, Scheme};
pub use rule::{Rule, RuleError};
pub use service::{MAX_USERS, check_name};
pub use throttle::Failure;
pub use tokens::{TokenLogin, Tokens};
pub use user::User;

/// See [the module](self).
pub struct Accounts {
    users: ArcSwap<Users>,
    /// Held during a change, also of who is a registered device: read the snapshot, write the
    /// database, replace the snapshot.
    changing: tokio::sync::Mutex<()>,
    passwords: PasswordThread,
    throttle: Arc<Throttle>,
    /// Of tokens and names that nobody has. Apart from the passwords': one device that was
    /// removed and tries on must not shut out the people behind the same address.
    unknown: Throttle,
    rules: ArcSwap<RuleSet>,
    pub cuts: Cuts,
}

/// What was tried at a login that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// A user's password, or the admin token: these can be guessed, so the address waits.
    Password,
    /// A device's token, or a name that nobody has. A token has 128 bits or more, and the right
    /// one is let in at any time: all that is slowed is how often this is logged.
    Token,
}

/// Why a password was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not this user's, or the user was removed meanwhile. This is noted.
    Wrong(Failure),
    /// Too many logins failed from this address; it is not looked at.
    Slowed,
    /// Too many passwords wait to be looked at.
    Busy,
}

impl Accounts {
    pub fn new(rows: Vec<UserRow>, settings: &Settings) -> io::Result<Accounts> {
        let users = rows.into_iter().map(|row| Arc::new(User::from_row(row)));
        Ok(Accounts {
            users: ArcSwap::from_pointee(
                users.map(|user| (Arc::clone(&user.name), user)).collect(),
            ),
            changing: tokio::sync::Mutex::new(()),
            passwords: PasswordThread::start()?,
            throttle: Arc::default(),
            unknown: Throttle::default(),
            rules: ArcSwap::from_pointee(RuleSet::new(&settings.rules, settings.strict)),
            cuts: Cuts::default(),
        })
    }

    /// Waits until nobody else changes users or registers devices, which share their names.
    pub async fn change(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// From now on these rules decide. What was granted before stays granted.
    pub fn set_rules(&self, rules: &[Rule], strict: bool) {
        self.rules.store(Arc::new(RuleSet::new(rules, strict)));
    }

    /// The user of this name.
    pub fn get(&self, name: &str) -> Option<Arc<User>> {
        self.users.load().get(name).cloned()
    }

    /// Checks a password: at once where it was verified within the last ten minutes, else on
    /// the passwords' thread.
    pub async fn verify(
        &self,
        key: &Key,
        user: &Arc<User>,
        password: &[u8],
        address: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        let remembered = key.password(&user.name, &user.password.salt, password);
        if user.remembers(&remembered, Instant::now()) {
            return Ok(());
        }
        self.compute(user.password.clone(), &user.name, password, address).await?;
        if !self.is_current(user) {
            return Err(Refusal::Wrong(self.failed(Tried::Password, Some(&user.name), address)));
        }
        user.remember(remembered, Instant::now());
        Ok(())
    }

    /// Whether this is the password of the hash, on the passwords' thread. A failure is noted
    /// there: who sends many guesses at once has no more of them than who sends them one by one.
    async fn compute(
        &self,
        hash: PasswordHash,
        name: &Arc<str>,
        password: &[u8],
        address: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        let (throttle, name, password) =
            (Arc::clone(&self.throttle), Arc::clone(name), password.to_vec());
        let is_slowed = move |throttle: &Throttle, name: &str| {
            address.is_some_and(|at| throttle.is_slowed(at, Some(name), Instant::now()))
        };
        if is_slowed(&throttle, &name) {
            return Err(Refusal::Slowed);
        }
        let work = move || {
            if is_slowed(&throttle, &name) {
                return Err(Refusal::Slowed);
            }
            if hash.matches(&password) {
                return Ok(());
            }
            Err(Refusal::Wrong(failed(&throttle, Some(&name), address)))
        };
        self.passwords.run(work).await.unwrap_or(Err(Refusal::Busy))
    }

    /// Checks the password of a user that there is not: as long, and in the same queue, so that
    /// the time does not say which names are known.
    pub async fn verify_nobody(
        &self,
        name: &str,
        password: &[u8],
        address: Option<IpAddr>,
    ) -> Refusal {
        let checked = self.compute(PasswordHash::nobodys(), &name.into(), password, address).await;
        match checked {
            Err(refusal) => refusal,
            Ok(()) => Refusal::Wrong(self.failed(Tried::Password, Some(name), address)),
        }
    }

    /// Notes a login that failed, with the name of its user where it is one with a password.
    pub fn failed(&self, tried: Tried, name: Option<&str>, address: Option<IpAddr>) -> Failure {
        match tried {
            Tried::Password => failed(&self.throttle, name, address),
            Tried::Token => failed(&self.unknown, None, address),
        }
    }

    /// Whether this is still the user of its name, unchanged.
    fn is_current(&self, user: &Arc<User>) -> bool {
        self.users.load().get(&user.name).is_some_and(|now| Arc::ptr_eq(now, user))
    }
}

fn failed(throttle: &Throttle, name: Option<&str>, address: Option<IpAddr>) -> Failure {
    match address {
        Some(address) => throttle.failed(address, name, Instant::now()),
        None => Failure::Noted,
    }
}
