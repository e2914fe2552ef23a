//! A real S3 server inside the test: s3s-fs over HTTP on a free port, with signatures checked.
//! Before it stands what makes it like other servers: [`Tags`], and like bad ones: [`Fault`].
//!
//! Included by `#[path]`, so that it serves the tests of several crates.
#![allow(dead_code, reason = "each test uses its own part of this")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use hyper::Method;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, ETAG, IF_MATCH, LAST_MODIFIED};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The only key that the server accepts.
pub const ACCESS_KEY_ID: &str = "site-1";
/// The secret that belongs to it.
pub const SECRET_ACCESS_KEY: &str = "only for tests";
/// The only bucket.
pub const BUCKET: &str = "firmware";

/// What the server does wrong with requests for objects whose name has `pump` in it; with all
/// requests where it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// This status to whoever wants the bytes.
    Status(u16),
    /// This status to whoever asks about the object.
    HeadStatus(u16),
    /// The status 500 to whoever asks about the object whose name ends so.
    HeadOf(&'static str),
    /// This status, for listings too.
    EveryStatus(u16),
    /// Half of the body, and then the connection ends.
    HalfBody,
    /// A body that is one byte shorter than what was listed, and says so.
    ShortBody,
    /// One that is a byte longer than what was asked for, and says so.
    LongBody,
    /// No answer to anything, until there is another fault.
    Frozen,
}

/// Where the server tells ETags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tags {
    /// To whoever asks about one object, and not in listings.
    Answers,
    /// In listings too, and it heeds `If-Match`, as Amazon's S3 and most others.
    Everywhere,
    /// Nowhere.
    Nowhere,
    /// Nowhere, and answers about one object have no date either.
    NorDates,
}

/// What somebody asked the server.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub path: String,
    pub at: Instant,
    /// The session token that came with it.
    pub token: Option<String>,
}

/// What a server and its connections share.
struct Shared {
    service: S3Service,
    /// The same objects without a look at signatures: for questions of our own.
    unsigned: S3Service,
    root: tempfile::TempDir,
    fault: watch::Sender<Fault>,
    tags: Mutex<Tags>,
    /// The session tokens that fit its key; none in it where that is one for good.
    tokens: Mutex<Vec<Option<String>>>,
    /// What is put in the place of an object when a part of that was sent: key and bytes.
    overwriting: Mutex<Option<(String, Vec<u8>)>>,
    /// Bytes of objects that were sent.
    sent: AtomicU64,
    requests: Mutex<Vec<Request>>,
    /// Requests whose `If-Match` was not met.
    unmet: AtomicU64,
}

/// The server. Dropped, it is gone with all that was stored.
pub struct S3Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Starts it with an empty bucket.
    pub async fn start() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(root.path().join(BUCKET)).expect("the bucket");
        let files = || s3s_fs::FileSystem::new(root.path()).expect("s3s-fs");
        let mut builder = S3ServiceBuilder::new(files());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        let shared = Arc::new(Shared {
            service: builder.build(),
            unsigned: S3ServiceBuilder::new(files()).build(),
            root,
            fault: watch::Sender::new(Fault::None),
            tags: Mutex::new(Tags::Answers),
            tokens: Mutex::new(vec![None]),
            overwriting: Mutex::default(),
            sent: AtomicU64::new(0),
            requests: Mutex::default(),
            unmet: AtomicU64::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        Self { accepting: Some(accept(listener, shared.clone())), shared, address }
    }

    /// The base address for clients.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes all connections and the port.
    pub async fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    /// Opens the port again.
    pub async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the same port");
        self.accepting = Some(accept(listener, self.shared.clone()));
    }

    /// Does this wrong from now on.
    pub fn set_fault(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// Tells ETags there from now on.
    pub fn set_tags(&self, tags: Tags) {
        *self.shared.tags.lock().expect("tags") = tags;
    }

    /// Its key is one of a session from now on, with one of these tokens.
    pub fn set_tokens(&self, tokens: &[&str]) {
        let tokens = tokens.iter().map(|&token| Some(token.to_owned())).collect();
        *self.shared.tokens.lock().expect("tokens") = tokens;
    }

    /// How many bytes of objects it sent.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// All that it was asked, in that order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().expect("requests").clone()
    }

    /// How many pages of listings it was asked for.
    pub fn listings(&self) -> usize {
        self.requests().iter().filter(|it| it.method == Method::GET && is_bucket(&it.path)).count()
    }

    /// How many times it was asked about an object.
    pub fn heads(&self) -> usize {
        self.requests().iter().filter(|it| it.method == Method::HEAD).count()
    }

    /// How many parts it did not give because the object was another by then.
    pub fn unmet(&self) -> u64 {
        self.shared.unmet.load(Ordering::SeqCst)
    }

    /// Puts an object into the bucket from behind the server's back, at once and whole.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        self.shared.put(key, bytes);
    }

    /// Does the same when a part of what is there was sent, before anything else is.
    pub fn put_amid_reading(&self, key: &str, bytes: &[u8]) {
        *self.shared.overwriting.lock().expect("overwriting") = Some((key.into(), bytes.into()));
    }

    /// Lets an object have been put at that time.
    pub fn date(&self, key: &str, time: SystemTime) {
        let file = std::fs::File::options().write(true).open(self.shared.path(key));
        file.and_then(|file| file.set_modified(time)).expect("another date");
    }

    /// Deletes an object from behind the server's back.
    pub fn delete(&self, key: &str) {
        std::fs::remove_file(self.shared.path(key)).expect("the object");
    }
}

