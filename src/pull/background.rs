//! Questions and downloads that nobody waits for yet: the same walk as for clients, with less right. What rate limits leave is
//! kept for clients, and where all connections of an upstream are busy, clients come first.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::answer::ManifestAnswer;
use super::blob::Wanted;
use super::error::{FillError, Prefix, PullError, Subject};
use super::flight::{Entry, Progress};
use super::freshness::{Freshness, freshness};
use super::library::StoredManifest;
use super::outcome::CacheResult;
use super::{OPEN_TIMEOUT, PullService, Scope};
use crate::config::Capability;
use crate::oci::request::{BlobRequest, ManifestRequest, ReferrersRequest};
use crate::oci::{Digest, Reference, Tag};
use crate::store::StoreError;
use crate::upstream::{Conclusion, Purpose, UpstreamSet};

/// How often a blob is asked for: of the downloads of others, one may fail for reasons of its own.
const ENTRIES: u32 = 3;

/// Whether a blob is here for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// It was before.
    Already,
    /// It is now.
    Now,
    /// It came, or would have, and the store has no room for it.
    NoRoom,
}

impl PullService {
    /// What a tag means, for nobody in particular: believed as it would be for a client, and asked for with less right.
    pub(super) async fn resolve_in_background(
        &self,
        scope: &Scope,
        upstreams: &Arc<UpstreamSet>,
        tag: &Tag,
    ) -> Result<ManifestAnswer, PullError> {
        let known = self.shared.tags.known(scope, tag).await;
        if let Some(known) = &known
            && freshness(&self.terms.tags, tag, known.age()) == Freshness::Fresh
            && known.was_said_to(scope)
            && let Some((manifest, source)) = self.shared.library.look_at(known.digest()).await
        {
            let (result, upstream, warning) = (CacheResult::Hit, None, None);
            return Ok(ManifestAnswer { manifest, result, source, upstream, warning });
        }
        if known.is_none() {
            self.check_negative(Subject::Manifest, scope, &Reference::Tag(tag.clone())).await?;
        }
        let (scope, upstreams, tag) = (scope.clone(), Arc::clone(upstreams), tag.clone());
        Box::pin(self.resolve(scope, upstreams, tag, known, Some(Purpose::Background))).await
    }

    /// A manifest by digest, for nobody in particular.
    pub(super) async fn fetch_in_background(
        &self,
        scope: &Scope,
        upstreams: &Arc<UpstreamSet>,
        digest: Digest,
    ) -> Result<Arc<StoredManifest>, PullError> {
        if self.shared.authority.granted(scope, &digest).await.is_some()
            && let Some((manifest, _)) = self.shared.library.look_at(&digest).await
        {
            self.shared.authority.recall(scope, &manifest);
            return Ok(manifest);
        }
        let reference = Reference::Digest(digest);
        self.check_negative(Subject::Manifest, scope, &reference).await?;
        let request = ManifestRequest { repository: scope.repository.clone(), reference };
        Ok(self.fetch(scope, upstreams, request, Purpose::Background).await?.manifest)
    }

    /// What refers to a manifest: an image index, or nothing if nothing does.
    pub(super) async fn referrers_in_background(
        &self,
        scope: &Scope,
        upstreams: &Arc<UpstreamSet>,
        subject: Digest,
    ) -> Result<Option<Bytes>, PullError> {
        let request = ReferrersRequest { repository: scope.repository.clone(), subject, artifact_type: None };
        let deadline = Instant::now() + OPEN_TIMEOUT;
        match upstreams.referrers_for(&request, Purpose::Background, deadline).await {
            Ok(list) => Ok(Some(list.body)),
            Err(attempts) if attempts.conclusion() == Conclusion::NotFound => {
                let tag = Tag::referrers_fallback(&subject);
                Ok(self.resolve_if_there(scope, upstreams, &tag).await?.map(|found| found.manifest.body.clone()))
            }
            Err(attempts) => Err(self.refusal(Subject::Manifest, scope, Capability::Resolve, attempts)),
        }
    }

    /// What a tag means, if there is such a tag.
    pub(super) async fn resolve_if_there(
        &self,
        scope: &Scope,
        upstreams: &Arc<UpstreamSet>,
        tag: &Tag,
    ) -> Result<Option<ManifestAnswer>, PullError> {
        match self.resolve_in_background(scope, upstreams, tag).await {
            Ok(found) => Ok(Some(found)),
            Err(PullError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sees to it that a blob of this size is stored. Where it is, that is no use of it.
    pub(super) async fn store_in_background(
        &self,
        scope: &Scope,
        upstreams: &Arc<UpstreamSet>,
        digest: Digest,
        size: u64,
    ) -> Result<Stored, PullError> {
        let request = BlobRequest { repository: scope.repository.clone(), digest };
        let wanted = Wanted::in_background(scope.clone(), Arc::clone(upstreams), request, size);
        let (mut last, mut stored) = (FillError::Abandoned, Stored::Already);
        for _ in 0..ENTRIES {
            if matches!(self.shared.store.holds(&digest).await, Ok(Some(held)) if held == size) {
                return Ok(stored);
            }
            let (follower, is_own) = match self.shared.flights.enter_for(&digest, scope, Purpose::Background) {
                Entry::Leader(permit, follower) => {
                    self.take_off(&wanted, permit, None);
                    (follower, true)
                }
                Entry::Follower(follower) => (follower, false),
            };
            match follower.landed().await {
                Progress::Failed(FillError::Store { error: StoreError::Full { .. }, .. }) => return Ok(Stored::NoRoom),
                // The store fails whoever fetches.
                Progress::Failed(error @ FillError::Store { .. }) => return Err(PullError::Fill(error)),
                Progress::Failed(error @ FillError::Upstream(_)) if is_own => {
                    last = error;
                    break;
                }
                Progress::Failed(error) => last = error,
                _ => match self.shared.store.holds(&digest).await {
                    Ok(Some(held)) if held == size => stored = Stored::Now,
                    // All of it came and was stored. Where it is not there any more, somebody else needed the room.
                    Ok(_) => return Ok(Stored::NoRoom),
                    Err(error) => {
                        return Err(PullError::Fill(FillError::Store { error, prefix: Prefix::nothing(&digest) }));
                    }
                },
            }
        }
        match last {
            _ if stored == Stored::Now => Ok(stored),
            FillError::Upstream(attempts) => {
                Err(self.failure(Subject::Blob, scope, &Reference::Digest(digest), attempts).await)
            }
            error => Err(PullError::Fill(error)),
        }
    }
}
