//! Who may ask (rule 30): a Host that is meant, an Origin that is ours, the bearer token.
//!
//! The Host check keeps a web page from reaching the interface through a name that it makes
//! resolve to this machine. A page cannot choose the Host header, so only names that nobody
//! else can own are served: loopback, the address that the connection came in on, and what the
//! operator listed.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fuota::{Actor, Service, ServiceError, UserRole};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    problem::Problem,
    session::{self, ADMIN_TOKEN, Sessions},
    settings::Settings,
};

/// The local address of a request's connection, set by the server.
#[derive(Clone, Copy, Debug)]
pub struct LocalAddress(pub SocketAddr);

/// The other end of a request's connection, set by the server.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// What a request came in with, for answers that last: it may be over before they are.
#[derive(Clone)]
pub struct Login {
    /// The user; `None`: the admin token.
    pub user: Option<String>,
    hangs_on: HangsOn,
}

/// What must still be there for a login to go on.
#[derive(Clone)]
enum HangsOn {
    /// The admin token, which stays as long as the daemon.
    AdminToken,
    /// The stamp of a user's password and role.
    Password([u8; 32]),
    /// A user's token.
    Token(String),
    /// The session of the page with this cookie.
    Session(String),
}

/// What requests are measured against.
pub struct Doors {
    /// Digest of the token: equal lengths make the comparison's time say nothing.
    token: [u8; 32],
    addresses: Vec<IpAddr>,
    /// Lower-case names, and addresses as they were written.
    names: Vec<String>,
    /// Who knows the users; `None`: only the token opens.
    users: Option<Service>,
    /// Logins of the page.
    sessions: Sessions,
    tls: bool,
}

impl Doors {
    /// From the settings.
    pub fn new(settings: &Settings) -> Self {
        Doors {
            token: Sha256::digest(settings.token.as_bytes()).into(),
            addresses: settings.listen.iter().map(|address| address.ip().to_canonical()).collect(),
            names: settings.allowed_hosts.iter().map(|name| name.to_ascii_lowercase()).collect(),
            users: None,
            sessions: Sessions::load(settings.sessions.clone()),
            tls: settings.tls,
        }
    }

    /// Lets users in as well, as far as their role goes.
    pub fn with_users(self, users: Service) -> Self {
        Doors { users: Some(users), ..self }
    }

    fn is_our_host(&self, host: &str, local: Option<LocalAddress>) -> bool {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        if host == "localhost" || self.names.iter().any(|name| name == host) {
            return true;
        }
        let literal =
            host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let Ok(address) = literal.parse::<IpAddr>() else { return false };
        let address = address.to_canonical();
        let local = local.map(|LocalAddress(local)| local.ip().to_canonical());
        address.is_loopback()
            || local == Some(address)
            || (self.addresses.contains(&address) && !address.is_unspecified())
    }

    /// Who knows the users.
    pub fn users(&self) -> Option<&Service> {
        self.users.as_ref()
    }

    /// Logins of the page.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// What a login with the admin token hangs on.
    pub fn token_stamp(&self) -> [u8; 32] {
        self.token
    }

    /// Whether the interface is served over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The role that a login has now; `None` where it is over, or may not read at this path any
    /// more.
    pub fn still_reads(&self, login: &Login, path: &str) -> Option<UserRole> {
        let role = match &login.hangs_on {
            HangsOn::AdminToken => UserRole::Admin,
            HangsOn::Password(stamp) => {
                let (role, now) = self.users.as_ref()?.credential(login.user.as_deref()?)?;
                if now != *stamp {
                    return None;
                }
                role
            }
            HangsOn::Token(token) => self.users.as_ref()?.token_user(token)?.role,
            HangsOn::Session(id) => self.sessions.find(id, self)?.role,
        };
        may(role, &Method::GET, path).then_some(role)
    }

    /// Whether this is the admin token, in a time that says nothing about it.
    pub fn is_our_token(&self, given: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(given.as_bytes()).into();
        given.ct_eq(&self.token).into()
    }
}

