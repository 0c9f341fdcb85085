//! When a pull is answered out of a pin: when it could not be answered otherwise.

use crate::oci::{Digest, Tag};
use crate::pull::error::PullError;
use crate::pull::{CacheResult, ManifestAnswer, PullService, ReferrersAnswer, Scope};

impl PullService {
    /// What a pinned tag is answered with in place of `error`, if it is pinned and that is no policy of the operator's.
    pub(in crate::pull) async fn as_pinned(
        &self,
        scope: &Scope,
        tag: &Tag,
        error: PullError,
    ) -> Result<ManifestAnswer, PullError> {
        let kept = if is_of_upstreams(&error) { self.shared.pinned.tag(scope, tag) } else { None };
        let Some(digest) = kept else { return Err(error) };
        let Some((manifest, source)) = self.shared.library.load(&digest).await else { return Err(error) };
        self.shared.authority.recall(scope, &manifest);
        let Scope { registry, repository, .. } = scope;
        let warning = format!("{registry}/{repository}:{tag} is pinned and served as it was kept: {error}");
        Ok(ManifestAnswer { manifest, result: CacheResult::Stale, source, upstream: None, warning: Some(warning) })
    }

    /// What a pinned manifest was referred to by, in place of what was `found`: nothing at all, or a failure.
    pub(in crate::pull) async fn referrers_as_pinned(
        &self,
        scope: &Scope,
        subject: &Digest,
        found: &Result<ReferrersAnswer, PullError>,
    ) -> Option<ReferrersAnswer> {
        let why = match found {
            Ok(_) => "no upstream has it any more".to_owned(),
            Err(error) if is_of_upstreams(error) => error.to_string(),
            Err(_) => return None,
        };
        let (list, _) = self.shared.library.load(&self.shared.pinned.referrers(scope, subject)?).await?;
        let warning = Some(format!("What refers to {subject} is served as it was kept with a pinned image: {why}"));
        let (body, result) = (list.body.clone(), CacheResult::Stale);
        Some(ReferrersAnswer { body, filtered: false, result, upstream: None, warning })
    }
}

/// Whether it fails because of what upstreams say, or because they say nothing.
fn is_of_upstreams(error: &PullError) -> bool {
    match error {
        PullError::NotFound { .. }
        | PullError::RateLimited { .. }
        | PullError::Denied { .. }
        | PullError::Unavailable { .. }
        | PullError::Incomplete { .. }
        | PullError::NotServed { .. }
        | PullError::Deadline(_)
        | PullError::Fill(_) => true,
        // Drift is refused where the operator wants it to be.
        PullError::UnknownRegistry(_)
        | PullError::Drift { .. }
        | PullError::Range { .. }
        | PullError::Overlapping
        | PullError::RangesNotStored => false,
    }
}
