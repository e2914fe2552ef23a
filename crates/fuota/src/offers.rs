//! What is offered to whom, and after what (rules 12 to 16).
//!
//! An offer is decided in memory, written to the database, and announced by the callback of
//! that commit. Locks: a device's state, then a link's; never a device's under a link's.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::MutexGuard;
use tokio::time::Instant;

use crate::{
    backoff::{self, Wait},
    catalog::Release,
    db::{DbError, Op},
    device::{Device, DeviceState},
    dialect::Trouble,
    engine::Engine,
    fleet::starts::Cap,
    link::{Lane, Link, LinkState, Pending},
    pin::Pin,
    policy::{Decision, History},
    state::UpdateState,
    transfer::{Transfer, unix_now},
};

/// After what an offer that could not be written or sent is tried again.
pub const RETRY: Duration = Duration::from_secs(2);
/// What a device hears whose update an operator stopped.
pub const CANCELLED: &str = "this update was cancelled by an operator";
/// What became of a transfer that could not go on as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// Another manifest is on its way; nothing more is sent of the old image.
    Offered,
    /// It goes on after all.
    Same,
    /// No block fits the connection.
    Impossible,
}

impl Engine {
    /// Offers a connected device what it should run, if it should run anything else than what
    /// it is being given. Called whenever something changed that may matter.
    pub fn consider(self: &Arc<Self>, device: &Arc<Device>) {
        if !self.may_offer() {
            return;
        }
        let mut state = device.state.lock();
        if state.gone || state.pinning.is_some() {
            return;
        }
        let Some((link, _)) = state.newest_downlink() else { return };
        if self.may_ask(device, &link) {
            return;
        }
        if let Some(transfer) = self.running(device, &mut state) {
            if !transfer.pin.file.is_some_and(|file| self.may_offer_file(file)) && !self.is_ready()
            {
                return;
            }
            let outbid = self.is_outbid(device, &state, &transfer);
            if outbid {
                transfer.outdate();
            } else if let Some(reason) = self.held_back(&transfer) {
                state.why = Some(reason);
                return;
            }
            let under_way = transfer.state().is_under_way() && device.stored;
            if let Some(deployment) = transfer.pin.deployment.filter(|_| under_way) {
                self.goes_on(device, &state, deployment);
            }
            let stalled = transfer.state() == UpdateState::Stalled;
            if outbid && stalled && link.state.lock().is_quiet(&transfer) {
                // Nothing would ever come that the newer one could be the answer to.
                self.renew(device, state, &link, &transfer, true);
                return;
            }
            drop(state);
            self.watch_outcome(device);
            return self.resume(&link, &transfer);
        }
        let (decision, held) = self.decide_now(device, &state);
        match decision {
            Decision::Run(release) if link.state.lock().announced.contains(&release.digest) => {
                state.why = Some("it was offered this on its present connection; it is offered it again on the next".into());
            }
            Decision::Run(release) => {
                if let Some(wait) = self.jitter(device, &mut state, &release) {
                    state.why = Some(format!(
                        "not all begin at one moment (fuota.limits.jitter): its turn is in {} s",
                        wait.as_secs() + 1
                    ));
                    return;
                }
                self.offer(device, state, &link, &release, true);
            }
            Decision::Nothing(why) => {
                state.why = Some(why);
                if let Some(until) = held.until {
                    self.consider_at(device, &mut state, until);
                }
                if let Some(cap) = held.cap {
                    self.wait_for(cap, device);
                }
            }
        }
    }

    /// One timer per device: it is considered then, or earlier.
    fn consider_at(&self, device: &Arc<Device>, state: &mut DeviceState, until: Instant) {
        let now = Instant::now();
        if state.again_at.is_none_or(|set| set <= now || until < set) {
            state.again_at = Some(until);
            self.timers.at(until, crate::timers::Event::Consider(Arc::downgrade(device)));
        }
    }

    /// The next attempt at an image that failed is left for later, where there is to be one: the
    /// row that says so.
    pub fn put_off(&self, device: &Device, state: &mut DeviceState, pin: &Pin) -> Op {
        let settings = self.settings();
        let history = state.history.entry(pin.digest).or_default();
        let mismatch = history.differs && history.deliveries >= 2;
        let again = pin.attempt < settings.max_attempts && !mismatch;
        let length = backoff::length(pin.attempt, settings.retry_after, &device.id, &pin.digest);
        history.wait =
            (again && !length.is_zero()).then(|| Wait::new(length, unix_now(), Instant::now()));
        Op::History(device.history_row(pin.digest, *history))
    }

