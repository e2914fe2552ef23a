//! `/api/v1/users`.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use fuota::{NewUser, UserPatch, UserView};
use serde::{Deserialize, Serialize};

use crate::{
    extract::{Id, Json, Query},
    page,
    problem::Problem,
    routes::App,
};

/// Which page of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// One page of users.
#[derive(Debug, Serialize)]
pub struct ListView {
    users: Vec<UserView>,
    /// The `after` of the next page.
    next: Option<String>,
}

/// GET: one page, in the order of the names.
pub async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<ListView>, Problem> {
    let limit = page::limit(query.limit)?;
    let all = app.service.users();
    let (users, next) = page::of(all, query.after.as_deref(), limit, |user| &user.name);
    Ok(axum::Json(ListView { users, next }))
}

/// GET one.
pub async fn one(State(app): State<App>, Id(name): Id) -> Result<axum::Json<UserView>, Problem> {
    let found = app.service.user(&name);
    found.map(axum::Json).ok_or_else(|| Problem::not_found(format!("there is no user {name:?}")))
}

/// POST: adds a user; a password that was made up is in the answer and never again.
pub async fn add(State(app): State<App>, Json(user): Json<NewUser>) -> Result<Response, Problem> {
    let added = app.service.add_user(user).await?;
    // A name needs no escaping in a path: rule 4 allows nothing that would.
    let location = format!("/api/v1/users/{}", added.user.name);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(added)).into_response())
}

/// PATCH one: what is not named stays.
pub async fn change(
    State(app): State<App>,
    Id(name): Id,
    Json(patch): Json<UserPatch>,
) -> Result<Response, Problem> {
    let changed = app.service.set_user(&name, patch).await?;
    Ok(axum::Json(changed).into_response())
}

/// DELETE one; its connections end at once.
pub async fn remove(State(app): State<App>, Id(name): Id) -> Result<StatusCode, Problem> {
    app.service.remove_user(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}
