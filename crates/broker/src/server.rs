//! All of it together.

use hook::{Broker, Hook, Seldom, SessionEnd};
use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Place,
    connection::Connection,
    counters::Totals,
    exchange::Exchange,
    handle::Handle,
    handshake::Opened,
    hooks::Hooks,
    inbox::Kick,
    index::Index,
    journal::{Directory, Image, Journal, JournalError, Persistence, Snapshot, Storage, restore},
    keep_alive::KeepAlives,
    lanes::Lanes,
    limits::LiveLimits,
    listener::{Door, Listeners},
    pace::Pace,
    packet::reason,
    registry::{Due, Registry},
    retained::Retained,
    router::RouterError,
    settings::{Limits, Settings},
    websocket,
};

/// What [`Server::ready`] says before the doors are open.
pub const NOT_OPEN: &str = "the listeners are not open yet";
const CLOSED: u8 = 0;
const OPEN: u8 = 1;
const STOPPING: u8 = 2;

/// Why the broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The embedded router did not come up.
    #[error("the message router did not start: {0}")]
    Router(String),
    /// The durable log cannot be used.
    #[error("the broker's log in {}: {source}", .directory.display())]
    Journal {
        /// Where it lies.
        directory: PathBuf,
        /// Why not.
        #[source]
        source: JournalError,
    },
}

impl From<RouterError> for StartError {
    fn from(error: RouterError) -> Self {
        StartError::Router(error.to_string())
    }
}

/// A running broker: its sessions, its router and its plugins; [`Server::serve`] opens the doors.
pub struct Server {
    exchange: Arc<Exchange>,
    handle: Arc<Handle>,
    /// Ends the tasks that belong to no connection.
    background: CancellationToken,
    /// [`CLOSED`], [`OPEN`] or [`STOPPING`].
    phase: AtomicU8,
}

impl Server {
    /// Starts the router and the background tasks and tells the hooks. Must run inside a
    /// multi-threaded runtime; blocks it for some milliseconds.
    ///
    /// # Errors
    /// The router did not come up.
    pub fn start(settings: Settings, hooks: Vec<Arc<dyn Hook>>) -> Result<Server, StartError> {
        let Some(Persistence { directory, .. }) = &settings.persistence else {
            return Self::start_with(settings, hooks, None);
        };
        let storage = Directory::open(directory).map_err(|error| StartError::Journal {
            directory: directory.clone(),
            source: JournalError::Io { file: "it".into(), error },
        })?;
        Self::start_on(settings, hooks, Arc::new(storage))
    }

    /// The same on another storage than the directory in the settings.
    ///
    /// # Errors
    /// The router did not come up, or the log cannot be used.
    pub fn start_on(
        settings: Settings,
        hooks: Vec<Arc<dyn Hook>>,
        storage: Arc<dyn Storage>,
    ) -> Result<Server, StartError> {
        let Persistence { directory, sync } = settings.persistence.clone().unwrap_or_default();
        let opened = Journal::open(storage, sync)
            .map_err(|source| StartError::Journal { directory, source })?;
        Self::start_with(settings, hooks, Some(opened))
    }

