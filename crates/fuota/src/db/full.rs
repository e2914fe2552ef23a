//! For tests: a database that takes no rows, as on a full disk.

use std::{path::Path, time::Duration};

use rusqlite::Connection;

fn open(path: &Path) -> Connection {
    let sql = Connection::open(path).unwrap();
    sql.busy_timeout(Duration::from_secs(20)).unwrap();
    sql
}

/// What it has of this kind.
fn names(sql: &Connection, kind: &str) -> Vec<String> {
    let mut found = sql.prepare("SELECT name FROM sqlite_master WHERE type = ?1").unwrap();
    let names = found.query_map([kind], |row| row.get(0)).unwrap();
    names.collect::<Result<_, _>>().unwrap()
}

/// From now on it takes no row of these tables, or of any where none is named.
pub fn forbid(path: &Path, tables: &[&str]) {
    let sql = open(path);
    for table in names(&sql, "table").iter().filter(|name| {
        !name.starts_with("sqlite_") && (tables.is_empty() || tables.contains(&name.as_str()))
    }) {
        for act in ["INSERT", "UPDATE", "DELETE"] {
            let script = format!(
                "CREATE TRIGGER no_{act}_{table} BEFORE {act} ON {table}
                 BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
            );
            sql.execute_batch(&script).unwrap();
        }
    }
}

/// It takes them again.
pub fn allow(path: &Path) {
    let sql = open(path);
    for trigger in names(&sql, "trigger") {
        sql.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
    }
}
