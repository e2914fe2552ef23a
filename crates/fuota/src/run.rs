//! What no connection drives: the store, what is due, and what is written now and then.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hook::{Identity, Qos};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Service, accounts::EVENTS, db::Op, engine::Engine, fleet::alerts::Alert, timers::Event,
    transfer::unix_now,
};

/// How often old lines of the audit and of timelines are deleted.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);

impl Engine {
    /// Watches the store and does what is due, until cancelled; then writes everything.
    pub async fn run(self: &Arc<Self>, cancel: CancellationToken) {
        self.remember_runtime();
        let known = {
            let files = self.files.lock();
            self.store.give_up(files.withdrawn());
            files.known()
        };
        let mut events = self.store.watch(known, cancel.clone());
        let status_files = Arc::clone(&self.status_files);
        tokio::spawn(status_files.run(Arc::clone(&self.store), cancel.clone()));
        let mut flush = tokio::time::interval(self.settings().flush_interval);
        flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut prune = tokio::time::interval(PRUNE_INTERVAL);
        let mut alerts = Service(Arc::clone(self)).alerts();
        let mut watching = true;
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                event = events.recv(), if watching => match event {
                    Some(event) => self.store_event(event).await,
                    None => watching = false,
                },
                due = self.timers.due() => {
                    for event in due {
                        self.due(event);
                    }
                }
                _ = flush.tick() => {
                    self.flush();
                    if self.window_opened() && self.may_offer() {
                        self.reconsider_all().await;
                    }
                }
                () = self.rollouts.notified() => {
                    self.drive().await;
                    self.start_waiting();
                }
                Some(alert) = alerts.next() => self.publish(&alert),
                _ = prune.tick() => self.prune(),
            }
        }
        self.stopping.cancel();
        self.flush();
        self.events.close();
        let engine = Arc::clone(self);
        // Waits for the writer thread, which has a disk to wait for.
        drop(tokio::task::spawn_blocking(move || engine.db.close()).await);
    }

    fn due(self: &Arc<Self>, event: Event) {
        match event {
            Event::Grace(link) => {
                if let Some(link) = link.upgrade() {
                    self.grace_over(&link);
                }
            }
            Event::Nudge(link) => {
                if let Some(link) = link.upgrade() {
                    self.nudge_due(&link);
                }
            }
            Event::Announce(link) => {
                if let Some(link) = link.upgrade() {
                    self.announce_again(&link);
                }
            }
            Event::Consider(device) => {
                if let Some(device) = device.upgrade() {
                    self.consider(&device);
                }
            }
            Event::Starts => self.starts_due(),
            Event::Paced(link) => {
                if let Some(link) = link.upgrade() {
                    self.turn_come(&link);
                }
            }
            Event::Confirm(device) => {
                if let Some(device) = device.upgrade() {
                    self.confirm_due(&device);
                }
            }
            Event::Unanswered(link, wanted) => {
                if let Some(link) = link.upgrade().filter(|link| !link.state.lock().closed) {
                    self.find_and_serve(&link, wanted);
                }
            }
            Event::Deferred(link, lane, wanted) => {
                if let (Some(link), Some(lane)) = (link.upgrade(), lane.upgrade()) {
                    self.serve_deferred(&link, &lane, wanted);
                }
            }
        }
    }

    /// Tells operators over MQTT what happened.
    fn publish(&self, alert: &Alert) {
        let Some(broker) = self.broker.get() else { return };
        let topic = format!("{EVENTS}/{}", alert.event.name());
        // Texts and numbers always serialize.
        let payload = serde_json::to_vec(alert).unwrap_or_default();
        let may = |identity: &Identity| self.may_hear_events(identity.role);
        broker.publish_to(&topic, payload.into(), Qos::AtLeastOnce, &may);
    }

    /// Deletes old lines of the audit and of timelines.
    fn prune(&self) {
        if self.is_ready() {
            self.store.need(self.needed_images());
        }
        let (now, settings) = (unix_now(), self.settings());
        if !hook::clock::is_set(now) {
            return; // how old anything is, nobody knows
        }
        let timeline = now.saturating_sub(settings.retention.as_secs());
        let audit = now.saturating_sub(settings.audit_retention.as_secs());
        let mut ops = vec![Op::Prune { audit, timeline }];
        let mut fleet = self.fleet.lock();
        ops.extend(fleet.forget(timeline));
        // Where the queue is full, the next hour does it, or the next start.
        drop(self.db.submit(ops, None));
    }

    /// Writes what changed since the last time and is not worth a commit of its own, and what
    /// could not be written.
    pub fn flush(&self) {
        // Before what shows that it can be written.
        self.write_again();
        if self.db.problem().is_some() {
            // Whether it is over shows only when something is written; most sites have nothing
            // else to write for long. That it is full is one more reason not to wait for it.
            drop(self.db.submit(vec![Op::Clean(false)], None));
        }
        let now = Instant::now();
        for device in self.registry.all() {
            let state = device.state.lock();
            if state.gone {
                continue; // its rows are deleted
            }
            if let Some(transfer) = &state.transfer {
                transfer.look(now);
            }
            let all = device.unwritten.swap(false, Ordering::Relaxed);
            // While an offer is on its way into the database, its row must not be overwritten.
            let transfer = state.transfer.as_ref().filter(|_| state.pinning.is_none());
            let transfer =
                transfer.filter(|transfer| transfer.dirty.swap(false, Ordering::Relaxed) || all);
            let dirty = device.dirty.swap(false, Ordering::Relaxed);
            if transfer.is_none() && !dirty && !all {
                continue;
            }
            // The device first: the others refer to it.
            let mut ops = vec![Op::Device(device.row(&state))];
            ops.extend(transfer.map(|transfer| Op::Transfer(transfer.row(&device.id))));
            if all {
                let rows = state.history.iter();
                ops.extend(
                    rows.map(|(digest, history)| {
                        Op::History(device.history_row(*digest, *history))
                    }),
                );
                ops.push(Op::MembersGone(device.id.to_string()));
                ops.extend(self.fleet.lock().rows_of(&device.id));
            }
            if self.db.submit(ops, device.noticing()).is_err() {
                device.unwritten.store(true, Ordering::Relaxed);
                break;
            }
        }
    }
}
