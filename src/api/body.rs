//! Bodies of answers.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderValue, StatusCode, header};

use super::headers;
use crate::pull::{BlobReader, ReadError};
use crate::sendfile::Regions;

/// An answer whose body is at hand. `Content-Length` is always said: on HEAD nothing else tells it.
pub(super) fn whole(status: StatusCode, media_type: &str, body: Bytes) -> Response {
    let length = body.len();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers::set(response.headers_mut(), header::CONTENT_TYPE, media_type);
    response
}

/// A body that is read as the client takes it. A reader that fails makes the body fail, and the server then breaks the
/// connection: with a length announced or without, the client sees that something is missing.
pub(super) fn streamed(reader: BlobReader, regions: Option<Regions>) -> Body {
    Body::from_stream(blocks(reader, regions))
}

/// What a reader gives, up to its end or its failure: block by block; or only told where it is, on a connection that
/// sends `regions`.
pub(super) fn blocks(reader: BlobReader, regions: Option<Regions>) -> impl Stream<Item = Result<Bytes, ReadError>> {
    stream::try_unfold((reader, regions), |(mut reader, regions)| async move {
        let bytes = reader.next(regions.as_ref()).await;
        let bytes = bytes.inspect_err(|error| tracing::debug!(%error, "An answer is broken off"))?;
        Ok(bytes.map(|bytes| (bytes, (reader, regions))))
    })
}
