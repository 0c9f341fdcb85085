//! The HTTP clients of upstreams: two for each set of settings, which share nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, VIA};
use http::{HeaderMap, HeaderValue, Method};
use reqwest::{Client, ClientBuilder, RequestBuilder};
use url::{Host, Url};

use super::certificate;
use super::dial::{AddressRefused, check_literal};
use super::failure::{refused_address, root_cause, unanswered};
use super::lookup::{Lookup, System};
use super::names::Names;
use super::proxy::{ProxyEnvironment, ProxyRules};
use super::pseudonym::Pseudonym;
use super::resolver::{Guard, Resolver};
use crate::config::{NetworkConfig, UpstreamConfig, Verification};
use crate::upstream::error::UpstreamError;

/// Opening a connection, name, proxy and TLS included. A client has one limit for all requests, so a candidate with
/// others behind it gets no less than the last one; what a hanging candidate may cost is bounded by the time to the
/// first byte as well.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Load balancers close idle connections after a minute or more; a request on a closed one fails.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// One client of ours pulls several blobs at once, and there are many.
const POOL_MAX_IDLE_PER_HOST: usize = 32;
/// The default of 64 KiB would cap one HTTP/2 stream at about 6 MiB/s over 10 ms of distance.
const HTTP2_STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// All blobs from one host share one HTTP/2 connection.
const HTTP2_CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Who named an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NamedBy {
    /// The configuration.
    Operator,
    /// The upstream, by a redirect or as its token server.
    Upstream,
}

/// The clients of an upstream. Cloning shares their connections.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    configured: Dialer,
    elsewhere: Dialer,
    /// Whether `elsewhere` is the public internet alone.
    is_guarded: bool,
}

/// A client, and what it knows about the way.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    client: Client,
    proxies: Arc<ProxyRules>,
    names: Names,
}

impl Transport {
    /// The way to what the operator named.
    pub(crate) const fn configured(&self) -> &Dialer {
        &self.configured
    }

    /// The way to `url`.
    pub(crate) fn to(&self, url: &Url, named_by: NamedBy) -> Result<&Dialer, UpstreamError> {
        if named_by == NamedBy::Operator {
            return Ok(&self.configured);
        }
        if self.is_guarded {
            self.check(url).map_err(|refused| refused_address(&refused))?;
        }
        Ok(&self.elsewhere)
    }

    /// What can be told without a name server. The guard lets the names of proxies pass, wherever they are, so no
    /// upstream may name them.
    fn check(&self, url: &Url) -> Result<(), AddressRefused> {
        check_literal(url)?;
        match url.host() {
            Some(Host::Domain(name)) if self.elsewhere.proxies.names(name) => Err(AddressRefused::of(name)),
            _ => Ok(()),
        }
    }
}

impl Dialer {
    /// A request on this way.
    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// Why a request on this way got no answer.
    pub(crate) fn unanswered(&self, error: &reqwest::Error) -> UpstreamError {
        let proxy = error.url().and_then(|url| self.proxies.proxy_for(url));
        if let (true, None, Some(name)) = (error.is_connect(), proxy, error.url().and_then(Url::domain)) {
            self.names.doubt(name);
        }
        unanswered(error, proxy)
    }

    /// `error`, of a request to `url` that was waited for in vain, with the proxy that may be to blame.
    pub(crate) fn late(&self, url: &Url, mut error: UpstreamError) -> UpstreamError {
        if let Some(proxy) = self.proxies.proxy_for(url) {
            error.message = format!("{}, through the proxy {proxy}", error.message);
        }
        error
    }
}

/// What the process finds around it.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Finds addresses.
    pub(crate) lookup: Arc<dyn Lookup>,
    /// Names proxies.
    pub(crate) proxies: ProxyEnvironment,
}

impl Surroundings {
    /// The real ones.
    fn of_process() -> Self {
        Self { lookup: Arc::new(System), proxies: ProxyEnvironment::of_process() }
    }
}

/// Makes transports, one per set of settings: reading the system's authorities takes time and memory.
#[derive(Debug, Clone)]
pub(crate) struct Transports {
    names: Names,
    proxies: ProxyEnvironment,
    pseudonym: Pseudonym,
    by_settings: HashMap<Settings, Transport>,
}

/// What makes one transport another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Settings {
    network: NetworkConfig,
    allow_private: bool,
}

