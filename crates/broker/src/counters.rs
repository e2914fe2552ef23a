//! Counting without a shared cache line per message.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! tally {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What one connection counted since it last [flushed](Tally::flush).
        #[derive(Default, Debug)]
        pub(crate) struct Tally { $($(#[$doc])* pub $name: u32,)* }

        /// The broker's totals since its start.
        #[derive(Default, Debug)]
        pub(crate) struct Totals {
            $($(#[$doc])* pub $name: AtomicU64,)*
            /// From the read of an ordinary publish to its acknowledgement, at QoS 0 to its
            /// hand-over.
            pub publish_time: hook::Histogram,
        }

        impl Tally {
            /// Adds what was counted to the totals and starts again at nothing.
            pub fn flush(&mut self, totals: &Totals) {
                $(if self.$name != 0 {
                    totals.$name.fetch_add(u64::from(std::mem::take(&mut self.$name)), Relaxed);
                })*
            }
        }
    };
}

tally! {
    /// CONNECTs that were accepted.
    connects,
    /// CONNECTs that were refused.
    connects_refused,
    /// Publishes that arrived.
    publishes_received,
    /// Publishes that a hook took.
    publishes_consumed,
    /// Publishes and subscriptions that a hook or a rule refused.
    refused,
    /// Ordinary publishes handed to the writer.
    deliveries,
    /// Messages written from outboxes.
    outbox_messages,
    /// Ordinary messages dropped: full queue, no credit, expired.
    dropped,
    /// Publishes that were to be retained and were not: refused, or only delivered.
    not_retained,
    /// QoS 0 copies handed over directly.
    direct,
    /// QoS 0 copies that went through the router.
    routed,
    /// Routers replaced.
    router_renewals,
    /// Connections ended because the client broke the protocol.
    protocol_errors,
    /// Connections ended because the client read or sent too slowly.
    slow_clients,
}

impl Totals {
    /// Adds one; for events that are rare.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}
