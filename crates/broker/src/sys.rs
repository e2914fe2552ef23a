//! Statistics for whoever subscribes below `$SYS`, by the names that other brokers use.

use hook::{Broker, Counters, Qos};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often they are published.
const EVERY: Duration = Duration::from_secs(10);

/// A topic below `$SYS/broker/` and the counter behind it.
type Statistic = (&'static str, fn(&Counters) -> u64);

const STATISTICS: &[Statistic] = &[
    ("clients/connected", |c| c.connections),
    ("clients/total", |c| c.sessions),
    ("clients/disconnected", |c| c.sessions.saturating_sub(c.connections)),
    ("subscriptions/count", |c| c.subscriptions),
    ("retained messages/count", |c| c.retained_messages),
    ("publish/messages/received", |c| c.publishes_received),
    ("publish/messages/sent", |c| c.deliveries + c.outbox_messages),
    ("publish/messages/dropped", |c| c.dropped),
    ("publish/messages/refused", |c| c.refused),
    ("retained messages/refused", |c| c.not_retained),
    ("connections/accepted", |c| c.connects),
    ("connections/refused", |c| c.connects_refused),
    ("protocol errors", |c| c.protocol_errors),
    ("slow clients", |c| c.slow_clients),
];

/// Publishes version, uptime and statistics as retained messages, at once and then every ten
/// seconds, until cancelled.
pub(crate) async fn publish_statistics(broker: Arc<dyn Broker>, cancel: CancellationToken) {
    let started = Instant::now();
    let publish = |name: &str, value: String| {
        let topic = format!("$SYS/broker/{name}");
        broker.publish(&topic, value.into(), Qos::AtMostOnce, true, None);
    };
    publish("version", concat!("fuotad ", env!("CARGO_PKG_VERSION")).into());
    loop {
        let counters = broker.counters();
        publish("uptime", format!("{} seconds", started.elapsed().as_secs()));
        for (name, read) in STATISTICS {
            publish(name, read(&counters).to_string());
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = cancel.cancelled() => return,
        }
    }
}
