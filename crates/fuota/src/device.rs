//! One device: what it is, which connections it has, and what it is being given.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hook::{Qos, clock};
use parking_lot::Mutex;
use store::Digest;
use tokio::time::Instant;

use crate::{
    db::{DeviceRow, Done, HistoryRow, Op},
    link::Link,
    policy::{Facts, History},
    secret::TokenHash,
    transfer::{Transfer, unix_now},
    views::{DeviceView, OfferedFirmware, Parameters, Progress, VersionFrom},
};

/// See [the module](self).
pub struct Device {
    pub id: Arc<str>,
    /// False for a session without identity: nothing of it is written or listed.
    pub stored: bool,
    pub state: Mutex<DeviceState>,
    /// It, or its transfer, differs from the database.
    pub dirty: AtomicBool,
    /// A change could not be written: everything of it is written again.
    pub unwritten: AtomicBool,
    /// Seconds since 1970; 0 while it was never seen.
    seen: AtomicU64,
    /// When, in nanoseconds of this process; 0 while it was not seen in it.
    acted: AtomicU64,
}

/// Locked before a link's state where both are needed.
#[derive(Default)]
pub struct DeviceState {
    pub registered: bool,
    pub groups: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub model: Option<String>,
    /// Title of the firmware that it got last, where a sidecar named one.
    pub title: Option<String>,
    /// As it reported.
    pub version: Option<String>,
    pub dialect: Option<String>,
    pub client_id: Option<String>,
    pub token: Option<TokenHash>,
    /// Replaced by `token`; works for a while, or until `token` logs in.
    pub old_token: Option<OldToken>,
    /// Its download links are signed with this: drawn when it is registered, and when its token
    /// is cut off.
    pub link_seed: i64,
    /// Its connections, the newest last.
    pub links: Vec<Arc<Link>>,
    /// Its newest offer.
    pub transfer: Option<Arc<Transfer>>,
    /// An offer on its way into the database.
    pub pinning: Option<Arc<Transfer>>,
    pub history: HashMap<Digest, History>,
    /// The file that it was confirmed with last: the way back of a rollback.
    pub confirmed: Option<i64>,
    /// Why nothing is offered to it.
    pub why: Option<String>,
    /// Since jitter was drawn for this deployment: when it may begin.
    pub turn: Option<(i64, Instant)>,
    /// When the timer is due after which its next attempt may come.
    pub again_at: Option<Instant>,
    /// When the timer is due that tells confirmed from silent.
    pub outcome_at: Option<Instant>,
    /// Since when it has no connection.
    pub away_since: Option<Instant>,
    /// It was forgotten; a link that still holds it asks the registry again.
    pub gone: bool,
}

/// A token that was replaced. Its end is measured on the monotonic clock, so that a step of the
/// wall clock locks no device out; the wall clock's time is for the next start.
#[derive(Clone, Copy)]
pub struct OldToken {
    pub hash: TokenHash,
    /// Seconds since 1970.
    until: u64,
    ends: Instant,
}

impl OldToken {
    /// Replaced now.
    pub fn new(hash: TokenHash, grace: Duration) -> OldToken {
        OldToken::stored(hash, unix_now().saturating_add(grace.as_secs()), grace)
    }

    /// As the database has it.
    pub fn stored(hash: TokenHash, until: u64, grace: Duration) -> OldToken {
        let left = Duration::from_secs(clock::left(until, unix_now(), grace.as_secs()));
        OldToken { hash, until, ends: Instant::now() + left }
    }

    /// Whether this is it, and it still works.
    pub fn accepts(&self, hash: &TokenHash) -> bool {
        self.hash.matches(hash) && self.works()
    }

    /// Whether its grace has not ended.
    pub fn works(&self) -> bool {
        Instant::now() < self.ends
    }
}

/// From when [`Device::idle_order`] counts.
static FIRST: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

impl Device {
    pub fn new(id: Arc<str>, stored: bool) -> Device {
        Device {
            id,
            stored,
            state: Mutex::default(),
            dirty: AtomicBool::new(false),
            unwritten: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            acted: AtomicU64::new(0),
        }
    }

    /// `grace` is how long a token may work that was replaced.
    pub fn from_row(row: DeviceRow, grace: Duration) -> Device {
        let device = Device::new(row.id.into(), true);
        device.seen.store(row.last_seen.unwrap_or(0), Ordering::Relaxed);
        *device.state.lock() = DeviceState {
            registered: row.registered,
            groups: row.groups,
            labels: row.labels,
            model: row.model,
            title: row.title,
            version: row.version,
            dialect: row.dialect,
            client_id: row.client_id,
            token: row.token,
            old_token: row.old_token.map(|(hash, until)| OldToken::stored(hash, until, grace)),
            confirmed: row.confirmed,
            link_seed: row.link_seed,
            away_since: Some(Instant::now()),
            ..DeviceState::default()
        };
        device
    }

    pub fn row(&self, state: &DeviceState) -> DeviceRow {
        DeviceRow {
            id: self.id.to_string(),
            registered: state.registered,
            groups: state.groups.clone(),
            labels: state.labels.clone(),
            model: state.model.clone(),
            title: state.title.clone(),
            version: state.version.clone(),
            dialect: state.dialect.clone(),
            client_id: state.client_id.clone(),
            token: state.token,
            old_token: state.old_token.map(|old| (old.hash, old.until)),
            last_seen: self.last_seen(),
            confirmed: state.confirmed,
            link_seed: state.link_seed,
        }
    }

