//! One candidate after the other, in the configured order, until one succeeds or all have said why not.
//!
//! The order is the operator's; nothing is balanced or raced. Skipping a candidate that is known to be down belongs in
//! `UpstreamSet::candidates`.

use std::future::Future;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::UpstreamSet;
use super::attempts::{Attempt, Attempts, Standing};
use super::client::Candidate;
use super::error::UpstreamError;
use super::outcome::Outcome;
use super::question::Question;
use super::route::Route;

impl UpstreamSet {
    /// Those that may be asked, in order. Who sent a wrong part lately is asked for parts last.
    fn candidates(&self, question: &Question<'_>) -> Vec<Route<'_>> {
        let mut routes = self.routes(question.repository, question.capability);
        routes.retain(|route| !question.avoid.contains(route.name));
        if question.is_part {
            let now = Instant::now();
            routes.sort_by_key(|route| route.upstream.quirks.wrong_parts.holds(now));
        }
        routes
    }

    /// The first success of `attempt` over the candidates.
    pub(super) async fn first<'a, T, F>(
        &'a self,
        question: Question<'_>,
        attempt: impl Fn(Candidate<'a>) -> F + Send + Sync,
    ) -> Result<T, Attempts>
    where
        T: Send,
        F: Future<Output = Result<T, UpstreamError>> + Send,
    {
        let Question { surface, purpose, deadline, .. } = question;
        let candidates = self.candidates(&question);
        let sole = candidates.len() == 1;
        let mut attempts = Attempts::default();
        for (position, route) in candidates.iter().enumerate() {
            let deadline = share(deadline, candidates.len() - position);
            let candidate = Candidate {
                upstream: route.upstream,
                name: route.name,
                repository: route.repository.clone(),
                purpose,
                deadline,
                sole,
                undecided: route.is_undecided(&candidates, &attempts),
            };
            let outcome = within(deadline, attempt(candidate)).await;
            let labels = route.upstream.labels();
            let word = Outcome::word_of(&outcome);
            self.metrics.requests.with_label_values(&[labels[0], labels[1], surface.as_str(), word]).inc();
            if outcome.is_ok() && route.standing == Standing::Equivalent {
                self.metrics.equivalent_answers.with_label_values(&[&*self.registry, labels[0]]).inc();
            }
            let error = match outcome {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            if let Some(next) = candidates.get(position + 1) {
                self.report(&question, route, next, &error);
            }
            attempts.0.push(Attempt { upstream: Arc::clone(route.name), standing: route.standing, error });
        }
        Err(attempts)
    }

    fn report(&self, question: &Question<'_>, passed: &Route<'_>, next: &Route<'_>, error: &UpstreamError) {
        let reason = error.outcome().as_str();
        let labels = passed.upstream.labels();
        self.metrics.failovers.with_label_values(&[labels[0], labels[1], reason]).inc();
        let (registry, upstream, next) = (&self.registry, passed.name, next.name);
        let Question { repository, purpose, surface, .. } = question;
        let kind = surface.as_str();
        // A partial mirror lacks things all day; only trouble is worth a line.
        if error.verdict.is_absence() {
            debug!(%registry, %repository, %upstream, %next, kind, ?purpose, reason, %error, "Passed an upstream over");
        } else {
            warn!(%registry, %repository, %upstream, %next, kind, ?purpose, reason, %error, "Passed an upstream over");
        }
    }
}

/// Until when the first of `waiting` candidates may take: one that hangs leaves the others their part of the time.
fn share(deadline: Instant, waiting: usize) -> Instant {
    let now = Instant::now();
    let waiting = u32::try_from(waiting).unwrap_or(u32::MAX).max(1);
    now + deadline.saturating_duration_since(now) / waiting
}

/// The outcome of `attempt`, unless the time of the whole operation is up. A request is not begun for nothing.
async fn within<T>(
    deadline: Instant,
    attempt: impl Future<Output = Result<T, UpstreamError>>,
) -> Result<T, UpstreamError> {
    let late = || Err(UpstreamError::timeout("Did not answer in the time there was for it"));
    if deadline <= Instant::now() {
        return late();
    }
    timeout_at(deadline, attempt).await.unwrap_or_else(|_| late())
}
