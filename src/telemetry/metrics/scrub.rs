//! Hashing again what nobody asks for, as metrics.

use prometheus::{IntCounter, IntGauge};

use super::Register;

/// The pass over the store.
#[derive(Debug, Clone)]
pub struct ScrubMetrics {
    /// Bytes hashed again in the background.
    pub bytes: IntCounter,
    last_pass: IntGauge,
}

impl ScrubMetrics {
    pub(super) fn register(new: &mut Register) -> Result<Self, prometheus::Error> {
        Ok(Self {
            bytes: new.counter(
                "weir_verify_scrubbed_bytes_total",
                "Bytes of stored content hashed again in the background, without anybody asking for it",
            )?,
            last_pass: new.gauge(
                "weir_verify_last_pass_timestamp_seconds",
                "When a pass over all of the store ended last, in seconds since 1970; 0 if none has",
            )?,
        })
    }

    /// A pass over all of the store ended `at` so many seconds after 1970; `None` if none has.
    pub fn passed(&self, at: Option<u64>) {
        self.last_pass.set(at.and_then(|at| i64::try_from(at).ok()).unwrap_or_default());
    }
}
