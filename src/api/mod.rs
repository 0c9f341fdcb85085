//! The HTTP surface of the registry: from a request to a pull, and from what came of it to an answer.
//!
//! One router with one fallback, as the paths of the protocol fit no router; [`endpoint`] parses, one handler per
//! operation answers, `error` is the only place where failures get a status. The room decides nothing about content.
//! Its invariant: an answer that cannot be completed is broken off, never ended short.

pub mod access;
mod blobs;
mod body;
pub mod endpoint;
mod error;
mod headers;
mod manifests;
mod multipart;
mod referrers;
mod tags;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Request, StatusCode, header};

use crate::mapping::{ImageMapping, Located};
use crate::oci::Reference;
use crate::pull::{CacheResult, Pseudonym, PullService, Source};
use crate::sendfile::Regions;
use crate::telemetry::Metrics;

use access::{Access, Client, Kind, PullNote};
use endpoint::{Endpoint, Operation};
use error::ApiError;

/// What requests are answered with. It is replaced as a whole; a request ends with what it began with.
#[derive(Debug, Clone)]
pub struct ApiState(Arc<ArcSwap<Surface>>);

/// What the handlers need.
#[derive(Debug)]
pub struct Surface {
    /// Answers pulls.
    pub pull: PullService,
    /// Tells which registry is meant.
    pub mapping: ImageMapping,
}

impl ApiState {
    /// Answers with `surface` for now.
    pub fn new(surface: Surface) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(surface)))
    }

    /// Answers with `surface` from the next request on.
    pub fn replace(&self, surface: Surface) {
        self.0.store(Arc::new(surface));
    }
}

/// The registry surface, with its access log and metrics.
#[derive(Debug, Clone)]
pub struct Registry {
    state: ApiState,
    access: Access,
    pseudonym: Pseudonym,
}

impl Registry {
    /// A surface over `state`, which may be replaced while it serves. Upstreams know it as `pseudonym`.
    pub fn new(state: ApiState, pseudonym: Pseudonym, metrics: &Metrics) -> Self {
        Self { state, access: Access::new(metrics), pseudonym }
    }

    /// Answers a request. None here has a body; one that was sent is not read, and the connection is closed behind the
    /// answer instead.
    pub async fn answer<B>(&self, request: Request<B>) -> Response {
        let (parts, _) = request.into_parts();
        let record = self.access.begin(&parts);
        let is_head = parts.method == Method::HEAD;
        let surface = self.state.0.load_full();
        let answered = if self.pseudonym.is_in(&parts.headers) {
            // Waiting for its own answer, it would wait for ever.
            Err(ApiError::own_request())
        } else {
            dispatch(&surface, parts).await
        };
        let answer = answered.unwrap_or_else(IntoResponse::into_response);
        record.answered(answer, is_head)
    }
}

/// One request after it has been understood.
struct Call {
    located: Located,
    /// How the client spelled the path, for links to further pages.
    path: String,
    namespace: Option<String>,
    headers: HeaderMap,
    method: Method,
    client: Option<Arc<Client>>,
}

async fn dispatch(surface: &Surface, parts: Parts) -> Result<Response, ApiError> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(ApiError::method(&parts.method));
    }
    let endpoint = Endpoint::parse(parts.uri.path(), parts.uri.query())?;
    let operation = endpoint.operation.clone();
    if operation == Operation::Base {
        return Ok(base());
    }
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| parts.uri.authority().map(Authority::as_str));
    let located = surface.mapping.locate(endpoint.requested_name(host))?;
    let path = parts.uri.path().to_owned();
    let client = parts.extensions.get::<Arc<Client>>().cloned();
    let call =
        Call { located, path, namespace: endpoint.namespace, headers: parts.headers, method: parts.method, client };
    let (note, answered) = match operation {
        Operation::Base => return Ok(base()),
        Operation::Manifest(reference) => (
            call.note(Kind::Manifest, Some(reference.clone())),
            manifests::answer(&surface.pull, &call, reference).await,
        ),
        Operation::Blob(digest) => {
            (call.note(Kind::Blob, Some(Reference::Digest(digest))), blobs::answer(&surface.pull, &call, digest).await)
        }
        Operation::Tags { limit, last } => {
            (call.note(Kind::Tags, None), Box::pin(tags::answer(&surface.pull, &call, limit, last)).await)
        }
        Operation::Referrers { subject, artifact_type } => {
            let note = call.note(Kind::Referrers, Some(Reference::Digest(subject)));
            (note, Box::pin(referrers::answer(&surface.pull, &call, subject, artifact_type)).await)
        }
    };
    Ok(call.finish(note, answered))
}

/// `/v2/`: clients ping it to learn that this is a registry, and whether they have to log in: they have not.
fn base() -> Response {
    body::whole(StatusCode::OK, headers::JSON, Bytes::from_static(b"{}"))
}

/// A response, and how its content was found.
struct Answered {
    response: Response,
    result: CacheResult,
    source: Source,
    upstream: Option<Arc<str>>,
}

impl Call {
    /// Where regions of files are announced, on a connection that can send them.
    fn regions(&self) -> Option<Regions> {
        self.client.as_ref()?.regions.clone()
    }

    fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// What the access log is to say, as far as the request tells.
    fn note(&self, kind: Kind, reference: Option<Reference>) -> PullNote {
        PullNote {
            registry: self.located.registry.clone(),
            repository: self.located.repository.clone(),
            reference,
            kind,
            result: CacheResult::Error,
            source: Source::None,
            upstream: None,
        }
    }

    fn finish(&self, note: PullNote, answered: Result<Answered, ApiError>) -> Response {
        let (mut response, note) = match answered {
            Ok(Answered { response, result, source, upstream }) => {
                (response, PullNote { result, source, upstream, ..note })
            }
            Err(error) => {
                let result = error.result();
                (error.into_response(), PullNote { result, ..note })
            }
        };
        if let Some(namespace) = self.namespace.as_deref().filter(|_| self.located.by_namespace) {
            headers::set(response.headers_mut(), headers::OCI_NAMESPACE, namespace);
        }
        response.extensions_mut().insert(note);
        response
    }
}
