//! `/api/v1/users`, and their tokens.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use fuota::{NewToken, NewUser, TokenView, UserPatch, UserView};
use serde::{Deserialize, Serialize};

use crate::{
    extract::{Id, Ids, Json, Key, Nothing, Query, Who},
    page::{self, made},
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
pub async fn one(
    State(app): State<App>,
    Id(name): Id,
    Query(Nothing {}): Query<Nothing>,
) -> Result<axum::Json<UserView>, Problem> {
    let found = app.service.user(&name);
    found.map(axum::Json).ok_or_else(|| Problem::not_found(format!("there is no user {name:?}")))
}

/// POST: adds a user; a password that was made up is in the answer and never again, but to a
/// repetition with the same `Idempotency-Key`, which is answered with 200.
pub async fn add(
    State(app): State<App>,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
    Key(key): Key,
    Json(user): Json<NewUser>,
) -> Result<Response, Problem> {
    let (added, is_new) = app.service.add_user(user, key.as_deref(), &actor).await?;
    // A name needs no escaping in a path: rule 4 allows nothing that would.
    let location = format!("/api/v1/users/{}", added.user.name);
    Ok((made(is_new), [(header::LOCATION, location)], axum::Json(added)).into_response())
}

/// PATCH one: what is not named stays.
pub async fn change(
    State(app): State<App>,
    Id(name): Id,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
    Json(patch): Json<UserPatch>,
) -> Result<Response, Problem> {
    let changed = app.service.set_user(&name, patch, &actor).await?;
    Ok(axum::Json(changed).into_response())
}

/// DELETE one; its connections end at once.
pub async fn remove(
    State(app): State<App>,
    Id(name): Id,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
) -> Result<StatusCode, Problem> {
    app.service.remove_user(&name, &actor).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// One page of a user's tokens.
#[derive(Debug, Serialize)]
pub struct TokensView {
    tokens: Vec<TokenView>,
    /// The `after` of the next page.
    next: Option<String>,
}

/// GET the tokens of one, by their ids.
pub async fn tokens(
    State(app): State<App>,
    Id(name): Id,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<TokensView>, Problem> {
    let limit = page::limit(query.limit)?;
    let all = app.service.user_tokens(&name)?;
    let (tokens, next) = page::of(all, query.after.as_deref(), limit, |token| &token.id);
    Ok(axum::Json(TokensView { tokens, next }))
}

/// POST: makes a token for one; it is in the answer and never again, but to a repetition with the
/// same `Idempotency-Key`.
pub async fn add_token(
    State(app): State<App>,
    Id(name): Id,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
    Key(key): Key,
    Json(new): Json<NewToken>,
) -> Result<Response, Problem> {
    let (added, is_new) = app.service.add_user_token(&name, new, key.as_deref(), &actor).await?;
    let location = format!("/api/v1/users/{name}/tokens/{}", added.view.id);
    Ok((made(is_new), [(header::LOCATION, location)], axum::Json(added)).into_response())
}

/// DELETE a token of one: it opens nothing any more.
pub async fn revoke(
    State(app): State<App>,
    Ids(name, token): Ids,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
) -> Result<StatusCode, Problem> {
    app.service.remove_user_token(&name, &token, &actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
