//! From an accepted socket to a client that is let in.

use hook::{Client, ConnectRequest, Protocol, Reason};
use std::{future::Future, io, net::SocketAddr, sync::Arc};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::{
    codec::{self, CodecError, Frame},
    connection::{Connection, Promised},
    counters::Totals,
    deliver::text_fits,
    exchange::Exchange,
    inbound::reason_code,
    leave::{GOODBYE, last_word},
    pace::Turn,
    packet::{ConnAck, Connect, reason},
    quota::Place,
    registry::Claimed,
    session::Session,
    topic::check_name,
    unsettled::UNWRITABLE,
};

/// The largest CONNECT: client id, will topic, will payload, user name and password have 64 KB
/// each at most (1.5.4), and some properties.
const CONNECT_BYTES: usize = 512 * 1024;

/// User properties of a CONNECT that are remembered with the client, in bytes, each counted with 64
/// beside its name and value. Hooks are shown all of them while it is let in.
const REMEMBERED_BYTES: usize = 4096;

/// A CONNACK of MQTT 5 with a reason code and nothing else, in bytes.
const SMALLEST_CONNACK: u32 = 5;

/// Why no session came of a socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// The peer left, or said nothing that MQTT knows; it gets no answer.
    #[error("{0}")]
    Silent(&'static str),
    /// A CONNECT that is answered with this code.
    #[error("{text}")]
    Refused { protocol: Protocol, code: u8, text: String },
    /// The socket broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Failed {
    fn refused(protocol: Protocol, code: u8, text: impl Into<String>) -> Self {
        Failed::Refused { protocol, code, text: text.into() }
    }
}

impl From<CodecError> for Failed {
    /// Before the version is known, or where 3.1.1 has no code for it, the connection is just
    /// closed [MQTT-3.1.4-1].
    fn from(error: CodecError) -> Self {
        match error.protocol {
            Some(protocol @ Protocol::V5) => Failed::refused(protocol, error.reason, error.text),
            Some(protocol) if error.reason == reason::UNSUPPORTED_PROTOCOL_VERSION => {
                Failed::refused(protocol, error.reason, error.text)
            }
            _ => Failed::Silent(error.text),
        }
    }
}

/// Reads the CONNECT, asks the hooks, claims the session and sends the CONNACK.
pub(crate) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    opened: Opened<S>,
    address: Option<SocketAddr>,
    exchange: Arc<Exchange>,
) -> Result<Box<Connection<S>>, Failed> {
    let Opened { mut io, certificate_cn } = opened;
    let (connect, mut rest) = read_connect(&mut io, &exchange).await?;
    let (protocol, max) = (connect.protocol, connect.maximum_packet_size);
    if exchange.limits.connects_per_second().is_some() {
        let patience = exchange.settings.connect_patience;
        let turn =
            exchange.pace.turn(&exchange.limits, patience, until_gone(&mut io, &mut rest)).await;
        match turn {
            Turn::Now => {}
            Turn::Gone => return Err(Failed::Silent("left while its CONNECT waited")),
            Turn::Late => {
                let text = "too many CONNECTs at once, try again later";
                let failed = Failed::refused(protocol, reason::CONNECTION_RATE_EXCEEDED, text);
                tell(&mut io, &failed, max, &exchange.totals).await;
                return Err(failed);
            }
        }
    }
    match admit(connect, certificate_cn, address, &exchange).await {
        Ok(admitted) => admitted.begin(io, rest, exchange).await,
        Err(failed) => {
            tell(&mut io, &failed, max, &exchange.totals).await;
            Err(failed)
        }
    }
}

async fn read_connect<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    exchange: &Exchange,
) -> Result<(Connect, Vec<u8>), Failed> {
    let max = exchange.limits.packet_bytes().min(CONNECT_BYTES);
    let mut buffer = Vec::with_capacity(256);
    loop {
        match codec::frame(&buffer, max).map_err(|e| Failed::Silent(e.text))? {
            Frame::Complete { len } => match codec::decode_connect(&buffer[..len]) {
                Ok(connect) => {
                    buffer.drain(..len);
                    return Ok((connect, buffer));
                }
                Err(error) => {
                    let failed = Failed::from(error);
                    tell(io, &failed, u32::MAX, &exchange.totals).await;
                    return Err(failed);
                }
            },
            // The first packet is a CONNECT [MQTT-3.1.0-1].
            Frame::Incomplete if buffer.first().is_some_and(|first| *first != 0x10) => {
                return Err(Failed::Silent("the first packet is not a CONNECT"));
            }
            Frame::Incomplete => {}
        }
        if io.read_buf(&mut buffer).await? == 0 {
            return Err(Failed::Silent("closed before a CONNECT"));
        }
    }
}

