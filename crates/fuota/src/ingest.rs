//! From what the store saw to the catalog (rules 6, 9 and 10).

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::MutexGuard;
use store::{Batch, Digest, Event};

use crate::{
    db::Op,
    engine::{Counters, Engine},
    files::{Applied, Files},
    fleet::{Dropping, Fleet, events::Change as Told},
    settings::OnExisting,
    views::{FirmwareState, FirmwareView},
};

impl Engine {
    /// What the store says.
    pub async fn store_event(self: &Arc<Self>, event: Event) {
        match event {
            Event::Batch(batch) => self.ingest(batch).await,
            Event::Unavailable { reason } => {
                tracing::error!(reason, "store unavailable; running transfers go on");
                *self.store_problem.lock() = Some(reason);
                self.tell_site();
                if !self.is_ready() {
                    self.reconsider_all().await;
                }
            }
            Event::Available => {
                tracing::info!("store available again");
                *self.store_problem.lock() = None;
                self.tell_site();
            }
        }
        self.taken_in.send_modify(|number| *number += 1);
    }

    async fn ingest(self: &Arc<Self>, batch: Batch) {
        let settings = self.settings();
        let hold = self.first_run && settings.on_existing() == OnExisting::Hold;
        let written = {
            let mut files = self.files.lock();
            let mut applied = files.apply(batch.changes);
            let found = std::mem::take(&mut applied.found);
            let how = Dropping {
                deploy: settings.deploy_drops,
                hold: if hold { found } else { HashSet::new() },
                plan: settings.drop_plan(),
            };
            let (mut ops, fleet) = self.take_in(&mut files, applied, &how);
            if batch.caught_up && !self.scanned.swap(true, Ordering::AcqRel) {
                ops.push(Op::Scanned);
            }
            let written = (!ops.is_empty()).then(|| self.keep(ops));
            drop(fleet);
            written
        };
        if let Some(written) = written
            && let Err(error) = written.await
        {
            tracing::error!(%error, "the catalog is not written yet");
        }
        self.rebuild_catalog();
        self.ready.store(true, Ordering::Release);
        self.tell_status_files();
        self.store.need(self.needed_images());
        self.reconsider_all().await;
        Counters::add(&self.counters.batches, 1);
    }

    /// Deploys what came, ends what is gone, and forgets what nothing needs. Returns what is to
    /// be written, and the lock under which it is to be queued.
    pub fn take_in(
        &self,
        files: &mut Files,
        applied: Applied,
        how: &Dropping,
    ) -> (Vec<Op>, MutexGuard<'_, Fleet>) {
        let Applied { mut ops, added, removed, .. } = applied;
        let mut needed = self.files_of_devices();
        let mut fleet = self.fleet.lock();
        let changed = fleet.dropped(&added, &removed, how);
        for op in &changed {
            if let Op::Deployment(row) = op
                && let Some(deployment) = fleet.deployments.get(&row.id)
            {
                self.events.tell(Told::of(deployment));
            }
        }
        ops.extend(changed);
        needed.extend(fleet.files());
        files.forget(&needed, &mut ops);
        (ops, fleet)
    }

    /// What may still be asked for: what is catalogued, what each device runs, and what it ran
    /// before that, which is its way back (rule 22).
    pub fn needed_images(&self) -> HashSet<Digest> {
        let mut needed = self.files_of_devices();
        let files = self.files.lock();
        needed.extend(self.fleet.lock().ways_back());
        let rows = files.rows.iter();
        let rows = rows.filter(|row| row.removed_seq.is_none() || needed.contains(&row.id));
        rows.map(|row| row.digest).collect()
    }

    /// The catalog changed: marks transfers whose file was overwritten, and offers what is new.
    pub async fn reconsider_all(self: &Arc<Self>) {
        let catalog = self.catalog.load_full();
        let mut devices = self.registry.all();
        devices.extend(self.registry.links().iter().filter_map(|link| {
            // Sessions without identity are in no registry.
            link.state.lock().device.clone().filter(|device| !device.stored)
        }));
        for (number, device) in devices.iter().enumerate() {
            let online = {
                let state = device.state.lock();
                let running =
                    state.transfer.as_ref().filter(|transfer| transfer.state().is_running());
                if let Some(transfer) = running {
                    let outdated = catalog
                        .was_overwritten(&transfer.pin.path, &transfer.pin.digest)
                        || self.is_outbid(device, &state, transfer);
                    transfer.overwritten.store(outdated, Ordering::Relaxed);
                }
                !state.links.is_empty()
            };
            if online {
                self.consider(device);
            }
            if number % 64 == 63 {
                tokio::task::yield_now().await;
            }
        }
        self.drive_all();
    }
}

/// One line for a file whose standing is new.
pub fn log(view: &FirmwareView) {
    let value = |decided: &Option<crate::views::Decided>| {
        decided
            .as_ref()
            .map(|decided| format!("{} ({})", decided.value, decided.from))
            .unwrap_or_default()
    };
    let (title, version) = (value(&view.title), value(&view.version));
    let digest = view.digest.as_deref().unwrap_or_default();
    // Left out of the line where there is none.
    let reason = view.reason.as_deref();
    let format = view.format;
    for warning in &view.warnings {
        tracing::warn!(path = view.path, warning, "firmware warning");
    }
    match view.state {
        FirmwareState::Accepted => {
            let target = view.target.as_deref().unwrap_or_default();
            tracing::info!(
                path = view.path,
                title,
                version,
                target,
                format,
                digest,
                reason,
                "firmware accepted"
            );
        }
        FirmwareState::Catalogued => {
            tracing::info!(path = view.path, title, version, digest, "firmware catalogued");
        }
        FirmwareState::Replaced => {
            tracing::warn!(path = view.path, version, digest, "firmware replaced")
        }
        state => tracing::warn!(path = view.path, ?state, reason, "firmware not accepted"),
    }
}
