//! Time as the index keeps it: in whole seconds of a clock that never jumps.
//!
//! The wall clock is asked twice only: at start, when the times of files say how long ago they were used, and when such
//! a time is written. Between the two a wall clock that jumps by a day changes nothing, and at start a time in the
//! future is now: nothing is immortal, nothing goes at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A moment, in seconds. Half of the numbers lie before the start: that is 68 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u32);

impl Tick {
    /// When the store was opened.
    pub const START: Self = Self(1 << 31);

    /// How long `earlier` is ago; nothing if it is yet to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::from(self.0.saturating_sub(earlier.0)))
    }

    /// So much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u32::try_from(time.as_secs()).unwrap_or(u32::MAX)))
    }

    /// So much earlier.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(u32::try_from(time.as_secs()).unwrap_or(u32::MAX)))
    }

    /// When the `period` in which it lies began, in seconds after the start.
    pub(super) fn begin_of(self, period: Duration) -> i64 {
        let (seconds, period) = (i64::from(self.0) - i64::from(Self::START.0), i64::try_from(period.as_secs()));
        let period = period.unwrap_or(i64::MAX).max(1);
        seconds.div_euclid(period) * period
    }
}

/// Lets something that is done all the time be noted once a minute. Asking takes a look at memory that nobody writes.
#[derive(Debug, Default)]
pub struct OncePerMinute(AtomicU32);

impl OncePerMinute {
    /// Whether it was not noted in this minute. Then it is now.
    pub(in crate::store) fn is_due(&self, now: Tick) -> bool {
        let minute = now.0 / 60;
        let is_due = self.0.load(Ordering::Relaxed) != minute;
        if is_due {
            self.0.store(minute, Ordering::Relaxed);
        }
        is_due
    }
}

/// The clock of a store.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Clock {
    started: Instant,
}

impl Clock {
    /// It starts now.
    pub(in crate::store) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(in crate::store) fn now(&self) -> Tick {
        Tick::START.after(self.started.elapsed())
    }

    /// The moment that a file gives as `time`, when the wall clock says `wall`.
    pub(in crate::store) fn of(&self, time: SystemTime, wall: SystemTime) -> Tick {
        // A time in the future was written by a clock that has been put right since, or by somebody else.
        self.now().before(wall.duration_since(time).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_from_the_future_was_used_now() {
        let (clock, wall) = (Clock::start(), SystemTime::now());
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(clock.of(wall + day * 3650, wall), Tick::START);
        assert_eq!(clock.of(wall - day, wall), Tick::START.before(day));
        tokio::time::advance(day).await;
        assert_eq!(clock.of(wall, wall), Tick::START.after(day));
        assert!(clock.of(SystemTime::UNIX_EPOCH, wall) < Tick::START, "the oldest there is");
    }

    #[test]
    fn what_is_done_all_the_time_is_noted_once_a_minute() {
        let (noted, minute) = (OncePerMinute::default(), Duration::from_secs(60));
        let due: Vec<_> = (0..4).map(|half| noted.is_due(Tick::START.after(minute * half / 2))).collect();
        assert_eq!(due.iter().filter(|due| **due).count(), 2 + usize::from(due[1]));
        assert!(due[0]);
    }

    #[test]
    fn periods_begin_at_whole_ones_before_and_after_the_start() {
        let hour = Duration::from_secs(3600);
        for (tick, begin) in [
            (Tick::START, 0),
            (Tick::START.after(hour / 60 * 59), 0),
            (Tick::START.after(hour), 3600),
            (Tick::START.before(Duration::from_secs(1)), -3600),
        ] {
            assert_eq!(tick.begin_of(hour), begin);
        }
    }
}
