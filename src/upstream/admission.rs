//! Whether an upstream is asked now, and as whom: its rate limits and its connections come before any request.

use std::time::Duration;

use tokio::time::Instant;

use super::budget::{Account, Charge};
use super::client::{Candidate, Upstream};
use super::credentials::Identity;
use super::error::{UpstreamError, Verdict};
use super::limit::{Place, Stay};
use super::question::{Purpose, Question};
use crate::oci::RepositoryName;

/// As whom an upstream is asked.
#[derive(Debug)]
pub(super) struct Choice {
    /// In the order of trial.
    pub(super) identities: Vec<Identity>,
    /// Why some are left out.
    pub(super) limited: Option<UpstreamError>,
}

impl Candidate<'_> {
    /// A place among the requests to the upstream, as soon as one is free: within half the time there is for
    /// `question`, so that the other half is left for the answer, and soon where another upstream stands ready. Nothing
    /// has been sent when there is none.
    ///
    /// # Errors
    /// If every account that could be asked with is paused, if what is left is kept for others, or if there is no
    /// place.
    pub(super) async fn admit(&self, question: &Question<'_>) -> Result<Place, UpstreamError> {
        let Self { upstream, repository, deadline, .. } = self;
        upstream.choose(repository, Charge::of_question(question.surface))?;
        if question.purpose == Purpose::Background && upstream.is_scarce(repository) {
            let message = "Not asked: what is left of its rate limit is kept for clients";
            return Err(UpstreamError::new(Verdict::HeldBack(None), message));
        }
        let now = Instant::now();
        let until = now + self.pace.of(deadline.saturating_duration_since(now) / 2);
        let place = upstream.limit.place(question.purpose, Stay::of(question.surface), until).await;
        place.map_err(|busy| UpstreamError::new(Verdict::Busy, busy.to_string()))
    }
}

impl Upstream {
    /// As whom it may be asked about `repository`: by the configured order, and of credentials that open the same
    /// repositories first the one with the most left of its rate limit.
    ///
    /// # Errors
    /// If a rate limit keeps everybody from asking.
    pub(super) fn choose(&self, repository: &RepositoryName, charge: Charge) -> Result<Choice, UpstreamError> {
        let known = self.auth.alternatives(repository);
        if known.is_empty() {
            self.choose_anonymous(charge)?;
        }
        self.choose_of(known, charge)
    }

    /// Whether it may be asked without credentials.
    ///
    /// # Errors
    /// If a rate limit keeps everybody without from asking.
    pub(super) fn choose_anonymous(&self, charge: Charge) -> Result<(), UpstreamError> {
        self.choose_of(vec![(Identity::Anonymous, 0)], charge).map(drop)
    }

    fn choose_of(&self, known: Vec<(Identity, usize)>, charge: Charge) -> Result<Choice, UpstreamError> {
        let account = |(identity, group)| (identity, group, Account::from(self.auth.name(identity)));
        let ranked = self.budget.rank(known.into_iter().map(account).collect(), charge);
        match ranked.paused.map(paused) {
            Some(limited) if ranked.usable.is_empty() => Err(limited),
            limited => Ok(Choice { identities: ranked.usable, limited }),
        }
    }

    /// Whether what it still grants for `repository` should be kept for those who cannot do without.
    pub(super) fn is_scarce(&self, repository: &RepositoryName) -> bool {
        let mut identities = self.auth.identities(repository);
        if identities.is_empty() {
            identities.push(Identity::Anonymous);
        }
        let accounts: Vec<Account> = identities.into_iter().map(|identity| self.auth.name(identity).into()).collect();
        self.budget.is_scarce(&accounts)
    }
}

fn paused(wait: Duration) -> UpstreamError {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let message = format!("Not asked: its rate limit is used up for another {seconds} s");
    UpstreamError::new(Verdict::HeldBack(Some(wait)), message)
}