    pub fn history_row(&self, digest: Digest, history: History) -> HistoryRow {
        let History { offers, deliveries, differs, wait } = history;
        let wait_until = wait.map(|wait| wait.until);
        HistoryRow { device: self.id.to_string(), digest, offers, deliveries, differs, wait_until }
    }

    /// What to do after a job of this device: if it failed, all is written again.
    pub fn noticing(self: &Arc<Device>) -> Option<Done> {
        let device = Arc::clone(self);
        Some(Box::new(move |result| {
            if result.is_err() {
                device.unwritten.store(true, Ordering::Relaxed);
            }
        }))
    }

    /// It was seen now.
    pub fn touch(&self) {
        self.seen.store(unix_now(), Ordering::Relaxed);
        let now = u64::try_from(FIRST.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.acted.store(now, Ordering::Relaxed);
        self.dirty.store(true, Ordering::Relaxed);
    }

    /// It acted in this dialect.
    pub fn speaks(&self, dialect: &str) {
        self.state.lock().dialect = Some(dialect.into());
        self.dirty.store(true, Ordering::Relaxed);
    }

    /// The larger, the later it was seen: exactly where that was in this process, and after all that
    /// were seen before it.
    pub fn idle_order(&self) -> (u64, u64) {
        (self.acted.load(Ordering::Relaxed), self.seen.load(Ordering::Relaxed))
    }

    /// Seconds since 1970.
    pub fn last_seen(&self) -> Option<u64> {
        Some(self.seen.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }

    /// As REST shows it; `url` knows the address that a deployment's image came from.
    pub fn view(&self, url: impl Fn(i64) -> Option<String>) -> DeviceView {
        let state = self.state.lock();
        let newest = state.links.last();
        let transfer = state.transfer.as_ref();
        let update = transfer.map(|transfer| transfer.state());
        let failure = update.as_ref().and_then(|update| update.reason().map(str::to_owned));
        DeviceView {
            id: self.id.to_string(),
            online: newest.is_some(),
            version: state.version.clone(),
            version_from: state.version.is_some().then_some(VersionFrom::Report),
            reason: failure.or_else(|| state.why.clone()),
            next_attempt: None,
            state: update.map(|update| update.name().to_owned()),
            progress: transfer.map_or(Progress::default(), |transfer| Progress {
                chunks_sent: transfer.sent(),
                chunks_total: transfer.pin.total,
                bytes_per_second: transfer.bytes_per_second(),
            }),
            stalled: None,
            firmware: transfer.map(|transfer| OfferedFirmware {
                title: transfer.pin.title.clone(),
                version: transfer.pin.version.clone(),
                digest: transfer.pin.sha256.clone(),
                chunk_size: transfer.pin.chunk_size,
                attempt: transfer.pin.attempt,
            }),
            parameters: transfer.map(|transfer| Parameters {
                ota_url: transfer
                    .pin
                    .deployment
                    .and_then(url)
                    .unwrap_or_else(|| transfer.pin.path.clone()),
                ota_size: transfer.pin.size,
                ota_chunks: transfer.pin.total,
            }),
            registered: state.registered,
            groups: state.groups.clone(),
            labels: state.labels.clone(),
            model: state.model.clone(),
            title: state.title.clone(),
            dialect: state.dialect.clone(),
            protocol: newest.map(|link| link.client.protocol.as_str().to_owned()),
            address: newest.and_then(|link| Some(link.client.address?.to_string())),
            client_id: newest
                .map(|link| link.client.id.to_string())
                .or_else(|| state.client_id.clone()),
            last_seen: self.last_seen(),
        }
    }
}

impl DeviceState {
    /// For the policy.
    pub fn facts<'a>(&'a self, id: &'a str) -> Facts<'a> {
        Facts {
            id,
            groups: &self.groups,
            labels: &self.labels,
            model: self.model.as_deref(),
            title: self.title.as_deref(),
            version: self.version.as_deref(),
            confirmed: self.confirmed,
            history: &self.history,
        }
    }

    /// Writes this transfer, if it is the device's newest offer: an offer that is on its way
    /// into the database must not be overwritten by its predecessor.
    pub fn transfer_op(&self, id: &str, transfer: &Arc<Transfer>) -> Option<Op> {
        let newest = self.transfer.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, transfer));
        (newest && self.pinning.is_none()).then(|| Op::Transfer(transfer.row(id)))
    }

    /// The newest connection with a downlink: where offers go (rule 3).
    pub fn newest_downlink(&self) -> Option<(Arc<Link>, Qos)> {
        self.links.iter().rev().find_map(|link| {
            let qos = link.state.lock().downlink?;
            Some((Arc::clone(link), qos))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that was stepped, or was not set, shuts no device out before its time.
    #[test]
    fn an_old_token_works_for_its_grace_whatever_the_wall_clock_does() {
        let (hash, other) = (TokenHash([1; 32]), TokenHash([2; 32]));
        let (now, grace) = (unix_now(), Duration::from_secs(3600));
        assert!(OldToken::new(hash, grace).accepts(&hash));
        assert!(!OldToken::new(hash, grace).accepts(&other));
        assert!(!OldToken::new(hash, Duration::ZERO).accepts(&hash));
        // After a restart.
        assert!(OldToken::stored(hash, now + 60, grace).accepts(&hash));
        assert!(!OldToken::stored(hash, now - 60, grace).accepts(&hash));
        // It was rotated before the clock was set, or the clock was set back since.
        assert!(OldToken::stored(hash, 3660, grace).accepts(&hash));
        let late = OldToken::stored(hash, now + 1_000_000, grace);
        assert!(late.accepts(&hash) && late.ends <= Instant::now() + grace);
    }
}
