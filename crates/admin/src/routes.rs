//! Which address leads to which handler, behind which door.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, delete, get, post},
};
use fuota::{Act, Service};

use crate::{
    audit,
    backup::{self, Backup},
    clients, deployments, devices,
    doors::{self, Doors},
    events,
    extract::{MAX_BODY, MAX_IMPORT},
    firmware, fleet, freeze,
    health::{self, Readiness},
    import, metrics, openapi,
    places::Places,
    problem::Problem,
    retained, session,
    settings::Settings,
    status, ui, users,
};

/// What handlers share; cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    pub service: Service,
    pub broker: Arc<dyn hook::Broker>,
    pub doors: Arc<Doors>,
    pub readiness: Readiness,
    pub backup: Backup,
    pub version: Arc<str>,
    pub started: Instant,
    /// Streams of events.
    pub streams: Places,
    /// After how long without an event they show that they live.
    pub show_life: Duration,
}

/// The whole interface.
pub fn router(
    settings: Settings,
    service: Service,
    broker: Arc<dyn hook::Broker>,
    readiness: Readiness,
    backup: Backup,
) -> Router {
    let doors = Arc::new(Doors::new(&settings).with_users(service.clone()));
    let app = App {
        service,
        broker,
        doors: Arc::clone(&doors),
        readiness,
        backup,
        version: settings.version.into(),
        started: Instant::now(),
        // The others stay free for requests that end, such as a freeze.
        streams: Places::new((settings.connections / 8).max(1), (settings.connections / 2).max(1)),
        show_life: settings.show_life,
    };
    let api = api();
    let api = api
        .router
        .fallback(not_found_in_api)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(to_the_end))
        // Around the fallbacks as well: without the token nobody learns which addresses exist.
        .layer(middleware::from_fn_with_state(Arc::clone(&doors), doors::bearer));
    let measured =
        measured().router.layer(middleware::from_fn_with_state(Arc::clone(&doors), doors::bearer));
    open()
        .router
        .nest("/api", api)
        .merge(measured)
        .merge(ui::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(doors, doors::host_and_origin))
        .layer(middleware::from_fn(never_cached))
        .with_state(app)
}

/// Routes, and their paths beside them: a router does not tell which it has, and each must be
/// described.
#[derive(Default)]
pub(crate) struct Routes {
    pub router: Router<App>,
    pub paths: Vec<&'static str>,
}

impl Routes {
    fn at(mut self, path: &'static str, methods: MethodRouter<App>) -> Routes {
        self.paths.push(path);
        Routes { router: self.router.route(path, methods), ..self }
    }
}

/// Open to everybody who reaches the port.
pub(crate) fn open() -> Routes {
    Routes::default()
        .at("/healthz", get(health::healthz))
        .at("/readyz", get(health::readyz))
        // Before the inner door, since it is where a login of the page comes from.
        .at("/api/v1/session", get(session::show).post(session::open).delete(session::close))
}

/// Behind the inner door, at an address that programs expect.
pub(crate) fn measured() -> Routes {
    Routes::default().at("/metrics", get(metrics::metrics))
}

/// Below `/api`, behind the inner door.
pub(crate) fn api() -> Routes {
    Routes::default()
        .at("/v1/devices", get(devices::list).post(devices::add))
        .at("/v1/devices/{id}", get(devices::one).patch(devices::change).delete(devices::remove))
        .at("/v1/devices/{id}/why", get(devices::why))
        .at("/v1/devices/{id}/links", post(devices::link))
        .at("/v1/devices/{id}/timeline", get(devices::timeline))
        .at("/v1/users", get(users::list).post(users::add))
        .at("/v1/users/{id}", get(users::one).patch(users::change).delete(users::remove))
        .at("/v1/users/{id}/tokens", get(users::tokens).post(users::add_token))
        .at("/v1/users/{id}/tokens/{token}", delete(users::revoke))
        .at("/v1/import", post(import::import).layer(DefaultBodyLimit::max(MAX_IMPORT)))
        .at(
            "/v1/firmware",
            // An image is larger than any other body; how large is the store's to say.
            get(firmware::list).post(firmware::upload).layer(DefaultBodyLimit::disable()),
        )
        .at("/v1/firmware/rescan", post(firmware::rescan))
        .at("/v1/firmware/{id}", get(firmware::one).delete(firmware::withdraw))
        .at("/v1/deployments", get(deployments::list).post(deployments::create))
        .at("/v1/deployments/{id}", get(deployments::one).patch(deployments::change))
        .at("/v1/deployments/{id}/devices", get(deployments::devices))
        .at("/v1/deployments/{id}/history", get(fleet::history))
        .at("/v1/fleet", get(fleet::fleet))
        .at("/v1/deployments/{id}/approve", deployments::act(Act::Approve))
        .at("/v1/deployments/{id}/pause", deployments::act(Act::Pause))
        .at("/v1/deployments/{id}/resume", deployments::act(Act::Resume))
        .at("/v1/deployments/{id}/cancel", deployments::act_for(Act::Cancel))
        .at("/v1/deployments/{id}/retry", deployments::act_for(Act::Retry))
        .at("/v1/deployments/{id}/rollback", deployments::act(Act::Rollback))
        .at("/v1/freeze", get(freeze::show).put(freeze::freeze).delete(freeze::unfreeze))
        .at("/v1/audit", get(audit::list))
        .at("/v1/events", get(events::events))
        .at("/v1/clients", get(clients::list))
        .at("/v1/clients/{id}", get(clients::one).delete(clients::disconnect))
        .at("/v1/retained", get(retained::list).delete(retained::remove))
        .at("/v1/status", get(status::status))
        .at("/v1/backup", post(backup::make))
        .at("/v1/openapi.json", get(openapi::show))
}

/// Answers may hold a token that is shown once, and are old the next moment; but for the page's
/// files, which say themselves how long they hold.
async fn never_cached(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Goes on when the client leaves: a change that is in the database must not miss in memory.
pub(crate) async fn to_the_end(request: Request, next: Next) -> Response {
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        // The panic is in the log.
        Err(_) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(status, "this went wrong inside; the log says where").into_response()
        }
    }
}

async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()))
}

/// Below `/api`, which is cut off before the routes there are looked at.
async fn not_found_in_api(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at /api{}", uri.path()))
}

pub(crate) async fn method_not_allowed(method: Method) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not possible here; the Allow header names what is"),
    )
}
