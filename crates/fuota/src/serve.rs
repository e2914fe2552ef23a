//! The way of a block: request, limits, and what is asked for next. Bytes, encoding and outbox are in
//! `send`.
//!
//! In the usual case that is one uncontended lock, that of the connection itself, and one
//! allocation, that of the payload. What needs more (no offer yet, an overwritten file, a block
//! that is not in the cache) leaves this way and comes back to it.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::Instant;

use crate::{
    dialect::{BlockSize, Request, Trouble},
    engine::Engine,
    fleet::gate::UNREAD,
    link::{Admission, Lane, Link, LinkState, MANIFEST, Pending, Wanted},
    offers::{CANCELLED, Renewed, too_small},
    pin::tag_of,
    policy::Decision,
    state::Happened,
    timers::Event,
    transfer::Transfer,
};

/// The longest block, in bytes: it is one allocation and one message.
const MAX_BLOCK: usize = 4 * 1024 * 1024;
/// What one hears who asks for an image that it is not being given.
const OTHER_IMAGE: &str = "this image is not offered to this device, or no longer";

/// What is to be done once the connection is unlocked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    /// The device asked for far more than the image.
    EndLoop,
    /// The last missing block turned out to be served.
    Complete,
}

impl Engine {
    /// One request of a device.
    pub fn request(self: &Arc<Self>, link: &Arc<Link>, request: Request) {
        let mut state = link.state.lock();
        state.asked = true;
        let index = match request.index {
            Ok(index) => index,
            Err(problem) => {
                self.send_error(link, &mut state, &Trouble::Asked(problem), &request.echo);
                drop(state);
                drop(self.device_of(link));
                return;
            }
        };
        let Request { more, size, image, trims, echo, .. } = request;
        let wanted = Wanted { index, more, size, image, trims, echo, since: Instant::now() };
        match state.lane.clone() {
            Some(lane) if state.is_served_from(&lane.transfer) => {
                let then = self.serve(link, &mut state, &lane, wanted);
                drop(state);
                self.then(link, &lane, then);
            }
            _ => {
                drop(state);
                self.find_and_serve(link, wanted);
            }
        }
    }

    /// A request on a connection that is not being served, or whose image was overwritten, and the
    /// first on each: whether it may begin is decided here.
    pub fn find_and_serve(self: &Arc<Self>, link: &Arc<Link>, wanted: Wanted) {
        let Some(device) = self.device_of(link) else { return };
        let mut state = device.state.lock();
        {
            let mut on_link = link.state.lock();
            if on_link.waiting || state.pinning.is_some() {
                // Of an overwritten image nothing more is sent: the manifest that is on its way
                // is the answer. Before a first offer the requests wait for it, and so do those
                // on another connection of the device, since the first may be gone by then.
                if on_link.lane.is_none() || !on_link.waiting {
                    on_link.keep(Pending::Blocks(wanted));
                }
                return;
            }
        }
        drop(self.running(&device, &mut state));
        let current = state.transfer.clone().filter(|transfer| transfer.is_servable());
        if let Some(transfer) = current {
            if self.must_renew(link, &transfer) {
                match self.renew(&device, state, link, &transfer, true) {
                    Renewed::Same => self.find_and_serve(link, wanted),
                    Renewed::Impossible => {
                        let trouble = Trouble::TooLarge(too_small(link));
                        self.send_error(link, &mut link.state.lock(), &trouble, &wanted.echo);
                    }
                    // The manifest is the answer.
                    Renewed::Offered => {}
                }
                return;
            }
            if let Some(reason) = self.may_not_begin(&transfer) {
                let mut on_link = link.state.lock();
                // It hears of it when it may begin.
                on_link.asked = false;
                on_link.announced.retain(|digest| *digest != transfer.pin.digest);
                let trouble = Trouble::Unavailable(format!("not now: {reason}"));
                return self.send_error(link, &mut on_link, &trouble, &wanted.echo);
            }
            if let Some(deployment) = transfer.pin.deployment.filter(|_| device.stored) {
                self.goes_on(&device, &state, deployment);
            }
            drop(state);
            self.enter(link, &mut link.state.lock(), &device, &transfer);
            self.cap_link(link, &device);
            let mut on_link = link.state.lock();
            let Some(lane) = on_link.lane.clone() else { return };
            let then = self.serve(link, &mut on_link, &lane, wanted);
            drop(on_link);
            return self.then(link, &lane, then);
        }
        let decision = self.decide(&device, &state);
        if !self.is_ready() && !matches!(decision, Decision::Run(_)) {
            let mut on_link = link.state.lock();
            let trouble = Trouble::Unavailable(UNREAD.into());
            return self.send_error(link, &mut on_link, &trouble, &wanted.echo);
        }
        match decision {
            Decision::Run(release) => {
                let mut on_link = link.state.lock();
                if wanted.image.is_some_and(|tag| tag != tag_of(&release.digest)) {
                    let trouble = Trouble::Nothing(OTHER_IMAGE.into());
                    return self.send_error(link, &mut on_link, &trouble, &wanted.echo);
                }
                if on_link.announced.contains(&release.digest) {
                    let failed = state.transfer.as_ref().map(|transfer| transfer.state());
                    let reason =
                        failed.as_ref().and_then(|state| state.reason()).unwrap_or("it ended");
                    let text = format!(
                        "this update failed on this connection: {reason}; connect again for the next attempt"
                    );
                    let trouble = Trouble::Nothing(text);
                    return self.send_error(link, &mut on_link, &trouble, &wanted.echo);
                }
                // A device with a downlink hears what it will get; without one it knows already.
                let announce = on_link.downlink.is_some();
                on_link.keep(Pending::Blocks(wanted));
                drop(on_link);
                self.offer(&device, state, link, &release, announce);
            }
            Decision::Nothing(why) => {
                let stopped = state
                    .transfer
                    .as_ref()
                    .is_some_and(|transfer| transfer.stopped.load(Ordering::Relaxed));
                let text = if stopped { CANCELLED.into() } else { format!("no firmware: {why}") };
                state.why = Some(why);
                drop(state);
                let mut on_link = link.state.lock();
                self.send_error(link, &mut on_link, &Trouble::Nothing(text), &wanted.echo);
            }
        }
    }

