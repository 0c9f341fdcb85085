//! One candidate after the other, in the configured order, until one succeeds or all have said why not.
//!
//! The order is the operator's; nothing is balanced or raced. Those that are known to be down are passed over. Where
//! nothing can be answered otherwise, and nobody else could help, they are asked all the same: that something seems to
//! be down never makes a failure out of what might have succeeded.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::UpstreamSet;
use super::attempts::{Attempt, Attempts, Before, Conclusion, Standing};
use super::client::{Candidate, HURRIED, Pace};
use super::error::{Fault, UpstreamError, Verdict};
use super::health::{Asking, Evidence, Part, Pending, TimeGiven};
use super::limit::Place;
use super::outcome::Outcome;
use super::question::{Purpose, Question, Surface};
use super::route::Route;
use super::verdict::Speaker;
use crate::config::Capability;
use crate::oci::RepositoryName;

/// The turn of one candidate.
struct Turn<'a, 'r> {
    route: &'r Route<'a>,
    pending: Pending,
    pace: Pace,
    /// Whether its token server is asked even if that has been failing.
    tokens: Asking,
    sole: bool,
    before: Before,
    deadline: Instant,
}

impl UpstreamSet {
    /// Whether all who may say what a tag of `repository` means have little left of their rate limits: what need not be
    /// asked should not be.
    pub fn is_scarce(&self, repository: &RepositoryName) -> bool {
        let question = Question::new(Surface::Manifest, Capability::Resolve, repository, Instant::now());
        let candidates = self.candidates(&question, &mut Attempts::default());
        !candidates.is_empty() && candidates.iter().all(|route| route.upstream.is_scarce(&route.repository))
    }

