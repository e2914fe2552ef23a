//! The tables of deployments, their devices, timelines and the audit.

use rusqlite::{Connection, Row, Savepoint, params};

/// Lines of the audit that are kept, whatever their age.
const AUDIT_LINES: i64 = 100_000;
/// Lines of all timelines together, as well.
const TIMELINE_LINES: i64 = 1_000_000;

/// A row of `deployment`.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentRow {
    pub id: i64,
    pub file: i64,
    pub target: String,
    pub tier: u8,
    pub plan: String,
    pub downgrade: bool,
    pub state: String,
    pub reason: Option<String>,
    pub wave: usize,
    pub size: usize,
    pub created_seq: i64,
    pub created_at: u64,
    pub created_by: String,
    pub ended_seq: Option<i64>,
    pub key: Option<String>,
    pub conditions: String,
}

/// A row of `member`.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberRow {
    pub deployment: i64,
    pub device: String,
    pub wave: Option<i64>,
    pub counts: bool,
    pub state: Option<String>,
    pub reason: Option<String>,
    pub failed: bool,
    pub reached: bool,
    pub offers: u32,
    pub deliveries: u32,
    pub differs: bool,
    pub before: Option<i64>,
    pub at: u64,
    pub cancelled: Option<String>,
    pub forgiven: bool,
}

/// A line of a device's timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct TimelineRow {
    /// Given by the database; 0 on the way in.
    pub id: i64,
    pub at: u64,
    pub device: String,
    pub action: String,
    pub detail: Option<String>,
    pub deployment: Option<i64>,
}

/// A line of the audit: who did what to what, when, from where.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRow {
    /// Given by the database; 0 on the way in.
    pub id: i64,
    pub at: u64,
    pub actor: Option<String>,
    pub origin: Option<String>,
    pub subject: String,
    pub action: String,
    pub detail: Option<String>,
}

pub fn write_deployment(sql: &Savepoint<'_>, row: &DeploymentRow) -> rusqlite::Result<usize> {
    // An upsert: a replacement would delete the members with the row.
    sql.prepare_cached(
        "INSERT INTO deployment VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)
         ON CONFLICT (id) DO UPDATE SET plan=?5, state=?7, reason=?8, wave=?9, size=?10, ended_seq=?14,
         conditions=?16",
    )?
    .execute(params![
        row.id, row.file, row.target, row.tier, row.plan, row.downgrade, row.state, row.reason,
        row.wave as i64, row.size as i64, row.created_seq,
        row.created_at as i64, row.created_by, row.ended_seq, row.key, row.conditions,
    ])
}

pub fn remove_deployment(sql: &Savepoint<'_>, id: i64) -> rusqlite::Result<usize> {
    sql.prepare_cached("DELETE FROM deployment WHERE id = ?1")?.execute([id])
}

pub fn write_member(sql: &Savepoint<'_>, row: &MemberRow) -> rusqlite::Result<usize> {
    sql.prepare_cached(
        "INSERT OR REPLACE INTO member VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)",
    )?
    .execute(params![
        row.deployment,
        row.device,
        row.wave,
        row.counts,
        row.state,
        row.reason,
        row.failed,
        row.reached,
        row.offers,
        row.deliveries,
        row.differs,
        row.before,
        row.at as i64,
        row.cancelled,
        row.forgiven,
    ])
}

pub fn remove_member(sql: &Savepoint<'_>, id: i64, device: &str) -> rusqlite::Result<usize> {
    sql.prepare_cached("DELETE FROM member WHERE deployment = ?1 AND device = ?2")?
        .execute(params![id, device])
}

pub fn remove_members(sql: &Savepoint<'_>, device: &str) -> rusqlite::Result<usize> {
    sql.prepare_cached("DELETE FROM member WHERE device = ?1")?.execute(params![device])
}

pub fn add_to_timeline(sql: &Savepoint<'_>, row: &TimelineRow) -> rusqlite::Result<usize> {
    sql.prepare_cached(
        "INSERT INTO timeline (at, device, action, detail, deployment) VALUES (?1,?2,?3,?4,?5)",
    )?
    .execute(params![row.at as i64, row.device, row.action, row.detail, row.deployment])
}

