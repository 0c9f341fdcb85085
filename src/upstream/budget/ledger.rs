//! What is known about the rate limits of one account: pure.

use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::cool_down::CoolDown;
use super::reading::Reading;
use super::trend::Trend;
use crate::upstream::question::Surface;

/// How long a reading is believed that says nothing about its window.
const UNKNOWN_WINDOW: Duration = Duration::from_secs(60 * 60);
/// Less than one part in so many is scarce.
const FLOOR: u64 = 10;

/// What a request is to those who count: they count pulls, and look at nothing else unless there is far too much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charge {
    /// GET of a manifest or list.
    Document,
    /// HEAD, which no registry counts as a pull.
    Look,
    /// Anything about a blob. Those of an image are free once its manifest was pulled.
    Blob,
    /// A token, without which nothing else goes.
    Token,
}

impl Charge {
    /// Of a question, whose manifests may be asked for by GET.
    pub(crate) const fn of_question(surface: Surface) -> Self {
        match surface {
            Surface::Blob => Self::Blob,
            Surface::Manifest | Surface::Tags | Surface::Referrers => Self::Document,
        }
    }

    /// Of a request.
    pub(crate) fn of_request(surface: Surface, method: &Method) -> Self {
        match Self::of_question(surface) {
            Self::Document if *method == Method::HEAD => Self::Look,
            charge => charge,
        }
    }
}

/// The rate limits of one account at one upstream.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    reading: Option<(Reading, Instant)>,
    trend: Trend,
    /// After a refused pull: of manifests and lists. An image that is being pulled gets its blobs nevertheless.
    documents: CoolDown,
    /// After a refusal of what is not counted as a pull.
    everything: CoolDown,
}

impl Ledger {
    /// An answer told what is left.
    pub(super) fn read(&mut self, reading: Reading, now: Instant) {
        self.trend.note(reading.remaining, now);
        self.reading = Some((reading, now));
    }

    /// A request was refused for a rate limit. Returns whether a pause begins.
    pub(super) fn limited(&mut self, charge: Charge, hint: Option<Duration>, now: Instant) -> bool {
        let used_up = self.current(now).filter(|reading| reading.remaining == 0);
        let hint = hint.or_else(|| used_up.and_then(|reading| reading.reset));
        match charge {
            Charge::Document => self.documents.begin(hint, now),
            Charge::Look | Charge::Blob | Charge::Token => self.everything.begin(hint, now),
        }
    }

    /// A request was answered, for what that proves.
    pub(super) fn succeeded(&mut self, charge: Charge, now: Instant) {
        self.everything.succeeded(now);
        if charge == Charge::Document {
            self.documents.succeeded(now);
        }
    }

    /// For how long no such request should be sent.
    pub(super) fn cooling(&self, charge: Charge, now: Instant) -> Option<Duration> {
        let documents = match charge {
            Charge::Document | Charge::Look => self.documents.left(now),
            Charge::Blob | Charge::Token => None,
        };
        documents.max(self.everything.left(now))
    }

    /// What is left, as far as that is known and still true.
    pub(super) fn current(&self, now: Instant) -> Option<&Reading> {
        let (reading, since) = self.reading.as_ref()?;
        let life = reading.reset.or(reading.window).unwrap_or(UNKNOWN_WINDOW);
        (now.duration_since(*since) < life).then_some(reading)
    }

    /// Whether what is left should be kept for those who cannot do without.
    pub(super) fn is_scarce(&self, now: Instant) -> bool {
        let share = self.current(now).and_then(|reading| Some((reading.remaining, reading.limit?)));
        share.is_some_and(|(remaining, limit)| remaining.saturating_mul(FLOOR) < limit)
    }

