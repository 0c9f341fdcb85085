//! How an upstream is reached: whom it is trusted by, through what, over which addresses.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use super::secret::Secret;

/// How an upstream is reached. Upstreams with equal settings share their connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct NetworkConfig {
    /// A PEM file of certificate authorities trusted besides the system's.
    pub ca_file: Option<Authorities>,
    /// Who Weir is to upstreams that ask for a certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// Whether the upstream has to prove who it is.
    pub verification: Verification,
    /// What requests go through.
    pub proxy: ProxyChoice,
    /// Which addresses of a name are dialled.
    pub ip_family: IpFamily,
}

impl NetworkConfig {
    /// Whether anybody who stands between may pose as the server at `url`.
    pub fn is_unverified(&self, url: &Url) -> bool {
        self.verification == Verification::Skipped && url.scheme() == "https"
    }
}

/// Certificate authorities, as read from a file.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Authorities {
    /// The file.
    pub file: PathBuf,
    /// What it held: certificates in PEM.
    pub pem: Arc<[u8]>,
}

impl fmt::Debug for Authorities {
    /// Without the content: the file may be another one than it was meant to be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

/// A certificate with its key, as read from their files.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// The file of the certificate.
    pub cert_file: PathBuf,
    /// The file of the key.
    pub key_file: PathBuf,
    /// What the first held: a certificate, and those that lead to its authority, in PEM.
    pub certificate: Arc<[u8]>,
    /// What the second held: a private key in PEM.
    pub key: Arc<[u8]>,
}

impl fmt::Debug for ClientCertificate {
    /// Without the contents: one is a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientCertificate").field(&self.cert_file).field(&self.key_file).finish()
    }
}

/// Whether an upstream has to prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Verification {
    /// By a certificate of a trusted authority.
    #[default]
    Required,
    /// Not at all.
    Skipped,
}

/// What requests to an upstream go through.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum ProxyChoice {
    /// What `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    #[default]
    Environment,
    /// Nothing.
    None,
    /// This proxy, wherever they go.
    Server(ProxyServer),
}

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProxyServer {
    /// Its scheme, host and port, without a user name.
    pub url: Url,
    /// Who to be to it.
    pub credentials: Option<ProxyCredentials>,
}

/// A user name for a proxy, and its password.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProxyCredentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// Which addresses of a name are dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum IpFamily {
    /// Both, the second 300 ms behind the first.
    #[default]
    Auto,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}
