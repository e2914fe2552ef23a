//! QoS 0 to many: directly while that is little work, through the router's lanes under load.
//!
//! A lane is the way to the sessions of one shard. It has exactly one reader, so what is in
//! transit is known: it is charged before a parcel is sent and credited when the reader has
//! handed it over. Without credit a copy is dropped and counted, as QoS 0 allows. While
//! anything is in transit, later messages follow it through the lane, so that order is kept.
//! What is to be sent while the router is dead waits for the next one, within the same credit.

mod supervise;
#[cfg(test)]
mod tests;

use hook::Qos;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    blob::{self, Named, Receivers},
    counters::{Tally, Totals},
    crowd::{Crowded, CrowdedSession, TURNS, Turns},
    inbox::Pushed,
    index::Receiver,
    message::{Delivery, Message},
    registry::Registry,
    router::{LANE_CREDIT, LaneReader, Parcel, Router, RouterError},
};

/// Up to so many receivers in a lane with nothing in transit are served directly.
const DIRECT_RECEIVERS: usize = 64;
/// What a parcel costs beside its topic, payload and blob: the router's own structures.
const PARCEL_OVERHEAD: usize = 512;
/// While more than this is in transit, publishers let it drain.
const CROWDED_PARCELS: usize = 64;
/// After so many hand-overs a reader lets others run.
const YIELD_AFTER: usize = 256;

/// What a lane has sent and not yet handed over.
#[derive(Default)]
struct Transit {
    parcels: usize,
    /// Copies in them, one per receiver: what is lost where they are.
    copies: usize,
    bytes: usize,
    /// Parcels that found no router, charged like the others; the next router gets them first.
    parked: Vec<Parked>,
    /// Publishers that let it drain.
    turns: Turns,
}

impl Transit {
    /// Publishers are to let it drain: sessions whose queues are half full take what is on its
    /// way then, and no parcel is ever without credit.
    fn is_crowded(&self) -> bool {
        self.parcels > CROWDED_PARCELS || self.bytes > LANE_CREDIT / 2
    }

    /// Those that may go on.
    fn turns(&mut self) -> Vec<Waker> {
        match self.parcels {
            0 => self.turns.next(usize::MAX),
            _ if self.parcels > CROWDED_PARCELS / 2 || self.bytes > LANE_CREDIT / 4 => Vec::new(),
            _ => self.turns.next(TURNS),
        }
    }
}

/// A parcel with its charge.
struct Parked {
    ingress: usize,
    parcel: Parcel,
    copies: usize,
    cost: usize,
}

struct Lane {
    transit: Mutex<Transit>,
    /// Probes sent since the last one that came through.
    unanswered: AtomicU32,
}

/// A router with the readers of its lanes.
struct Running {
    router: Arc<Router>,
    readers: Mutex<Vec<JoinHandle<LaneReader>>>,
    /// Ends the readers.
    cancel: CancellationToken,
}

/// All lanes, and the router that runs now.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    /// Changes only while every lane is locked.
    running: arc_swap::ArcSwap<Running>,
    registry: Arc<Registry>,
    totals: Arc<Totals>,
    /// Somebody found the router dead.
    trouble: Notify,
    /// A test wants to see what a broker without a router does.
    #[cfg(feature = "faults")]
    held: std::sync::atomic::AtomicBool,
}

impl Lanes {
    /// Starts the router and one reader per lane.
    pub fn start(
        count: usize,
        registry: Arc<Registry>,
        totals: Arc<Totals>,
    ) -> Result<Arc<Self>, RouterError> {
        let (router, readers) = Router::start(count)?;
        let lanes = Arc::new(Lanes {
            lanes: (0..count)
                .map(|_| Lane { transit: Mutex::default(), unanswered: AtomicU32::new(0) })
                .collect(),
            running: arc_swap::ArcSwap::from_pointee(Running::new(router)),
            registry,
            totals,
            trouble: Notify::new(),
            #[cfg(feature = "faults")]
            held: Default::default(),
        });
        lanes.spawn_readers(readers);
        Ok(lanes)
    }

    /// One QoS 0 copy for each receiver. `ingress` is that of the publisher: its messages on
    /// one topic arrive in order. What is returned should drain before the next one.
    pub fn send(
        &self,
        ingress: usize,
        message: &Arc<Message>,
        receivers: &[Receiver],
        tally: &mut Tally,
    ) -> Crowded {
        let mut crowded = Crowded::default();
        let lanes = match receivers {
            [] => 0..0,
            [one] => one.session.lane..one.session.lane + 1,
            _ => 0..self.lanes.len(),
        };
        for lane in lanes {
            self.send_lane(lane, ingress, message, receivers, tally, &mut crowded);
        }
        crowded
    }

    /// Waits for a turn where the lane is crowded.
    pub fn poll_turn(&self, lane: usize, cx: &Context<'_>) -> Poll<()> {
        let mut transit = self.lanes[lane].transit.lock();
        if !transit.is_crowded() {
            return Poll::Ready(());
        }
        transit.turns.wait(cx.waker());
        Poll::Pending
    }

