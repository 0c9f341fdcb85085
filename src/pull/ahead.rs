//! Ranges far ahead of a download: clients that read images piece by piece want a few bytes from the end of a blob long
//! before a download gets there, so such a range gets a request of its own: to the bucket behind the store, and else to an
//! upstream.
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
use super::outcome::{CacheResult, Source};
use super::sender::Sender;
use crate::oci::request::BlobRequest;
use crate::oci::{ByteRange, RegistryHost};
use crate::store::Bucket;
use crate::telemetry::Metrics;
use crate::upstream::{Attempts, BytesAsked, UpstreamSet, WantedBlob};

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
    /// Where the blob may be, too.
    pub(super) bucket: Option<&'a Bucket>,
    pub(super) metrics: &'a Metrics,
}

impl Scout<'_> {
    /// Opens `range` ahead of the download, if it is worth it, if there is a place for it, and if anybody sends it.
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

    async fn fetch(&self, range: &ByteRange) -> Result<Sender, Attempts> {
        if let Some(sender) = self.in_bucket(range).await {
            self.count("fetched").inc();
            return Ok(sender);
        }
        let asked = BytesAsked { first: range.start(), last: Some(range.end() - 1) };
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let wanted = WantedBlob::new(self.request, Some(range.total()), deadline);
        let opened = self.upstreams.open_blob_range(wanted, asked).await;
        self.count(if opened.is_ok() { "fetched" } else { "failed" }).inc();
        opened.map(Sender::Upstream).inspect_err(|attempts| {
            let digest = &self.request.digest;
            tracing::debug!(%digest, %attempts, "A range cannot be fetched on its own");
        })
    }

    /// What the bucket has of the blob, unless that has another size. A bucket that cannot be asked has nothing.
    async fn in_bucket(&self, range: &ByteRange) -> Option<Sender> {
        let opened = self.bucket?.open_range(&self.request.digest, range.start()..range.end());
        let object = Box::pin(opened).await.ok()??;
        (object.size() == range.total()).then(|| Sender::bucket(object))
    }

    fn count(&self, outcome: &str) -> IntCounter {
        self.metrics.pull.ranges_ahead.with_label_values(&[self.registry.as_str(), outcome])
    }
}

/// A range on its way. It takes a place among those of its blob for as long as it lives.
pub(super) struct Ahead {
    body: Sender,
    failed: IntCounter,
    _place: Option<OwnedSemaphorePermit>,
}

impl Ahead {
    /// Which upstream sends it; `None` if the bucket does.
    pub(super) fn upstream(&self) -> Option<Arc<str>> {
        self.body.upstream().cloned()
    }

    /// What the cache did for it, and where it comes from.
    pub(super) fn outcome(&self) -> (CacheResult, Source) {
        match self.body {
            Sender::Upstream(_) => (CacheResult::Miss, Source::Ahead),
            Sender::Bucket { .. } => (CacheResult::Hit, Source::S3),
        }
    }

    /// The next bytes. It is asked for no more than was announced, so an end is none.
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
