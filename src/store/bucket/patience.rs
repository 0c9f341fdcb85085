//! How long a bucket is waited for, and how often it is asked again.
//!
//! Somebody waits behind a read, and an upstream has the same bytes: so a read is tried three times within three
//! seconds, and then it is a miss. A bucket that fails three times in a row is not asked at all for a while, so that not
//! every pull waits; then one request finds out. Nobody waits behind a write, which has more time.

use std::time::Duration;

use tokio::time::Instant;

/// For how long, and how often, something is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How often, the first time included.
    pub(super) tries: u32,
    /// How long all of it may take.
    pub(super) within: Duration,
    /// What lies between the first try and the second; it doubles.
    pub(super) pause: Duration,
}

/// For what somebody waits for.
pub(super) const READ: Patience =
    Patience { tries: 3, within: Duration::from_secs(3), pause: Duration::from_millis(100) };
/// For what is done in the background.
pub(super) const WRITE: Patience =
    Patience { tries: 4, within: Duration::from_secs(5 * 60), pause: Duration::from_millis(500) };

impl Patience {
    /// How long to wait after `tries` tries before the next, if there is one. `fraction`, from 0 to 1, spreads those
    /// who wait for the same thing over the second half of it.
    pub(super) fn pause_after(self, tries: u32, fraction: f64) -> Option<Duration> {
        let pause = self.pause * 2_u32.saturating_pow(tries.saturating_sub(1));
        (tries < self.tries).then(|| pause.mul_f64(fraction.mul_add(0.5, 0.5)))
    }
}

/// How many failures in a row are enough.
const FAILURES: u32 = 3;
/// The first pause. It doubles with every further failure, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether a bucket that failed is asked at all.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// Nobody asks before then.
    until: Option<Instant>,
}

impl Breaker {
    /// Whether it may be asked at `now`. One that may after a pause asks for all: the others wait for what it finds.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        match self.until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.until = Some(now + READ.within);
                true
            }
        }
    }

    /// It answered, if only that there is nothing.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It failed at `now`.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if let Some(further) = self.failures.checked_sub(FAILURES) {
            let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(further)).min(LONGEST_PAUSE);
            self.until = Some(now + pause);
        }
    }

    /// Whether it is being left alone.
    pub(super) const fn is_open(&self) -> bool {
        self.until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_given_up_soon_and_pauses_are_spread() {
        assert_eq!(READ.pause_after(1, 1.0), Some(Duration::from_millis(100)));
        assert_eq!(READ.pause_after(2, 0.0), Some(Duration::from_millis(100)));
        assert_eq!(READ.pause_after(2, 1.0), Some(Duration::from_millis(200)));
        assert_eq!(READ.pause_after(3, 1.0), None);
        assert_eq!(WRITE.pause_after(3, 1.0), Some(Duration::from_secs(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_that_fails_in_a_row_is_left_alone_and_looked_at_now_and_then() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..FAILURES {
            assert!(breaker.admits(now));
            breaker.failed(now);
        }
        assert!(!breaker.admits(now) && breaker.is_open());
        let mut pause = FIRST_PAUSE;
        for _ in 0..6 {
            now += pause;
            assert!(!breaker.admits(now - Duration::from_millis(1)));
            assert!(breaker.admits(now), "one may ask after {pause:?}");
            assert!(!breaker.admits(now), "and nobody else meanwhile");
            breaker.failed(now);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        now += pause;
        assert!(breaker.admits(now));
        breaker.succeeded();
        assert!(breaker.admits(now) && breaker.admits(now) && !breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_whose_end_nobody_tells_is_followed_by_another() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        (0..FAILURES).for_each(|_| breaker.failed(now));
        let now = now + FIRST_PAUSE;
        assert!(breaker.admits(now) && !breaker.admits(now));
        assert!(breaker.admits(now + READ.within));
    }
}
