//! `GET|HEAD …/blobs/<digest>`.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};

use super::error::ApiError;
use super::multipart::Framing;
use super::{Answered, Call, body, headers, multipart};
use crate::oci::request::BlobRequest;
use crate::oci::selection::TooManyRanges;
use crate::oci::{Digest, Selection};
use crate::pull::{BlobContent, BlobFacts, Detour, PullService};

pub(super) async fn answer(pull: &PullService, call: &Call, digest: Digest) -> Result<Answered, ApiError> {
    let request = BlobRequest { repository: call.located.repository.clone(), digest };
    if call.is_head() {
        let facts = pull.stat_blob(&call.located.registry, request).await?;
        // Of unknown length rather than empty: an empty body would be announced as one of 0 bytes.
        let body = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
        return Ok(answered(head(StatusCode::OK, &digest, facts.size, body), facts));
    }
    // Who wants a part keeps to one server: some clients ask the address of another again when it is no good any more.
    if !call.headers.contains_key(header::RANGE)
        && let Some(detour) = Box::pin(pull.detour(&call.located.registry, &request)).await
    {
        return Ok(answered(redirect(&digest, &detour), detour.facts));
    }
    let selection = selection(call, &digest)?;
    let found = pull.blob(&call.located.registry, request, selection).await?;
    let regions = call.regions();
    let response = match found.content {
        BlobContent::Whole(reader) => head(StatusCode::OK, &digest, found.facts.size, body::streamed(reader, regions)),
        BlobContent::Range(range, reader) => {
            let mut response = partial(&digest, range.length(), body::streamed(reader, regions));
            headers::set(response.headers_mut(), header::CONTENT_RANGE, &range.to_string());
            response
        }
        BlobContent::Ranges(parts) => {
            let framing = Framing::of(&digest);
            let (media_type, length) = (framing.media_type(), framing.length(parts.ranges()));
            let mut response = partial(&digest, length, multipart::streamed(framing, parts, regions));
            headers::set(response.headers_mut(), header::CONTENT_TYPE, &media_type);
            response
        }
    };
    Ok(answered(response, found.facts))
}

/// What of the blob is asked for. A client that has a part of something else gets all of it.
fn selection(call: &Call, digest: &Digest) -> Result<Selection, TooManyRanges> {
    let value = call.headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let same_content =
        call.headers.get(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == headers::entity_tag(digest).as_bytes());
    Selection::parse(value.filter(|_| same_content))
}

fn partial(digest: &Digest, length: u64, body: Body) -> Response {
    head(StatusCode::PARTIAL_CONTENT, digest, Some(length), body)
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

/// Sends the client to where it finds the blob. The address is not for long, so nobody is to remember it.
fn redirect(digest: &Digest, detour: &Detour) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let answer_headers = response.headers_mut();
    headers::set(answer_headers, headers::DOCKER_CONTENT_DIGEST, &digest.to_string());
    headers::set(answer_headers, header::LOCATION, detour.address.as_str());
    answer_headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn answered(response: Response, facts: BlobFacts) -> Answered {
    Answered { response, result: facts.result, source: facts.source, upstream: facts.upstream }
}
