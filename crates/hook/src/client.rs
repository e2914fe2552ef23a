//! Who is connected.

use std::{net::SocketAddr, sync::Arc};

/// The MQTT version of a connection, as its CONNECT said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

impl Protocol {
    /// The name that people use: `3.1.1` or `5`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::V311 => "3.1.1",
            Protocol::V5 => "5",
        }
    }
}

/// What an account may do; a client without an account is [`Role::Anonymous`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// No account: what `open` mode lets in without a proof.
    Anonymous,
    /// A registered device that proved who it is.
    Device,
    /// A machine that reads and writes messages: a dashboard, a historian.
    Service,
    /// A person who runs updates.
    Operator,
    /// A person who may do everything.
    Admin,
}

/// Who a client proved to be, decided once, in the connect phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the account, or the device id; `None` for an anonymous client.
    pub name: Option<Arc<str>>,
    /// What the account may do.
    pub role: Role,
}

impl Identity {
    /// A client that proved nothing.
    pub const ANONYMOUS: Identity = Identity { name: None, role: Role::Anonymous };

    /// A device that proved its id.
    pub fn device(id: impl Into<Arc<str>>) -> Self {
        Identity { name: Some(id.into()), role: Role::Device }
    }
}

/// What a CONNECT asked for, before anybody decided about it.
///
/// The password stands only here: it is dropped when the connect phase has ended.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// The [number](Client::connection) that its connection has, or will have; 0 where there is none.
    pub connection: u64,
    /// The client id; where the client sent an empty one, the id that the broker assigned.
    pub client_id: Arc<str>,
    /// Whether the broker assigned the client id.
    pub assigned_id: bool,
    /// The user name, where one was sent.
    pub username: Option<String>,
    /// The password, where one was sent. An empty password is `Some` of nothing.
    pub password: Option<Vec<u8>>,
    /// The subject CN of the client certificate that the TLS layer verified. Empty where the
    /// certificate has no CN, or several: it names nobody then, and should not pass for somebody
    /// without a certificate.
    pub certificate_cn: Option<String>,
    /// The protocol version.
    pub protocol: Protocol,
    /// Where the connection comes from; `None` only in tests without a socket.
    pub address: Option<SocketAddr>,
    /// MQTT 5 user properties of the CONNECT, in order.
    pub user_properties: Vec<(String, String)>,
}

impl std::fmt::Debug for ConnectRequest {
    /// Secrets are left out: a request may be logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("client_id", &self.client_id)
            .field("protocol", &self.protocol)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// One connection of one client, as hooks see it. Never changes while the connection lives.
#[derive(Clone, Debug)]
pub struct Client {
    /// Unique among all connections since the broker's start, never 0; a later one has a higher one.
    pub connection: u64,
    /// The client id, assigned where the client sent an empty one.
    pub id: Arc<str>,
    /// Whether the broker assigned the client id.
    pub assigned_id: bool,
    /// Who the client proved to be.
    pub identity: Identity,
    /// The user name of the CONNECT. Never a secret by itself: it may be a token where the
    /// password was empty, so it is not logged.
    pub username: Option<Box<str>>,
    /// The protocol version.
    pub protocol: Protocol,
    /// Where the connection comes from.
    pub address: Option<SocketAddr>,
    /// The largest packet that the client accepts, in bytes on the wire, header included
    /// [MQTT-3.1.2-24]; `u32::MAX` where it set none.
    pub maximum_packet_size: u32,
    /// How many unacknowledged QoS 1 and 2 publishes the client accepts [MQTT-3.1.2.11.3].
    pub receive_maximum: u16,
    /// MQTT 5 user properties of the CONNECT, in order: the first of them, up to some kilobytes.
    pub user_properties: Box<[(String, String)]>,
}
