//! `GET …/referrers/<digest>`.

use http::StatusCode;

use super::error::ApiError;
use super::{Answered, Call, body, headers};
use crate::oci::Digest;
use crate::oci::media_type::OCI_INDEX;
use crate::oci::request::ReferrersRequest;
use crate::pull::{PullService, Source};

pub(super) async fn answer(
    pull: &PullService,
    call: &Call,
    subject: Digest,
    artifact_type: Option<String>,
) -> Result<Answered, ApiError> {
    let request = ReferrersRequest { repository: call.located.repository.clone(), subject, artifact_type };
    let found = pull.referrers(&call.located.registry, request).await?;
    let mut response = body::whole(StatusCode::OK, OCI_INDEX, found.body);
    if found.filtered {
        headers::set(response.headers_mut(), headers::OCI_FILTERS_APPLIED, "artifactType");
    }
    if let Some(warning) = &found.warning {
        headers::set_warning(response.headers_mut(), warning);
    }
    Ok(Answered { response, result: found.result, source: Source::Memory, upstream: found.upstream })
}
