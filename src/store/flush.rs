//! Flushes of a file that is still growing, beside its writes: a power cut then costs the last piece of it, not all.

use std::io;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::error::StoreError;

/// How many bytes are written before the next flush is due.
pub(super) const INTERVAL: u64 = 64 * 1024 * 1024;

/// The flushes of one file, one at a time.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    /// Up to where it has been flushed.
    synced: u64,
    /// Up to where it is being flushed, and how that ends.
    under_way: Option<(u64, JoinHandle<Result<(), StoreError>>)>,
}

impl Flushes {
    /// For a file whose first `synced` bytes have been flushed.
    pub(super) fn from(synced: u64) -> Self {
        Self { synced, under_way: None }
    }

    /// How many bytes have been flushed, as far as is known.
    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    /// Begins `flush` of the first `written` bytes, if one is due. It runs by itself: nobody waits for the disk.
    pub(super) fn begin<F>(&mut self, written: u64, flush: impl FnOnce() -> F)
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        if self.under_way.is_none() && written >= self.synced + INTERVAL {
            self.under_way = Some((written, tokio::spawn(flush())));
        }
    }

    /// How the flush under way ended, if it has. A failure is that of the whole file: the system may have dropped what
    /// it could not write, and says so once.
    pub(super) async fn check(&mut self) -> Result<(), StoreError> {
        let is_finished = self.under_way.as_ref().is_some_and(|(_, flush)| flush.is_finished());
        if is_finished { self.end().await } else { Ok(()) }
    }

    /// Waits for the flush under way.
    pub(super) async fn end(&mut self) -> Result<(), StoreError> {
        let Some((written, flush)) = &mut self.under_way else { return Ok(()) };
        let (written, ended) = (*written, flush.await);
        self.under_way = None;
        // Nobody knows how a flush ended that panicked.
        ended.map_err(|error| StoreError::Io { operation: "sync", source: Arc::new(io::Error::other(error)) })??;
        self.synced = written;
        Ok(())
    }
}
