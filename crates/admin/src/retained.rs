//! `/api/v1/retained`: the retained messages of the broker.

use axum::{Extension, Json, extract::State};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hook::{Reason, ReasonKind, RetainedMessage};
use serde::{Deserialize, Serialize};

use crate::{
    doors::Login,
    extract::{Query, Who},
    page,
    problem::Problem,
    routes::App,
};

/// The most payload bytes of one page, before encoding. One message is always in it.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// So many messages of a filter are looked at for one page, at least: the rules may keep most of them
/// from who asks.
const PAGE_MESSAGES: usize = 10_000;

/// The longest filter, in characters: an address with a longer one may not fit a request.
const LONGEST_FILTER: usize = 1024;

/// Which messages, and which page of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    /// A topic filter; all where it is missing.
    filter: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// Which messages are to go.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveQuery {
    filter: String,
}

/// One page of messages.
#[derive(Debug, Serialize)]
pub struct ListView {
    retained: Vec<RetainedView>,
    /// The `after` of the next page.
    next: Option<Box<str>>,
}

/// The retained message of one topic.
#[derive(Debug, Serialize)]
pub struct RetainedView {
    topic: String,
    qos: u8,
    /// Of the payload, in bytes.
    size: usize,
    /// Seconds until it expires; null where it does not.
    expires_in_seconds: Option<u32>,
    /// How the payload stands here: `utf-8` or `base64`.
    encoding: &'static str,
    payload: String,
}

/// How many were removed.
#[derive(Debug, Serialize)]
pub struct RemovedView {
    removed: usize,
}

impl From<RetainedMessage> for RetainedView {
    fn from(message: RetainedMessage) -> Self {
        let (encoding, payload) = match std::str::from_utf8(&message.payload) {
            Ok(text) => ("utf-8", text.to_owned()),
            Err(_) => ("base64", STANDARD.encode(&message.payload)),
        };
        RetainedView {
            topic: message.topic.to_string(),
            qos: message.qos as u8,
            size: message.payload.len(),
            expires_in_seconds: message.expires_in,
            encoding,
            payload,
        }
    }
}

/// GET: one page, in the order of the topics' levels, of what `auth.rules` let the user hear.
pub async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
    Extension(login): Extension<Login>,
) -> Result<Json<ListView>, Problem> {
    let limit = page::limit(query.limit)?;
    let filter = query.filter.as_deref().unwrap_or("#");
    check_length(filter)?;
    let mut after = query.after.map(String::into_boxed_str);
    let mut found: Vec<RetainedMessage> = Vec::new();
    let (mut bytes, mut looked_at) = (0, 0);
    let may_read = |topic: &str| match &login.user {
        Some(user) => app.service.may_read(user, topic),
        None => true,
    };
    // The broker looks a while and then says how far it came.
    let next = loop {
        let left = limit - found.len();
        let page = app.broker.retained(filter, after.as_deref(), left).map_err(problem)?;
        looked_at += page.messages.len();
        for message in page.messages.into_iter().filter(|message| may_read(&message.topic)) {
            bytes += message.payload.len();
            if bytes > PAGE_BYTES && !found.is_empty() {
                let next = found.last().map(|last| last.topic.as_ref().into());
                return Ok(Json(ListView::new(found, next)));
            }
            found.push(message);
        }
        match page.next {
            Some(next) if found.len() < limit && looked_at < PAGE_MESSAGES => after = Some(next),
            next => break next,
        }
    };
    Ok(Json(ListView::new(found, next)))
}

impl ListView {
    fn new(found: Vec<RetainedMessage>, next: Option<Box<str>>) -> Self {
        ListView { retained: found.into_iter().map(RetainedView::from).collect(), next }
    }
}

/// DELETE by filter.
pub async fn remove(
    State(app): State<App>,
    Query(RemoveQuery { filter }): Query<RemoveQuery>,
    Who(actor): Who,
) -> Result<Json<RemovedView>, Problem> {
    check_length(&filter)?;
    let removed = app.broker.remove_retained(&filter).map_err(problem)?;
    tracing::info!(filter, removed, "retained messages were removed over REST");
    app.service.note(&actor, "retained messages", "removed", Some(format!("{filter}: {removed}")));
    Ok(Json(RemovedView { removed }))
}

fn check_length(filter: &str) -> Result<(), Problem> {
    match filter.chars().count() <= LONGEST_FILTER {
        true => Ok(()),
        false => Err(Problem::unprocessable(
            "filter",
            &format!("has more than {LONGEST_FILTER} characters: use wildcards"),
        )),
    }
}

fn problem(reason: Reason) -> Problem {
    match reason.kind {
        ReasonKind::ServerBusy => Problem::unavailable(reason.text),
        _ => Problem::unprocessable("filter", &format!("cannot be used: {}", reason.text)),
    }
}
