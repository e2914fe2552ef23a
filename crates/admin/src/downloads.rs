//! Downloads by devices, on a listener of their own: nothing of the admin interface is here, and
//! the admin token opens nothing.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fuota::{
    Service,
    download::{Caller, Fetch, FetchError, HttpReport, Image, Tolerated},
};
use futures_util::{StreamExt as _, stream};

use crate::{
    asked::{Asked, asked, continues},
    doors::PeerAddress,
    extract::{Id, unusable_path},
    places::{Place, Places},
    problem::Problem,
    routes::method_not_allowed,
};

/// The most bytes of a report.
const MAX_REPORT: usize = 16 * 1024;
/// How long a report may take to arrive.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the head of a response waits for the first part, so that it can say that there is none.
const FIRST_PART: Duration = Duration::from_secs(10);
/// Requests of one device at once: a download in a few parts, and those that it left behind when
/// it lost its power.
const OF_ONE_DEVICE: usize = 8;

#[derive(Clone)]
struct Downloads {
    service: Service,
    places: Places,
}

/// Everything that devices reach.
pub fn downloads(service: Service) -> Router {
    Router::new()
        .route("/devices/{id}/firmware", get(own))
        .route("/devices/{id}/status", post(status))
        .route("/links/{id}/{expires}/{signature}", get(linked))
        .fallback(async |uri: Uri| {
            Problem::not_found(format!("there is nothing at {}", uri.path()))
        })
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_REPORT))
        // How many there are in all is the listener's to say.
        .with_state(Downloads { service, places: Places::new(OF_ONE_DEVICE, usize::MAX) })
}

/// GET and HEAD: what this device should run, by its token.
async fn own(
    State(Downloads { service, places }): State<Downloads>,
    Id(id): Id,
    parts: Parts,
) -> Result<Response, Problem> {
    let fetch = by_token(&service, &id, &parts).await?;
    respond(fetch, place(&places, &id)?, &parts).await
}

/// The same by a link, which is all the proof.
async fn linked(
    State(Downloads { service, places }): State<Downloads>,
    path: Result<Path<(String, String, String)>, PathRejection>,
    parts: Parts,
) -> Result<Response, Problem> {
    let Path((id, expires, signature)) =
        path.map_err(|rejection| unusable_path(&rejection.body_text()))?;
    let expires = expires.parse().map_err(|_| {
        Problem::bad_request(
            "the end of the link is no number of seconds since 1970: use the link as it was made",
        )
    })?;
    let caller = Caller::Link { id: &id, expires, signature: &signature };
    let fetch = service.caller(caller, peer(&parts)).await?;
    respond(fetch, place(&places, &id)?, &parts).await
}

/// POST: what a device says about itself.
async fn status(
    State(Downloads { service, places }): State<Downloads>,
    Id(id): Id,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (parts, body) = request.into_parts();
    let fetch = by_token(&service, &id, &parts).await?;
    let _place = place(&places, &id)?;
    let body = read(body).await?;
    if !is_called_json(&parts.headers) {
        fetch.tolerated(Tolerated::ReportNotCalledJson);
    }
    // A list would be read as the members in their order.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'{') {
        return Err(Problem::bad_request("the report cannot be read: expected a JSON object"));
    }
    let report: HttpReport = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the report cannot be read: {error}")))?;
    if report.version.as_deref().is_some_and(|version| version.trim().is_empty()) {
        return Err(Problem::bad_request("version is empty: name the version, or leave it out"));
    }
    fetch.report(report).map_err(Problem::bad_request)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a body is said to be JSON. One that is not is read as JSON all the same.
fn is_called_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
}

/// A report's bytes.
async fn read(body: Body) -> Result<Bytes, Problem> {
    let reading = axum::body::to_bytes(body, MAX_REPORT);
    match tokio::time::timeout(REPORT_TIMEOUT, reading).await {
        Ok(body) => {
            body.map_err(|_| Problem::bad_request("the report is too long, or ended early"))
        }
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the report did not arrive within {} s", REPORT_TIMEOUT.as_secs()),
        )),
    }
}

/// A place for a request of this device, which has proven to be it.
fn place(places: &Places, id: &str) -> Result<Place, Problem> {
    places.take(id).ok_or_else(|| {
        Problem::unavailable(format!("{OF_ONE_DEVICE} requests of this device are under way"))
    })
}

