//! Images from addresses that an operator names (rule 27): which may be fetched, and the fetch.
//!
//! The name is resolved once; of what it resolves to only an allowed address is connected to, so
//! that a name server cannot lead the broker to another one in between. No proxy, no redirects.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use reqwest::Url;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a whole fetch may take.
const WHOLE: Duration = Duration::from_secs(900);

/// What may be fetched: a host name, an address or a network, each with or without a port.
///
/// A host name allows what it resolves to, but for loopback, link-local, unspecified, broadcast
/// and multicast addresses: those are allowed by an address or a network alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    place: Place,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Host(String),
    Network(IpAddr, u8),
}

/// Why a text allows nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no host name, address or network such as files.example:8000, 192.0.2.7 or 10.0.0.0/8"
)]
pub struct AllowError(String);

impl FromStr for Allow {
    type Err = AllowError;

    fn from_str(text: &str) -> Result<Self, AllowError> {
        let wrong = || AllowError(text.into());
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| wrong())?;
            let bits: u8 = bits.parse().map_err(|_| wrong())?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let network = Place::Network(address, bits);
            return if bits <= most {
                Ok(Allow { place: network, port: None })
            } else {
                Err(wrong())
            };
        }
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Allow { place: one(socket.ip()), port: Some(socket.port()) });
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Allow { place: one(address), port: None });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(wrong());
        }
        Ok(Allow { place: Place::Host(host.to_ascii_lowercase()), port })
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Host(host) => f.write_str(host)?,
            Place::Network(address, bits) => write!(f, "{address}/{bits}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn one(address: IpAddr) -> Place {
    Place::Network(address, if address.is_ipv4() { 32 } else { 128 })
}

impl Allow {
    fn allows(&self, host: &str, to: SocketAddr) -> bool {
        let address = to.ip().to_canonical();
        let place = match &self.place {
            Place::Host(name) => *name == host && !is_special(address),
            Place::Network(network, bits) => is_in(address, *network, *bits),
        };
        place && self.port.is_none_or(|port| port == to.port())
    }
}

fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
        }
    }
}

fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |a: u128, b: u128, width: u32| {
        let shift = width - u32::from(bits).min(width);
        a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
    };
    match (address, network.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
        _ => false,
    }
}

/// Why nothing was fetched, in a sentence.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(String);

