//! One socket's task: read, decide, write.
//!
//! Everything between a read and the answer in the write buffer is synchronous, so one poll
//! reads a batch of packets, lets hooks answer them, and writes all answers at once. Waiting is
//! done in one place, [`Connection::poll`]. What a client's packets do stands in
//! [`crate::inbound`]; here is what moves bytes.

use bytes::{Buf, BytesMut};
use hook::{Client, Outbox, SessionEnd, Slot};
use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedMutexGuard,
};

use crate::{
    backlog::Backlog,
    codec,
    counters::Tally,
    crowd::Wait,
    deliver::SentAliases,
    exchange::{Exchange, Route},
    hooks::View,
    inbound::Used,
    inbox::{Done, Kick, Taken},
    packet::{ConnAck, reason},
    queue::Queue,
    session::{Session, State, ms_at},
    slow::{Slow, TooSlow},
    unsettled::Unsettled,
    writer::Writer,
};

/// The read buffer that all connections of a worker thread share: an idle one has none.
const READ_BYTES: usize = 64 * 1024;
/// While more than this waits for a socket that takes nothing, nothing is read from it.
const UNREAD_BYTES: u64 = 256 * 1024;
/// Rounds of read and write before other tasks run.
const ROUNDS: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// Topics by alias. Boxed in the connection, since few clients set any.
#[derive(Default)]
pub(crate) struct Aliases(pub HashMap<u16, Arc<str>>);

/// Why a connection ends.
#[derive(Debug)]
pub(crate) struct Ending {
    /// For hooks and the log.
    pub end: SessionEnd,
    /// The reason code and string of a DISCONNECT to an MQTT 5 client, where one is due.
    pub tell: Option<(u8, Cow<'static, str>)>,
    /// Whether the will is published.
    pub will: bool,
}

impl Ending {
    /// The client broke the protocol.
    pub fn protocol(code: u8, text: impl Into<Cow<'static, str>>) -> Self {
        Ending { end: SessionEnd::ProtocolError, tell: Some((code, text.into())), will: true }
    }

    fn lost() -> Self {
        Ending { end: SessionEnd::ConnectionLost, tell: None, will: true }
    }
}

impl From<Kick> for Ending {
    fn from(Kick { end, reason, text }: Kick) -> Self {
        Ending { end, tell: Some((reason, text)), will: true }
    }
}

/// What the CONNACK promised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promised {
    /// The largest packet that is taken, in bytes.
    pub packet_bytes: usize,
    /// QoS 2 publishes that may be unreleased: the broker's Receive Maximum.
    pub inflight: u16,
}

/// What the handshake hands over.
pub(crate) struct Parts<S> {
    pub io: S,
    pub exchange: Arc<Exchange>,
    pub client: Arc<Client>,
    pub session: Arc<Session>,
    pub state: OwnedMutexGuard<State>,
    pub slots: Box<[Slot]>,
    pub outbox: Outbox,
    /// How long it may be silent, in milliseconds; 0 is for ever.
    pub patience: u32,
    /// Publishes that may be in flight to the client.
    pub window: u16,
    pub promised: Promised,
    /// Topic Alias Maximum of the client.
    pub topic_alias_maximum: u16,
    /// Whether it wants reason strings with acknowledgements.
    pub problem_information: bool,
    /// Another broker that connects as a client.
    pub bridge: bool,
    /// What came behind the CONNECT.
    pub rest: Vec<u8>,
}

