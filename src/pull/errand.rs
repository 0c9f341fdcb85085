//! A blob to fetch, and from whom: every way of asking upstreams for the bytes of one blob.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::OPEN_TIMEOUT;
use super::continuation::What;
use super::error::Prefix;
use super::pace::Pace;
use super::sender::{BUCKET, Sender};
use crate::oci::request::BlobRequest;
use crate::oci::{Digest, Hasher, RegistryHost};
use crate::store::Bucket;
use crate::telemetry::Metrics;
use crate::upstream::{Attempts, Break, BrokenBody, BytesAsked, Purpose, UpstreamSet, WantedBlob};

/// The most bytes to receive once more from an upstream that ignores ranges, while somebody else may know better.
const MOST_SKIPPED: u64 = 16 * 1024 * 1024;

/// A blob to fetch, and the means.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    pub(super) registry: RegistryHost,
    pub(super) upstreams: Arc<UpstreamSet>,
    pub(super) request: BlobRequest,
    /// The size a manifest gave, if one was seen.
    pub(super) expected: Option<u64>,
    /// Who waits for it.
    pub(super) purpose: Purpose,
    pub(super) metrics: Metrics,
    /// Where it may be, too.
    pub(super) bucket: Option<Bucket>,
}

impl Errand {
    /// The digest that tells whether the bytes are right.
    pub(super) const fn digest(&self) -> &Digest {
        &self.request.digest
    }

    /// Whether `other` asks the same upstreams on behalf of the same repository.
    pub(super) fn asks_like(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.upstreams, &other.upstreams) && self.request.repository == other.request.repository
    }

    /// Who may be asked, in order.
    pub(super) fn senders(&self) -> Vec<Arc<str>> {
        self.upstreams.senders(self.wanted(None, &[]))
    }

    /// Opens what lies behind the first `offset` bytes in the bucket, if it is there. A bucket that cannot be asked has
    /// nothing, and neither has one whose object has another size than the blob.
    pub(super) async fn in_bucket(&self, offset: u64, size: Option<u64>) -> Option<Sender> {
        let object = Box::pin(self.bucket.as_ref()?.open(self.digest(), offset)).await.ok()??;
        let expected = size.or(self.expected);
        if expected.is_some_and(|expected| expected != object.size()) {
            let (registry, digest) = (&self.registry, self.digest());
            tracing::warn!(%registry, %digest, size = object.size(), expected, "A blob in the bucket has another size");
            return None;
        }
        Some(Sender::bucket(object))
    }

    /// Opens all of it, at somebody else than `avoid`.
    pub(super) async fn open(&self, size: Option<u64>, avoid: &[Arc<str>]) -> Result<Sender, Attempts> {
        // In a box, like the other: a question to upstreams is large, and a download asks few.
        Box::pin(self.upstreams.open_blob(self.wanted(size, avoid))).await.map(Sender::Upstream)
    }

    /// Opens what lies behind the first `offset` bytes, at somebody else than `avoid`. Who ignores the range and would
    /// send much once more is taken only if nobody else can be.
    pub(super) async fn open_rest(
        &self,
        offset: u64,
        size: Option<u64>,
        avoid: &[Arc<str>],
    ) -> Result<Sender, Attempts> {
        let first = self.open_part(offset, size, avoid).await?;
        let mut avoid = avoid.to_vec();
        let mut last = Arc::clone(first.name());
        while first.overlap() > MOST_SKIPPED {
            avoid.push(last);
            if self.upstreams.senders(self.wanted(size, &avoid)).is_empty() {
                break;
            }
            match self.open_part(offset, size, &avoid).await {
                Ok(other) if other.overlap() <= MOST_SKIPPED => return Ok(other),
                Ok(other) => last = Arc::clone(other.name()),
                Err(_) => break,
            }
        }
        Ok(first)
    }

    async fn open_part(&self, offset: u64, size: Option<u64>, avoid: &[Arc<str>]) -> Result<Sender, Attempts> {
        let wanted = self.wanted(size, avoid);
        Box::pin(self.upstreams.open_blob_range(wanted, BytesAsked::from(offset))).await.map(Sender::Upstream)
    }

    /// Asks `among` in order for `what` goes on behind `prefix`. Returns the body of the first who does, and what came
    /// in one piece with the end of what it repeats.
    pub(super) async fn ask(
        &self,
        among: &[Arc<str>],
        what: What,
        prefix: Prefix,
        size: Option<u64>,
        floor: Floor,
    ) -> Result<(Sender, Option<Bytes>), Declined> {
        let mut avoid = self.senders();
        avoid.retain(|name| !among.contains(name));
        let opened = match what {
            What::Rest if prefix.length > 0 => self.open_rest(prefix.length, size, &avoid).await,
            What::Rest | What::Whole => self.open(size, &avoid).await,
        };
        let mut body = opened.map_err(Declined::Asked)?;
        let repeats = what == What::Whole || body.overlap() > 0;
        if !repeats {
            return Ok((body, None));
        }
        let carried = Skip::of(prefix, floor).through(&mut body).await.map_err(Declined::Sent)?;
        Ok((body, carried))
    }

    /// These have sent a blob between them that is not the one.
    pub(super) fn blame(&self, contributors: &[Arc<str>]) {
        for name in contributors {
            if **name == *BUCKET {
                self.metrics.store.corrupt_objects.inc();
                tracing::error!(digest = %self.digest(), "A blob in the bucket is not what its name says");
            }
            self.upstreams.blame(name);
        }
    }

    fn wanted<'a>(&'a self, size: Option<u64>, avoid: &'a [Arc<str>]) -> WantedBlob<'a> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        WantedBlob { avoid, purpose: self.purpose, ..WantedBlob::new(&self.request, size.or(self.expected), deadline) }
    }
}

