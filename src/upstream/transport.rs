//! The HTTP clients: how bytes travel, for all upstreams alike.
//!
//! There are two, which share nothing: one for addresses that the operator configured, one for addresses that an
//! upstream named. The guard sits in the second client itself, so no code path can forget it, and a connection opened
//! by the first is never reused by the second.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::io;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use reqwest::{Certificate, Client, ClientBuilder};
use url::Url;

use super::dial::{AddressRefused, GuardedResolver, check_literal};
use super::error::{UpstreamError, Verdict};
use crate::config::{Authorities, UpstreamConfig};

/// Opening a connection, TLS included. A client has one limit for all requests, so a candidate with others behind it
/// gets no less than the last one; what a hanging candidate may cost is bounded by the time to the first byte as well.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Load balancers close idle connections after a minute or more; a request on a closed one fails.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// One client of ours pulls several blobs at once, and there are many.
const POOL_MAX_IDLE_PER_HOST: usize = 32;
/// The default of 64 KiB would cap one HTTP/2 stream at about 6 MiB/s over 10 ms of distance.
const HTTP2_STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// All blobs from one host share one HTTP/2 connection.
const HTTP2_CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// The clients of an upstream. Cloning shares their connections.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    /// For what the operator configured: any address.
    pub(crate) direct: Client,
    /// For what an upstream named: public addresses only.
    guarded: Client,
}

impl Transport {
    /// The client for `url`, which an upstream named.
    pub(crate) fn guarded(&self, url: &Url) -> Result<&Client, UpstreamError> {
        check_literal(url).map_err(|refused| refused_address(&refused))?;
        Ok(&self.guarded)
    }
}

/// Makes transports, one per set of trusted certificate authorities: parsing the system's takes time and memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transports {
    by_authorities: HashMap<Option<Authorities>, Transport>,
}

impl Transports {
    /// The transport that trusts the system's authorities and those in `ca_file`. The error is a sentence.
    pub(crate) fn get(&mut self, ca_file: Option<&Authorities>) -> Result<Transport, String> {
        let key = ca_file.cloned();
        if let Some(transport) = self.by_authorities.get(&key) {
            return Ok(transport.clone());
        }
        let authorities = ca_file.map(certificates).transpose()?.unwrap_or_default();
        let build = |settings: &dyn Fn() -> ClientBuilder| {
            let with_system = settings().tls_certs_merge(authorities.clone()).build();
            with_system.or_else(|error| {
                // A machine without certificates can still serve what is stored, and ask upstreams over plain HTTP.
                let cause = root_cause(&error);
                tracing::warn!(%cause, "No certificates of the system: https upstreams need `ca_file`, or install ca-certificates");
                let alone = settings().tls_certs_only(authorities.clone()).build();
                alone.map_err(|error| format!("The HTTP client cannot be made: {}", root_cause(&error)))
            })
        };
        let transport = Transport {
            direct: build(&settings)?,
            guarded: build(&|| settings().dns_resolver(GuardedResolver::from_env()))?,
        };
        self.by_authorities.insert(key, transport.clone());
        Ok(transport)
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn number(&self) -> usize {
        self.by_authorities.len()
    }

    /// Forgets the transports that none of `upstreams` asks for.
    pub(crate) fn keep_those_of<'a>(&mut self, upstreams: impl Iterator<Item = &'a UpstreamConfig>) {
        let asked_for: HashSet<Option<&Authorities>> = upstreams.map(|upstream| upstream.ca_file.as_ref()).collect();
        self.by_authorities.retain(|authorities, _| asked_for.contains(&authorities.as_ref()));
    }
}

fn settings() -> ClientBuilder {
    // What a registry sends is hashed, so nothing may be decoded on the way.
    let defaults = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
    Client::builder()
        .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
        .default_headers(defaults)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(POOL_MAX_IDLE_PER_HOST)
        .tcp_nodelay(true)
        .http2_initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
}

fn certificates(authorities: &Authorities) -> Result<Vec<Certificate>, String> {
    let file = authorities.file.display();
    let certificates = Certificate::from_pem_bundle(&authorities.pem)
        .map_err(|error| format!("`ca_file` {file} is not PEM: {}", root_cause(&error)))?;
    if certificates.is_empty() {
        return Err(format!("`ca_file` {file} holds no certificate"));
    }
    Ok(certificates)
}

/// Why a request got no answer.
pub(crate) fn unanswered(error: &reqwest::Error) -> UpstreamError {
    if let Some(refused) = sources(error).find_map(|source| source.downcast_ref::<AddressRefused>()) {
        return refused_address(refused);
    }
    if error.is_timeout() {
        let limit = CONNECT_TIMEOUT.as_secs();
        return UpstreamError::timeout(format!("Cannot be reached: no connection within {limit} s"));
    }
    if error.is_connect() && is_about_tls(error) {
        return UpstreamError::tls(format!("Cannot be reached: {}", root_cause(error)));
    }
    let message = if error.is_dns() {
        format!("Cannot be reached: its name cannot be resolved: {}", root_cause(error))
    } else {
        format!("Cannot be reached: {}", root_cause(error))
    };
    UpstreamError::new(Verdict::Unreachable, message)
}

/// Whether a connection failed for TLS: before its handshake nothing is read that could be wrong or end early.
fn is_about_tls(error: &reqwest::Error) -> bool {
    sources(error).filter_map(|source| source.downcast_ref::<io::Error>()).any(|error| {
        // These errors wrap each other without naming the inner one as their source.
        std::iter::successors(Some(error), |error| {
            let inner: &(dyn Error + 'static) = error.get_ref()?;
            inner.downcast_ref::<io::Error>()
        })
        .any(|error| matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof))
    })
}

fn refused_address(refused: &AddressRefused) -> UpstreamError {
    UpstreamError::off_limits(refused.to_string())
}

/// Whether the connection broke after it was opened and before an answer: a pooled connection that the other side
/// had given up looks like this.
pub(crate) fn is_reset(error: &reqwest::Error) -> bool {
    !error.is_connect() && !error.is_timeout() && !error.is_dns() && error.is_request()
}

/// The innermost error: the others repeat it, and the outermost prints the address with its signature.
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    sources(error).last().map(ToString::to_string).unwrap_or_default()
}

fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}

/// `url` as it may be printed: signatures stand in queries, passwords before the host.
pub(crate) fn printable(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_addresses_hold_no_secret() {
        let url = "https://user:pw@cdn.example.com:8443/a/b?X-Amz-Signature=abc#d".parse().unwrap();
        assert_eq!(printable(&url), "https://cdn.example.com:8443/a/b");
    }

    #[test]
    fn an_unusable_ca_file_is_named() {
        let authorities = Authorities { file: "/etc/ca.pem".into(), pem: b"no certificate in here".as_slice().into() };
        let empty = Transports::default().get(Some(&authorities)).unwrap_err();
        assert_eq!(empty, "`ca_file` /etc/ca.pem holds no certificate");
    }
}
