//! How a reader goes on when the download that it follows, or the stored file that it reads, has failed.
//!
//! The client has its head, and perhaps half of the body; nothing may happen to it as long as somebody can deliver.
//! Where the store failed, the rest comes straight from an upstream. Where another repository's upstreams failed, the
//! reader enters once more for its own, which goes on behind the spool that the failed one left. Where a stored file
//! failed, the blob is fetched again, from behind what can still be read of it. The one invariant: a client that has
//! bytes gets only what is put behind those very bytes.

use std::ops::Range;

use super::PullService;
use super::blob::Wanted;
use super::direct::Direct;
use super::error::{FillError, Prefix};
use super::flight::{Entry, Follower, Opened};
use super::reader::ReadError;
use super::relay::Relay;
use super::stored::Trust;
use crate::oci::{Digest, Hasher};
use crate::store::BlobFile;

/// How often a reader enters once more. Those that fail may be of as many repositories; the last one is its own.
const ENTRIES: u32 = 3;

/// What a reader needs to leave what it reads.
#[derive(Debug, Clone)]
pub(super) struct WayOn {
    service: PullService,
    wanted: Wanted,
    /// Whether the flight that is followed asks the upstreams of this reader.
    is_own: bool,
    entries: u32,
}

/// What a reader goes on with.
#[derive(Debug)]
pub(super) enum Rejoined {
    /// Another download.
    Flight(BlobFile, Follower),
    /// What another download has stored by now.
    Stored(BlobFile, Trust),
    /// Nothing of the store's, which failed when so much had been written.
    Nothing(Prefix),
}

impl WayOn {
    /// Of a reader of `wanted` that follows `follower`.
    pub(super) fn new(service: &PullService, wanted: &Wanted, follower: &Follower) -> Self {
        let is_own = follower.is_on_behalf_of(&wanted.scope);
        Self { service: service.clone(), wanted: wanted.clone(), is_own, entries: 0 }
    }

    /// Of a reader of a stored file.
    pub(super) fn of_stored(service: &PullService, wanted: Wanted) -> Self {
        Self { service: service.clone(), wanted, is_own: true, entries: 0 }
    }

    /// The blob that is read.
    pub(super) const fn digest(&self) -> &Digest {
        &self.wanted.request.digest
    }

    /// The blob from an upstream, from `offset` on, if it begins with `prefix`.
    pub(super) async fn without_store(&self, prefix: Prefix, offset: u64) -> Result<Direct, FillError> {
        let relay = Relay::open(self.service.errand(&self.wanted)).await.map_err(FillError::Upstream)?;
        Ok(Direct::behind(prefix, offset, relay))
    }

    /// Enters once more, after the download that was followed ended in `error`. `has_bytes` says whether the client has
    /// any of that download's.
    pub(super) async fn enter(&mut self, error: FillError, has_bytes: bool) -> Result<Rejoined, FillError> {
        if let FillError::Store { prefix, .. } = error {
            return Ok(Rejoined::Nothing(prefix));
        }
        if self.entries == ENTRIES || !is_worth_another_entry(&error, self.is_own, has_bytes) {
            return Err(error);
        }
        tracing::debug!(digest = %self.digest(), %error, "A reader enters once more");
        self.enter_again(None).await
    }

    /// Enters for the rest of a stored file, of which the client has all before `position` and which failed with `error`.
    /// A download begins with what `remains` of it.
    pub(super) async fn leave_stored(
        &mut self,
        error: ReadError,
        remains: Option<BlobFile>,
        position: u64,
    ) -> Result<Rejoined, ReadError> {
        if self.entries == ENTRIES {
            return Err(error);
        }
        let (digest, registry) = (self.digest(), &self.wanted.scope.registry);
        let reason = if remains.is_some() { "unreadable" } else { "damaged" };
        tracing::warn!(%registry, %digest, byte = position, %error, "Going on elsewhere with a stored blob in the middle");
        self.service.shared.metrics.pull.rescued_answers.with_label_values(&[reason]).inc();
        Ok(self.enter_again(remains).await?)
    }

