//! Whether the file can be used, and what to tell who has to do something about it.
//!
//! A damaged file is never repaired, replaced or deleted here: what is in it may be all that is
//! left of a site's accounts.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode};

use super::DbError;

/// Beside the database since the first start that succeeded.
const TOKEN_KEY: &str = "token.key";

/// SQLite takes an empty file for a new database. One that held accounts before is none.
///
/// # Errors
/// The file was emptied.
pub fn not_emptied(path: &Path) -> Result<(), DbError> {
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |about| about.len());
    let known = path.with_file_name(TOKEN_KEY).exists();
    if known && path.exists() && length(path) == 0 && length(&beside(path, "-wal")) == 0 {
        return Err(damaged(path, "it is empty"));
    }
    Ok(())
}

/// Looks at every page, which costs about what reading all rows costs.
///
/// # Errors
/// The first thing that is wrong.
pub fn whole(connection: &Connection, path: &Path) -> Result<(), DbError> {
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(at_start(path))?;
    if found == "ok" { Ok(()) } else { Err(damaged(path, &found)) }
}

/// Compares tables and indices with those that the same scripts make in an empty database. What
/// somebody added is let be.
///
/// # Errors
/// One that is missing or different.
pub fn schema(connection: &Connection, path: &Path) -> Result<(), DbError> {
    let read = |connection: &Connection| {
        let mut rows = connection
            .prepare("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL")?;
        let row = |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?]);
        rows.query_map([], row)?.collect::<rusqlite::Result<BTreeSet<[String; 3]>>>()
    };
    let expected = Connection::open_in_memory().and_then(|mut empty| {
        super::migrate(&mut empty, 0)?;
        read(&empty)
    });
    let found = read(connection).map_err(at_start(path))?;
    match expected.map_err(at_start(path))?.difference(&found).next() {
        None => Ok(()),
        Some([kind, name, _]) => {
            Err(damaged(path, &format!("its {kind} {name} is not as it was made")))
        }
    }
}

/// What an error of the start means.
pub fn at_start(path: &Path) -> impl Fn(rusqlite::Error) -> DbError + '_ {
    |error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            DbError::Unusable { path: path.into(), reason: "another program has locked it".into() }
        }
        Some(
            ErrorCode::DiskFull
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory,
        ) => DbError::Unusable { path: path.into(), reason: text(&error) },
        // Among them what SQLite does not know as damage: tables or values that are not ours.
        _ => damaged(path, &text(&error)),
    }
}

/// Why it cannot be written, in words that go into `/readyz`.
pub fn at_run(path: &Path, error: &rusqlite::Error) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            format!(
                "{name} is damaged ({}): stop the broker and put a backup in its place",
                text(error)
            )
        }
        _ => format!("{name} cannot be written: {}", text(error)),
    }
}

fn damaged(path: &Path, why: &str) -> DbError {
    // A report of several lines would not be one line for the operator.
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    DbError::Damaged { path: path.into(), why }
}

/// What SQLite says, without the statement that it was about.
fn text(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        error => error.to_string(),
    }
}

/// SQLite's files beside the database.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