/// The outer door of every request: Host and Origin.
pub async fn host_and_origin(
    State(doors): State<Arc<Doors>>,
    request: Request,
    next: Next,
) -> Response {
    match check_host(&doors, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check_host(doors: &Doors, request: &Request) -> Result<(), Problem> {
    let local = request.extensions().get::<LocalAddress>().copied();
    let Some(host) = only(request.headers(), header::HOST)? else {
        // Load balancers ask so, and hear nothing that is a secret.
        let is_health = matches!(request.uri().path(), "/healthz" | "/readyz");
        if is_health && request.version() < Version::HTTP_11 && request.uri().authority().is_none()
        {
            return Ok(());
        }
        return Err(Problem::bad_request("the request has no Host header"));
    };
    let host = authority(host)
        .ok_or_else(|| Problem::bad_request("the Host header is not a host name"))?;
    // A request line may carry a host of its own, which HTTP prefers to the header.
    for asked in [Some(&host), request.uri().authority()].into_iter().flatten() {
        if !doors.is_our_host(asked.host(), local) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!(
                    "this interface is not served under the name {:?}; if it should be, add that to admin.allowed_hosts",
                    asked.host()
                ),
            ));
        }
    }
    let Some(origin) = only(request.headers(), header::ORIGIN)? else { return Ok(()) };
    let same = origin
        .split_once("://")
        .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        .and_then(|(_, rest)| authority(rest))
        .is_some_and(|origin| origin.as_str().eq_ignore_ascii_case(host.as_str()));
    if same {
        Ok(())
    } else {
        Err(Problem::new(StatusCode::FORBIDDEN, "the Origin header names another site"))
    }
}

/// The value of a header that may stand there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(&name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Problem::bad_request(format!("the {name} header stands there twice")));
    }
    value
        .map(|value| value.to_str())
        .transpose()
        .map_err(|_| Problem::bad_request(format!("the {name} header is not text")))
}

/// `HOST` or `HOST:PORT` and nothing else.
fn authority(text: &str) -> Option<Authority> {
    text.parse::<Authority>().ok().filter(|authority| !authority.as_str().contains('@'))
}

/// The inner door, before everything under `/api`: the bearer token.
pub async fn bearer(State(doors): State<Arc<Doors>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<PeerAddress>().map(|PeerAddress(peer)| *peer);
    let found = match basic(&doors, &request) {
        Ok(Some((users, name, password))) => {
            log_in(users, &name, &password, peer, request.method(), request.uri().path()).await.map(
                |stamp| {
                    let hangs_on = HangsOn::Password(stamp);
                    (name.clone(), Login { user: Some(name), hangs_on })
                },
            )
        }
        Ok(None) => match session::of_request(&doors, &request) {
            Ok(Some(session)) => {
                let (name, path) = (session.actor(), request.uri().path());
                check_role(&name, session.role, request.method(), path).map(|()| {
                    let hangs_on = HangsOn::Session(session.id);
                    (name, Login { user: session.name, hangs_on })
                })
            }
            Ok(None) => check_token(&doors, &request),
            Err(problem) => Err(problem),
        },
        Err(problem) => Err(problem),
    };
    match found {
        Ok((name, login)) => {
            let origin = peer.map(|peer| peer.ip().to_canonical().to_string());
            request.extensions_mut().insert(Actor { name: Some(name), origin });
            request.extensions_mut().insert(login);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Name and password of a user, where the request brings them.
fn basic<'a>(
    doors: &'a Doors,
    request: &Request,
) -> Result<Option<(&'a Service, String, String)>, Problem> {
    let Some(users) = &doors.users else { return Ok(None) };
    let given = only(request.headers(), header::AUTHORIZATION)?;
    let login = given.and_then(|value| {
        let (scheme, login) = value.split_once(' ')?;
        let login = scheme.eq_ignore_ascii_case("basic").then(|| login.trim())?;
        let login = STANDARD.decode(login).ok()?;
        let (name, password) = std::str::from_utf8(&login).ok()?.split_once(':')?;
        Some((users, name.to_owned(), password.to_owned()))
    });
    Ok(login)
}

/// The stamp of a user's password and role.
async fn log_in(
    users: &Service,
    name: &str,
    password: &str,
    peer: Option<SocketAddr>,
    method: &Method,
    path: &str,
) -> Result<[u8; 32], Problem> {
    let role = users.log_in(name, password, peer).await.map_err(|error| match error {
        ServiceError::Unavailable(_) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        _ => Problem::new(StatusCode::UNAUTHORIZED, error.to_string()),
    })?;
    check_role(name, role, method, path)?;
    // Removed in this very moment, where there is none.
    let credential = users.credential(name).map(|(_, stamp)| stamp);
    credential.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "the user was just removed"))
}

