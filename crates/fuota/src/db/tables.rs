//! From a change to its statement, and from the tables to the rows at start.

use rusqlite::{Connection, Row, Savepoint, params};
use store::Digest;

use super::{DeviceRow, FileRow, HistoryRow, Loaded, Op, TransferRow, fleet, requests, users};
use crate::secret::TokenHash;

pub fn apply(sql: &Savepoint<'_>, op: &Op) -> rusqlite::Result<()> {
    match op {
        // An upsert, not INSERT OR REPLACE: that would delete the row first, and its transfer.
        Op::Device(row) => sql
            .prepare_cached(
                "INSERT INTO device VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)
                 ON CONFLICT (id) DO UPDATE SET registered=?2, groups=?3, labels=?4, model=?5, title=?6,
                 version=?7, dialect=?8, client_id=?9, token=?10, old_token=?11, old_until=?12, last_seen=?13,
                 confirmed=?14, link_seed=?15",
            )?
            .execute(params![
                row.id, row.registered, json(&row.groups), json(&row.labels), row.model, row.title,
                row.version, row.dialect, row.client_id, row.token.map(|hash| hash.0),
                row.old_token.map(|(hash, _)| hash.0), row.old_token.map(|(_, until)| until as i64),
                row.last_seen.map(|at| at as i64), row.confirmed, row.link_seed,
            ])?,
        Op::DeviceGone(id) => sql.prepare_cached("DELETE FROM device WHERE id = ?1")?.execute([id])?,
        Op::File(row) => sql
            .prepare_cached("INSERT OR REPLACE INTO file VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)")?
            .execute(params![
                row.id, row.path, row.fingerprint, row.digest.as_bytes(), row.size as i64, row.target,
                row.sidecar, row.name_title, row.name_version, row.created_seq, row.created_at as i64,
                row.removed_seq, row.uploaded, row.withdrawn, row.facts, row.signature,
            ])?,
        Op::FileGone(id) => sql.prepare_cached("DELETE FROM file WHERE id = ?1")?.execute([id])?,
        Op::Transfer(row) => sql
            .prepare_cached("INSERT OR REPLACE INTO transfer VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)")?
            .execute(params![
                row.device, row.digest.as_bytes(), row.size as i64, row.chunk_size, row.path, row.title,
                row.version, row.own_version, row.attempt, row.state, row.reason, row.served,
                row.downloaded_at.map(|at| at as i64), row.replaces, row.deployment, row.file,
                row.note,
            ])?,
        Op::History(row) => sql
            .prepare_cached("INSERT OR REPLACE INTO history VALUES (?1,?2,?3,?4,?5,?6)")?
            .execute(params![
                row.device, row.digest.as_bytes(), row.offers, row.deliveries, row.differs,
                row.wait_until.map(|at| at as i64),
            ])?,
        Op::User(row) => users::write(sql, row)?,
        Op::UserGone(name) => {
            requests::remove_tokens_of(sql, name)?;
            users::remove(sql, name)?
        }
        Op::Request(row) => requests::add(sql, row)?,
        Op::UserToken(row) => requests::write_token(sql, row)?,
        Op::UserTokenUsed(id, at) => requests::token_used(sql, id, *at)?,
        Op::UserTokenGone(id) => requests::remove_token(sql, id)?,
        Op::Ending(name) => sql
            .prepare_cached("INSERT OR IGNORE INTO ending VALUES (?1)")?
            .execute([name])?,
        Op::Ended(name) => sql.prepare_cached("DELETE FROM ending WHERE name = ?1")?.execute([name])?,
        Op::Deployment(row) => fleet::write_deployment(sql, row)?,
        Op::DeploymentGone(id) => fleet::remove_deployment(sql, *id)?,
        Op::Member(row) => fleet::write_member(sql, row)?,
        Op::MemberGone(id, device) => fleet::remove_member(sql, *id, device)?,
        Op::MembersGone(device) => fleet::remove_members(sql, device)?,
        Op::Timeline(row) => fleet::add_to_timeline(sql, row)?,
        Op::Audit(row) => fleet::add_to_audit(sql, row)?,
        Op::Prune { audit, timeline } => fleet::prune(sql, *audit, *timeline)?,
        Op::Scanned => sql.execute("UPDATE run SET scanned = 1", [])?,
        Op::Frozen(frozen) => sql.execute("UPDATE run SET frozen = ?1", [frozen])?,
        Op::Clean(clean) => sql.execute("UPDATE run SET clean = ?1", [clean])?,
    };
    Ok(())
}

