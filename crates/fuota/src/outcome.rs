//! What became of an update: complete deliveries, reports, confirmation, silence (rules 13
//! and 19).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    db::Op,
    device::{Device, DeviceState},
    dialect::{Report, ReportedState},
    engine::Engine,
    link::Link,
    names::is_name,
    policy::same_version,
    state::{Happened, UpdateState},
    timers::Event,
    transfer::Transfer,
};

/// The longest version and reason that a device may report, in bytes; more is cut.
const LONGEST_TEXT: usize = 128;

impl Engine {
    /// The last missing block was written to this connection.
    pub fn completed(
        self: &Arc<Self>,
        device: &Arc<Device>,
        transfer: &Arc<Transfer>,
        connection: u64,
    ) {
        if !transfer.delivered(connection) {
            return;
        }
        if let Some(pace) = transfer.pace() {
            /// The part of the newest in the mean.
            const NEWEST: f64 = 0.2;
            let mut mean = self.pace.lock();
            *mean = Some(mean.map_or(pace, |mean| mean + (pace - mean) * NEWEST));
        }
        let pin = &transfer.pin;
        tracing::info!(
            device = %device.id, path = %pin.path, version = %pin.version, digest = %pin.sha256, chunks = pin.total,
            chunk_size = pin.chunk_size, "every block is delivered"
        );
        let mut state = device.state.lock();
        self.delivered_member(device, pin);
        let history = state.history.entry(pin.digest).or_default();
        history.deliveries += 1;
        history.differs = false;
        let history = *history;
        if pin.title.is_some() {
            state.title.clone_from(&pin.title);
        }
        let ops = [
            Some(Op::History(device.history_row(pin.digest, history))),
            state.transfer_op(&device.id, transfer),
            Some(Engine::happening(
                &device.id,
                "downloaded",
                Some(pin.sha256.clone()),
                pin.deployment,
            )),
            self.track(device, &mut state, transfer),
        ];
        self.write(device, &state, ops.into_iter().flatten().collect());
        drop(state);
        if device.stored {
            self.note_names(None, pin.title.as_deref());
            self.goes_back_too(device, pin.deployment);
        }
        self.watch_outcome(device);
        self.consider(device);
    }

    /// Moves a transfer's state and writes that down.
    pub fn move_state(
        self: &Arc<Self>,
        device: &Arc<Device>,
        transfer: &Arc<Transfer>,
        happened: &Happened,
    ) {
        let Some(next) = transfer.happened(happened) else { return };
        tracing::info!(
            device = %device.id, version = %transfer.pin.version, state = next.name(),
            reason = next.reason().unwrap_or_default(), "update"
        );
        let mut state = device.state.lock();
        self.moved(device, &mut state, transfer, &next);
    }

    /// No connection goes on answering from this transfer. What was asked for gets its answer once
    /// the device is unlocked, since that may be another offer.
    pub fn leave(&self, state: &DeviceState, transfer: &Arc<Transfer>) {
        for link in &state.links {
            if let Some(wanted) = link.state.lock().leave(transfer) {
                self.timers.at(Instant::now(), Event::Unanswered(Arc::downgrade(link), wanted));
            }
        }
    }

    /// Writes down that a transfer moved. The device is locked by the caller.
    pub fn moved(
        &self,
        device: &Arc<Device>,
        state: &mut DeviceState,
        transfer: &Arc<Transfer>,
        next: &UpdateState,
    ) {
        let ops = self.moving(device, state, transfer, next);
        self.write(device, state, ops);
    }

    /// What is to be written where a transfer moved.
    pub fn moving(
        &self,
        device: &Arc<Device>,
        state: &mut DeviceState,
        transfer: &Arc<Transfer>,
        next: &UpdateState,
    ) -> Vec<Op> {
        if !next.is_servable() {
            self.leave(state, transfer);
            for link in &state.links {
                let mut on_link = link.state.lock();
                if *next == UpdateState::Cancelled
                    && on_link.announced.contains(&transfer.pin.digest)
                {
                    let says = on_link.talk.as_mut().map(|talk| talk.withdrawn());
                    self.say_all(link, &on_link, says.unwrap_or_default());
                }
            }
        }
        let mut ops = Vec::from_iter(state.transfer_op(&device.id, transfer));
        ops.extend(self.track(device, state, transfer));
        if let UpdateState::Failed(_) = next {
            ops.push(self.put_off(device, state, &transfer.pin));
        }
        let reason = next.reason().map(str::to_owned);
        ops.push(Engine::happening(&device.id, next.name(), reason, transfer.pin.deployment));
        ops
    }

