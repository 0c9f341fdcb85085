//! What can be said about a blob without its bytes: whether a repository may serve it, and how large it is.
//!
//! Nothing here starts a fetch: clients ask for the size of blobs that they never read.

use std::sync::Arc;

use tokio::time::Instant;

use super::answer::BlobFacts;
use super::error::{PullError, Subject};
use super::flight::Opened;
use super::grants::Grant;
use super::outcome::{CacheResult, Source};
use super::{CONFIRM_TIMEOUT, PullService, Scope};
use crate::oci::request::BlobRequest;
use crate::oci::{Reference, RegistryHost};
use crate::upstream::{BlobStat, UpstreamSet};

/// A repository may serve a blob: by a link, or because an upstream has just said so.
pub(super) struct Permission {
    pub(super) grant: Grant,
    pub(super) confirmed: Option<BlobStat>,
}

impl PullService {
    pub(super) async fn blob_facts(
        &self,
        registry: &RegistryHost,
        upstreams: Arc<UpstreamSet>,
        request: BlobRequest,
    ) -> Result<BlobFacts, PullError> {
        let scope = Scope::new(registry, &request.repository, &upstreams);
        let permission = self.authorise(&scope, &upstreams, &request).await?;
        let expected = permission.grant.size;
        let stored = self.shared.store.stat(&request.digest).await;
        if let Some(size) = stored.filter(|size| expected.is_none_or(|expected| *size == expected)) {
            return Ok(BlobFacts { size: Some(size), result: CacheResult::Hit, source: Source::Disk, upstream: None });
        }
        if let Some(mut flight) = self.shared.flights.get(&request.digest)
            && let Ok(Opened { size: Some(size), upstream, .. }) = flight.opened().await
        {
            return Ok(BlobFacts { size: Some(size), result: CacheResult::Coalesced, source: Source::None, upstream });
        }
        let stat = match permission.confirmed {
            Some(stat) => stat,
            None => self.confirm_blob(&scope, &upstreams, &request).await?,
        };
        // A descriptor is part of a manifest that was verified; the upstream's word is not.
        let size = expected.or(stat.size);
        Ok(BlobFacts { size, result: CacheResult::Miss, source: Source::None, upstream: Some(stat.upstream) })
    }

    /// May this repository serve this blob? A link says so, or an upstream does through this repository.
    pub(super) async fn authorise(
        &self,
        scope: &Scope,
        upstreams: &Arc<UpstreamSet>,
        request: &BlobRequest,
    ) -> Result<Permission, PullError> {
        if let Some(grant) = self.shared.authority.granted(scope, &request.digest).await {
            return Ok(Permission { grant, confirmed: None });
        }
        match Box::pin(self.confirm_blob(scope, upstreams, request)).await {
            Ok(stat) => Ok(Permission { grant: Grant { size: None }, confirmed: Some(stat) }),
            Err(error @ (PullError::Unavailable { .. } | PullError::RateLimited { .. })) => {
                Box::pin(self.shared.authority.search(scope, &self.shared.library)).await;
                let grant = self.shared.authority.granted(scope, &request.digest).await.ok_or(error)?;
                Ok(Permission { grant, confirmed: None })
            }
            Err(error) => Err(error),
        }
    }

    /// Asks the upstreams, with this repository's credentials, whether it has the blob.
    async fn confirm_blob(
        &self,
        scope: &Scope,
        upstreams: &Arc<UpstreamSet>,
        request: &BlobRequest,
    ) -> Result<BlobStat, PullError> {
        let reference = Reference::Digest(request.digest);
        self.check_negative(Subject::Blob, scope, &reference).await?;
        let (service, key) = (self.clone(), (scope.clone(), request.digest));
        let (scope, upstreams, request) = (scope.clone(), Arc::clone(upstreams), request.clone());
        let ask = || async move {
            match upstreams.stat_blob(&request, Instant::now() + CONFIRM_TIMEOUT).await {
                Ok(stat) => {
                    service.shared.authority.grant_digest(&scope, request.digest);
                    Ok(stat)
                }
                Err(attempts) => Err(service.failure(Subject::Blob, &scope, &reference, attempts).await),
            }
        };
        let shared = self.shared.confirmations.run(key, ask).await;
        shared.ok_or_else(PullError::abandoned)?.answer
    }
}
