//! Downloads over HTTP: a response is a connection of the device in the dialect `http`, so that
//! offers, limits and progress are those of every other.

use std::{
    io,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use hook::{
    Class, Client, ConnectRequest, ConnectVerdict, Identity, Outbox, Outgoing, Protocol,
    ReasonKind, Refused, Sink, clock,
};
use tokio::sync::mpsc;

pub use crate::dialect::http::Tolerated;
use crate::{
    dialect::{
        BlockSize, Dialect, Question, Report, ReportedState, Request,
        http::{self, Spoken},
    },
    engine::Engine,
    identity::is_staff,
    link::Link,
    service::Service,
    views::{Actor, ServiceError},
};

/// Bytes of one part of a body.
const PART: NonZeroU32 = NonZeroU32::MIN.saturating_add(64 * 1024 - 1);
/// Parts that wait to be sent: then the engine waits, too.
const QUEUE: usize = 16;
/// Room beside them for what ends the body: nothing would tell the engine that it was lost.
const WORDS: usize = 4;
/// How long the engine may take to answer. A cap may make a part wait for long.
const PATIENCE: Duration = Duration::from_secs(600);
/// The longest validity of a link.
const LONGEST: u64 = 30 * 24 * 3600;
/// Numbers of these connections, apart from those of the broker.
static NEXT: AtomicU64 = AtomicU64::new(1 << 63);

/// Who wants to fetch.
pub enum Caller<'a> {
    /// One that says it is this device, and may have proven it.
    Device {
        /// The device's id.
        id: &'a str,
        /// The user's name, where there is one beside the token.
        user: Option<&'a str>,
        /// The device's token, or a user's password.
        token: Option<&'a str>,
    },
    /// The holder of a link.
    Link {
        /// The device's id.
        id: &'a str,
        /// Seconds since 1970.
        expires: u64,
        /// What [`Service::link`] signed.
        signature: &'a str,
    },
}

/// Why nothing is fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Who it is was not proven.
    #[error("{0}")]
    Unauthorized(String),
    /// It is somebody else.
    #[error("{0}")]
    Forbidden(String),
    /// The link's time is over.
    #[error("{0}")]
    Expired(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
}

/// A device that fetches. Dropped, its connection ends.
pub struct Fetch {
    engine: Arc<Engine>,
    link: Arc<Link>,
    messages: mpsc::Receiver<Outgoing>,
    open: Arc<Queue>,
}

/// What a device may fetch.
pub struct Image {
    fetch: Fetch,
    head: http::Head,
}

/// What a device says about itself over HTTP.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpReport {
    /// The version that it runs.
    pub version: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// `downloaded`, `verified`, `updating`, `updated` or `failed`.
    pub state: Option<String>,
    /// Why it failed.
    pub reason: Option<String>,
}

struct Queue {
    sender: mpsc::Sender<Outgoing>,
    open: AtomicBool,
}

impl Sink for Queue {
    fn push(&self, message: Outgoing) -> Result<(), Refused> {
        if !self.open.load(Ordering::Relaxed) {
            return Err(Refused::Closed);
        }
        if message.class == Class::Block && self.sender.capacity() <= WORDS {
            return Err(Refused::Full);
        }
        self.sender.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Full,
            mpsc::error::TrySendError::Closed(_) => Refused::Closed,
        })
    }

    fn pending_blocks(&self) -> usize {
        QUEUE.saturating_sub(self.sender.capacity().saturating_sub(WORDS))
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }
}

