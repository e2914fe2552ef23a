//! The tables of requests that may be repeated, and of the tokens of users.

use rusqlite::{Row, Savepoint, params};

use crate::{requests::KEPT, secret::TokenHash};

/// A row of `request`.
#[derive(Clone)]
pub struct RequestRow {
    pub id: i64,
    pub kind: String,
    pub key: String,
    pub fingerprint: TokenHash,
    pub nonce: [u8; 16],
}

/// A row of `user_token`.
#[derive(Clone)]
pub struct UserTokenRow {
    pub id: String,
    pub user: String,
    pub label: String,
    pub hash: TokenHash,
    pub created: u64,
    pub expires: Option<u64>,
    pub last_used: Option<u64>,
}

/// Adds a request, and forgets the oldest. The database gives the number, since two that were
/// under way at once ask for the same.
pub fn add(sql: &Savepoint<'_>, row: &RequestRow) -> rusqlite::Result<usize> {
    sql.prepare_cached("INSERT INTO request (kind, key, fingerprint, nonce) VALUES (?1,?2,?3,?4)")?
        .execute(params![row.kind, row.key, row.fingerprint.0, row.nonce])?;
    sql.prepare_cached("DELETE FROM request WHERE id <= (SELECT max(id) FROM request) - ?1")?
        .execute([KEPT as i64])
}

pub fn read(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
    Ok(RequestRow {
        id: row.get("id")?,
        kind: row.get("kind")?,
        key: row.get("key")?,
        fingerprint: TokenHash(row.get("fingerprint")?),
        nonce: row.get("nonce")?,
    })
}

pub fn write_token(sql: &Savepoint<'_>, row: &UserTokenRow) -> rusqlite::Result<usize> {
    sql.prepare_cached("INSERT OR REPLACE INTO user_token VALUES (?1,?2,?3,?4,?5,?6,?7)")?.execute(
        params![
            row.id,
            row.user,
            row.label,
            row.hash.0,
            row.created as i64,
            row.expires.map(|at| at as i64),
            row.last_used.map(|at| at as i64),
        ],
    )
}

/// One was used: only where it is still there.
pub fn token_used(sql: &Savepoint<'_>, id: &str, at: u64) -> rusqlite::Result<usize> {
    sql.prepare_cached("UPDATE user_token SET last_used = ?2 WHERE id = ?1")?
        .execute(params![id, at as i64])
}

pub fn remove_token(sql: &Savepoint<'_>, id: &str) -> rusqlite::Result<usize> {
    sql.prepare_cached("DELETE FROM user_token WHERE id = ?1")?.execute([id])
}

pub fn remove_tokens_of(sql: &Savepoint<'_>, user: &str) -> rusqlite::Result<usize> {
    sql.prepare_cached("DELETE FROM user_token WHERE user = ?1")?.execute([user])
}

pub fn read_token(row: &Row<'_>) -> rusqlite::Result<UserTokenRow> {
    let maybe = |name: &str| {
        row.get::<_, Option<i64>>(name).map(|number| number.map(|number| number as u64))
    };
    Ok(UserTokenRow {
        id: row.get("id")?,
        user: row.get("user")?,
        label: row.get("label")?,
        hash: TokenHash(row.get("hash")?),
        created: row.get::<_, i64>("created")? as u64,
        expires: maybe("expires")?,
        last_used: maybe("last_used")?,
    })
}
