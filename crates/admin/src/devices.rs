//! `/api/v1/devices`.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use fuota::{DevicePatch, DeviceQuery, DeviceView, HappeningView, NewDevice, WhyView};
use serde::{Deserialize, Serialize};

use crate::{
    extract::{Id, Json, Key, Nothing, Query, Who},
    page::{self, made},
    problem::Problem,
    routes::App,
};

/// Which devices, and which page of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
    online: Option<bool>,
    registered: Option<bool>,
    group: Option<String>,
    model: Option<String>,
    state: Option<String>,
    version: Option<String>,
    digest: Option<String>,
    search: Option<String>,
}

/// One page of devices.
#[derive(Debug, Serialize)]
pub struct ListView {
    devices: Vec<DeviceView>,
    /// The `after` of the next page.
    next: Option<String>,
}

/// GET: one page, in the order of the ids.
pub async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<ListView>, Problem> {
    let limit = page::limit(query.limit)?;
    page::one_of("state", query.state.as_deref(), &fuota::UPDATE_STATES)?;
    let found = app.service.devices(&DeviceQuery {
        after: query.after,
        limit: limit + 1,
        online: query.online,
        registered: query.registered,
        group: query.group,
        model: query.model,
        state: query.state,
        version: query.version,
        digest: query.digest,
        search: query.search,
    });
    let (devices, next) = page::cut(found, limit, |device| &device.id);
    Ok(axum::Json(ListView { devices, next }))
}

/// GET one.
pub async fn one(
    State(app): State<App>,
    Id(id): Id,
    Query(Nothing {}): Query<Nothing>,
) -> Result<axum::Json<DeviceView>, Problem> {
    app.service.device(&id).map(axum::Json).ok_or_else(|| unknown(&id))
}

/// Whether to add, or only to say whether that would be possible.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AddQuery {
    dry_run: bool,
}

/// POST: registers a device; its token is in the answer and never again, but to a repetition with
/// the same `Idempotency-Key`, which is answered with 200.
pub async fn add(
    State(app): State<App>,
    Query(query): Query<AddQuery>,
    Who(actor): Who,
    Key(key): Key,
    Json(device): Json<NewDevice>,
) -> Result<Response, Problem> {
    if query.dry_run {
        app.service.check_device(&device)?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let (added, is_new) = app.service.add_device(device, key.as_deref(), &actor).await?;
    // An id needs no escaping in a path: rule 4 allows nothing that would.
    let location = format!("/api/v1/devices/{}", added.id);
    Ok((made(is_new), [(header::LOCATION, location)], axum::Json(added)).into_response())
}

/// PATCH one: what is not named stays.
pub async fn change(
    State(app): State<App>,
    Id(id): Id,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
    Json(patch): Json<DevicePatch>,
) -> Result<Response, Problem> {
    let changed = app.service.set_device(&id, patch, &actor).await?;
    Ok(axum::Json(changed).into_response())
}

/// How long a link for downloads is to work.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewLink {
    #[serde(deserialize_with = "fuota::whole::number")]
    seconds: u64,
}

/// A link for downloads.
#[derive(Debug, Serialize)]
pub struct LinkView {
    /// Below an address of `http.listen`.
    path: String,
    /// Seconds since 1970.
    expires: u64,
}

/// POST one's links: a path by which its firmware can be fetched without its token.
pub async fn link(
    State(app): State<App>,
    Id(id): Id,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
    Key(key): Key,
    Json(NewLink { seconds }): Json<NewLink>,
) -> Result<axum::Json<LinkView>, Problem> {
    let (path, expires) = app.service.link(&id, seconds, key.as_deref(), &actor).await?;
    Ok(axum::Json(LinkView { path, expires }))
}

/// DELETE one: it is forgotten, and its connections end at once.
pub async fn remove(
    State(app): State<App>,
    Id(id): Id,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
) -> Result<StatusCode, Problem> {
    app.service.remove_device(&id, &actor).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// GET what one should run, and why it is or is not offered it.
pub async fn why(
    State(app): State<App>,
    Id(id): Id,
    Query(Nothing {}): Query<Nothing>,
) -> Result<axum::Json<WhyView>, Problem> {
    app.service.why(&id).map(axum::Json).ok_or_else(|| unknown(&id))
}

/// Which page of a timeline.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimelineQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// One page of a timeline.
#[derive(Debug, Serialize)]
pub struct TimelineView {
    timeline: Vec<HappeningView>,
    /// The `after` of the next page.
    next: Option<String>,
}

/// GET what happened to one, the newest first.
pub async fn timeline(
    State(app): State<App>,
    Id(id): Id,
    Query(query): Query<TimelineQuery>,
) -> Result<axum::Json<TimelineView>, Problem> {
    let limit = page::limit(query.limit)?;
    let before = page::number(query.after.as_deref())?;
    let lines = app.service.timeline(&id, before, limit + 1).await?;
    let (timeline, next) = page::cut(lines, limit, |line| &line.id);
    Ok(axum::Json(TimelineView { timeline, next }))
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("there is no device {id:?}"))
}
