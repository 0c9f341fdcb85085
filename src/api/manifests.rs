//! `GET|HEAD …/manifests/<reference>`.

use axum::body::Body;
use http::StatusCode;

use super::error::ApiError;
use super::{Answered, Call, body, headers};
use crate::oci::Reference;
use crate::oci::request::ManifestRequest;
use crate::pull::PullService;

pub(super) async fn answer(pull: &PullService, call: &Call, reference: Reference) -> Result<Answered, ApiError> {
    let by_digest = matches!(reference, Reference::Digest(_));
    let request = ManifestRequest { repository: call.located.repository.clone(), reference };
    let found = pull.manifest(&call.located.registry, request).await?;
    let manifest = &found.manifest;
    // The whole answer is built for HEAD as well, so that its head cannot differ; `Range` is ignored, as manifests are
    // read whole by everybody.
    let mut response = body::whole(StatusCode::OK, manifest.media_type().as_str(), manifest.body.clone());
    if headers::is_not_modified(&call.headers, &manifest.digest) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(http::header::CONTENT_LENGTH);
        *response.body_mut() = Body::empty();
    } else if call.is_head() {
        *response.body_mut() = Body::empty();
    }
    headers::set_digest(response.headers_mut(), &manifest.digest);
    if by_digest {
        headers::set_immutable(response.headers_mut());
    }
    if let Some(warning) = &found.warning {
        headers::set_warning(response.headers_mut(), warning);
    }
    Ok(Answered { response, result: found.result, source: found.source, upstream: found.upstream })
}
