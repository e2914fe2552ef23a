//! What the admin interface asks of users and changes.

use std::sync::Arc;

use super::{Accounts, PasswordHash, User, password::Busy, user::Users};
use crate::{
    Service, ServiceError,
    db::Op,
    engine::Engine,
    names::{is_name, is_reserved, name_problem},
    registration::{Registration, invalid},
    requests,
    secret::new_token,
    transfer::unix_now,
    views::{Actor, AddedUser, ChangedUser, NewUser, Password, UserPatch, UserRole, UserView},
};

/// What clients of a removed account hear.
const REMOVED: &str = "the account was removed";
/// Characters of a password.
const MIN_PASSWORD: usize = 8;
const MAX_PASSWORD: usize = 1024;
/// Users that there may be: the snapshot is copied by each change.
pub const MAX_USERS: usize = 100_000;

impl Service {
    /// All users, by name.
    pub fn users(&self) -> Vec<UserView> {
        let mut users: Vec<_> =
            self.0.accounts.users.load().values().map(|user| user.view()).collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }

    /// One user.
    pub fn user(&self, name: &str) -> Option<UserView> {
        self.0.accounts.get(name).map(|user| user.view())
    }

    /// Adds a user. Sessions that use a device user's name without its password are ended. The
    /// second value says whether it is new, and not of an earlier request with this key.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`], [`ServiceError::Conflict`] where a user or a registered device
    /// has the name, or the key was used otherwise; [`ServiceError::Unavailable`].
    pub async fn add_user(
        &self,
        new: NewUser,
        key: Option<&str>,
        actor: &Actor,
    ) -> Result<(AddedUser, bool), ServiceError> {
        check_name(&new.name)?;
        let accounts = &self.0.accounts;
        let _changing = accounts.change().await;
        let request = self.0.requests.open(&self.0.key, "user", key, &new)?;
        let (password, shown) = choose(new.password, || request.secret(&self.0.key, &new.name))?;
        if request.is_done {
            let user = accounts.get(&new.name).ok_or_else(|| requests::gone("a user"))?;
            return Ok((AddedUser { user: user.view(), password: shown }, false));
        }
        self.0.name_is_free(&new.name)?;
        self.0.endings.over(&[&new.name]).await?;
        if accounts.count() >= MAX_USERS {
            return Err(ServiceError::Conflict(format!("there are {MAX_USERS} users already")));
        }
        let hash = self.hash(password).await?;
        let user = Arc::new(User::new(new.name.as_str().into(), new.role, hash, unix_now()));
        let detail = Some(format!("role {}", user.role.name()));
        let mut ops =
            vec![Op::User(user.row()), Engine::audit_by(actor, &user.name, "user added", detail)];
        ops.extend(request.op());
        match user.role {
            UserRole::Device => {
                self.0.register(vec![Registration::of_user(&user.name)], ops).await?;
            }
            _ => self.write(ops).await?,
        }
        accounts.replace(|users| drop(users.insert(Arc::clone(&user.name), Arc::clone(&user))));
        self.0.requests.done(request);
        self.0.end_account(&user.name, "log in with the user's password");
        self.0.tell_user(&user.name, "added");
        Ok((AddedUser { user: user.view(), password: shown }, true))
    }

    /// Changes a user, and ends its sessions where a password or a role changed.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Invalid`], [`ServiceError::Unavailable`].
    pub async fn set_user(
        &self,
        name: &str,
        patch: UserPatch,
        actor: &Actor,
    ) -> Result<ChangedUser, ServiceError> {
        if patch.password.is_some() && patch.new_password {
            return Err(invalid("password", "a given and a new one exclude each other".into()));
        }
        let chosen = match patch.password.is_some() || patch.new_password {
            true => Some(choose(patch.password, made)?),
            false => None,
        };
        let accounts = &self.0.accounts;
        let _changing = accounts.change().await;
        let old = accounts.get(name).ok_or_else(|| unknown(name))?;
        if chosen.is_none() && patch.role.is_none_or(|role| role == old.role) {
            return Ok(ChangedUser { user: old.view(), password: None });
        }
        let changes = match (chosen.is_some(), patch.role.filter(|role| *role != old.role)) {
            (true, Some(role)) => format!("password, role {}", role.name()),
            (false, Some(role)) => format!("role {}", role.name()),
            (_, None) => "password".into(),
        };
        let (password, shown) = match chosen {
            Some((password, shown)) => (self.hash(password).await?, shown),
            None => (old.password.clone(), None),
        };
        let role = patch.role.unwrap_or(old.role);
        let user = Arc::new(User::new(Arc::clone(&old.name), role, password, old.created));
        let line = Engine::audit_by(actor, name, "user changed", Some(changes));
        let ops = vec![Op::User(user.row()), line];
        match (old.role, role) {
            (was, is) if (was == UserRole::Device) == (is == UserRole::Device) => {
                self.write(ops).await?;
            }
            (UserRole::Device, _) => self.forget_device(name, ops).await?,
            _ => self.0.register(vec![Registration::of_user(&user.name)], ops).await?,
        }
        accounts.replace(|users| drop(users.insert(Arc::clone(&user.name), Arc::clone(&user))));
        self.0.end_account(name, "the account was changed; log in again");
        self.0.tell_user(name, "changed");
        Ok(ChangedUser { user: user.view(), password: shown })
    }

