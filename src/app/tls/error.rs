//! Why files cannot be used for TLS: each message names the key, the file and the fix.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file and the key of the configuration that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    key: &'static str,
    path: PathBuf,
}

/// Why the files of `server.tls` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{file} cannot be read: {source}; name a file that this process can read")]
    Unreadable {
        /// The file.
        file: NamedFile,
        /// Why.
        source: io::Error,
    },
    /// A file is damaged.
    #[error("{file} is not PEM: {reason}; write it again, or name another file")]
    Damaged {
        /// The file.
        file: NamedFile,
        /// What about it, without any of its text.
        reason: &'static str,
    },
    /// A file holds no certificate.
    #[error("{0} holds no certificate; name a PEM file with a section that begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate(NamedFile),
    /// A certificate cannot be used.
    #[error("{file} holds a certificate that cannot be used: {reason}; have it issued again")]
    UnusableCertificate {
        /// The file.
        file: NamedFile,
        /// What about it.
        reason: rustls::Error,
    },
    /// A file holds no private key.
    #[error("{0} holds no private key; name a PEM file with a section that begins with -----BEGIN PRIVATE KEY-----")]
    NoKey(NamedFile),
    /// A private key is protected by a password, which nobody is there to give.
    #[error("{0} holds an encrypted private key; decrypt it with `openssl pkey`, and let only this process read it")]
    EncryptedKey(NamedFile),
    /// A private key of a kind that TLS does not know.
    #[error(
        "{file} holds a private key that cannot be used: {reason}; use an RSA, ECDSA (P-256, P-384) or Ed25519 key"
    )]
    UnusableKey {
        /// The file.
        file: NamedFile,
        /// What about it.
        reason: rustls::Error,
    },
    /// Certificate and key are of different pairs.
    #[error(
        "{key} does not belong to the first certificate in {certificate}; name the two files that were issued together"
    )]
    Mismatch {
        /// The key's file.
        key: NamedFile,
        /// The certificate's file.
        certificate: NamedFile,
    },
    /// An expired certificate would replace one that has more time left.
    #[error("{0} holds a certificate that has expired; have it issued again")]
    Expired(NamedFile),
    /// The library that speaks TLS refuses what it was given.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl NamedFile {
    /// The file at `path`, which `key` names.
    pub(super) fn new(key: &'static str, path: &Path) -> Self {
        Self { key, path: path.to_owned() }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for NamedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({})", self.key, self.path.display())
    }
}
