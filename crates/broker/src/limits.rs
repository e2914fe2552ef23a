//! The limits in force: [`Limits`] that can change while the broker runs.

use std::{
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use crate::settings::Limits;

/// Each of [`Limits`], read without a lock wherever something is about to be taken in. A limit
/// that is lowered takes nothing away that is there: it says what may come from now on.
#[derive(Debug)]
pub(crate) struct LiveLimits(Fields);

#[derive(Debug, Default)]
struct Fields {
    connections: AtomicUsize,
    connections_per_ip: AtomicUsize,
    connects_per_second: AtomicU32,
    packet_bytes: AtomicUsize,
    session_expiry: AtomicU32,
    queue_messages: AtomicUsize,
    queue_bytes: AtomicUsize,
    inflight: AtomicU16,
    subscriptions: AtomicUsize,
    sessions: AtomicUsize,
    sessions_per_account: AtomicUsize,
    retained_messages: AtomicUsize,
    retained_bytes: AtomicUsize,
    publish_hold_micros: AtomicU64,
    keep_alive: AtomicU16,
}

impl Default for LiveLimits {
    fn default() -> Self {
        LiveLimits::new(&Limits::default())
    }
}

impl LiveLimits {
    pub fn new(limits: &Limits) -> Self {
        let live = LiveLimits(Fields::default());
        live.set(limits);
        live
    }

    /// From now on these.
    pub fn set(&self, limits: &Limits) {
        // Taken apart by name, so that a new limit cannot be forgotten here.
        let Limits {
            connections,
            connections_per_ip,
            connects_per_second,
            packet_bytes,
            session_expiry,
            queue_messages,
            queue_bytes,
            inflight,
            subscriptions,
            sessions,
            sessions_per_account,
            retained_messages,
            retained_bytes,
            publish_hold,
            keep_alive,
        } = *limits;
        self.0.connections.store(connections, Relaxed);
        self.0.connections_per_ip.store(connections_per_ip.unwrap_or(usize::MAX), Relaxed);
        self.0.connects_per_second.store(connects_per_second.unwrap_or(0), Relaxed);
        self.0.packet_bytes.store(packet_bytes, Relaxed);
        self.0.session_expiry.store(session_expiry.unwrap_or(u32::MAX), Relaxed);
        self.0.queue_messages.store(queue_messages, Relaxed);
        self.0.queue_bytes.store(queue_bytes, Relaxed);
        self.0.inflight.store(inflight, Relaxed);
        self.0.subscriptions.store(subscriptions, Relaxed);
        self.0.sessions.store(sessions, Relaxed);
        let most = sessions_per_account.unwrap_or(usize::MAX);
        self.0.sessions_per_account.store(most, Relaxed);
        self.0.retained_messages.store(retained_messages, Relaxed);
        self.0.retained_bytes.store(retained_bytes, Relaxed);
        let micros = u64::try_from(publish_hold.as_micros()).unwrap_or(u64::MAX);
        self.0.publish_hold_micros.store(micros, Relaxed);
        self.0.keep_alive.store(keep_alive.unwrap_or(0), Relaxed);
    }

    pub fn connections(&self) -> usize {
        self.0.connections.load(Relaxed)
    }

    /// `usize::MAX` where it is off.
    pub fn connections_per_ip(&self) -> usize {
        self.0.connections_per_ip.load(Relaxed)
    }

    /// `None` where it is off.
    pub fn connects_per_second(&self) -> Option<u32> {
        Some(self.0.connects_per_second.load(Relaxed)).filter(|rate| *rate > 0)
    }

    pub fn packet_bytes(&self) -> usize {
        self.0.packet_bytes.load(Relaxed)
    }

    /// In seconds; `u32::MAX` is for ever, and where it is off.
    pub fn session_expiry(&self) -> u32 {
        self.0.session_expiry.load(Relaxed)
    }

    pub fn queue_messages(&self) -> usize {
        self.0.queue_messages.load(Relaxed)
    }

    pub fn queue_bytes(&self) -> usize {
        self.0.queue_bytes.load(Relaxed)
    }

    pub fn inflight(&self) -> u16 {
        self.0.inflight.load(Relaxed)
    }

    pub fn subscriptions(&self) -> usize {
        self.0.subscriptions.load(Relaxed)
    }

    pub fn sessions(&self) -> usize {
        self.0.sessions.load(Relaxed)
    }

    /// `usize::MAX` where it is off.
    pub fn sessions_per_account(&self) -> usize {
        self.0.sessions_per_account.load(Relaxed)
    }

    pub fn retained_messages(&self) -> usize {
        self.0.retained_messages.load(Relaxed)
    }

    pub fn retained_bytes(&self) -> usize {
        self.0.retained_bytes.load(Relaxed)
    }

    pub fn publish_hold(&self) -> Duration {
        Duration::from_micros(self.0.publish_hold_micros.load(Relaxed))
    }

    /// In seconds; `None` where it is off.
    pub fn keep_alive(&self) -> Option<u16> {
        Some(self.0.keep_alive.load(Relaxed)).filter(|seconds| *seconds > 0)
    }
}