impl Settings {
    fn of(upstream: &UpstreamConfig) -> Self {
        Self { network: upstream.network.clone(), allow_private: upstream.allow_private }
    }
}

impl Transports {
    /// None yet.
    pub(crate) fn of_process() -> Self {
        Self::within(Surroundings::of_process())
    }

    /// None yet, in these surroundings.
    pub(crate) fn within(surroundings: Surroundings) -> Self {
        Self {
            names: Names::new(surroundings.lookup),
            proxies: surroundings.proxies,
            pseudonym: Pseudonym::random(),
            by_settings: HashMap::new(),
        }
    }

    /// What is odd about the environment, in sentences.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.proxies.warnings()
    }

    /// What this process calls itself.
    pub(crate) fn pseudonym(&self) -> &Pseudonym {
        &self.pseudonym
    }

    /// The transport of `upstream`. The error is a sentence.
    pub(crate) fn get(&mut self, upstream: &UpstreamConfig) -> Result<Transport, String> {
        let settings = Settings::of(upstream);
        if let Some(transport) = self.by_settings.get(&settings) {
            return Ok(transport.clone());
        }
        let transport = self.make(&settings)?;
        self.by_settings.insert(settings, transport.clone());
        Ok(transport)
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn number(&self) -> usize {
        self.by_settings.len()
    }

    /// Forgets the transports that none of `upstreams` asks for.
    pub(crate) fn keep_those_of<'a>(&mut self, upstreams: impl Iterator<Item = &'a UpstreamConfig>) {
        let asked_for: HashSet<Settings> = upstreams.map(Settings::of).collect();
        self.by_settings.retain(|settings, _| asked_for.contains(settings));
    }

    fn make(&self, settings: &Settings) -> Result<Transport, String> {
        let network = &settings.network;
        let proxies = Arc::new(ProxyRules::new(&network.proxy, &self.proxies));
        let authorities = network.ca_file.as_ref().map(certificate::authorities).transpose()?.unwrap_or_default();
        let identity = network.client_certificate.as_ref().map(certificate::identity).transpose()?;
        let is_guarded = !settings.allow_private;
        let base = |guard: Guard| {
            let resolver = Resolver { names: self.names.clone(), guard, family: network.ip_family };
            through(common(&self.pseudonym), &proxies).dns_resolver(resolver)
        };
        let build = |client: &dyn Fn() -> ClientBuilder| {
            let with_system = client().tls_certs_merge(authorities.clone()).build();
            with_system.or_else(|error| {
                // A machine without certificates can still serve what is stored, and ask upstreams over plain HTTP.
                let cause = root_cause(&error);
                tracing::warn!(%cause, "No certificates of the system: https upstreams need `ca_file`, or install ca-certificates");
                let alone = client().tls_certs_only(authorities.clone()).build();
                alone.map_err(|error| format!("The HTTP client cannot be made: {}", root_cause(&error)))
            })
        };
        // Who Weir is, and whom it believes without proof, is between the operator and what the operator named.
        let configured = || {
            let client =
                base(Guard::Off).tls_danger_accept_invalid_certs(network.verification == Verification::Skipped);
            identity.iter().fold(client, |client, identity| client.identity(identity.clone()))
        };
        let guard = || if is_guarded { Guard::Public(Arc::clone(&proxies)) } else { Guard::Off };
        let elsewhere = || base(guard());
        let dialer = |client| Dialer { client, proxies: Arc::clone(&proxies), names: self.names.clone() };
        Ok(Transport { configured: dialer(build(&configured)?), elsewhere: dialer(build(&elsewhere)?), is_guarded })
    }
}

/// What all clients have in common.
fn common(pseudonym: &Pseudonym) -> ClientBuilder {
    // What a registry sends is hashed, so nothing may be decoded on the way.
    let mut headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
    headers.extend(pseudonym.header().map(|via| (VIA, via)));
    Client::builder()
        .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(POOL_MAX_IDLE_PER_HOST)
        .tcp_nodelay(true)
        .http2_initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
}

/// The client goes through `proxies` and looks at no variable by itself.
fn through(client: ClientBuilder, proxies: &Arc<ProxyRules>) -> ClientBuilder {
    if proxies.is_empty() {
        return client.no_proxy();
    }
    let rules = Arc::clone(proxies);
    client.proxy(reqwest::Proxy::custom(move |url| rules.proxy_for(url).map(|proxy| proxy.url().clone())))
}
