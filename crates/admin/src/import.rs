//! `/api/v1/import`: devices and users, all or none.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use fuota::Import;
use serde::Deserialize;

use crate::{
    extract::{Query, Rows},
    problem::Problem,
    routes::App,
};

/// Whether to add, or only to say whether that would be possible.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImportQuery {
    dry_run: bool,
}

/// POST: tokens that were made up are in the answer and never again.
pub async fn import(
    State(app): State<App>,
    Query(query): Query<ImportQuery>,
    Rows(rows): Rows<Import>,
) -> Result<Response, Problem> {
    let imported = app.service.import(rows, query.dry_run).await?;
    Ok(match query.dry_run {
        true => StatusCode::NO_CONTENT.into_response(),
        false => (StatusCode::CREATED, axum::Json(imported)).into_response(),
    })
}
