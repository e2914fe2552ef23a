//! `/api/v1/deployments`.

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use fuota::{Act, Acted, DeploymentView, MemberView, NewDeployment};
use serde::{Deserialize, Serialize};

use crate::{
    extract::{Id, Json, Query, Who},
    page,
    problem::Problem,
    routes::App,
};

/// Which deployments, and which page of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
    state: Option<String>,
}

/// One page of deployments.
#[derive(Debug, Serialize)]
pub struct ListView {
    deployments: Vec<DeploymentView>,
    /// The `after` of the next page.
    next: Option<String>,
}

/// GET: one page, the newest first.
pub async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<ListView>, Problem> {
    let limit = page::limit(query.limit)?;
    let before = page::number(query.after.as_deref())?;
    let found = app.service.deployments(before, query.state.as_deref(), limit + 1);
    let (deployments, next) = page::cut(found, limit, |one| &one.id);
    Ok(axum::Json(ListView { deployments, next }))
}

/// GET one, with how far it is.
pub async fn one(
    State(app): State<App>,
    Id(id): Id,
) -> Result<axum::Json<DeploymentView>, Problem> {
    let found = id.parse().ok().and_then(|number| app.service.deployment(number));
    found.map(axum::Json).ok_or_else(|| unknown(&id))
}

/// Whether to make it, or only to say what it would do.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateQuery {
    dry_run: bool,
}

/// POST: makes a deployment. With `Idempotency-Key` the request may be repeated: the second
/// answer is 200 with the first one's deployment.
pub async fn create(
    State(app): State<App>,
    Query(query): Query<CreateQuery>,
    Who(actor): Who,
    headers: HeaderMap,
    Json(new): Json<NewDeployment>,
) -> Result<Response, Problem> {
    if query.dry_run {
        return Ok(axum::Json(app.service.plan_deployment(&new)?).into_response());
    }
    let key = headers.get("idempotency-key").map(|key| key.to_str().map(str::to_owned));
    let key = key
        .transpose()
        .map_err(|_| Problem::bad_request("the Idempotency-Key header is not text"))?;
    let (view, is_new) = app.service.create_deployment(new, key, &actor).await?;
    let location = [(header::LOCATION, format!("/api/v1/deployments/{}", view.id))];
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, location, axum::Json(view)).into_response())
}

/// Which page of the devices.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DevicesQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// One page of a deployment's devices.
#[derive(Debug, Serialize)]
pub struct DevicesView {
    devices: Vec<MemberView>,
    /// The `after` of the next page.
    next: Option<String>,
}

/// GET the devices of one: those that were offered it, and those that are meant and were not,
/// with the reason.
pub async fn devices(
    State(app): State<App>,
    Id(id): Id,
    Query(query): Query<DevicesQuery>,
) -> Result<axum::Json<DevicesView>, Problem> {
    let limit = page::limit(query.limit)?;
    let number = id.parse().map_err(|_| unknown(&id))?;
    let found = app.service.deployment_devices(number, query.after.as_deref(), limit + 1);
    let (devices, next) = page::cut(found.ok_or_else(|| unknown(&id))?, limit, |one| &one.device);
    Ok(axum::Json(DevicesView { devices, next }))
}

/// Which device a retry is for; none: all.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActQuery {
    device: Option<String>,
}

/// POST `/{id}/approve|pause|resume|cancel|retry|rollback`.
pub async fn act(
    State(app): State<App>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
    Query(query): Query<ActQuery>,
    Who(actor): Who,
) -> Result<axum::Json<Acted>, Problem> {
    let Path((id, act)) =
        path.map_err(|_| Problem::bad_request("the address cannot be used: it is not text"))?;
    let act = Act::from_name(&act).ok_or_else(|| {
        Problem::not_found(format!(
            "a deployment knows approve, pause, resume, cancel, retry and rollback, not {act:?}"
        ))
    })?;
    let number = id.parse().map_err(|_| unknown(&id))?;
    let device = query.device.as_deref();
    if device.is_some() && act != Act::Retry {
        return Err(Problem::bad_request("only a retry can be for one device"));
    }
    Ok(axum::Json(app.service.act_on_deployment(number, act, device, &actor).await?))
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("there is no deployment {id:?}"))
}
