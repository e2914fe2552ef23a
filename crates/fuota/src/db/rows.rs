//! What is written and read: the rows of tables, changes of them, and all of it at start.

use std::collections::BTreeMap;

use store::Digest;

use super::{AuditRow, DeploymentRow, MemberRow, RequestRow, TimelineRow, UserRow, UserTokenRow};
use crate::secret::TokenHash;

/// A row of `device`.
#[derive(Clone, Default)]
pub struct DeviceRow {
    pub id: String,
    pub registered: bool,
    pub groups: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub model: Option<String>,
    pub title: Option<String>,
    pub version: Option<String>,
    pub dialect: Option<String>,
    pub client_id: Option<String>,
    pub token: Option<TokenHash>,
    pub old_token: Option<(TokenHash, u64)>,
    pub last_seen: Option<u64>,
    pub confirmed: Option<i64>,
    pub link_seed: i64,
}

/// A row of `file`.
#[derive(Clone, Debug)]
pub struct FileRow {
    pub id: i64,
    pub path: String,
    pub fingerprint: String,
    pub digest: Digest,
    pub size: u64,
    pub target: String,
    pub sidecar: String,
    pub name_title: Option<String>,
    pub name_version: Option<String>,
    pub created_seq: i64,
    pub created_at: u64,
    pub removed_seq: Option<i64>,
    pub uploaded: bool,
    pub withdrawn: Option<String>,
    /// JSON of [`store::Facts`]; `None` where they were never found out.
    pub facts: Option<String>,
    /// JSON of [`store::Verdict`].
    pub signature: Option<String>,
}

/// A row of `transfer`.
#[derive(Clone)]
pub struct TransferRow {
    pub device: String,
    pub digest: Digest,
    pub size: u64,
    pub chunk_size: u32,
    pub path: String,
    pub title: Option<String>,
    pub version: String,
    pub own_version: bool,
    pub attempt: u32,
    pub state: String,
    pub reason: Option<String>,
    pub served: Vec<u8>,
    pub downloaded_at: Option<u64>,
    pub replaces: bool,
    pub deployment: Option<i64>,
    pub file: Option<i64>,
    pub note: Option<String>,
}

/// A row of `history`.
#[derive(Clone)]
pub struct HistoryRow {
    pub device: String,
    pub digest: Digest,
    pub offers: u32,
    pub deliveries: u32,
    pub differs: bool,
    pub wait_until: Option<u64>,
}

/// One change.
pub enum Op {
    Device(DeviceRow),
    DeviceGone(String),
    File(FileRow),
    FileGone(i64),
    Transfer(TransferRow),
    History(HistoryRow),
    User(UserRow),
    /// A user, with its tokens.
    UserGone(String),
    Request(RequestRow),
    UserToken(UserTokenRow),
    UserTokenUsed(String, u64),
    UserTokenGone(String),
    /// The sessions of the account of this name, which is removed, are to be ended.
    Ending(String),
    /// They are, for good.
    Ended(String),
    Deployment(DeploymentRow),
    DeploymentGone(i64),
    Member(MemberRow),
    MemberGone(i64, String),
    /// All places of a device, before those that it has are written.
    MembersGone(String),
    Timeline(TimelineRow),
    Audit(AuditRow),
    /// Deletes lines of the audit and of the timelines from before these times, and superfluous
    /// ones.
    Prune {
        audit: u64,
        timeline: u64,
    },
    /// A first full scan was taken in.
    Scanned,
    /// Who froze the site, as JSON.
    Frozen(Option<String>),
    Clean(bool),
}

/// All that the database held at start.
#[derive(Default)]
pub struct Loaded {
    pub devices: Vec<DeviceRow>,
    pub files: Vec<FileRow>,
    pub transfers: Vec<TransferRow>,
    pub history: Vec<HistoryRow>,
    pub users: Vec<UserRow>,
    pub requests: Vec<RequestRow>,
    pub user_tokens: Vec<UserTokenRow>,
    /// Names of removed accounts whose sessions are still to be ended.
    pub endings: Vec<String>,
    pub deployments: Vec<DeploymentRow>,
    pub members: Vec<MemberRow>,
    /// Whether a first full scan was ever taken in.
    pub scanned: bool,
    /// Who froze the site, as JSON.
    pub frozen: Option<String>,
    /// Whether the run before ended in order.
    pub clean: bool,
}
