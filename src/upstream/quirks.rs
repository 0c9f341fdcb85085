//! What was found out about an upstream and saves a request in vain, until it may have been mended.
//!
//! Nothing here says that an upstream is well or ill; it is asked all the same, only otherwise or later.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What an upstream does not do.
#[derive(Debug)]
pub(super) struct Quirks {
    /// It sends other parts of blobs than those that are asked for.
    pub(super) wrong_parts: Quirk,
    /// It answers no HEAD for manifests.
    pub(super) no_head: Quirk,
    /// It has no referrers API.
    pub(super) no_referrers: Quirk,
}

impl Default for Quirks {
    fn default() -> Self {
        let minutes = |minutes: u64| Quirk::lasting(Duration::from_secs(minutes * 60));
        Self { wrong_parts: minutes(10), no_head: minutes(10), no_referrers: minutes(5) }
    }
}

/// One of them, for a while after it was seen.
#[derive(Debug)]
pub(super) struct Quirk {
    lasts: Duration,
    seen: Mutex<Option<Instant>>,
}

impl Quirk {
    fn lasting(lasts: Duration) -> Self {
        Self { lasts, seen: Mutex::new(None) }
    }

    /// It was seen.
    pub(super) fn note(&self, now: Instant) {
        *self.seen.lock() = Some(now);
    }

    /// Whether it is to be reckoned with.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.seen.lock().is_some_and(|seen| now < seen + self.lasts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_quirk_is_reckoned_with_for_a_while_after_it_was_seen() {
        let (quirk, now) = (Quirk::lasting(Duration::from_secs(600)), Instant::now());
        assert!(!quirk.holds(now));
        quirk.note(now);
        assert!(quirk.holds(now + Duration::from_secs(599)));
        assert!(!quirk.holds(now + Duration::from_secs(600)));
        quirk.note(now + Duration::from_secs(600));
        assert!(quirk.holds(now + Duration::from_secs(601)));
    }
}
