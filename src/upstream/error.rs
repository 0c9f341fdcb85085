//! How upstreams fail, classified once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

/// What a failed request to an upstream means. Failover, negative caching and the final answer read only this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This upstream does not have it, and says so in a way that can be believed.
    NotHere,
    /// It does not have it, or does not show it to us: registries hide one behind the other.
    NotHereOrHidden,
    /// A rate limit is used up; perhaps with the time after which to come back.
    RateLimited(Option<Duration>),
    /// It is out of order for now, or the transfer broke.
    Transient,
    /// It answers, but not with what a registry answers: wrong bytes, a sign-in page, a wrong length.
    Broken,
    /// It cannot be reached: name, connection, TLS, time.
    Unreachable,
    /// It refuses the request as malformed.
    Refused,
}

impl Verdict {
    /// What to call it when nothing more precise is known.
    pub(crate) const fn outcome(self) -> Outcome {
        match self {
            Self::NotHere => Outcome::NotFound,
            Self::NotHereOrHidden => Outcome::Unauthorized,
            Self::RateLimited(_) => Outcome::Throttled,
            Self::Transient => Outcome::ServerError,
            Self::Broken => Outcome::Broken,
            Self::Unreachable => Outcome::Connect,
            Self::Refused => Outcome::Refused,
        }
    }

    /// Whether the upstream does not have it or does not show it, as opposed to being unable to tell.
    pub(crate) const fn is_absence(self) -> bool {
        matches!(self, Self::NotHere | Self::NotHereOrHidden)
    }
}

/// What a failed request is called: finer than a [`Verdict`], and nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is not there.
    NotFound,
    /// It is not shown, or not there.
    Unauthorized,
    /// A rate limit is used up.
    Throttled,
    /// The upstream is out of order, or the transfer broke.
    ServerError,
    /// No answer in time.
    Timeout,
    /// No connection, or no answer on it: name, address, network, proxy.
    Connect,
    /// No agreement on TLS: certificates mostly.
    Tls,
    /// The bytes do not hash to the digest asked for.
    Digest,
    /// Not the part of a blob that was asked for.
    Range,
    /// Not what a registry answers.
    Broken,
    /// The request is said to be malformed.
    Refused,
}

impl Outcome {
    /// The word for logs, metrics and the `detail` of answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Unauthorized => "unauthorized",
            Self::Throttled => "throttled",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Digest => "digest",
            Self::Range => "range",
            Self::Broken => "broken",
            Self::Refused => "refused",
        }
    }

    /// The word for a result; success is `ok`.
    pub(crate) fn word_of<T>(result: &Result<T, UpstreamError>) -> &'static str {
        result.as_ref().map_or_else(|error| error.outcome.as_str(), |_| "ok")
    }
}

/// One failed request to one upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UpstreamError {
    /// What it means.
    pub verdict: Verdict,
    /// What it is called.
    pub outcome: Outcome,
    /// What happened, in words fit for a client: no secrets, no signed addresses.
    pub message: String,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
}

impl UpstreamError {
    /// A failure that no status explains.
    pub(crate) fn new(verdict: Verdict, message: impl Into<String>) -> Self {
        Self { verdict, outcome: verdict.outcome(), message: message.into(), status: None }
    }

    /// No answer in time.
    pub(crate) fn timeout(message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Timeout, ..Self::new(Verdict::Unreachable, message) }
    }

    /// No agreement on TLS.
    pub(crate) fn tls(message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Tls, ..Self::new(Verdict::Unreachable, message) }
    }

    /// Bytes that do not hash to the digest asked for.
    pub(crate) fn digest(message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Digest, ..Self::broken(message) }
    }

    /// Not the part of a blob that was asked for.
    pub(crate) fn range(message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Range, ..Self::broken(message) }
    }

    /// The same failure, judged by somebody who knows more.
    pub(crate) fn judged(self, verdict: Verdict) -> Self {
        Self { verdict, outcome: verdict.outcome(), ..self }
    }

    /// An answer that is not what a registry answers.
    pub(crate) fn broken(message: impl Into<String>) -> Self {
        Self::new(Verdict::Broken, message)
    }

    /// A failure explained by the answer's status.
    pub(crate) fn of_status(verdict: Verdict, message: impl Into<String>, status: StatusCode) -> Self {
        Self { status: Some(status.as_u16()), ..Self::new(verdict, message) }
    }
}

/// What one candidate said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What the upstream is called: that of an equivalent with its registry.
    pub upstream: Arc<str>,
    /// How much its word on existence counts.
    pub standing: Standing,
    /// How it failed.
    pub error: UpstreamError,
}

/// How much the word of an upstream on existence counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It need not have all there is: it may not resolve.
    Mirror,
    /// Its word is final, as far as its registry goes.
    Authority,
    /// It speaks for an equivalent repository, which may have what this one has not.
    Equivalent,
}

/// What all candidates said: the failure of an operation on an [`super::UpstreamSet`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempts(pub Vec<Attempt>);

/// What the attempts come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// An authoritative upstream is certain that it does not exist, and no equivalent repository might have it.
    NotFound,
    /// Every candidate lacks or hides it.
    NotFoundOrHidden,
    /// Every candidate that might have it is rate limited.
    RateLimited(Option<Duration>),
    /// It cannot be told now.
    Unavailable,
}

impl Attempts {
    /// Whether an upstream would not send the part of a blob that was asked for. It may still send the whole.
    pub fn is_part_refused(&self) -> bool {
        self.0.iter().any(|attempt| attempt.error.outcome == Outcome::Range)
    }

