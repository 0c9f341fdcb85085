//! How fast the upstream is: as fast as it can, or like a registry that is 20 ms and a gigabit away.

use std::thread;
use std::time::Duration;

use tokio::time::Instant;

/// Before each head, when shaped.
const LATENCY: Duration = Duration::from_millis(20);
/// Of each connection, when shaped.
const BYTES_PER_SECOND: u64 = 100_000_000;
/// What is sent between two looks at the clock: 2.6 ms worth.
pub(super) const PORTION: u64 = 256 << 10;

/// How requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// At once and as fast as the loopback interface is.
    Plain,
    /// 20 ms before each head, 100 MB/s per connection.
    Shaped,
}

impl Shape {
    /// Waits as long as the way to a registry takes.
    pub(super) fn before_head(self) {
        if self == Self::Shaped {
            thread::sleep(LATENCY);
        }
    }
}

/// Holds a body to its rate.
#[derive(Debug)]
pub(super) struct Pace {
    shape: Shape,
    started: Instant,
}

impl Pace {
    pub(super) fn start(shape: Shape) -> Self {
        Self { shape, started: Instant::now() }
    }

    /// Waits until `sent` bytes may have been sent.
    pub(super) fn hold(&self, sent: u64) {
        if self.shape == Shape::Shaped {
            let due = self.started + Duration::from_nanos(sent * 1_000_000_000 / BYTES_PER_SECOND);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}
