//! `/api/v1/status`: the whole daemon at a glance.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use fuota::SiteStatus;
use hook::Counters;
use serde::Serialize;

use crate::{
    extract::{Nothing, Query},
    health::{self, ReadyView},
    routes::App,
};

/// The daemon at a glance.
#[derive(Debug, Serialize)]
pub struct StatusView {
    version: String,
    uptime_seconds: u64,
    #[serde(flatten)]
    ready: ReadyView,
    broker: BrokerView,
    fuota: SiteStatus,
    /// What dialects tolerated since the start, by dialect and name.
    quirks: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
}

/// The names of the broker's counters.
pub const COUNTERS: [&str; 22] = [
    "connections",
    "sessions",
    "subscriptions",
    "retained_messages",
    "connects",
    "connects_refused",
    "connections_refused",
    "connections_refused_per_ip",
    "connects_delayed",
    "connects_refused_rate",
    "publishes_received",
    "publishes_consumed",
    "refused",
    "deliveries",
    "outbox_messages",
    "dropped",
    "direct",
    "routed",
    "log_bytes",
    "router_renewals",
    "protocol_errors",
    "slow_clients",
];

/// The broker's counters since the start; the first four are of now.
#[derive(Debug, Serialize)]
struct BrokerView {
    connections: u64,
    sessions: u64,
    subscriptions: u64,
    retained_messages: u64,
    connects: u64,
    connects_refused: u64,
    connections_refused: u64,
    connections_refused_per_ip: u64,
    connects_delayed: u64,
    connects_refused_rate: u64,
    publishes_received: u64,
    publishes_consumed: u64,
    refused: u64,
    deliveries: u64,
    outbox_messages: u64,
    dropped: u64,
    direct: u64,
    routed: u64,
    log_bytes: u64,
    router_renewals: u64,
    protocol_errors: u64,
    slow_clients: u64,
}

impl From<Counters> for BrokerView {
    fn from(counters: Counters) -> Self {
        // Taken apart by name, so that a new counter cannot be forgotten here.
        let Counters {
            connections,
            sessions,
            subscriptions,
            retained_messages,
            connects,
            connects_refused,
            connections_refused,
            connections_refused_per_ip,
            connects_delayed,
            connects_refused_rate,
            publishes_received,
            publishes_consumed,
            refused,
            deliveries,
            outbox_messages,
            dropped,
            direct,
            routed,
            log_bytes,
            router_renewals,
            protocol_errors,
            slow_clients,
        } = counters;
        BrokerView {
            connections,
            sessions,
            subscriptions,
            retained_messages,
            connects,
            connects_refused,
            connections_refused,
            connections_refused_per_ip,
            connects_delayed,
            connects_refused_rate,
            publishes_received,
            publishes_consumed,
            refused,
            deliveries,
            outbox_messages,
            dropped,
            direct,
            routed,
            log_bytes,
            router_renewals,
            protocol_errors,
            slow_clients,
        }
    }
}

/// GET.
pub async fn status(State(app): State<App>, Query(Nothing {}): Query<Nothing>) -> Json<StatusView> {
    let mut quirks = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (dialect, name, met) in app.service.quirks() {
        quirks.entry(dialect).or_default().insert(name, met);
    }
    Json(StatusView {
        version: app.version.to_string(),
        uptime_seconds: app.started.elapsed().as_secs(),
        ready: health::ready_view(&app.readiness),
        broker: app.broker.counters().into(),
        fuota: app.service.status(),
        quirks,
    })
}
