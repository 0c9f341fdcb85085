//! What an outcome says about the health of an upstream, by its verdict: pure.

use std::time::Duration;

use crate::upstream::error::{Fault, UpstreamError, Verdict};

/// What an outcome says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Nothing: a limit is used up, nobody waited for the end, or the trouble is ours.
    Nothing,
    /// There is somebody; whether it works is not known yet.
    Alive,
    /// It works.
    Works,
    /// It failed: by so many halves of a failure.
    Failed(u32),
    /// Asking again would only cost time, for at least so long.
    Down(Duration),
}

/// Whether an upstream was asked in earnest when it ran out of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeGiven {
    /// There was not enough of it to tell anything.
    Scant,
    /// There was enough.
    Enough,
    /// There was enough, and somebody else can be asked: waiting for it again is a waste.
    EnoughWithOthers,
}

impl Evidence {
    /// A failure like any other.
    pub(crate) const FAILURE: Self = Self::Failed(2);

    /// What it says that a request failed by `error`, after the time it was given.
    pub(crate) fn of(error: &UpstreamError, time: TimeGiven) -> Self {
        match (error.verdict.fault(), time) {
            (Fault::None, _) if error.verdict.is_certain_absence() => Self::Works,
            (Fault::None, _) if error.verdict.is_sign_of_life() => Self::Alive,
            (Fault::None, _) => Self::Nothing,
            (_, TimeGiven::Scant) if error.verdict == Verdict::Silent => Self::Nothing,
            (_, TimeGiven::EnoughWithOthers) if error.verdict == Verdict::Silent => Self::Down(Duration::ZERO),
            (Fault::Half, _) => Self::Failed(1),
            (Fault::One, _) => Self::FAILURE,
            (Fault::Five, _) => Self::Failed(10),
            (Fault::OpenFor(time), _) => Self::Down(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_says_what_it_weighs_and_absence_is_success() {
        let minute = Duration::from_secs(60);
        for (verdict, evidence) in [
            (Verdict::NotHere, Evidence::Works),
            (Verdict::NoSuchList, Evidence::Works),
            (Verdict::Withheld, Evidence::Works),
            (Verdict::NotHereOrHidden, Evidence::Alive),
            (Verdict::CredentialsRejected, Evidence::Alive),
            (Verdict::RateLimited(Some(minute)), Evidence::Alive),
            (Verdict::Refused, Evidence::Alive),
            (Verdict::WrongPart, Evidence::Nothing),
            (Verdict::ProxyRefused, Evidence::Nothing),
            (Verdict::OffLimits, Evidence::Nothing),
            (Verdict::LeftAlone, Evidence::Nothing),
            (Verdict::Disabled, Evidence::Nothing),
            (Verdict::Doubtful, Evidence::Failed(1)),
            (Verdict::Transient, Evidence::FAILURE),
            (Verdict::Broken, Evidence::FAILURE),
            (Verdict::Unreachable, Evidence::FAILURE),
            (Verdict::WrongBytes, Evidence::Failed(10)),
            (Verdict::BackIn(minute), Evidence::Down(minute)),
            (Verdict::Untrusted, Evidence::Down(minute / 2)),
        ] {
            let error = UpstreamError::new(verdict, "");
            for time in [TimeGiven::Scant, TimeGiven::Enough, TimeGiven::EnoughWithOthers] {
                assert_eq!(Evidence::of(&error, time), evidence, "{verdict:?}");
            }
        }
    }

    #[test]
    fn silence_says_as_much_as_there_was_time() {
        let silent = UpstreamError::timeout("no answer");
        assert_eq!(Evidence::of(&silent, TimeGiven::Scant), Evidence::Nothing);
        assert_eq!(Evidence::of(&silent, TimeGiven::Enough), Evidence::FAILURE);
        assert_eq!(Evidence::of(&silent, TimeGiven::EnoughWithOthers), Evidence::Down(Duration::ZERO));
    }
}