/// Why nobody went on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Declined {
    /// Nobody would.
    #[error("{0}")]
    Asked(Attempts),
    /// Somebody would, and did not get as far.
    #[error("{0}")]
    Sent(BrokenBody),
}

/// What a body repeats of a blob before it goes on: received, compared and left out.
#[derive(Debug)]
pub(super) struct Skip {
    prefix: Prefix,
    floor: Floor,
    hasher: Hasher,
    missing: u64,
    pace: Pace,
}

/// Whether who sends too slowly is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Floor {
    /// Somebody else could be asked.
    Kept,
    /// Nobody else could.
    Waived,
}

impl Skip {
    /// All of `prefix`.
    pub(super) fn of(prefix: Prefix, floor: Floor) -> Self {
        let hasher = Hasher::new(prefix.digest.algorithm());
        Self { prefix, floor, hasher, missing: prefix.length, pace: Pace::default() }
    }

    /// Receives what `body` repeats, and compares. Returns what came in one piece with its end. After
    /// [`Break::Slow`], and only then, it may be called again and goes on with the same body.
    pub(super) async fn through(&mut self, body: &mut Sender) -> Result<Option<Bytes>, BrokenBody> {
        let mut carried = None;
        while self.missing > 0 {
            let since = Instant::now();
            let Some(mut chunk) = body.chunk().await? else {
                let message = format!("Ended {} bytes before what was asked for", self.missing);
                return Err(body.broken(Break::Truncated, message));
            };
            let too_slow = self.pace.received(chunk.len() as u64, since.elapsed());
            let behind = chunk.split_off(usize::try_from(self.missing).unwrap_or(usize::MAX).min(chunk.len()));
            self.hasher.update(&chunk);
            self.missing -= chunk.len() as u64;
            carried = Some(behind).filter(|behind| !behind.is_empty());
            if let Some(too_slow) = too_slow.filter(|_| self.missing > 0 && self.floor == Floor::Kept) {
                self.pace = Pace::default();
                return Err(body.broken(Break::Slow, too_slow.to_string()));
            }
        }
        if self.hasher.clone().finish() == self.prefix.digest {
            return Ok(carried);
        }
        let message = format!("Begins with other {} bytes than those that came before", self.prefix.length);
        Err(body.broken(Break::Different, message))
    }
}