    /// Removes a user and ends its connections.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Unavailable`].
    pub async fn remove_user(&self, name: &str, actor: &Actor) -> Result<(), ServiceError> {
        let accounts = &self.0.accounts;
        let _changing = accounts.change().await;
        let old = accounts.get(name).ok_or_else(|| unknown(name))?;
        let line = Engine::audit_by(actor, name, "user removed", None);
        let ops = vec![Op::UserGone(name.to_owned()), Op::Ending(name.to_owned()), line];
        match old.role {
            UserRole::Device => self.forget_device(name, ops).await?,
            _ => self.write(ops).await?,
        }
        accounts.replace(|users| drop(users.remove(name)));
        self.0.tokens.remove_of(name);
        self.0.end_account(name, REMOVED);
        self.0.end_sessions(name, REMOVED);
        self.0.tell_user(name, "removed");
        Ok(())
    }

    async fn hash(&self, password: Password) -> Result<PasswordHash, ServiceError> {
        match self.0.accounts.passwords.run(move || PasswordHash::make(password.0.as_bytes())).await
        {
            Ok(Ok(hash)) => Ok(hash),
            Ok(Err(error)) => Err(ServiceError::Unavailable(error.to_string())),
            Err(Busy) => {
                Err(ServiceError::Unavailable("too many passwords are being checked".into()))
            }
        }
    }

    pub(super) async fn write(&self, ops: Vec<Op>) -> Result<(), ServiceError> {
        let written = self.0.db.commit(ops).await;
        written.map_err(|error| ServiceError::Unavailable(error.to_string()))
    }

    /// The device that a user was, with all that it experienced.
    async fn forget_device(&self, name: &str, ops: Vec<Op>) -> Result<(), ServiceError> {
        match self.0.registry.get(name) {
            Some(device) => self.0.forget(&device, ops, "the account was changed").await,
            None => self.write(ops).await,
        }
    }
}

impl Engine {
    /// Whether a user of this name can be added. Only while [`Accounts::change`] is held.
    pub fn name_is_free(&self, name: &str) -> Result<(), ServiceError> {
        if self.accounts.get(name).is_some() {
            return Err(ServiceError::Conflict(format!("there is a user {name} already")));
        }
        if self.registered(name).is_some() {
            return Err(ServiceError::Conflict(format!(
                "{name} is a registered device; a user needs another name"
            )));
        }
        Ok(())
    }
}

impl Accounts {
    /// Replaces the snapshot. Only while [`Accounts::changing`] is held.
    pub fn replace(&self, change: impl FnOnce(&mut Users)) {
        let mut users = Users::clone(&self.users.load());
        change(&mut users);
        self.users.store(Arc::new(users));
    }

    /// How many users there are.
    pub fn count(&self) -> usize {
        self.users.load().len()
    }
}

impl User {
    fn view(&self) -> UserView {
        UserView { name: self.name.to_string(), role: self.role, created: self.created }
    }
}

/// The password to keep, and again to show where it was made here.
fn choose(
    given: Option<Password>,
    make: impl FnOnce() -> Result<String, ServiceError>,
) -> Result<(Password, Option<Password>), ServiceError> {
    match given {
        Some(Password(text)) => {
            if !(MIN_PASSWORD..=MAX_PASSWORD).contains(&text.chars().count())
                || text.chars().any(char::is_control)
            {
                return Err(invalid(
                    "password",
                    format!(
                        "it must have {MIN_PASSWORD} to {MAX_PASSWORD} characters, no control \
                         characters among them; leave it out to have one made"
                    ),
                ));
            }
            Ok((Password(text), None))
        }
        None => {
            let made = make()?;
            Ok((Password(made.clone()), Some(Password(made))))
        }
    }
}

/// A password that nobody can guess.
fn made() -> Result<String, ServiceError> {
    new_token().map_err(|error| ServiceError::Unavailable(error.to_string()))
}

pub fn check_name(name: &str) -> Result<(), ServiceError> {
    if !is_name(name) {
        return Err(invalid("name", name_problem("user name", name)));
    }
    if is_reserved(name) || name == crate::identity::TOKEN_USER {
        return Err(invalid("name", format!("{name} means something else at a login")));
    }
    Ok(())
}

pub fn unknown(name: &str) -> ServiceError {
    ServiceError::NotFound(format!("there is no user {name}"))
}
