//! `/healthz` and `/readyz`, for supervisors and load balancers; they need no token.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::routes::App;

/// One part of the daemon that must be up.
#[derive(Clone, Debug)]
pub struct Check {
    /// What is checked: `mqtt`, `store`, `database`.
    pub name: &'static str,
    /// `Err` says in one sentence why it is not up.
    pub result: Result<(), String>,
}

/// Asks all parts. It must be quick and must not block.
pub type Readiness = Arc<dyn Fn() -> Vec<Check> + Send + Sync>;

/// A [`Check`] as JSON.
#[derive(Debug, Serialize)]
pub struct CheckView {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// All checks, and whether all are well.
#[derive(Debug, Serialize)]
pub struct ReadyView {
    ready: bool,
    checks: Vec<CheckView>,
}

/// Asks all parts.
pub fn ready_view(readiness: &Readiness) -> ReadyView {
    let checks: Vec<CheckView> = readiness()
        .into_iter()
        .map(|check| CheckView {
            name: check.name,
            ok: check.result.is_ok(),
            reason: check.result.err(),
        })
        .collect();
    ReadyView { ready: checks.iter().all(|check| check.ok), checks }
}

/// The process lives and answers: nothing more.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 where everything is up, 503 with the reasons where something is not.
pub async fn readyz(State(app): State<App>) -> Response {
    let view = ready_view(&app.readiness);
    let status = if view.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(view)).into_response()
}
