//! Bearer tokens of users for the admin interface (rule 28).
//!
//! A token is its user to that interface, with the role that the user has when it is used; to the
//! broker it is nothing. Kept is its keyed hash, so that a login is one look-up in memory.

use std::collections::HashMap;

use hook::clock;
use parking_lot::Mutex;

use crate::{
    Service,
    db::{Op, UserTokenRow},
    engine::{Counters, Engine},
    registration::invalid,
    requests,
    secret::{MAX_TOKEN, TokenHash, random_bytes},
    transfer::unix_now,
    views::{Actor, AddedToken, NewToken, ServiceError, TokenView, UserRole},
};

/// Tokens of one user.
const MAX_TOKENS: usize = 64;
/// The longest label, in characters.
const LONGEST_LABEL: usize = 64;
/// The longest life, in days.
const LONGEST_LIFE: u32 = 3650;
const DAY: u64 = 24 * 3600;
/// How exactly `last_used` is kept, in seconds: a write for each request would be many.
const USED_STEP: u64 = 3600;

/// Who a token opens for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenLogin {
    /// The user.
    pub user: String,
    /// The name of the token.
    pub id: String,
    /// What the user may do.
    pub role: UserRole,
}

impl TokenLogin {
    /// The name in the audit.
    pub fn actor(&self) -> String {
        format!("{} (token {})", self.user, self.id)
    }
}

/// All tokens, by their hashes.
#[derive(Default)]
pub struct Tokens(Mutex<HashMap<TokenHash, UserTokenRow>>);

impl Tokens {
    pub fn load(rows: Vec<UserTokenRow>) -> Tokens {
        Tokens(Mutex::new(rows.into_iter().map(|row| (row.hash, row)).collect()))
    }

    fn of(&self, user: &str) -> Vec<UserTokenRow> {
        let tokens = self.0.lock();
        let mut found: Vec<_> = tokens.values().filter(|row| row.user == user).cloned().collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    /// A user is removed, and its tokens with it.
    pub fn remove_of(&self, user: &str) {
        self.0.lock().retain(|_, row| row.user != user);
    }
}

impl Service {
    /// The tokens of a user, by their ids.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub fn user_tokens(&self, user: &str) -> Result<Vec<TokenView>, ServiceError> {
        let known = self.0.accounts.get(user).is_some();
        known
            .then(|| self.0.tokens.of(user).iter().map(view).collect())
            .ok_or_else(|| super::service::unknown(user))
    }

    /// Makes a token for a user. The second value says whether it is new, and not of an earlier
    /// request with this key.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Invalid`], [`ServiceError::Conflict`] where
    /// the user has too many, is a device, or the key was used otherwise;
    /// [`ServiceError::Unavailable`].
    pub async fn add_user_token(
        &self,
        user: &str,
        new: NewToken,
        key: Option<&str>,
        actor: &Actor,
    ) -> Result<(AddedToken, bool), ServiceError> {
        let engine = &self.0;
        let label = &new.label;
        if label.chars().count() > LONGEST_LABEL || label.chars().any(char::is_control) {
            let problem =
                format!("use at most {LONGEST_LABEL} characters, none of them control characters");
            return Err(invalid("label", problem));
        }
        if new.expires_in_days.is_some_and(|days| !(1..=LONGEST_LIFE).contains(&days)) {
            return Err(invalid("expires_in_days", format!("must be 1 to {LONGEST_LIFE}")));
        }
        let _changing = engine.accounts.change().await;
        let known = engine.accounts.get(user).ok_or_else(|| super::service::unknown(user))?;
        let request = engine.requests.open(&engine.key, "user token", key, &(user, &new))?;
        let token = request.secret(&engine.key, user)?;
        let hash = engine.key.user_token(token.as_bytes());
        if request.is_done {
            let row = engine.tokens.0.lock().get(&hash).cloned();
            let row = row.ok_or_else(|| requests::gone("a token"))?;
            return Ok((AddedToken { view: view(&row), token }, false));
        }
        if known.role == UserRole::Device {
            return Err(ServiceError::Conflict(format!(
                "{user} is a device, and no device may use this interface"
            )));
        }
        let others = engine.tokens.of(user);
        if others.len() >= MAX_TOKENS {
            return Err(ServiceError::Conflict(format!(
                "{user} has {MAX_TOKENS} tokens; revoke one that is not needed"
            )));
        }
        let created = unix_now();
        if new.expires_in_days.is_some() && !clock::is_set(created) {
            let text = "the machine's clock is not set, so that no token could end";
            return Err(ServiceError::Unavailable(text.into()));
        }
        let row = UserTokenRow {
            id: self.new_token_id()?,
            user: user.into(),
            label: new.label,
            hash,
            created,
            expires: new.expires_in_days.map(|days| created + u64::from(days) * DAY),
            last_used: None,
        };
        let mut ops = vec![
            Op::UserToken(row.clone()),
            Engine::audit_by(actor, user, "token made", Some(detail(&row))),
        ];
        ops.extend(request.op());
        self.write(ops).await?;
        engine.requests.done(request);
        let shown = AddedToken { view: view(&row), token };
        engine.tokens.0.lock().insert(hash, row);
        Ok((shown, true))
    }