    /// Whether a device may still ask by itself, which it does when it connects: it would begin
    /// twice if it heard of an image both ways. It is considered again when that time is over.
    fn may_ask(&self, device: &Arc<Device>, link: &Link) -> bool {
        let until = link.since + self.settings().resume_grace;
        let mut state = link.state.lock();
        let asks = link.dialect().is_some_and(|dialect| dialect.asks());
        if !asks || state.questioned || state.asked || Instant::now() >= until {
            return false;
        }
        if !std::mem::replace(&mut state.wait_set, true) {
            self.timers.at(until, crate::timers::Event::Consider(Arc::downgrade(device)));
        }
        true
    }

    /// Whether requests on this connection cannot be answered from this pin: the file holds
    /// other bytes now (rule 15), or its blocks do not fit this connection (rule 18).
    pub fn must_renew(&self, link: &Link, transfer: &Transfer) -> bool {
        if transfer.overwritten.load(Ordering::Relaxed) && transfer.state().is_running() {
            return true;
        }
        let pin = &transfer.pin;
        self.chunk_size(link, pin.chunk_size, pin.size) != Some(pin.chunk_size)
    }

    /// Bytes of a block to this connection: at most `wanted`, for an image of this size.
    fn chunk_size(&self, link: &Link, wanted: u32, image: u64) -> Option<u32> {
        link.dialect()?.chunk_size(wanted, image, &self.framing(link))
    }

    /// Puts a new offer in the place of one that [`must_renew`](Engine::must_renew): of the new
    /// bytes where they are for this device, else of the same with a chunk that fits.
    pub fn renew(
        self: &Arc<Self>,
        device: &Arc<Device>,
        mut state: MutexGuard<'_, DeviceState>,
        link: &Arc<Link>,
        transfer: &Arc<Transfer>,
        announce: bool,
    ) -> Renewed {
        if transfer.overwritten.load(Ordering::Relaxed)
            && let Decision::Run(release) = self.decide(device, &state)
            && release.digest != transfer.pin.digest
        {
            let offered = self.offer(device, state, link, &release, announce);
            return if offered { Renewed::Offered } else { Renewed::Impossible };
        }
        // The new bytes are not for this device: it finishes what it began.
        transfer.overwritten.store(false, Ordering::Relaxed);
        let pin = &transfer.pin;
        match self.chunk_size(link, pin.chunk_size, pin.size) {
            Some(chunk_size) if chunk_size == pin.chunk_size => {
                drop(state);
                self.enter(link, &mut link.state.lock(), device, transfer);
                self.cap_link(link, device);
                Renewed::Same
            }
            Some(chunk_size) => {
                let total = pin.size.div_ceil(u64::from(chunk_size)) as u32;
                let pin = Pin { chunk_size, total, ..pin.clone() };
                self.pin(device, state, link, pin, announce);
                Renewed::Offered
            }
            None => {
                state.why = Some(too_small(link));
                Renewed::Impossible
            }
        }
    }

    /// Begins a new offer. `announce`: its manifest goes out on `link`, else only the requests
    /// that wait there are answered. `false` where the connection's limit is too small.
    pub fn offer(
        self: &Arc<Self>,
        device: &Arc<Device>,
        mut state: MutexGuard<'_, DeviceState>,
        link: &Arc<Link>,
        release: &Release,
        announce: bool,
    ) -> bool {
        let counts = self.counts(device, &state);
        let own = match self.enter_fleet(device, &state, release, counts) {
            Ok(own) => own,
            Err(None) => return false,
            Err(Some((reason, cap))) => {
                state.why = Some(reason.clone());
                drop(state);
                self.fail_pending(link, Trouble::Nothing(format!("no firmware: {reason}")));
                if let Some(cap) = cap {
                    self.wait_for(cap, device);
                }
                return false;
            }
        };
        state.turn = None;
        let history = own.or_else(|| state.history.get(&release.digest).copied());
        let attempt = history.map_or(0, |history| history.offers) + 1;
        let chunk_size = self.chunk_size(link, self.settings().chunk_size, release.size);
        let Some(pin) = chunk_size.and_then(|chunk_size| Pin::new(release, chunk_size, attempt))
        else {
            state.why = Some(too_small(link));
            drop(state);
            self.release_places(device);
            self.fail_pending(link, Trouble::TooLarge(too_small(link)));
            return false;
        };
        self.pin(device, state, link, pin, announce);
        true
    }

