//! Logins of the page: a cookie instead of a token that scripts could read.
//!
//! A session is 256 random bits in a cookie that no script sees and no other site sends. Its
//! digest is kept here with a seal over what it hangs on: the admin token, or the user's password
//! and role. When that changes, the session is over. A request that changes something carries in
//! `X-CSRF-Token` a value that only a page of this origin can have read, since a browser sends
//! cookies to every port of a host.
//!
//! Bounds: [`MOST`] sessions, the one used longest ago goes first; [`LIFE`] each.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use fuota::{Service, ServiceError, UserRole};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    doors::{Doors, PeerAddress},
    extract,
    problem::Problem,
    routes::App,
};

/// How long a login lasts.
const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Sessions at once.
const MOST: usize = 1000;
/// The header that shows that a change comes from the page.
const CSRF: &str = "x-csrf-token";
/// What the actor of the admin token is called in the audit.
pub const ADMIN_TOKEN: &str = "admin token";

type Digest = [u8; 32];

/// Who is logged in; survives a restart where there is a file.
pub struct Sessions {
    known: Mutex<HashMap<Digest, Known>>,
    file: Option<PathBuf>,
}

/// One session. What is in the file logs nobody in.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    /// The user; `None`: the admin token.
    name: Option<String>,
    /// Over the id and what the session hangs on, in hex.
    seal: String,
    /// Seconds since 1970.
    created: u64,
    /// The same, of the last request; not written at each.
    #[serde(skip)]
    used: u64,
}

/// A session as the request's cookie names it, checked.
pub struct Session {
    /// The user; `None`: the admin token.
    pub name: Option<String>,
    /// What it may do.
    pub role: UserRole,
    csrf: String,
}

impl Session {
    /// The name in the audit.
    pub fn actor(&self) -> String {
        self.name.clone().unwrap_or_else(|| ADMIN_TOKEN.into())
    }
}

impl Sessions {
    /// Those of the file. One that cannot be read has none: everybody logs in again.
    pub fn load(file: Option<PathBuf>) -> Self {
        let known = file.as_deref().map(read).unwrap_or_default();
        Sessions { known: Mutex::new(known), file }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Known>> {
        // What a panic left is whole: each change is one call of the map.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens one, and gives the value of its cookie.
    fn open(&self, name: Option<String>, stamp: &Digest) -> io::Result<String> {
        let mut id = [0; 32];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        let id = hex::encode(id);
        let now = hook::clock::unix_now();
        let mut known = self.lock();
        known.retain(|_, one| lives(one, now));
        while known.len() >= MOST {
            let Some(oldest) = known.iter().min_by_key(|(_, one)| one.used).map(|(key, _)| *key)
            else {
                break;
            };
            known.remove(&oldest);
        }
        let seal = hex::encode(derive(&id, "seal", stamp));
        known.insert(derive(&id, "id", &[]), Known { name, seal, created: now, used: now });
        self.write(&known);
        Ok(id)
    }

    fn close(&self, id: &str) {
        let mut known = self.lock();
        if known.remove(&derive(id, "id", &[])).is_some() {
            self.write(&known);
        }
    }

    /// The session of this cookie, if what it hangs on is unchanged.
    fn find(&self, id: &str, doors: &Doors) -> Option<Session> {
        let key = derive(id, "id", &[]);
        let now = hook::clock::unix_now();
        let known = {
            let mut known = self.lock();
            let one = known.get_mut(&key)?;
            one.used = now;
            one.clone()
        };
        let current = match &known.name {
            None => Some((UserRole::Admin, doors.token_stamp())),
            Some(name) => doors.users().and_then(|users| users.credential(name)),
        };
        let sealed = |(_, stamp): &(UserRole, Digest)| {
            let seal = hex::encode(derive(id, "seal", stamp));
            bool::from(seal.as_bytes().ct_eq(known.seal.as_bytes()))
        };
        match current.filter(|current| lives(&known, now) && sealed(current)) {
            Some((role, _)) => {
                let csrf = hex::encode(derive(id, "csrf", &[]));
                Some(Session { name: known.name, role, csrf })
            }
            None => {
                self.close(id);
                None
            }
        }
    }

    /// Through a name aside, so that nobody reads half a file. A failure costs logins at the
    /// next start and nothing else.
    fn write(&self, known: &HashMap<Digest, Known>) {
        let Some(file) = &self.file else { return };
        let rows: Vec<(String, &Known)> =
            known.iter().map(|(key, one)| (hex::encode(key), one)).collect();
        let aside = file.with_extension("new");
        let written = serde_json::to_vec(&rows).map_err(io::Error::other).and_then(|text| {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&aside)
                .and_then(|mut out| out.write_all(&text))
                .and_then(|()| fs::rename(&aside, file))
        });
        if let Err(error) = written {
            tracing::warn!(%error, file = %file.display(), "logins cannot be kept for the next start");
        }
    }
}

fn read(file: &Path) -> HashMap<Digest, Known> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, file = %file.display(), "logins cannot be read");
            }
            return HashMap::new();
        }
    };
    match serde_json::from_slice::<Vec<(String, Known)>>(&text) {
        Ok(rows) => {
            let digest = |text: &str| {
                let mut key = [0; 32];
                hex::decode_to_slice(text, &mut key).ok().map(|()| key)
            };
            rows.into_iter()
                .take(MOST)
                .filter_map(|(key, one)| Some((digest(&key)?, one)))
                .collect()
        }
        Err(error) => {
            tracing::warn!(%error, file = %file.display(), "logins cannot be read; log in again");
            HashMap::new()
        }
    }
}