    fn new_token_id(&self) -> Result<String, ServiceError> {
        loop {
            let bytes: [u8; 4] =
                random_bytes().map_err(|error| ServiceError::Unavailable(error.to_string()))?;
            let id = hex::encode(bytes);
            if self.0.tokens.0.lock().values().all(|row| row.id != id) {
                return Ok(id);
            }
        }
    }

    /// Revokes a token of a user, at once.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Unavailable`]: then it still opens.
    pub async fn remove_user_token(
        &self,
        user: &str,
        id: &str,
        actor: &Actor,
    ) -> Result<(), ServiceError> {
        let engine = &self.0;
        let _changing = engine.accounts.change().await;
        engine.accounts.get(user).ok_or_else(|| super::service::unknown(user))?;
        let found = engine.tokens.of(user).into_iter().find(|row| row.id == id);
        let row =
            found.ok_or_else(|| ServiceError::NotFound(format!("{user} has no token {id:?}")))?;
        let ops = vec![
            Op::UserTokenGone(row.id.clone()),
            Engine::audit_by(actor, user, "token revoked", Some(detail(&row))),
        ];
        self.write(ops).await?;
        engine.tokens.0.lock().remove(&row.hash);
        Ok(())
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]: nobody's, or it has ended. Both sound alike.
    pub fn token_login(&self, token: &str) -> Result<TokenLogin, ServiceError> {
        self.token_user(token).ok_or_else(|| {
            Counters::add(&self.0.counters.failed_logins, 1);
            ServiceError::NotFound(
                "the bearer token opens nothing: it is unknown, revoked or has ended".into(),
            )
        })
    }

    /// The same of a token that has opened before: that it does no more is no failed login.
    pub fn token_user(&self, token: &str) -> Option<TokenLogin> {
        let engine = &self.0;
        let now = unix_now();
        if token.len() > MAX_TOKEN {
            return None;
        }
        let mut tokens = engine.tokens.0.lock();
        let row = tokens.get_mut(&engine.key.user_token(token.as_bytes()))?;
        if has_ended(row.expires, now) {
            return None;
        }
        let user = engine.accounts.get(&row.user)?;
        if row.last_used.is_none_or(|at| at.abs_diff(now) >= USED_STEP) {
            row.last_used = Some(now);
            // Where it cannot be queued now, the next request does it after an hour.
            drop(engine.db.submit(vec![Op::UserTokenUsed(row.id.clone(), now)], None));
        }
        Some(TokenLogin { user: row.user.clone(), id: row.id.clone(), role: user.role })
    }
}

/// Whether a token opens nothing any more. While the clock is not set, that may be so of each that
/// ends.
fn has_ended(expires: Option<u64>, now: u64) -> bool {
    expires.is_some_and(|expires| expires <= now || !clock::is_set(now))
}

fn view(row: &UserTokenRow) -> TokenView {
    TokenView {
        id: row.id.clone(),
        label: row.label.clone(),
        created: row.created,
        expires: row.expires,
        last_used: row.last_used,
    }
}

fn detail(row: &UserTokenRow) -> String {
    match row.label.is_empty() {
        true => format!("token {}", row.id),
        false => format!("token {}: {}", row.id, row.label),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_clock_makes_a_token_last() {
        let now = clock::EARLIEST + 1_000;
        assert!(!has_ended(None, now) && !has_ended(None, 60), "it does not end");
        assert!(!has_ended(Some(now + 1), now) && has_ended(Some(now), now));
        assert!(
            has_ended(Some(now), 60),
            "the machine has just started, and nobody told it the time"
        );
    }
}
