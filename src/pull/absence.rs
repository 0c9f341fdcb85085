//! What upstreams said does not exist: answered without asking again, for as long as their verdicts are believed.
//!
//! Only absence is remembered here. That an upstream is rate limited or out of order says nothing about content, and
//! who asks next may be luckier.

use std::time::Duration;

use moka::future::Cache;
use tokio::time::Instant;

use super::error::{PullError, Subject};
use super::{PullService, Scope};
use crate::config::Capability;
use crate::oci::Reference;
use crate::upstream::Attempts;

/// How many absences are remembered.
const ENTRIES: u64 = 10_000;

/// What does not exist, by repository. A digest that is no blob may be a manifest.
#[derive(Debug)]
pub(super) struct Absences(Cache<(Scope, Subject, Reference), Absence>);

/// Something that does not exist.
#[derive(Debug, Clone)]
struct Absence {
    attempts: Attempts,
    since: Instant,
    /// Whether a manifest of the same repository says that it exists.
    promised: bool,
}

impl Default for Absences {
    fn default() -> Self {
        Self(Cache::new(ENTRIES))
    }
}

impl Absence {
    /// For how long it is believed, where a plain "not found" is believed for `certain`.
    fn lasts(&self, certain: Duration) -> Duration {
        let time = self.attempts.absent_for(certain).unwrap_or_default();
        // Mirrors get their blobs after their manifests.
        if self.promised { time.min(certain / 2) } else { time }
    }
}

impl PullService {
    /// What is remembered not to exist is answered without asking again.
    pub(super) async fn check_negative(
        &self,
        subject: Subject,
        scope: &Scope,
        reference: &Reference,
    ) -> Result<(), PullError> {
        match self.shared.absences.0.get(&(scope.clone(), subject, reference.clone())).await {
            Some(absence) if absence.since.elapsed() < absence.lasts(self.terms.tags.not_found) => {
                Err(PullError::NotFound { subject, attempts: absence.attempts })
            }
            _ => Ok(()),
        }
    }

    /// What a failed question to the upstreams means for the client. What does not exist is remembered for a while.
    pub(super) async fn failure(
        &self,
        subject: Subject,
        scope: &Scope,
        reference: &Reference,
        attempts: Attempts,
    ) -> PullError {
        let capability = match reference {
            Reference::Tag(_) => Capability::Resolve,
            Reference::Digest(_) => Capability::Pull,
        };
        let error = self.refusal(subject, scope, capability, attempts);
        if let PullError::NotFound { attempts, .. } = &error {
            let promised = match (subject, reference) {
                (Subject::Blob, Reference::Digest(digest)) => {
                    self.shared.authority.granted(scope, digest).await.is_some()
                }
                _ => false,
            };
            let absence = Absence { attempts: attempts.clone(), since: Instant::now(), promised };
            self.shared.absences.0.insert((scope.clone(), subject, reference.clone()), absence).await;
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Attempt, Standing, UpstreamError, Verdict};

    #[tokio::test]
    async fn a_blob_that_its_manifest_promises_is_soon_asked_for_again() {
        let absence = |verdict, promised| {
            let error = UpstreamError::new(verdict, "Answered 404 Not Found");
            let attempt = Attempt { upstream: "hub".into(), standing: Standing::Authority, error };
            let absence = Absence { attempts: Attempts(vec![attempt]), since: Instant::now(), promised };
            [10, 0].map(|certain| absence.lasts(Duration::from_secs(certain)).as_secs())
        };
        for (verdict, otherwise) in [(Verdict::NotHere, 10), (Verdict::NotHereOrHidden, 30), (Verdict::Withheld, 3600)]
        {
            assert_eq!(absence(verdict, false), [otherwise, 0], "{verdict:?}");
            assert_eq!(absence(verdict, true), [5, 0], "{verdict:?}, promised");
        }
    }
}
