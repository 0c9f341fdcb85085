//! Whether an upstream sends too slowly to be waited for: pure.
//!
//! Only the time spent waiting for it counts. Somebody who reads slowly, as a slow client of a blob that passes through
//! does, would otherwise make the fastest upstream look slow.

use std::collections::VecDeque;
use std::time::Duration;

/// Fewer bytes a second than this, over the whole of [`WINDOW`], are too few.
const FLOOR: u64 = 32 * 1024;

/// How long a transfer may take that brings next to nothing.
const GRACE: Duration = Duration::from_secs(30 * 60);

/// How long it has to be slow.
const WINDOW: Duration = Duration::from_secs(60);

/// How far apart what is remembered lies, which bounds how much there is of it.
const GRAIN: Duration = Duration::from_secs(1);

/// How long a transfer may take in all that has brought so much: as long as it keeps above the floor, and half an hour.
/// An endless trickle ends, the largest layer over the thinnest line does not.
pub(super) const fn longest(received: u64) -> Duration {
    GRACE.saturating_add(Duration::from_secs(received / FLOOR))
}

/// How fast bytes have come in the last minute of waiting for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    waited: Duration,
    received: u64,
    /// After how long a wait how many bytes had come, at most one entry per [`GRAIN`], the oldest first. The first one
    /// is the latest that is at least [`WINDOW`] ago, once there is such.
    marks: VecDeque<(Duration, u64)>,
}

impl Pace {
    /// So many bytes came after such a wait. The floor, once they fall below it.
    pub(super) fn received(&mut self, bytes: u64, waited: Duration) -> Option<TooSlow> {
        if self.marks.is_empty() {
            self.marks.push_back((Duration::ZERO, 0));
        }
        self.waited += waited;
        self.received += bytes;
        if self.marks.back().is_some_and(|(at, _)| self.waited >= *at + GRAIN) {
            self.marks.push_back((self.waited, self.received));
        }
        while self.marks.get(1).is_some_and(|(at, _)| self.waited >= *at + WINDOW) {
            self.marks.pop_front();
        }
        let (since, before) = *self.marks.front()?;
        let span = self.waited.saturating_sub(since);
        let received = self.received - before;
        let is_slow = span >= WINDOW && u128::from(received) * 1000 < u128::from(FLOOR) * span.as_millis();
        is_slow.then_some(TooSlow { received, span })
    }
}

/// So few bytes came in so long a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Sent {received} bytes in {} s", .span.as_secs())]
pub(super) struct TooSlow {
    received: u64,
    span: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many seconds a body is too slow that brings so many bytes every `step`.
    fn slow_after(bytes: u64, step: Duration) -> Option<u64> {
        let mut pace = Pace::default();
        let mut waited = Duration::ZERO;
        while waited < 10 * WINDOW {
            waited += step;
            if pace.received(bytes, step).is_some() {
                return Some(waited.as_secs());
            }
        }
        None
    }

    #[test]
    fn under_the_floor_for_a_minute_is_too_slow() {
        let second = Duration::from_secs(1);
        let rows = [
            (1, second, Some(60)),
            (FLOOR - 1, second, Some(60)),
            (FLOOR, second, None),
            (FLOOR / 10, second / 10, Some(60)),
            (FLOOR / 10 + 1, second / 10, None),
            // Long silences with a gulp at the end of each.
            (29 * FLOOR - 1, 29 * second, Some(87)),
            (29 * FLOOR, 29 * second, None),
        ];
        for (bytes, step, slow) in rows {
            assert_eq!(slow_after(bytes, step), slow, "{bytes} bytes every {step:?}");
        }
    }

    #[test]
    fn a_fast_beginning_is_forgotten_after_a_minute() {
        let mut pace = Pace::default();
        assert_eq!(pace.received(1 << 40, Duration::from_secs(1)), None);
        let slow = (1..200).find(|_| pace.received(1, Duration::from_secs(1)).is_some());
        assert_eq!(slow, Some(60));
    }

    #[test]
    fn a_transfer_above_the_floor_never_takes_too_long_and_a_trickle_does() {
        let cut_off = |rate: u64| (0..100_000).find(|second| longest(second * rate) < Duration::from_secs(*second));
        for (rate, second) in [(0, Some(1801)), (FLOOR / 2, Some(3601)), (FLOOR, None), (40 * FLOOR, None)] {
            assert_eq!(cut_off(rate), second, "{rate} bytes a second");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut pace = Pace::default();
        for _ in 0..100_000 {
            pace.received(FLOOR, Duration::from_millis(100));
        }
        assert!(pace.marks.len() <= 62, "{}", pace.marks.len());
    }

    #[test]
    fn who_is_not_waited_for_is_never_slow() {
        assert_eq!(slow_after(1, Duration::from_secs(1)), Some(60));
        let mut pace = Pace::default();
        assert!((0..100_000).all(|_| pace.received(1, Duration::ZERO).is_none()));
    }
}