/// A client that is connected.
pub(crate) struct Connection<S> {
    pub(crate) io: S,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) client: Arc<Client>,
    pub(crate) session: Arc<Session>,
    pub(crate) state: OwnedMutexGuard<State>,
    pub(crate) slots: Box<[Slot]>,
    pub(crate) outbox: Outbox,
    pub(crate) window: usize,
    pub(crate) promised: Promised,
    /// Packet ids that the session's last connection left unacknowledged, to be sent again.
    pub(crate) resend: Queue<u16>,
    pub(crate) problem_information: bool,
    pub(crate) bridge: bool,
    /// A packet that has not arrived whole, or may not be handled yet.
    partial: BytesMut,
    /// `partial` holds whole packets that had to wait.
    waiting: bool,
    /// The client sends nothing more, and some of what it has sent still waits.
    left: bool,
    /// So many bytes of those are known to have nothing in them that need not.
    looked: usize,
    pub(crate) writer: Writer,
    /// The socket took less than there was.
    flushing: bool,
    /// The socket takes nothing any more. What the client sent before it left is still read, to
    /// the end: its last messages, and perhaps its DISCONNECT.
    deserted: bool,
    pub(crate) taken: Taken,
    pub(crate) done: Done,
    /// Retained messages for new subscriptions, beside the bounded queues: they exist anyway.
    pub(crate) backlog: Option<Box<Backlog>>,
    /// Topics by alias, as the client set them on this connection [MQTT-3.3.2-7].
    pub(crate) aliases: Option<Box<Aliases>>,
    pub(crate) sent_aliases: Option<Box<SentAliases>>,
    pub(crate) route: Option<Box<Route>>,
    /// Packet ids of QoS 2 publishes that were received on earlier connections, and not released.
    pub(crate) received_before: BTreeSet<u16>,
    /// What waits for the log, or for room in other sessions' queues.
    pub(crate) unsettled: Option<Box<Unsettled>>,
    /// Somebody who is to catch up before the next publish.
    pub(crate) crowd: Option<Box<Wait>>,
    /// Who goes first: the receiver of what was just read. Its message should not wait for the
    /// acknowledgement to be written; and while that is written, its answer comes.
    pub(crate) ahead: Option<Arc<Session>>,
    /// See [`Parts::patience`].
    patience: u32,
    slow: Slow,
    /// When others are to run, in a turn that has taken a while.
    pub(crate) turn_ends: Option<Instant>,
    pub(crate) tally: Tally,
    /// When what is handled now was read.
    pub(crate) arrived: Instant,
    /// Ordinary publishes of it that are acknowledged, or handed over.
    pub(crate) settled: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn new(mut parts: Parts<S>) -> Self {
        Connection {
            waiting: !parts.rest.is_empty(),
            io: parts.io,
            client: parts.client,
            session: parts.session,
            resend: parts.state.window.ids().into(),
            backlog: parts.state.backlog.take().map(|mut backlog| {
                backlog.resume(parts.exchange.retained.newest());
                backlog
            }),
            exchange: parts.exchange,
            received_before: parts.state.received.clone(),
            state: parts.state,
            slots: parts.slots,
            outbox: parts.outbox,
            window: parts.window.into(),
            promised: parts.promised,
            problem_information: parts.problem_information,
            bridge: parts.bridge,
            partial: BytesMut::from(&parts.rest[..]),
            left: false,
            looked: 0,
            writer: Writer::default(),
            flushing: false,
            deserted: false,
            taken: Taken::default(),
            done: Done::default(),
            aliases: None,
            sent_aliases: SentAliases::new(parts.topic_alias_maximum),
            route: None,
            unsettled: None,
            crowd: None,
            ahead: None,
            patience: parts.patience,
            slow: Slow::default(),
            turn_ends: None,
            tally: Tally::default(),
            arrived: Instant::now(),
            settled: 0,
        }
    }

    /// See [`crate::slow`].
    fn patience(&self) -> Duration {
        self.exchange.settings.stall.max(Duration::from_millis(self.patience.into()))
    }

    /// The CONNACK, ahead of everything.
    pub fn send_connack(&mut self, ack: &ConnAck) {
        let protocol = self.client.protocol;
        self.writer.encode(|out| codec::connack(out, protocol, ack));
    }

    /// The hooks and what they are shown, borrowed apart from the rest.
    pub(crate) fn view(&mut self) -> (&Exchange, View<'_>) {
        let view = View { client: &self.client, outbox: &self.outbox, slots: &mut self.slots };
        (&self.exchange, view)
    }

    /// Serves the client until it ends, and cleans up. Boxes keep the task of an idle connection
    /// at the size of a few pointers: a future reserves room for all that it ever moves.
    pub async fn run(mut self: Box<Self>) -> SessionEnd {
        let ending = std::future::poll_fn(|cx| self.poll(cx)).await;
        Box::pin(self.finish(ending)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let result = self.rounds(cx);
        self.tally.flush(&self.exchange.totals);
        match result {
            Ok(()) => Poll::Pending,
            Err(ending) => Poll::Ready(ending),
        }
    }

    /// Reads and writes until neither makes progress and nothing has come for the client.
    fn rounds(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        self.turn_ends = None;
        for _ in 0..ROUNDS {
            let evicted = self.session.inbox.take(&mut self.done, &mut self.taken)?;
            self.tally.dropped += evicted as u32;
            if !self.poll_greeting(cx)? {
                // Nothing else is done before the CONNACK, but another may take over.
                if self.session.inbox.park(cx.waker()) {
                    return Ok(());
                }
                continue;
            }
            let more = !self.flushing && self.fill();
            let wrote = self.flush(cx);
            self.poll_unsettled(cx)?;
            self.poll_crowd(cx);
            if self.turn_is_over(false) {
                break;
            }
            let read = self.read(cx)?;
            if let Some(receiver) = self.ahead.take()
                && receiver.inbox.after_take(cx.waker())
            {
                return Ok(());
            }
            let unwritten = !self.writer.is_empty() && !self.flushing;
            if !wrote && !read && !unwritten && !more && self.session.inbox.park(cx.waker()) {
                return self.check_slow(cx);
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// `true` where something was written and the socket may take more.
    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        if self.deserted {
            self.writer.discard();
        }
        if self.writer.is_idle() {
            return false;
        }
        let before = self.writer.len();
        match self.writer.poll_flush(cx, Pin::new(&mut self.io)) {
            Poll::Ready(Ok(())) => {
                self.flushing = false;
                self.slow.taken();
                true
            }
            Poll::Ready(Err(_)) => {
                // Nothing more is taken out of its queues.
                (self.flushing, self.deserted) = (true, true);
                self.writer.discard();
                self.slow.unread(Instant::now(), self.patience(), false);
                false
            }
            Poll::Pending => {
                self.flushing = true;
                let (now, taken) = (Instant::now(), self.writer.len() < before);
                if taken && self.is_unread() {
                    // Its PINGREQs wait where nothing is read, and it is there all the same.
                    self.session.last_packet.store(ms_at(now), Ordering::Relaxed);
                }
                self.slow.unread(now, self.patience(), taken);
                false
            }
        }
    }

    fn poll_crowd(&mut self, cx: &mut Context<'_>) {
        if let Some(wait) = &mut self.crowd
            && wait.poll(cx, &self.exchange.lanes).is_ready()
        {
            self.crowd = None;
            self.look_at_what_waited();
        }
    }

    /// What had to wait behind a publish is looked at again.
    pub(crate) fn look_at_what_waited(&mut self) {
        self.waiting = !self.partial.is_empty();
    }

    /// Of a connection that was taken over: what lies in its socket is handled. Its client may have
    /// said goodbye before it came back, and the one is seen before the other.
    pub(crate) async fn read_on(&mut self) -> Result<(), Ending> {
        // What is there is known when the runtime has looked at its sockets.
        tokio::task::yield_now().await;
        let mut bytes = std::mem::take(&mut self.partial);
        let most = bytes.len() + READ_BYTES;
        let mut piece = [0; 1024];
        std::future::poll_fn(|cx| {
            while bytes.len() < most {
                let mut buffer = ReadBuf::new(&mut piece);
                match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                        bytes.extend_from_slice(buffer.filled());
                    }
                    _ => break,
                }
            }
            Poll::Ready(())
        })
        .await;
        if self.is_greeting() || self.blocked() {
            self.partial = bytes;
            return Ok(());
        }
        self.handle_joined(bytes)
    }

    /// What has come and was not handled, of a connection that ends.
    pub(crate) fn take_partial(&mut self) -> BytesMut {
        std::mem::take(&mut self.partial)
    }

    /// Whether publishes have to wait: for the log, for room elsewhere, or for the client to read.
    pub(crate) fn blocked(&self) -> bool {
        self.crowd.is_some()
            || self.unsettled.as_ref().is_some_and(|unsettled| {
                let journal = self.exchange.journal.as_ref();
                unsettled.blocks_publishes(journal.is_some_and(|journal| journal.is_behind()))
            })
            || (!self.deserted && self.session.inbox.outbox_is_high())
    }

    /// Whether so much waits for the client that nothing is read from it.
    fn is_unread(&self) -> bool {
        self.flushing && self.writer.len() > UNREAD_BYTES
    }

    /// `true` where something was read or handled.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        if self.is_unread() {
            self.session.hold(false);
            return Ok(false);
        }
        if self.waiting && !self.blocked() {
            let bytes = std::mem::take(&mut self.partial);
            self.handle_joined(bytes)?;
            return Ok(true);
        }
        // A crowd is over soon, and what is not read slows the publisher down.
        let full = self.partial.len() >= READ_BYTES + self.promised.packet_bytes;
        let held = self.waiting && (self.left || self.crowd.is_some() || full);
        self.session.hold(held);
        if held {
            return Ok(false);
        }
        if self.left {
            return Err(Ending::lost());
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Pending => Ok(false),
                Poll::Ready(read) if read.is_err() || buffer.filled().is_empty() => {
                    // Its last messages may wait, and its DISCONNECT behind them.
                    self.left = true;
                    Ok(true)
                }
                Poll::Ready(_) => {
                    let now = Instant::now();
                    self.session.last_packet.store(ms_at(now), Ordering::Relaxed);
                    if !self.waiting {
                        self.arrived = now;
                    }
                    if self.partial.is_empty() {
                        self.handle(buffer.filled())?;
                    } else {
                        let mut bytes = std::mem::take(&mut self.partial);
                        bytes.extend_from_slice(buffer.filled());
                        self.handle_joined(bytes)?;
                    }
                    Ok(true)
                }
            }
        })
    }

    /// Handles whole packets and keeps the rest.
    fn handle(&mut self, bytes: &[u8]) -> Result<(), Ending> {
        let used = self.packets(bytes)?;
        self.partial = BytesMut::from(&bytes[used.consumed..]);
        self.note_partial(&used)
    }

    /// The same for bytes that came in pieces. Where they make no packet yet they are kept as
    /// they are: copied at each piece, a large packet in small ones would cost its square.
    fn handle_joined(&mut self, mut bytes: BytesMut) -> Result<(), Ending> {
        let used = self.packets(&bytes)?;
        if used.consumed < bytes.len() {
            bytes.advance(used.consumed);
            self.partial = bytes;
        }
        self.note_partial(&used)
    }

    fn note_partial(&mut self, used: &Used) -> Result<(), Ending> {
        // Once for all that was read together: a clock for each would be seen in the benchmarks.
        if self.settled > 0 {
            let settled = std::mem::take(&mut self.settled);
            self.exchange.totals.publish_time.observe_each(self.arrived.elapsed(), settled);
        }
        self.waiting = used.waiting;
        if used.consumed > 0 || !self.waiting {
            self.looked = 0;
        }
        // A crowd is over soon, and nothing more is read until then.
        if self.waiting && self.crowd.is_none() && self.blocked() {
            let mut bytes = std::mem::take(&mut self.partial);
            self.looked = self.overtake(&mut bytes, self.looked)?;
            self.partial = bytes;
        }
        if self.partial.is_empty() || self.waiting {
            self.slow.whole();
        } else {
            let (patience, bytes) = (self.patience(), self.partial.len());
            self.slow.partial(Instant::now(), patience, bytes, used.consumed > 0);
        }
        Ok(())
    }

    fn check_slow(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        let patience = self.patience();
        let Poll::Ready(what) = self.slow.poll(cx, patience) else { return Ok(()) };
        self.tally.slow_clients += 1;
        let (end, code, text) = match what {
            TooSlow::Reading => {
                (SessionEnd::Kicked, reason::QUOTA_EXCEEDED, "the client reads nothing")
            }
            TooSlow::Sending => (
                SessionEnd::KeepAliveTimeout,
                reason::KEEP_ALIVE_TIMEOUT,
                "a packet was not complete in time",
            ),
        };
        tracing::debug!(client = &*self.client.id, why = text, "too slow");
        Err(Ending { end, tell: Some((code, text.into())), will: true })
    }
}
