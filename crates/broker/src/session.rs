//! What outlives a connection.

use hook::{Client, Subscription};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    backlog::Backlog, behind::Behind, inbox::Inbox, limits::LiveLimits, message::Message,
    outbound::Window, quota::Place, subscriptions::Subscriptions,
};

/// One session: found by its client id, held by at most one connection at a time.
pub(crate) struct Session {
    /// Unique in the life of the data directory, never 0.
    pub key: u64,
    /// The client id.
    pub client_id: Arc<str>,
    /// The lane that QoS 0 takes to it under load.
    pub lane: usize,
    /// Its queues.
    pub inbox: Inbox,
    /// Held, as a lock, by the connection that serves it: whoever waits for the lock waits for
    /// that connection to end.
    pub state: Arc<tokio::sync::Mutex<State>>,
    /// Counts claims. A connection whose claim is not the last one gives way.
    pub claims: AtomicU64,
    /// Counts the connections that served it: what was to happen after one of them is void when
    /// there is another.
    pub connections: AtomicU64,
    /// What is to happen while it is away, by its key in the registry.
    pub jobs: Mutex<Vec<(Instant, u64)>>,
    /// Its subscriptions by filter. Only its connection changes them.
    pub subscriptions: Mutex<Subscriptions>,
    /// What the operator sees.
    pub view: Mutex<View>,
    /// Publishes sent and not yet acknowledged, for the operator.
    pub inflight: AtomicUsize,
    /// When its last packet came, in [`clock_ms`]; or when it took something, while it was not read.
    pub last_packet: AtomicU64,
    /// Nothing is read from its client, for reasons that are not the client's.
    held: AtomicBool,
    /// Where it stands in [`crate::keep_alive`], which alone changes this.
    pub deadline: AtomicU64,
    /// Where it lasts without a connection.
    pub place: Mutex<Option<Place>>,
    /// It stands in the broker's log, and what is promised to it is written there.
    durable: AtomicBool,
}

/// Milliseconds since the first call in this process: an [`Instant`] that fits an atomic.
pub(crate) fn clock_ms() -> u64 {
    ms_at(Instant::now())
}

/// The same at another moment.
pub(crate) fn ms_at(moment: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(moment.saturating_duration_since(*START).as_millis()).unwrap_or(u64::MAX)
}

/// The last connection, for `clients` and for hooks that run without one (a delayed will).
pub(crate) struct View {
    /// As hooks saw it; `None` before the first connection is complete.
    pub client: Option<Arc<Client>>,
    /// Since when it is connected, or away.
    pub since: Instant,
}

impl View {
    /// A session that the log describes: away since the broker's start.
    pub fn restored(client: Client) -> Self {
        View { client: Some(Arc::new(client)), since: Instant::now() }
    }
}

/// The part of a session that only its connection touches.
#[derive(Default)]
pub(crate) struct State {
    /// Taken out of the registry; a new session must be made.
    pub ended: bool,
    /// Whether it has been used: `session present` in the next CONNACK.
    pub present: bool,
    /// Publishes sent and not yet acknowledged.
    pub window: Window,
    /// Packet ids of QoS 2 publishes received and not yet released.
    pub received: BTreeSet<u16>,
    /// Retained messages that it was promised, while no connection has them.
    pub backlog: Option<Box<Backlog>>,
    /// What its records come behind.
    pub behind: Behind,
    /// The will that stands for the current connection, or is delayed after it.
    pub will: Option<Will>,
    /// How long it outlives its connection; `None` is for ever.
    pub expiry: Option<Duration>,
}

/// A will, ready to be published.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    /// The message; its expiry counts from the moment of publication.
    pub message: Arc<Message>,
    /// How long after the connection.
    pub delay: Duration,
}

impl Session {
    pub fn new(key: u64, client_id: Arc<str>, lane: usize, limits: Arc<LiveLimits>) -> Self {
        Session {
            key,
            client_id,
            lane,
            inbox: Inbox::new(limits),
            state: Arc::default(),
            claims: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            jobs: Mutex::default(),
            subscriptions: Mutex::default(),
            view: Mutex::new(View { client: None, since: Instant::now() }),
            inflight: AtomicUsize::new(0),
            last_packet: AtomicU64::new(clock_ms()),
            held: AtomicBool::new(false),
            deadline: AtomicU64::new(0),
            place: Mutex::default(),
            durable: AtomicBool::new(false),
        }
    }

    /// Whether it stands in the broker's log.
    pub fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Acquire)
    }

    /// Decided when a connection begins with it.
    pub fn set_durable(&self, durable: bool) {
        self.durable.store(durable, Ordering::Release);
    }

    /// What its client says is not heard from now on, or is again.
    pub fn hold(&self, held: bool) {
        if self.held.load(Ordering::Relaxed) != held {
            self.last_packet.store(clock_ms(), Ordering::Relaxed);
            self.held.store(held, Ordering::Release);
        }
    }

    /// When its client was last heard, in [`clock_ms`]: now, where it cannot be.
    pub fn last_heard(&self) -> u64 {
        match self.held.load(Ordering::Acquire) {
            true => clock_ms(),
            false => self.last_packet.load(Ordering::Relaxed),
        }
    }

    /// Registers a claim and returns its number.
    pub fn claim(&self) -> u64 {
        self.claims.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether no newer claim has been made.
    pub fn is_last_claim(&self, claim: u64) -> bool {
        self.claims.load(Ordering::Acquire) == claim
    }

    /// Its subscriptions in the words of hooks.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        let held = self.subscriptions.lock();
        held.iter()
            .map(|(filter, held)| Subscription { filter: filter.to_string(), qos: held.qos })
            .collect()
    }

    #[cfg(any(test, fuzzing))]
    pub fn for_test(key: u64) -> Arc<Self> {
        Arc::new(Session::new(key, format!("s{key}").into(), 0, Arc::default()))
    }
}