    /// Writes changes of a device, after the device itself. What cannot be written now is
    /// written with the next interval, but for its line in the audit.
    pub fn write(&self, device: &Arc<Device>, state: &DeviceState, changes: Vec<Op>) {
        if !device.stored || state.gone {
            return;
        }
        let mut ops = vec![Op::Device(device.row(state))];
        ops.extend(changes);
        if let Err(error) = self.db.submit(ops, device.noticing()) {
            tracing::warn!(device = %device.id, %error, "a change is written later");
            device.unwritten.store(true, Ordering::Relaxed);
        }
    }

    /// What a device says about itself.
    pub fn report(self: &Arc<Self>, link: &Arc<Link>, report: Report) {
        let Some(device) = self.device_of(link) else { return };
        // A device that does not know its version yet says nothing with it.
        let version = report.version.filter(|version| !version.trim().is_empty());
        let report = Report { version, ..report };
        if let Some(model) = &report.model {
            self.learn_model(&device, model);
        }
        let current = {
            let mut state = device.state.lock();
            if let Some(version) = &report.version {
                state.version = Some(cut(version));
            }
            device.dirty.store(true, Ordering::Relaxed);
            state.transfer.clone()
        };
        if let Some(transfer) = current {
            let happened = match report.state {
                Some(ReportedState::Verified) => Some(Happened::ReportedVerified),
                Some(ReportedState::Updating) => Some(Happened::ReportedUpdating),
                Some(ReportedState::Failed(reason)) => Some(Happened::WentWrong(cut(&reason))),
                Some(ReportedState::Updated) => Some(Happened::ReportedVersion),
                Some(ReportedState::Downloaded) | None => None,
            };
            if let Some(happened) = happened {
                self.move_state(&device, &transfer, &happened);
            }
            if let Some(version) = report.version.filter(|_| transfer.pin.own_version) {
                self.compare(&device, &transfer, &version, link);
            }
        }
        self.consider(&device);
    }

    /// A version was reported while this is the newest offer.
    fn compare(
        self: &Arc<Self>,
        device: &Arc<Device>,
        transfer: &Arc<Transfer>,
        version: &str,
        link: &Link,
    ) {
        if same_version(version, &transfer.pin.version) {
            return self.move_state(device, transfer, &Happened::ReportedVersion);
        }
        // Before the device has restarted it says what it ran before; a new connection tells.
        let counts = transfer.downloaded().is_some()
            && !transfer.was_delivered_on(link.client.connection)
            && transfer.state() != UpdateState::Updated;
        if !counts {
            return;
        }
        let pin = &transfer.pin;
        let mut state = device.state.lock();
        self.differs_member(device, pin);
        let history = state.history.entry(pin.digest).or_default();
        if std::mem::replace(&mut history.differs, true) {
            return;
        }
        let history = *history;
        self.write(device, &state, vec![Op::History(device.history_row(pin.digest, history))]);
        drop(state);
        let reason =
            format!("version mismatch: it reports {version}, {} was delivered", pin.version);
        self.move_state(device, transfer, &Happened::WentWrong(reason));
    }

    /// A model that a device names by itself fills an empty value and never changes one.
    pub fn learn_model(&self, device: &Arc<Device>, model: &str) {
        if !is_name(model) {
            tracing::debug!(device = %device.id, "it names a model that is no name; ignored");
            return;
        }
        {
            let mut state = device.state.lock();
            if state.model.is_some() {
                return;
            }
            state.model = Some(model.to_owned());
            device.dirty.store(true, Ordering::Relaxed);
        }
        if device.stored {
            self.note_names(Some(model), None);
        }
    }