/// Returns when the client has left; what it sends meanwhile is kept. Most send nothing before
/// the CONNACK; of one that sends more than a little, leaving is not noticed.
async fn until_gone<S: AsyncRead + Unpin>(io: &mut S, rest: &mut Vec<u8>) {
    const MOST: usize = 4096;
    while rest.len() < MOST {
        match io.read_buf(rest).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
    }
    std::future::pending().await
}

/// The CONNACK of a refusal, as far as it fits the client's Maximum Packet Size. Then the connection
/// is closed [MQTT-3.2.2-7], and nothing behind the CONNECT is looked at [MQTT-3.1.4-6].
pub(crate) async fn tell<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    failed: &Failed,
    max: u32,
    totals: &Totals,
) {
    let Failed::Refused { protocol, code, text } = failed else { return };
    // It is one however long the client takes to close.
    Totals::count(&totals.connects_refused);
    if max < SMALLEST_CONNACK {
        return;
    }
    let reason_string = text_fits(text, max).then(|| text.clone());
    let ack = ConnAck { reason: *code, reason_string, ..ConnAck::default() };
    let mut out = bytes::BytesMut::new();
    codec::connack(&mut out, *protocol, &ack);
    let say = async {
        io.write_all(&out).await?;
        io.flush().await?;
        last_word(io).await
    };
    // The peer may be gone already; the refusal stands either way.
    let _: Result<io::Result<()>, _> = tokio::time::timeout(GOODBYE, say).await;
}

/// A CONNECT that was let in.
pub(crate) struct Admitted {
    pub connect: Connect,
    pub client: Arc<Client>,
    pub promised: Promised,
    /// What it is told; `session_present` is still to be decided.
    pub ack: ConnAck,
    pub claimed: Claimed,
    /// For a session that is to last, where it has none yet.
    pub place: Option<Place>,
}

async fn admit(
    mut connect: Connect,
    certificate_cn: Option<String>,
    address: Option<SocketAddr>,
    exchange: &Arc<Exchange>,
) -> Result<Admitted, Failed> {
    let protocol = connect.protocol;
    let refused = |code, text: &str| Err(Failed::refused(protocol, code, text));
    // [MQTT-4.12.0-1], [MQTT-4.12.0-4]
    if connect.enhanced_authentication {
        return refused(reason::BAD_AUTHENTICATION_METHOD, "no enhanced authentication is offered");
    }
    let assigned_id = connect.client_id.is_empty();
    if assigned_id && protocol == Protocol::V311 && !connect.clean_start {
        // [MQTT-3.1.3-8], [MQTT311-3.1.3-8]
        return refused(
            reason::CLIENT_IDENTIFIER_NOT_VALID,
            "an empty client id needs a clean session",
        );
    }
    if let Some(will) = &connect.will
        && let Err(error) = check_name(&will.topic)
    {
        return refused(reason::TOPIC_NAME_INVALID, &format!("will topic: {error}"));
    }
    // Any other id is taken [MQTT-3.1.3-5], and an empty one replaced [MQTT-3.1.3-6], [MQTT-3.1.3-7].
    let client_id: Arc<str> =
        if assigned_id { assign_id().into() } else { connect.client_id.as_str().into() };
    let request = ConnectRequest {
        connection: exchange.registry.next_connection(),
        client_id: client_id.clone(),
        assigned_id,
        username: connect.username.take(),
        password: connect.password.take(),
        certificate_cn,
        protocol,
        address,
        user_properties: std::mem::take(&mut connect.user_properties),
    };
    // [MQTT-3.1.4-2]
    let identity = exchange
        .hooks
        .connect(&request)
        .await
        .map_err(|Reason { kind, text }| Failed::refused(protocol, reason_code(kind), text))?;
    let client = Arc::new(Client {
        connection: request.connection,
        id: client_id.clone(),
        assigned_id,
        identity,
        username: request.username.map(String::into_boxed_str),
        protocol,
        address,
        maximum_packet_size: connect.maximum_packet_size,
        receive_maximum: connect.receive_maximum,
        user_properties: remembered(request.user_properties),
    });
    // What the CONNACK says holds as long as the connection, whatever becomes of the limits.
    let promised = Promised {
        packet_bytes: exchange.limits.packet_bytes(),
        inflight: exchange.limits.inflight(),
    };
    let longest = exchange.limits.keep_alive();
    let mut ack = offer(&client, promised, shorter_keep_alive(connect.keep_alive, longest));
    let longest = exchange.limits.session_expiry();
    if connect.session_expiry > longest {
        // MQTT 5.0, 3.2.2.3.2; 3.1.1 has no word for it, as for the end of a session by its age.
        connect.session_expiry = longest;
        ack.session_expiry = Some(longest).filter(|_| protocol == Protocol::V5);
    }
    let mut bytes = bytes::BytesMut::new();
    codec::connack(&mut bytes, protocol, &ack);
    if bytes.len() > client.maximum_packet_size as usize {
        // [MQTT-3.1.2-24]
        return refused(
            reason::PACKET_TOO_LARGE,
            "the CONNACK is larger than the Maximum Packet Size",
        );
    }
    if exchange.log_is_failing()
        && needs_log(&connect, exchange.registry.find(&client_id).as_deref())
    {
        return refused(reason::QUOTA_EXCEEDED, UNWRITABLE);
    }
    let place = match connect.session_expiry {
        0 => None,
        _ => exchange
            .registry
            .place(&client_id, &client.identity)
            .map_err(|why| Failed::refused(protocol, reason::QUOTA_EXCEEDED, why.to_string()))?,
    };
    let claimed = exchange.registry.claim(&client_id).await.ok_or_else(|| overtaken(protocol))?;
    Ok(Admitted { connect, client, promised, ack, claimed, place })
}

