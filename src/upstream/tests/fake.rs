//! A server that answers as it is told and remembers what it was asked.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::config::{
    Access, Capability, CredentialRule, NetworkConfig, RegistryConfig, Rewrite, Secret, UpstreamConfig,
};
use crate::oci::request::{BlobRequest, ManifestRequest};
use crate::oci::{Digest, RegistryHost};
use crate::telemetry::Metrics;
use crate::upstream::network::Surroundings;
use crate::upstream::{BlobBody, SetupError, UpstreamSet, Upstreams, WantedBlob};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A server on loopback, down when dropped.
pub(super) struct Fake {
    pub(super) port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What to answer, how long to think about it, and what was asked.
type Behaviour = (Arc<dyn Fn(&Asked) -> Response + Send + Sync>, Duration, Arc<Mutex<Vec<Asked>>>);

impl Fake {
    /// A server that answers by `script`.
    pub(super) async fn start(script: impl Fn(&Asked) -> Response + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    /// The same, thinking for so long about every answer.
    pub(super) async fn slow(time: Duration, script: impl Fn(&Asked) -> Response + Send + Sync + 'static) -> Self {
        Self::thinking(TcpListener::bind("127.0.0.1:0").await.unwrap(), time, script)
    }

    /// The same on a listener whose address is known already, for scripts that speak of it.
    pub(super) fn on(listener: TcpListener, script: impl Fn(&Asked) -> Response + Send + Sync + 'static) -> Self {
        Self::thinking(listener, Duration::ZERO, script)
    }

    fn thinking(
        listener: TcpListener,
        time: Duration,
        script: impl Fn(&Asked) -> Response + Send + Sync + 'static,
    ) -> Self {
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let state: Behaviour = (Arc::new(script), time, Arc::clone(&asked));
        let router = Router::new().fallback(answer).with_state(state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(router.clone());
                tokio::spawn(async move {
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, asked, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything it was asked so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.asked.lock().len()
    }
}

async fn answer(State((script, time, asked)): State<Behaviour>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let question = Asked { method: parts.method, target: parts.uri.to_string(), headers: parts.headers, body };
    asked.lock().push(question.clone());
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
    script(&question)
}

/// Listens on a port that was somebody else's a moment ago.
pub(super) async fn listen_on(port: u16) -> TcpListener {
    loop {
        match TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => return listener,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// A server that meets each connection with the next of `answers`, byte for byte, and hangs up.
pub(super) async fn raw(answers: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 8192];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

/// An answer with these headers and this body.
pub(super) fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

/// 200 with this body.
pub(super) fn ok(body: impl Into<Body>) -> Response {
    reply(200, &[], body)
}

/// An answer of nothing but a status.
pub(super) fn status(status: u16) -> Response {
    reply(status, &[], Body::empty())
}

/// An upstream at `url` that may do everything and lead anywhere.
pub(super) fn upstream(name: &str, url: &str) -> UpstreamConfig {
    UpstreamConfig {
        name: name.to_owned(),
        url: url.parse().unwrap(),
        capabilities: vec![Capability::Pull, Capability::Resolve],
        credentials: Vec::new(),
        allow_private: true,
        realm_hosts: Vec::new(),
        matches: Vec::new(),
        rewrite: Rewrite::default(),
        network: NetworkConfig::default(),
        max_connections: UpstreamConfig::MAX_CONNECTIONS,
    }
}

/// The same as a mirror: it may not resolve.
pub(super) fn mirror(name: &str, url: &str) -> UpstreamConfig {
    UpstreamConfig { capabilities: vec![Capability::Pull], ..upstream(name, url) }
}

/// The same with credentials for every repository.
pub(super) fn with_credentials(upstream: UpstreamConfig) -> UpstreamConfig {
    let rule = CredentialRule::password("**".parse().unwrap(), "ci-bot", Secret::new("hunter2"));
    UpstreamConfig { credentials: vec![rule], ..upstream }
}

/// `Basic` with those credentials.
pub(super) const BASIC: &str = "Basic Y2ktYm90Omh1bnRlcjI=";

/// The upstreams of one registry, and where they are counted.
pub(super) fn set(upstreams: Vec<UpstreamConfig>) -> (Arc<UpstreamSet>, Metrics) {
    make(upstreams, Upstreams::new)
}

/// The same with other names and proxies than those of this machine.
pub(super) fn set_within(surroundings: Surroundings, upstreams: Vec<UpstreamConfig>) -> Arc<UpstreamSet> {
    make(upstreams, |registries, metrics| Upstreams::within(surroundings, registries, metrics)).0
}

fn make(
    upstreams: Vec<UpstreamConfig>,
    new: impl FnOnce(&[RegistryConfig], &Metrics) -> Result<Upstreams, SetupError>,
) -> (Arc<UpstreamSet>, Metrics) {
    let host: RegistryHost = "registry.test".parse().unwrap();
    let registry = RegistryConfig {
        host: host.clone(),
        aliases: Vec::new(),
        access: Access::Anonymous,
        allow_unauthenticated: true,
        upstreams,
        equivalents: Vec::new(),
    };
    let metrics = Metrics::new().unwrap();
    let all = new(&[registry], &metrics).unwrap();
    (Arc::clone(all.of(&host).unwrap()), metrics)
}

/// Lets so many seconds pass, which no test waits for.
pub(super) async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

/// Long enough never to matter.
pub(super) fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(25)
}

/// A small image manifest.
pub(super) const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;

/// Asks for `reference` in `acme/app`.
pub(super) fn manifest(reference: &str) -> ManifestRequest {
    ManifestRequest { repository: "acme/app".parse().unwrap(), reference: reference.parse().unwrap() }
}

/// Asks for [`MANIFEST`] by digest.
pub(super) fn manifest_by_digest() -> ManifestRequest {
    manifest(&Digest::of(MANIFEST.as_bytes()).to_string())
}

/// Asks for the blob of `content` in `acme/app`.
pub(super) fn blob(content: &[u8]) -> BlobRequest {
    BlobRequest { repository: "acme/app".parse().unwrap(), digest: Digest::of(content) }
}

/// What is wanted of a blob: all of it, from anybody, soon.
pub(super) fn wanted(request: &BlobRequest, size: Option<u64>) -> WantedBlob<'_> {
    WantedBlob::new(request, size, deadline())
}

/// All of a body.
pub(super) async fn read(mut body: BlobBody) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(bytes) = body.chunk().await.unwrap() {
        content.extend_from_slice(&bytes);
    }
    content
}