    /// Those that may be asked, in order; `attempts` says who may not be for now. Who sent a wrong part lately is asked
    /// for parts last.
    pub(super) fn candidates(&self, question: &Question<'_>, attempts: &mut Attempts) -> Vec<Route<'_>> {
        let mut routes = self.routes(question.repository, question.capability);
        routes.retain(|route| {
            let disabled = route.upstream.health.disabled();
            // An empty list of an equivalent must not hide what is found by the fallback tag of the repository itself.
            let has_no_say = question.surface == Surface::Referrers && route.standing == Standing::Equivalent;
            let is_asked = disabled.is_none() && !has_no_say && !question.avoid.contains(route.name);
            if let Some(error) = disabled {
                attempts.note(route, error);
            }
            is_asked
        });
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
        self.first_in_place(question, attempt).await.map(|(found, _)| found)
    }

    /// The same, with the place that it takes among the requests to its upstream.
    pub(super) async fn first_in_place<'a, T, F>(
        &'a self,
        question: Question<'_>,
        attempt: impl Fn(Candidate<'a>) -> F + Send + Sync,
    ) -> Result<(T, Place), Attempts>
    where
        T: Send,
        F: Future<Output = Result<T, UpstreamError>> + Send,
    {
        let (part, deadline) = (Part::of(question.surface), question.deadline);
        let insists = question.purpose == Purpose::Miss;
        let mut attempts = Attempts::default();
        let candidates = self.candidates(&question, &mut attempts);
        let sole = candidates.len() == 1;
        let mut again = Vec::new();
        for (position, route) in candidates.iter().enumerate() {
            let next = candidates[position + 1..].iter().find(|route| route.upstream.health.is_ready(part));
            let outcome = match route.upstream.health.ask(part, Asking::IfItWorks) {
                Ok(pending) => {
                    let pace = if next.is_some() { Pace::Hurried } else { Pace::Usual };
                    let tokens = if insists && next.is_none() { Asking::InAnyCase } else { Asking::IfItWorks };
                    let waiting = if insists { candidates.len() - position } else { 1 + usize::from(next.is_some()) };
                    let deadline = share(deadline, waiting);
                    let before = route.before(&candidates, &attempts);
                    let turn = Turn { route, pending, pace, tokens, sole, before, deadline };
                    self.take(&question, turn, &attempt).await
                }
                Err(left_alone) => Err(left_alone),
            };
            let error = match outcome {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            if let Some(next) = next {
                self.report(&question, route, next, &error);
            }
            // Or cut off, for the sake of somebody who turns out to have nothing.
            if error.verdict == Verdict::LeftAlone || (error.verdict == Verdict::Silent && next.is_some()) {
                again.push(route);
            }
            attempts.note(route, error);
        }
        if !insists || attempts.conclusion() == Conclusion::NotFound {
            return Err(attempts);
        }
        // Boxed: it is rare, and would make the future twice as large.
        Box::pin(self.insist(&question, &candidates, &again, attempts, &attempt)).await
    }

    /// Asks those that were left alone or not waited for: nobody else has it. Nobody stands behind the last one, so it
    /// has the usual time.
    async fn insist<'a, T, F>(
        &'a self,
        question: &Question<'_>,
        candidates: &[Route<'a>],
        again: &[&Route<'a>],
        mut attempts: Attempts,
        attempt: &(impl Fn(Candidate<'a>) -> F + Send + Sync),
    ) -> Result<(T, Place), Attempts>
    where
        T: Send,
        F: Future<Output = Result<T, UpstreamError>> + Send,
    {
        let sole = candidates.len() == 1;
        for (position, route) in again.iter().copied().enumerate() {
            if question.deadline <= Instant::now() {
                break;
            }
            let asked = route.upstream.health.ask(Part::of(question.surface), Asking::InAnyCase);
            let Ok(pending) = asked else { continue };
            let pace = if position + 1 == again.len() { Pace::Usual } else { Pace::Halved };
            let deadline = share(question.deadline, again.len() - position);
            let before = route.before(candidates, &attempts);
            let turn = Turn { route, pending, pace, tokens: Asking::InAnyCase, sole, before, deadline };
            match self.take(question, turn, attempt).await {
                Ok(found) => return Ok(found),
                Err(error) => attempts.note(route, error),
            }
        }
        Err(attempts)
    }

    /// Asks one candidate, and lets its health know what came of it.
    async fn take<'a, T, F>(
        &'a self,
        question: &Question<'_>,
        turn: Turn<'a, '_>,
        attempt: &(impl Fn(Candidate<'a>) -> F + Send + Sync),
    ) -> Result<(T, Place), UpstreamError>
    where
        T: Send,
        F: Future<Output = Result<T, UpstreamError>> + Send,
    {
        let Turn { route, pending, pace, tokens, sole, before, deadline } = turn;
        let was_asked = Arc::new(AtomicBool::new(false));
        let candidate = Candidate {
            upstream: route.upstream,
            name: route.name,
            repository: route.repository.clone(),
            purpose: question.purpose,
            deadline,
            sole,
            before,
            pace,
            admission: pending.admission(),
            tokens,
            was_asked: Arc::clone(&was_asked),
        };
        let labels = route.upstream.labels();
        let count = |word| {
            let labels = [labels[0], labels[1], question.surface.as_str(), word];
            self.metrics.requests.with_label_values(&labels).inc();
        };
        // Its health learns nothing from what it is not asked.
        let place = candidate.admit(question).await.inspect_err(|error| count(error.outcome().as_str()))?;
        let begun = Instant::now();
        // Boxed: those who wait for a place carry nothing more with them.
        let outcome = within(deadline, Box::pin(attempt(candidate))).await;
        if !was_asked.load(Ordering::Relaxed) {
            return outcome.map(|found| (found, place));
        }
        if !outcome.as_ref().is_err_and(|error| error.verdict == Verdict::LeftAlone) {
            count(Outcome::word_of(&outcome));
        }
        if outcome.is_ok() && route.standing == Standing::Equivalent {
            self.metrics.equivalent_answers.with_label_values(&[&*self.registry, labels[0]]).inc();
        }
        match &outcome {
            // Whether it can send a blob shows at the end of it.
            Ok(_) if question.surface == Surface::Blob => pending.settle(Evidence::Alive, None),
            Ok(_) => pending.settle(Evidence::Works, None),
            Err(error) => {
                let time = match pace {
                    _ if begun.elapsed() < HURRIED => TimeGiven::Scant,
                    Pace::Hurried => TimeGiven::EnoughWithOthers,
                    Pace::Usual | Pace::Halved => TimeGiven::Enough,
                };
                tell(route, pending, error, time);
            }
        }
        outcome.map(|found| (found, place))
    }

    fn report(&self, question: &Question<'_>, passed: &Route<'_>, next: &Route<'_>, error: &UpstreamError) {
        let reason = error.outcome().as_str();
        let labels = passed.upstream.labels();
        self.metrics.failovers.with_label_values(&[labels[0], labels[1], reason]).inc();
        let (registry, upstream, next) = (&self.registry, passed.name, next.name);
        let Question { repository, purpose, surface, .. } = question;
        let kind = surface.as_str();
        // A partial mirror lacks things all day, and what is left alone has had its line; only news are worth one.
        let is_known = matches!(error.verdict, Verdict::LeftAlone | Verdict::HeldBack(_) | Verdict::Busy);
        let suppressed = match error.verdict.fault() {
            _ if error.verdict.is_absence() || is_known => None,
            // Nothing will ever keep requests away from it.
            Fault::None => passed.upstream.complaints.due(),
            _ => Some(0),
        };
        if let Some(suppressed) = suppressed {
            warn!(%registry, %repository, %upstream, %next, kind, ?purpose, reason, %error, suppressed,
                "Passed an upstream over");
        } else {
            debug!(%registry, %repository, %upstream, %next, kind, ?purpose, reason, %error, "Passed an upstream over");
        }
    }
}

/// Lets the health of an upstream know how it failed. Its token server is judged where it answers; that it did not in
/// time is seen here.
fn tell(route: &Route<'_>, pending: Pending, error: &UpstreamError, time: TimeGiven) {
    let evidence = Evidence::of(error, time);
    match (error.speaker, evidence) {
        (Speaker::TokenServer, Evidence::Down(_)) if error.verdict == Verdict::Silent => {
            route.upstream.health.note(Part::Token, evidence, &error.message);
        }
        (Speaker::TokenServer, _) => {}
        (Speaker::Registry | Speaker::Elsewhere, _) => pending.settle(evidence, Some(&error.message)),
    }
}

impl Attempts {
    /// Notes what came of asking, in place of what came of it before.
    fn note(&mut self, route: &Route<'_>, error: UpstreamError) {
        let attempt = Attempt { upstream: Arc::clone(route.name), standing: route.standing, error };
        match self.0.iter_mut().find(|earlier| earlier.upstream == attempt.upstream) {
            Some(earlier) => *earlier = attempt,
            None => self.0.push(attempt),
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
