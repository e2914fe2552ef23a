//! Hashes that mosquitto made become ours: a login shows the password, and what an attacker can
//! guess fast is not kept longer than that.

use std::{io, sync::Arc};

use tokio::time::Instant;

use super::{PasswordHash, User};
use crate::{
    db::{DbError, Op},
    engine::Engine,
};

/// Why a hash stays as it is, until the next login.
#[derive(Debug, thiserror::Error)]
enum Unchanged {
    #[error("too many passwords wait to be computed")]
    Busy,
    #[error("the user was changed meanwhile")]
    Changed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Database(#[from] DbError),
}

impl Engine {
    /// Replaces the hash of a user who has just shown its password. The login does not wait
    /// for it, and other logins go first.
    pub fn renew_password(self: &Arc<Self>, user: &Arc<User>, password: &[u8]) {
        if !user.start_renewal() {
            return;
        }
        let (engine, user, password) = (Arc::clone(self), Arc::clone(user), password.to_vec());
        // Ends when the passwords' thread or the database does.
        tokio::spawn(async move {
            if let Err(reason) = engine.replace_hash(&user, password).await {
                tracing::debug!(user = &*user.name, %reason, "the imported password stays");
                user.give_up_renewal();
            }
        });
    }

    async fn replace_hash(&self, user: &Arc<User>, password: Vec<u8>) -> Result<(), Unchanged> {
        let accounts = &self.accounts;
        let work = move || PasswordHash::make(&password).map(|hash| (hash, password));
        let made = accounts.passwords.run_later(work).await;
        let (hash, password) = made.map_err(|_| Unchanged::Busy)??;
        let _changing = accounts.changing.lock().await;
        if !accounts.is_current(user) {
            return Err(Unchanged::Changed);
        }
        let mut renewed = User::new(Arc::clone(&user.name), user.role, hash, user.created);
        renewed.stamp = user.stamp;
        let remembered = self.key.password(&renewed.name, &renewed.password.salt, &password);
        renewed.remember(remembered, Instant::now());
        self.db.commit(vec![Op::User(renewed.row())]).await?;
        accounts.replace(|users| drop(users.insert(Arc::clone(&user.name), Arc::new(renewed))));
        Ok(())
    }
}
