//! The end of a connection, and what becomes of its session.

use bytes::BytesMut;
use hook::{Protocol, SessionEnd};
use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::OwnedMutexGuard,
};

use crate::{
    codec,
    connection::{Connection, Ending},
    deliver::text_fits,
    exchange::Exchange,
    journal::{Record, wall_seconds},
    registry::Due,
    session::{Session, State},
};

/// How long a goodbye may take to leave.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);

/// Closes behind what was said last. A socket that is closed over unread bytes would take that back
/// (RFC 1122, 4.2.2.13), so what the peer still sends is read.
pub(crate) async fn last_word(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    io.shutdown().await?;
    let mut unread = [0; 1024];
    while io.read(&mut unread).await? > 0 {}
    Ok(())
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Says goodbye, tells the hooks, and leaves the session to whoever comes next. Whatever the
    /// reason, the connection is closed [MQTT-4.13.1-1], [MQTT-4.13.2-1], [MQTT-3.14.4-2].
    pub(crate) async fn finish(mut self: Box<Self>, ending: Ending) -> SessionEnd {
        let Ending { end, tell, mut will } = ending;
        if end == SessionEnd::TakenOver
            && let Err(parting) = self.read_on().await
        {
            will &= parting.will;
        }
        if let Some(parting) = self.parting() {
            will &= parting.will;
        }
        // Nothing before the CONNACK [MQTT-3.14.0-1].
        let tell = tell.filter(|_| !self.is_greeting());
        if end == SessionEnd::ProtocolError {
            self.tally.protocol_errors += 1;
            let why = tell.as_ref().map_or("", |(_, text)| text.as_ref());
            tracing::debug!(client = &*self.client.id, why, "protocol error");
        }
        self.tally.flush(&self.exchange.totals);
        let (exchange, mut view) = self.view();
        exchange.hooks.session_end(&mut view, end);
        self.slots = Box::default();
        self.exchange.keep_alives.forget(&self.session);

        let mut pending = self.take_back_staged();
        let taken_back = (pending.len(), pending.iter().map(|d| d.message.cost()).sum());
        pending.append(&mut self.taken.assured.take());
        let done = std::mem::take(&mut self.done);
        let mut outbox = self.session.inbox.detach(done, &mut pending, taken_back);
        outbox.extend(self.taken.control.take());
        outbox.extend(self.taken.blocks.take());
        for message in outbox {
            if let Some((receipt, tag)) = message.receipt {
                receipt.dropped(tag);
            }
        }
        self.keep_owed();
        self.writer.abandon();
        if let Some(unsettled) = self.unsettled.take() {
            unsettled.finish(&mut self.state, &self.exchange).await;
        }
        let Connection { mut io, mut writer, exchange, client, session, mut state, .. } = *self;
        let told = tell.is_some();
        if let (Some((code, text)), Protocol::V5) = (tell, client.protocol) {
            let mut out = BytesMut::new();
            let text = text_fits(&text, client.maximum_packet_size).then_some(&*text);
            // The last word [MQTT-3.14.4-1].
            codec::disconnect(&mut out, code, text);
            writer.encode(|tail| tail.extend_from_slice(&out));
        }
        let goodbye = async {
            std::future::poll_fn(|cx| writer.poll_flush(cx, Pin::new(&mut io))).await?;
            // A stop of the broker waits for nobody.
            match told && end != SessionEnd::Shutdown {
                true => last_word(&mut io).await,
                false => io.shutdown().await,
            }
        };
        // The peer may be gone or read nothing; the session does not wait for it.
        let mut goodbye = std::pin::pin!(tokio::time::timeout(GOODBYE, goodbye));
        // Few sessions wait for more than their connection's end: see `crate::left`.
        let waits = std::mem::take(&mut state.behind.has_left) && exchange.left.is_full();
        if waits {
            let _: Result<io::Result<()>, _> = goodbye.as_mut().await;
            exchange.left.room().await;
        }
        let has_left = leave(&exchange, &session, state, will);
        if !waits {
            let _: Result<io::Result<()>, _> = goodbye.await;
        }
        if has_left {
            exchange.left.room().await;
        }
        end
    }
}

/// The connection gives the session up: its will, and its time without a connection. `true` where
/// something is left behind.
fn leave(
    exchange: &Arc<Exchange>,
    session: &Arc<Session>,
    mut state: OwnedMutexGuard<State>,
    mourned: bool,
) -> bool {
    state.window.connection_ended();
    session.inflight.store(state.window.len(), Ordering::Relaxed);
    session.view.lock().since = Instant::now();
    let expiry = state.expiry;
    let over = expiry == Some(Duration::ZERO);
    // [MQTT-3.1.2-8], [MQTT-3.1.2-10]
    match state.will.take() {
        None => {}
        // The end of the session publishes it, if that comes first (3.1.3.2.2).
        Some(will) if mourned && !will.delay.is_zero() && !over => {
            exchange.registry.schedule(session, Due::Will, will.delay);
            state.will = Some(will);
        }
        Some(will) => {
            if mourned {
                state.behind.wait_for(exchange.publish_will(session, will));
            }
            exchange.log_will_over(session, &mut state);
        }
    }
    if !over {
        let (at, expiry) = (wall_seconds(), expiry_seconds(expiry));
        exchange.log_behind(
            session,
            &mut state,
            Record::Leave { session: session.key, at, expiry },
        );
    }
    match expiry {
        // [MQTT-4.1.0-2]; what outlives the connection is kept [MQTT-3.1.2-23], and it was there as
        // long as that [MQTT-4.1.0-1].
        _ if over => exchange.end_session(session, &mut state),
        Some(expiry) => exchange.registry.schedule(session, Due::Expire, expiry),
        None => {}
    }
    std::mem::take(&mut state.behind.has_left)
}

/// A session's expiry as MQTT 5 and the log have it, in seconds; `u32::MAX` is for ever.
fn expiry_seconds(expiry: Option<Duration>) -> u32 {
    expiry.map_or(u32::MAX, |expiry| u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX))
}
