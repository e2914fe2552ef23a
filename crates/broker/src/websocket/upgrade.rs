//! The HTTP request that every WebSocket connection begins with, and its answer.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tungstenite::handshake::derive_accept_key;

use super::WebSocket;

/// The longest request, cookies included.
const REQUEST_BYTES: usize = 16 * 1024;
/// Headers in it.
const HEADERS: usize = 64;
/// The subprotocol that clients must offer [MQTT-6.0.0-3] and get [MQTT-6.0.0-4].
const SUBPROTOCOL: &str = "mqtt";

/// Reads the request and answers it. Whoever asks for something else gets a short answer that
/// says what is here, and the connection ends.
///
/// # Errors
/// The socket broke, or the request was refused: then the error says why.
pub(crate) async fn accept<S>(mut io: S, path: &str) -> io::Result<WebSocket<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Vec::with_capacity(1024);
    let refusal = loop {
        if io.read_buf(&mut request).await? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "closed before an HTTP request",
            ));
        }
        match judge(&request, path) {
            Verdict::Incomplete if request.len() < REQUEST_BYTES => {}
            Verdict::Incomplete => break Refusal::TOO_LARGE,
            Verdict::Refuse(refusal) => break refusal,
            Verdict::Accept { len, key } => {
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {key}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
                );
                io.write_all(answer.as_bytes()).await?;
                io.flush().await?;
                return Ok(WebSocket::new(io, request.split_off(len)));
            }
        }
    };
    io.write_all(refusal.answer().as_bytes()).await?;
    io.shutdown().await?;
    Err(io::Error::new(io::ErrorKind::InvalidData, refusal.text))
}

/// An answer other than yes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Status code and phrase.
    status: &'static str,
    /// A header that this status asks for, with its line end; or nothing.
    header: &'static str,
    /// The body: a sentence for whoever tried.
    text: &'static str,
}

impl Refusal {
    const fn new(status: &'static str, text: &'static str) -> Self {
        Refusal { status, header: "", text }
    }

    const TOO_LARGE: Refusal =
        Refusal::new("431 Request Header Fields Too Large", "the request is too long");

    fn answer(&self) -> String {
        let Refusal { status, header, text } = self;
        format!(
            "HTTP/1.1 {status}\r\n{header}Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{text}\n",
            text.len() + 1
        )
    }
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is more to come.
    Incomplete,
    Refuse(Refusal),
    /// It has so many bytes, and this is the answer to its key.
    Accept {
        len: usize,
        key: String,
    },
}

/// Judges the bytes so far.
pub(super) fn judge(bytes: &[u8], path: &str) -> Verdict {
    let refuse = |status, text| Verdict::Refuse(Refusal::new(status, text));
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Verdict::Incomplete,
        Err(httparse::Error::TooManyHeaders) => return Verdict::Refuse(Refusal::TOO_LARGE),
        Err(_) => {
            return refuse(
                "400 Bad Request",
                "this is no HTTP request; MQTT is spoken over WebSocket here",
            );
        }
    };
    let asked = request.path.unwrap_or_default();
    if asked.split('?').next() != Some(path) {
        return refuse("404 Not Found", "nothing is here; MQTT over WebSocket has another path");
    }
    if request.method != Some("GET") || request.version != Some(1) {
        return refuse(
            "405 Method Not Allowed",
            "MQTT over WebSocket begins with a GET in HTTP/1.1",
        );
    }
    let upgrade = |text| {
        let header = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        Verdict::Refuse(Refusal { status: "426 Upgrade Required", header, text })
    };
    let headers = &*request.headers;
    if !has_token(headers, "upgrade", "websocket") || !has_token(headers, "connection", "upgrade") {
        return upgrade("MQTT is spoken over WebSocket here, with the subprotocol mqtt");
    }
    if !has_token(headers, "sec-websocket-version", "13") {
        return upgrade("only version 13 of WebSocket is spoken here");
    }
    // 16 bytes in base64.
    let Some(key) =
        values(headers, "sec-websocket-key").next().filter(|key| key.trim_ascii().len() == 24)
    else {
        return refuse("400 Bad Request", "the Sec-WebSocket-Key is missing or wrong");
    };
    if !has_token(headers, "sec-websocket-protocol", SUBPROTOCOL) {
        return refuse("400 Bad Request", "offer the subprotocol mqtt in Sec-WebSocket-Protocol");
    }
    Verdict::Accept { len, key: derive_accept_key(key.trim_ascii()) }
}

fn values<'a>(
    headers: &'a [httparse::Header<'_>],
    name: &'a str,
) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

/// Whether a header with a list of tokens names this one.
fn has_token(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}
