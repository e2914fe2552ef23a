//! The way back: what a plugin may ask of the broker.

use bytes::Bytes;
use serde::Serialize;
use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    client::{Identity, Protocol},
    histogram::Distribution,
    message::{Properties, Qos, Subscription},
    phase::BoxFuture,
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

    /// Publishes as the broker itself to those sessions alone whose client `may` hear it, on its
    /// last connection; the others get nothing, whatever they have subscribed to. It is not
    /// retained.
    fn publish_to(&self, topic: &str, payload: Bytes, qos: Qos, may: &dyn Fn(&Identity) -> bool);

    /// Ends a client's connection with this reason (MQTT 5 clients are told). The session stays
    /// if it is persistent. `false` where no such client is connected.
    fn disconnect(&self, client_id: &str, reason: &Reason) -> bool;

    /// Ends the sessions of those accounts, connected or away, with all that they hold, in the
    /// durable log as well: the account is gone, and nobody can come back to them. Connected
    /// clients are told this reason. Wills that they gave are published, as at any end of a
    /// session. The future says `true` when they have ended and the log has it, however long that
    /// takes, and `false` where the broker stops before; it need not be awaited.
    fn end_sessions(
        &self,
        of: &dyn Fn(&Identity) -> bool,
        reason: &Reason,
    ) -> BoxFuture<'static, bool>;

    /// Every session: the connected ones and the persistent ones that are away. Without their
    /// subscriptions.
    fn clients(&self) -> Vec<ClientStatus>;

    /// Some of them, in the order of their client ids. Without their subscriptions.
    fn clients_page(&self, query: &ClientQuery) -> Vec<ClientStatus>;

    /// One session, with its subscriptions.
    fn client(&self, client_id: &str) -> Option<ClientStatus>;

    /// At most `limit` retained messages that a filter matches, from the beginning or behind the
    /// `next` of an earlier page.
    ///
    /// # Errors
    /// It is no topic filter, or one of a shared subscription.
    fn retained(
        &self,
        filter: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<RetainedPage, Reason>;

    /// Forgets the retained messages that a filter matches, and says how many there were. Who
    /// subscribes to their topics hears nothing of it; a message that is published meanwhile
    /// stays.
    ///
    /// # Errors
    /// As [`Broker::retained`]; a filter of topics below `$`, which are the broker's own; or the
    /// broker's log cannot be written, so that they would be back after a restart.
    fn remove_retained(&self, filter: &str) -> Result<usize, Reason>;

    /// The counters since the broker's start.
    fn counters(&self) -> Counters;

    /// From the read of an ordinary publish to its acknowledgement, at QoS 0 to its hand-over to
    /// its receivers, since the broker's start.
    fn publish_time(&self) -> Distribution;
}

/// Which sessions, and how many.
#[derive(Clone, Debug, Default)]
pub struct ClientQuery {
    /// What their client ids begin with.
    pub prefix: String,
    /// Only those behind this client id.
    pub after: Option<String>,
    /// Only those that are connected, or only those that are away.
    pub connected: Option<bool>,
    /// How many at most.
    pub limit: usize,
}

/// The retained message of one topic.
#[derive(Clone, Debug)]
pub struct RetainedMessage {
    /// The topic.
    pub topic: Arc<str>,
    /// The payload, never empty.
    pub payload: Bytes,
    /// The publisher's quality of service.
    pub qos: Qos,
    /// Seconds until it expires; `None` where it does not.
    pub expires_in: Option<u32>,
}

/// Some retained messages, in the order of their topics' levels.
#[derive(Clone, Debug, Default)]
pub struct RetainedPage {
    /// The messages: perhaps fewer than were asked for, or none, although there are more.
    pub messages: Vec<RetainedMessage>,
    /// Behind which topic the next page begins; `None` where there is nothing more.
    pub next: Option<Box<str>>,
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
    /// How many subscriptions it has.
    pub subscription_count: usize,
    /// Its subscriptions, where one session was asked for; else empty.
    pub subscriptions: Vec<Subscription>,
}

/// What happened since the start. Each number only grows, except the gauges that say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
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
    /// Retained publishes for which `limits.retained_messages` or `limits.retained_bytes` left no
    /// room: refused where the publisher could be told, else delivered and not retained.
    pub not_retained: u64,
    /// QoS 0 copies handed over directly.
    pub direct: u64,
    /// QoS 0 copies that went through the router.
    pub routed: u64,
    /// Bytes written to the durable log; messages that nobody was promised are not in it.
    pub log_bytes: u64,
    /// Bytes of what is to be written to it and is not yet.
    pub log_waiting: u64,
    /// Times that a dead or stuck router was replaced.
    pub router_renewals: u64,
    /// Connections ended because the client broke the protocol.
    pub protocol_errors: u64,
    /// Connections ended because the client read or sent too slowly.
    pub slow_clients: u64,
}
