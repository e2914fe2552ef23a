//! Manifests that go out, once more and again: on a new connection, to a device that stopped
//! asking, when the outbox had no room (rule 16).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hook::{Class, Qos, Refused};
use tokio::time::Instant;

use crate::{
    dialect::Framing,
    engine::{Counters, Engine},
    link::{Link, LinkState, MANIFEST},
    offers::{RETRY, Renewed},
    state::Happened,
    transfer::Transfer,
};

/// A device that stopped asking gets its manifest again after this many of its own gaps.
const GAPS: u32 = 10;

impl Engine {
    /// The unfinished transfer of a device on a new connection: the manifest wipes what a
    /// reference device has, so it may first ask by itself.
    pub fn resume(self: &Arc<Self>, link: &Arc<Link>, transfer: &Arc<Transfer>) {
        let mut state = link.state.lock();
        if state.asked || state.waiting || state.announced.contains(&transfer.pin.digest) {
            return;
        }
        if !transfer.may_be_known() {
            drop(state);
            return self.grace_over(link);
        }
        if !std::mem::replace(&mut state.grace_set, true) {
            let at = Instant::now() + self.settings().resume_grace;
            self.timers.at(at, crate::timers::Event::Grace(Arc::downgrade(link)));
        }
    }

    /// Nothing was asked for in time: the manifest goes out (again).
    pub fn grace_over(self: &Arc<Self>, link: &Arc<Link>) {
        let device = {
            let mut state = link.state.lock();
            state.grace_set = false;
            if state.closed || state.asked || state.waiting || state.downlink.is_none() {
                return;
            }
            state.device.clone()
        };
        let Some(device) = device else { return };
        let mut state = device.state.lock();
        if state.pinning.is_some() {
            return;
        }
        let Some(transfer) = self.running(&device, &mut state) else { return };
        if !self.must_renew(link, &transfer) {
            drop(state);
        } else if self.renew(&device, state, link, &transfer, true) != Renewed::Same {
            return;
        }
        if self.held_back(&transfer).is_some() {
            return;
        }
        let mut state = link.state.lock();
        if !state.announced.contains(&transfer.pin.digest) {
            self.enter(link, &mut state, &device, &transfer);
            drop(state);
            self.cap_link(link, &device);
            let mut state = link.state.lock();
            self.send_manifest(link, &mut state, &transfer);
        }
    }

    /// Sends the manifest of the transfer that the connection is in.
    pub fn send_manifest(
        self: &Arc<Self>,
        link: &Arc<Link>,
        state: &mut LinkState,
        transfer: &Arc<Transfer>,
    ) {
        let Some(lane) = state.lane.clone() else { return };
        let framing = self.framing(link);
        let release = self.release_of(transfer);
        let offer = transfer.offer(self.settings().max_window, release.as_deref());
        let Some(said) = state.talk.as_mut().map(|talk| talk.manifest(&offer, &framing)) else {
            return;
        };
        // Among the blocks, so that none of the image before is written after it.
        let sent = self.say(link, state, said, Class::Block, Some((lane, MANIFEST)));
        match sent {
            Ok(()) => {
                state.heard_of(&transfer.pin);
                let beside = state.talk.as_mut().and_then(|talk| talk.beside(&offer));
                self.say_all(link, state, Vec::from_iter(beside));
                state.spoken = Instant::now();
                Counters::add(&self.counters.manifests, 1);
                self.watch_asking(link, state);
            }
            Err(Refused::Full) => {
                let at = Instant::now() + RETRY;
                self.timers.at(at, crate::timers::Event::Announce(Arc::downgrade(link)));
            }
            Err(Refused::TooLarge) => {
                tracing::warn!(client = %link.client.id, limit = framing.limit, "no manifest fits the client's Maximum Packet Size");
            }
            Err(Refused::Closed) => {}
        }
    }

    /// The outbox was full when a manifest or a block was due.
    pub fn announce_again(self: &Arc<Self>, link: &Arc<Link>) {
        let mut state = link.state.lock();
        if state.window.retries {
            state.window.retries = false;
            self.send_due(link, &mut state);
        }
        let Some(transfer) = state.lane.as_ref().map(|lane| Arc::clone(&lane.transfer)) else {
            return;
        };
        let silent = !state.asked && !state.announced.contains(&transfer.pin.digest);
        if silent || !state.takes(&transfer) {
            self.send_manifest(link, &mut state, &transfer);
        }
    }

    /// Sets the timer that notices a device which stopped asking.
    pub fn watch_asking(&self, link: &Arc<Link>, state: &mut LinkState) {
        if !std::mem::replace(&mut state.nudge_set, true) {
            let at = Instant::now() + self.patience(state);
            self.timers.at(at, crate::timers::Event::Nudge(Arc::downgrade(link)));
        }
    }

    fn patience(&self, state: &LinkState) -> Duration {
        self.settings().nudge_after.max(state.window.median_gap() * GAPS)
    }

    /// Has the device stopped asking? Then its manifest goes out again, three times at most. Where
    /// that was in vain, nobody waits for it any more; it may go on all the same. A device without
    /// a downlink is given as long.
    pub fn nudge_due(self: &Arc<Self>, link: &Arc<Link>) {
        let mut state = link.state.lock();
        state.nudge_set = false;
        let Some(lane) = state.lane.clone() else { return };
        let transfer = &lane.transfer;
        if state.closed || !transfer.state().is_under_way() {
            return;
        }
        let last = state.window.last_request.map_or(state.spoken, |last| last.max(state.spoken));
        let unanswered = state.window.open > 0 || state.waiting || !state.pending.is_empty();
        if unanswered || last + self.patience(&state) > Instant::now() {
            let at = if unanswered { Instant::now() } else { last } + self.patience(&state);
            state.nudge_set = true;
            return self.timers.at(at, crate::timers::Event::Nudge(Arc::downgrade(link)));
        }
        let outdated = transfer.overwritten.load(Ordering::Relaxed);
        if !outdated && self.held_back(transfer).is_some() {
            // Others may begin meanwhile.
            if self.fleet.lock().starts.end(&lane.device.id) {
                self.rollouts.notify_one();
            }
            return self.watch_asking(link, &mut state);
        }
        if !outdated && !transfer.nudge() {
            drop(state);
            tracing::info!(client = %link.client.id, version = %transfer.pin.version, sent = transfer.sent(), "it asks no more");
            self.move_state(&lane.device, transfer, &Happened::StoppedAsking);
            // There may be something else for it.
            return self.consider(&lane.device);
        }
        self.watch_asking(link, &mut state);
        if state.downlink.is_none() {
            return;
        }
        tracing::info!(client = %link.client.id, version = %transfer.pin.version, sent = transfer.sent(), "it stopped asking; its manifest goes out again");
        if !self.must_renew(link, transfer) {
            return self.send_manifest(link, &mut state, transfer);
        }
        drop(state);
        let state = lane.device.state.lock();
        if state.pinning.is_none()
            && self.renew(&lane.device, state, link, transfer, true) == Renewed::Same
            && self.held_back(transfer).is_none()
        {
            self.send_manifest(link, &mut link.state.lock(), transfer);
        }
    }

    /// How messages travel on this connection.
    pub fn framing(&self, link: &Link) -> Framing {
        let limit = self.settings().max_message.unwrap_or(u32::MAX);
        Framing {
            limit: limit.min(link.client.maximum_packet_size),
            // With a packet id, whatever the subscription says later: two bytes of room.
            qos: Qos::ExactlyOnce,
            protocol: link.client.protocol,
        }
    }
}