    /// How many are certain, or as good as certain, not to have it.
    pub(super) fn absences(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.error.verdict.is_absence()).count()
    }

    /// What the attempts come to, in the precedence that keeps a false "not found" from ever leaving Weir.
    pub fn conclusion(&self) -> Conclusion {
        let verdicts = || self.0.iter().map(|attempt| attempt.error.verdict);
        let equivalents = self.0.iter().filter(|attempt| attempt.standing == Standing::Equivalent);
        let is_certain =
            |attempt: &Attempt| attempt.standing == Standing::Authority && attempt.error.verdict == Verdict::NotHere;
        if self.0.iter().any(is_certain) && equivalents.clone().all(|attempt| attempt.error.verdict.is_absence()) {
            return Conclusion::NotFound;
        }
        if self.0.is_empty() {
            return Conclusion::Unavailable;
        }
        if verdicts().all(Verdict::is_absence) {
            return Conclusion::NotFoundOrHidden;
        }
        if verdicts().all(|verdict| verdict.is_absence() || matches!(verdict, Verdict::RateLimited(_))) {
            let soonest = verdicts().filter_map(|verdict| match verdict {
                Verdict::RateLimited(after) => after,
                _ => None,
            });
            return Conclusion::RateLimited(soonest.min());
        }
        Conclusion::Unavailable
    }
}

/// `hub: Answered 503 Service Unavailable; mirror: Cannot be reached: connection refused`
impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("No upstream was asked");
        }
        for (position, attempt) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", attempt.upstream, attempt.error)?;
        }
        Ok(())
    }
}

impl std::error::Error for Attempts {}

/// An upstream whose configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("Upstream `{upstream}` of {registry}: {message}")]
pub struct SetupError {
    /// The registry.
    pub registry: String,
    /// The upstream.
    pub upstream: String,
    /// What is wrong.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(verdicts: &[(Standing, Verdict)]) -> Attempts {
        let attempt = |&(standing, verdict): &(Standing, Verdict)| Attempt {
            upstream: match standing {
                Standing::Mirror => "mirror",
                Standing::Authority => "origin",
                Standing::Equivalent => "other.test/origin",
            }
            .into(),
            standing,
            error: UpstreamError::new(verdict, verdict.outcome().as_str()),
        };
        Attempts(verdicts.iter().map(attempt).collect())
    }

    #[test]
    fn attempts_conclude_by_precedence() {
        use Conclusion::{NotFound, NotFoundOrHidden, Unavailable};
        use Verdict::{Broken, NotHere, NotHereOrHidden as Hidden, Refused, Transient, Unreachable};
        const SOON: Option<Duration> = Some(Duration::from_secs(1));
        const LATE: Option<Duration> = Some(Duration::from_secs(9));
        let limited = Verdict::RateLimited;
        let (origin, mirror, other) = (Standing::Authority, Standing::Mirror, Standing::Equivalent);
        let table: &[(&[(Standing, Verdict)], Conclusion)] = &[
            (&[], Unavailable),
            (&[(origin, NotHere)], NotFound),
            (&[(mirror, Unreachable), (origin, NotHere)], NotFound),
            (&[(mirror, limited(SOON)), (origin, NotHere)], NotFound),
            (&[(origin, Hidden)], NotFoundOrHidden),
            (&[(mirror, NotHere), (origin, Hidden)], NotFoundOrHidden),
            (&[(mirror, NotHere)], NotFoundOrHidden),
            (&[(mirror, Refused), (origin, Refused)], Unavailable),
            (&[(mirror, NotHere), (origin, Refused)], Unavailable),
            (&[(mirror, NotHere), (origin, Unreachable)], Unavailable),
            (&[(mirror, NotHere), (origin, Transient)], Unavailable),
            (&[(mirror, Hidden), (origin, Broken)], Unavailable),
            (&[(origin, limited(None))], Conclusion::RateLimited(None)),
            (&[(mirror, limited(LATE)), (origin, limited(SOON))], Conclusion::RateLimited(SOON)),
            (&[(mirror, limited(None)), (origin, limited(LATE))], Conclusion::RateLimited(LATE)),
            (&[(mirror, NotHere), (origin, limited(SOON))], Conclusion::RateLimited(SOON)),
            (&[(origin, Hidden), (mirror, limited(SOON))], Conclusion::RateLimited(SOON)),
            (&[(mirror, Transient), (origin, limited(SOON))], Unavailable),
            (&[(mirror, Refused), (origin, limited(SOON))], Unavailable),
            (&[(origin, NotHere), (other, NotHere)], NotFound),
            (&[(origin, NotHere), (other, Hidden)], NotFound),
            (&[(origin, Hidden), (other, NotHere)], NotFoundOrHidden),
            (&[(origin, NotHere), (other, Unreachable)], Unavailable),
            (&[(origin, NotHere), (other, NotHere), (other, Transient)], Unavailable),
            (&[(origin, NotHere), (other, limited(SOON))], Conclusion::RateLimited(SOON)),
            (&[(origin, Unreachable), (other, NotHere)], Unavailable),
        ];
        for (verdicts, conclusion) in table {
            assert_eq!(attempts(verdicts).conclusion(), *conclusion, "{verdicts:?}");
        }
    }

    #[test]
    fn attempts_are_told_in_order() {
        let told =
            attempts(&[(Standing::Mirror, Verdict::NotHere), (Standing::Authority, Verdict::Transient)]).to_string();
        assert_eq!(told, "mirror: not_found; origin: server_error");
        assert_eq!(Attempts::default().to_string(), "No upstream was asked");
    }
}