    /// Sets the timer that tells confirmed from silent, or that gives up one which asks no more, if
    /// that is open.
    pub fn watch_outcome(&self, device: &Arc<Device>) {
        let mut state = device.state.lock();
        let open = state.transfer.clone().filter(|transfer| !transfer.state().is_settled());
        let Some(transfer) = open else { return };
        let due = match (transfer.downloaded(), state.away_since) {
            (Some(downloaded), None) => downloaded + self.settings().confirm_after,
            (_, away) => last_sign(&transfer, &state.links, away) + self.settings().confirm_within,
        };
        self.outcome_at(device, &mut state, due);
    }

    /// One timer per device: a later one is set when the earlier is due, so that a device that
    /// comes and goes does not pile them up.
    fn outcome_at(&self, device: &Arc<Device>, state: &mut DeviceState, due: Instant) {
        if state.outcome_at.is_none_or(|set| due < set) {
            state.outcome_at = Some(due);
            self.timers.at(due, Event::Confirm(Arc::downgrade(device)));
        }
    }

    /// Was it heard long enough after its last block, or did it stay away?
    pub fn confirm_due(self: &Arc<Self>, device: &Arc<Device>) {
        let now = Instant::now();
        let (transfer, links, away) = {
            let mut state = device.state.lock();
            state.outcome_at = None;
            let open = state.transfer.clone().filter(|transfer| !transfer.state().is_settled());
            let Some(transfer) = open else { return };
            (transfer, state.links.clone(), state.away_since)
        };
        let downloaded = transfer.downloaded().filter(|_| away.is_none());
        let Some(downloaded) = downloaded else {
            let within = self.settings().confirm_within;
            if now < last_sign(&transfer, &links, away) + within {
                return self.watch_outcome(device);
            }
            if transfer.state().awaits_outcome() {
                return self.move_state(device, &transfer, &Happened::StayedAway);
            }
            let held = self.held_back(&transfer).is_some();
            if !held && !is_nudged(&transfer, &links) {
                return self.move_state(device, &transfer, &Happened::StoppedAsking);
            }
            // It is not to ask for anything now, or is asked: its silence says nothing.
            if held {
                transfer.heard(now);
            }
            return self.outcome_at(device, &mut device.state.lock(), now + within);
        };
        let heard_from = downloaded + self.settings().confirm_after;
        // Any packet counts, so the broker is asked: a ping never comes to a plugin.
        let mut heard = links.iter().filter_map(|link| self.last_heard(link, now));
        if heard.any(|at| at >= heard_from) {
            return self.move_state(device, &transfer, &Happened::Heard);
        }
        let pause = self.settings().confirm_after / 20;
        let pause = pause.clamp(Duration::from_millis(20), Duration::from_secs(5));
        let due = (now + pause).max(heard_from);
        self.outcome_at(device, &mut device.state.lock(), due);
    }

    fn last_heard(&self, link: &Link, now: Instant) -> Option<Instant> {
        let asked = link.state.lock().window.last_request;
        let status = self.broker.get().and_then(|broker| broker.client(&link.client.id));
        let packet = status.and_then(|status| now.checked_sub(status.idle?));
        asked.max(packet)
    }
}

/// Since when nothing was heard of a device that misses blocks: it was offered them, asked or was
/// nudged, or went away, then.
fn last_sign(transfer: &Transfer, links: &[Arc<Link>], away: Option<Instant>) -> Instant {
    let on_links = links.iter().filter_map(|link| link.state.lock().last_sign(transfer));
    on_links.chain(away).fold(transfer.last_sign(), Instant::max)
}

/// Whether a connection of its device is watched for that, or is to hear the manifest in a moment
/// (rule 16): what follows, follows from the nudges.
fn is_nudged(transfer: &Transfer, links: &[Arc<Link>]) -> bool {
    links.iter().any(|link| {
        let link = link.state.lock();
        link.grace_set || link.nudge_set && link.last_sign(transfer).is_some()
    })
}

/// At most so many bytes, at a character's end.
fn cut(text: &str) -> String {
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
