//! Who a client is (rule 2), answered from memory.

use std::{collections::HashSet, sync::Arc};

use hook::{Client, ConnectRequest, ConnectVerdict, Identity, Reason, ReasonKind, Role};

use crate::{
    accounts::{Failure, Refusal, Tried, User},
    device::Device,
    dialect::Trouble,
    engine::{Counters, Engine},
    link::Link,
    names::{client_device_id, is_name, is_reserved, token_id},
    secret::{MAX_TOKEN, TokenHash},
    settings::AuthMode,
    views::UserRole,
};

/// The user name that says: the password is a token.
pub const TOKEN_USER: &str = "Token";

/// What is heard of a login that failed, whatever was wrong: which names are known is nobody's
/// business. The log says more.
const WRONG: &str = "the user name, password or token is wrong";

/// What an address hears that has to wait.
const SLOWED: &str = "too many logins failed from this address: try again later";

const TOO_LONG: &str = "the password is too long";

/// What a CONNECT proves.
enum Proof {
    /// It is the device of this id.
    Device(Arc<str>),
    /// It holds a token that nobody is registered with.
    Token(Arc<str>),
    /// It is this user.
    User(Arc<User>),
}

/// What user name and password say, as far as memory knows.
enum Login<'a> {
    /// There are none.
    Nothing,
    Proof(Proof),
    /// The password is to be checked.
    Password(Arc<User>, &'a [u8]),
    /// An ordinary login of nobody who is known here.
    Stranger,
    /// Not this device's token, or no password.
    Wrong,
}

impl Engine {
    /// Decides the connect phase. Waits only where a user's password was not verified lately.
    pub async fn identify(self: &Arc<Self>, request: &ConnectRequest) -> ConnectVerdict {
        // Before anything of the accounts is looked at.
        self.accounts.cuts.begins(request.connection);
        let certificate = match request.certificate_cn.as_deref() {
            Some(cn) if !is_name(cn) || is_reserved(cn) => {
                return reject(
                    ReasonKind::NotAuthorized,
                    "the certificate's CN is not a device id",
                );
            }
            // Rules, sessions and logs know accounts by their names alone.
            Some(cn) if self.accounts.get(cn).is_some_and(|user| user.role != UserRole::Device) => {
                return reject(
                    ReasonKind::NotAuthorized,
                    "the certificate's CN is the name of a user that is no device",
                );
            }
            cn => cn,
        };
        let open = self.settings().mode == AuthMode::Open;
        let proof = match self.login(request) {
            Login::Nothing => None,
            Login::Stranger if open => None,
            // Whose token nobody knows is a device of its own in open mode only.
            Login::Proof(Proof::Token(_)) if !open => {
                return self.unknown_login(request, "nobody has this token");
            }
            Login::Proof(proof) => Some(proof),
            Login::Password(user, password) => match self.check(request, user, password).await {
                Ok(user) => Some(Proof::User(user)),
                Err(verdict) => return verdict,
            },
            // A removed device that sends its id and its token looks the same.
            Login::Stranger => {
                return self.unknown_login(request, "there is no such user");
            }
            Login::Wrong => {
                let problem = "the password or token is not this account's";
                return self.unknown_login(request, problem);
            }
        };
        self.admit(request, certificate, proof)
    }

