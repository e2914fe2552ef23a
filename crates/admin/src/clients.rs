//! `/api/v1/clients`: the broker's sessions.

use axum::{Json, extract::State, http::StatusCode};
use hook::{ClientQuery, ClientStatus, Reason, ReasonKind, Role};
use serde::{Deserialize, Serialize};

use crate::{
    extract::{Id, Nothing, Query, Who},
    page,
    problem::Problem,
    routes::App,
};

/// Which clients, and which page of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
    /// Only those that are connected, or only those that are away.
    connected: Option<bool>,
    /// Only those whose client id begins with this.
    prefix: Option<String>,
}

/// One page of sessions.
#[derive(Debug, Serialize)]
pub struct ListView {
    clients: Vec<ClientView>,
    /// The `after` of the next page.
    next: Option<String>,
}

/// One session.
#[derive(Debug, Serialize)]
pub struct ClientView {
    id: String,
    connected: bool,
    /// Account or device that it proved to be, on its last connection.
    name: Option<String>,
    role: &'static str,
    /// `3.1.1` or `5`.
    protocol: &'static str,
    address: Option<String>,
    /// Since when it is connected, or away.
    since_seconds: u64,
    /// Since its last packet; absent while it is away.
    idle_seconds: Option<u64>,
    queued_messages: usize,
    queued_bytes: usize,
    /// Publishes sent to it and not yet acknowledged.
    inflight: usize,
    subscription_count: usize,
    /// In the answer to GET one; a list would grow without bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions: Option<Vec<SubscriptionView>>,
}

/// One subscription of a session.
#[derive(Debug, Serialize)]
pub struct SubscriptionView {
    filter: String,
    qos: u8,
}

impl ClientView {
    fn short(status: &ClientStatus) -> Self {
        ClientView {
            id: status.id.to_string(),
            connected: status.connected,
            name: status.identity.name.as_deref().map(str::to_owned),
            role: role(status.identity.role),
            protocol: status.protocol.as_str(),
            address: status.address.map(|address| address.to_string()),
            since_seconds: status.since.as_secs(),
            idle_seconds: status.idle.map(|idle| idle.as_secs()),
            queued_messages: status.queued_messages,
            queued_bytes: status.queued_bytes,
            inflight: status.inflight,
            subscription_count: status.subscription_count,
            subscriptions: None,
        }
    }

    fn full(status: &ClientStatus) -> Self {
        let subscriptions = status
            .subscriptions
            .iter()
            .map(|one| SubscriptionView { filter: one.filter.clone(), qos: one.qos as u8 })
            .collect();
        ClientView { subscriptions: Some(subscriptions), ..Self::short(status) }
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Anonymous => "anonymous",
        Role::Device => "device",
        Role::Service => "service",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// GET: one page, in the order of the client ids.
pub async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ListView>, Problem> {
    let limit = page::limit(query.limit)?;
    let sessions = app.broker.clients_page(&ClientQuery {
        prefix: query.prefix.unwrap_or_default(),
        after: query.after,
        connected: query.connected,
        // One more shows whether there is a next page.
        limit: limit + 1,
    });
    let (sessions, next) = page::cut(sessions, limit, |session| &session.id);
    Ok(Json(ListView { clients: sessions.iter().map(ClientView::short).collect(), next }))
}

/// GET one, with its subscriptions.
pub async fn one(
    State(app): State<App>,
    Id(id): Id,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<ClientView>, Problem> {
    app.broker.client(&id).map(|status| Json(ClientView::full(&status))).ok_or_else(|| unknown(&id))
}

/// DELETE one: ends its connection. A persistent session stays.
pub async fn disconnect(
    State(app): State<App>,
    Id(id): Id,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
) -> Result<StatusCode, Problem> {
    let reason =
        Reason::new(ReasonKind::AdministrativeAction, "an operator disconnected the client");
    if !app.broker.disconnect(&id, &reason) {
        return Err(unknown(&id));
    }
    app.service.note(&actor, &format!("client {id}"), "disconnected", None);
    Ok(StatusCode::NO_CONTENT)
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("no client {id:?} is connected"))
}
