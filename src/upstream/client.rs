//! What can be asked of one upstream: the pull operations of the distribution specification.
//!
//! Every answer is checked here as far as it can be on its own: manifests are whole, hashed and manifests, blobs have
//! the length that was expected. Whether the bytes of a blob are right only their reader can tell.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::Response;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tracing::warn;
use url::Url;

use super::auth::Auth;
use super::body::{BlobBody, pieces, read_document};
use super::budget::Budget;
use super::error::{UpstreamError, Verdict};
use super::exchange::{Ask, Redirects};
use super::health::{Admission, Asking, Health, Part};
use super::limit::Limit;
use super::network::Transport;
use super::part::{BytesAsked, Extent, content_length};
use super::question::{Purpose, Surface};
use super::quirks::Quirks;
use super::redirect::{Origin, is_redirect};
use super::verdict::is_html;
use super::warning::warning;
use super::{Before, BlobStat, FetchedManifest, Resolved};
use crate::config::{Capability, UpstreamConfig};
use crate::oci::media_type::ACCEPT_MANIFESTS;
use crate::oci::request::{BlobRequest, ManifestRequest};
use crate::oci::{ByteRange, Digest, MAX_MANIFEST_BYTES, Manifest, MediaType, Reference, RepositoryName};
use crate::telemetry::{Metrics, Occasionally};

/// Extension header of the distribution specification.
const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// One upstream of one registry.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) name: Arc<str>,
    pub(super) registry: Arc<str>,
    pub(super) home: Origin,
    pub(super) auth: Auth,
    pub(super) budget: Budget,
    pub(super) limit: Arc<Limit>,
    pub(super) transport: Transport,
    pub(super) metrics: Metrics,
    pub(super) quirks: Quirks,
    pub(super) health: Arc<Health>,
    /// Of what no circuit ends: a refusal of every request, a proxy in the way.
    pub(super) complaints: Occasionally,
    /// What it was made from.
    pub(super) config: UpstreamConfig,
}

/// An upstream in the course of one operation.
#[derive(Debug, Clone)]
pub(super) struct Candidate<'a> {
    pub(super) upstream: &'a Arc<Upstream>,
    /// What it is called in answers.
    pub(super) name: &'a Arc<str>,
    /// The repository, by its name there. Questions name it as the registry does.
    pub(super) repository: RepositoryName,
    /// Who waits for it.
    pub(super) purpose: Purpose,
    /// When the operation has to be over.
    pub(super) deadline: Instant,
    /// Whether there is nobody else to ask.
    pub(super) sole: bool,
    /// What those said who are asked before it.
    pub(super) before: Before,
    /// How long it may keep one waiting.
    pub(super) pace: Pace,
    /// The leave to ask it.
    pub(super) admission: Admission,
    /// Whether its token server is asked even if that has been failing.
    pub(super) tokens: Asking,
    /// Whether anything was asked at all: what is answered from memory says nothing about how it is.
    pub(super) was_asked: Arc<AtomicBool>,
}

/// How long a candidate may keep one waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// As long as it usually takes.
    Usual,
    /// Another one stands ready: not long.
    Hurried,
    /// It is known to be down, and so are the others.
    Halved,
}

/// How long a candidate has while another one stands ready.
pub(super) const HURRIED: Duration = Duration::from_secs(3);

/// How often one upstream is complained of at most for what does not open a circuit.
const COMPLAINTS: Duration = Duration::from_secs(60);

impl Pace {
    /// How long the head of an answer may take that usually may take `usual`.
    pub(super) fn of(self, usual: Duration) -> Duration {
        match self {
            Self::Usual => usual,
            Self::Hurried => usual.min(HURRIED),
            Self::Halved => usual / 2,
        }
    }
}