    /// What follows from the proofs together (rules 2 and 3).
    fn admit(
        &self,
        request: &ConnectRequest,
        certificate: Option<&str>,
        proof: Option<Proof>,
    ) -> ConnectVerdict {
        let proof = match (certificate, proof) {
            (Some(cn), Some(Proof::Device(id))) if *id != *cn => {
                return reject(
                    ReasonKind::NotAuthorized,
                    "the certificate and the token name different devices",
                );
            }
            (Some(cn), Some(Proof::User(user)))
                if user.role != UserRole::Device || *user.name != *cn =>
            {
                return reject(
                    ReasonKind::NotAuthorized,
                    "the certificate and the password name different accounts",
                );
            }
            (Some(cn), Some(Proof::Token(_))) => {
                tracing::debug!(device = cn, "certificate beside an unknown token");
                return reject(ReasonKind::NotAuthorized, "the token is not this certificate's");
            }
            (Some(cn), _) => Some(Proof::Device(cn.into())),
            (None, proof) => proof,
        };
        let identity = match proof {
            Some(Proof::Device(id)) => Identity::device(id),
            Some(Proof::Token(id)) => Identity { name: Some(id), role: Role::Anonymous },
            Some(Proof::User(user)) => {
                Identity { name: Some(Arc::clone(&user.name)), role: user.role.into() }
            }
            None => Identity::ANONYMOUS,
        };
        // A client id is a claim too: one that is an account's belongs to its account alone.
        if self.is_device_account(&request.client_id)
            && (identity.role != Role::Device
                || identity.name.as_deref() != Some(&*request.client_id))
        {
            return reject(
                ReasonKind::BadUserNameOrPassword,
                "this client id is a registered device's: log in with its token",
            );
        }
        if self.settings().mode == AuthMode::Token {
            if identity.role == Role::Anonymous {
                return reject(
                    ReasonKind::NotAuthorized,
                    "an account is needed: log in with a device token or a user's password",
                );
            }
            if self.is_anothers_session(&request.client_id, &identity) {
                return reject(
                    ReasonKind::NotAuthorized,
                    "this client id is in use by another account: choose another one",
                );
            }
        }
        match identity {
            Identity::ANONYMOUS => ConnectVerdict::Continue,
            identity => ConnectVerdict::Accept(identity),
        }
    }

    /// Whether a session of this client id is another account's (rule 3). One without an owner,
    /// from a time in open mode, is free to be taken.
    fn is_anothers_session(&self, client_id: &str, identity: &Identity) -> bool {
        self.broker.get().and_then(|broker| broker.client(client_id)).is_some_and(|session| {
            session.identity.role != Role::Anonymous && session.identity.name != identity.name
        })
    }

