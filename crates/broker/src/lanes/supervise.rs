//! The router under supervision: found dead or mute, it is replaced.

use bytes::Bytes;
use std::{
    sync::{Arc, atomic::Ordering},
    task::Waker,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

use super::{Lanes, Running};
use crate::{
    counters::Totals,
    router::{Parcel, Router},
};

/// How often each lane is probed.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Probes that may wait for their answer. Counted and not timed, so that a stall of the whole
/// process is not taken for the router's.
const UNANSWERED: u32 = 5;
/// The least time between two renewals: a router that dies at once is no busy loop.
const RENEW_EVERY: Duration = Duration::from_millis(50);

impl Lanes {
    /// Probes each lane and replaces a router that died or does not answer, until cancelled;
    /// then ends the router.
    pub async fn supervise(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PROBE_EVERY) => {}
                () = self.trouble.notified() => {}
                () = cancel.cancelled() => {
                    let running = self.running.load_full();
                    return running.end().await;
                }
            }
            self.probe();
            #[cfg(feature = "faults")]
            if self.held.load(Ordering::Relaxed) {
                continue;
            }
            if !self.ready() {
                self.renew().await;
                tokio::time::sleep(RENEW_EVERY).await;
            }
        }
    }

    /// Sends a probe through each lane.
    fn probe(&self) {
        let running = self.running.load();
        for (at, lane) in self.lanes.iter().enumerate() {
            lane.unanswered.fetch_add(1, Ordering::Relaxed);
            let probe = Parcel { payload: Bytes::new(), blob: Bytes::new() };
            // Where it cannot be sent, the router is dead, and looks it.
            let _ = running.router.send(at, at, probe);
        }
    }

    /// Whether the router lives and answers.
    pub fn ready(&self) -> bool {
        self.running.load().router.is_alive()
            && self.lanes.iter().all(|lane| lane.unanswered.load(Ordering::Relaxed) <= UNANSWERED)
    }

    /// Replaces the router. What was in transit is lost and counted; nothing else is.
    pub async fn renew(self: &Arc<Self>) {
        let count = self.lanes.len();
        let started = tokio::task::spawn_blocking(move || Router::start(count)).await;
        let (router, readers) = match started {
            Ok(Ok(started)) => started,
            Ok(Err(error)) => {
                tracing::error!(%error, "the router cannot be replaced; trying again");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the router cannot be replaced; trying again");
                return;
            }
        };
        let old = self.running.load_full();
        // Nothing is in anybody's hands now: what is charged and not parked is lost.
        let old_readers = old.stop_readers().await;
        let lost = self.switch(router);
        self.spawn_readers(readers);
        // The links of a dead router are gone already; one that is mute may yet hear this.
        old.router.leave();
        for reader in old_readers {
            tokio::spawn(reader.last_word());
        }
        self.totals.dropped.fetch_add(lost as u64, Ordering::Relaxed);
        Totals::count(&self.totals.router_renewals);
        tracing::warn!(lost, "the router was replaced; only QoS 0 messages in transit were lost");
    }

    /// Puts a new router in the place of the old one, and gives it what waits for it. Returns how
    /// many copies the old one takes with it.
    fn switch(&self, router: Arc<Router>) -> usize {
        // All lanes stand still meanwhile, so that no parcel is charged to one router and sent to
        // the other.
        let mut transits: Vec<_> = self.lanes.iter().map(|lane| lane.transit.lock()).collect();
        let mut lost = 0;
        let mut turns = Vec::new();
        for (lane, transit) in transits.iter_mut().enumerate() {
            let mut old = std::mem::take(&mut **transit);
            turns.append(&mut old.turns.next(usize::MAX));
            lost += old.copies;
            for parked in old.parked {
                let copies = parked.copies;
                if router.send(parked.ingress, lane, parked.parcel).is_ok() {
                    lost -= copies;
                    transit.parcels += 1;
                    transit.copies += copies;
                    transit.bytes += parked.cost;
                }
            }
            self.lanes[lane].unanswered.store(0, Ordering::Relaxed);
        }
        self.running.store(Arc::new(Running::new(router)));
        drop(transits);
        turns.into_iter().for_each(Waker::wake);
        lost
    }

    /// While it is held, a dead router is not replaced.
    #[cfg(feature = "faults")]
    pub fn hold_router(&self, hold: bool) {
        self.held.store(hold, Ordering::Relaxed);
        self.trouble.notify_one();
    }

    /// See [`Router::kill`].
    #[cfg(feature = "faults")]
    pub fn kill_router(&self) {
        self.running.load().router.kill();
    }
}
