//! `GET|HEAD …/blobs/<digest>`.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};

use super::error::ApiError;
use super::{Answered, Call, body, headers};
use crate::oci::range::RangeHeader;
use crate::oci::request::BlobRequest;
use crate::oci::{Digest, ErrorCode, RequestedRange};
use crate::pull::{BlobFacts, PullService};

pub(super) async fn answer(pull: &PullService, call: &Call, digest: Digest) -> Result<Answered, ApiError> {
    let request = BlobRequest { repository: call.located.repository.clone(), digest };
    if call.is_head() {
        let facts = pull.stat_blob(&call.located.registry, request).await?;
        // Of unknown length rather than empty: an empty body would be announced as one of 0 bytes.
        let body = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
        return Ok(answered(head(StatusCode::OK, &digest, facts.size, body), facts));
    }
    let range = requested_range(pull, call, &request).await?;
    let found = pull.blob(&call.located.registry, request, range).await?;
    let length = found.range.map_or(found.facts.size, |range| Some(range.length()));
    let status = if found.range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = head(status, &digest, length, body::streamed(found.reader, call.regions.clone()));
    if let Some(range) = found.range {
        headers::set(response.headers_mut(), header::CONTENT_RANGE, &range.to_string());
    }
    Ok(answered(response, found.facts))
}

/// The range to serve; `None` for the whole blob.
async fn requested_range(
    pull: &PullService,
    call: &Call,
    request: &BlobRequest,
) -> Result<Option<RequestedRange>, ApiError> {
    let value = call.headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let same_content = call
        .headers
        .get(header::IF_RANGE)
        .is_none_or(|tag| tag.as_bytes() == headers::entity_tag(&request.digest).as_bytes());
    match RangeHeader::parse(value.filter(|_| same_content)) {
        RangeHeader::Whole => Ok(None),
        RangeHeader::Single(range) => Ok(Some(range)),
        RangeHeader::Inverted => {
            let facts = pull.stat_blob(&call.located.registry, request.clone()).await?;
            facts.size.map_or(Ok(None), |total| Err(ApiError::range(total)))
        }
        // Lazy pullers fall back to single ranges on 400, and on nothing else.
        RangeHeader::Multiple => {
            let message = "One range at a time: several ranges in one request are not offered";
            Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message))
        }
    }
}

fn head(status: StatusCode, digest: &Digest, length: Option<u64>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let answer_headers = response.headers_mut();
    headers::set_digest(answer_headers, digest);
    headers::set_immutable(answer_headers);
    headers::set(answer_headers, header::CONTENT_TYPE, headers::OCTET_STREAM);
    answer_headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(length) = length {
        answer_headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

fn answered(response: Response, facts: BlobFacts) -> Answered {
    Answered { response, result: facts.result, source: facts.source, upstream: facts.upstream }
}