    fn start_with(
        settings: Settings,
        hooks: Vec<Arc<dyn Hook>>,
        opened: Option<(Arc<Journal>, Image)>,
    ) -> Result<Server, StartError> {
        let limits = Arc::new(LiveLimits::new(&settings.limits));
        let lane_count = settings.lanes.max(1);
        let registry = Arc::new(Registry::new(lane_count, limits.clone()));
        let totals = Arc::new(Totals::default());
        let lanes = Lanes::start(lane_count, registry.clone(), totals.clone())?;
        let (index, retained) = (Arc::new(Index::default()), Retained::new(limits.clone()));
        let mut over = Vec::new();
        let journal = opened.map(|(journal, image)| {
            over = restore(image, &journal, &registry, &index, &retained);
            journal
        });
        let exchange = Arc::new(Exchange {
            hooks: Hooks::new(hooks),
            index,
            retained,
            registry,
            keep_alives: KeepAlives::default(),
            journal,
            lanes: lanes.clone(),
            left: Arc::default(),
            totals,
            settings,
            limits,
            pace: Pace::default(),
            not_retained: Seldom::default(),
        });
        let background = CancellationToken::new();
        tokio::spawn(lanes.supervise(background.clone()));
        tokio::spawn(forget_expired(exchange.clone(), background.clone()));
        tokio::spawn(enforce_keep_alives(exchange.clone(), background.clone()));
        let handle = Arc::new(Handle { exchange: exchange.clone(), admission: Arc::default() });
        let broker: Arc<dyn Broker> = handle.clone();
        exchange.hooks.start(&broker);
        // Behind the start of the hooks, which are asked about wills; and before anybody else can
        // hold one of them.
        for session in over {
            if let Ok(state) = session.state.clone().try_lock_owned() {
                exchange.end_away(&session, state);
            }
        }
        tokio::spawn(run_due(exchange.clone(), background.clone()));
        tokio::spawn(crate::sys::publish_statistics(broker, background.clone()));
        Ok(Server { exchange, handle, background, phase: AtomicU8::new(CLOSED) })
    }

    #[cfg(test)]
    pub(crate) fn exchange(&self) -> Arc<Exchange> {
        self.exchange.clone()
    }

    /// The way back for plugins and the admin interface.
    pub fn handle(&self) -> Arc<dyn Broker> {
        self.handle.clone()
    }

    /// From now on these limits. What is there stays: a connection keeps what its CONNACK said
    /// of packet size and Receive Maximum, and where there is more of something than a lowered
    /// limit allows, only what is new is refused.
    pub fn set_limits(&self, limits: &Limits) {
        self.exchange.limits.set(limits);
    }

    /// Hooks decide differently from now on: who holds a subscription that they refuse now is
    /// disconnected. Gives the number of those. Publishes are judged one by one in any case, and
    /// sessions that are away when they come back.
    pub fn judge_subscriptions(&self) -> usize {
        self.exchange.judge_again()
    }

