//! One device and one image: the pin, and which blocks were served.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use store::Image;
use tokio::time::Instant;

use crate::{
    catalog::Release,
    db::TransferRow,
    dialect::Offer,
    pin::{Pin, blocks},
    progress::Rate,
    state::{Happened, UpdateState},
};

/// So many manifests may be lost with their connections, before a device that begins anew is taken
/// at its word.
const MANIFESTS_IN_VAIN: u32 = 2;

/// See [the module](self). Shared by the device's sessions, so that serving needs no lock.
pub struct Transfer {
    pub pin: Pin,
    pub image: Image,
    /// The file that it came from holds other bytes now: the next request gets the new manifest.
    pub overwritten: AtomicBool,
    /// The device may hold a part of other bytes or other chunks, from a transfer before: until
    /// it shows that it heard of this one, each connection hears of it before any block.
    pub replaces: AtomicBool,
    /// See [`Transfer::is_believed_by_now`].
    begun_unheard: AtomicU32,
    /// An operator stopped it, whatever became of it: not a block of it is sent any more.
    pub stopped: AtomicBool,
    /// Its state is [`UpdateState::Stalled`], or was when it was offered again: the next request
    /// moves it, though it may not be the first on its connection.
    pub stalled: AtomicBool,
    /// Something changed since it was written to the database.
    pub dirty: AtomicBool,
    served: Box<[AtomicU64]>,
    missing: AtomicU32,
    status: Mutex<Status>,
}

/// What changes seldom.
struct Status {
    state: UpdateState,
    /// When the last missing block was written, on both clocks: one to measure, one to store.
    downloaded: Option<(Instant, u64)>,
    /// The connection that it was written to.
    delivered_on: Option<u64>,
    /// When the first block was asked for, if that was in this run.
    begun: Option<Instant>,
    /// How fast it is.
    rate: Rate,
    /// Repeated manifests.
    nudges: u32,
    /// When it was last offered, held back, or asked for on a connection that has ended.
    sign: Instant,
    /// Whether a manifest was written to a connection, as far as this run knows.
    announced: bool,
    /// Loaded after a run that did not end in order: the last marks may be lost.
    gap_possible: bool,
    /// What the device's dialect keeps with it.
    note: Option<String>,
    /// Of blocks that were served in part, by requests of another block size: the parts, as
    /// offsets in the image, sorted and apart.
    parts: BTreeMap<u32, Vec<(u64, u64)>>,
}

/// Blocks of which parts are remembered. A request for a range leaves two at most, so that this
/// is reached only by one who asks at random; then the first are forgotten and asked for again.
const MAX_PARTS: usize = 1024;
/// Parts of one block.
const MAX_PARTS_OF_ONE: usize = 64;

impl Transfer {
    /// Notes one more connection on which the device begins before it can have heard of this
    /// there. Whether they are enough to believe that it heard of it before: one that connects for
    /// each request would else hear manifests for ever.
    pub fn is_believed_by_now(&self) -> bool {
        self.begun_unheard.fetch_add(1, Ordering::Relaxed) >= MANIFESTS_IN_VAIN
    }

    /// A new offer.
    pub fn new(pin: Pin, image: Image) -> Transfer {
        let words = (pin.total as usize).div_ceil(64);
        Transfer {
            missing: AtomicU32::new(pin.total),
            pin,
            image,
            overwritten: AtomicBool::new(false),
            replaces: AtomicBool::new(false),
            begun_unheard: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            dirty: AtomicBool::new(false),
            served: (0..words).map(|_| AtomicU64::new(0)).collect(),
            status: Mutex::new(Status {
                state: UpdateState::Offered,
                downloaded: None,
                delivered_on: None,
                begun: None,
                rate: Rate::new(Instant::now(), 0),
                nudges: 0,
                sign: Instant::now(),
                announced: false,
                gap_possible: false,
                note: None,
                parts: BTreeMap::new(),
            }),
        }
    }

