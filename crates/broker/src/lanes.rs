//! QoS 0 to many: directly while that is little work, through the router's lanes under load.
//!
//! A lane is the way to the sessions of one shard. It has exactly one reader, so what is in
//! transit is known: it is charged before a parcel is sent and credited when the reader has
//! handed it over. Without credit a copy is dropped and counted, as QoS 0 allows. While
//! anything is in transit, later messages follow it through the lane, so that order is kept.

use bytes::Bytes;
use hook::Qos;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    blob::{self, Named, Receivers},
    counters::{Tally, Totals},
    inbox::Pushed,
    index::Receiver,
    message::{Delivery, Message},
    registry::Registry,
    router::{LANE_CREDIT, LaneReader, Parcel, Router, RouterError},
};

/// Up to so many receivers in a lane with nothing in transit are served directly.
const DIRECT_RECEIVERS: usize = 16;
/// What a parcel costs beside its topic, payload and blob: the router's own structures.
const PARCEL_OVERHEAD: usize = 512;
/// After so many hand-overs a reader lets others run.
const YIELD_AFTER: usize = 256;
/// How often each lane is probed, and how long an answer may take.
const PROBE_EVERY: Duration = Duration::from_secs(1);
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Transit {
    generation: u64,
    parcels: usize,
    bytes: usize,
}

struct Lane {
    transit: Mutex<Transit>,
    /// [`clock_ms`](crate::session::clock_ms) of the last probe that came through.
    answered: AtomicU64,
}

struct Running {
    router: Arc<Router>,
    generation: u64,
    /// Ends the readers of this generation.
    cancel: CancellationToken,
}

/// All lanes, and the router that runs now.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    running: arc_swap::ArcSwap<Running>,
    registry: Arc<Registry>,
    totals: Arc<Totals>,
}

impl Lanes {
    /// Starts the router and one reader per lane.
    pub fn start(
        count: usize,
        registry: Arc<Registry>,
        totals: Arc<Totals>,
    ) -> Result<Arc<Self>, RouterError> {
        let (router, readers) = Router::start(count)?;
        let running = Running { router, generation: 0, cancel: CancellationToken::new() };
        let lanes = Arc::new(Lanes {
            lanes: (0..count)
                .map(|_| Lane {
                    transit: Mutex::default(),
                    answered: AtomicU64::new(crate::session::clock_ms()),
                })
                .collect(),
            running: arc_swap::ArcSwap::from_pointee(running),
            registry,
            totals,
        });
        lanes.spawn_readers(readers);
        Ok(lanes)
    }

    /// One QoS 0 copy for each receiver. `ingress` is that of the publisher: its messages on
    /// one topic arrive in order.
    pub fn send(
        &self,
        ingress: usize,
        message: &Arc<Message>,
        receivers: &[Receiver],
        tally: &mut Tally,
    ) {
        match receivers {
            [] => {}
            [one] => self.send_lane(one.session.lane, ingress, message, receivers, tally),
            _ => (0..self.lanes.len())
                .for_each(|lane| self.send_lane(lane, ingress, message, receivers, tally)),
        }
    }

