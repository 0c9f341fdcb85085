//! The walk of a manifest: by tag (believe, confirm, or serve stale) and by digest (authority, store, upstream).

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::ManifestAnswer;
use super::authority::CONFIRMED_FOR;
use super::contested::Tagged;
use super::error::{PullError, Subject};
use super::freshness::{Freshness, freshness, may_serve_stale};
use super::library::{StoredManifest, Use};
use super::outcome::{CacheResult, Source};
use super::tags::{KnownTag, Said, Trouble};
use super::{CONFIRM_TIMEOUT, OPEN_TIMEOUT, PullService, Scope};
use crate::config::Capability;
use crate::oci::request::ManifestRequest;
use crate::oci::{Digest, Reference, Tag};
use crate::upstream::{Attempts, Conclusion, FetchedManifest, Purpose, Resolved, UpstreamSet};

impl PullService {
    pub(super) async fn manifest_by_tag(
        &self,
        scope: Scope,
        upstreams: Arc<UpstreamSet>,
        tag: Tag,
    ) -> Result<ManifestAnswer, PullError> {
        let known = self.shared.tags.known(&scope, &tag).await;
        let of = Tagged { scope: &scope, upstreams: &upstreams, tag: &tag };
        if let Break(answer) = self.remembered(of, known.as_ref()).await {
            return answer;
        }
        let key = (scope.clone(), tag.clone());
        let service = self.clone();
        let resolve = || async move {
            // Between the look and this question another one may have ended, and left its answer in memory.
            let known = service.shared.tags.in_memory(&scope, &tag).await.or(known);
            let of = Tagged { scope: &scope, upstreams: &upstreams, tag: &tag };
            match service.remembered(of, known.as_ref()).await {
                Break(answer) => answer,
                Continue(()) => service.resolve(scope, upstreams, tag, known, None).await,
            }
        };
        // Boxed: what every request carries with it should be what a hit needs.
        shared(Box::pin(self.shared.resolutions.run(key, resolve)).await)
    }

    /// Answers out of what is known of a tag, if that will do.
    async fn remembered(
        &self,
        of: Tagged<'_>,
        known: Option<&KnownTag>,
    ) -> ControlFlow<Result<ManifestAnswer, PullError>> {
        let Tagged { scope, upstreams, tag } = of;
        let Some(known) = known else {
            let absent = self.check_negative(Subject::Manifest, scope, &Reference::Tag(tag.clone())).await;
            return absent.map_or_else(|absent| Break(Err(absent)), Continue);
        };
        let is_fresh = match freshness(&self.terms.tags, tag, known.age()) {
            Freshness::Fresh => true,
            Freshness::Stretched => upstreams.is_scarce(&scope.repository),
            Freshness::Expired => false,
        };
        if is_fresh
            && (known.was_said_to(scope) || self.terms.tags.is_immutable(tag))
            && let Some((manifest, source)) = self.shared.library.load(known.digest()).await
            // However long a tag is believed, its image may have become impossible to get since: some of it may have
            // been evicted, and the upstreams may be gone.
            && (known.was_confirmed_within(self.terms.tags.fresh.min(CONFIRMED_FOR))
                || self.can_be_finished(scope, &manifest).await)
        {
            self.shared.authority.recall(scope, &manifest);
            let (result, warning) = (CacheResult::Hit, of.stand_in(known.author()));
            return Break(Ok(ManifestAnswer { manifest, result, source, upstream: None, warning }));
        }
        match known.recent_trouble() {
            Some(Trouble::Unanswered(attempts)) => {
                Break(Box::pin(self.stale(scope, tag, known, Use::Counts, attempts.clone())).await)
            }
            Some(Trouble::Drift(said)) => Box::pin(self.contest(of, known, said)).await.map_or(Continue(()), Break),
            None => Continue(()),
        }
    }

