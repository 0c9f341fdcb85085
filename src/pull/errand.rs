//! A blob to fetch, and from whom: every way of asking upstreams for the bytes of one blob.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::OPEN_TIMEOUT;
use super::continuation::What;
use super::error::Prefix;
use super::pace::Pace;
use crate::oci::request::BlobRequest;
use crate::oci::{Digest, Hasher, RegistryHost};
use crate::telemetry::Metrics;
use crate::upstream::{Attempts, BlobBody, Break, BrokenBody, BytesAsked, UpstreamSet, WantedBlob};

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
    pub(super) metrics: Metrics,
}

impl Errand {
    /// The digest that tells whether the bytes are right.
    pub(super) const fn digest(&self) -> &Digest {
        &self.request.digest
    }

    /// Who may be asked, in order.
    pub(super) fn senders(&self) -> Vec<Arc<str>> {
        self.upstreams.senders(self.wanted(None, &[]))
    }

    /// Opens all of it, at somebody else than `avoid`.
    pub(super) async fn open(&self, size: Option<u64>, avoid: &[Arc<str>]) -> Result<BlobBody, Attempts> {
        // In a box, like the other: a question to upstreams is large, and a download asks few.
        Box::pin(self.upstreams.open_blob(self.wanted(size, avoid))).await
    }

    /// Opens what lies behind the first `offset` bytes, at somebody else than `avoid`. Who ignores the range and would
    /// send much once more is taken only if nobody else can be.
    pub(super) async fn open_rest(
        &self,
        offset: u64,
        size: Option<u64>,
        avoid: &[Arc<str>],
    ) -> Result<BlobBody, Attempts> {
        let first = self.open_part(offset, size, avoid).await?;
        let mut avoid = avoid.to_vec();
        let mut last = Arc::clone(first.upstream());
        while first.overlap() > MOST_SKIPPED {
            avoid.push(last);
            if self.upstreams.senders(self.wanted(size, &avoid)).is_empty() {
                break;
            }
            match self.open_part(offset, size, &avoid).await {
                Ok(other) if other.overlap() <= MOST_SKIPPED => return Ok(other),
                Ok(other) => last = Arc::clone(other.upstream()),
                Err(_) => break,
            }
        }
        Ok(first)
    }

    async fn open_part(&self, offset: u64, size: Option<u64>, avoid: &[Arc<str>]) -> Result<BlobBody, Attempts> {
        let wanted = self.wanted(size, avoid);
        Box::pin(self.upstreams.open_blob_range(wanted, BytesAsked::from(offset))).await
    }

    /// Asks `among` in order for `what` goes on behind `prefix`. Returns the body of the first who does, and what came
    /// in one piece with the end of what it repeats.
    pub(super) async fn ask(
        &self,
        among: &[Arc<str>],
        what: What,
        prefix: Prefix,
        size: Option<u64>,
    ) -> Result<(BlobBody, Option<Bytes>), Declined> {
        let mut avoid = self.senders();
        avoid.retain(|name| !among.contains(name));
        let opened = match what {
            What::Rest if prefix.length > 0 => self.open_rest(prefix.length, size, &avoid).await,
            What::Rest | What::Whole => self.open(size, &avoid).await,
        };
        let mut body = opened.map_err(Declined::Asked)?;
        let repeats = what == What::Whole || body.overlap() > 0;
        let carried = if repeats { skip(&mut body, prefix).await.map_err(Declined::Sent)? } else { None };
        Ok((body, carried))
    }

    /// These have sent a blob between them that is not the one.
    pub(super) fn blame(&self, contributors: &[Arc<str>]) {
        for upstream in contributors {
            self.metrics.pull.digest_mismatches.with_label_values(&[self.registry.as_str(), &**upstream]).inc();
            self.upstreams.blame(upstream);
        }
    }

    fn wanted<'a>(&'a self, size: Option<u64>, avoid: &'a [Arc<str>]) -> WantedBlob<'a> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        WantedBlob { avoid, ..WantedBlob::new(&self.request, size.or(self.expected), deadline) }
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

/// Receives what `body` repeats, and compares. Returns what came in one piece with its end.
pub(super) async fn skip(body: &mut BlobBody, prefix: Prefix) -> Result<Option<Bytes>, BrokenBody> {
    let (mut hasher, mut pace) = (Hasher::new(prefix.digest.algorithm()), Pace::default());
    let (mut missing, mut carried) = (prefix.length, None);
    while missing > 0 {
        let since = Instant::now();
        let Some(mut chunk) = body.chunk().await? else {
            return Err(body.broken(Break::Truncated, format!("Ended {missing} bytes before what was asked for")));
        };
        if let Some(too_slow) = pace.received(chunk.len() as u64, since.elapsed()) {
            return Err(body.broken(Break::Slow, too_slow.to_string()));
        }
        let behind = chunk.split_off(usize::try_from(missing).unwrap_or(usize::MAX).min(chunk.len()));
        hasher.update(&chunk);
        missing -= chunk.len() as u64;
        carried = Some(behind).filter(|behind| !behind.is_empty());
    }
    if hasher.finish() == prefix.digest {
        return Ok(carried);
    }
    Err(body.broken(Break::Different, format!("Begins with other {} bytes than those that came before", prefix.length)))
}