impl Shared {
    fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.path(key);
        let staged = self.root.path().join("staged");
        std::fs::write(&staged, bytes).expect("a staged object");
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("its folder");
        std::fs::rename(staged, path).expect("the object");
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.path().join(BUCKET).join(key)
    }

    /// Overwrites the object at that path of an address, if that is to be done.
    fn overwrite(&self, path: &str) {
        let mut overwriting = self.overwriting.lock().expect("overwriting");
        let is_it = |(key, _): &mut (String, _)| Path::new(path).ends_with(&**key);
        if let Some((key, bytes)) = overwriting.take_if(is_it) {
            self.put(&key, &bytes);
        }
    }

    /// The ETag of the object at that path of an address, in quotes.
    async fn tag(&self, path: &str) -> Option<String> {
        let question = hyper::Request::head(format!("http://localhost{path}"));
        let answer = self.unsigned.call(question.body(Body::empty()).ok()?).await.ok()?;
        Some(answer.headers().get(ETAG)?.to_str().ok()?.to_owned())
    }

    /// A page of a listing with the ETags of its objects.
    async fn with_tags(&self, page: &str) -> String {
        let mut tagged = String::new();
        for part in page.split_inclusive("</Contents>") {
            let key = part.split_once("<Key>").and_then(|(_, rest)| rest.split_once("</Key>"));
            let (Some((key, _)), Some(entry)) = (key, part.strip_suffix("</Contents>")) else {
                tagged.push_str(part);
                continue;
            };
            tagged.push_str(entry);
            if let Some(tag) = self.tag(&format!("/{BUCKET}/{key}")).await {
                let tag = tag.replace('"', "&quot;");
                tagged.push_str(&format!("<ETag>{tag}</ETag>"));
            }
            tagged.push_str("</Contents>");
        }
        tagged
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

/// Serves connections until aborted, which aborts them too.
fn accept(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let shared = shared.clone();
            connections.spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let service = service_fn(move |request| answer(shared.clone(), request));
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
            while connections.try_join_next().is_some() {}
        }
    })
}

/// Whether that path of an address is the bucket's own.
fn is_bucket(path: &str) -> bool {
    path.trim_matches('/') == BUCKET
}

/// Answers one request, as wrong as it should.
async fn answer(
    shared: Arc<Shared>,
    request: hyper::Request<Incoming>,
) -> Result<HttpResponse, s3s::HttpError> {
    let mut fault = shared.fault.subscribe();
    let frozen = |fault: &Fault| *fault != Fault::Frozen;
    let fault = fault.wait_for(frozen).await.map_or(Fault::None, |fault| *fault);
    let path = request.uri().path().to_owned();
    let is_object = !is_bucket(&path);
    let is_pump = path.contains("pump");
    let is_get = request.method() == Method::GET;
    let token = request.headers().get("x-amz-security-token");
    let token = token.map(|token| String::from_utf8_lossy(token.as_bytes()).into_owned());
    shared.requests.lock().expect("requests").push(Request {
        token: token.clone(),
        method: request.method().clone(),
        path: path.clone(),
        at: Instant::now(),
    });
    let status = match fault {
        Fault::Status(status) if is_pump && is_get => Some(status),
        Fault::HeadStatus(status) if is_pump && !is_get => Some(status),
        Fault::HeadOf(name) if !is_get && path.ends_with(name) => Some(500),
        Fault::EveryStatus(status) => Some(status),
        _ if !shared.tokens.lock().expect("tokens").contains(&token) => Some(403),
        _ => None,
    };
    if let Some(status) = status {
        // As real servers say it.
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>SomeCode</Code><Message>No for {ACCESS_KEY_ID}\
             </Message><AWSAccessKeyId>{ACCESS_KEY_ID}</AWSAccessKeyId>\
             <StringToSign>AWS4-HMAC-SHA256</StringToSign></Error>"
        );
        let mut response = HttpResponse::new(Body::from(body));
        *response.status_mut() = status.try_into().expect("a status");
        return Ok(response);
    }
    let tags = *shared.tags.lock().expect("tags");
    if tags == Tags::Everywhere
        && let Some(wanted) = request.headers().get(IF_MATCH)
        && shared.tag(&path).await.is_some_and(|tag| tag.as_bytes() != wanted)
    {
        shared.unmet.fetch_add(1, Ordering::SeqCst);
        let mut response = HttpResponse::new(Body::empty());
        *response.status_mut() = hyper::StatusCode::PRECONDITION_FAILED;
        return Ok(response);
    }
    let mut response = shared.service.call(request.map(Body::from)).await?;
    if matches!(tags, Tags::Nowhere | Tags::NorDates) {
        response.headers_mut().remove(ETAG);
    }
    if tags == Tags::NorDates {
        response.headers_mut().remove(LAST_MODIFIED);
    }
    if is_get && (is_object || tags == Tags::Everywhere) {
        let body = response.body_mut().store_all_limited(1 << 30).await;
        let mut bytes = body.expect("the object's bytes");
        if !is_object {
            let page = shared.with_tags(std::str::from_utf8(&bytes).expect("XML")).await;
            response.headers_mut().remove(CONTENT_LENGTH);
            *response.body_mut() = Body::from(page);
            return Ok(response);
        }
        match fault {
            // The length in the header stays.
            Fault::HalfBody if is_pump => bytes.truncate(bytes.len() / 2),
            Fault::ShortBody if is_pump => {
                bytes.truncate(bytes.len().saturating_sub(1));
                response.headers_mut().insert(CONTENT_LENGTH, bytes.len().into());
            }
            Fault::LongBody if is_pump => {
                bytes = [&bytes[..], b"x"].concat().into();
                response.headers_mut().insert(CONTENT_LENGTH, bytes.len().into());
            }
            _ => {}
        }
        shared.sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        shared.overwrite(&path);
        *response.body_mut() = Body::from(bytes);
    }
    Ok(response)
}