    fn send_lane(
        &self,
        lane: usize,
        ingress: usize,
        message: &Arc<Message>,
        receivers: &[Receiver],
        tally: &mut Tally,
        crowded: &mut Crowded,
    ) {
        let mine = || receivers.iter().filter(move |r| r.session.lane == lane);
        let count = mine().count();
        if count == 0 {
            return;
        }
        // A message that could never be charged goes directly, whoever waits for it.
        let oversized = message.cost() + PARCEL_OVERHEAD + 32 * count > LANE_CREDIT / 2;
        let mut transit = self.lanes[lane].transit.lock();
        if transit.parcels == 0 && (count <= DIRECT_RECEIVERS || oversized) {
            for receiver in mine() {
                let delivery = deliver(message, receiver);
                let pushed = receiver.session.inbox.push_lossy(delivery, receiver.epoch);
                count_pushed(pushed, tally);
                crowded.sessions.extend(CrowdedSession::find(&receiver.session));
            }
            tally.direct += count as u32;
            return;
        }
        let blob = blob::encode(message, mine(), count);
        let cost = PARCEL_OVERHEAD + message.cost() + blob.len();
        if transit.bytes + cost > LANE_CREDIT {
            tally.dropped += count as u32;
            crowded.lanes.push(lane);
            return;
        }
        transit.parcels += 1;
        transit.copies += count;
        transit.bytes += cost;
        tally.routed += count as u32;
        if transit.is_crowded() {
            crowded.lanes.push(lane);
        }
        crowded.sessions.extend(mine().filter_map(|r| CrowdedSession::find(&r.session)));
        let parcel = Parcel { payload: message.payload.clone(), blob };
        let running = self.running.load();
        // The lock is held over the hand-over to the router, so that parcels of one lane enter
        // it in the order in which they were charged.
        if transit.parked.is_empty() && running.router.is_alive() {
            // Where it dies in this instant, the parcel was in transit.
            let _ = running.router.send(ingress, lane, parcel);
            return;
        }
        transit.parked.push(Parked { ingress, parcel, copies: count, cost });
        self.trouble.notify_one();
    }

    fn spawn_readers(self: &Arc<Self>, readers: Vec<LaneReader>) {
        let running = self.running.load();
        let mut handles = running.readers.lock();
        for (lane, reader) in readers.into_iter().enumerate() {
            handles.push(tokio::spawn(self.clone().read(lane, reader, running.cancel.clone())));
        }
    }

    /// Hands over what comes through a lane, until it is cancelled or the router has died.
    async fn read(
        self: Arc<Self>,
        lane: usize,
        mut reader: LaneReader,
        cancel: CancellationToken,
    ) -> LaneReader {
        loop {
            let parcel = tokio::select! {
                biased;
                () = cancel.cancelled() => return reader,
                parcel = reader.next() => parcel,
            };
            let Ok(parcel) = parcel else {
                self.trouble.notify_one();
                return reader;
            };
            if parcel.blob.is_empty() {
                self.lanes[lane].unanswered.store(0, Ordering::Relaxed);
                continue;
            }
            let blob_len = parcel.blob.len();
            // `None` would be an error of our own, and would keep its credit.
            let Some((message, receivers)) = blob::decode(parcel) else { continue };
            let cost = PARCEL_OVERHEAD + message.cost() + blob_len;
            let copies = self.hand_over(message, receivers).await;
            let mut transit = self.lanes[lane].transit.lock();
            transit.parcels = transit.parcels.saturating_sub(1);
            transit.copies = transit.copies.saturating_sub(copies);
            transit.bytes = transit.bytes.saturating_sub(cost);
            let turns = transit.turns();
            drop(transit);
            turns.into_iter().for_each(Waker::wake);
        }
    }

    /// Gives a message to the inboxes that its blob named. Waits for none of them. Returns how
    /// many it named.
    async fn hand_over(&self, message: Arc<Message>, mut receivers: Receivers) -> usize {
        let mut tally = Tally::default();
        let mut done = 0;
        while let Some(Named { key, epoch, retain, subscriptions }) = receivers.next() {
            if let Some(session) = self.registry.by_key(key) {
                let delivery = Delivery {
                    id: 0,
                    message: message.clone(),
                    qos: Qos::AtMostOnce,
                    retain,
                    subscriptions,
                    share: None,
                };
                count_pushed(session.inbox.push_lossy(delivery, epoch), &mut tally);
            }
            done += 1;
            if done % YIELD_AFTER == 0 {
                tokio::task::yield_now().await;
            }
        }
        tally.flush(&self.totals);
        done
    }
}

impl Running {
    fn new(router: Arc<Router>) -> Self {
        Running { router, readers: Mutex::default(), cancel: CancellationToken::new() }
    }

    /// Stops the readers and waits until none of them has anything in hand. A reader waits for
    /// nothing but its turn to run.
    async fn stop_readers(&self) -> Vec<LaneReader> {
        self.cancel.cancel();
        let handles = std::mem::take(&mut *self.readers.lock());
        let mut readers = Vec::with_capacity(handles.len());
        for handle in handles {
            // An error is a panic of the reader, which has nothing in hand any more.
            readers.extend(handle.await);
        }
        readers
    }

    /// Takes the links away and ends the router's thread.
    async fn end(&self) {
        let readers = self.stop_readers().await;
        self.router.leave();
        for reader in readers {
            reader.last_word().await;
        }
    }
}

/// The QoS 0 copy of a message for one receiver.
fn deliver(message: &Arc<Message>, receiver: &Receiver) -> Delivery {
    Delivery {
        id: 0,
        message: message.clone(),
        qos: Qos::AtMostOnce,
        retain: message.retain && receiver.retain_as_published,
        subscriptions: receiver.identifiers.clone(),
        share: None,
    }
}

/// Adds a refused copy to the tally.
pub(crate) fn count_pushed(pushed: Pushed, tally: &mut Tally) {
    if matches!(pushed, Pushed::Dropped | Pushed::Full) {
        tally.dropped += 1;
    }
}
