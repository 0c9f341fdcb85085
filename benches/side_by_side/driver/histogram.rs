//! Times by the million, in a few kilobytes.

use std::time::Duration;

/// Buckets for each power of two: a quantile is right to 1 in 64.
const STEPS: usize = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Up to 2^40 ns, which is 18 minutes.
const BUCKETS: usize = STEPS * (41 - STEP_BITS as usize);

/// How often each time was seen, to a precision of 1 in 64.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    max: Duration,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS].into(), count: 0, max: Duration::ZERO }
    }

    pub(crate) fn record(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanoseconds)] += 1;
        self.count += 1;
        self.max = self.max.max(time);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (own, others) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += others;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn max(&self) -> Duration {
        self.max
    }

    /// The time that `part` of all were not longer than: `0.5` for the median.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "statistics"
    )]
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.count as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return Duration::from_nanos(upper_end(bucket)).min(self.max);
            }
        }
        self.max
    }
}

/// Buckets below `STEPS` are exact; above, each power of two has `STEPS` of them.
fn bucket(nanoseconds: u64) -> usize {
    let shift = (u64::BITS - nanoseconds.leading_zeros()).saturating_sub(STEP_BITS + 1);
    let step = usize::try_from(nanoseconds >> shift).unwrap_or(usize::MAX);
    (shift as usize * STEPS).saturating_add(step).min(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> u64 {
    let shift = (bucket / STEPS).saturating_sub(1);
    let step = (bucket - shift * STEPS) as u64;
    ((step + 1) << shift) - 1
}