    pub(super) async fn manifest_by_digest(
        &self,
        scope: Scope,
        upstreams: Arc<UpstreamSet>,
        digest: Digest,
    ) -> Result<ManifestAnswer, PullError> {
        let granted = self.shared.authority.granted(&scope, &digest).await.is_some();
        if granted && let Some((manifest, source)) = self.shared.library.load(&digest).await {
            if self.can_be_finished(&scope, &manifest).await {
                self.shared.authority.recall(&scope, &manifest);
                return Ok(ManifestAnswer {
                    manifest,
                    result: CacheResult::Hit,
                    source,
                    upstream: None,
                    warning: None,
                });
            }
        } else {
            self.check_negative(Subject::Manifest, &scope, &Reference::Digest(digest)).await?;
        }
        let key = (scope.clone(), digest);
        let service = self.clone();
        let fetch = || async move { service.confirm_or_fetch(&scope, &upstreams, digest).await };
        shared(Box::pin(self.shared.manifests.run(key, fetch)).await)
    }

    /// Whether a client that is given the manifest can get the rest of the image, as far as is known without asking.
    pub(super) async fn can_be_finished(&self, scope: &Scope, manifest: &StoredManifest) -> bool {
        self.shared.library.was_whole(&manifest.digest).await
            || self.shared.authority.was_confirmed(scope, &manifest.digest).await
            || self.shared.library.is_whole(manifest).await
    }

    /// Asks the upstreams what a tag means. A known tag costs a HEAD, which no registry counts as a pull; an unknown
    /// one is fetched at once. `purpose` is that of a client if nothing else is said: an unknown tag is a miss.
    pub(super) async fn resolve(
        &self,
        scope: Scope,
        upstreams: Arc<UpstreamSet>,
        tag: Tag,
        known: Option<KnownTag>,
        purpose: Option<Purpose>,
    ) -> Result<ManifestAnswer, PullError> {
        let request = ManifestRequest { repository: scope.repository.clone(), reference: Reference::Tag(tag.clone()) };
        // One for both questions: what is stale must still be served in time when the second one fails.
        let deadline = within(OPEN_TIMEOUT);
        let of = Tagged { scope: &scope, upstreams: &upstreams, tag: &tag };
        let Some(known) = known else {
            return match upstreams.manifest(&request, purpose.unwrap_or(Purpose::Miss), deadline).await {
                Ok(fetched) => Ok(self.learn(of, None, &Said::of(&fetched), fetched).await),
                Err(attempts) => Err(self.failure(Subject::Manifest, &scope, &request.reference, attempts).await),
            };
        };
        let (counts, purpose) = (Use::by(purpose), purpose.unwrap_or(Purpose::Revalidation));
        let resolved = match upstreams.resolve(&request, purpose, within(CONFIRM_TIMEOUT)).await {
            Ok(resolved) => resolved,
            Err(attempts) => return self.trouble(of, known, counts, attempts).await,
        };
        let Resolved { upstream, digest, before, warning: heard } = resolved;
        let (said, fetched) = match digest {
            Some(digest) => (Said { digest, upstream, before }, None),
            // Only the bytes can tell.
            None => match upstreams.manifest(&request, purpose, deadline).await {
                Ok(fetched) => (Said::of(&fetched), Some(fetched)),
                Err(attempts) => return self.trouble(of, known, counts, attempts).await,
            },
        };
        if let Some(answer) = Box::pin(self.on_drift(of, &known, &said)).await {
            return answer;
        }
        if fetched.is_none()
            && let Some((manifest, source)) = self.shared.library.load_as(&said.digest, counts).await
        {
            // The upstream named the digest through this repository, which is as good as sending it.
            self.admit(&scope, &manifest).await;
            // Our own words first: they are about this very answer.
            let warning = self.believe(of, Some(&known), &said, &manifest).await.or(heard);
            let (result, upstream) = (CacheResult::Revalidated, Some(said.upstream));
            return Ok(ManifestAnswer { manifest, result, source, upstream, warning });
        }
        let fetched = if let Some(fetched) = fetched {
            Ok(fetched)
        } else {
            // By digest: the tag may move again between the two requests.
            let reference = Reference::Digest(said.digest);
            let request = ManifestRequest { repository: scope.repository.clone(), reference };
            upstreams.manifest(&request, purpose, deadline).await
        };
        match fetched {
            Ok(fetched) => Ok(self.learn(of, Some(&known), &said, fetched).await),
            Err(attempts) => self.trouble(of, known, counts, attempts).await,
        }
    }