/// Whether it is younger than [`LIFE`]; a clock that was set back makes it no older.
fn lives(one: &Known, now: u64) -> bool {
    now.saturating_sub(one.created) < LIFE.as_secs()
}

fn derive(id: &str, what: &str, more: &[u8]) -> Digest {
    let mut digest = Sha256::new();
    for part in [what.as_bytes(), id.as_bytes(), more] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// Two daemons on one host are two ports, which cookies do not tell apart: the name does.
fn cookie_name(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    format!("fuotad-{}", port.unwrap_or("default"))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let name = cookie_name(headers);
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut ours = cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    // A second one was planted: neither counts.
    ours.next().filter(|_| ours.next().is_none())
}

/// The session of a request that brings no other login; `None` where it brings no cookie.
///
/// # Errors
/// The session is over; another site's page sends the request; or a change is not shown to come
/// from the page.
pub fn of_request(doors: &Doors, request: &Request) -> Result<Option<Session>, Problem> {
    let headers = request.headers();
    if headers.contains_key(header::AUTHORIZATION) {
        return Ok(None);
    }
    let Some(id) = cookie(headers) else { return Ok(None) };
    // What browsers say of a request that a page of another origin made them send.
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if !matches!(site, None | Some(b"same-origin" | b"none")) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "a login of this page does not serve pages of other origins",
        ));
    }
    let Some(session) = doors.sessions().find(id, doors) else {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "this login is over; log in again"));
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let shown = headers.get(CSRF).map(HeaderValue::as_bytes).unwrap_or_default();
    if !reads && !bool::from(shown.ct_eq(session.csrf.as_bytes())) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "a change with a login of the page needs its X-CSRF-Token; load the page again",
        ));
    }
    Ok(Some(session))
}

/// A login: the admin token, or a user's name and password.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Login {
    token: Option<String>,
    name: Option<String>,
    password: Option<String>,
}

/// Who is logged in, for the page.
#[derive(Debug, Serialize)]
pub struct SessionView {
    /// The actor; null where nobody is logged in.
    name: Option<String>,
    /// `service`, `operator` or `admin`; null likewise.
    role: Option<&'static str>,
    /// What changes carry in `X-CSRF-Token`.
    csrf: Option<String>,
    /// The daemon's version; null for who is not logged in.
    version: Option<String>,
}

/// GET: who is logged in with the request's cookie.
pub async fn show(
    State(app): State<App>,
    extract::Query(extract::Nothing {}): extract::Query<extract::Nothing>,
    request: Request,
) -> Json<SessionView> {
    let session = of_request(&app.doors, &request).ok().flatten();
    Json(SessionView {
        name: session.as_ref().map(Session::actor),
        role: session.as_ref().map(|session| session.role.name()),
        version: session.is_some().then(|| app.version.to_string()),
        csrf: session.map(|session| session.csrf),
    })
}

