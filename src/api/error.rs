//! The one place where failures become statuses, codes and words.
//!
//! The rules behind the table: never 502, which containerd does not retry; 404 only when somebody who knows says so;
//! never an upstream's 401, whose challenge would collect the pull secrets of pods; 503 moves clients to their next
//! host.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::access::Reason;
use super::endpoint::EndpointError;
use super::{body, headers};
use crate::mapping::MappingError;
use crate::oci::selection::TooManyRanges;
use crate::oci::{ErrorCode, ErrorDocument};
use crate::pull::{Attempt, Attempts, CacheResult, PullError, Subject};

/// After how many seconds a client may try again when nothing else is known.
const RETRY_SECONDS: u64 = 5;

/// A failure on its way to the client.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    detail: Option<Value>,
    retry_after: Option<u64>,
    allow: bool,
    /// For ranges outside a blob: its size.
    total: Option<u64>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: None, retry_after: None, allow: false, total: None }
    }

    /// A method that a read-only registry does not offer.
    pub(super) fn method(method: &Method) -> Self {
        let message =
            format!("This is a read-only pull-through cache: {method} is not offered, push to the registry itself");
        Self { allow: true, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, message) }
    }

    /// A request that this very process sent to an upstream.
    pub(super) fn own_request() -> Self {
        let message = "This request comes from this Weir itself: an upstream of its configuration, or a redirect of one, \
                       leads back here; correct its `url`";
        Self::new(StatusCode::LOOP_DETECTED, ErrorCode::Unsupported, message)
    }

    /// What the access log and the metrics call it.
    pub(super) fn result(&self) -> CacheResult {
        if self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS {
            return CacheResult::Error;
        }
        match self.code {
            ErrorCode::BlobUnknown | ErrorCode::ManifestUnknown | ErrorCode::NameUnknown => CacheResult::Negative,
            _ => CacheResult::Denied,
        }
    }
}

impl From<EndpointError> for ApiError {
    fn from(error: EndpointError) -> Self {
        let (status, code) = match &error {
            EndpointError::NotApi | EndpointError::UnknownOperation => (StatusCode::NOT_FOUND, ErrorCode::Unsupported),
            EndpointError::Unsupported(_) => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
            EndpointError::Path(_) => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid),
            EndpointError::Limit => (StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
            EndpointError::Reference(crate::oci::reference::InvalidReference::Tag(_)) => {
                (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid)
            }
            EndpointError::Reference(_) | EndpointError::Digest(_) => {
                (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid)
            }
        };
        let allow = status == StatusCode::METHOD_NOT_ALLOWED;
        Self { allow, ..Self::new(status, code, error.to_string()) }
    }
}

impl From<MappingError> for ApiError {
    fn from(error: MappingError) -> Self {
        let (status, code) = match &error {
            MappingError::UnknownRegistry(_) | MappingError::NoRegistry => {
                (StatusCode::NOT_FOUND, ErrorCode::NameUnknown)
            }
            MappingError::Contradiction { .. } | MappingError::Repository(_) => {
                (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid)
            }
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<TooManyRanges> for ApiError {
    fn from(error: TooManyRanges) -> Self {
        // Clients that ask for several ranges ask for fewer on 400, and on nothing else.
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, error.to_string())
    }
}

impl From<PullError> for ApiError {
    fn from(error: PullError) -> Self {
        let message = error.to_string();
        let unavailable = |message| Self {
            retry_after: Some(RETRY_SECONDS),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
        };
        match error {
            PullError::UnknownRegistry(_) | PullError::NotServed { .. } => {
                Self::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, message)
            }
            PullError::NotFound { attempts, .. } if attempts.is_withheld() => Self {
                detail: detail(&attempts),
                ..Self::new(StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, ErrorCode::Denied, message)
            },
            PullError::NotFound { subject, attempts } => {
                let code = match subject {
                    Subject::Manifest => ErrorCode::ManifestUnknown,
                    Subject::Blob => ErrorCode::BlobUnknown,
                    Subject::Repository => ErrorCode::NameUnknown,
                };
                Self { detail: detail(&attempts), ..Self::new(StatusCode::NOT_FOUND, code, message) }
            }
            PullError::RateLimited { retry_after, attempts } => Self {
                retry_after: Some(whole_seconds(retry_after)),
                detail: detail(&attempts),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, message)
            },
            PullError::Denied { attempts } => {
                Self { detail: detail(&attempts), ..Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message) }
            }
            PullError::Unavailable { attempts } | PullError::Incomplete { attempts } => {
                Self { detail: detail(&attempts), ..unavailable(message) }
            }
            PullError::Deadline(_) => Self {
                retry_after: Some(RETRY_SECONDS),
                ..Self::new(StatusCode::GATEWAY_TIMEOUT, ErrorCode::Unavailable, message)
            },
            PullError::Fill(_) | PullError::Drift { .. } => unavailable(message),
            PullError::Range { total } => Self {
                total: Some(total),
                ..Self::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::Unsupported, message)
            },
            PullError::Overlapping | PullError::RangesNotStored => {
                Self::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message)
            }
        }
    }
}

/// What each upstream said, in the order in which they were asked, for those who look closer than the message.
fn detail(attempts: &Attempts) -> Option<Value> {
    let said = |Attempt { upstream, error, .. }: &Attempt| json!({ "upstream": &**upstream, "outcome": error.outcome().as_str(), "status": error.status });
    (!attempts.0.is_empty()).then(|| attempts.0.iter().map(said).collect())
}

/// At least one second: 0 would invite an immediate retry. A minute where the upstream said nothing.
fn whole_seconds(retry_after: Option<Duration>) -> u64 {
    retry_after.map_or(60, |time| time.as_millis().div_ceil(1000).try_into().unwrap_or(60).max(1))
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let reason = Reason(self.message.clone());
        let document = ErrorDocument::new(self.code, self.message, self.detail);
        let mut response = body::whole(self.status, headers::JSON, Bytes::from(document.to_json()));
        response.extensions_mut().insert(reason);
        let answer_headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            answer_headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.allow {
            answer_headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            // The body of the request was not read, so the connection cannot be used for another one.
            answer_headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(total) = self.total {
            headers::set(answer_headers, header::CONTENT_RANGE, &format!("bytes */{total}"));
        }
        response
    }
}