fn check_role(name: &str, role: UserRole, method: &Method, path: &str) -> Result<(), Problem> {
    if may(role, method, path) {
        return Ok(());
    }
    let role = role.name();
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        format!("{name} has the role {role}, which may not {method} {path}"),
    ))
}

/// The least role that may do this.
pub fn least_role(method: &Method, path: &str) -> UserRole {
    let roles = [UserRole::Service, UserRole::Operator];
    roles.into_iter().find(|role| may(*role, method, path)).unwrap_or(UserRole::Admin)
}

/// What a role may do: a service reads, an operator also runs updates, an admin does all.
fn may(role: UserRole, method: &Method, path: &str) -> bool {
    let path = path.strip_prefix("/api").unwrap_or(path);
    let resource = path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next());
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match (role, resource.unwrap_or_default()) {
        (UserRole::Admin, _) => true,
        (UserRole::Device, _) | (_, "users" | "import" | "backup") => false,
        (UserRole::Operator, "deployments" | "firmware" | "freeze") => true,
        (UserRole::Operator, _) => reads,
        (UserRole::Service, "audit") => false,
        (UserRole::Service, _) => reads,
    }
}

/// Whose token a request brings, the admin token or a user's, and the name in the audit.
fn check_token(doors: &Doors, request: &Request) -> Result<(String, Login), Problem> {
    let given = only(request.headers(), header::AUTHORIZATION)?;
    let token = given.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let unauthorized = |detail| Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
    let found = match (token, &doors.users) {
        (Some(token), _) if doors.is_our_token(token) => {
            (ADMIN_TOKEN.into(), Login { user: None, hangs_on: HangsOn::AdminToken })
        }
        (Some(token), Some(users)) => {
            let Ok(login) = users.token_login(token) else {
                return unauthorized(
                    "the bearer token opens nothing: it is unknown, revoked or has ended",
                );
            };
            let name = login.actor();
            check_role(&name, login.role, request.method(), request.uri().path())?;
            let hangs_on = HangsOn::Token(token.to_owned());
            (name, Login { user: Some(login.user), hangs_on })
        }
        (Some(_), None) => return unauthorized("the bearer token is not the admin token"),
        (None, _) => {
            return unauthorized("send a token in the header Authorization: Bearer TOKEN");
        }
    };
    // Refused although the header is right, so that the habit does not form.
    let names =
        request.uri().query().unwrap_or_default().split('&').map(|part| part.split('=').next());
    if names.flatten().any(|name| matches!(name, "token" | "access_token")) {
        return Err(Problem::bad_request(
            "a token does not belong into an address, where logs keep it",
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_read_operate_and_do_all() {
        let (get, post) = (&Method::GET, &Method::POST);
        for (role, method, path, expected) in [
            (UserRole::Service, get, "/v1/devices", true),
            (UserRole::Service, get, "/api/v1/deployments/3/devices", true),
            (UserRole::Service, post, "/v1/deployments/3/pause", false),
            (UserRole::Service, get, "/v1/audit", false),
            (UserRole::Service, get, "/v1/users", false),
            (UserRole::Operator, post, "/v1/deployments/3/pause", true),
            (UserRole::Operator, &Method::DELETE, "/v1/firmware/x", true),
            (UserRole::Operator, &Method::PUT, "/v1/freeze", true),
            (UserRole::Operator, post, "/v1/devices", false),
            (UserRole::Operator, get, "/v1/audit", true),
            (UserRole::Operator, get, "/v1/backup", false),
            (UserRole::Operator, post, "/v1/something-new", false),
            (UserRole::Admin, post, "/v1/users", true),
            (UserRole::Device, get, "/v1/status", false),
        ] {
            assert_eq!(may(role, method, path), expected, "{role:?} {method} {path}");
        }
    }
}
