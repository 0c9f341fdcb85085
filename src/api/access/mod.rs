//! What is said about every request: the access line, the metrics, and the headers that all answers share.
//!
//! Handlers describe what they did in a [`PullNote`]; everything here follows from the note, so that log, metrics and
//! `Cache-Status` cannot disagree. Nothing a client writes becomes a metric label, and neither queries nor credentials
//! reach the log.

mod cache_status;
mod meter;
mod note;
mod record;
mod series;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Body as _;

use crate::telemetry::Metrics;

pub use note::{Client, Kind, PullNote, Reason};

use cache_status::cache_status;
use meter::MeteredBody;
use record::Record;
use series::Series;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// The longest request id that is taken from a client.
const REQUEST_ID_LIMIT: usize = 64;

/// Describes requests and their answers. Clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Access(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    series: Series,
    ids: Ids,
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Description {
    id: HeaderValue,
    record: Record,
}

impl Access {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self(Arc::new(Shared { series: Series::new(metrics.clone()), ids: Ids::default() }))
    }

    /// The head of a request has been read.
    pub(super) fn begin(&self, request: &Parts) -> Description {
        let id = self.0.ids.of(&request.headers);
        Description { id: id.clone(), record: Record::begin(id, request, Arc::clone(&self.0)) }
    }
}

impl Description {
    /// The head of the answer is ready. It is given the headers that all answers share, and its body is measured; there
    /// is none if `head_only` was asked for.
    pub(super) fn answered(self, mut answer: Response, head_only: bool) -> Response {
        let Self { id, mut record } = self;
        let note = answer.extensions_mut().remove::<PullNote>();
        let reason = answer.extensions_mut().remove::<Reason>();
        let headers = answer.headers_mut();
        headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        headers.insert(REQUEST_ID, id);
        if let Some(status) = note.as_ref().and_then(cache_status) {
            headers.insert(CACHE_STATUS, status);
        }
        let length = if head_only { Some(0) } else { body_length(&answer) };
        record.answered(&answer, note, reason);
        answer.map(|body| Body::new(MeteredBody::new(body, length, record)))
    }
}

/// Surrounds the whole of `router`, for tests of what surrounds it in turn.
#[cfg(test)]
pub(crate) fn layer(router: axum::Router, metrics: &Metrics) -> axum::Router {
    use axum::extract::Request;
    use axum::middleware::{Next, from_fn};

    let access = Access::new(metrics);
    router.layer(from_fn(move |request: Request, next: Next| {
        let access = access.clone();
        async move {
            let (parts, body) = request.into_parts();
            let (description, head_only) = (access.begin(&parts), parts.method == http::Method::HEAD);
            description.answered(next.run(Request::from_parts(parts, body)).await, head_only)
        }
    }))
}

/// How many bytes of body the client is to receive, if the answer says so.
fn body_length(answer: &Response) -> Option<u64> {
    match answer.status() {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Some(0),
        _ => {
            let declared = answer.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
            declared.and_then(|length| length.parse().ok()).or_else(|| answer.body().size_hint().exact())
        }
    }
}

/// Makes request ids: unpredictable from outside, unique within the process.
#[derive(Debug, Default)]
struct Ids {
    key: RandomState,
    count: AtomicU64,
}

impl Ids {
    /// The client's own id, if it has a sane one, so that its logs and ours meet; else a new one.
    fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let is_sane = |id: &&HeaderValue| {
            (1..=REQUEST_ID_LIMIT).contains(&id.len())
                && id.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        };
        headers.get(REQUEST_ID).filter(is_sane).cloned().unwrap_or_else(|| self.next())
    }

    fn next(&self) -> HeaderValue {
        let id = self.key.hash_one(self.count.fetch_add(1, Ordering::Relaxed));
        // Digits can stand in a header.
        HeaderValue::try_from(hex::encode(id.to_be_bytes())).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

#[cfg(test)]
mod tests;