    /// Answers a request: for one block at once, for many as the window has room.
    fn serve(
        self: &Arc<Self>,
        link: &Arc<Link>,
        state: &mut LinkState,
        lane: &Arc<Lane>,
        wanted: Wanted,
    ) -> Then {
        let pin = &lane.transfer.pin;
        if lane.transfer.stopped.load(Ordering::Relaxed) {
            // It was stopped just now, while the connection came to it.
            self.send_error(link, state, &Trouble::Nothing(CANCELLED.into()), &wanted.echo);
            return Then::Nothing;
        }
        if wanted.image.is_some_and(|tag| tag != pin.tag()) {
            let trouble = Trouble::Nothing(OTHER_IMAGE.into());
            self.send_error(link, state, &trouble, &wanted.echo);
            return Then::Nothing;
        }
        if wanted.image.is_none() {
            // Where the manifest may be lost, with the connection that it went to or in a full
            // outbox, it is the answer (rule 15).
            if !state.takes(&lane.transfer) {
                let first = state.begins_unheard(&wanted);
                if !(first && lane.transfer.is_believed_by_now()) {
                    self.send_manifest(link, state, &lane.transfer);
                    return Then::Nothing;
                }
                lane.transfer.replaces.store(false, Ordering::Relaxed);
                lane.transfer.dirty.store(true, Ordering::Relaxed);
            }
            state.at = Some(pin.layout());
            if state.begins_with(&wanted) && lane.transfer.replaces.swap(false, Ordering::Relaxed) {
                lane.transfer.dirty.store(true, Ordering::Relaxed);
            }
        }
        if wanted.more.is_empty() {
            return self.serve_one(link, state, lane, wanted);
        }
        let (echo, total) = (wanted.echo.clone(), pin.total_in(wanted.size));
        if !state.window.queue(wanted.within(total)) {
            let text =
                "too many blocks are asked for already: wait for them before asking for more";
            self.send_error(link, state, &Trouble::TooMuch(text.into()), &echo);
            return Then::Nothing;
        }
        self.serve_queued(link, state, lane)
    }

    /// Answers what requests for many blocks named, as far as the window has room.
    fn serve_queued(
        self: &Arc<Self>,
        link: &Arc<Link>,
        state: &mut LinkState,
        lane: &Arc<Lane>,
    ) -> Then {
        let mut then = Then::Nothing;
        while let Some(wanted) = state.window.next_queued(self.settings().max_window) {
            let (index, size) = (wanted.index, wanted.size);
            match self.serve_one(link, state, lane, wanted) {
                Then::Nothing => {}
                other => then = other,
            }
            // Past the end, one error is enough for all that lies there.
            if index >= lane.transfer.pin.total_in(size) || then == Then::EndLoop {
                state.window.backlog.clear();
            }
        }
        then
    }

