//! `/api/v1/events`: every change as it happens, as server-sent events.
//!
//! Each event has an `id`, the place in the run of changes that it brings the listener to. A
//! listener that names it (`Last-Event-ID`, which browsers do by themselves) goes on there; where
//! that is too long ago, or before a restart, it hears `missed` and reads anew what it needs.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::sse::{Event, Sse},
};
use fuota::{Change, ListenFrom, Listener, UserRole};
use futures_util::{Stream, stream};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use crate::{
    doors::{Doors, Login},
    extract::Query,
    places::Place,
    problem::Problem,
    routes::App,
    session::ADMIN_TOKEN,
};

/// How long a browser waits before it comes again.
const COME_AGAIN: Duration = Duration::from_secs(2);
/// The longest `Last-Event-ID`, in bytes; ours are shorter.
const LONGEST_ID: usize = 64;

/// What to listen to.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsQuery {
    /// Kinds of changes, with commas between; all where it is missing.
    r#type: Option<String>,
    /// `false`: the answer ends with what is there already.
    follow: Option<bool>,
}

/// GET: `event` is the kind of change, `data` is JSON. The stream ends with the daemon, and with
/// the login: nothing is told to one that is over.
pub async fn events(
    State(app): State<App>,
    Query(query): Query<EventsQuery>,
    Extension(login): Extension<Login>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let kinds = kinds(query.r#type.as_deref())?;
    let role = app.doors.still_reads(&login, uri.path());
    let asks_for_users = kinds.as_ref().is_some_and(|kinds| kinds.iter().any(|it| it == "user"));
    if asks_for_users && role.is_none_or(|role| role != UserRole::Admin) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "only an admin hears of users"));
    }
    let follow = query.follow.unwrap_or(true);
    let from = match last(&headers)? {
        Some(id) => ListenFrom::Behind(id),
        None if follow => ListenFrom::Now,
        None => ListenFrom::Start,
    };
    let place =
        app.streams.take(login.user.as_deref().unwrap_or(ADMIN_TOKEN)).ok_or_else(|| {
            Problem::unavailable(format!(
                "too many streams of events are open: {} at once for one login",
                app.streams.each()
            ))
        })?;
    let listener = app.service.listen(from);
    let heard = Heard {
        listener,
        kinds,
        follow,
        greeted: false,
        interval: app.show_life,
        shows_life: Instant::now() + app.show_life,
        doors: app.doors,
        login,
        path: uri.path().to_owned(),
        _place: place,
    };
    let changes = stream::unfold(heard, |mut heard| async move {
        let event = heard.next().await?;
        heard.shows_life = Instant::now() + heard.interval;
        Some((Ok(event), heard))
    });
    Ok(Sse::new(changes))
}

struct Heard {
    listener: Listener,
    /// `None`: all.
    kinds: Option<Vec<String>>,
    follow: bool,
    greeted: bool,
    interval: Duration,
    /// When a comment is due.
    shows_life: Instant,
    doors: Arc<Doors>,
    login: Login,
    path: String,
    _place: Place,
}

impl Heard {
    async fn next(&mut self) -> Option<Event> {
        if !std::mem::replace(&mut self.greeted, true) {
            // Without data it is no event to a browser, but the place is noted: who loses the
            // connection before the first change misses none.
            return Some(Event::default().id(self.listener.place()).retry(COME_AGAIN));
        }
        loop {
            let change = match self.follow {
                // First the clock: changes that this listener does not want show no life.
                true => tokio::select! {
                    biased;
                    () = sleep_until(self.shows_life) => {
                        self.doors.still_reads(&self.login, &self.path)?;
                        return Some(Event::default().comment(""));
                    }
                    change = self.listener.next() => change?,
                },
                false => self.listener.look()?,
            };
            let missed = matches!(change, Change::Missed { .. });
            let wanted = |kinds: &Vec<String>| kinds.iter().any(|kind| kind == change.name());
            if missed || self.kinds.as_ref().is_none_or(wanted) {
                let role = self.doors.still_reads(&self.login, &self.path)?;
                // As `/api/v1/users`.
                if matches!(change, Change::User { .. }) && role != UserRole::Admin {
                    continue;
                }
                let event = Event::default().id(self.listener.place()).event(change.name());
                // A change is made of texts and numbers, which always serialize.
                return Some(event.json_data(&change).unwrap_or_default());
            }
        }
    }
}

fn kinds(names: Option<&str>) -> Result<Option<Vec<String>>, Problem> {
    let Some(names) = names else { return Ok(None) };
    let read = |name: &str| match Change::NAMES.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(Problem::bad_request(format!(
            "type must be some of {} with commas between, not {name:?}",
            Change::NAMES.join(", ")
        ))),
    };
    names.split(',').map(read).collect::<Result<_, _>>().map(Some)
}

fn last(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let unusable = || Problem::bad_request("the Last-Event-ID header is none of ours");
    let id = id.to_str().map_err(|_| unusable())?;
    match (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(Some(id)),
        false => Err(unusable()),
    }
}