    fn send_lane(
        &self,
        lane: usize,
        ingress: usize,
        message: &Arc<Message>,
        receivers: &[Receiver],
        tally: &mut Tally,
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
                count_pushed(receiver.session.inbox.push_lossy(delivery), tally);
            }
            tally.direct += count as u32;
            return;
        }
        let blob = blob::encode(message, mine(), count);
        let cost = PARCEL_OVERHEAD + message.cost() + blob.len();
        if transit.bytes + cost > LANE_CREDIT {
            tally.dropped += count as u32;
            return;
        }
        let running = self.running.load();
        let parcel = Parcel { payload: message.payload.clone(), blob };
        // The lock is held over the hand-over to the router, so that parcels of one lane enter
        // it in the order in which they were charged.
        match running.router.send(ingress, lane, parcel) {
            Ok(()) if transit.generation == running.generation => {
                transit.parcels += 1;
                transit.bytes += cost;
                tally.routed += count as u32;
            }
            Ok(()) => tally.routed += count as u32,
            // The supervisor notices by itself and replaces the router.
            Err(_) => tally.dropped += count as u32,
        }
    }

    fn spawn_readers(self: &Arc<Self>, readers: Vec<LaneReader>) {
        let running = self.running.load_full();
        for (lane, reader) in readers.into_iter().enumerate() {
            tokio::spawn(self.clone().read(
                lane,
                reader,
                running.generation,
                running.cancel.clone(),
            ));
        }
    }

    async fn read(
        self: Arc<Self>,
        lane: usize,
        mut reader: LaneReader,
        generation: u64,
        cancel: CancellationToken,
    ) {
        loop {
            let parcel = tokio::select! {
                parcel = reader.next() => parcel,
                () = cancel.cancelled() => return reader.last_word().await,
            };
            // The router died, or it has let go of this link because we leave it.
            let Ok(parcel) = parcel else { return reader.last_word().await };
            if parcel.blob.is_empty() {
                self.lanes[lane].answered.store(crate::session::clock_ms(), Ordering::Relaxed);
                continue;
            }
            let cost = PARCEL_OVERHEAD + parcel.payload.len() + parcel.blob.len();
            let topic = match blob::decode(parcel) {
                Some((message, receivers)) => self.hand_over(message, receivers).await,
                None => 0,
            };
            let mut transit = self.lanes[lane].transit.lock();
            if transit.generation == generation {
                transit.parcels = transit.parcels.saturating_sub(1);
                transit.bytes = transit.bytes.saturating_sub(cost + topic);
            }
        }
    }

    /// Gives a message to the inboxes that its blob named. Waits for none of them. Returns what
    /// the message was charged beside payload and blob.
    async fn hand_over(&self, message: Arc<Message>, mut receivers: Receivers) -> usize {
        let mut tally = Tally::default();
        let mut done = 0;
        while let Some(Named { key, retain, subscriptions }) = receivers.next() {
            if let Some(session) = self.registry.by_key(key) {
                let delivery = Delivery {
                    id: 0,
                    message: message.clone(),
                    qos: Qos::AtMostOnce,
                    retain,
                    subscriptions,
                };
                count_pushed(session.inbox.push_lossy(delivery), &mut tally);
            }
            done += 1;
            if done % YIELD_AFTER == 0 {
                tokio::task::yield_now().await;
            }
        }
        tally.flush(&self.totals);
        message.cost() - message.payload.len()
    }

    /// Probes each lane and replaces a router that died or does not answer, until cancelled;
    /// then ends the router.
    pub async fn supervise(self: Arc<Self>, cancel: CancellationToken) {
        let mut probed = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(PROBE_EVERY) => {}
                () = cancel.cancelled() => {
                    let running = self.running.load();
                    running.router.leave();
                    running.cancel.cancel();
                    return;
                }
            }
            let healthy = self.probe();
            if healthy {
                probed = Instant::now();
            } else if probed.elapsed() > PROBE_PATIENCE || !self.reachable() {
                self.renew().await;
                probed = Instant::now();
            }
        }
    }

    /// Sends a probe through each lane; `true` where the last ones came back.
    fn probe(&self) -> bool {
        let now = crate::session::clock_ms();
        let patience = (2 * PROBE_EVERY).as_millis() as u64;
        self.reachable()
            && self
                .lanes
                .iter()
                .all(|lane| now.saturating_sub(lane.answered.load(Ordering::Relaxed)) <= patience)
    }

    fn reachable(&self) -> bool {
        let running = self.running.load();
        let probe = || Parcel { payload: Bytes::new(), blob: Bytes::new() };
        (0..self.lanes.len()).all(|lane| running.router.send(lane, lane, probe()).is_ok())
    }

    /// Whether the router answered within the last seconds.
    pub fn ready(&self) -> bool {
        let now = crate::session::clock_ms();
        let patience = PROBE_PATIENCE.as_millis() as u64;
        self.lanes
            .iter()
            .all(|lane| now.saturating_sub(lane.answered.load(Ordering::Relaxed)) <= patience)
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
        let generation = old.generation + 1;
        // All lanes stand still while the generation changes, so that no parcel is charged to
        // one router and sent to the other.
        let mut transits: Vec<_> = self.lanes.iter().map(|lane| lane.transit.lock()).collect();
        let lost: usize = transits.iter().map(|t| t.parcels).sum();
        for transit in &mut transits {
            **transit = Transit { generation, ..Transit::default() };
        }
        for lane in &self.lanes {
            lane.answered.store(crate::session::clock_ms(), Ordering::Relaxed);
        }
        let cancel = CancellationToken::new();
        self.running.store(Arc::new(Running { router, generation, cancel }));
        drop(transits);
        self.spawn_readers(readers);
        old.router.leave();
        old.cancel.cancel();
        self.totals.dropped.fetch_add(lost as u64, Ordering::Relaxed);
        Totals::count(&self.totals.router_renewals);
        tracing::warn!(lost, "the router was replaced; only QoS 0 messages in transit were lost");
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
    }
}