    /// Checks one block of a request against its image and the limits, and answers it.
    fn serve_one(
        self: &Arc<Self>,
        link: &Arc<Link>,
        state: &mut LinkState,
        lane: &Arc<Lane>,
        wanted: Wanted,
    ) -> Then {
        let pin = &lane.transfer.pin;
        let (index, size) = (wanted.index, wanted.size);
        let Some((offset, length)) = pin.range(index, size) else {
            let trouble = Trouble::PastEnd { index, total: pin.total_in(size) };
            self.send_error(link, state, &trouble, &wanted.echo);
            return Then::Nothing;
        };
        if length > MAX_BLOCK {
            let text = format!("a block may have {MAX_BLOCK} bytes at most: ask for smaller ones");
            self.send_error(link, state, &Trouble::TooLarge(text), &wanted.echo);
            return Then::Nothing;
        }
        if state.window.paced.iter().any(|paced| paced.asks_the_same(&wanted)) {
            // The answer to the same waits for its turn.
            return Then::Nothing;
        }
        let now = Instant::now();
        let first = state.window.last_request.is_none();
        let max_window = self.settings().max_window;
        match state.window.admit(index, size, length, pin.size, max_window, now) {
            Admission::Answer => {}
            Admission::Later(at) => {
                let event = Event::Deferred(Arc::downgrade(link), Arc::downgrade(lane), wanted);
                self.timers.at(at, event);
                return Then::Nothing;
            }
            Admission::Merged | Admission::StillFull => return Then::Nothing,
            Admission::Full => {
                let text = format!(
                    "{max_window} blocks are in flight already: wait for them before asking for more"
                );
                self.send_error(link, state, &Trouble::TooMuch(text), &wanted.echo);
                return Then::Nothing;
            }
            Admission::Loop => {
                let text = "loop: this connection asked for more than three times the image";
                self.send_error(link, state, &Trouble::TooMuch(text.into()), &wanted.echo);
                return Then::EndLoop;
            }
        }
        let mut then = Then::Nothing;
        let stalled = lane.transfer.stalled.load(Ordering::Relaxed);
        if first || stalled {
            if lane.transfer.happened(&Happened::Requested).is_some() {
                tracing::info!(device = %lane.device.id, version = %pin.version, "download begins");
                self.begun(&lane.device, &lane.transfer);
                if stalled {
                    // It was given up, and is under way again.
                    self.timers.at(now, Event::Consider(Arc::downgrade(&lane.device)));
                }
            }
            if lane.transfer.goes_on_at(offset) {
                then = Then::Complete;
            }
            self.watch_asking(link, state);
        }
        self.in_turn(link, state, lane, wanted);
        then
    }

    /// A block that was asked for too often may be answered again.
    pub fn serve_deferred(self: &Arc<Self>, link: &Arc<Link>, lane: &Arc<Lane>, wanted: Wanted) {
        let mut state = link.state.lock();
        let here = state.lane.as_ref().is_some_and(|now| Arc::ptr_eq(now, lane));
        let Some((_, length)) =
            lane.transfer.pin.range(wanted.index, wanted.size).filter(|_| here && !state.closed)
        else {
            return;
        };
        // It waited on purpose, which is no latency.
        let wanted = Wanted { since: Instant::now(), ..wanted };
        state.window.admit_deferred(wanted.index, length, wanted.since);
        self.in_turn(link, &mut state, lane, wanted);
    }

    /// The receipt of a block or a manifest.
    pub fn written(self: &Arc<Self>, link: &Arc<Link>, lane: &Lane, size: BlockSize, tag: u32) {
        let transfer = &lane.transfer;
        let complete = match size {
            BlockSize::Pinned if tag == MANIFEST => return transfer.announced(),
            BlockSize::Pinned => transfer.mark(tag),
            _ => transfer.pin.range(tag, size).is_some_and(|(offset, length)| {
                transfer.mark_bytes(offset, offset + length as u64)
            }),
        };
        let (mut then, mut outdated) = (Then::Nothing, None);
        {
            let mut state = link.state.lock();
            let now = state.lane.clone().filter(|now| Arc::ptr_eq(&now.transfer, &lane.transfer));
            if let Some(now) = now {
                state.window.close_one();
                self.send_due(link, &mut state);
                if !now.transfer.overwritten.load(Ordering::Relaxed) {
                    then = self.serve_queued(link, &mut state, &now);
                } else {
                    // To one that asked for many, the next of those is its next request.
                    outdated = state.window.next_queued(u32::MAX);
                }
            } else if state.lane.is_none() && !transfer.is_servable() {
                // It was stopped amid them: the answer to all is one error.
                outdated = state.window.abandon();
            }
        }
        self.then(link, lane, then);
        if let Some(wanted) = outdated {
            self.find_and_serve(link, wanted);
            self.serve_rest(link, transfer);
        }
        if complete {
            self.completed(&lane.device, &lane.transfer, link.client.connection);
        }
    }

    /// The other blocks of a request for many, where the next of them was served after all.
    fn serve_rest(self: &Arc<Self>, link: &Arc<Link>, transfer: &Arc<Transfer>) {
        let mut state = link.state.lock();
        let lane = state.lane.clone().filter(|lane| Arc::ptr_eq(&lane.transfer, transfer));
        if let Some(lane) = lane.filter(|lane| state.is_served_from(&lane.transfer)) {
            let then = self.serve_queued(link, &mut state, &lane);
            drop(state);
            self.then(link, &lane, then);
        }
    }

    fn then(self: &Arc<Self>, link: &Arc<Link>, lane: &Lane, then: Then) {
        match then {
            Then::Nothing => {}
            Then::Complete => self.completed(&lane.device, &lane.transfer, link.client.connection),
            Then::EndLoop => {
                {
                    // Not again on this connection.
                    let mut state = link.state.lock();
                    state.lane = None;
                    state.announced.push(lane.transfer.pin.digest);
                }
                self.move_state(&lane.device, &lane.transfer, &Happened::WentWrong("loop".into()));
            }
        }
    }
}
