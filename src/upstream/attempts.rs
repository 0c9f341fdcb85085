//! What all candidates said, and what that comes to.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::error::{UpstreamError, Verdict};

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

/// What those said who are asked before an upstream that has an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// They do not have it, for certain. So it is, too, if there are none.
    Absent,
    /// They do not have it or do not show it.
    Hidden,
    /// One of them could not tell.
    Undecided,
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
    /// Every candidate rejects the credentials that are configured for it.
    Denied,
    /// It cannot be told now.
    Unavailable,
}

impl Attempts {
    /// Whether an upstream would not send the part of a blob that was asked for. It may still send the whole.
    pub fn is_part_refused(&self) -> bool {
        self.0.iter().any(|attempt| attempt.error.verdict == Verdict::WrongPart)
    }

    /// Whether somebody was not asked who would be if nothing else helped: as [`super::Purpose::Miss`].
    pub fn is_any_left_alone(&self) -> bool {
        self.0.iter().any(|attempt| attempt.error.verdict == Verdict::LeftAlone)
    }

    /// What `upstream` said, if it was asked.
    pub(super) fn verdict_of(&self, upstream: &str) -> Option<Verdict> {
        self.0.iter().find(|attempt| *attempt.upstream == *upstream).map(|attempt| attempt.error.verdict)
    }

    /// What the attempts come to, in the precedence that keeps a false "not found" from ever leaving Weir.
    pub fn conclusion(&self) -> Conclusion {
        let verdicts = || self.0.iter().map(|attempt| attempt.error.verdict);
        let mut equivalents = self.0.iter().filter(|attempt| attempt.standing == Standing::Equivalent);
        let none_elsewhere = equivalents.all(|attempt| attempt.error.verdict.is_absence());
        if none_elsewhere && self.authoritative_absences().next().is_some() {
            return Conclusion::NotFound;
        }
        if self.0.is_empty() {
            return Conclusion::Unavailable;
        }
        if verdicts().all(|verdict| verdict == Verdict::CredentialsRejected) {
            return Conclusion::Denied;
        }
        if verdicts().all(Verdict::is_absence) {
            return Conclusion::NotFoundOrHidden;
        }
        if verdicts().all(|verdict| verdict.is_absence() || verdict.is_rate_limit()) {
            return Conclusion::RateLimited(verdicts().filter_map(Verdict::limited_for).min());
        }
        Conclusion::Unavailable
    }

    /// How long it is believed that there is nothing, where a plain "not found" is believed for `certain`: as long as
    /// every word that counts. `None` if the attempts do not come to absence.
    pub fn absent_for(&self, certain: Duration) -> Option<Duration> {
        let shortest = |attempts: &mut dyn Iterator<Item = &Attempt>| {
            attempts.filter_map(|attempt| attempt.error.verdict.absent_for(certain)).min()
        };
        match self.conclusion() {
            // A mirror may lack what it likes.
            Conclusion::NotFound => shortest(&mut self.0.iter().filter(|attempt| attempt.standing != Standing::Mirror)),
            Conclusion::NotFoundOrHidden => shortest(&mut self.0.iter()),
            Conclusion::RateLimited(_) | Conclusion::Denied | Conclusion::Unavailable => None,
        }
    }

    /// Whether it exists and is not given out for legal reasons: an upstream that may decide says so, or the last one.
    pub fn is_withheld(&self) -> bool {
        let is_withheld = |attempt: &Attempt| attempt.error.verdict == Verdict::Withheld;
        self.authoritative_absences().any(is_withheld) || self.0.last().is_some_and(is_withheld)
    }