async fn by_token(service: &Service, id: &str, parts: &Parts) -> Result<Fetch, Problem> {
    let given = parts.headers.get(header::AUTHORIZATION);
    let login = given.map(|value| value.to_str().ok().and_then(login).ok_or(value)).transpose();
    let login = login.map_err(|_| {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "send the device's token as Authorization: Bearer TOKEN, or a user by Basic",
        )
    })?;
    let (user, token) = match &login {
        None => (None, None),
        Some((user, token)) => (user.as_deref(), Some(&**token)),
    };
    Ok(service.caller(Caller::Device { id, user, token }, peer(parts)).await?)
}

/// User, where there is one, and token.
fn login(value: &str) -> Option<(Option<String>, String)> {
    let (scheme, given) = value.split_once(' ')?;
    let given = given.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((None, given.to_owned()));
    }
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(given).ok())??;
    let (user, token) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((Some(user.to_owned()), token.to_owned()))
}

fn peer(parts: &Parts) -> Option<SocketAddr> {
    parts.extensions.get::<PeerAddress>().map(|PeerAddress(peer)| *peer)
}

impl From<FetchError> for Problem {
    fn from(error: FetchError) -> Self {
        let status = match error {
            FetchError::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            FetchError::Forbidden(_) => StatusCode::FORBIDDEN,
            FetchError::Expired(_) => StatusCode::GONE,
            FetchError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, error.to_string())
    }
}

async fn respond(fetch: Fetch, place: Place, parts: &Parts) -> Result<Response, Problem> {
    let Some(image) = fetch.image().await? else {
        if continues(&parts.headers) {
            // Rule 10: a device amid an image must not take this for an empty part of it.
            return Err(Problem::new(
                StatusCode::GONE,
                "there is no more of this image: the update was cancelled or withdrawn, or the \
                 device has it; ask without Range and If-Match for what it should run",
            ));
        }
        // What the device runs is right, as far as is known, or nothing is for it.
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let etag = format!("\"{}\"", image.sha256());
    let (asked, tolerated) = asked(&parts.method, &parts.headers, &etag, image.size());
    if let Some(tolerated) = tolerated {
        image.tolerated(tolerated);
    }
    let mut response = match asked {
        Asked::Unchanged => StatusCode::NOT_MODIFIED.into_response(),
        Asked::Another => Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "the image is another one by now: begin anew",
        )
        .into_response(),
        Asked::Unsatisfiable => {
            let mut response =
                Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "the range is past the end")
                    .into_response();
            put(&mut response, header::CONTENT_RANGE, format!("bytes */{}", image.size()));
            response
        }
        Asked::Bytes(from, to, partial) => {
            let (size, mut response) = (image.size(), Response::new(Body::empty()));
            describe(&mut response, &image);
            put(&mut response, header::CONTENT_LENGTH, (to - from).to_string());
            if partial {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let range = format!("bytes {from}-{}/{size}", to - 1);
                put(&mut response, header::CONTENT_RANGE, range);
            }
            if parts.method != Method::HEAD {
                let mut parts = Box::pin(image.read(from, to).fuse());
                // A cap may let it wait for long, and then the head goes ahead.
                let first = tokio::time::timeout(FIRST_PART, parts.next()).await;
                let first = first.ok().flatten().transpose();
                let first = first.map_err(|error| Problem::unavailable(error.to_string()))?;
                // The place is taken until the body ends.
                let parts = stream::iter(first.map(Ok)).chain(parts).map(move |part| {
                    let _ = &place;
                    part
                });
                *response.body_mut() = Body::from_stream(parts);
            }
            response
        }
    };
    put(&mut response, header::ETAG, etag);
    put(&mut response, header::ACCEPT_RANGES, "bytes".to_owned());
    put(&mut response, header::CACHE_CONTROL, "private, no-cache".to_owned());
    Ok(response)
}

fn describe(response: &mut Response, image: &Image) {
    put(response, header::CONTENT_TYPE, "application/octet-stream".to_owned());
    put(
        response,
        header::HeaderName::from_static("x-firmware-version"),
        image.version().to_owned(),
    );
    put(response, header::HeaderName::from_static("x-firmware-sha256"), image.sha256().to_owned());
}

fn put(response: &mut Response, name: header::HeaderName, value: String) {
    // A version may hold what no header can; then it is left out.
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_report_that_does_not_end_gets_a_408_and_its_connection_ends() {
        let (mut client, body) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut client, b"{\"version\":").await.unwrap();
        let body = Body::from_stream(tokio_util::io::ReaderStream::new(body));
        let response = read(body).await.unwrap_err().into_response();
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(response.headers()[header::CONNECTION], "close");
    }
}
