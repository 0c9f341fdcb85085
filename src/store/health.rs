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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::Metrics;
    use crate::telemetry::captured::Lines;

    #[tokio::test(start_paused = true)]
    async fn failures_are_all_counted_and_told_once_per_interval() {
        let metrics = Metrics::new().unwrap();
        let health = Health::new(metrics.store.clone());
        let (lines, _collecting) = Lines::collect();
        let full = StoreError::Io { operation: "write", source: Arc::new(io::ErrorKind::StorageFull.into()) };
        for _ in 0..3 {
            health.record(&full);
        }
        assert!(health.trouble().is_some());
        tokio::time::advance(MEMORY).await;
        assert!(health.trouble().is_none(), "nothing has failed for a while");
        health.record(&full);
        assert_eq!(metrics.store.errors.with_label_values(&["write", "enospc"]).get(), 4);
        let logged = lines.text();
        assert_eq!(logged.lines().count(), 2, "{logged}");
        assert!(logged.contains("\"suppressed\":2"), "{logged}");
    }
}
