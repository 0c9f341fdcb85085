//! `GET …/tags/list`.

use bytes::Bytes;
use http::{StatusCode, header};
use serde_json::json;
use url::form_urlencoded::Serializer;

use super::error::ApiError;
use super::{Answered, Call, body, headers};
use crate::oci::request::TagsRequest;
use crate::pull::{PullService, Source};

pub(super) async fn answer(
    pull: &PullService,
    call: &Call,
    limit: Option<usize>,
    last: Option<String>,
) -> Result<Answered, ApiError> {
    let request = TagsRequest { repository: call.located.repository.clone(), limit, last };
    let found = pull.tags(&call.located.registry, request).await?;
    let document = json!({ "name": call.located.repository.as_str(), "tags": found.tags });
    let mut response = body::whole(StatusCode::OK, headers::JSON, Bytes::from(document.to_string()));
    if let Some(last) = found.tags.last().filter(|_| found.more) {
        headers::set(response.headers_mut(), header::LINK, &next_page(call, limit, last));
    }
    if let Some(warning) = &found.warning {
        headers::set_warning(response.headers_mut(), warning);
    }
    Ok(Answered { response, result: found.result, source: Source::Memory, upstream: found.upstream })
}

/// The link to the page after `last`, in the client's own spelling: clients follow it verbatim.
fn next_page(call: &Call, limit: Option<usize>, last: &str) -> String {
    let mut query = Serializer::new(String::new());
    if let Some(limit) = limit {
        query.append_pair("n", &limit.to_string());
    }
    query.append_pair("last", last);
    if let Some(namespace) = &call.namespace {
        query.append_pair("ns", namespace);
    }
    format!("<{}?{}>; rel=\"next\"", call.path, query.finish())
}
