//! What the database could not be made to hold: the memory went ahead of it, and everything of
//! that is written again until it is there.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, atomic::Ordering},
};

use parking_lot::Mutex;

use crate::{
    db::{DbError, Op},
    engine::Engine,
    views::ServiceError,
};

/// Changes that were to be written and are not: of which deployments, files and devices, and
/// whether of the freeze. Lines of the audit and of timelines are not among them.
#[derive(Default, PartialEq)]
pub struct Unwritten {
    deployments: BTreeSet<i64>,
    files: HashSet<i64>,
    devices: BTreeSet<String>,
    frozen: bool,
    scanned: bool,
}

impl Unwritten {
    /// What these changes are about.
    fn of(ops: &[Op]) -> Unwritten {
        let mut all = Unwritten::default();
        for op in ops {
            match op {
                Op::Deployment(row) => drop(all.deployments.insert(row.id)),
                Op::File(row) => drop(all.files.insert(row.id)),
                Op::Device(row) => drop(all.devices.insert(row.id.clone())),
                Op::Member(row) => drop(all.devices.insert(row.device.clone())),
                Op::Frozen(_) => all.frozen = true,
                Op::Scanned => all.scanned = true,
                _ => {}
            }
        }
        all
    }

    pub fn is_empty(&self) -> bool {
        *self == Unwritten::default()
    }

    fn add(&mut self, more: Unwritten) {
        self.deployments.extend(more.deployments);
        self.files.extend(more.files);
        self.devices.extend(more.devices);
        self.frozen |= more.frozen;
        self.scanned |= more.scanned;
    }
}

/// A job on its way into the database. Unless it gets there, what it is about is noted, whether
/// it failed, was refused by the queue, or nobody waits for it any more.
struct Promise {
    about: Unwritten,
    noted: Arc<Mutex<Unwritten>>,
    kept: bool,
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.kept {
            self.noted.lock().add(std::mem::take(&mut self.about));
        }
    }
}

impl Engine {
    /// Queues one job at once, and gives what waits for its commit, for whoever wants to know.
    /// What it changes of the fleet is written sooner or later, also where nobody waits. Who
    /// holds the fleet's lock meanwhile has the newest rows written last.
    pub fn keep(&self, ops: Vec<Op>) -> impl Future<Output = Result<(), DbError>> + use<> {
        let about = Unwritten::of(&ops);
        let mut promise = Promise { about, noted: Arc::clone(&self.unwritten), kept: false };
        let (done, committed) = tokio::sync::oneshot::channel();
        let queued = self.db.submit(
            ops,
            Some(Box::new(move |result| {
                promise.kept = result.is_ok();
                // Before anybody hears that it failed.
                drop(promise);
                drop(done.send(result));
            })),
        );
        async move {
            queued?;
            committed.await.unwrap_or(Err(DbError::Closed))
        }
    }

    /// Waits until what was queued by now is written, for whoever is told that something was done
    /// before.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`]: not all of it is.
    pub async fn settled(&self) -> Result<(), ServiceError> {
        // Under the lock under which it is queued again, so that it is seen in one of the two.
        let before = {
            let _fleet = self.fleet.lock();
            self.unwritten.lock().is_empty()
        };
        let written = self.db.commit(Vec::new()).await;
        written.map_err(|error| ServiceError::Unavailable(error.to_string()))?;
        match before && self.unwritten.lock().is_empty() {
            true => Ok(()),
            false => Err(ServiceError::Unavailable("not all is written yet; try again".into())),
        }
    }

    /// Writes again what is not written: files before the deployments of them, and those before
    /// their devices, which follow with the devices.
    pub fn write_again(&self) {
        if self.unwritten.lock().is_empty() {
            return;
        }
        let known = self.files.lock();
        let fleet = self.fleet.lock();
        let Unwritten { deployments, files, devices, frozen, scanned } =
            std::mem::take(&mut *self.unwritten.lock());
        for device in devices.iter().filter_map(|name| self.registry.get(name)) {
            device.unwritten.store(true, Ordering::Relaxed);
        }
        let rows = known.rows.iter().filter(|row| files.contains(&row.id));
        let mut ops: Vec<Op> = rows.map(|row| Op::File(row.clone())).collect();
        let rows = deployments.iter().filter_map(|id| Some(fleet.deployments.get(id)?.row()));
        ops.extend(rows.map(Op::Deployment));
        if frozen {
            ops.push(fleet.frozen_op());
        }
        if scanned {
            ops.push(Op::Scanned);
        }
        if !ops.is_empty() {
            drop(self.keep(ops));
        }
    }
}
