//! The table of users.

use rusqlite::{Row, Savepoint, params, types::Type};

use crate::{accounts::PasswordHash, views::UserRole};

/// A row of `user`.
#[derive(Clone)]
pub struct UserRow {
    pub name: String,
    pub role: UserRole,
    pub password: PasswordHash,
    pub created: u64,
}

pub fn write(sql: &Savepoint<'_>, row: &UserRow) -> rusqlite::Result<usize> {
    let PasswordHash { salt, hash, memory, passes, lanes } = &row.password;
    let (role, created) = (row.role.name(), row.created as i64);
    sql.prepare_cached("INSERT OR REPLACE INTO user VALUES (?1,?2,?3,?4,?5,?6,?7,?8)")?
        .execute(params![row.name, role, salt, hash, memory, passes, lanes, created])
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
    Ok(UserRow {
        name: row.get("name")?,
        role,
        password: PasswordHash {
            salt: row.get("salt")?,
            hash: row.get("hash")?,
            memory: row.get("memory")?,
            passes: row.get("passes")?,
            lanes: row.get("lanes")?,
        },
        created: row.get::<_, i64>("created")? as u64,
    })
}
