//! The leader's task: fetch a blob once, hash it, spool it, let others read it as it grows, and keep it.
//!
//! A fetch that breaks off leaves what it had to the next one, which goes on behind it.
//!
//! The task belongs to the service, not to a request: it runs to its end whoever leaves. It never waits for a reader,
//! and no reader waits for another. Its one promise to all who follow: the last [`HELD_BACK`] bytes are not let go
//! before the whole has been counted and hashed, so nobody gets a complete answer with wrong bytes in it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use prometheus::{IntGauge, IntGaugeVec};
use tokio::time::{Instant, timeout};

use super::OPEN_TIMEOUT;
use super::error::{FillError, Prefix};
use super::flight::{Opened, Permit};
use crate::oci::request::BlobRequest;
use crate::oci::{Digest, RegistryHost};
use crate::store::blob::BLOCK;
use crate::store::{Spool, Store, StoreError};
use crate::telemetry::Metrics;
use crate::upstream::{BlobBody, BytesAsked, UpstreamError, UpstreamSet, WantedBlob};

/// How much of a blob is held back until its digest matches.
pub(super) const HELD_BACK: u64 = 64 * 1024;

/// How long a fetch may take in all, whoever waits for it.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// A blob to fetch, and the means.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) registry: RegistryHost,
    pub(super) upstreams: Arc<UpstreamSet>,
    pub(super) request: BlobRequest,
    /// The size a manifest gave, if one was seen.
    pub(super) expected: Option<u64>,
    pub(super) store: Store,
    pub(super) metrics: Metrics,
}

impl Fill {
    /// Fetches the blob and tells the flight how it goes. The flight stays joinable until the blob has its name for
    /// good.
    pub(super) async fn run(self, permit: Permit) {
        let _in_flight = InFlight::new(&self.metrics.pull.downloads_in_flight, &self.registry);
        let fetched = Box::pin(timeout(TOTAL_TIMEOUT, self.fetch(&permit))).await;
        match fetched.unwrap_or(Err(FillError::TooLong(TOTAL_TIMEOUT))) {
            Ok(spool) => {
                self.keep(spool).await;
                drop(permit);
            }
            Err(error) => {
                self.report(&error);
                permit.fail(error);
            }
        }
    }

    /// The store has counted and logged its own failures, and they cost no client anything.
    fn report(&self, error: &FillError) {
        let (registry, digest) = (&self.registry, &self.request.digest);
        match error {
            FillError::Store { .. } => tracing::debug!(%registry, %digest, %error, "A blob passes through uncached"),
            error => tracing::warn!(%registry, %digest, %error, "A blob could not be fetched"),
        }
    }

    /// From the first byte to the verdict. On return all of the blob is in the spool, is right, and may be read.
    async fn fetch(&self, permit: &Permit) -> Result<Spool, FillError> {
        // Room first: a store that is full should not cost an upstream a request that is then thrown away.
        let spool = self.store.spool(&self.request.digest, self.expected).await;
        let Opening { mut spool, size, body } = self.open(spool.map_err(|error| self.without_store(error))?).await?;
        let upstream = body.as_ref().map(|body| Arc::clone(body.upstream()));
        permit.open(Opened { size, upstream: upstream.clone(), file: spool.reader() });
        let fetched = fetch_into(&mut spool, body, size, permit).await;
        let judged = fetched.and_then(|()| self.judge(&spool, size, upstream.as_deref()));
        match judged {
            Ok(()) => {
                self.metrics.store.resumed_bytes.inc_by(spool.resumed());
                permit.complete(spool.written());
                Ok(spool)
            }
            Err(error) => {
                // What broke off can be gone on with; what was wrong cannot.
                if error.is_of_wrong_bytes() {
                    spool.discard();
                }
                Err(error)
            }
        }
    }

