//! What the daemon decides for the broker.

use std::time::Duration;

use crate::journal::Persistence;

/// Everything that the broker is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// How long an accepted socket may take until its CONNECT is complete.
    pub connect_timeout: Duration,
    /// How long a CONNECT waits for its turn where `connects_per_second` is set.
    pub connect_patience: Duration,
    /// How long a client may read nothing of what it is sent, or leave a packet unfinished; the
    /// longer of this and 1.5 times its keep alive counts.
    pub stall: Duration,
    /// How often expired messages are looked for, retained ones and those that wait for sessions
    /// that are away. They are never sent, but take room.
    pub forget_every: Duration,
    /// Lanes through the router, one per worker thread by default.
    pub lanes: usize,
    /// How long an orderly stop waits for connections to say goodbye.
    pub drain: Duration,
    /// Where sessions and retained messages survive the process; `None` where they do not.
    pub persistence: Option<Persistence>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            limits: Limits::default(),
            connect_timeout: Duration::from_secs(10),
            connect_patience: Duration::from_secs(5),
            stall: Duration::from_secs(60),
            forget_every: Duration::from_secs(60),
            lanes: std::thread::available_parallelism().map_or(2, usize::from),
            drain: Duration::from_secs(5),
            persistence: None,
        }
    }
}

/// Bounds, so that memory is bounded by configuration and one client harms nobody else.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once, all listeners together.
    pub connections: usize,
    /// Connections at once of one address (of IPv6: of one network of 64 bits), all listeners
    /// together; `None` is no bound.
    pub connections_per_ip: Option<usize>,
    /// CONNECTs a second, of all clients together; `None` is no bound.
    pub connects_per_second: Option<u32>,
    /// The largest packet taken from a client, in bytes on the wire, header included.
    pub packet_bytes: usize,
    /// The longest that a session outlives its connection, in seconds, whatever its client asks
    /// for; `None` is no bound.
    pub session_expiry: Option<u32>,
    /// Messages waiting for one session; a connected subscriber's queue that stays full for
    /// `publish_hold` disconnects it, an absent one's drops the newest. QoS 0 makes room for the
    /// others.
    pub queue_messages: usize,
    /// Bytes waiting for one session, counted as payload, topic, properties and 64 bytes a
    /// message. A user property counts as another 64 bytes beside its name and value.
    pub queue_bytes: usize,
    /// Unacknowledged QoS 1 and 2 publishes in each direction of one session.
    pub inflight: u16,
    /// Subscriptions of one session.
    pub subscriptions: usize,
    /// Sessions that last without a connection, those of connected clients included. Twice as
    /// many as connections, by default: who is away for good is forgotten when its expiry ends.
    pub sessions: usize,
    /// The same of one account; `None` is no bound.
    pub sessions_per_account: Option<usize>,
    /// Retained messages of all topics.
    pub retained_messages: usize,
    /// Bytes of all retained messages, counted as those of queues.
    pub retained_bytes: usize,
    /// How long a QoS 1 or 2 publish waits for a full subscriber before that one is ended.
    pub publish_hold: Duration,
    /// The longest keep alive of an MQTT 5 client, in seconds; `None` is no bound.
    pub keep_alive: Option<u16>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 100_000,
            connections_per_ip: None,
            connects_per_second: None,
            packet_bytes: 1024 * 1024,
            session_expiry: None,
            queue_messages: 1_000,
            queue_bytes: 8 * 1024 * 1024,
            inflight: 64,
            subscriptions: 1_000,
            sessions: 200_000,
            sessions_per_account: Some(1_000),
            retained_messages: 100_000,
            retained_bytes: 64 * 1024 * 1024,
            publish_hold: Duration::from_secs(1),
            keep_alive: None,
        }
    }
}
