//! The client of the operators' API of a running server: questions with one answer, and work that is told line by line.

mod error;
mod lines;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::{Method, StatusCode};
use reqwest::{Client, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::Sources;
use super::error::CliError;
use crate::config::Secret;

pub(super) use error::{AdminError, Shown};
pub(super) use lines::Outcome;

/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Which server is asked, and what it is shown.
#[derive(Debug, Args)]
pub(super) struct Server {
    /// The admin listener of the server; without it, `admin.listen` of the configuration
    // A text, because the parser of arguments would repeat a wrong one, and it may hold a password.
    #[arg(long, value_name = "URL", env = "WEIR_ADMIN_URL", hide_env_values = true, global = true)]
    admin_url: Option<String>,

    /// The file with the token of operators; without it, `admin.token_file` of the configuration
    #[arg(long, value_name = "FILE", env = "WEIR_ADMIN_TOKEN_FILE", global = true)]
    token_file: Option<PathBuf>,
}

/// A server and what it is shown.
#[derive(Debug)]
pub(super) struct Admin {
    url: Url,
    token: Option<Secret>,
}

/// What is asked, below `/api/v1`.
#[derive(Debug, Clone)]
pub(super) struct Question<'a> {
    pub(super) method: Method,
    pub(super) path: &'a [&'a str],
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) body: Option<Value>,
}

/// RFC 9457, as far as it is shown.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl<'a> Question<'a> {
    /// A look.
    pub(super) const fn get(path: &'a [&'a str]) -> Self {
        Self { method: Method::GET, path, query: &[], body: None }
    }

    /// Something to do.
    pub(super) const fn post(path: &'a [&'a str]) -> Self {
        Self { method: Method::POST, path, query: &[], body: None }
    }
}

impl Admin {
    /// One that listens on this machine.
    pub(super) fn at(address: SocketAddr, token: Secret) -> Result<Self, AdminError> {
        let url = Url::parse(&format!("http://{address}")).map_err(|_| AdminError::Address)?;
        Ok(Self { url, token: Some(token) })
    }

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

    /// The answer, as text.
    pub(super) fn ask(&self, question: &Question<'_>) -> Result<String, AdminError> {
        self.in_runtime(async {
            let request =
                self.request(&client().timeout(TIMEOUT).build().map_err(|error| self.failed(&error))?, question);
            let answer = request.send().await.map_err(|error| self.failed(&error))?;
            let status = answer.status();
            let body = answer.text().await.map_err(|error| self.failed(&error))?;
            if status == StatusCode::OK { Ok(body) } else { Err(self.refusal(&body)) }
        })
    }

    /// The answer, as what it says.
    pub(super) fn ask_for<T: for<'de> Deserialize<'de>>(&self, question: &Question<'_>) -> Result<T, AdminError> {
        serde_json::from_str(&self.ask(question)?).map_err(|_| self.not_weir())
    }

    fn request(&self, client: &Client, question: &Question<'_>) -> RequestBuilder {
        let Question { method, path, query, body } = question;
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(*path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(*query);
        }
        let request = client.request(method.clone(), url);
        let request = body.iter().fold(request, |request, body| {
            request.header(http::header::CONTENT_TYPE, "application/json").body(body.to_string())
        });
        self.token.iter().fold(request, |request, token| request.bearer_auth(token.expose()))
    }

    fn in_runtime<T>(&self, asked: impl Future<Output = Result<T, AdminError>>) -> Result<T, AdminError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| self.unreachable(error.to_string()))?.block_on(asked)
    }

    async fn refused(&self, answer: Response) -> AdminError {
        match answer.text().await {
            Ok(body) => self.refusal(&body),
            Err(error) => self.failed(&error),
        }
    }

    fn refusal(&self, body: &str) -> AdminError {
        let problem = serde_json::from_str::<Problem>(body);
        problem.map_or_else(|_| self.not_weir(), |problem| AdminError::Refused(problem.detail))
    }

    fn not_weir(&self) -> AdminError {
        AdminError::NotWeir(Shown::of(&self.url))
    }

    fn failed(&self, error: &reqwest::Error) -> AdminError {
        self.unreachable(root_cause(error))
    }

    fn unreachable(&self, reason: String) -> AdminError {
        AdminError::Unreachable { url: Shown::of(&self.url), reason }
    }
}

/// Operators mean this very server, whatever proxy the environment names.
fn client() -> reqwest::ClientBuilder {
    Client::builder().no_proxy()
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
