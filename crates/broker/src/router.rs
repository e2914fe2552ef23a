//! The one file that knows rumqttd: its router as an exchange of parcels between a few links
//! that the broker itself owns.
//!
//! One link per lane, with a constant id and one constant ASCII filter. Nothing that a client
//! chose ever enters the router as a topic, filter or id: a parcel's address travels in its
//! blob, which the router does not read. `docs/decisions/0002-rumqttd-seam.md` says why.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use rumqttd::{
    Router as Rumqttd, RouterConfig,
    local::{LinkBuilder, LinkRx, LinkTx},
    protocol::{
        Disconnect, DisconnectReasonCode, Filter, Packet, Publish, QoS, RetainForwardRule,
        Subscribe,
    },
};
use std::{sync::Arc, time::Duration};

/// The router's log of one lane, in bytes of topic and payload, which is all that the router
/// counts: what is charged to a lane stays below it, so that the log never overruns what is in
/// transit.
const SEGMENT_BYTES: usize = 256 * 1024;
const SEGMENTS: usize = 10;
/// What one lane may have in transit; two segments less than the log keeps.
pub(crate) const LANE_CREDIT: usize = SEGMENT_BYTES * (SEGMENTS - 2);
/// Length of a lane's topic. It stands for the router's own structures, which it does not count: it
/// keeps what it has delivered until the log is full, and so many small parcels fill it.
const TOPIC_BYTES: usize = 256;
/// How long the router may take to register a link. It takes 0.1 ms; one that died never does.
const LINK_TIMEOUT: Duration = Duration::from_secs(5);

/// What travels: the payload, and a blob that says for whom.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub payload: Bytes,
    pub blob: Bytes,
}

impl Parcel {
    /// In one piece, since the router counts nothing but payloads against the size of its log.
    fn join(self) -> Bytes {
        let Parcel { payload, blob } = self;
        let mut joined = BytesMut::with_capacity(4 + blob.len() + payload.len());
        joined.put_u32(blob.len() as u32);
        joined.put_slice(&blob);
        joined.put_slice(&payload);
        joined.freeze()
    }

    /// As it was; `None` would be an error of our own.
    fn split(mut joined: Bytes) -> Option<Self> {
        let len = joined.try_get_u32().ok()? as usize;
        (joined.len() >= len).then(|| Parcel { blob: joined.split_to(len), payload: joined })
    }
}

/// The router is dead, or does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the router does not answer: {0}")]
pub(crate) struct RouterError(String);

/// The sending half of a running router.
pub(crate) struct Router {
    ingresses: Vec<Mutex<LinkTx>>,
    topics: Vec<Bytes>,
    /// Its channel's other end has gone with its thread. A closure, since the type of the events
    /// has no name outside the crate.
    is_dead: Box<dyn Fn() -> bool + Send + Sync>,
    /// Panics its thread.
    #[cfg(feature = "faults")]
    kill: Box<dyn Fn() + Send + Sync>,
}

/// The receiving half of one lane.
pub(crate) struct LaneReader(LinkRx);

impl Router {
    /// Starts a router with this many lanes. Blocks for a few milliseconds: call it off the
    /// runtime's workers.
    pub fn start(lanes: usize) -> Result<(Arc<Router>, Vec<LaneReader>), RouterError> {
        let (done, started) = std::sync::mpsc::sync_channel(1);
        // Registering a link with a router that just died blocks for ever: give up on the thread.
        std::thread::Builder::new()
            .name("router-links".into())
            .spawn(move || {
                let _ = done.send(Self::link_all(lanes));
            })
            .map_err(|e| RouterError(e.to_string()))?;
        started.recv_timeout(LINK_TIMEOUT).map_err(|e| RouterError(e.to_string()))?
    }

