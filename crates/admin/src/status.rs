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
    /// Since the start; the first four are of now.
    broker: Counters,
    fuota: SiteStatus,
    /// What dialects tolerated since the start, by dialect and name.
    quirks: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
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
        broker: app.broker.counters(),
        fuota: app.service.status(),
        quirks,
    })
}
