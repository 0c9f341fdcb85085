//! Lines that would repeat: logged once per interval, with a count of those left out.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets one line through per interval.
///
/// A full disk or a used-up descriptor table fails every request in the same way; one line and a number say as much as
/// thousands of lines.
#[derive(Debug)]
pub struct Occasionally {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl Occasionally {
    /// At most one line per `interval`.
    pub fn once_per(interval: Duration) -> Self {
        Self { interval, state: Mutex::new(State::default()) }
    }

    /// Whether a line is due. If so, how many were left out since the one before.
    pub fn due(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now.duration_since(last) < self.interval) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_per_interval_and_the_next_one_counts_those_left_out() {
        let occasionally = Occasionally::once_per(Duration::from_secs(10));
        assert_eq!(occasionally.due(), Some(0));
        assert_eq!(occasionally.due(), None);
        advance(Duration::from_secs(9)).await;
        assert_eq!(occasionally.due(), None);
        advance(Duration::from_secs(1)).await;
        assert_eq!(occasionally.due(), Some(2));
        advance(Duration::from_secs(10)).await;
        assert_eq!(occasionally.due(), Some(0));
    }
}