    /// In how long nothing is left, if things go on as they do.
    pub(super) fn exhausted_in(&self, now: Instant) -> Option<Duration> {
        self.current(now)?;
        self.trend.exhausted_in(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn reading(limit: Option<u64>, remaining: u64) -> Reading {
        Reading { limit, remaining, window: Some(360 * MINUTE), reset: None }
    }

    #[test]
    fn less_than_a_tenth_is_scarce_until_the_window_is_over() {
        for (limit, remaining, scarce) in [
            (Some(100), 100, false),
            (Some(100), 10, false),
            (Some(100), 9, true),
            (Some(100), 0, true),
            (Some(0), 0, false),
            (Some(5), 1, false),
            (Some(5), 0, true),
            (None, 0, false),
            (Some(u64::MAX), u64::MAX, false),
        ] {
            let now = Instant::now();
            let mut ledger = Ledger::default();
            assert!(!ledger.is_scarce(now));
            ledger.read(reading(limit, remaining), now);
            assert_eq!(ledger.is_scarce(now), scarce, "{remaining} of {limit:?}");
            assert!(!ledger.is_scarce(now + 360 * MINUTE), "{remaining} of {limit:?}");
        }
    }

    #[test]
    fn a_reading_lives_until_its_reset_its_window_or_for_an_hour() {
        let (long, short) = (Some(360 * MINUTE), Some(5 * MINUTE));
        for (window, reset, minutes) in [(long, short, 5), (long, None, 360), (None, short, 5), (None, None, 60)] {
            let now = Instant::now();
            let mut ledger = Ledger::default();
            ledger.read(Reading { window, reset, ..reading(Some(100), 5) }, now);
            let end = now + minutes * MINUTE;
            assert!(ledger.current(end - Duration::from_secs(1)).is_some(), "{window:?} {reset:?}");
            assert!(ledger.current(end).is_none(), "{window:?} {reset:?}");
        }
    }

    #[test]
    fn a_refused_pull_leaves_blobs_alone_and_any_other_refusal_stops_all() {
        use Charge::{Blob, Document, Look, Token};
        for (refused, stopped, free) in [
            (Document, &[Document, Look][..], &[Blob, Token][..]),
            (Look, &[Document, Look, Blob, Token], &[]),
            (Blob, &[Document, Look, Blob, Token], &[]),
            (Token, &[Document, Look, Blob, Token], &[]),
        ] {
            let now = Instant::now();
            let mut ledger = Ledger::default();
            assert!(ledger.limited(refused, None, now));
            for charge in stopped {
                assert_eq!(ledger.cooling(*charge, now), Some(MINUTE), "{refused:?} {charge:?}");
                assert_eq!(ledger.cooling(*charge, now + MINUTE), None, "{refused:?} {charge:?}");
            }
            for charge in free {
                assert_eq!(ledger.cooling(*charge, now), None, "{refused:?} {charge:?}");
            }
        }
    }

    #[test]
    fn only_a_pull_proves_that_pulls_are_free_again() {
        let start = Instant::now();
        for (proof, pause) in [(Charge::Look, 2), (Charge::Blob, 2), (Charge::Document, 1)] {
            let mut ledger = Ledger::default();
            ledger.limited(Charge::Document, None, start);
            let later = start + 2 * MINUTE;
            ledger.succeeded(proof, later);
            ledger.limited(Charge::Document, None, later);
            assert_eq!(ledger.cooling(Charge::Document, later), Some(pause * MINUTE), "{proof:?}");
        }
    }

    #[test]
    fn a_limit_that_is_used_up_tells_by_its_reset_when_to_come_back() {
        let now = Instant::now();
        let reset = Some(Duration::from_secs(42));
        for (remaining, hint, expected) in
            [(0, None, 42), (0, Some(Duration::from_secs(7)), 7), (1, None, 60), (1, Some(Duration::from_secs(7)), 7)]
        {
            let mut ledger = Ledger::default();
            ledger.read(Reading { reset, ..reading(Some(100), remaining) }, now);
            ledger.limited(Charge::Document, hint, now);
            assert_eq!(ledger.cooling(Charge::Look, now), Some(Duration::from_secs(expected)), "{remaining} {hint:?}");
        }
    }
}
