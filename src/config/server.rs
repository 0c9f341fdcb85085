//! Listeners and logging.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::secret::Secret;
use crate::oci::RegistryHost;
use crate::oci::registry::DOCKER_HUB;

/// The registry listener.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// How clients reach this server, if `listen` does not tell: printed by `mirror-config`.
    pub external_url: Option<Url>,
    /// The registry of requests that name none. `None` (written as an empty text) answers them 404.
    pub default_registry: Option<RegistryHost>,
    /// How long answers in progress may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// The most connections served at once; further ones wait in the listen queue.
    pub max_connections: usize,
    /// Whether files are sent by the system instead of being read.
    pub sendfile: SendFile,
    /// How clients' connections are encrypted. `None`: they are not.
    pub tls: Option<TlsConfig>,
}

/// How stored content reaches a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SendFile {
    /// By `sendfile` on plain HTTP/1 connections, if a check at start finds that it works here.
    #[default]
    Auto,
    /// Read and written everywhere.
    Off,
}

/// TLS on the registry listener: PEM files that exist; what is in them is looked at when the server starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate, followed by those between it and its authority.
    pub cert_file: PathBuf,
    /// The certificate's private key.
    pub key_file: PathBuf,
    /// The authorities of clients' certificates. `None`: clients need none.
    pub client_ca_file: Option<PathBuf>,
}

impl ServerConfig {
    /// How clients that connect to `listener` address it.
    pub fn url_of(&self, listener: SocketAddr) -> Option<Url> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Url::parse(&format!("{scheme}://{listener}")).ok()
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 5000)),
            external_url: None,
            default_registry: DOCKER_HUB.parse().ok(),
            drain_timeout: Duration::from_secs(5 * 60),
            max_connections: 4096,
            sendfile: SendFile::default(),
            tls: None,
        }
    }
}

/// The listener for metrics, probes and operators.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Where operators and Prometheus connect.
    pub listen: SocketAddr,
    /// What those say who may change anything. `None`: nobody may.
    pub token: Option<Secret>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 5001)), token: None }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// A level (`info`) or filter directives (`weir=debug,info`); `RUST_LOG` overrides it.
    pub level: String,
    /// Text for people or JSON for machines.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One readable line per event.
    Text,
    /// One JSON object per event.
    Json,
}
