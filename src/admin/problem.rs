//! Errors of the operators' API: `application/problem+json`, RFC 9457.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

/// Why an operator's request is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// No token was shown, or another one.
    #[error("Show the token in `admin.token_file`, as `Authorization: Bearer TOKEN`")]
    Unauthorized,
    /// Nobody may change anything.
    #[error("Nothing can be changed here until `admin.token_file` names a file with a token")]
    ReadOnly,
    /// There is no such path.
    #[error(
        "There is no {0} here; there are /api/v1/upstreams, /api/v1/images, /api/v1/pins, /api/v1/prefetch, /api/v1/verify and /api/v1/gc"
    )]
    NoSuchPath(String),
    /// There is no such upstream.
    #[error("{registry} has no upstream `{upstream}`; they are listed at /api/v1/upstreams")]
    NoSuchUpstream {
        /// The registry.
        registry: String,
        /// The upstream.
        upstream: String,
    },
    /// There is no such pin.
    #[error("There is no pin `{0}`; they are listed at /api/v1/pins")]
    NoSuchPin(String),
    /// The store does not do it.
    #[error("{0}")]
    Store(String),
    /// The request says nothing useful.
    #[error("{0}")]
    Malformed(String),
}

impl Problem {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::ReadOnly => StatusCode::FORBIDDEN,
            Self::NoSuchPath(_) | Self::NoSuchUpstream { .. } | Self::NoSuchPin(_) => StatusCode::NOT_FOUND,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = json!({
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": self.to_string(),
        });
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