/// The bytes at an address, as they come, and the name of the file there.
pub async fn fetch(
    address: &str,
    allowed: &[Allow],
    max_size: u64,
) -> Result<(String, impl Stream<Item = std::io::Result<Bytes>> + Send + use<>), FetchError> {
    let failed = |text: String| FetchError(text);
    let url: Url = address.parse().map_err(|error| failed(format!("it is no address: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(failed("only http and https addresses are fetched".into()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(failed("an address must carry no password".into()));
    }
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(failed("it names no host".into()));
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    if allowed.is_empty() {
        return Err(failed(
            "fuota.fetch_allow is empty: upload the file, or allow its host".into(),
        ));
    }
    let found = tokio::time::timeout(CONNECT, tokio::net::lookup_host((&*host, port))).await;
    let found = found.map_err(|_| failed(format!("{host} was not resolved in time")))?;
    let found = found.map_err(|error| failed(format!("{host} is not resolved: {error}")))?;
    let to = found.into_iter().find(|to| allowed.iter().any(|allow| allow.allows(&host, *to)));
    let to = to.ok_or_else(|| {
        failed(format!("{host} is not in fuota.fetch_allow, or resolves to an address that is not"))
    })?;
    // Only the first part of the program that needs one installs it.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .resolve(&host, to)
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .timeout(WHOLE)
        .build()
        .map_err(|error| failed(format!("no HTTP client can be made: {error}")))?;
    let name = file_name(&url);
    let answer = client.get(url).send().await;
    let answer = answer.map_err(|error| failed(format!("no answer: {}", whole(error))))?;
    let status = answer.status();
    if status.is_redirection() {
        return Err(failed(format!("the server redirects ({status}), which is not followed")));
    }
    if status != reqwest::StatusCode::OK {
        return Err(failed(format!("the server answers {status}")));
    }
    if answer.content_length().is_some_and(|length| length > max_size) {
        return Err(failed(format!("it has more than {max_size} bytes (store.max_size)")));
    }
    Ok((name, answer.bytes_stream().map_err(|error| std::io::Error::other(whole(error)))))
}

/// With its causes, which reqwest leaves out, and without the address: its query may be what opens
/// it.
fn whole(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// What may be shown of an address: all but its query, which may be what opens it.
pub fn shown(address: &str) -> &str {
    address.split(['?', '#']).next().unwrap_or_default()
}

/// The last part of the path, where it can be a file's name.
fn file_name(url: &Url) -> String {
    let last = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    let name: String = last.chars().filter(|c| plain(*c)).take(100).collect();
    match name.trim_start_matches('.') {
        "" => "firmware.bin".into(),
        name => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entry: &str, host: &str, to: &str) -> bool {
        entry.parse::<Allow>().unwrap().allows(host, to.parse().unwrap())
    }

    #[test]
    fn rule_27_names_addresses_and_networks() {
        assert!(allows("files.example", "files.example", "192.0.2.7:80"));
        assert!(allows("Files.example:8000", "files.example", "192.0.2.7:8000"));
        assert!(!allows("files.example:8000", "files.example", "192.0.2.7:80"));
        assert!(!allows("files.example", "evil.example", "192.0.2.7:80"));
        assert!(allows("10.0.0.0/8", "anything", "10.255.0.1:80"));
        assert!(!allows("10.0.0.0/8", "anything", "11.0.0.1:80"));
        assert!(allows("0.0.0.0/0", "anything", "127.0.0.1:80"));
        assert!(!allows("0.0.0.0/0", "anything", "[::1]:80"));
        assert!(allows("127.0.0.1:8000", "localhost", "127.0.0.1:8000"));
        assert!(allows("[::1]:80", "localhost", "[::1]:80") && allows("::1", "x", "[::1]:443"));
        assert!(allows("2001:db8::/32", "x", "[2001:db8:1::1]:443"));
        assert!(allows("192.0.2.0/24", "x", "[::ffff:192.0.2.9]:80"));
    }

    #[test]
    fn rule_27_a_name_never_leads_to_this_machine_or_its_link() {
        for to in [
            "127.0.0.1:80",
            "169.254.169.254:80",
            "0.0.0.0:80",
            "[::1]:80",
            "[fe80::1]:80",
            "224.0.0.1:80",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(!allows("files.example", "files.example", to), "{to}");
        }
    }

    #[test]
    fn entries_are_checked() {
        for text in ["", "http://x/", "10.0.0.0/33", "x/8", "a b", "files.example:port", "a:1:2"] {
            assert!(text.parse::<Allow>().is_err(), "{text:?}");
        }
        for text in ["files.example:8000", "10.0.0.0/8", "::1/128"] {
            assert_eq!(text.parse::<Allow>().unwrap().to_string(), text);
        }
    }

    #[tokio::test]
    async fn what_went_wrong_is_told_without_the_addresss_query() {
        let allowed = ["127.0.0.0/8".parse().unwrap()];
        // Nobody listens on a port that was just given back.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address = format!("http://{free}/pump.bin?X-Amz-Signature=5ECRET");
        let error = fetch(&address, &allowed, 1).await.err().unwrap().to_string();
        assert!(error.starts_with("no answer: ") && !error.contains("5ECRET"), "{error}");
        // One that ends amid the bytes.
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/pump.bin?s=5ECRET", server.local_addr().unwrap());
        let answering = async {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut socket, _) = server.accept().await.unwrap();
            let _ = socket.read(&mut [0; 1024]).await.unwrap();
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx").await.unwrap();
        };
        let (fetched, ()) = tokio::join!(fetch(&address, &allowed, 9), answering);
        let error = fetched.unwrap().1.try_collect::<Vec<_>>().await.unwrap_err().to_string();
        assert!(!error.contains("5ECRET"), "{error}");
        assert_eq!(shown(&address), address.split_once('?').unwrap().0);
    }

    #[test]
    fn names_of_files() {
        let name = |url: &str| file_name(&url.parse().unwrap());
        assert_eq!(name("http://x/a/pump-1.0.bin?x=1"), "pump-1.0.bin");
        assert_eq!(name("http://x/"), "firmware.bin");
        assert_eq!(name("http://x/..%2f.."), "2f..");
    }
}