/// Whether the log is to have what this CONNECT asks for before its client is told: a session that
/// lasts begins, or is gone.
fn needs_log(connect: &Connect, session: Option<&Session>) -> bool {
    match session.is_some_and(Session::is_durable) {
        true => connect.clean_start,
        false => connect.session_expiry != 0,
    }
}

/// The first user properties, as far as they are remembered: a client is kept as long as its
/// session, and a CONNECT may have a hundred thousand of them.
fn remembered(user_properties: Vec<(String, String)>) -> Box<[(String, String)]> {
    let mut bytes = 0;
    let fits = |(name, value): &(String, String)| {
        bytes += 64 + name.len() + value.len();
        bytes <= REMEMBERED_BYTES
    };
    user_properties.into_iter().take_while(fits).collect()
}

/// Two connections with one client id came at the same time, and this is the older one. It was
/// never accepted, so that there is nothing of it to be taken over, and no CONNACK says so.
pub(crate) fn overtaken(protocol: Protocol) -> Failed {
    Failed::refused(protocol, reason::SERVER_BUSY, "a newer connection has this client id")
}

/// The keep alive that a client must use instead of its own, 0 being none.
/// 3.1.1 has no word for it, so those clients keep their own.
fn shorter_keep_alive(own: u16, longest: Option<u16>) -> Option<u16> {
    longest.filter(|longest| own == 0 || own > *longest)
}

/// The CONNACK of a client that is let in.
fn offer(client: &Client, promised: Promised, keep_alive: Option<u16>) -> ConnAck {
    ConnAck {
        session_present: false,
        reason: reason::SUCCESS,
        reason_string: None,
        assigned_client_id: client.assigned_id.then(|| client.id.to_string()),
        receive_maximum: promised.inflight,
        maximum_packet_size: u32::try_from(promised.packet_bytes).unwrap_or(u32::MAX),
        topic_alias_maximum: crate::inbound::TOPIC_ALIAS_MAXIMUM,
        session_expiry: None,
        server_keep_alive: keep_alive.filter(|_| client.protocol == Protocol::V5),
    }
}

/// A client id that nobody else has [MQTT-3.2.2-16]: 96 random bits.
fn assign_id() -> String {
    let mut random = [0u8; 12];
    // Without randomness the process cannot have started TLS or tokens either; ids then still
    // differ by the clock.
    if getrandom::fill(&mut random).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        random.copy_from_slice(&now.unwrap_or_default().as_nanos().to_be_bytes()[4..]);
    }
    format!("auto-{}", hex::encode(random))
}

/// A byte stream that MQTT is spoken on, and what the layers below know of its other end.
pub(crate) struct Opened<S> {
    pub io: S,
    /// See [`ConnectRequest::certificate_cn`].
    pub certificate_cn: Option<String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// From an accepted socket to a client that is connected; `None` where none came of it.
    /// `open` are the handshakes below MQTT: the time until the CONNECT is complete counts from
    /// their beginning.
    pub(crate) async fn greeted(
        open: impl Future<Output = io::Result<Opened<S>>>,
        address: SocketAddr,
        exchange: Arc<Exchange>,
        stop: CancellationToken,
    ) -> Option<Box<Self>> {
        let patience = exchange.settings.connect_timeout;
        let totals = exchange.totals.clone();
        let greeting = async { handshake(open.await?, Some(address), exchange).await };
        let greeted = tokio::select! {
            greeted = tokio::time::timeout(patience, greeting) => greeted,
            // Who has no session yet has nothing to say goodbye to.
            () = stop.cancelled() => return None,
        };
        match greeted {
            Ok(Ok(connection)) => return Some(connection),
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "connection refused");
                if !matches!(error, Failed::Refused { .. }) {
                    Totals::count(&totals.connects_refused);
                }
            }
            Err(_) => {
                tracing::debug!(%address, "no CONNECT in time");
                Totals::count(&totals.connects_refused);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_user_properties_are_remembered() {
        let count = |name: &str, times| {
            remembered(vec![(name.to_owned(), "value".to_owned()); times]).len()
        };
        assert_eq!((count("model", 3), count("", 100_000)), (3, 59));
        assert_eq!(count(&"x".repeat(REMEMBERED_BYTES), 1), 0);
    }
}
