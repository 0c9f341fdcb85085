//! The rest of a pull: lists of tags and of referrers. They are documents of an upstream without an address of their
//! own, so they are treated like tags: believed for a while, and served stale while no upstream can be asked.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::answer::{ReferrersAnswer, TagsAnswer};
use super::error::{PullError, Subject};
use super::listing::{Found, Listing};
use super::outcome::CacheResult;
use super::{OPEN_TIMEOUT, PullService, Scope, in_time};
use crate::config::Capability;
use crate::oci::request::{ReferrersRequest, TagsRequest};
use crate::oci::{Digest, RegistryHost, Tag, media_type};
use crate::upstream::{Conclusion, Referrers, TagList, UpstreamSet};

/// The lists that are remembered.
#[derive(Debug)]
pub(super) struct Documents {
    tags: Listing<(), TagList>,
    /// By subject and the artifact type that was asked for.
    referrers: Listing<(Digest, Option<String>), Referrers>,
}

impl Documents {
    pub(super) fn new(tasks: &TaskTracker) -> Self {
        let weigh_tags = |list: &TagList| list.tags.iter().map(|tag| tag.len() + size_of::<String>()).sum();
        Self {
            tags: Listing::new(tasks.clone(), weigh_tags),
            referrers: Listing::new(tasks.clone(), |list: &Referrers| list.body.len()),
        }
    }
}

impl PullService {
    /// One page of the tags of a repository.
    pub async fn tags(&self, registry: &RegistryHost, request: TagsRequest) -> Result<TagsAnswer, PullError> {
        if request.limit == Some(0) {
            return Ok(TagsAnswer {
                tags: Vec::new(),
                more: false,
                result: CacheResult::Hit,
                upstream: None,
                warning: None,
            });
        }
        let upstreams = self.upstreams(registry)?;
        let repository = request.repository.clone();
        let scope = Scope::new(registry, &repository, &upstreams);
        let ask = || async move { upstreams.tags(&repository, Instant::now() + OPEN_TIMEOUT).await };
        let documents = &self.shared.documents;
        let found = in_time(async {
            let found = documents.tags.find(&self.terms.tags, (scope.clone(), ()), ask).await;
            found.map_err(|attempts| self.refusal(Subject::Repository, &scope, Capability::Resolve, attempts))
        });
        let Found { list, result, warning } = found.await?;
        let (tags, more) = page(&list.tags, &request);
        Ok(TagsAnswer { tags, more, result, upstream: Some(list.upstream), warning })
    }

    /// What refers to a manifest. Where the upstream has no referrers API, the fallback tag is looked up for the
    /// client.
    pub async fn referrers(
        &self,
        registry: &RegistryHost,
        request: ReferrersRequest,
    ) -> Result<ReferrersAnswer, PullError> {
        let upstreams = self.upstreams(registry)?;
        let scope = Scope::new(registry, &request.repository, &upstreams);
        in_time(async {
            let (subject, artifact_type) = (request.subject, request.artifact_type.clone());
            let found = self.find_referrers(scope.clone(), upstreams, request).await;
            // An upstream that has nothing left of the image cannot say what referred to it.
            if found.as_ref().is_ok_and(|found| found.result != CacheResult::Negative) {
                return found;
            }
            let Some(mut kept) = Box::pin(self.referrers_as_pinned(&scope, &subject, &found)).await else {
                return found;
            };
            (kept.body, kept.filtered) = filter(kept.body, artifact_type.as_deref(), false);
            Ok(kept)
        })
        .await
    }

    async fn find_referrers(
        &self,
        scope: Scope,
        upstreams: Arc<UpstreamSet>,
        request: ReferrersRequest,
    ) -> Result<ReferrersAnswer, PullError> {
        let artifact_type = request.artifact_type.clone();
        let key = (scope.clone(), (request.subject, artifact_type.clone()));
        let (asked, set) = (request.clone(), Arc::clone(&upstreams));
        let ask = || async move { set.referrers(&asked, Instant::now() + OPEN_TIMEOUT).await };
        match self.shared.documents.referrers.find(&self.terms.tags, key, ask).await {
            Ok(Found { list, result, warning }) => {
                let (body, filtered) = filter(list.body, artifact_type.as_deref(), list.filtered);
                Ok(ReferrersAnswer { body, filtered, result, upstream: Some(list.upstream), warning })
            }
            Err(attempts) if attempts.conclusion() == Conclusion::NotFound => {
                self.fallback_referrers(scope, upstreams, &request.subject, artifact_type.as_deref()).await
            }
            Err(attempts) => Err(self.refusal(Subject::Manifest, &scope, Capability::Resolve, attempts)),
        }
    }

