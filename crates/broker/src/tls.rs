//! Certificates and keys: read, checked, and replaced while the doors stay open.
//!
//! TLS 1.3 and 1.2, by rustls with ring. Where an authority for clients is given, every client
//! has to show a certificate of it.

use arc_swap::ArcSwap;
use hook::clock;
use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

/// More is no certificate or key.
const FILE_BYTES: u64 = 1024 * 1024;

/// Where the parts are, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and the intermediate ones up to the root.
    pub cert: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC 1.
    pub key: PathBuf,
    /// The authorities of client certificates; with this, every client needs one.
    pub client_ca: Option<PathBuf>,
}

/// Which of the files is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPart {
    /// [`TlsFiles::cert`].
    Cert,
    /// [`TlsFiles::key`].
    Key,
    /// [`TlsFiles::client_ca`].
    ClientCa,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct TlsError {
    /// Which part.
    pub part: TlsPart,
    /// Its file.
    pub path: PathBuf,
    /// What is wrong, without the file's name.
    pub reason: String,
}

/// The files' content in use, for any number of listeners.
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// What the files looked like when they were last read.
    seen: Mutex<Seen>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// The first file that cannot be read, is not what it should be, does not fit the others,
    /// or whose certificate is not valid now.
    pub fn load(files: TlsFiles) -> Result<Arc<Tls>, TlsError> {
        // First the looks: a change between the two is then seen later.
        let seen = look(&files);
        let config = read(&files)?;
        Ok(Arc::new(Tls { files, config: ArcSwap::from_pointee(config), seen: Mutex::new(seen) }))
    }

    /// The files.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// When the server's certificate ends, in seconds since 1970, as its file has it now. Blocks
    /// on the file system.
    pub fn ends(&self) -> Option<u64> {
        let chain = certificates(&self.files.cert).ok()?;
        let (_, parsed) = X509Certificate::from_der(chain.first()?).ok()?;
        u64::try_from(parsed.validity().not_after.timestamp()).ok()
    }

    /// What new connections are accepted with.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Reads the files again. Connections that stand are not touched. Blocks on the file system.
    ///
    /// # Errors
    /// As [`Tls::load`]; what was in use stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        *self.seen.lock() = look(&self.files);
        self.config.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    /// Looks at the files every so often, and reloads when they have changed and two looks in a
    /// row saw the same: a certificate and its key are seldom replaced at the same moment. The
    /// outcome of each reload goes to `report`. Ends when cancelled.
    pub async fn watch(
        self: Arc<Self>,
        every: Duration,
        cancel: CancellationToken,
        report: impl Fn(Result<(), TlsError>) + Send + 'static,
    ) {
        let mut before = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = cancel.cancelled() => return,
            }
            let tls = Arc::clone(&self);
            // A file system may hang; the runtime's threads must not.
            let round = tokio::task::spawn_blocking(move || {
                let now = look(&tls.files);
                let settled = before.as_ref() == Some(&now);
                let changed = *tls.seen.lock() != now;
                (now, (settled && changed).then(|| tls.reload()))
            });
            let Ok((now, outcome)) = round.await else { return };
            before = Some(now);
            if let Some(outcome) = outcome {
                report(outcome);
            }
        }
    }

    /// Shakes hands over an accepted connection. The second answer is the subject CN of the
    /// client's certificate, where one had to be shown: empty where it has not exactly one.
    pub(crate) async fn accept<S>(&self, io: S) -> io::Result<(TlsStream<S>, Option<String>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TlsAcceptor::from(self.config()).accept(io).await?;
        let (_, session) = stream.get_ref();
        let shown = session.peer_certificates().and_then(<[_]>::first);
        let name = shown.map(|certificate| named(certificate, clock::unix_now())).transpose();
        let refused = |why| format!("the client's certificate {why}");
        let name = name.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, refused(why)))?;
        Ok((stream, name))
    }
}

/// The files' times, sizes and places. A link is followed, so that one that is turned to another
/// file counts as a change.
type Seen = Vec<Option<(SystemTime, u64, PathBuf)>>;

fn look(files: &TlsFiles) -> Seen {
    let one = |path: &PathBuf| {
        let about = fs::metadata(path).ok()?;
        Some((about.modified().ok()?, about.len(), fs::canonicalize(path).ok()?))
    };
    [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()]
        .into_iter()
        .flatten()
        .map(one)
        .collect()
}

fn read(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let cert = |reason: String| TlsError { part: TlsPart::Cert, path: files.cert.clone(), reason };
    let key = |reason: String| TlsError { part: TlsPart::Key, path: files.key.clone(), reason };

    let chain = certificates(&files.cert).map_err(cert)?;
    check_dates(&chain[0], clock::unix_now()).map_err(cert)?;
    let pem = content(&files.key).map_err(key)?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        key("holds no private key in PEM (PKCS#8, PKCS#1 or SEC 1, without a passphrase)".into())
    })?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| cert(error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let ca =
                |reason: String| TlsError { part: TlsPart::ClientCa, path: path.clone(), reason };
            let mut roots = RootCertStore::empty();
            for authority in certificates(path).map_err(ca)? {
                roots.add(authority).map_err(|error| ca(format!("is no authority: {error}")))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| ca(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, private).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            key(format!("is not the key of the certificate in {}", files.cert.display()))
        }
        rustls::Error::InvalidCertificate(error) => cert(format!("cannot be used: {error:?}")),
        error => key(format!("cannot be used: {error}")),
    })?;
    // Sessions are resumed with tickets, so that a site's devices that all come back at once
    // cost no memory here. The tickets' key is this configuration's own: what was allowed
    // under an old authority is asked again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer =
        rustls::crypto::ring::Ticketer::new().map_err(|error| key(error.to_string()))?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    let read = || {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(FILE_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    read().map_err(|error| format!("cannot be read: {error}"))
}

/// All certificates of a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = content(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err("holds no certificate in PEM".into()),
    }
}

/// Whether the certificate is valid at this time, in seconds since 1970. A clock that was not set
/// yet, on a machine that starts before its network, judges nothing.
fn check_dates(certificate: &CertificateDer<'_>, now: u64) -> Result<(), String> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| "holds no certificate of X.509".to_owned())?;
    let validity = parsed.validity();
    if !clock::is_set(now) {
        return Ok(());
    }
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if now > validity.not_after.timestamp() {
        return Err(format!("has expired: it was valid until {}", validity.not_after));
    }
    if now < validity.not_before.timestamp() {
        return Err(format!("is not valid yet: it will be from {}", validity.not_before));
    }
    Ok(())
}

/// The name in a client's certificate. Who comes with a ticket was checked when its first one was
/// given, and gets a new one each time: so whether the certificate is still valid is asked here.
fn named(certificate: &CertificateDer<'_>, now: u64) -> Result<String, String> {
    check_dates(certificate, now)?;
    Ok(common_name(certificate).unwrap_or_default())
}

/// The one CN of a certificate's subject.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => Some(name.as_str().ok()?.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_not_set_judges_no_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2027, 1, 1));
        let certificate = params.self_signed(&key).unwrap();
        let judged = |now| check_dates(certificate.der(), now);
        let year = 365 * 24 * 3600;
        let new_year_2026 = clock::EARLIEST + year;
        assert_eq!(judged(new_year_2026 + 1), Ok(()));
        assert!(judged(new_year_2026 - 1).unwrap_err().contains("not valid yet"));
        assert!(judged(new_year_2026 + year + 1).unwrap_err().contains("has expired"));
        assert_eq!(judged(7), Ok(()));
    }
}
