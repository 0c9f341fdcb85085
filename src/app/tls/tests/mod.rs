//! TLS over loopback sockets, with certificates made on the spot.

mod files;
mod handshake;
mod reload;

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

use super::*;
use crate::config::TlsConfig;
use crate::telemetry::Metrics;

/// An authority of tests.
pub(in crate::app) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(in crate::app) struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub(in crate::app) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for the server `name`.
    pub(in crate::app) fn issue(&self, name: &str) -> Issued {
        self.issue_with(name, |_| {})
    }

    /// A certificate that shows who a client is.
    fn issue_to_client(&self, name: &str) -> Issued {
        self.issue_with(name, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { certificate, key }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

impl Issued {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.serialize_pem().as_bytes()).unwrap()
    }
}

/// A directory with the files of `server.tls`.
pub(in crate::app) struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(in crate::app) fn with(issued: &Issued) -> Self {
        let directory = Self::new();
        directory.write(issued);
        directory
    }

    fn write(&self, issued: &Issued) {
        fs::write(self.path("tls.crt"), issued.certificate.pem()).unwrap();
        fs::write(self.path("tls.key"), issued.key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The files by their names here.
    pub(in crate::app) fn config(&self) -> TlsConfig {
        config(&self.path("tls.crt"), &self.path("tls.key"), None)
    }

    /// Only clients of this authority are served.
    fn config_for_clients_of(&self, authority: &Authority) -> TlsConfig {
        let file = self.path("clients-ca.crt");
        fs::write(&file, authority.0.pem()).unwrap();
        config(&self.path("tls.crt"), &self.path("tls.key"), Some(&file))
    }
}

fn config(certificate: &Path, key: &Path, client_authorities: Option<&Path>) -> TlsConfig {
    TlsConfig {
        cert_file: certificate.to_owned(),
        key_file: key.to_owned(),
        client_ca_file: client_authorities.map(Path::to_owned),
    }
}

pub(in crate::app) fn server_config(tls: TlsConfig) -> ServerConfig {
    ServerConfig { tls: Some(tls), ..ServerConfig::default() }
}

/// A client that trusts `authority` and offers `protocols`.
pub(in crate::app) fn client_of(authority: &Authority, protocols: &[&[u8]]) -> ClientConfig {
    handshake::client_of(authority, handshake::BOTH, protocols, None)
}

/// The certificates in these files, and the metrics they count in.
fn certificates(tls: TlsConfig) -> (Certificates, Metrics) {
    let metrics = Metrics::new().unwrap();
    let certificates = Certificates::load(&server_config(tls), metrics.tls.clone()).unwrap().unwrap();
    (certificates, metrics)
}
