//! `/api/v1/firmware`: every file that was dropped, the refused and held ones with the reason.

use axum::{Json, extract::State};
use fuota::FirmwareView;
use serde::{Deserialize, Serialize};

use crate::{
    extract::{Id, Query},
    page,
    problem::Problem,
    routes::App,
};

/// Which page.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// One page of files.
#[derive(Debug, Serialize)]
pub struct ListView {
    firmware: Vec<FirmwareView>,
    /// The `after` of the next page.
    next: Option<String>,
}

/// GET: one page, in the order of the ids.
pub async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ListView>, Problem> {
    let limit = page::limit(query.limit)?;
    let (firmware, next) =
        page::of(app.service.firmware(), query.after.as_deref(), limit, |file| &file.id);
    Ok(Json(ListView { firmware, next }))
}

/// GET one.
pub async fn one(State(app): State<App>, Id(id): Id) -> Result<Json<FirmwareView>, Problem> {
    app.service
        .firmware_one(&id)
        .map(Json)
        .ok_or_else(|| Problem::not_found(format!("there is no firmware {id:?}")))
}