    /// As the database holds it; `None` where the row makes no sense.
    pub fn from_row(row: &TransferRow, image: Image, clean: bool) -> Option<Transfer> {
        let pin = Pin {
            digest: row.digest,
            sha256: row.digest.to_string(),
            size: row.size,
            chunk_size: row.chunk_size,
            total: blocks(row.size, row.chunk_size)?,
            path: row.path.clone(),
            title: row.title.clone(),
            version: row.version.clone(),
            own_version: row.own_version,
            attempt: row.attempt,
            deployment: row.deployment,
            file: row.file,
        };
        let transfer = Transfer::new(pin, image);
        for index in 0..transfer.pin.total {
            let byte = row.served.get(index as usize / 8).copied().unwrap_or(0);
            if byte & (1 << (index % 8)) != 0 {
                transfer.mark(index);
            }
        }
        let mut status = transfer.status.lock();
        status.rate = Rate::new(Instant::now(), transfer.sent());
        status.state = UpdateState::from_name(&row.state, row.reason.clone())?;
        if status.state == UpdateState::Silent && transfer.sent() < transfer.pin.total {
            status.state = UpdateState::Stalled;
        }
        transfer.stalled.store(status.state == UpdateState::Stalled, Ordering::Relaxed);
        status.downloaded = row.downloaded_at.map(|at| (instant_of(at), at));
        // Whether its manifest left is not known, so a device is given the time to go on.
        status.announced = true;
        status.gap_possible = !clean;
        status.note.clone_from(&row.note);
        drop(status);
        transfer.replaces.store(row.replaces, Ordering::Relaxed);
        transfer.dirty.store(false, Ordering::Relaxed);
        Some(transfer)
    }

    /// For the database.
    pub fn row(&self, device: &str) -> TransferRow {
        let status = self.status.lock();
        TransferRow {
            device: device.into(),
            digest: self.pin.digest,
            size: self.pin.size,
            chunk_size: self.pin.chunk_size,
            path: self.pin.path.clone(),
            title: self.pin.title.clone(),
            version: self.pin.version.clone(),
            own_version: self.pin.own_version,
            attempt: self.pin.attempt,
            state: status.state.name().into(),
            reason: status.state.reason().map(str::to_owned),
            served: self.bitmap(),
            downloaded_at: status.downloaded.map(|(_, at)| at),
            replaces: self.replaces.load(Ordering::Relaxed),
            deployment: self.pin.deployment,
            file: self.pin.file,
            note: status.note.clone(),
        }
    }

    fn bitmap(&self) -> Vec<u8> {
        let words = self.served.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
        words.take((self.pin.total as usize).div_ceil(8)).collect()
    }

