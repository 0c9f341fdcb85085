//! Certificates made on the spot, as PEM files.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// An authority.
#[derive(Debug)]
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, in PEM.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The files of a server's certificate.
#[derive(Debug, Clone)]
pub(crate) struct CertificateFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for a server on loopback.
    pub(crate) fn for_server(&self) -> Issued {
        self.issue("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for the client `name`.
    pub(crate) fn for_client(&self, name: &str) -> Issued {
        self.issue(name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Test certificate");
        params.extended_key_usages = vec![usage];
        Issued { certificate: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes the authority's own certificate below `directory`.
    pub(crate) fn write(&self, directory: &Path) -> PathBuf {
        write(directory, "ca.crt", &self.pem())
    }
}

impl Issued {
    /// Writes certificate and key below `directory`, as one that is renewed: over the files of the one before.
    pub(crate) fn write(&self, directory: &Path) -> CertificateFiles {
        CertificateFiles {
            certificate: write(directory, "tls.crt", &self.certificate),
            key: write(directory, "tls.key", &self.key),
        }
    }
}

fn write(directory: &Path, name: &str, pem: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, pem).unwrap();
    path
}