    /// Takes a device's place in its wave and among the transfers under way, which may be gone
    /// since it was decided. Gives what counts instead of all that it experienced with the image.
    ///
    /// # Errors
    /// Why it has none, and the cap that it waits for; `None`: the deployment is gone.
    fn enter_fleet(
        &self,
        device: &Device,
        state: &DeviceState,
        release: &Release,
        counts: bool,
    ) -> Result<Option<History>, Option<(String, Option<Cap>)>> {
        let settings = self.settings();
        let fleet = &mut *self.fleet.lock();
        let deployment = fleet.deployments.get_mut(&release.deployment).ok_or(None)?;
        if !device.stored {
            // Of a session without identity nothing is noted.
            return match deployment.admits(&device.id, counts) {
                Ok(()) => Ok(None),
                Err(reason) => Err(Some((reason, None))),
            };
        }
        deployment.admit(&device.id, counts).map_err(|reason| Some((reason, None)))?;
        let now = Instant::now();
        if let Some((cap, reason)) =
            fleet.starts.blocked(&settings, deployment, &device.id, &state.groups, now)
        {
            return Err(Some((reason, Some(cap))));
        }
        fleet.starts.begin(&settings, deployment, &device.id, &state.groups, now);
        let member = deployment.members.get(&device.id).filter(|_| deployment.downgrade);
        Ok(member.map(|member| member.history))
    }

    /// Writes the pin; what follows, follows its commit (rule 14).
    fn pin(
        self: &Arc<Self>,
        device: &Arc<Device>,
        mut state: MutexGuard<'_, DeviceState>,
        link: &Arc<Link>,
        pin: Pin,
        announce: bool,
    ) {
        let image = self.store.image(pin.digest, pin.size);
        let transfer = Arc::new(Transfer::new(pin, image));
        // Only one that runs the image before holds no part of it for sure: the last blocks of a
        // complete one may be lost as well.
        let replaces = state.transfer.as_ref().is_some_and(|old| {
            let other = old.pin.layout() != transfer.pin.layout();
            old.state() != UpdateState::Updated && (other || old.replaces.load(Ordering::Relaxed))
        });
        transfer.replaces.store(replaces, Ordering::Relaxed);
        state.pinning = Some(Arc::clone(&transfer));
        link.state.lock().waiting = true;
        if !device.stored {
            drop(state);
            return self.pinned(device, link, &transfer, announce, Ok(()));
        }
        let pin = &transfer.pin;
        let mut history = state.history.get(&pin.digest).copied().unwrap_or_default();
        (history.offers, history.wait) = (pin.attempt, None);
        let mut ops = vec![
            Op::Device(device.row(&state)),
            Op::Transfer(transfer.row(&device.id)),
            Op::History(device.history_row(pin.digest, history)),
            Engine::happening(
                &device.id,
                "offered",
                Some(format!("{} {}", pin.path, pin.sha256)),
                pin.deployment,
            ),
        ];
        let before = state.transfer.clone();
        ops.extend(self.offering(device, pin, state.confirmed, before.as_deref()));
        let (engine, device2, link2, transfer2) =
            (Arc::clone(self), Arc::clone(device), Arc::clone(link), Arc::clone(&transfer));
        let done = move |result| engine.pinned(&device2, &link2, &transfer2, announce, result);
        // Queued before anybody else can change the device: the last row of it is the newest.
        let queued = self.db.submit(ops, Some(Box::new(done)));
        drop(state);
        if let Err(error) = queued {
            self.pinned(device, link, &transfer, announce, Err(error));
        }
    }

