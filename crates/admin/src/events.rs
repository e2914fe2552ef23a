//! `/api/v1/events`: every change as it happens, as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};

use crate::routes::App;

/// After how long without an event a comment shows that the connection lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// GET: `event` is the kind of change, `data` is JSON. The stream ends with the daemon; after
/// `missed` a listener reads anew what it needs.
pub async fn events(State(app): State<App>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = stream::unfold(app.service.listen(), |mut listener| async move {
        let change = listener.next().await?;
        // A change is made of texts and numbers, which always serialize.
        let event = Event::default().event(change.name()).json_data(&change).unwrap_or_default();
        Some((Ok(event), listener))
    });
    Sse::new(changes).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