    /// A manifest has come for a tag: keep it, let the repository serve it, remember the tag.
    async fn learn(
        &self,
        of: Tagged<'_>,
        known: Option<&KnownTag>,
        said: &Said,
        mut fetched: FetchedManifest,
    ) -> ManifestAnswer {
        let (upstream, heard) = (Arc::clone(&fetched.upstream), fetched.warning.take());
        let manifest = self.shared.library.keep(of.scope.registry.as_str(), fetched).await;
        self.admit(of.scope, &manifest).await;
        let warning = self.believe(of, known, said, &manifest).await.or(heard);
        miss(manifest, upstream, warning)
    }

    async fn admit(&self, scope: &Scope, manifest: &StoredManifest) {
        self.shared.authority.grant_manifest(scope, manifest);
        self.shared.authority.confirm(scope, &manifest.digest).await;
    }

    /// The upstreams failed to confirm a known tag. Those that were spared, because something could be served all the
    /// same, are asked if it cannot.
    async fn trouble(
        &self,
        of: Tagged<'_>,
        known: KnownTag,
        counts: Use,
        attempts: Attempts,
    ) -> Result<ManifestAnswer, PullError> {
        let Tagged { scope, upstreams, tag } = of;
        let spared = attempts.is_any_left_alone();
        let mut last = attempts.clone();
        let mut answer = Box::pin(self.stale(scope, tag, &known, counts, attempts)).await;
        if spared && answer.is_err() {
            let reference = Reference::Tag(tag.clone());
            let request = ManifestRequest { repository: scope.repository.clone(), reference };
            match Box::pin(upstreams.manifest(&request, Purpose::Miss, within(CONFIRM_TIMEOUT))).await {
                Ok(fetched) => {
                    let said = Said::of(&fetched);
                    return match Box::pin(self.on_drift(of, &known, &said)).await {
                        Some(answer) => answer,
                        None => Ok(self.learn(of, Some(&known), &said, fetched).await),
                    };
                }
                Err(attempts) => {
                    last = attempts.clone();
                    answer = Err(self.refusal(Subject::Manifest, scope, Capability::Resolve, attempts));
                }
            }
        }
        let fresh = self.terms.tags.fresh;
        self.shared.tags.trouble(scope, tag, known, Trouble::Unanswered(last), fresh).await;
        answer
    }

    /// Serves a known tag unconfirmed, if policy allows and a client can get all of the image.
    async fn stale(
        &self,
        scope: &Scope,
        tag: &Tag,
        known: &KnownTag,
        counts: Use,
        attempts: Attempts,
    ) -> Result<ManifestAnswer, PullError> {
        let conclusion = attempts.conclusion();
        if !may_serve_stale(&self.terms.tags, known.age(), conclusion) {
            return Err(PullError::of(Subject::Manifest, attempts));
        }
        // What is pinned is answered as it was when all of it was here.
        let is_kept_otherwise = self.shared.pinned.tag(scope, tag).is_some_and(|kept| kept != *known.digest());
        let found = if is_kept_otherwise { None } else { self.shared.library.load_as(known.digest(), counts).await };
        let Some((manifest, source)) = found else { return Err(PullError::of(Subject::Manifest, attempts)) };
        if !self.shared.library.is_whole_as(&manifest, counts).await {
            return Err(match conclusion {
                Conclusion::NotFound | Conclusion::NotFoundOrHidden => PullError::of(Subject::Manifest, attempts),
                _ => PullError::Incomplete { attempts },
            });
        }
        self.shared.authority.recall(scope, &manifest);
        let why = if conclusion == Conclusion::NotFound { "is gone upstream" } else { "cannot be confirmed upstream" };
        let warning = format!(
            "{}/{}:{tag} {why} and is served as of {} ago: {attempts}",
            scope.registry,
            scope.repository,
            in_words(known.age())
        );
        Ok(ManifestAnswer { manifest, result: CacheResult::Stale, source, upstream: None, warning: Some(warning) })
    }

