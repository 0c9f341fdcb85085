//! Ranges far ahead of a download: clients that read images piece by piece want a few bytes from the end of a blob long
//! before a download gets there, so such a range gets a request of its own.
//!
//! It is passed on as it comes, and not stored. Nobody can verify it, because only the whole has a digest; so it never
//! touches the tail of the blob, which nobody gets before the verdict. Whatever goes wrong here costs no client its
//! answer: the download gets there in the end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntCounter;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::error::FillError;
use super::fill::HELD_BACK;
use super::flight::Follower;
use crate::oci::request::BlobRequest;
use crate::oci::{ByteRange, RegistryHost};
use crate::telemetry::Metrics;
use crate::upstream::{Attempts, BlobBody, BytesAsked, UpstreamSet, WantedBlob};

/// A range that begins no further past the frontier than this is reached soon enough.
const FAR: u64 = 16 * 1024 * 1024;

/// The longest range that is fetched on its own: who wants more wants the blob.
const LONGEST: u64 = 4 * 1024 * 1024;

/// How many ranges of one blob are fetched at once, beside the download.
pub(super) const AT_ONCE: usize = 8;

/// How long upstreams may take to begin with a range. What takes longer might as well follow the download, and the head
/// of the answer still goes out in time.
const OPEN_TIMEOUT: Duration = Duration::from_secs(4);

/// Whether to fetch `range` on its own while the download has come to `frontier`.
pub(super) fn is_worth_a_request(range: &ByteRange, frontier: u64) -> bool {
    range.length() <= LONGEST
        && range.start().saturating_sub(frontier) > FAR
        && range.total() - range.end() >= HELD_BACK
}

/// The means to fetch a range of a blob.
#[derive(Debug)]
pub(super) struct Scout<'a> {
    pub(super) registry: &'a RegistryHost,
    pub(super) upstreams: &'a UpstreamSet,
    pub(super) request: &'a BlobRequest,
    pub(super) metrics: &'a Metrics,
}

impl Scout<'_> {
    /// Opens `range` ahead of the download, if it is worth it, if there is a place for it, and if an upstream sends it.
    pub(super) async fn open(&self, range: &ByteRange, follower: &Follower) -> Option<Ahead> {
        follower.frontier().filter(|frontier| is_worth_a_request(range, *frontier))?;
        let Some(place) = follower.place_ahead() else {
            self.count("busy").inc();
            return None;
        };
        match self.fetch(range).await {
            Ok(body) => Some(Ahead { body, failed: self.count("failed"), _place: Some(place) }),
            Err(attempts) => {
                if attempts.is_part_refused() {
                    follower.close_ahead();
                }
                None
            }
        }
    }

    /// Opens `range` where there is no download to follow, because the store cannot take the blob. Every client costs
    /// upstreams a request then; this one need not cost them the whole blob.
    pub(super) async fn open_without_download(&self, range: &ByteRange) -> Option<Ahead> {
        if !is_worth_a_request(range, 0) {
            return None;
        }
        let body = self.fetch(range).await.ok()?;
        Some(Ahead { body, failed: self.count("failed"), _place: None })
    }

    async fn fetch(&self, range: &ByteRange) -> Result<BlobBody, Attempts> {
        let asked = BytesAsked { first: range.start(), last: Some(range.end() - 1) };
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let wanted = WantedBlob::new(self.request, Some(range.total()), deadline);
        let opened = self.upstreams.open_blob_range(wanted, asked).await;
        self.count(if opened.is_ok() { "fetched" } else { "failed" }).inc();
        opened.inspect_err(|attempts| {
            let digest = &self.request.digest;
            tracing::debug!(%digest, %attempts, "A range cannot be fetched on its own");
        })
    }

    fn count(&self, outcome: &str) -> IntCounter {
        self.metrics.pull.ranges_ahead.with_label_values(&[self.registry.as_str(), outcome])
    }
}

/// A range on its way. It takes a place among those of its blob for as long as it lives.
pub(super) struct Ahead {
    body: BlobBody,
    failed: IntCounter,
    _place: Option<OwnedSemaphorePermit>,
}

impl Ahead {
    /// Which upstream sends it.
    pub(super) fn upstream(&self) -> Arc<str> {
        Arc::clone(self.body.upstream())
    }

    /// The next bytes. It is asked for no more than the upstream announced, so an end is none.
    pub(super) async fn next(&mut self) -> Result<Bytes, FillError> {
        let error = match self.body.chunk().await {
            Ok(Some(bytes)) => return Ok(bytes),
            Ok(None) => FillError::Abandoned,
            Err(error) => FillError::Transfer(error),
        };
        tracing::debug!(%error, "A range that was fetched on its own broke off");
        self.failed.inc();
        Err(error)
    }
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ahead").field("body", &self.body).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::RequestedRange;

    #[test]
    fn short_ranges_far_ahead_and_before_the_tail_are_worth_a_request() {
        let total = 100 * FAR;
        let worth = |first, length, frontier| {
            let range = RequestedRange::Closed { first, last: first + length - 1 }.resolve(total).unwrap();
            is_worth_a_request(&range, frontier)
        };
        assert!(worth(FAR + 1, 1, 0));
        assert!(!worth(FAR, 1, 0));
        assert!(worth(5 * FAR + 1, 1, 4 * FAR));
        assert!(!worth(5 * FAR, 1, 4 * FAR));
        assert!(!worth(FAR, 1, 90 * FAR), "behind the frontier");
        assert!(worth(2 * FAR, LONGEST, 0));
        assert!(!worth(2 * FAR, LONGEST + 1, 0));
        assert!(worth(total - HELD_BACK - 1, 1, 0));
        assert!(!worth(total - HELD_BACK, 1, 0));
        assert!(!worth(total - HELD_BACK - 1, 2, 0));
        assert!(!worth(total - 1, 99, 0), "clamped to the end");
    }
}