/// Adds a refused copy to the tally.
pub(crate) fn count_pushed(pushed: Pushed, tally: &mut Tally) {
    if matches!(pushed, Pushed::Dropped | Pushed::Full) {
        tally.dropped += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inbox::{Done, Taken},
        session::Session,
    };

    fn message(n: u32) -> Arc<Message> {
        Arc::new(Message {
            topic: "é/x".into(),
            payload: Bytes::from(n.to_be_bytes().to_vec()),
            qos: Qos::AtMostOnce,
            retain: true,
            properties: Some(Box::new(hook::Properties {
                content_type: Some("text/plain".into()),
                user_properties: vec![("a".into(), "b".into())],
                ..hook::Properties::default()
            })),
            publisher: 77,
            sequence: u64::from(n),
            expires: None,
        })
    }

    fn receiver(session: &Arc<Session>) -> Receiver {
        Receiver {
            session: session.clone(),
            qos: Qos::AtMostOnce,
            retain_as_published: true,
            identifiers: Some(Arc::from([3, 4])),
            epoch: 0,
        }
    }

    /// Sessions that are connected, in the registry, and all in lane 0.
    async fn sessions(registry: &Registry, count: usize) -> Vec<Arc<Session>> {
        let mut sessions = Vec::new();
        for i in 0..count {
            let claimed = registry.claim(&format!("s{i}").into()).await.unwrap();
            assert!(claimed.session.inbox.attach(1, || true));
            sessions.push(claimed.session);
        }
        sessions
    }

    fn lanes() -> Arc<Lanes> {
        let registry = Arc::new(Registry::new(1, Arc::default()));
        Lanes::start(1, registry, Arc::default()).unwrap()
    }

    /// What a session has got, once it is `n` messages.
    async fn got(session: &Session, n: usize) -> Vec<Delivery> {
        let mut taken = Taken::default();
        std::future::poll_fn(|cx| {
            loop {
                session.inbox.take(&mut Done::default(), &mut taken).unwrap();
                if taken.lossy.len() >= n {
                    return std::task::Poll::Ready(());
                }
                if session.inbox.park(cx.waker()) {
                    return std::task::Poll::Pending;
                }
            }
        })
        .await;
        taken.lossy.into()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_receivers_go_through_the_router_and_order_is_kept() {
        let lanes = lanes();
        let sessions = sessions(&lanes.registry, DIRECT_RECEIVERS + 1).await;
        let receivers: Vec<_> = sessions.iter().map(receiver).collect();
        let mut tally = Tally::default();
        for n in 0..200 {
            // Every other message has one receiver only: it may not overtake.
            let all = if n % 2 == 0 { &receivers[..] } else { &receivers[..1] };
            lanes.send(0, &message(n), all, &mut tally);
        }
        assert!(tally.routed > 0, "{tally:?}");
        let first: Vec<u64> =
            got(&sessions[0], 200).await.iter().map(|d| d.message.sequence).collect();
        assert_eq!(first, (0..200).collect::<Vec<u64>>());
        assert_eq!(got(&sessions[1], 100).await.len(), 100);
        // What was charged is credited to the last byte. The reader credits after it handed over.
        while lanes.lanes[0].transit.lock().parcels > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(lanes.lanes[0].transit.lock().bytes, 0);
    }

    /// Router threads of this process. Other tests have theirs, so only differences count.
    fn router_threads() -> usize {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .filter(|name| name.trim() == "router-0")
            .count()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_replaced_router_ends_and_the_lane_goes_on() {
        let lanes = lanes();
        let sessions = sessions(&lanes.registry, DIRECT_RECEIVERS + 1).await;
        let receivers: Vec<_> = sessions.iter().map(receiver).collect();
        for round in 0..20 {
            lanes.renew().await;
            lanes.send(0, &message(round), &receivers, &mut Tally::default());
            let got = got(&sessions[0], 1).await;
            assert_eq!(got[0].message.sequence, u64::from(round));
        }
        assert_eq!(lanes.totals.router_renewals.load(Ordering::Relaxed), 20);
        // Each old thread ends; at most this lane's own and those of parallel tests stay.
        while router_threads() > 3 {
            tokio::task::yield_now().await;
        }
    }
}
