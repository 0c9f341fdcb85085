//! The threads that wait for the disk.
//!
//! Tokio's blocking threads are shared with everything else in the process, so the store takes at most [`THREADS`] of
//! them: a disk that hangs makes pulls wait, not the whole server.

use std::io;
use std::sync::Arc;

use prometheus::HistogramVec;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::error::StoreError;

/// How many operations may wait for the disk at once.
const THREADS: u32 = 64;

#[derive(Debug, Clone)]
pub(super) struct Pool {
    permits: Arc<Semaphore>,
    durations: HistogramVec,
}

impl Pool {
    /// Operations are timed in `durations`, their wait for a thread included.
    pub(super) fn new(durations: HistogramVec) -> Self {
        Self { permits: Arc::new(Semaphore::new(THREADS as usize)), durations }
    }

    /// Returns when all that is under way has ended. Nothing is begun any more: whoever asks for something waits for ever.
    pub(super) async fn stop(&self) {
        // The semaphore is never closed.
        if let Ok(all) = self.permits.acquire_many(THREADS).await {
            all.forget();
        }
    }

    /// Whether many wait for the disk.
    pub(super) fn is_pressed(&self) -> bool {
        self.permits.available_permits() < THREADS as usize / 2
    }

    /// Runs a blocking `task` and names a failure after what was tried.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        task: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let ran = self.run_any(task).await;
        let outcome = if ran.is_ok() { "ok" } else { "error" };
        self.durations.with_label_values(&["disk", operation, outcome]).observe(begun.elapsed().as_secs_f64());
        ran.map_err(|source| StoreError::Io { operation, source: Arc::new(source) })
    }

    /// Runs a blocking `task` that has an error type of its own.
    pub(super) async fn run_any<T, E>(&self, task: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        // The semaphore is never closed; without a permit the task would still be right, only unbounded.
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let ran = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            task()
        })
        .await;
        match ran {
            Ok(outcome) => outcome,
            // Blocking tasks are not aborted, so the task panicked: its panic goes on where it was called.
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}
