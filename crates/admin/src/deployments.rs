//! `/api/v1/deployments`.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use fuota::{Act, Acted, Actor, DeploymentPatch, DeploymentView, MemberView, NewDeployment};
use serde::{Deserialize, Serialize};

use crate::{
    extract::{Id, Json, Key, Nothing, Query, Who},
    page::{self, made},
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
    let state = page::one_of("state", query.state.as_deref(), &fuota::DEPLOYMENT_STATES)?;
    let found = app.service.deployments(before, state, limit + 1);
    let (deployments, next) = page::cut(found, limit, |one| &one.id);
    Ok(axum::Json(ListView { deployments, next }))
}

/// GET one, with how far it is.
pub async fn one(
    State(app): State<App>,
    Id(id): Id,
    Query(Nothing {}): Query<Nothing>,
) -> Result<axum::Json<DeploymentView>, Problem> {
    let found = page::read_number(&id).and_then(|number| app.service.deployment(number));
    found.map(axum::Json).ok_or_else(|| unknown(&id))
}

/// PATCH one: what is not named stays.
pub async fn change(
    State(app): State<App>,
    Id(id): Id,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
    Json(patch): Json<DeploymentPatch>,
) -> Result<axum::Json<DeploymentView>, Problem> {
    let number = page::read_number(&id).ok_or_else(|| unknown(&id))?;
    Ok(axum::Json(app.service.change_deployment(number, &patch, &actor).await?))
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
    Key(key): Key,
    Json(new): Json<NewDeployment>,
) -> Result<Response, Problem> {
    if query.dry_run {
        return Ok(axum::Json(app.service.plan_deployment(&new)?).into_response());
    }
    let (view, is_new) = app.service.create_deployment(new, key, &actor).await?;
    let location = [(header::LOCATION, format!("/api/v1/deployments/{}", view.id))];
    Ok((made(is_new), location, axum::Json(view)).into_response())
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
    let number = page::read_number(&id).ok_or_else(|| unknown(&id))?;
    let found = app.service.deployment_devices(number, query.after.as_deref(), limit + 1);
    let (devices, next) = page::cut(found.ok_or_else(|| unknown(&id))?, limit, |one| &one.device);
    Ok(axum::Json(DevicesView { devices, next }))
}

/// Which device a cancel or a retry is for; none: all.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceQuery {
    device: Option<String>,
}

/// POST `/{id}/approve`, and each other act by its name; the handler of one.
pub fn act(act: Act) -> MethodRouter<App> {
    post(
        async move |State(app): State<App>,
                    Id(id): Id,
                    Query(Nothing {}): Query<Nothing>,
                    Who(actor): Who| { do_act(&app, &id, act, None, &actor).await },
    )
}

/// POST `/{id}/cancel` and `/{id}/retry`, for all devices or for one; the handler of one.
pub fn act_for(act: Act) -> MethodRouter<App> {
    post(
        async move |State(app): State<App>,
                    Id(id): Id,
                    Query(query): Query<DeviceQuery>,
                    Who(actor): Who| {
            do_act(&app, &id, act, query.device.as_deref(), &actor).await
        },
    )
}

async fn do_act(
    app: &App,
    id: &str,
    act: Act,
    device: Option<&str>,
    actor: &Actor,
) -> Result<axum::Json<Acted>, Problem> {
    let number = page::read_number(id).ok_or_else(|| unknown(id))?;
    Ok(axum::Json(app.service.act_on_deployment(number, act, device, actor).await?))
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("there is no deployment {id:?}"))
}