    /// The forms of a login, judged by what is in memory.
    fn login<'a>(&self, request: &'a ConnectRequest) -> Login<'a> {
        let password = request.password.as_deref().filter(|password| !password.is_empty());
        let username = request.username.as_deref();
        let username = username.map(|given| self.user_name(given));
        let (token, claimed) = match (username, password) {
            (None | Some(""), _) | (Some(TOKEN_USER), None) => return Login::Nothing,
            (Some(TOKEN_USER), Some(password)) => (password, None),
            (Some(name), password) => {
                if let Some(user) = self.accounts.get(name) {
                    return match password {
                        Some(password) => Login::Password(user, password),
                        None => Login::Wrong,
                    };
                }
                match (self.registered(name), password) {
                    (Some(device), Some(password)) => (password, Some(device)),
                    (Some(_), None) => return Login::Wrong,
                    // As ThingsBoard devices do: the token is the user name.
                    (None, None) => (name.as_bytes(), None),
                    (None, Some(_)) => return Login::Stranger,
                }
            }
        };
        if token.len() > MAX_TOKEN {
            return Login::Wrong;
        }
        let hash = self.key.token(token);
        let owner = match claimed {
            Some(device) => device,
            None => {
                let owner = self.registry.token_owner(&hash);
                match owner.and_then(|id| self.registered(&id)) {
                    Some(device) => device,
                    None => return Login::Proof(Proof::Token(token_id(&self.key, token))),
                }
            }
        };
        // It may also be an old token whose time is over.
        match self.accepts(&owner, &hash) {
            true => Login::Proof(Proof::Device(Arc::clone(&owner.id))),
            false => Login::Wrong,
        }
    }

    /// What counts of a user name.
    fn user_name<'a>(&self, given: &'a str) -> &'a str {
        for dialect in &self.dialects {
            if let Some((name, quirk)) = dialect.user_name(given) {
                self.quirks.count(dialect.name(), quirk);
                return name;
            }
        }
        given
    }

    async fn check(
        self: &Arc<Self>,
        request: &ConnectRequest,
        user: Arc<User>,
        password: &[u8],
    ) -> Result<Arc<User>, ConnectVerdict> {
        let address = request.address.map(|address| address.ip());
        if password.len() > MAX_TOKEN {
            let failure = self.accounts.failed(Tried::Password, Some(&user.name), address);
            return Err(self.failed_login(request, failure, TOO_LONG));
        }
        match self.accounts.verify(&self.key, &user, password, address).await {
            Ok(()) => {
                self.renew_password(&user, password);
                Ok(user)
            }
            Err(refusal) => Err(self.refused_password(request, refusal, "the password is wrong")),
        }
    }

    fn refused_password(
        &self,
        request: &ConnectRequest,
        refusal: Refusal,
        problem: &'static str,
    ) -> ConnectVerdict {
        match refusal {
            Refusal::Wrong(failure) => self.failed_login(request, failure, problem),
            Refusal::Slowed => {
                Counters::add(&self.counters.failed_logins, 1);
                reject(ReasonKind::ServerBusy, SLOWED)
            }
            Refusal::Busy => {
                reject(ReasonKind::ServerBusy, "too many passwords are being checked: try again")
            }
        }
    }

    /// The role of a user who logs in at the admin interface.
    ///
    /// # Errors
    /// One sentence, and whether trying later may help.
    pub async fn log_in(
        self: &Arc<Self>,
        name: &str,
        password: &str,
        address: Option<std::net::SocketAddr>,
    ) -> Result<UserRole, (String, bool)> {
        let request = ConnectRequest {
            connection: 0,
            client_id: "(admin interface)".into(),
            assigned_id: false,
            username: Some(name.into()),
            password: None,
            certificate_cn: None,
            protocol: hook::Protocol::V311,
            address,
            user_properties: Vec::new(),
        };
        let address = address.map(|address| address.ip());
        let verdict = match self.accounts.get(name) {
            Some(user) => match self.check(&request, user, password.as_bytes()).await {
                Ok(user) => return Ok(user.role),
                Err(verdict) => verdict,
            },
            None if password.len() > MAX_TOKEN => {
                let failure = self.accounts.failed(Tried::Password, Some(name), address);
                self.failed_login(&request, failure, TOO_LONG)
            }
            None => {
                let refusal = self.accounts.verify_nobody(name, password.as_bytes(), address).await;
                self.refused_password(&request, refusal, "there is no such user")
            }
        };
        match verdict {
            // Who has to wait is refused all the same: what was sent was not even looked at.
            ConnectVerdict::Reject(reason) if reason.text == SLOWED => Err((SLOWED.into(), false)),
            ConnectVerdict::Reject(reason) if reason.kind == ReasonKind::ServerBusy => {
                Err((reason.text.to_string(), true))
            }
            // Which of both it was is nobody's business.
            _ => Err(("the user name or the password is wrong".into(), false)),
        }
    }

    /// A login that failed, with a token or a name that nobody has.
    fn unknown_login(&self, request: &ConnectRequest, problem: &'static str) -> ConnectVerdict {
        let address = request.address.map(|address| address.ip());
        self.failed_login(request, self.accounts.failed(Tried::Token, None, address), problem)
    }

    /// Counts and logs it. What was sent as user name may be a token, so only the name of an
    /// account that exists is shown.
    fn failed_login(
        &self,
        request: &ConnectRequest,
        failure: Failure,
        problem: &'static str,
    ) -> ConnectVerdict {
        Counters::add(&self.counters.failed_logins, 1);
        let known =
            |name: &&str| self.accounts.get(name).is_some() || self.registered(name).is_some();
        let account = request.username.as_deref().filter(known);
        let address = request.address.map(|address| address.ip());
        let client = display(&request.client_id);
        match failure {
            Failure::Noted => {
                tracing::warn!(client, account, ?address, reason = problem, "a login failed");
            }
            Failure::Slowed(wait) => {
                let seconds = wait.as_secs();
                tracing::warn!(
                    client,
                    account,
                    ?address,
                    reason = problem,
                    seconds,
                    "a login failed, and the address waits before the next"
                );
            }
            // Somebody who tries on does not fill the log.
            Failure::Waiting => return reject(ReasonKind::ServerBusy, SLOWED),
        }
        reject(ReasonKind::BadUserNameOrPassword, WRONG)
    }

    /// The registered device of this id.
    pub fn registered(&self, id: &str) -> Option<Arc<Device>> {
        self.registry.get(id).filter(|device| device.state.lock().registered)
    }

    /// Whether this is the id of a device that has a proof: a token, or a user's password.
    fn is_device_account(&self, id: &str) -> bool {
        self.registered(id).is_some()
            || self.accounts.get(id).is_some_and(|user| user.role == UserRole::Device)
    }

    /// Whether the account behind a connection is still there: it may have been removed, or its
    /// role changed, between the login and the start of the session.
    pub fn is_current(&self, client: &Client) -> bool {
        let Some(name) = &client.identity.name else { return true };
        match client.identity.role {
            Role::Anonymous => true,
            // A certificate is no account that could be removed. In open mode anything may stand
            // beside it as user name; in token mode only what proves the same device.
            Role::Device => {
                self.settings().mode == AuthMode::Open
                    || client.username.as_deref().is_none_or(str::is_empty)
                    || self.is_device_account(name)
            }
            role => self.accounts.get(name).is_some_and(|user| Role::from(user.role) == role),
        }
    }

    /// Ends the connections of an account, and those that claim its name as client id; who can
    /// prove it comes back.
    pub fn end_account(&self, name: &str, text: &'static str) {
        self.end_accounts(HashSet::from([name.into()]), text);
    }

    /// [`Engine::end_account`] of many accounts.
    pub fn end_accounts(&self, names: HashSet<Arc<str>>, text: &'static str) {
        self.accounts.cuts.cut(names.iter());
        let Some(broker) = self.broker.get() else { return };
        let owned = broker.clients().into_iter().filter(|session| {
            session.connected
                && session.identity.role != Role::Anonymous
                && session.identity.name.as_ref().is_some_and(|name| names.contains(name))
        });
        let mut clients: HashSet<Arc<str>> = owned.map(|session| session.id).collect();
        // Those that are known by the name without a proof, in open mode.
        let links = self.registry.links();
        let known = |link: &&Arc<Link>| link.name.as_ref().is_some_and(|it| names.contains(it));
        for link in links.iter().filter(known) {
            clients.insert(Arc::clone(&link.client.id));
            // A download is no connection of the broker: this is what ends its response.
            let trouble = Trouble::Nothing(text.into());
            self.send_error(link, &mut link.state.lock(), &trouble, &None);
        }
        clients.extend(names);
        let reason = Reason::new(ReasonKind::AdministrativeAction, text);
        for client in clients {
            broker.disconnect(&client, &reason);
        }
    }

    /// Whether this is the device's token; the first login with a new one ends the old one.
    fn accepts(&self, device: &Device, hash: &TokenHash) -> bool {
        let mut state = device.state.lock();
        if state.token.is_some_and(|token| token.matches(hash)) {
            if let Some(old) = state.old_token.take() {
                self.registry.remove_token(&old.hash);
                device.touch();
            }
            return true;
        }
        state.old_token.is_some_and(|old| old.accepts(hash))
    }

    /// What a connected client is known as; `None` for a session without identity.
    pub fn name_of(&self, client: &Client) -> Option<Arc<str>> {
        match &client.identity.name {
            Some(name) => Some(Arc::clone(name)),
            None if client.assigned_id => None,
            None => Some(client_device_id(&self.key, &client.id)),
        }
    }
}

/// Whether the account behind a connection reads and writes for people, and so never is a
/// device (rule 1).
pub fn is_staff(role: Role) -> bool {
    matches!(role, Role::Service | Role::Operator | Role::Admin)
}

fn reject(kind: ReasonKind, text: &'static str) -> ConnectVerdict {
    ConnectVerdict::Reject(Reason::new(kind, text))
}

/// A client id for a log line: short, and without control characters.
fn display(client_id: &str) -> String {
    client_id.chars().take(64).flat_map(char::escape_debug).collect()
}