impl Service {
    /// A connection of this caller.
    ///
    /// # Errors
    /// [`FetchError`], in words for the device.
    pub async fn caller(
        &self,
        caller: Caller<'_>,
        address: Option<SocketAddr>,
    ) -> Result<Fetch, FetchError> {
        let engine = &self.0;
        engine.remember_runtime();
        let (id, identity) = match caller {
            Caller::Device { id, user, token } => {
                let request = ConnectRequest {
                    connection: 0,
                    client_id: id.into(),
                    assigned_id: false,
                    username: user.or(token.map(|_| "Token")).map(str::to_owned),
                    password: token.map(|token| token.as_bytes().to_vec()),
                    certificate_cn: None,
                    protocol: Protocol::V311,
                    address,
                    user_properties: Vec::new(),
                };
                let identity = match engine.identify(&request).await {
                    ConnectVerdict::Continue => Identity::ANONYMOUS,
                    ConnectVerdict::Accept(identity) => identity,
                    ConnectVerdict::Reject(reason) if reason.kind == ReasonKind::ServerBusy => {
                        return Err(FetchError::Unavailable(reason.text.into()));
                    }
                    ConnectVerdict::Reject(reason) => {
                        return Err(FetchError::Unauthorized(reason.text.into()));
                    }
                };
                (id, identity)
            }
            Caller::Link { id, expires, signature } => {
                let now = clock::unix_now();
                let device = engine.registry.get(id);
                // Of a device that is not known a link tells nothing more than a forged one.
                let seed = device.map_or(0, |device| device.state.lock().link_seed);
                let signed = engine.key.link(id, expires, seed);
                if !crate::secret::same(signed.as_bytes(), signature.as_bytes()) {
                    return Err(FetchError::Forbidden("the link is not one of this server".into()));
                }
                if now >= expires || !clock::is_set(now) {
                    return Err(FetchError::Expired("the link's time is over".into()));
                }
                if engine.registry.get(id).is_none() {
                    return Err(FetchError::Forbidden(format!("there is no device {id}")));
                }
                (id, Identity::device(id))
            }
        };
        if is_staff(identity.role) {
            let text = "only a device may fetch firmware; this account is none";
            return Err(FetchError::Forbidden(text.into()));
        }
        let client = Client {
            connection: NEXT.fetch_add(1, Ordering::Relaxed),
            id: id.into(),
            assigned_id: false,
            identity,
            username: None,
            protocol: Protocol::V311,
            address,
            maximum_packet_size: u32::MAX,
            receive_maximum: u16::MAX,
            user_properties: Box::new([]),
        };
        let name = engine.name_of(&client);
        if name.as_deref() != Some(id) {
            return Err(FetchError::Forbidden("the token is another device's".into()));
        }
        let (sender, messages) = mpsc::channel(QUEUE + WORDS);
        let open = Arc::new(Queue { sender, open: AtomicBool::new(true) });
        let outbox = Outbox::new(Arc::clone(&open) as Arc<dyn Sink>);
        let link = Arc::new(Link::new(Arc::new(client), outbox, name));
        let dialect: Arc<dyn Dialect> = Arc::new(http::Http);
        link.speaks(&dialect);
        engine.registry.add_link(&link);
        Ok(Fetch { engine: Arc::clone(engine), link, messages, open })
    }

    /// A path below the listener for downloads by which anybody can fetch what this device
    /// should run, and until when (seconds since 1970); earlier where the device is removed or
    /// registered, or its token is rotated with `now`. With a `key` it is the same path for all
    /// repetitions. Who made one is in the audit.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; [`ServiceError::Invalid`] where it is to work for longer than
    /// 30 days, or the key cannot be one; [`ServiceError::Conflict`] where that was used for
    /// something else, or its link is cut off; [`ServiceError::Unavailable`] while the machine's
    /// clock is not set, or nothing can be written.
    pub async fn link(
        &self,
        id: &str,
        seconds: u64,
        key: Option<&str>,
        actor: &Actor,
    ) -> Result<(String, u64), ServiceError> {
        let Some(device) = self.0.registry.get(id) else {
            return Err(ServiceError::NotFound(format!("there is no device {id}")));
        };
        if !(1..=LONGEST).contains(&seconds) {
            let problem = format!("is 1 to {LONGEST} seconds");
            return Err(ServiceError::Invalid { field: "seconds", problem });
        }
        let now = clock::unix_now();
        if !clock::is_set(now) {
            let text = "the machine's clock is not set, so that no link could end";
            return Err(ServiceError::Unavailable(text.into()));
        }
        let _changing = self.0.accounts.change().await;
        let seed = device.state.lock().link_seed;
        let mut request = self.0.requests.open(&self.0.key, "link", key, &(id, seconds, seed))?;
        let expires = request.number(now + seconds);
        if !request.is_done {
            let ends = i64::try_from(expires).ok();
            let ends = ends.and_then(|at| jiff::Timestamp::from_second(at).ok());
            let ends = ends.map(|at| format!("until {at}"));
            let mut ops = vec![Engine::audit_by(actor, id, "download link made", ends)];
            ops.extend(request.op());
            let written = self.0.db.commit(ops).await;
            written.map_err(|error| ServiceError::Unavailable(error.to_string()))?;
        }
        self.0.requests.done(request);
        let signature = self.0.key.link(id, expires, seed);
        Ok((format!("/links/{id}/{expires}/{signature}"), expires))
    }
}

