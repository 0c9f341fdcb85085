//! Tags that mean different things to different upstreams: which of them is believed, and what the client is told.
//!
//! The rules are in `drift`; here they meet what is known, what is stored and what the configuration wants.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::answer::ManifestAnswer;
use super::drift::{Course, Judgement, course, is_provisional, judge};
use super::error::PullError;
use super::freshness::may_serve_stale;
use super::library::StoredManifest;
use super::manifest::in_words;
use super::outcome::CacheResult;
use super::tags::{Author, KnownTag, Said, Trouble};
use super::{PullService, Scope};
use crate::oci::Tag;
use crate::upstream::{Before, Conclusion, UpstreamSet};

/// How long it may take to find out that what is known of a tag can still be had. What is said instead has to come in
/// time as well.
const KEEP_TIMEOUT: Duration = Duration::from_secs(5);

/// A tag of a repository, and those who may say what it means.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tagged<'a> {
    pub(super) scope: &'a Scope,
    pub(super) upstreams: &'a UpstreamSet,
    pub(super) tag: &'a Tag,
}

impl Tagged<'_> {
    /// What to tell whoever is answered by the word of `author`, if that is not the one who decides.
    pub(super) fn stand_in(&self, author: Author<'_>) -> Option<String> {
        let Author { upstream, provisional } = author;
        if provisional {
            return Some(format!("{} is as {upstream} says, while upstreams that decide cannot be asked", self.name()));
        }
        self.upstreams
            .is_equivalent(upstream)
            .then(|| format!("{} is answered by an equivalent repository: {upstream}", self.name()))
    }

    fn name(&self) -> String {
        format!("{}/{}:{}", self.scope.registry, self.scope.repository, self.tag)
    }
}

impl PullService {
    /// Remembers that `of` means `manifest`, as `said`. Returns what to tell the client.
    pub(super) async fn believe(
        &self,
        of: Tagged<'_>,
        known: Option<&KnownTag>,
        said: &Said,
        manifest: &StoredManifest,
    ) -> Option<String> {
        let order = of.upstreams.resolvers(&of.scope.repository);
        let (before, word) = (known.map(|known| known.word(&order)), said.word(&order));
        let author = match known {
            Some(known) if before.is_some_and(|before| judge(before, word) == Judgement::Seconded) => known.author(),
            _ => Author { upstream: &said.upstream, provisional: is_provisional(before, word) },
        };
        match known.filter(|known| *known.digest() == said.digest) {
            Some(known) => self.shared.tags.confirm(of.scope, of.tag, known.clone(), author).await,
            None => self.shared.tags.learn(of.scope, of.tag, manifest, author).await,
        }
        of.stand_in(author)
    }

    /// The answer, if what is `said` is neither what is known nor for that upstream to say, and not to be believed all
    /// the same.
    pub(super) async fn on_drift(
        &self,
        of: Tagged<'_>,
        known: &KnownTag,
        said: &Said,
    ) -> Option<Result<ManifestAnswer, PullError>> {
        let order = of.upstreams.resolvers(&of.scope.repository);
        if judge(known.word(&order), said.word(&order)) != Judgement::Drift {
            return None;
        }
        let answer = self.contest(of, known, said).await;
        let outcome = match &answer {
            Some(Ok(_)) => "kept",
            Some(Err(_)) => "refused",
            None => "accepted",
        };
        self.shared.metrics.pull.tag_drift.with_label_values(&[of.scope.registry.as_str(), outcome]).inc();
        let (known_digest, upstream) = (known.digest(), &said.upstream);
        tracing::warn!(
            tag = of.name(), %upstream, digest = %said.digest, %known_digest, outcome,
            "A tag means something else to an upstream that does not decide"
        );
        if answer.is_some() {
            let (trouble, fresh) = (Trouble::Drift(said.clone()), self.terms.tags.fresh);
            self.shared.tags.trouble(of.scope, of.tag, known.clone(), trouble, fresh).await;
        }
        answer
    }

    /// The answer to a tag that drifts; `None` if what is said is to be believed.
    pub(super) async fn contest(
        &self,
        of: Tagged<'_>,
        known: &KnownTag,
        said: &Said,
    ) -> Option<Result<ManifestAnswer, PullError>> {
        let order = of.upstreams.resolvers(&of.scope.repository);
        match course(self.terms.tags.on_drift, known.word(&order)) {
            Course::Keep => self.as_known(of, known, said).await.map(Ok),
            Course::Accept => None,
            Course::Refuse => {
                let (upstream, digest) = (Arc::clone(&said.upstream), said.digest);
                Some(Err(PullError::Drift { upstream, digest }))
            }
        }
    }

    /// The tag as it is known, if policy allows and a client can get all of the image.
    async fn as_known(&self, of: Tagged<'_>, known: &KnownTag, said: &Said) -> Option<ManifestAnswer> {
        let (conclusion, why) = match said.before {
            Before::Absent => (Conclusion::NotFound, "no longer have it"),
            Before::Hidden => (Conclusion::NotFoundOrHidden, "do not show it"),
            Before::Undecided => (Conclusion::Unavailable, "cannot be asked"),
        };
        if !may_serve_stale(&self.terms.tags, known.age(), conclusion) {
            return None;
        }
        let Tagged { scope, upstreams, .. } = of;
        let mut answer = match self.shared.library.load(known.digest()).await {
            Some((manifest, source)) if self.can_be_finished(scope, &manifest).await => {
                self.shared.authority.recall(scope, &manifest);
                ManifestAnswer { manifest, result: CacheResult::Stale, source, upstream: None, warning: None }
            }
            _ => {
                let confirmed = timeout(KEEP_TIMEOUT, self.confirm_or_fetch(scope, upstreams, *known.digest()));
                confirmed.await.ok()?.ok()?
            }
        };
        answer.warning = Some(format!(
            "{} is served as of {} ago: the upstreams that decide {why}, and {} says {}",
            of.name(),
            in_words(known.age()),
            said.upstream,
            said.digest
        ));
        Some(answer)
    }
}
