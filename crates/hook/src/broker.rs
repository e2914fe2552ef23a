//! The way back: what a plugin may ask of the broker.

use bytes::Bytes;
use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    client::{Identity, Protocol},
    message::{Properties, Qos, Subscription},
    verdict::Reason,
};

/// The broker, as plugins and the admin interface see it. Every call is quick and none blocks.
pub trait Broker: Send + Sync {
    /// Publishes as the broker itself: hooks are not asked, subscribers get it as any publish.
    fn publish(
        &self,
        topic: &str,
        payload: Bytes,
        qos: Qos,
        retain: bool,
        properties: Option<Properties>,
    );

    /// Ends a client's connection with this reason (MQTT 5 clients are told). The session stays
    /// if it is persistent. `false` where no such client is connected.
    fn disconnect(&self, client_id: &str, reason: &Reason) -> bool;

    /// Every session: the connected ones and the persistent ones that are away.
    fn clients(&self) -> Vec<ClientStatus>;

    /// One session.
    fn client(&self, client_id: &str) -> Option<ClientStatus>;

    /// The counters since the broker's start.
    fn counters(&self) -> Counters;
}

/// One session, at the moment of asking.
#[derive(Clone, Debug)]
pub struct ClientStatus {
    /// The client id.
    pub id: Arc<str>,
    /// Whether a connection holds the session now.
    pub connected: bool,
    /// Who the client proved to be, on its last connection.
    pub identity: Identity,
    /// The protocol version of its last connection.
    pub protocol: Protocol,
    /// The address of its last connection.
    pub address: Option<SocketAddr>,
    /// Since when it is connected, or away.
    pub since: Duration,
    /// How long ago its last packet arrived; `None` while it is away.
    pub idle: Option<Duration>,
    /// Messages waiting for it, in the session's queues and outbox.
    pub queued_messages: usize,
    /// The bytes of those.
    pub queued_bytes: usize,
    /// Publishes sent to it and not yet acknowledged.
    pub inflight: usize,
    /// Its subscriptions.
    pub subscriptions: Vec<Subscription>,
}

/// What happened since the start. Each number only grows, except the gauges that say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Gauge: connections that live now.
    pub connections: u64,
    /// Gauge: sessions, away ones included.
    pub sessions: u64,
    /// Gauge: subscriptions of all sessions.
    pub subscriptions: u64,
    /// Gauge: retained messages.
    pub retained_messages: u64,
    /// CONNECTs that were accepted.
    pub connects: u64,
    /// CONNECTs that were refused.
    pub connects_refused: u64,
    /// Of those, connections that were closed at once because `limits.connections` was reached.
    pub connections_refused: u64,
    /// Of those, connections that were closed at once because `limits.connections_per_ip` was
    /// reached.
    pub connections_refused_per_ip: u64,
    /// CONNECTs that waited for their turn under `limits.connects_per_second`.
    pub connects_delayed: u64,
    /// Of those, CONNECTs that were refused because they had waited too long.
    pub connects_refused_rate: u64,
    /// Publishes that arrived.
    pub publishes_received: u64,
    /// Publishes that a hook took out of the stream.
    pub publishes_consumed: u64,
    /// Publishes and subscriptions that a hook refused.
    pub refused: u64,
    /// Ordinary publishes handed to a connection's writer.
    pub deliveries: u64,
    /// Messages written from outboxes.
    pub outbox_messages: u64,
    /// Ordinary messages dropped because a queue or a lane was full, or because they expired.
    pub dropped: u64,
    /// QoS 0 copies handed over directly.
    pub direct: u64,
    /// QoS 0 copies that went through the router.
    pub routed: u64,
    /// Bytes written to the durable log; messages that nobody was promised are not in it.
    pub log_bytes: u64,
    /// Times that a dead or stuck router was replaced.
    pub router_renewals: u64,
    /// Connections ended because the client broke the protocol.
    pub protocol_errors: u64,
    /// Connections ended because the client read or sent too slowly.
    pub slow_clients: u64,
}
