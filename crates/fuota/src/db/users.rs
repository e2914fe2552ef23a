//! The table of users.

use rusqlite::{Row, Savepoint, params, types::Type};

use crate::{
    accounts::{PasswordHash, Scheme},
    views::UserRole,
};

const ARGON2ID: &str = "argon2id";
const PBKDF2: &str = "pbkdf2-sha512";
const SHA512: &str = "sha512";

/// A row of `user`.
#[derive(Clone)]
pub struct UserRow {
    pub name: String,
    pub role: UserRole,
    pub password: PasswordHash,
    pub created: u64,
}

pub fn write(sql: &Savepoint<'_>, row: &UserRow) -> rusqlite::Result<usize> {
    let PasswordHash { scheme, salt, hash } = &row.password;
    let (scheme, memory, passes, lanes) = match *scheme {
        Scheme::Argon2id { memory, passes, lanes } => (ARGON2ID, memory, passes, lanes),
        Scheme::Pbkdf2 { rounds } => (PBKDF2, 0, rounds, 0),
        Scheme::Sha512 => (SHA512, 0, 0, 0),
    };
    let (role, created) = (row.role.name(), row.created as i64);
    sql.prepare_cached("INSERT OR REPLACE INTO user VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)")?
        .execute(params![row.name, role, salt, hash, memory, passes, lanes, created, scheme])
}

pub fn remove(sql: &Savepoint<'_>, name: &str) -> rusqlite::Result<usize> {
    sql.prepare_cached("DELETE FROM user WHERE name = ?1")?.execute([name])
}

pub fn read(row: &Row<'_>) -> rusqlite::Result<UserRow> {
    let role: String = row.get("role")?;
    let role = [UserRole::Device, UserRole::Service, UserRole::Operator, UserRole::Admin]
        .into_iter()
        .find(|known| known.name() == role)
        .ok_or_else(|| rusqlite::Error::InvalidColumnType(1, role, Type::Text))?;
    let (memory, passes, lanes) = (row.get("memory")?, row.get("passes")?, row.get("lanes")?);
    let scheme = match row.get::<_, String>("scheme")?.as_str() {
        ARGON2ID => Scheme::Argon2id { memory, passes, lanes },
        PBKDF2 => Scheme::Pbkdf2 { rounds: passes },
        SHA512 => Scheme::Sha512,
        other => return Err(rusqlite::Error::InvalidColumnType(8, other.into(), Type::Text)),
    };
    Ok(UserRow {
        name: row.get("name")?,
        role,
        password: PasswordHash { scheme, salt: row.get("salt")?, hash: row.get("hash")? },
        created: row.get::<_, i64>("created")? as u64,
    })
}