impl Upstream {
    /// The upstream that `config` describes. The error is a sentence.
    pub(super) fn new(
        registry: &Arc<str>,
        config: &UpstreamConfig,
        transport: Transport,
        metrics: &Metrics,
        bell: Arc<Notify>,
    ) -> Result<Self, String> {
        let base = &config.url;
        let home = Origin::of(base).ok_or("`url` must be an http or https address")?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err("`url` must not hold a user name or password; they go under `credentials`".to_owned());
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err("`url` must not hold a query or fragment".to_owned());
        }
        let name: Arc<str> = config.name.as_str().into();
        let health = Health::new(Arc::clone(registry), Arc::clone(&name), metrics.health.clone(), bell);
        let (transports, watch) = (transport.clone(), Arc::clone(&health));
        let auth = Auth::new(Arc::clone(registry), config, home.clone(), transports, metrics.upstream.clone(), watch);
        let count = &metrics.upstream;
        let [in_flight, waiting] =
            [&count.in_flight, &count.waiting].map(|gauge| gauge.with_label_values(&[&**registry, &*name]));
        Ok(Self {
            budget: Budget::new(Arc::clone(registry), Arc::clone(&name), metrics.upstream.clone()),
            limit: Limit::new(config.max_connections, in_flight, waiting),
            name,
            health,
            registry: Arc::clone(registry),
            home,
            auth,
            transport,
            config: config.clone(),
            metrics: metrics.clone(),
            quirks: Quirks::default(),
            complaints: Occasionally::once_per(COMPLAINTS),
        })
    }

    /// Whether it is trusted with `capability`.
    pub(super) fn can(&self, capability: Capability) -> bool {
        self.config.can(capability)
    }

    /// `<base>/v2/<repository>/<path>`; a path in the configured address is kept.
    fn url(&self, repository: &RepositoryName, path: [&str; 2]) -> Url {
        let mut url = self.config.url.clone();
        // Addresses of http and https always have path segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v2").extend(repository.components()).extend(path);
        }
        url
    }

    /// Registry and name, as metrics have them, whatever repository asked for it.
    pub(super) fn labels(&self) -> [&str; 2] {
        [&self.registry, &self.name]
    }

    /// From now on it is configured so, and metrics tell of it.
    pub(super) fn enter(&self) {
        self.health.enter();
        if self.config.network.is_unverified(&self.config.url) {
            self.metrics.upstream.unverified.with_label_values(&self.labels()).set(1);
        }
    }

    /// It is configured no longer, or otherwise: metrics tell nothing more of how it is.
    pub(super) fn leave(&self) {
        self.health.leave();
        self.budget.leave();
        // If it has no series, there is none to remove.
        let _ = self.metrics.upstream.unverified.remove_label_values(&self.labels());
    }

    fn meter(&self, surface: Surface) -> prometheus::IntCounter {
        self.metrics.upstream.received_bytes.with_label_values(&[&*self.registry, &*self.name, surface.as_str()])
    }
}