    /// The referrers by the tag that stands in for the API (distribution-spec "Referrers Tag Schema").
    async fn fallback_referrers(
        &self,
        scope: Scope,
        upstreams: Arc<UpstreamSet>,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<ReferrersAnswer, PullError> {
        match self.manifest_by_tag(scope, upstreams, Tag::referrers_fallback(subject)).await {
            Ok(found) => {
                let (body, filtered) = filter(found.manifest.body.clone(), artifact_type, false);
                let (result, upstream) = (found.result, found.upstream);
                Ok(ReferrersAnswer { body, filtered, result, upstream, warning: found.warning })
            }
            // Neither the API nor the tag, for certain: nothing refers to it. Anything less certain stays an error, as
            // "unsigned" and "cannot tell" must not look alike.
            Err(PullError::NotFound { attempts, .. }) if attempts.conclusion() == Conclusion::NotFound => {
                let (body, filtered) = filter(empty_index(), artifact_type, false);
                Ok(ReferrersAnswer { body, filtered, result: CacheResult::Negative, upstream: None, warning: None })
            }
            Err(error) => Err(error),
        }
    }
}

/// The page that was asked for, out of all tags.
fn page(all: &[String], request: &TagsRequest) -> (Vec<String>, bool) {
    let mut tags: Vec<String> =
        all.iter().filter(|tag| request.last.as_ref().is_none_or(|last| *tag > last)).cloned().collect();
    tags.sort_unstable();
    tags.dedup();
    let limit = request.limit.unwrap_or(usize::MAX);
    let more = tags.len() > limit;
    tags.truncate(limit);
    (tags, more)
}

/// An index of referrers cut down to one artifact type, unless the upstream has done so. What cannot be read passes as
/// it is: the client asked for a filter, and is told that none was applied.
fn filter(body: Bytes, artifact_type: Option<&str>, filtered: bool) -> (Bytes, bool) {
    let Some(artifact_type) = artifact_type.filter(|_| !filtered) else { return (body, filtered) };
    let Ok(mut index) = serde_json::from_slice::<serde_json::Value>(&body) else { return (body, false) };
    let Some(manifests) = index.get_mut("manifests").and_then(serde_json::Value::as_array_mut) else {
        return (body, false);
    };
    manifests
        .retain(|manifest| manifest.get("artifactType").and_then(serde_json::Value::as_str) == Some(artifact_type));
    (Bytes::from(index.to_string()), true)
}

fn empty_index() -> Bytes {
    Bytes::from(
        serde_json::json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] }).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(limit: Option<usize>, last: Option<&str>) -> TagsRequest {
        TagsRequest { repository: "a/b".parse().unwrap(), limit, last: last.map(str::to_owned) }
    }

    #[test]
    fn pages_are_cut_and_ordered_whatever_the_upstream_did() {
        let all = ["c", "a", "b", "a"].map(str::to_owned);
        let list = |limit, last| page(&all, &tags(limit, last));
        assert_eq!(list(None, None), (vec!["a".into(), "b".into(), "c".into()], false));
        assert_eq!(list(Some(2), None), (vec!["a".into(), "b".into()], true));
        assert_eq!(list(Some(2), Some("b")), (vec!["c".into()], false));
        assert_eq!(list(None, Some("c")), (vec![], false));
    }

    #[test]
    fn referrers_are_filtered_once() {
        let index = Bytes::from_static(br#"{"manifests":[{"artifactType":"sbom"},{"artifactType":"sig"},{}]}"#);
        assert_eq!(filter(index.clone(), None, false), (index.clone(), false));
        assert_eq!(filter(index.clone(), Some("sig"), true), (index.clone(), true));
        let (body, filtered) = filter(index, Some("sig"), false);
        assert!(filtered);
        assert_eq!(&body[..], br#"{"manifests":[{"artifactType":"sig"}]}"#);
    }
}
