//! How long an account is left alone after a 429: pure.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause, where the upstream does not say how long.
const FIRST: Duration = Duration::from_secs(60);
/// The longest: windows roll, so that something is free again long before their end.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// A pause, and how many there were in a row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CoolDown {
    until: Option<Instant>,
    /// Pauses in a row whose length nobody told.
    strikes: u32,
}

impl CoolDown {
    /// A request was refused at the time `now`, with word on how long to stay away or without. Returns whether a pause
    /// begins.
    pub(super) fn begin(&mut self, hint: Option<Duration>, now: Instant) -> bool {
        let is_new = self.left(now).is_none();
        let pause = hint.unwrap_or_else(|| {
            // Those that were under way when the pause began are no proof that it was too short.
            self.strikes += u32::from(is_new);
            let doublings = self.strikes.saturating_sub(1).min(8);
            FIRST * 2_u32.pow(doublings)
        });
        let pause_end = now + pause.min(LONGEST);
        if is_new || hint.is_some() {
            self.until = self.until.max(Some(pause_end));
        }
        is_new
    }

    /// A request of the same kind was answered. One that was under way when the pause began does not end it.
    pub(super) fn succeeded(&mut self, now: Instant) {
        if self.left(now).is_none() {
            *self = Self::default();
        }
    }

    /// How much of it is left.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn without_a_hint_pauses_double_up_to_a_quarter_of_an_hour_until_there_is_a_success() {
        let mut now = Instant::now();
        let mut cool_down = CoolDown::default();
        for expected in [60, 120, 240, 480, 900, 900, 900, 900, 900, 900, 900] {
            assert!(cool_down.begin(None, now));
            assert_eq!(cool_down.left(now), Some(seconds(expected)));
            now += seconds(expected);
            assert_eq!(cool_down.left(now), None);
        }
        cool_down.succeeded(now);
        cool_down.begin(None, now);
        assert_eq!(cool_down.left(now), Some(seconds(60)));
    }

    #[test]
    fn a_hint_is_kept_to_and_is_no_strike() {
        let now = Instant::now();
        let mut cool_down = CoolDown::default();
        cool_down.begin(Some(seconds(7)), now);
        assert_eq!(cool_down.left(now), Some(seconds(7)));
        cool_down.begin(Some(seconds(3600)), now + seconds(8));
        assert_eq!(cool_down.left(now + seconds(8)), Some(LONGEST));
        let later = now + seconds(3600);
        cool_down.begin(None, later);
        assert_eq!(cool_down.left(later), Some(seconds(60)));
    }

    #[test]
    fn what_was_under_way_neither_lengthens_nor_ends_a_pause() {
        let now = Instant::now();
        let mut cool_down = CoolDown::default();
        assert!(cool_down.begin(None, now));
        assert!(!cool_down.begin(None, now + seconds(1)));
        cool_down.succeeded(now + seconds(2));
        assert_eq!(cool_down.left(now + seconds(2)), Some(seconds(58)));
        cool_down.begin(Some(seconds(5)), now + seconds(3));
        assert_eq!(cool_down.left(now + seconds(3)), Some(seconds(57)), "the later end counts");
        cool_down.begin(None, now + seconds(60));
        assert_eq!(cool_down.left(now + seconds(60)), Some(seconds(120)));
    }
}