impl Candidate<'_> {
    /// The address of something of the repository.
    pub(super) fn url(&self, path: [&str; 2]) -> Url {
        self.upstream.url(&self.repository, path)
    }

    /// HEAD of a manifest by tag.
    pub(super) async fn resolve(self, request: &ManifestRequest) -> Result<Resolved, UpstreamError> {
        let (upstream, before) = (Arc::clone(self.name), self.before);
        let no_head = &self.upstream.quirks.no_head;
        if no_head.holds(Instant::now()) {
            return Ok(Resolved { upstream, digest: None, before, warning: None });
        }
        let headers = match self.exchange(&self.ask_manifest(Method::HEAD, request)).await {
            Ok(response) => response.headers().clone(),
            // It knows no HEAD: only a GET can tell.
            Err(error) if error.status == Some(405) && error.verdict == Verdict::Refused => {
                no_head.note(Instant::now());
                return Ok(Resolved { upstream, digest: None, before, warning: None });
            }
            // Servers without HEAD say that, and so do those that are out of order.
            Err(error) if matches!(error.status, Some(405 | 501)) => {
                let FetchedManifest { digest, warning, .. } = self.manifest(request).await?;
                return Ok(Resolved { upstream, digest: Some(digest), before, warning });
            }
            Err(error) => return Err(error),
        };
        if is_html(&headers) {
            return Err(UpstreamError::broken("Answered with a web page instead of a manifest"));
        }
        Ok(Resolved { upstream, digest: announced_digest(&headers), before, warning: warning(&headers) })
    }

    /// GET of a manifest.
    pub(super) async fn manifest(self, request: &ManifestRequest) -> Result<FetchedManifest, UpstreamError> {
        let response = self.exchange(&self.ask_manifest(Method::GET, request)).await?;
        expect_ok(&response)?;
        let headers = response.headers().clone();
        let body = self.read(Surface::Manifest, response, MAX_MANIFEST_BYTES).await?;
        let digest = self.verify(request, &headers, &body)?;
        let announced: Option<MediaType> =
            headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()?.parse().ok());
        let read = match &request.reference {
            // Whatever it is, it is what was asked for.
            Reference::Digest(_) => Manifest::parse,
            Reference::Tag(_) => Manifest::recognise,
        };
        let manifest = read(announced.as_ref(), &body)
            .map_err(|invalid| UpstreamError::broken(format!("Answered with no manifest: {invalid}")))?;
        let (upstream, media_type) = (Arc::clone(self.name), manifest.media_type);
        let (before, warning) = (self.before, warning(&headers));
        Ok(FetchedManifest { upstream, digest, media_type, body, before, warning })
    }

    /// HEAD of a blob, without following redirects: a signed address is good for one method. Where it redirects, a GET
    /// of one byte tells the size, and whether there is anything behind it: some registries redirect for any digest.
    pub(super) async fn stat_blob(self, request: &BlobRequest) -> Result<BlobStat, UpstreamError> {
        let upstream = Arc::clone(self.name);
        let head = Ask { redirects: Redirects::Report, ..self.ask_blob(Method::HEAD, request, None) };
        let size = match self.exchange(&head).await {
            Ok(response) if is_redirect(response.status()) => self.size_by_range(request).await?,
            Ok(response) => {
                expect_no_page(&response)?;
                // Servers that do not know the length beforehand tend to announce that of the body of their answer.
                content_length(response.headers()).filter(|length| *length > 0 || request.digest.matches(b""))
            }
            Err(error) if matches!(error.status, Some(405 | 501)) => self.size_by_range(request).await?,
            Err(error) => return Err(error),
        };
        Ok(BlobStat { upstream, size })
    }

    /// The size of a blob, from a GET of its first byte.
    async fn size_by_range(&self, request: &BlobRequest) -> Result<Option<u64>, UpstreamError> {
        let first_byte = Some(HeaderValue::from_static("bytes=0-0"));
        let response = match self.exchange(&self.ask_blob(Method::GET, request, first_byte)).await {
            // It is there, and has no first byte.
            Err(error) if error.status == Some(416) => return Ok(None),
            answered => answered?,
        };
        expect_no_page(&response)?;
        let headers = response.headers();
        Ok(match response.status() {
            StatusCode::PARTIAL_CONTENT => headers
                .get(CONTENT_RANGE)
                .and_then(|value| ByteRange::parse_content_range(value.to_str().ok()?))
                .and_then(|(_, _, total)| total),
            // The range was ignored. Dropping the response drops the rest.
            StatusCode::OK => content_length(headers),
            _ => None,
        })
    }

    /// GET of a blob; `expected` is the size that a descriptor gave.
    pub(super) async fn open_blob(
        self,
        request: &BlobRequest,
        expected: Option<u64>,
    ) -> Result<BlobBody, UpstreamError> {
        let response = self.exchange(&self.ask_blob(Method::GET, request, None)).await?;
        expect_ok(&response)?;
        let announced = content_length(response.headers());
        match (announced, expected) {
            (Some(announced), Some(expected)) if announced != expected => {
                return Err(UpstreamError::broken(format!("Announced {announced} bytes for a blob of {expected}")));
            }
            // If it has exactly the length that was expected, it is a blob that happens to be a web page.
            (_, None) | (None, _) => expect_no_page(&response)?,
            _ => {}
        }
        Ok(self.body(Extent::whole(announced, expected), response))
    }

    /// GET of a part of a blob; `total` is the size of the whole, where it is known.
    pub(super) async fn open_blob_range(
        self,
        request: &BlobRequest,
        asked: BytesAsked,
        total: Option<u64>,
    ) -> Result<BlobBody, UpstreamError> {
        let upstream = self.upstream;
        let opened = self.open_part(request, asked, total).await;
        if opened.as_ref().is_err_and(|error| error.verdict == Verdict::WrongPart) {
            upstream.quirks.wrong_parts.note(Instant::now());
        }
        opened
    }

    async fn open_part(
        self,
        request: &BlobRequest,
        asked: BytesAsked,
        total: Option<u64>,
    ) -> Result<BlobBody, UpstreamError> {
        let ask = self.ask_blob(Method::GET, request, asked.header());
        let response = self.exchange(&ask).await.map_err(|error| match error.status {
            Some(416) => UpstreamError { status: error.status, ..UpstreamError::range(error.message) },
            _ => error,
        })?;
        let extent = Extent::of_part(response.status(), response.headers(), asked, total);
        if total.is_none() || extent.is_err() {
            expect_no_page(&response)?;
        }
        let extent = extent?;
        Ok(self.body(extent, response))
    }

    fn body(&self, extent: Extent, response: Response) -> BlobBody {
        let meter = self.upstream.meter(Surface::Blob);
        let pending = self.upstream.health.hand_on(Part::Blob, self.admission);
        BlobBody::new(Arc::clone(self.name), extent, pieces(response), meter).watched_by(pending)
    }

    fn ask_manifest(&self, method: Method, request: &ManifestRequest) -> Ask<'_> {
        let url = self.url(["manifests", &request.reference.to_string()]);
        Ask { accept: Some(ACCEPT_MANIFESTS), ..Ask::new(Surface::Manifest, method, url, &self.repository) }
    }

    fn ask_blob(&self, method: Method, request: &BlobRequest, range: Option<HeaderValue>) -> Ask<'_> {
        let url = self.url(["blobs", &request.digest.to_string()]);
        Ask { range, ..Ask::new(Surface::Blob, method, url, &self.repository) }
    }

    /// The whole body of `response`, if it comes in time.
    pub(super) async fn read(
        &self,
        surface: Surface,
        response: Response,
        limit: usize,
    ) -> Result<Bytes, UpstreamError> {
        let read = read_document(pieces(response), limit, self.pace.of(surface.first_byte()));
        let body = timeout_at(self.deadline, read)
            .await
            .unwrap_or_else(|_| Err(UpstreamError::timeout("The answer did not end in time")))?;
        self.upstream.meter(surface).inc_by(body.len() as u64);
        Ok(body)
    }

    /// The digest of `body`, which is the one asked for if one was. What the upstream says it is counts for nothing
    /// (CVE-2025-24882).
    fn verify(&self, request: &ManifestRequest, headers: &HeaderMap, body: &[u8]) -> Result<Digest, UpstreamError> {
        let Upstream { registry, name, .. } = &**self.upstream;
        match &request.reference {
            Reference::Digest(digest) if digest.matches(body) => Ok(*digest),
            Reference::Digest(digest) => {
                self.upstream.metrics.pull.digest_mismatches.with_label_values(&[&**registry, &**name]).inc();
                Err(UpstreamError::digest(format!("Answered with a manifest that does not hash to {digest}")))
            }
            Reference::Tag(tag) => {
                if let Some(announced) = announced_digest(headers).filter(|announced| !announced.matches(body)) {
                    warn!(%registry, upstream = %name, repository = %request.repository, %tag, %announced,
                        "Upstream announced another digest than that of the manifest it sent");
                }
                Ok(Digest::of(body))
            }
        }
    }
}

/// Anything but 200 to a request for the whole is not an answer to it.
pub(super) fn expect_ok(response: &Response) -> Result<(), UpstreamError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    Err(UpstreamError::of_status(Verdict::Broken, format!("Answered {status} to a request for the whole"), status))
}

/// A sign-in page is not a blob, though its status says so.
fn expect_no_page(response: &Response) -> Result<(), UpstreamError> {
    if is_html(response.headers()) {
        return Err(UpstreamError::broken("Answered with a web page instead of a blob"));
    }
    Ok(())
}

fn announced_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(DOCKER_CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}