pub fn add_to_audit(sql: &Savepoint<'_>, row: &AuditRow) -> rusqlite::Result<usize> {
    sql.prepare_cached(
        "INSERT INTO audit (at, subject, action, detail, actor, origin) VALUES (?1,?2,?3,?4,?5,?6)",
    )?
    .execute(params![
        row.at as i64,
        row.subject,
        row.action,
        row.detail,
        row.actor,
        row.origin
    ])
}

/// Deletes what is older than these times, in seconds since 1970, and what is too much.
pub fn prune(sql: &Savepoint<'_>, audit: u64, timeline: u64) -> rusqlite::Result<usize> {
    for (table, lines, before) in
        [("audit", AUDIT_LINES, audit), ("timeline", TIMELINE_LINES, timeline)]
    {
        sql.prepare_cached(&format!(
            "DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?1 OR at < ?2"
        ))?
        .execute(params![lines, before as i64])?;
    }
    Ok(0)
}

pub fn read_deployment(row: &Row<'_>) -> rusqlite::Result<DeploymentRow> {
    let number = |name: &str| row.get::<_, i64>(name).map(|number| number.max(0) as usize);
    Ok(DeploymentRow {
        id: row.get("id")?,
        file: row.get("file")?,
        target: row.get("target")?,
        tier: row.get("tier")?,
        plan: row.get("plan")?,
        downgrade: row.get("downgrade")?,
        state: row.get("state")?,
        reason: row.get("reason")?,
        wave: number("wave")?,
        size: number("size")?,
        created_seq: row.get("created_seq")?,
        created_at: number("created_at")? as u64,
        created_by: row.get("created_by")?,
        ended_seq: row.get("ended_seq")?,
        key: row.get("key")?,
        conditions: row.get("conditions")?,
    })
}

pub fn read_member(row: &Row<'_>) -> rusqlite::Result<MemberRow> {
    Ok(MemberRow {
        deployment: row.get("deployment")?,
        device: row.get("device")?,
        wave: row.get("wave")?,
        counts: row.get("counts")?,
        state: row.get("state")?,
        reason: row.get("reason")?,
        failed: row.get("failed")?,
        reached: row.get("reached")?,
        offers: row.get("offers")?,
        deliveries: row.get("deliveries")?,
        differs: row.get("differs")?,
        before: row.get("before")?,
        at: row.get::<_, i64>("at")? as u64,
        cancelled: row.get("cancelled")?,
        forgiven: row.get("forgiven")?,
    })
}

/// The newest lines of a device's timeline before the line `before`, the newest first.
pub fn timeline(
    connection: &Connection,
    device: &str,
    before: i64,
    limit: usize,
) -> rusqlite::Result<Vec<TimelineRow>> {
    let read = |row: &Row<'_>| {
        Ok(TimelineRow {
            id: row.get("id")?,
            at: row.get::<_, i64>("at")? as u64,
            device: row.get("device")?,
            action: row.get("action")?,
            detail: row.get("detail")?,
            deployment: row.get("deployment")?,
        })
    };
    connection
        .prepare_cached(
            "SELECT * FROM timeline WHERE device = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3",
        )?
        .query_map(params![device, before, limit as i64], read)?
        .collect()
}

/// The newest lines of the audit before the line `before`, the newest first.
pub fn audit(
    connection: &Connection,
    before: i64,
    limit: usize,
) -> rusqlite::Result<Vec<AuditRow>> {
    let read = |row: &Row<'_>| {
        Ok(AuditRow {
            id: row.get("id")?,
            at: row.get::<_, i64>("at")? as u64,
            actor: row.get("actor")?,
            origin: row.get("origin")?,
            subject: row.get("subject")?,
            action: row.get("action")?,
            detail: row.get("detail")?,
        })
    };
    connection
        .prepare_cached("SELECT * FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2")?
        .query_map(params![before, limit as i64], read)?
        .collect()
}