    fn authoritative_absences(&self) -> impl Iterator<Item = &Attempt> {
        self.0
            .iter()
            .filter(|attempt| attempt.standing == Standing::Authority && attempt.error.verdict.is_certain_absence())
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
        use Conclusion::{Denied, NotFound, NotFoundOrHidden, Unavailable};
        use Verdict::{
            Broken, CredentialsRejected as Rejected, Doubtful, NotHere, NotHereOrHidden as Hidden, Refused, Transient,
            Unreachable, Withheld,
        };
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
            (&[(origin, Verdict::HeldBack(SOON))], Conclusion::RateLimited(SOON)),
            (&[(mirror, limited(LATE)), (origin, Verdict::HeldBack(SOON))], Conclusion::RateLimited(SOON)),
            (&[(mirror, Verdict::Busy), (origin, Verdict::HeldBack(SOON))], Unavailable),
            (&[(mirror, limited(LATE)), (origin, limited(SOON))], Conclusion::RateLimited(SOON)),
            (&[(mirror, limited(None)), (origin, limited(LATE))], Conclusion::RateLimited(LATE)),
            (&[(mirror, NotHere), (origin, limited(SOON))], Conclusion::RateLimited(SOON)),
            (&[(origin, Hidden), (mirror, limited(SOON))], Conclusion::RateLimited(SOON)),
            (&[(mirror, Transient), (origin, limited(SOON))], Unavailable),
            (&[(mirror, Refused), (origin, limited(SOON))], Unavailable),
            (&[(mirror, Doubtful), (origin, Doubtful)], Unavailable),
            (&[(mirror, Transient), (origin, Withheld)], NotFound),
            (&[(mirror, Withheld), (origin, Transient)], Unavailable),
            (&[(origin, Rejected)], Denied),
            (&[(mirror, Rejected), (origin, Rejected)], Denied),
            (&[(mirror, Rejected), (origin, Hidden)], NotFoundOrHidden),
            (&[(mirror, Rejected), (origin, Transient)], Unavailable),
            (&[(origin, Verdict::OffLimits)], Unavailable),
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

    #[test]
    fn absence_is_believed_as_long_as_the_shortest_word_that_counts() {
        use Verdict::{CredentialsRejected as Rejected, NotHere, NotHereOrHidden as Hidden, Transient, Withheld};
        let seconds = |verdicts: &[_], certain: u64| {
            attempts(verdicts).absent_for(Duration::from_secs(certain)).map(|time| time.as_secs())
        };
        let (origin, mirror) = (Standing::Authority, Standing::Mirror);
        for (verdicts, time) in [
            (&[(origin, NotHere)][..], Some(10)),
            (&[(origin, Hidden)], Some(30)),
            (&[(origin, Withheld)], Some(3600)),
            (&[(mirror, NotHere), (origin, Hidden)], Some(10)),
            (&[(mirror, Hidden), (origin, Withheld)], Some(3600)),
            (&[(mirror, Transient), (origin, NotHere)], Some(10)),
            (&[(mirror, Rejected), (origin, Hidden)], Some(30)),
            (&[(mirror, NotHere), (origin, Transient)], None),
            (&[(origin, Verdict::RateLimited(None))], None),
            (&[(origin, Rejected)], None),
            (&[], None),
        ] {
            assert_eq!(seconds(verdicts, 10), time, "{verdicts:?}");
            assert_eq!(seconds(verdicts, 0), time.map(|_| 0), "{verdicts:?}, where nothing is to be remembered");
        }
    }

    #[test]
    fn what_is_withheld_is_said_to_be_by_who_decides_or_was_asked_last() {
        use Verdict::{NotHere, NotHereOrHidden as Hidden, Withheld};
        let (origin, mirror) = (Standing::Authority, Standing::Mirror);
        assert!(attempts(&[(origin, Withheld)]).is_withheld());
        assert!(attempts(&[(origin, Withheld), (mirror, NotHere)]).is_withheld());
        assert!(attempts(&[(origin, Hidden), (mirror, Withheld)]).is_withheld());
        assert!(!attempts(&[(mirror, Withheld), (origin, NotHere)]).is_withheld());
    }
}
