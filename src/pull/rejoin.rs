//! How a reader goes on when the download that it follows has failed.
//!
//! The client has its head, and perhaps half of the body; nothing may happen to it as long as somebody can deliver.
//! Where the store failed, the rest comes straight from an upstream. Where another repository's upstreams failed, the
//! reader enters once more for its own, which goes on behind the spool that the failed one left. The one invariant: a
//! client that has bytes gets only what is put behind those very bytes.

use std::ops::Range;

use super::PullService;
use super::blob::Wanted;
use super::direct::Direct;
use super::error::{FillError, Prefix};
use super::flight::{Entry, Follower, Opened};
use super::reader::Trust;
use super::relay::Relay;
use crate::store::{BlobFile, StoreError};

/// How often a reader enters once more. Those that fail may be of as many repositories; the last one is its own.
const ENTRIES: u32 = 3;

/// What a reader of a flight needs to leave it.
#[derive(Debug)]
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
}

impl WayOn {
    /// Of a reader of `wanted` that follows `follower`.
    pub(super) fn new(service: &PullService, wanted: &Wanted, follower: &Follower) -> Self {
        let is_own = follower.is_on_behalf_of(&wanted.scope);
        Self { service: service.clone(), wanted: wanted.clone(), is_own, entries: 0 }
    }

    /// The blob from an upstream, from `offset` on, if it begins with `prefix`.
    pub(super) async fn without_store(&self, prefix: Prefix, offset: u64) -> Result<Direct, FillError> {
        let relay = Relay::open(self.service.errand(&self.wanted)).await.map_err(FillError::Upstream)?;
        Ok(Direct::behind(prefix, offset, relay))
    }

    /// Enters once more, after the download that was followed ended in `error`. `has_bytes` says whether the client has
    /// any of that download's.
    pub(super) async fn enter(&mut self, error: FillError, has_bytes: bool) -> Result<Rejoined, FillError> {
        if self.entries == ENTRIES || !is_worth_another_entry(&error, self.is_own, has_bytes) {
            return Err(error);
        }
        self.entries += 1;
        tracing::debug!(digest = %self.wanted.request.digest, %error, "A reader enters once more");
        self.service.enter_again(&self.wanted).await.inspect(|rejoined| {
            if let Rejoined::Flight(_, follower) = rejoined {
                self.is_own = follower.is_on_behalf_of(&self.wanted.scope);
            }
        })
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
    async fn enter_again(&self, wanted: &Wanted) -> Result<Rejoined, FillError> {
        let digest = &wanted.request.digest;
        let mut follower = match self.shared.flights.enter(digest, &wanted.scope) {
            Entry::Leader(permit, follower) => {
                if let Some(stored) = self.stored_again(wanted).await {
                    return Ok(stored);
                }
                self.take_off(wanted, permit);
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

/// The file of a download that failed, of which a client has the beginning.
#[derive(Debug)]
pub(super) struct Given {
    file: BlobFile,
    range: Range<u64>,
}

impl Given {
    /// What has been given of `file` that may be another in `next`; `None` if `next` goes on behind the same bytes.
    pub(super) fn of(file: BlobFile, range: Range<u64>, next: &BlobFile) -> Option<Self> {
        (!range.is_empty() && !file.is_continued_by(next)).then_some(Self { file, range })
    }

    /// How far it goes.
    pub(super) const fn end(&self) -> u64 {
        self.range.end
    }

    /// Compares it with `other`, which has all of it.
    pub(super) async fn is_in(&self, other: &BlobFile) -> Result<bool, StoreError> {
        let Range { start: mut position, end } = self.range;
        while position < end {
            let given = self.file.read(position, end).await?;
            let mut behind = 0;
            while behind < given.len() {
                let at = position + behind as u64;
                let same = other.read(at, position + given.len() as u64).await?;
                if given[behind..behind + same.len()] != same {
                    return Ok(false);
                }
                behind += same.len();
            }
            position += given.len() as u64;
        }
        Ok(true)
    }
}
