//! The client of the operators' API.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::{Server, Upstream};
use crate::cli::Sources;
use crate::cli::error::CliError;
use crate::config::Secret;

/// How long the server may take: it looks at nothing but its memory.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A server and what it is shown.
#[derive(Debug)]
pub(super) struct Admin {
    url: Url,
    token: Option<Secret>,
}

/// Why the server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum AdminError {
    /// The address is none.
    #[error("`--admin-url` is not an address such as http://127.0.0.1:5001")]
    Address,
    /// The token cannot be read.
    #[error("The token file {} cannot be read: {source}", path.display())]
    Token { path: PathBuf, source: std::io::Error },
    /// Nobody answers.
    #[error("No server answers at {url}: {reason}; is weir running, and is that its `admin.listen`?")]
    Unreachable { url: Shown, reason: String },
    /// The server refuses.
    #[error("{0}")]
    Refused(String),
    /// Another server answers.
    #[error("{0} does not answer as weir's admin listener does")]
    NotWeir(Shown),
    /// There is no such upstream.
    #[error("No upstream is named `{name}`; there are: {}", known.join(", "))]
    NoSuchUpstream { name: String, known: Vec<String> },
    /// There are several.
    #[error("Several registries have an upstream named `{name}`; add one of: {}", with_option(registries))]
    Ambiguous { name: String, registries: Vec<String> },
}

impl AdminError {
    /// Whether nobody was there to ask.
    pub(in crate::cli) const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// An address as it is printed: a password may stand in it.
#[derive(Debug)]
pub(in crate::cli) struct Shown(String);

impl Shown {
    fn of(url: &Url) -> Self {
        Self(format!("{}{}", url.origin().ascii_serialization(), url.path()))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn with_option(registries: &[String]) -> String {
    registries.iter().map(|registry| format!("--registry {registry}")).collect::<Vec<_>>().join(", ")
}

/// RFC 9457, as far as it is shown.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

#[derive(Deserialize)]
struct List {
    upstreams: Vec<Upstream>,
}

impl Admin {
    /// As `server` says, else as the configuration does.
    pub(super) fn of(server: &Server, sources: &Sources) -> Result<Self, CliError> {
        let given = server.admin_url.as_ref().map(|url| url.parse::<Url>().map_err(|_| AdminError::Address));
        let token = match &server.token_file {
            Some(path) => {
                let read = fs::read_to_string(path);
                let text = read.map_err(|source| AdminError::Token { path: path.clone(), source })?;
                Some(Secret::new(text.trim_end_matches(['\r', '\n'])))
            }
            None => None,
        };
        Ok(match (given.transpose()?, token) {
            (Some(url), Some(token)) => Self { url, token: Some(token) },
            (Some(url), None) => Self { url, token: None },
            (None, token) => {
                let config = sources.load()?.admin;
                let url = Url::parse(&format!("http://{}", reachable(config.listen)));
                Self { url: url.map_err(|_| AdminError::Address)?, token: token.or(config.token) }
            }
        })
    }

    /// All upstreams, as JSON.
    pub(super) fn list(&self) -> Result<String, AdminError> {
        self.ask(Method::GET, &["upstreams"], None)
    }

    /// All upstreams.
    pub(super) fn upstreams(&self) -> Result<Vec<Upstream>, AdminError> {
        let list: List = serde_json::from_str(&self.list()?).map_err(|_| self.not_weir())?;
        Ok(list.upstreams)
    }

    /// Changes an upstream; how it is then.
    pub(super) fn change(
        &self,
        registry: &str,
        name: &str,
        verb: &str,
        time: Option<Duration>,
    ) -> Result<Upstream, AdminError> {
        let text = self.ask(Method::POST, &["upstreams", registry, name, verb], time)?;
        serde_json::from_str(&text).map_err(|_| self.not_weir())
    }

    fn not_weir(&self) -> AdminError {
        AdminError::NotWeir(Shown::of(&self.url))
    }

    fn ask(&self, method: Method, path: &[&str], time: Option<Duration>) -> Result<String, AdminError> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if let Some(time) = time {
            url.query_pairs_mut().append_pair("for", &format!("{}s", time.as_secs().max(1)));
        }
        let unreachable = |reason: String| AdminError::Unreachable { url: Shown::of(&self.url), reason };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (status, body) = runtime.map_err(|error| unreachable(error.to_string()))?.block_on(async {
            let failed = |error: reqwest::Error| unreachable(root_cause(&error));
            // Operators mean this very server, whatever proxy the environment names.
            let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().map_err(failed)?;
            let request = client.request(method, url);
            let request = self.token.iter().fold(request, |request, token| request.bearer_auth(token.expose()));
            let answer = request.send().await.map_err(failed)?;
            Ok((answer.status(), answer.text().await.map_err(failed)?))
        })?;
        match status {
            StatusCode::OK => Ok(body),
            _ => Err(serde_json::from_str::<Problem>(&body)
                .map_or_else(|_| self.not_weir(), |problem| AdminError::Refused(problem.detail))),
        }
    }
}

/// Where a listener on all addresses is reached from the same machine.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

/// The innermost error: the others repeat it.
fn root_cause(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().map(ToString::to_string).unwrap_or_default()
}