    /// Marks a block as served; `true` where it was the last missing one.
    pub fn mark(&self, index: u32) -> bool {
        let Some(word) = self.served.get(index as usize / 64) else { return false };
        let bit = 1 << (index % 64);
        if word.load(Ordering::Relaxed) & bit != 0
            || word.fetch_or(bit, Ordering::Relaxed) & bit != 0
        {
            return false;
        }
        self.dirty.store(true, Ordering::Relaxed);
        self.missing.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Marks bytes as served, whatever blocks they were asked for in; `true` where the last
    /// missing ones are among them.
    pub fn mark_bytes(&self, from: u64, to: u64) -> bool {
        let unit = u64::from(self.pin.chunk_size);
        let mut done = false;
        let mut at = from;
        while at < to {
            let index = (at / unit) as u32;
            let (start, end) = (u64::from(index) * unit, (u64::from(index) + 1) * unit);
            let end = end.min(self.pin.size);
            let part = (at, to.min(end));
            let whole = part == (start, end) || self.is_served(index);
            if whole || self.add_part(index, part, (start, end)) {
                done |= self.mark(index);
            }
            at = end.max(at + 1);
        }
        done
    }

    /// Adds a part of a block; `true` where all of it is there now.
    fn add_part(&self, index: u32, part: (u64, u64), whole: (u64, u64)) -> bool {
        let mut status = self.status.lock();
        let parts = status.parts.entry(index).or_default();
        parts.push(part);
        parts.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(parts.len());
        for (from, to) in parts.drain(..) {
            match merged.last_mut().filter(|last| from <= last.1) {
                Some(last) => last.1 = last.1.max(to),
                None => merged.push((from, to)),
            }
        }
        merged.truncate(MAX_PARTS_OF_ONE);
        let done = merged == [whole];
        *parts = merged;
        if done {
            status.parts.remove(&index);
        } else if status.parts.len() > MAX_PARTS {
            status.parts.pop_first();
        }
        done
    }

    /// The first request on a connection is for bytes from here on. A device that goes on in the
    /// middle of a block, all before which were served, has the block's beginning: which part of
    /// it was served is not written down.
    pub fn goes_on_at(&self, offset: u64) -> bool {
        let unit = u64::from(self.pin.chunk_size);
        let index = (offset / unit) as u32;
        let done = self.close_gap(index);
        let start = u64::from(index) * unit;
        let within = offset > start && (0..index).all(|index| self.is_served(index));
        done | (within && self.mark_bytes(start, offset))
    }

    /// Different blocks that were served.
    pub fn sent(&self) -> u32 {
        self.pin.total - self.missing.load(Ordering::Relaxed)
    }

    /// Keeps what the device's dialect wants kept with it.
    pub fn set_note(&self, note: String) {
        self.status.lock().note = Some(note);
        self.dirty.store(true, Ordering::Relaxed);
    }

    /// As a dialect announces it; `release` is the file that it comes from.
    pub fn offer<'a>(&'a self, window: u32, release: Option<&'a Release>) -> Offer<'a> {
        let status = self.status.lock();
        let pin = &self.pin;
        Offer {
            window,
            size: pin.size,
            total: pin.total,
            chunk_size: pin.chunk_size,
            version: &pin.version,
            title: pin.title.as_deref(),
            file: pin.path.rsplit('/').next().unwrap_or_default(),
            sha256: &pin.sha256,
            signature: release.and_then(Release::signature_line),
            checksum: release.and_then(|release| release.checksum.as_ref()),
            tag: pin.tag(),
            attempt: pin.attempt,
            state: status.state.clone(),
            note: status.note.clone(),
        }
    }

    fn is_served(&self, index: u32) -> bool {
        let word = self.served.get(index as usize / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (index % 64)) != 0)
    }

    /// The first request after a crash. Up to an interval's marks are lost with it; a device
    /// whose blocks were served from the first on without a gap, and that now asks for a later
    /// one, got those between. Without this, one that does not report could never be done.
    /// `true` where nothing is missing then.
    pub fn close_gap(&self, index: u32) -> bool {
        /// More than an interval can hold; a device that is further ahead did something else.
        const LARGEST: u32 = 4096;
        if !std::mem::take(&mut self.status.lock().gap_possible) {
            return false;
        }
        let sent = self.sent();
        let prefix = (0..sent).all(|index| self.is_served(index));
        let mut done = false;
        if prefix && index > sent && index - sent <= LARGEST {
            for lost in sent..index.min(self.pin.total) {
                done |= self.mark(lost);
            }
        }
        done
    }

    /// The state now.
    pub fn state(&self) -> UpdateState {
        self.status.lock().state.clone()
    }

    /// Moves the state; `Some` of the new one where that changed it.
    pub fn happened(&self, happened: &Happened) -> Option<UpdateState> {
        let mut status = self.status.lock();
        let next = status.state.next(happened)?;
        status.state = next.clone();
        let again = *happened == Happened::OfferedAgain;
        self.stalled.store(next == UpdateState::Stalled || again, Ordering::Relaxed);
        if *happened == Happened::Requested {
            status.begun = Some(Instant::now());
        }
        if again {
            (status.nudges, status.sign) = (0, Instant::now());
        }
        self.dirty.store(true, Ordering::Relaxed);
        Some(next)
    }

