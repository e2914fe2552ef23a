//! `/api/v1/audit`: who did what to what, when, from where.

use axum::{Json, extract::State};
use fuota::AuditView;
use serde::{Deserialize, Serialize};

use crate::{extract::Query, page, problem::Problem, routes::App};

/// Which page.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// One page of lines.
#[derive(Debug, Serialize)]
pub struct ListView {
    audit: Vec<AuditView>,
    /// The `after` of the next page.
    next: Option<String>,
}

/// GET: one page, the newest first.
pub async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ListView>, Problem> {
    let limit = page::limit(query.limit)?;
    let before = page::number(query.after.as_deref())?;
    let lines = app.service.audit(before, limit + 1).await?;
    let (audit, next) = page::cut(lines, limit, |line| &line.id);
    Ok(Json(ListView { audit, next }))
}
