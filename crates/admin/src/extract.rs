//! What a request carries, read strictly: bounded bodies, no unknown fields, and an answer in
//! problem form whatever is wrong.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use fuota::Actor;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{doors::PeerAddress, problem::Problem};

/// The largest body that is read, in bytes: a device with all its labels is far smaller.
pub const MAX_BODY: usize = 64 * 1024;
/// The largest body of an import, in bytes: 100,000 rows, each with a hash and a name.
pub const MAX_IMPORT: usize = 32 * 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const IMPORT_TIMEOUT: Duration = Duration::from_secs(60);

/// A JSON body.
pub struct Json<T>(pub T);

/// A JSON body with many rows. Its route raises the limit of the others to [`MAX_IMPORT`].
pub struct Rows<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        read(request, state, MAX_BODY, BODY_TIMEOUT).await.map(Json)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Rows<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        read(request, state, MAX_IMPORT, IMPORT_TIMEOUT).await.map(Rows)
    }
}

async fn read<S: Send + Sync, T: DeserializeOwned>(
    request: Request,
    state: &S,
    max: usize,
    timeout: Duration,
) -> Result<T, Problem> {
    if !is_json(request.headers()) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body must be JSON, and the header must say so: Content-Type: application/json",
        ));
    }
    let body = match tokio::time::timeout(timeout, Bytes::from_request(request, state)).await {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) => return Err(unreadable(&rejection, max)),
        Err(_) => {
            return Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body did not arrive within {} s", timeout.as_secs()),
            ));
        }
    };
    // A list would be read as the members in their order.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'{') {
        return Err(Problem::bad_request("the body cannot be used: expected a JSON object"));
    }
    axum::Json::from_bytes(&body).map(|axum::Json(value)| value).map_err(|rejection| {
        Problem::bad_request(format!("the body cannot be used: {}", cause(&rejection.body_text())))
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let kind = value.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// What was wrong, without axum's general words before it.
fn cause(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(_, cause)| cause)
}

fn unreadable(rejection: &BytesRejection, max: usize) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {max} bytes"),
        ),
        _ => Problem::bad_request("the body broke off"),
    }
}

/// The query string.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Query(query))
            .map_err(|rejection| {
                Problem::bad_request(format!(
                    "the query cannot be used: {}",
                    cause(&rejection.body_text())
                ))
            })
    }
}

/// A query or a body that has no members.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// The header `Idempotency-Key`, where it is there.
pub struct Key(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let key = values.next().map(|key| key.to_str().map(str::to_owned));
        if values.next().is_some() {
            return Err(Problem::bad_request("the Idempotency-Key header stands there twice"));
        }
        let key = key
            .transpose()
            .map_err(|_| Problem::bad_request("the Idempotency-Key header is not text"))?;
        key.as_deref().map_or(Ok(()), fuota::check_key)?;
        Ok(Key(key))
    }
}

/// Who asks, as the door let it in.
pub struct Who(pub Actor);

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Who(parts.extensions.get::<Actor>().cloned().unwrap_or_default()))
    }
}

/// Where the request comes from.
pub struct Peer(pub Option<PeerAddress>);

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Peer(parts.extensions.get::<PeerAddress>().copied()))
    }
}

/// The one variable part of a path, percent-decoded.
pub struct Id(pub String);

/// The two variable parts of a path, likewise.
pub struct Ids(pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for Ids {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path((first, second))| Ids(first, second))
            .map_err(|rejection| unusable_path(&rejection.body_text()))
    }
}

/// An address whose parts cannot be read.
pub fn unusable_path(text: &str) -> Problem {
    Problem::bad_request(format!("the address cannot be used: {}", cause(text)))
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::<String>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(id)| Id(id))
            .map_err(|rejection| unusable_path(&rejection.body_text()))
    }
}
