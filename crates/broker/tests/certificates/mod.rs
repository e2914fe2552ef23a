//! An authority, and certificates of it.

// Every test binary compiles this module and uses a part of it.
#![allow(dead_code)]

use broker::TlsFiles;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion, pki_types::PrivateKeyDer,
};

/// Where [`Issued::write`] writes.
pub fn files_in(dir: &TempDir) -> TlsFiles {
    TlsFiles { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem"), client_ca: None }
}

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Issued {
    pub certificate: Certificate,
    pub key: KeyPair,
}

impl Issued {
    pub fn write(&self, dir: &TempDir) {
        let files = files_in(dir);
        std::fs::write(files.cert, self.certificate.pem()).unwrap();
        std::fs::write(files.key, self.key.serialize_pem()).unwrap();
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `localhost`.
    pub fn server(&self) -> Issued {
        self.sign(CertificateParams::new(["localhost".to_owned()]).unwrap())
    }

    /// A client's certificate with these CNs.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.sign(Self::client_params(names))
    }

    /// One that was valid once.
    pub fn issue_expired(&self, name: &str) -> Issued {
        let mut params = Self::client_params(&[name]);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
        self.sign(params)
    }

    /// One that is valid for so long from now on, to the second.
    pub fn issue_for(&self, name: &str, valid: Duration) -> Issued {
        let mut params = Self::client_params(&[name]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        params.not_after = date_time_ymd(1970, 1, 1) + now + valid;
        self.sign(params)
    }

    fn client_params(names: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // `push` replaces a name of the same type, so a second CN is given by its number.
        for (index, name) in names.iter().enumerate() {
            let kind = match index {
                0 => DnType::CommonName,
                _ => DnType::CustomDnType(vec![2, 5, 4, 3]),
            };
            params.distinguished_name.push(kind, *name);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    fn sign(&self, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { certificate, key }
    }

    /// A client that trusts this authority, with these versions (all where there are none).
    pub fn client(
        &self,
        certificate: Option<&Issued>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let all = [&tokio_rustls::rustls::version::TLS13, &tokio_rustls::rustls::version::TLS12];
        let versions = if versions.is_empty() { &all } else { versions };
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match certificate {
            None => builder.with_no_client_auth(),
            Some(Issued { certificate, key }) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        }
    }
}
