//! What the server shows its clients and what it asks of them: a chain of certificates with its key, and the
//! authorities of clients' certificates. Read from files as a whole, or not at all.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use url::{Host, Url};

use super::error::{NamedFile, TlsError};
use super::validity::{self, Validity};
use crate::config::{TlsConfig, read_file};
use crate::oci::Digest;

/// The protocols that clients may choose from, the preferred one first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// How an encrypted key begins; its section is none that the parser knows.
const ENCRYPTED_KEY: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// The contents of the files, and what was made of them.
#[derive(Debug)]
pub(super) struct Identity {
    contents: Contents,
    /// What the handshake works with. It is made anew with every identity: sessions of an earlier one are not resumed,
    /// so a client whose authority was removed does not come back by an old ticket.
    pub(super) server: Arc<ServerConfig>,
    /// When clients begin to refuse it: the earliest end of a certificate in the chain.
    pub(super) expires: u64,
    certificate_file: NamedFile,
    leaf: CertificateDer<'static>,
    begins: u64,
}

/// What stands in the files.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_authorities: Option<Vec<u8>>,
}

/// The files that are read.
struct Files {
    certificate: NamedFile,
    key: NamedFile,
    client_authorities: Option<NamedFile>,
}

impl Identity {
    /// Reads the files.
    pub(super) fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let files = Files::of(config);
        let contents = files.read()?;
        Self::from_contents(files, contents)
    }

    /// Reads the files again. `None` if nothing in them has changed.
    pub(super) fn load_if_changed(&self, config: &TlsConfig) -> Result<Option<Self>, TlsError> {
        let files = Files::of(config);
        let contents = files.read()?;
        if contents == self.contents {
            return Ok(None);
        }
        let new = Self::from_contents(files, contents)?;
        if new.has_expired() && new.expires < self.expires {
            return Err(TlsError::Expired(new.certificate_file));
        }
        Ok(Some(new))
    }

    fn from_contents(files: Files, contents: Contents) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates(&files.certificate, &contents.certificate)?;
        let validities = chain
            .iter()
            .map(Validity::of)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|reason| TlsError::UnusableCertificate { file: files.certificate.clone(), reason })?;
        let (Some(leaf), Some(begins), Some(expires)) = (
            chain.first().cloned(),
            validities.iter().map(|validity| validity.not_before).max(),
            validities.iter().map(|validity| validity.not_after).min(),
        ) else {
            return Err(TlsError::NoCertificate(files.certificate));
        };
        let key = certified_key(&files, chain, &contents.key, &provider)?;

        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(setup)?;
        let builder = match files.client_authorities.as_ref().zip(contents.client_authorities.as_deref()) {
            Some((file, pem)) => {
                let authorities = Arc::new(authorities(file, pem)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::Setup(error.to_string()))?)
            }
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self { contents, server: Arc::new(server), expires, certificate_file: files.certificate, leaf, begins })
    }

    /// The files and what they held, for a watch.
    pub(super) fn digests(&self, config: &TlsConfig) -> Vec<(PathBuf, Option<Digest>)> {
        let Contents { certificate, key, client_authorities } = &self.contents;
        let files = [
            (Some(&config.cert_file), Some(certificate)),
            (Some(&config.key_file), Some(key)),
            (config.client_ca_file.as_ref(), client_authorities.as_ref()),
        ];
        let digest =
            |(path, content): (Option<&PathBuf>, Option<&Vec<u8>>)| Some((path?.clone(), Some(Digest::of(content?))));
        files.into_iter().filter_map(digest).collect()
    }

    /// What is allowed, but may well be a mistake; `external_url` is how clients address the server.
    pub(super) fn warnings(&self, external_url: Option<&Url>) -> Vec<String> {
        let file = &self.certificate_file;
        let validity = Validity { not_before: self.begins, not_after: self.expires };
        let expired = validity.is_over(validity::now()).then(|| format!("{file} has expired: clients will refuse it"));
        let early = (!validity.has_begun(validity::now()))
            .then(|| format!("{file} is not valid yet: clients will refuse it until then, or the clock is wrong"));
        let misnamed = external_url.filter(|url| !self.covers(url)).map(|url| {
            let host = url.host_str().unwrap_or_default();
            format!("{file} is not valid for {host}, as `server.external_url` says: clients will refuse it")
        });
        expired.into_iter().chain(early).chain(misnamed).collect()
    }

    /// Whether its time is over.
    pub(super) fn has_expired(&self) -> bool {
        Validity { not_before: self.begins, not_after: self.expires }.is_over(validity::now())
    }

    /// Whether clients that address the server by `url` find that name in the certificate.
    fn covers(&self, url: &Url) -> bool {
        let name = match url.host() {
            Some(Host::Domain(name)) => ServerName::try_from(name).ok(),
            Some(Host::Ipv4(address)) => Some(ServerName::from(IpAddr::from(address))),
            Some(Host::Ipv6(address)) => Some(ServerName::from(IpAddr::from(address))),
            None => None,
        };
        let leaf = ParsedCertificate::try_from(&self.leaf);
        name.zip(leaf.ok()).is_some_and(|(name, leaf)| verify_server_name(&leaf, &name).is_ok())
    }
}

impl Files {
    fn of(config: &TlsConfig) -> Self {
        let client_authorities = config.client_ca_file.as_deref();
        Self {
            certificate: NamedFile::new("server.tls.cert_file", &config.cert_file),
            key: NamedFile::new("server.tls.key_file", &config.key_file),
            client_authorities: client_authorities.map(|path| NamedFile::new("server.tls.client_ca_file", path)),
        }
    }

    fn read(&self) -> Result<Contents, TlsError> {
        let read = |file: &NamedFile| {
            read_file(file.path()).map_err(|source| TlsError::Unreadable { file: file.clone(), source })
        };
        Ok(Contents {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            client_authorities: self.client_authorities.as_ref().map(read).transpose()?,
        })
    }
}

/// Keys are among them.
impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}

fn certificates(file: &NamedFile, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Damaged { file: file.clone(), reason: damage(&error) })?;
    if certificates.is_empty() { Err(TlsError::NoCertificate(file.clone())) } else { Ok(certificates) }
}

fn certified_key(
    files: &Files,
    chain: Vec<CertificateDer<'static>>,
    pem: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let file = &files.key;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound if pem.windows(ENCRYPTED_KEY.len()).any(|text| text == ENCRYPTED_KEY) => {
            TlsError::EncryptedKey(file.clone())
        }
        pem::Error::NoItemsFound => TlsError::NoKey(file.clone()),
        error => TlsError::Damaged { file: file.clone(), reason: damage(&error) },
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|reason| match reason {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { key: file.clone(), certificate: files.certificate.clone() }
        }
        rustls::Error::InvalidCertificate(_) => {
            TlsError::UnusableCertificate { file: files.certificate.clone(), reason }
        }
        reason => TlsError::UnusableKey { file: file.clone(), reason },
    })
}

fn authorities(file: &NamedFile, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file, pem)? {
        store.add(certificate).map_err(|reason| TlsError::UnusableCertificate { file: file.clone(), reason })?;
    }
    Ok(store)
}

/// What is wrong with PEM, without repeating it: a key may stand in it.
const fn damage(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section does not begin as it must",
        pem::Error::Base64Decode(_) => "a section is not base64",
        pem::Error::SectionTooLarge => "a section is too large",
        _ => "it cannot be parsed",
    }
}
