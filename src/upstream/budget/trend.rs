//! When a rate limit will be used up, if things go on as they do: pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How far back use counts.
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// Readings nearer to each other than this count as one, which bounds how many are kept.
const GRAIN: Duration = Duration::from_secs(10);
/// A rate is never taken over less: a burst at start is not what goes on.
const LEAST: Duration = Duration::from_secs(60);

/// What was left of a limit, over the last minutes.
#[derive(Debug, Default)]
pub(super) struct Trend {
    /// Oldest first.
    readings: VecDeque<(Instant, u64)>,
}

impl Trend {
    /// So many were left at the time `now`.
    pub(super) fn note(&mut self, remaining: u64, now: Instant) {
        // More than before by far: the window has begun anew, and what was used in the last one is over. A little more
        // is an answer that was overtaken, or a window that rolls.
        if self.readings.back().is_some_and(|(_, before)| remaining > before.saturating_add(before / 4 + 10)) {
            self.readings.clear();
        }
        while self.readings.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.readings.pop_front();
        }
        let mut latest = self.readings.iter().rev();
        if let (Some((last, _)), Some((before, _))) = (latest.next(), latest.next())
            && last.duration_since(*before) < GRAIN
        {
            self.readings.pop_back();
        }
        self.readings.push_back((now, remaining));
    }

    /// In how long nothing is left, seen from `now`; `None` if it does not get less.
    pub(super) fn exhausted_in(&self, now: Instant) -> Option<Duration> {
        let (since, before) = *self.readings.front()?;
        let (at, remaining) = *self.readings.back()?;
        let used = before.checked_sub(remaining).filter(|used| *used > 0)?;
        let span = at.duration_since(since).max(LEAST);
        let left = span.checked_mul(u32::try_from(remaining).ok()?)? / u32::try_from(used).ok()?;
        Some((at + left).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens, the readings as pairs of second and rest, and what is foreseen.
    type Row<'a> = (&'static str, &'a [(u64, u64)], Option<u64>);

    /// What a trend foresees, in seconds from the last of `readings`, which are pairs of second and rest.
    fn foreseen(readings: &[(u64, u64)]) -> Option<u64> {
        let start = Instant::now();
        let mut trend = Trend::default();
        let mut now = start;
        for (second, remaining) in readings {
            now = start + Duration::from_secs(*second);
            trend.note(*remaining, now);
        }
        assert!(trend.readings.len() <= 62, "{}", trend.readings.len());
        trend.exhausted_in(now).map(|left| left.as_secs())
    }

    #[test]
    fn use_is_projected() {
        let steady: Vec<_> = (0..=2000).map(|second| (second, 3000 - second)).collect();
        let crawl: Vec<_> = (0..100).map(|step| (step * 100, 1000 - step)).collect();
        let rows: &[Row<'_>] = &[
            ("nothing known", &[], None),
            ("one reading", &[(0, 100)], None),
            ("no use", &[(0, 100), (300, 100)], None),
            ("one a second", &[(0, 100), (60, 40)], Some(40)),
            ("a burst counts as if it had taken a minute", &[(0, 100), (1, 90)], Some(540)),
            ("used up", &[(0, 100), (100, 0)], Some(0)),
            ("a new window", &[(0, 100), (100, 5), (101, 100)], None),
            ("use in a new window", &[(0, 100), (100, 5), (101, 100), (161, 40)], Some(40)),
            ("an answer that was overtaken", &[(0, 100), (59, 40), (60, 41)], Some(41)),
            ("only the last minutes count", &[(0, 1000), (3600, 500), (3660, 440)], Some(440)),
            ("so many that more cannot be told", &[(0, u64::MAX), (60, u64::MAX)], None),
            ("many readings", &steady, Some(1000)),
            ("slow use", &crawl, Some(90_100)),
        ];
        for (what, readings, expected) in rows {
            assert_eq!(foreseen(readings), *expected, "{what}");
        }
    }
}