/// POST: logs in, and sets the cookie.
pub async fn open(
    State(app): State<App>,
    extract::Query(extract::Nothing {}): extract::Query<extract::Nothing>,
    extract::Peer(peer): extract::Peer,
    headers: HeaderMap,
    extract::Json(login): extract::Json<Login>,
) -> Result<Response, Problem> {
    let doors = &app.doors;
    let peer = peer.map(|PeerAddress(peer)| peer);
    let (name, role, stamp) = match (login.token, login.name, login.password) {
        (Some(token), None, None) => {
            by_token(doors, &app.service, &token, peer)?;
            (None, UserRole::Admin, doors.token_stamp())
        }
        (None, Some(name), Some(password)) => {
            let (role, stamp) = by_password(&app.service, &name, &password, peer).await?;
            (Some(name), role, stamp)
        }
        _ => return Err(Problem::bad_request("log in with token, or with name and password")),
    };
    let id = doors.sessions().open(name.clone(), &stamp);
    let id = id.map_err(|error| Problem::unavailable(error.to_string()))?;
    let actor = name.unwrap_or_else(|| ADMIN_TOKEN.into());
    tracing::info!(user = actor, address = ?peer.map(|peer| peer.ip()), "logged in to the page");
    let view = SessionView {
        name: Some(actor),
        role: Some(role.name()),
        csrf: Some(hex::encode(derive(&id, "csrf", &[]))),
        version: Some(app.version.to_string()),
    };
    let cookie = set_cookie(&headers, &id, LIFE.as_secs(), doors.is_tls());
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], Json(view)).into_response())
}

fn by_token(
    doors: &Doors,
    users: &Service,
    token: &str,
    peer: Option<SocketAddr>,
) -> Result<(), Problem> {
    // The right one too: else guessing goes on behind the answer.
    if users.is_slowed(peer) {
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "too many logins failed from this address; wait a minute",
        ));
    }
    if doors.is_our_token(token.trim()) {
        return Ok(());
    }
    users.wrong_admin_token(peer);
    Err(Problem::new(StatusCode::UNAUTHORIZED, "this is not the admin token"))
}

async fn by_password(
    users: &Service,
    name: &str,
    password: &str,
    peer: Option<SocketAddr>,
) -> Result<(UserRole, Digest), Problem> {
    let wrong = |text: String| Problem::new(StatusCode::UNAUTHORIZED, text);
    let role = users.log_in(name, password, peer).await.map_err(|error| match error {
        ServiceError::Unavailable(text) => Problem::unavailable(text),
        error => wrong(error.to_string()),
    })?;
    if role == UserRole::Device {
        return Err(Problem::new(StatusCode::FORBIDDEN, "a device cannot log in to the page"));
    }
    // Removed in this very moment, where there is none.
    users.credential(name).ok_or_else(|| wrong("the user name or the password is wrong".into()))
}