    /// Whether clients are let in and messages exchanged now: not before [`Server::serve`] has
    /// begun, and not any more when the stop has.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn ready(&self) -> Result<(), String> {
        match self.phase.load(Ordering::Acquire) {
            CLOSED => Err(NOT_OPEN.into()),
            OPEN if self.exchange.lanes.ready() => Ok(()),
            OPEN => Err("the message router does not answer and is being replaced".into()),
            _ => Err("the broker stops".into()),
        }
    }

    /// Panics the router's thread, and returns when it is gone: a test sees what becomes of that.
    /// Blocks for a moment.
    #[cfg(feature = "faults")]
    pub fn kill_router(&self) {
        self.exchange.lanes.kill_router();
    }

    /// While it is held, a dead router is not replaced.
    #[cfg(feature = "faults")]
    pub fn hold_router(&self, hold: bool) {
        self.exchange.lanes.hold_router(hold);
    }

    /// Accepts connections until cancelled, then says goodbye to all clients (MQTT 5: 0x8B) and
    /// returns when they have left, or after `settings.drain`.
    pub async fn serve(&self, listeners: Listeners, cancel: CancellationToken) {
        let (exchange, handle) = (self.exchange.clone(), self.handle.clone());
        let stop = cancel.clone();
        self.phase.store(OPEN, Ordering::Release);
        listeners
            .accept(cancel, move |stream, address, door| {
                start_one(stream, address, door, &exchange, &handle, &stop);
            })
            .await;
        self.phase.store(STOPPING, Ordering::Release);
        self.drain().await;
        self.background.cancel();
        if let Some(journal) = self.exchange.journal.clone() {
            // A panic there is logged where it happens.
            let _ = tokio::task::spawn_blocking(move || journal.close()).await;
        }
    }

    /// What is in the broker's log now, for a backup. Blocks. `None` where there is no log, or the
    /// broker has stopped.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.exchange.journal.as_ref()?.snapshot()
    }

    /// Why the broker's log cannot be written, where it cannot.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn log_ready(&self) -> Result<(), String> {
        let journal = self.exchange.journal.as_ref();
        journal.and_then(|journal| journal.problem()).map_or(Ok(()), Err)
    }

    async fn drain(&self) {
        let gone = async {
            while self.handle.admission.connections() > 0 {
                // Again in each round: a handshake may just have been completed.
                for session in self.exchange.registry.all() {
                    session.inbox.kick(Kick {
                        end: SessionEnd::Shutdown,
                        reason: reason::SERVER_SHUTTING_DOWN,
                        text: "the broker stops".into(),
                    });
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(self.exchange.settings.drain, gone).await.is_err() {
            tracing::warn!("some clients did not leave in time");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.background.cancel();
    }
}

/// Starts the task of a connection. Each kind has a type of its own, so that the many plain
/// ones are no larger than they have to be.
fn start_one(
    stream: TcpStream,
    address: SocketAddr,
    door: &Door,
    exchange: &Arc<Exchange>,
    handle: &Arc<Handle>,
    stop: &CancellationToken,
) {
    let Some(place) = handle.admission.enter(address, &exchange.limits) else {
        Totals::count(&exchange.totals.connects_refused);
        return;
    };
    let (exchange, stop) = (exchange.clone(), stop.clone());
    match door.clone() {
        Door::Plain => {
            let opened = Opened { io: stream, certificate_cn: None };
            start_serving(std::future::ready(Ok(opened)), address, exchange, place, stop);
        }
        Door::Tls(tls) => {
            let open = async move {
                let (io, certificate_cn) = tls.accept(stream).await?;
                Ok(Opened { io: Box::new(io), certificate_cn })
            };
            start_serving(open, address, exchange, place, stop);
        }
        Door::WebSocket { path } => {
            let open = async move {
                let io = websocket::accept(stream, &path).await?;
                Ok(Opened { io, certificate_cn: None })
            };
            start_serving(open, address, exchange, place, stop);
        }
        Door::SecureWebSocket { path, tls } => {
            let open = async move {
                let (io, certificate_cn) = tls.accept(stream).await?;
                let io = websocket::accept(Box::new(io), &path).await?;
                Ok(Opened { io, certificate_cn })
            };
            start_serving(open, address, exchange, place, stop);
        }
    }
}

fn start_serving<S>(
    open: impl Future<Output = io::Result<Opened<S>>> + Send + 'static,
    address: SocketAddr,
    exchange: Arc<Exchange>,
    place: Place,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Boxed, or the task would keep the room that the handshakes need.
    let greeting = Box::pin(Connection::greeted(open, address, exchange, stop));
    tokio::spawn(async move {
        let connection = greeting.await;
        if let Some(connection) = connection {
            connection.run().await;
        }
        drop(place);
    });
}

/// Publishes delayed wills and forgets expired sessions.
async fn run_due(exchange: Arc<Exchange>, cancel: CancellationToken) {
    loop {
        let next = async {
            exchange.left.room().await;
            exchange.registry.next_due().await
        };
        let (due, session, mut state) = tokio::select! {
            next = next => next,
            () = cancel.cancelled() => return,
        };
        match due {
            Due::Expire => exchange.end_away(&session, state),
            Due::Will => exchange.mourn(&session, &mut state),
        }
    }
}

/// Ends connections that are not heard any more.
async fn enforce_keep_alives(exchange: Arc<Exchange>, cancel: CancellationToken) {
    tokio::select! {
        () = exchange.keep_alives.enforce(&exchange.registry) => {}
        () = cancel.cancelled() => {}
    }
}

/// Gives the room of expired messages back, now and then.
async fn forget_expired(exchange: Arc<Exchange>, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(exchange.settings.forget_every) => {}
            () = cancel.cancelled() => return,
        }
        exchange.retained.forget_expired();
        for session in exchange.registry.all() {
            exchange.forget_expired(&session);
        }
    }
}