    async fn enter_again(&mut self, remains: Option<BlobFile>) -> Result<Rejoined, FillError> {
        self.entries += 1;
        match self.service.enter_again(&self.wanted, remains).await {
            Ok(rejoined) => {
                if let Rejoined::Flight(_, follower) = &rejoined {
                    self.is_own = follower.is_on_behalf_of(&self.wanted.scope);
                }
                Ok(rejoined)
            }
            Err(FillError::Store { prefix, .. }) => Ok(Rejoined::Nothing(prefix)),
            Err(error) => Err(error),
        }
    }
}

/// Whether another download can help a reader whose download failed. Its own upstreams would say the same once more;
/// and bytes that the client has cannot be taken back.
fn is_worth_another_entry(error: &FillError, is_own: bool, has_bytes: bool) -> bool {
    match error {
        FillError::Anew(_) => !has_bytes,
        error if error.is_of_wrong_bytes() => !has_bytes && !is_own,
        _ => !is_own,
    }
}

impl PullService {
    async fn enter_again(&self, wanted: &Wanted, remains: Option<BlobFile>) -> Result<Rejoined, FillError> {
        let digest = &wanted.request.digest;
        let mut follower = match self.shared.flights.enter(digest, &wanted.scope) {
            Entry::Leader(permit, follower) => {
                if let Some(stored) = self.stored_again(wanted).await {
                    return Ok(stored);
                }
                self.take_off(wanted, permit, remains);
                follower
            }
            Entry::Follower(follower) => {
                follower.relief().offer(self.errand(wanted));
                follower
            }
        };
        match follower.opened().await {
            Ok(Opened { file, .. }) => Ok(Rejoined::Flight(file, follower)),
            // Who led it may have found it stored.
            Err(error) => self.stored_again(wanted).await.ok_or(error),
        }
    }

    async fn stored_again(&self, wanted: &Wanted) -> Option<Rejoined> {
        let file = self.stored(wanted).await?;
        let trust = self.trust(&file, wanted, true);
        Some(Rejoined::Stored(file, trust))
    }
}

/// What a client has of a file that failed.
#[derive(Debug)]
pub(super) struct Given {
    file: BlobFile,
    range: Range<u64>,
}

impl Given {
    /// What has been given of `file`; `None` if that is nothing.
    pub(super) fn new(file: BlobFile, range: Range<u64>) -> Option<Self> {
        (!range.is_empty()).then_some(Self { file, range })
    }

    /// Where it begins.
    pub(super) const fn start(&self) -> u64 {
        self.range.start
    }

    /// Compares it with `other`, which has all of it.
    ///
    /// # Errors
    /// [`ReadError::Different`] if that has other bytes.
    pub(super) async fn check_in(&self, other: &BlobFile) -> Result<(), ReadError> {
        let Range { start: mut position, end } = self.range;
        while position < end {
            let given = self.file.read(position, end).await?;
            let mut behind = 0;
            while behind < given.len() {
                let at = position + behind as u64;
                let same = other.read(at, position + given.len() as u64).await?;
                if given[behind..behind + same.len()] != same {
                    return Err(ReadError::Different);
                }
                behind += same.len();
            }
            position += given.len() as u64;
        }
        Ok(())
    }

    /// All of it, as the beginning of the blob `digest`.
    ///
    /// # Errors
    /// [`ReadError::Different`] if it is not the beginning: nobody can tell whether what comes belongs to it.
    pub(super) async fn as_prefix(&self, digest: &Digest) -> Result<Prefix, ReadError> {
        let Range { start: mut position, end } = self.range;
        if position > 0 {
            return Err(ReadError::Different);
        }
        let mut hasher = Hasher::new(digest.algorithm());
        while position < end {
            let given = self.file.read(position, end).await?;
            hasher.update(&given);
            position += given.len() as u64;
        }
        Ok(Prefix { length: end, digest: hasher.finish() })
    }
}