    /// An operator stops it. `Some` of the new state where that changed it: one that is complete
    /// stays what it is.
    pub fn stop(&self) -> Option<UpdateState> {
        self.stopped.store(true, Ordering::Relaxed);
        self.happened(&Happened::Cancelled)
    }

    /// Whether requests are still answered with blocks.
    pub fn is_servable(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed) && self.state().is_servable()
    }

    /// The last missing block was written to this connection. `false` where it counted before.
    pub fn delivered(&self, connection: u64) -> bool {
        {
            let mut status = self.status.lock();
            if status.downloaded.is_some() {
                return false;
            }
            status.downloaded = Some((Instant::now(), unix_now()));
            status.delivered_on = Some(connection);
        }
        self.happened(&Happened::Served);
        true
    }

    /// When the last missing block was written.
    pub fn downloaded(&self) -> Option<Instant> {
        self.status.lock().downloaded.map(|(at, _)| at)
    }

    /// Firmware bytes a second, from the first request to the last block; `None` where both are
    /// not of this run.
    pub fn pace(&self) -> Option<f64> {
        let status = self.status.lock();
        let took = status.downloaded?.0.checked_duration_since(status.begun?)?;
        Some(self.pin.size as f64 / took.as_secs_f64().max(0.001))
    }

    /// Looks at how fast it is.
    pub fn look(&self, now: Instant) {
        let mut status = self.status.lock();
        if status.state.is_under_way() {
            status.rate.look(now, self.sent());
        }
    }

    /// Firmware bytes a second while it is under way; `None` before the first block.
    pub fn bytes_per_second(&self) -> Option<u64> {
        let status = self.status.lock();
        let mean = status.rate.mean().filter(|_| status.state.is_under_way())?;
        Some((mean * f64::from(self.pin.chunk_size)) as u64)
    }

    /// As if no block had been served for so long.
    #[cfg(test)]
    pub fn stand_still(&self, so_long: Duration) {
        let mut status = self.status.lock();
        let then = Instant::now().checked_sub(so_long);
        status.rate = Rate::new(then.unwrap_or_else(Instant::now), self.sent());
    }

    /// Since when no block was served to it.
    pub fn still_since(&self) -> Instant {
        self.status.lock().rate.still_since()
    }

    /// Whether this connection got the last missing block.
    pub fn was_delivered_on(&self, connection: u64) -> bool {
        self.status.lock().delivered_on == Some(connection)
    }

    /// Its manifest was written to a connection.
    pub fn announced(&self) {
        self.status.lock().announced = true;
    }

    /// Whether a device may know of it.
    pub fn may_be_known(&self) -> bool {
        self.status.lock().announced || self.sent() > 0
    }

    /// It was held back then, or asked for on a connection that has ended.
    pub fn heard(&self, at: Instant) {
        let mut status = self.status.lock();
        status.sign = status.sign.max(at);
    }

    /// When it was last offered, held back, or asked for on a connection that has ended.
    pub fn last_sign(&self) -> Instant {
        self.status.lock().sign
    }

    /// Counts a repeated manifest; `false` where three were sent already.
    pub fn nudge(&self) -> bool {
        let mut status = self.status.lock();
        status.nudges += 1;
        status.nudges <= 3
    }
}

pub use hook::clock::unix_now;

/// A stored time on this run's monotonic clock, as well as it can be told: now, where the wall
/// clock was stepped.
fn instant_of(unix: u64) -> Instant {
    let ago = Duration::from_secs(hook::clock::passed(unix, unix_now()));
    let now = Instant::now();
    now.checked_sub(ago).unwrap_or(now)
}
