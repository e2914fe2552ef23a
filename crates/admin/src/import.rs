//! `/api/v1/import`: devices and users, all or none.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use fuota::Import;
use serde::Deserialize;

use crate::{
    extract::{Key, Query, Rows, Who},
    page::made,
    problem::Problem,
    routes::App,
};

/// Whether to add, or only to say whether that would be possible.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImportQuery {
    dry_run: bool,
}

/// POST: tokens that were made up are in the answer and never again, but to a repetition with the
/// same `Idempotency-Key`, which is answered with 200.
pub async fn import(
    State(app): State<App>,
    Query(query): Query<ImportQuery>,
    Who(actor): Who,
    Key(key): Key,
    Rows(rows): Rows<Import>,
) -> Result<Response, Problem> {
    let (imported, is_new) =
        app.service.import(rows, query.dry_run, key.as_deref(), &actor).await?;
    Ok(match query.dry_run {
        true => StatusCode::NO_CONTENT.into_response(),
        false => (made(is_new), axum::Json(imported)).into_response(),
    })
}