/// DELETE: logs out.
pub async fn close(
    State(app): State<App>,
    extract::Query(extract::Nothing {}): extract::Query<extract::Nothing>,
    request: Request,
) -> Result<Response, Problem> {
    let doors = &app.doors;
    if of_request(doors, &request)?.is_some()
        && let Some(id) = cookie(request.headers())
    {
        doors.sessions().close(id);
    }
    let cookie = set_cookie(request.headers(), "", 0, doors.is_tls());
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

fn set_cookie(headers: &HeaderMap, id: &str, seconds: u64, secure: bool) -> String {
    let name = cookie_name(headers);
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={id}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn doors(token: &str, file: Option<PathBuf>) -> Doors {
        Doors::new(&Settings {
            token: token.into(),
            listen: Vec::new(),
            allowed_hosts: Vec::new(),
            version: "0".into(),
            sessions: file,
            tls: false,
        })
    }

    fn request(method: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = axum::http::Request::builder().method(method).uri("/api/v1/devices");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(axum::body::Body::empty()).unwrap()
    }

    #[test]
    fn a_session_survives_a_restart_and_ends_with_its_token() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sessions.json");
        let first = doors("0123456789abcdef", Some(file.clone()));
        let id = first.sessions().open(None, &first.token_stamp()).unwrap();
        assert!(first.sessions().find(&id, &first).is_some());
        let kept = fs::read_to_string(&file).unwrap();
        assert!(!kept.contains(&id), "the file logs nobody in: {kept}");
        let again = doors("0123456789abcdef", Some(file.clone()));
        assert!(again.sessions().find(&id, &again).is_some());
        let changed = doors("another token, 16", Some(file.clone()));
        assert!(changed.sessions().find(&id, &changed).is_none());
        let back = doors("0123456789abcdef", Some(file.clone()));
        assert!(back.sessions().find(&id, &back).is_none(), "it was found invalid, for good");
        fs::write(&file, "{").unwrap();
        assert!(doors("x", Some(file)).sessions().lock().is_empty());
    }

    #[test]
    fn a_session_that_was_closed_or_is_old_is_over() {
        let doors = doors("0123456789abcdef", None);
        let id = doors.sessions().open(None, &doors.token_stamp()).unwrap();
        doors.sessions().close(&id);
        assert!(doors.sessions().find(&id, &doors).is_none());
        let id = doors.sessions().open(None, &doors.token_stamp()).unwrap();
        for one in doors.sessions().lock().values_mut() {
            one.created -= LIFE.as_secs();
        }
        assert!(doors.sessions().find(&id, &doors).is_none());
    }

    #[test]
    fn there_are_not_more_than_the_bound() {
        let doors = doors("0123456789abcdef", None);
        let first = doors.sessions().open(None, &doors.token_stamp()).unwrap();
        for one in doors.sessions().lock().values_mut() {
            one.used -= 10;
        }
        for _ in 0..MOST {
            doors.sessions().open(None, &doors.token_stamp()).unwrap();
        }
        assert_eq!(doors.sessions().lock().len(), MOST);
        assert!(doors.sessions().find(&first, &doors).is_none(), "the one used longest ago");
    }

    #[test]
    fn a_cookie_alone_changes_nothing_and_serves_no_other_origin() {
        let doors = doors("0123456789abcdef", None);
        let id = doors.sessions().open(None, &doors.token_stamp()).unwrap();
        let csrf = hex::encode(derive(&id, "csrf", &[]));
        let ours = format!("other=1; fuotad-8080={id}");
        let with = |method: &str, more: &[(&str, &str)]| {
            let mut headers = vec![("host", "localhost:8080"), ("cookie", ours.as_str())];
            headers.extend_from_slice(more);
            match of_request(&doors, &request(method, &headers)) {
                Ok(session) => session.map(|session| session.actor()),
                Err(problem) => Some(problem.status().to_string()),
            }
        };
        let actor = Some(ADMIN_TOKEN.to_owned());
        let forbidden = Some("403 Forbidden".to_owned());
        assert_eq!(with("GET", &[]), actor);
        assert_eq!(with("GET", &[("sec-fetch-site", "same-origin")]), actor);
        assert_eq!(with("GET", &[("sec-fetch-site", "same-site")]), forbidden, "another port");
        assert_eq!(with("GET", &[("sec-fetch-site", "cross-site")]), forbidden);
        assert_eq!(with("POST", &[]), forbidden);
        assert_eq!(with("DELETE", &[("x-csrf-token", &csrf[1..])]), forbidden);
        assert_eq!(with("POST", &[("x-csrf-token", &csrf)]), actor);
        assert_eq!(with("GET", &[("authorization", "Bearer x")]), None, "the header decides");
        let twice = [("host", "localhost:8080"), ("cookie", "fuotad-8080=a; fuotad-8080=b")];
        assert!(of_request(&doors, &request("GET", &twice)).unwrap().is_none());
        let wrong = [("host", "localhost:8080"), ("cookie", "fuotad-8080=a")];
        assert!(of_request(&doors, &request("GET", &wrong)).is_err());
    }

    #[test]
    fn cookies_are_for_one_daemon_and_for_no_script() {
        let headers = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            headers
        };
        for (host, name) in [
            ("localhost:8080", "fuotad-8080"),
            ("[::1]:9", "fuotad-9"),
            ("[::1]", "fuotad-default"),
            ("broker.example", "fuotad-default"),
        ] {
            assert_eq!(cookie_name(&headers(host)), name, "{host}");
        }
        let cookie = set_cookie(&headers("localhost:1"), "x", 5, true);
        assert_eq!(cookie, "fuotad-1=x; Path=/; Max-Age=5; HttpOnly; SameSite=Strict; Secure");
    }
}