    fn link_all(lanes: usize) -> Result<(Arc<Router>, Vec<LaneReader>), RouterError> {
        let config = RouterConfig {
            max_connections: lanes + 1,
            max_outgoing_packet_count: 200,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        };
        let events = Rumqttd::new(0, config).spawn();
        let mut ingresses = Vec::with_capacity(lanes);
        let mut readers = Vec::with_capacity(lanes);
        let mut topics = Vec::with_capacity(lanes);
        for lane in 0..lanes {
            let (mut tx, rx, _) = LinkBuilder::new(&format!("lane-{lane}"), events.clone())
                .clean_session(true)
                .build()
                .map_err(|e| RouterError(e.to_string()))?;
            let topic = format!("{:x<TOPIC_BYTES$}", format!("lane/{lane}/"));
            let filter = Filter {
                path: topic.clone(),
                qos: QoS::AtMostOnce,
                nolocal: false,
                preserve_retain: false,
                retain_forward_rule: RetainForwardRule::Never,
            };
            let subscribe = Packet::Subscribe(Subscribe { pkid: 1, filters: vec![filter] }, None);
            send(&mut tx, subscribe)?;
            ingresses.push(Mutex::new(tx));
            readers.push(LaneReader(rx));
            topics.push(Bytes::from(topic));
        }
        #[cfg(feature = "faults")]
        let kill = {
            let events = events.clone();
            // A link that has left and is then woken: what ends a router that is replaced, too.
            let fault = move || {
                let Ok((mut tx, rx, _)) = LinkBuilder::new("fault", events.clone()).build() else {
                    return;
                };
                let goodbye = Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection };
                let _ = send(&mut tx, Packet::Disconnect(goodbye, None));
                let _ = poll_now(rx.wake());
                while !events.is_disconnected() {
                    std::thread::yield_now();
                }
            };
            Box::new(fault)
        };
        let router = Router {
            ingresses,
            topics,
            is_dead: Box::new(move || events.is_disconnected()),
            #[cfg(feature = "faults")]
            kill,
        };
        Ok((Arc::new(router), readers))
    }

    /// Whether its thread runs.
    pub fn is_alive(&self) -> bool {
        !(self.is_dead)()
    }

    /// Panics its thread, and returns when it is gone. Blocks for a moment.
    #[cfg(feature = "faults")]
    pub fn kill(&self) {
        (self.kill)();
    }

    /// Appends a parcel to a lane, through one ingress. Order is kept per ingress and lane.
    pub fn send(&self, ingress: usize, lane: usize, parcel: Parcel) -> Result<(), RouterError> {
        // `Publish::new` makes QoS 0, which is all that a lane carries.
        let publish = Publish::new(self.topics[lane].clone(), parcel.join(), false);
        let packet = Packet::Publish(publish, None);
        let mut tx = self.ingresses[ingress % self.ingresses.len()].lock();
        {
            // While the buffer is not empty an event is outstanding, and the router will take
            // this packet with it: one event at most per ingress, so that nothing blocks here.
            let mut buffer = tx.buffer();
            if !buffer.is_empty() {
                buffer.push_back(packet);
                return Ok(());
            }
        }
        send(&mut tx, packet)
    }

    /// Takes all links away from the router. Each reader then says its [`LaneReader::last_word`].
    pub fn leave(&self) {
        for tx in &self.ingresses {
            let goodbye = Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection };
            // An error says that the router is gone already.
            let _ = send(&mut tx.lock(), Packet::Disconnect(goodbye, None));
        }
    }
}

/// `LinkTx::send` is asynchronous in name only: it never waits but for a full channel, which
/// one outstanding event per ingress excludes.
fn send(tx: &mut LinkTx, packet: Packet) -> Result<(), RouterError> {
    match poll_now(tx.send(packet)) {
        Some(Ok(_)) => Ok(()),
        Some(Err(e)) => Err(RouterError(e.to_string())),
        None => Err(RouterError("its event channel is full".into())),
    }
}

/// What a future says when it is asked once.
fn poll_now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut cx) {
        std::task::Poll::Ready(answer) => Some(answer),
        std::task::Poll::Pending => None,
    }
}

impl LaneReader {
    /// The next parcel.
    ///
    /// # Errors
    /// The router has died.
    pub async fn next(&mut self) -> Result<Parcel, RouterError> {
        loop {
            let notification = self.0.next().await.map_err(|e| RouterError(e.to_string()))?;
            let Some(notification) = notification else { continue };
            match Option::<Packet>::from(notification) {
                Some(Packet::Publish(publish, _)) => {
                    if let Some(parcel) = Parcel::split(publish.payload) {
                        return Ok(parcel);
                    }
                }
                // The acknowledgement of our subscription.
                Some(_) => {}
                // `Unschedule`: the router pauses after about 200 notifications until it is woken.
                None => self.0.wake().await.map_err(|e| RouterError(e.to_string()))?,
            }
        }
    }

    /// Ends the router's thread, after [`Router::leave`]. It holds its own sender and would never
    /// end by itself; a wake for an id that it has freed panics it, which is the only way.
    pub async fn last_word(self) {
        let _ = tokio::time::timeout(LINK_TIMEOUT, self.0.wake()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident memory of the process in bytes.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        1024 * line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    }

    /// The router keeps what it has delivered until its log is full. That log is bounded whatever a
    /// parcel consists of: here of a small message for very many.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_router_keeps_is_bounded() {
        const PARCELS: usize = 60_000;
        let (router, mut readers) = Router::start(1).unwrap();
        let before = resident();
        for n in 0..PARCELS {
            let payload = Bytes::from(n.to_be_bytes().to_vec());
            router.send(0, 0, Parcel { payload, blob: Bytes::from(vec![1; 1000]) }).unwrap();
            let parcel = readers[0].next().await.unwrap();
            assert_eq!((&*parcel.payload, parcel.blob.len()), (&n.to_be_bytes()[..], 1000));
        }
        // Kept for ever, they would be 100 MB; other tests run beside this one.
        let grown = resident().saturating_sub(before) >> 20;
        assert!(grown < 40, "{grown} MB more");
        router.leave();
        for reader in readers {
            reader.last_word().await;
        }
    }
}
