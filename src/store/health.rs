//! What went wrong lately: counted always, logged once per interval, shown in readiness.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::StoreError;
use crate::telemetry::Occasionally;
use crate::telemetry::metrics::StoreMetrics;

/// How long a failure is shown as trouble, and how often failures are logged.
const MEMORY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Health {
    metrics: StoreMetrics,
    log: Occasionally,
    last: Mutex<Option<(Instant, String)>>,
}

impl Health {
    pub(super) fn new(metrics: StoreMetrics) -> Self {
        Self { metrics, log: Occasionally::once_per(MEMORY), last: Mutex::new(None) }
    }

    /// Notes a failure. The pull that met it goes on without the store.
    pub(super) fn record(&self, error: &StoreError) {
        self.metrics.errors.with_label_values(&[error.operation(), error.kind()]).inc();
        *self.last.lock() = Some((Instant::now(), error.to_string()));
        if let Some(suppressed) = self.log.due() {
            tracing::warn!(%error, kind = error.kind(), suppressed, "The store failed; pulls go on uncached");
        }
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.last.lock().as_ref().filter(|(when, _)| when.elapsed() < MEMORY).map(|(_, what)| what.clone())
    }
}