impl Fetch {
    /// What the device should run; `None` where nothing is for it now.
    ///
    /// # Errors
    /// The engine did not answer in time.
    pub async fn image(mut self) -> Result<Option<Image>, FetchError> {
        self.engine.ask(&self.link, Question::default());
        match self.next().await {
            Some((Spoken::Offer(head), _)) => Ok(Some(Image { fetch: self, head })),
            Some((Spoken::Nothing, _)) => Ok(None),
            Some((Spoken::Error(text), _)) => Err(FetchError::Unavailable(text)),
            Some((Spoken::Block(_), _)) | None => {
                Err(FetchError::Unavailable("the server is busy: try again".into()))
            }
        }
    }

    /// Counts what was put up with.
    pub fn tolerated(&self, what: Tolerated) {
        self.engine.quirks.count(http::NAME, what.name());
    }

    /// Takes a report.
    ///
    /// # Errors
    /// A state that is not known: one sentence.
    pub fn report(self, report: HttpReport) -> Result<(), String> {
        let state = match report.state.as_deref() {
            None => None,
            Some("downloaded") => Some(ReportedState::Downloaded),
            Some("verified") => Some(ReportedState::Verified),
            Some("updating") => Some(ReportedState::Updating),
            // The version says it.
            Some("updated") => None,
            Some("failed") => Some(ReportedState::Failed(
                report.reason.unwrap_or_else(|| "the device says so".into()),
            )),
            Some(_) => {
                return Err("state is downloaded, verified, updating, updated or failed".into());
            }
        };
        let HttpReport { version, model, .. } = report;
        self.engine.report(&self.link, Report { model, version, state });
        Ok(())
    }

    async fn next(&mut self) -> Option<(Spoken, Outgoing)> {
        let message = tokio::time::timeout(PATIENCE, self.messages.recv()).await.ok()??;
        Some((http::understand(&message), message))
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.open.open.store(false, Ordering::Relaxed);
        self.engine.ended(&self.link);
    }
}

impl Image {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.head.size
    }

    /// Its SHA-256 in lower-case hex.
    pub fn sha256(&self) -> &str {
        &self.head.sha256
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.head.version
    }

    /// Its file name.
    pub fn file(&self) -> &str {
        &self.head.file
    }

    /// Counts what was put up with in the request for it.
    pub fn tolerated(&self, what: Tolerated) {
        self.fetch.tolerated(what);
    }

    /// The bytes from one offset to before another. A part counts as delivered when the next one
    /// is asked for, the last one when the stream is dropped after it.
    pub fn read(self, from: u64, to: u64) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        let Image { fetch, head } = self;
        let size = BlockSize::Run { from, to, bytes: PART };
        let total = (to - from).div_ceil(u64::from(PART.get())) as u32;
        let request = Request {
            #[allow(clippy::single_range_in_vec_init)]
            more: if total > 1 { vec![1..total] } else { Vec::new() },
            size,
            image: Some(head.tag),
            ..Request::default()
        };
        fetch.engine.request(&fetch.link, request);
        let body = Body { fetch, total, left: total, sent: None };
        stream::unfold(body, |mut body| async move {
            body.settle();
            if body.left == 0 {
                return None;
            }
            let problem = match body.fetch.next().await {
                Some((Spoken::Block(bytes), message)) if body.is_next(&message) => {
                    body.left -= 1;
                    body.sent = Some(message);
                    return Some((Ok(bytes), body));
                }
                // Bytes in the wrong place would be another image.
                Some((Spoken::Block(_), _)) => "the server lost its place in the image".into(),
                Some((Spoken::Error(text), _)) => text,
                Some((Spoken::Offer(_) | Spoken::Nothing, _)) => "the image was replaced".into(),
                None => "the image could not be read in time".into(),
            };
            body.left = 0;
            Some((Err(io::Error::other(problem)), body))
        })
    }
}

struct Body {
    fetch: Fetch,
    /// Parts in all, and those that are still to come.
    total: u32,
    left: u32,
    /// The part that was given out last.
    sent: Option<Outgoing>,
}

impl Body {
    /// Whether it is the part that comes now: nothing in the bytes says so.
    fn is_next(&self, message: &Outgoing) -> bool {
        message.receipt.as_ref().is_some_and(|(_, index)| *index == self.total - self.left)
    }

    fn settle(&mut self) {
        if let Some((receipt, tag)) = self.sent.take().and_then(|message| message.receipt) {
            receipt.written(tag);
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // Before the last part the connection ended early, and that part may be lost.
        if self.left == 0 {
            self.settle();
        }
    }
}
