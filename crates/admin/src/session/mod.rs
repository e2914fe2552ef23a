//! Logins of the page: a cookie instead of a token that scripts could read.
//!
//! A session is 256 random bits in a cookie that no script sees and no other site sends. Its
//! digest is kept here with a seal over what it hangs on: the admin token, or the user's password
//! and role. When that changes, the session is over. A request that changes something carries in
//! `X-CSRF-Token` a value that only a page of this origin can have read, since a browser sends
//! cookies to every port of a host.
//!
//! Bounds: [`MOST`] sessions, [`OF_ONE`] of one user; the one used longest ago goes first; [`LIFE`]
//! each.

mod login;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};
use fuota::UserRole;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

pub use login::{close, open, show};

use crate::{doors::Doors, problem::Problem};

/// How long a login lasts.
const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Sessions at once.
const MOST: usize = 1000;
/// The same of one user, or of the admin token: whoever logs in over and over ends its own.
const OF_ONE: usize = 50;
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
    /// The value of its cookie.
    pub id: String,
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
        let own = known.values().filter(|one| one.name == name).count();
        if own >= OF_ONE {
            remove_oldest(&mut known, |one| one.name == name);
        } else if known.len() >= MOST {
            remove_oldest(&mut known, |_| true);
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
    pub fn find(&self, id: &str, doors: &Doors) -> Option<Session> {
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
                Some(Session { name: known.name, role, id: id.to_owned(), csrf })
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
            // Whoever logged out since is in the old one.
            drop(fs::remove_file(file));
            tracing::warn!(%error, file = %file.display(), "logins cannot be kept for the next start");
        }
    }
}

fn remove_oldest(known: &mut HashMap<Digest, Known>, of: impl Fn(&Known) -> bool) {
    let oldest = known.iter().filter(|(_, one)| of(one)).min_by_key(|(_, one)| one.used);
    if let Some(key) = oldest.map(|(key, _)| *key) {
        known.remove(&key);
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