    /// A manifest by digest that is not here, or not this repository's, or whose image is not whole.
    pub(super) async fn confirm_or_fetch(
        &self,
        scope: &Scope,
        upstreams: &UpstreamSet,
        digest: Digest,
    ) -> Result<ManifestAnswer, PullError> {
        let reference = Reference::Digest(digest);
        let request = ManifestRequest { repository: scope.repository.clone(), reference };
        let Some((manifest, source)) = self.shared.library.load(&digest).await else {
            return self.fetch(scope, upstreams, request, Purpose::Miss).await;
        };
        // Between the look and this question another one may have ended.
        if self.shared.authority.was_confirmed(scope, &digest).await {
            let result = CacheResult::Hit;
            return Ok(ManifestAnswer { manifest, result, source, upstream: None, warning: None });
        }
        // The bytes are here: a HEAD tells whether this repository may serve them, and whether the rest can be had.
        match upstreams.resolve(&request, Purpose::Revalidation, within(CONFIRM_TIMEOUT)).await {
            Ok(resolved) if resolved.digest == Some(digest) => {
                self.admit(scope, &manifest).await;
                let (upstream, warning) = (Some(resolved.upstream), resolved.warning);
                Ok(ManifestAnswer { manifest, result: CacheResult::Revalidated, source, upstream, warning })
            }
            // An upstream that does not answer HEAD as it should proves it by sending the bytes.
            Ok(_) => self.fetch(scope, upstreams, request, Purpose::Miss).await,
            Err(attempts) => {
                let spared = attempts.is_any_left_alone();
                match self.without_upstream(scope, manifest, source, attempts).await {
                    // Nothing else can be done: those that were spared are asked after all.
                    Err(_) if spared => Box::pin(self.fetch(scope, upstreams, request, Purpose::Miss)).await,
                    answer => answer,
                }
            }
        }
    }

    pub(super) async fn fetch(
        &self,
        scope: &Scope,
        upstreams: &UpstreamSet,
        request: ManifestRequest,
        purpose: Purpose,
    ) -> Result<ManifestAnswer, PullError> {
        match upstreams.manifest(&request, purpose, within(OPEN_TIMEOUT)).await {
            Ok(mut fetched) => {
                let (upstream, warning) = (Arc::clone(&fetched.upstream), fetched.warning.take());
                let manifest = self.shared.library.keep(scope.registry.as_str(), fetched).await;
                self.admit(scope, &manifest).await;
                Ok(miss(manifest, upstream, warning))
            }
            Err(attempts) => Err(self.failure(Subject::Manifest, scope, &request.reference, attempts).await),
        }
    }

    /// A manifest that is here, and no upstream that confirms it.
    async fn without_upstream(
        &self,
        scope: &Scope,
        manifest: Arc<StoredManifest>,
        source: Source,
        attempts: Attempts,
    ) -> Result<ManifestAnswer, PullError> {
        let reference = Reference::Digest(manifest.digest);
        if matches!(attempts.conclusion(), Conclusion::NotFound | Conclusion::NotFoundOrHidden) {
            return Err(self.failure(Subject::Manifest, scope, &reference, attempts).await);
        }
        self.shared.authority.search(scope, &self.shared.library).await;
        if self.shared.authority.granted(scope, &manifest.digest).await.is_none() {
            return Err(PullError::of(Subject::Manifest, attempts));
        }
        if !self.shared.library.is_whole(&manifest).await {
            return Err(PullError::Incomplete { attempts });
        }
        self.shared.authority.recall(scope, &manifest);
        Ok(ManifestAnswer { manifest, result: CacheResult::Hit, source, upstream: None, warning: None })
    }
}

fn within(time: Duration) -> Instant {
    Instant::now() + time
}

fn miss(manifest: Arc<StoredManifest>, upstream: Arc<str>, warning: Option<String>) -> ManifestAnswer {
    ManifestAnswer { manifest, result: CacheResult::Miss, source: Source::Upstream, upstream: Some(upstream), warning }
}

/// The answer of a shared question; those who joined it say so.
fn shared(
    answer: Option<super::coalesce::Shared<Result<ManifestAnswer, PullError>>>,
) -> Result<ManifestAnswer, PullError> {
    let shared = answer.ok_or_else(PullError::abandoned)?;
    let mut answer = shared.answer?;
    if shared.joined && answer.result == CacheResult::Miss {
        answer.result = CacheResult::Coalesced;
    }
    Ok(answer)
}

/// A duration as people say it, in its largest unit.
pub(super) fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_in_their_largest_unit() {
        for (seconds, words) in
            [(0, "0 seconds"), (1, "1 second"), (119, "1 minute"), (7200, "2 hours"), (604_800, "7 days")]
        {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