    /// Opens the blob at an upstream, behind what an interrupted download left of it. Nothing has been let go yet.
    async fn open(&self, mut spool: Spool) -> Result<Opening, FillError> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let (resumed, size) = (spool.resumed(), spool.size());
        if resumed > 0 {
            let body = if size == Some(resumed) {
                // Only its name was missing.
                None
            } else {
                let rest = BytesAsked::from(resumed);
                match self.upstreams.open_blob_range(WantedBlob::new(&self.request, size, deadline), rest).await {
                    Ok(body) => Some(body),
                    // The whole can still be had; what was left of it is of no use then.
                    Err(attempts) if attempts.is_part_refused() => {
                        tracing::debug!(digest = %self.request.digest, %attempts, "Fetching from the first byte");
                        let spool = spool.restart().await.map_err(|error| self.without_store(error))?;
                        return self.open_whole(spool, deadline).await;
                    }
                    Err(attempts) => return Err(FillError::Upstream(attempts)),
                }
            };
            let size = size.or(body.as_ref().and_then(BlobBody::size));
            let upstream = body.as_ref().map(|body| &**body.upstream());
            tracing::info!(registry = %self.registry, digest = %self.request.digest, upstream, bytes = resumed, size, "resumed");
            spool.announce(size);
            return Ok(Opening { spool, size, body });
        }
        self.open_whole(spool, deadline).await
    }

    async fn open_whole(&self, mut spool: Spool, deadline: Instant) -> Result<Opening, FillError> {
        let body = self.upstreams.open_blob(WantedBlob::new(&self.request, self.expected, deadline)).await;
        let body = body.map_err(FillError::Upstream)?;
        let size = body.size().or(self.expected);
        spool.announce(size);
        Ok(Opening { spool, size, body: Some(body) })
    }

    /// The store takes nothing, and nothing has been written yet.
    fn without_store(&self, error: StoreError) -> FillError {
        let nothing = Prefix { length: 0, digest: Digest::of_with(self.request.digest.algorithm(), b"") };
        FillError::Store { error, prefix: nothing }
    }

    fn judge(&self, spool: &Spool, size: Option<u64>, upstream: Option<&str>) -> Result<(), FillError> {
        if let Some(expected) = size.filter(|expected| *expected != spool.written()) {
            return Err(FillError::Length { expected, received: spool.written() });
        }
        match upstream {
            _ if spool.is_complete() => Ok(()),
            Some(upstream) if spool.resumed() == 0 => {
                self.metrics.pull.digest_mismatches.with_label_values(&[self.registry.as_str(), upstream]).inc();
                Err(FillError::Digest(self.request.digest))
            }
            // Nobody can tell which of the two parts is wrong. Readers have bytes of both, so there is no going on for
            // them; the next request starts anew, and finds out who lies.
            _ => Err(FillError::Resumed(self.request.digest)),
        }
    }

    /// Everybody has the blob by now; only its storage is left. Nothing that fails here reaches a client.
    async fn keep(&self, spool: Spool) {
        let size = spool.written();
        match spool.publish().await {
            Ok(()) => {
                self.metrics.pull.stored.with_label_values(&[self.registry.as_str()]).inc();
                tracing::info!(registry = %self.registry, digest = %self.request.digest, bytes = size, "stored");
            }
            Err(error) => {
                tracing::debug!(registry = %self.registry, digest = %self.request.digest, %error, "A blob was served but not stored");
            }
        }
    }
}

/// Counts a fetch for as long as it lives, however it ends.
struct InFlight(IntGauge);

impl InFlight {
    fn new(gauges: &IntGaugeVec, registry: &RegistryHost) -> Self {
        let gauge = gauges.with_label_values(&[registry.as_str()]);
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A blob on its way into a spool.
struct Opening {
    spool: Spool,
    size: Option<u64>,
    /// What is still to come; `None` if all of it is there.
    body: Option<BlobBody>,
}

/// Hashes what an interrupted download left, moves the body behind it, and lets readers follow, up to the tail.
async fn fetch_into(
    spool: &mut Spool,
    body: Option<BlobBody>,
    size: Option<u64>,
    permit: &Permit,
) -> Result<(), FillError> {
    loop {
        match spool.take_in().await {
            Ok(Some(written)) => permit.advance(readable(written, size)),
            Ok(None) => break,
            Err(error) => return Err(store_failed(spool, error)),
        }
    }
    let Some(body) = body else { return Ok(()) };
    let mut intake = Intake { body, ahead: None };
    loop {
        let chunks = intake.next().await.map_err(FillError::Transfer)?;
        if chunks.is_empty() {
            return Ok(());
        }
        let arriving = spool.written() + chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        if let Some(expected) = size.filter(|expected| arriving > *expected) {
            return Err(FillError::Length { expected, received: arriving });
        }
        match spool.append(chunks).await {
            Ok(written) => permit.advance(readable(written, size)),
            Err(error) => return Err(store_failed(spool, error)),
        }
    }
}

fn store_failed(spool: &Spool, error: StoreError) -> FillError {
    FillError::Store { error, prefix: Prefix { length: spool.written(), digest: spool.digest_so_far() } }
}

/// How far readers may go when `written` bytes are there: not into the last [`HELD_BACK`] bytes of the blob, or of what
/// has been received where the size is unknown.
fn readable(written: u64, size: Option<u64>) -> u64 {
    written.min(size.unwrap_or(written).saturating_sub(HELD_BACK))
}

/// A body taken in blocks: writing each small chunk would cost a switch of threads.
struct Intake {
    body: BlobBody,
    /// How the body ended, seen while a block was gathered.
    ahead: Option<Result<Option<Bytes>, UpstreamError>>,
}

impl Intake {
    /// Waits for the next chunk and takes along what has arrived behind it, up to one block. Empty at the end.
    async fn next(&mut self) -> Result<Vec<Bytes>, UpstreamError> {
        let mut block = Vec::new();
        let mut length = 0;
        let mut next = match self.ahead.take() {
            Some(seen) => seen,
            None => self.body.chunk().await,
        };
        loop {
            match next {
                Ok(Some(chunk)) => {
                    length += chunk.len();
                    block.push(chunk);
                }
                end if !block.is_empty() => {
                    self.ahead = Some(end);
                    return Ok(block);
                }
                Ok(None) => return Ok(block),
                Err(error) => return Err(error),
            }
            if length >= BLOCK {
                return Ok(block);
            }
            match self.body.chunk().now_or_never() {
                Some(ready) => next = ready,
                None => return Ok(block),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_held_back() {
        let size = 10 * HELD_BACK;
        assert_eq!(readable(HELD_BACK, Some(size)), HELD_BACK);
        assert_eq!(readable(size - 1, Some(size)), size - HELD_BACK);
        assert_eq!(readable(size, Some(size)), size - HELD_BACK);
        assert_eq!(readable(HELD_BACK - 1, Some(HELD_BACK - 1)), 0);
        assert_eq!(readable(size, None), size - HELD_BACK);
        assert_eq!(readable(5, None), 0);
    }
}
