//! `/api/v1/freeze`: whether all offers of the site are stopped.

use axum::{Json, extract::State};
use fuota::FreezeView;

use crate::{
    extract::{Nothing, Query, Who},
    problem::Problem,
    routes::App,
};

/// GET.
pub async fn show(State(app): State<App>, Query(Nothing {}): Query<Nothing>) -> Json<FreezeView> {
    Json(app.service.frozen())
}

/// PUT: stops them; what runs finishes.
pub async fn freeze(
    State(app): State<App>,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
) -> Result<Json<FreezeView>, Problem> {
    Ok(Json(app.service.freeze(true, &actor).await?))
}

/// DELETE: lets them go on.
pub async fn unfreeze(
    State(app): State<App>,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
) -> Result<Json<FreezeView>, Problem> {
    Ok(Json(app.service.freeze(false, &actor).await?))
}
