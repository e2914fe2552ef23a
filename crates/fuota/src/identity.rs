//! Who a client is (rule 2), answered from memory.

use std::sync::Arc;

use hook::{Client, ConnectRequest, ConnectVerdict, Identity, Reason, ReasonKind, Role};

use crate::{
    device::Device,
    engine::Engine,
    names::{client_device_id, is_name, is_reserved, token_id},
    secret::{MAX_TOKEN, TokenHash},
    transfer::unix_now,
};

/// The user name that says: the password is a token.
const TOKEN_USER: &str = "Token";

/// What a CONNECT proves.
enum Proof {
    /// It is the device of this id.
    Device(Arc<str>),
    /// It holds a token that nobody is registered with.
    Token(Arc<str>),
}

impl Engine {
    /// Decides the connect phase.
    pub fn identify(&self, request: &ConnectRequest) -> ConnectVerdict {
        let certificate = match request.certificate_cn.as_deref() {
            Some(cn) if !is_name(cn) || is_reserved(cn) => {
                return reject(
                    ReasonKind::NotAuthorized,
                    "the certificate's CN is not a device id",
                );
            }
            cn => cn,
        };
        let token = match self.token_proof(request) {
            Ok(token) => token,
            Err(verdict) => return verdict,
        };
        let proof = match (certificate, token) {
            (Some(cn), Some(Proof::Device(id))) if *id != *cn => {
                return reject(
                    ReasonKind::NotAuthorized,
                    "the certificate and the token name different devices",
                );
            }
            (Some(cn), Some(Proof::Token(_))) => {
                tracing::debug!(device = cn, "certificate beside an unknown token");
                return reject(ReasonKind::NotAuthorized, "the token is not this certificate's");
            }
            (Some(cn), _) => Some(Proof::Device(cn.into())),
            (None, token) => token,
        };
        // A client id is a claim too: one that is registered belongs to its device alone.
        if let Some(owner) = self.registered(&request.client_id) {
            match &proof {
                Some(Proof::Device(id)) if *id == owner.id => {}
                _ => {
                    return reject(
                        ReasonKind::BadUserNameOrPassword,
                        "this client id is a registered device's: log in with its token",
                    );
                }
            }
        }
        match proof {
            Some(Proof::Device(id)) => ConnectVerdict::Accept(Identity::device(id)),
            Some(Proof::Token(id)) => {
                ConnectVerdict::Accept(Identity { name: Some(id), role: Role::Anonymous })
            }
            None => ConnectVerdict::Continue,
        }
    }

    /// The three forms of a token login.
    fn token_proof(&self, request: &ConnectRequest) -> Result<Option<Proof>, ConnectVerdict> {
        let wrong = || reject(ReasonKind::BadUserNameOrPassword, "the token is not this device's");
        let password = request.password.as_deref().filter(|password| !password.is_empty());
        let (token, claimed) = match (request.username.as_deref(), password) {
            (None | Some(""), _) | (Some(TOKEN_USER), None) => return Ok(None),
            (Some(TOKEN_USER), Some(password)) => (password, None),
            (Some(user), password) => match (self.registered(user), password) {
                (Some(device), Some(password)) => (password, Some(device)),
                (Some(_), None) => return Err(wrong()),
                // As ThingsBoard devices do: the token is the user name.
                (None, None) => (user.as_bytes(), None),
                // An ordinary login, which is not ours to judge.
                (None, Some(_)) => return Ok(None),
            },
        };
        if token.len() > MAX_TOKEN {
            return Err(wrong());
        }
        let hash = self.key.token(token);
        match claimed {
            Some(device) => {
                if !self.accepts(&device, &hash) {
                    return Err(wrong());
                }
                Ok(Some(Proof::Device(Arc::clone(&device.id))))
            }
            None => match self.registry.token_owner(&hash).and_then(|id| self.registered(&id)) {
                Some(device) if self.accepts(&device, &hash) => {
                    Ok(Some(Proof::Device(Arc::clone(&device.id))))
                }
                // An old token whose time is over.
                Some(_) => Err(wrong()),
                None => Ok(Some(Proof::Token(token_id(&self.key, token)))),
            },
        }
    }

    fn registered(&self, id: &str) -> Option<Arc<Device>> {
        self.registry.get(id).filter(|device| device.state.lock().registered)
    }

    /// Whether this is the device's token; the first login with a new one ends the old one.
    fn accepts(&self, device: &Device, hash: &TokenHash) -> bool {
        let mut state = device.state.lock();
        if state.token.is_some_and(|token| token.matches(hash)) {
            if let Some((old, _)) = state.old_token.take() {
                self.registry.remove_token(&old);
                device.touch();
            }
            return true;
        }
        state.old_token.is_some_and(|(token, until)| token.matches(hash) && unix_now() < until)
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