pub fn load(connection: &Connection) -> rusqlite::Result<Loaded> {
    fn all<T>(
        connection: &Connection,
        table: &str,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        connection.prepare(&format!("SELECT * FROM {table}"))?.query_map([], read)?.collect()
    }
    let digest = |bytes: [u8; 32]| Digest::from_bytes(bytes);
    let number = |row: &Row<'_>, name: &str| row.get::<_, i64>(name).map(|number| number as u64);
    let maybe = |row: &Row<'_>, name: &str| {
        row.get::<_, Option<i64>>(name).map(|number| number.map(|number| number as u64))
    };
    Ok(Loaded {
        devices: all(connection, "device", |row| {
            let hash =
                |name: &str| row.get::<_, Option<[u8; 32]>>(name).map(|hash| hash.map(TokenHash));
            Ok(DeviceRow {
                id: row.get("id")?,
                registered: row.get("registered")?,
                groups: serde_json::from_str(&row.get::<_, String>("groups")?).unwrap_or_default(),
                labels: serde_json::from_str(&row.get::<_, String>("labels")?).unwrap_or_default(),
                model: row.get("model")?,
                title: row.get("title")?,
                version: row.get("version")?,
                dialect: row.get("dialect")?,
                client_id: row.get("client_id")?,
                token: hash("token")?,
                old_token: hash("old_token")?.zip(maybe(row, "old_until")?),
                last_seen: maybe(row, "last_seen")?,
                confirmed: row.get("confirmed")?,
                link_seed: row.get("link_seed")?,
            })
        })?,
        files: all(connection, "file", |row| {
            Ok(FileRow {
                id: row.get("id")?,
                path: row.get("path")?,
                fingerprint: row.get("fingerprint")?,
                digest: digest(row.get("digest")?),
                size: number(row, "size")?,
                target: row.get("target")?,
                sidecar: row.get("sidecar")?,
                name_title: row.get("name_title")?,
                name_version: row.get("name_version")?,
                created_seq: row.get("created_seq")?,
                created_at: number(row, "created_at")?,
                removed_seq: row.get("removed_seq")?,
                uploaded: row.get("uploaded")?,
                withdrawn: row.get("withdrawn")?,
                facts: row.get("facts")?,
                signature: row.get("signature")?,
            })
        })?,
        transfers: all(connection, "transfer", |row| {
            Ok(TransferRow {
                device: row.get("device")?,
                digest: digest(row.get("digest")?),
                size: number(row, "size")?,
                chunk_size: row.get("chunk_size")?,
                path: row.get("path")?,
                title: row.get("title")?,
                version: row.get("version")?,
                own_version: row.get("own_version")?,
                attempt: row.get("attempt")?,
                state: row.get("state")?,
                reason: row.get("reason")?,
                served: row.get("served")?,
                downloaded_at: maybe(row, "downloaded_at")?,
                replaces: row.get("replaces")?,
                deployment: row.get("deployment")?,
                file: row.get("file")?,
                note: row.get("note")?,
            })
        })?,
        history: all(connection, "history", |row| {
            Ok(HistoryRow {
                device: row.get("device")?,
                digest: digest(row.get("digest")?),
                offers: row.get("offers")?,
                deliveries: row.get("deliveries")?,
                differs: row.get("differs")?,
                wait_until: maybe(row, "wait_until")?,
            })
        })?,
        users: all(connection, "user", users::read)?,
        requests: all(connection, "request", requests::read)?,
        user_tokens: all(connection, "user_token", requests::read_token)?,
        endings: all(connection, "ending", |row| row.get(0))?,
        deployments: all(connection, "deployment", fleet::read_deployment)?,
        members: all(connection, "member", fleet::read_member)?,
        scanned: connection.query_row("SELECT scanned FROM run", [], |row| row.get(0))?,
        frozen: connection.query_row("SELECT frozen FROM run", [], |row| row.get(0))?,
        clean: connection.query_row("SELECT clean FROM run", [], |row| row.get(0))?,
    })
}

fn json(value: &impl serde::Serialize) -> String {
    // Lists and maps of texts always serialize.
    serde_json::to_string(value).unwrap_or_default()
}