    /// The pin is in the database, or could not be written.
    fn pinned(
        self: &Arc<Self>,
        device: &Arc<Device>,
        link: &Arc<Link>,
        transfer: &Arc<Transfer>,
        announce: bool,
        result: Result<(), DbError>,
    ) {
        let pin = &transfer.pin;
        let mut state = device.state.lock();
        state.pinning = None;
        if let Err(error) = result {
            // The database says why, once for all that it could not write.
            tracing::debug!(device = %device.id, %error, "an offer was not written; it is tried again");
            state.why = Some(format!("the offer was not written: {error}"));
            self.offering_failed(device, pin);
            // Also what the deployment before was to forget.
            device.unwritten.store(true, Ordering::Relaxed);
            let links = state.links.clone();
            drop(state);
            for waiting in links.iter().filter(|other| !Arc::ptr_eq(other, link)).chain([link]) {
                let text = "the server could not write the offer down; try again";
                self.fail_pending(waiting, Trouble::Unavailable(text.into()));
            }
            let at = Instant::now() + RETRY;
            return self.timers.at(at, crate::timers::Event::Consider(Arc::downgrade(device)));
        }
        let history = state.history.entry(pin.digest).or_default();
        (history.offers, history.wait) = (pin.attempt, None);
        state.transfer = Some(Arc::clone(transfer));
        state.why = None;
        if device.stored {
            self.tell_device(device, transfer);
        }
        // It may have been cancelled, or held back, while its pin was written, or the device may
        // have become another.
        if self.cancelled_meanwhile(device, &mut state, transfer) {
            drop(state);
            return self.ended_unannounced(device, link, CANCELLED.into());
        }
        if self.running(device, &mut state).is_none() {
            let why = state.why.clone().unwrap_or_default();
            drop(state);
            return self.ended_unannounced(device, link, format!("no firmware: {why}"));
        }
        let announce = announce && self.held_back(transfer).is_none();
        state.why = self.held_back(transfer);
        drop(state);
        self.watch_outcome(device);
        tracing::info!(
            device = %device.id, path = %pin.path, version = %pin.version, digest = %pin.sha256,
            chunk_size = pin.chunk_size, chunks = pin.total, attempt = pin.attempt, "offered"
        );
        // It may have been overwritten while its pin was written.
        let overwritten = self.catalog.load().was_overwritten(&pin.path, &pin.digest);
        transfer.overwritten.store(overwritten, Ordering::Relaxed);

        let mut state = link.state.lock();
        state.waiting = false;
        if state.closed {
            drop(state);
            self.answer_kept(device);
            return self.consider(device);
        }
        self.enter(link, &mut state, device, transfer);
        drop(state);
        self.cap_link(link, device);
        let mut state = link.state.lock();
        if announce {
            self.send_manifest(link, &mut state, transfer);
            // To who may go on with another image, that is the answer: what the requests name
            // are blocks of that one.
            if transfer.replaces.load(Ordering::Relaxed) {
                state.pending.retain(|pending| !pending.is_for_any_image());
            }
        }
        drop(state);
        self.answer_kept(device);
    }

    /// An offer ended while it was written, and nobody heard of it. What waited for it is answered,
    /// and there may be something else.
    fn ended_unannounced(self: &Arc<Self>, device: &Arc<Device>, link: &Arc<Link>, why: String) {
        self.fail_pending(link, Trouble::Nothing(why));
        self.answer_kept(device);
        self.consider(device);
    }

    /// Answers what was asked on the device's connections while its offer was written.
    fn answer_kept(self: &Arc<Self>, device: &Arc<Device>) {
        let links = device.state.lock().links.clone();
        for link in links {
            let mut state = link.state.lock();
            let pending = std::mem::take(&mut state.pending);
            let told = state.announced.len();
            drop(state);
            for pending in pending {
                match pending {
                    Pending::Blocks(wanted) => self.find_and_serve(&link, wanted),
                    Pending::Question(question) => {
                        self.ask(&link, question);
                        continue;
                    }
                }
                // A manifest is the answer to all of them.
                if link.state.lock().announced.len() > told {
                    break;
                }
            }
        }
    }

    /// Serves this connection from this transfer from now on.
    pub fn enter(
        self: &Arc<Self>,
        link: &Arc<Link>,
        state: &mut LinkState,
        device: &Arc<Device>,
        transfer: &Arc<Transfer>,
    ) {
        state.switch(Arc::new(Lane {
            transfer: Arc::clone(transfer),
            device: Arc::clone(device),
            link: Arc::downgrade(link),
            engine: Arc::downgrade(self),
        }));
    }

    /// The file that a transfer comes from, as far as it is still known.
    pub fn release_of(&self, transfer: &Transfer) -> Option<Arc<Release>> {
        let catalog = self.catalog.load();
        let release = catalog.file(transfer.pin.file?)?;
        (release.digest == transfer.pin.digest).then(|| Arc::clone(release))
    }

    /// What waited for an offer gets none: one error for the requests, and an answer for each
    /// question.
    pub fn fail_pending(self: &Arc<Self>, link: &Arc<Link>, trouble: Trouble) {
        let mut state = link.state.lock();
        state.waiting = false;
        let mut told = false;
        let mut questions = Vec::new();
        for pending in std::mem::take(&mut state.pending) {
            match pending {
                Pending::Blocks(wanted) if !std::mem::replace(&mut told, true) => {
                    self.send_error(link, &mut state, &trouble, &wanted.echo);
                }
                Pending::Blocks(_) => {}
                Pending::Question(question) => questions.push(question),
            }
        }
        drop(state);
        for question in questions {
            self.answer_question(link, &question, None);
        }
    }
}

pub fn too_small(link: &Link) -> String {
    format!("no block fits its limit of {} bytes a message", link.client.maximum_packet_size)
}
