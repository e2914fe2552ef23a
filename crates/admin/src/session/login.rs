//! The route `/api/v1/session`: who is logged in, log in, log out.

use std::net::SocketAddr;

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use fuota::{Service, ServiceError, UserRole};
use serde::{Deserialize, Serialize};

use super::{ADMIN_TOKEN, Digest, LIFE, Session, cookie, cookie_name, derive, of_request};
use crate::{
    doors::{Doors, PeerAddress},
    extract,
    problem::Problem,
    routes::App,
};

/// A login: the admin token, or a user's name and password.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Login {
    token: Option<String>,
    name: Option<String>,
    password: Option<String>,
}

/// Who is logged in, for the page.
#[derive(Debug, Serialize)]
pub struct SessionView {
    /// The actor; null where nobody is logged in.
    name: Option<String>,
    /// `service`, `operator` or `admin`; null likewise.
    role: Option<&'static str>,
    /// What changes carry in `X-CSRF-Token`.
    csrf: Option<String>,
    /// The daemon's version; null for who is not logged in.
    version: Option<String>,
}

/// GET: who is logged in with the request's cookie.
pub async fn show(
    State(app): State<App>,
    extract::Query(extract::Nothing {}): extract::Query<extract::Nothing>,
    request: Request,
) -> Json<SessionView> {
    let session = of_request(&app.doors, &request).ok().flatten();
    Json(SessionView {
        name: session.as_ref().map(Session::actor),
        role: session.as_ref().map(|session| session.role.name()),
        version: session.is_some().then(|| app.version.to_string()),
        csrf: session.map(|session| session.csrf),
    })
}

/// POST: logs in, and sets the cookie.
pub async fn open(
    State(app): State<App>,
    extract::Query(extract::Nothing {}): extract::Query<extract::Nothing>,
    extract::Peer(peer): extract::Peer,
    headers: HeaderMap,
    extract::Json(login): extract::Json<Login>,
) -> Result<Response, Problem> {
    let doors = &app.doors;
    let peer = peer.map(|PeerAddress(peer)| peer);
    let (name, role, stamp) = match (login.token, login.name, login.password) {
        (Some(token), None, None) => {
            by_token(doors, &app.service, &token, peer)?;
            (None, UserRole::Admin, doors.token_stamp())
        }
        (None, Some(name), Some(password)) => {
            let (role, stamp) = by_password(&app.service, &name, &password, peer).await?;
            (Some(name), role, stamp)
        }
        _ => return Err(Problem::bad_request("log in with token, or with name and password")),
    };
    let id = doors.sessions().open(name.clone(), &stamp);
    let id = id.map_err(|error| Problem::unavailable(error.to_string()))?;
    let actor = name.unwrap_or_else(|| ADMIN_TOKEN.into());
    tracing::info!(user = actor, address = ?peer.map(|peer| peer.ip()), "logged in to the page");
    let view = SessionView {
        name: Some(actor),
        role: Some(role.name()),
        csrf: Some(hex::encode(derive(&id, "csrf", &[]))),
        version: Some(app.version.to_string()),
    };
    let cookie = set_cookie(&headers, &id, LIFE.as_secs(), doors.is_tls());
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], Json(view)).into_response())
}

fn by_token(
    doors: &Doors,
    users: &Service,
    token: &str,
    peer: Option<SocketAddr>,
) -> Result<(), Problem> {
    // The right one too: else guessing goes on behind the answer.
    if users.is_slowed(peer) {
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "too many logins failed from this address; wait a minute",
        ));
    }
    if doors.is_our_token(token.trim()) {
        return Ok(());
    }
    users.wrong_admin_token(peer);
    Err(Problem::new(StatusCode::UNAUTHORIZED, "this is not the admin token"))
}

async fn by_password(
    users: &Service,
    name: &str,
    password: &str,
    peer: Option<SocketAddr>,
) -> Result<(UserRole, Digest), Problem> {
    let wrong = |text: String| Problem::new(StatusCode::UNAUTHORIZED, text);
    let role = users.log_in(name, password, peer).await.map_err(|error| match error {
        ServiceError::Unavailable(text) => Problem::unavailable(text),
        error => wrong(error.to_string()),
    })?;
    if role == UserRole::Device {
        return Err(Problem::new(StatusCode::FORBIDDEN, "a device cannot log in to the page"));
    }
    // Removed in this very moment, where there is none.
    users.credential(name).ok_or_else(|| wrong("the user name or the password is wrong".into()))
}

/// DELETE: logs out.
pub async fn close(
    State(app): State<App>,
    extract::Query(extract::Nothing {}): extract::Query<extract::Nothing>,
    request: Request,
) -> Result<Response, Problem> {
    let doors = &app.doors;
    if of_request(doors, &request)?.is_some()
        && let Some(id) = cookie(request.headers())
    {
        doors.sessions().close(id);
    }
    let cookie = set_cookie(request.headers(), "", 0, doors.is_tls());
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

pub(super) fn set_cookie(headers: &HeaderMap, id: &str, seconds: u64, secure: bool) -> String {
    let name = cookie_name(headers);
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={id}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}
