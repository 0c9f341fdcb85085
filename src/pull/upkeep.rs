//! Upkeep by hand: what operators have looked at, fetched again and taken away.
//!
//! The store does the looking and the taking; what is fetched again is pulled like anything that a client asks for, for a
//! repository that may have it.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use super::{BlobContent, PullError, PullService, ReadError};
use crate::oci::request::{BlobRequest, ManifestRequest};
use crate::oci::{Digest, Reference, Selection};
use crate::store::{Finding, Holder, Reclaimed, StoreError};

/// How many repositories are tried for one blob.
const TRIED: usize = 4;

/// The means for it. Clones share everything.
#[derive(Debug, Clone)]
pub struct Upkeep {
    service: PullService,
}

/// Why a damaged blob was not fetched again.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Nobody knows where it is from.
    #[error("No repository is known here that has it; the next pull of its image fetches it")]
    Unknown,
    /// It is not to be had now.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// It broke off.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It came, and is not there.
    #[error("It came, but the store did not take it; the log and `weir_store_errors_total` say why")]
    NotStored,
}

impl PullService {
    /// The means to look after the store by hand.
    pub fn upkeep(&self) -> Upkeep {
        Upkeep { service: self.clone() }
    }
}

impl Upkeep {
    /// Returns when all that was there at start is known.
    pub async fn counted(&self) {
        self.service.shared.store.counted().await;
    }

    /// All that is stored and that `is_meant`, with its size in bytes.
    pub fn list(&self, is_meant: impl FnMut(&Digest) -> bool) -> Vec<(Digest, u64)> {
        self.service.shared.store.list(is_meant)
    }

    /// Hashes what is stored as `digest`, and counts the bytes in `hashed` on the way. What is bad is set aside.
    pub async fn look_at(&self, digest: &Digest, hashed: &AtomicU64) -> Finding {
        self.service.shared.store.look_at(digest, hashed).await
    }

    /// The repositories that may have each of `digests`.
    pub async fn holders(&self, digests: Vec<Digest>) -> HashMap<Digest, Vec<Holder>> {
        let found = self.service.shared.store.links().holders(digests).await;
        found.inspect_err(|error| tracing::warn!(%error, "The links could not be looked through")).unwrap_or_default()
    }

    /// Fetches a blob or manifest for one of `holders`, and stores it.
    pub async fn fetch(&self, digest: &Digest, holders: &[Holder]) -> Result<(), RepairError> {
        let mut last = RepairError::Unknown;
        for holder in holders.iter().take(TRIED) {
            match self.fetch_for(digest, holder).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn fetch_for(&self, digest: &Digest, holder: &Holder) -> Result<(), RepairError> {
        let Holder { registry, repository } = holder.clone();
        // Nobody can tell one from the other by the address, and there are more blobs.
        let wanted = BlobRequest { repository: repository.clone(), digest: *digest };
        match self.service.blob(&registry, wanted, Selection::Whole).await {
            Ok(answer) => {
                if let BlobContent::Whole(mut reader) = answer.content {
                    while reader.next(None).await?.is_some() {}
                }
                // Everybody has the blob before it has its name.
                if let Some(flight) = self.service.shared.flights.get(digest) {
                    flight.landed().await;
                }
                self.service.shared.store.stat(digest).await.map(drop).ok_or(RepairError::NotStored)
            }
            Err(PullError::NotFound { .. }) => {
                let wanted = ManifestRequest { repository, reference: Reference::Digest(*digest) };
                let answer = self.service.manifest(&registry, wanted).await?;
                // It may have come from memory.
                Ok(self.service.shared.store.put(digest, answer.manifest.body.clone()).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// How many bytes are to go for the store to take no more than `target`; without one, for as much to be free as the
    /// background would see to.
    pub async fn surplus(&self, target: Option<u64>) -> Result<u64, StoreError> {
        self.service.shared.store.surplus(target).await
    }

    /// Takes away some of what is worth least. Nothing, if nothing more can go.
    pub async fn reclaim_some(&self, bytes: u64) -> Result<Reclaimed, StoreError> {
        self.service.shared.store.reclaim_some(bytes).await
    }

    /// What would go until so many `bytes` are gone.
    pub async fn reclaimable(&self, bytes: u64) -> Result<Reclaimed, StoreError> {
        self.service.shared.store.reclaimable(bytes).await
    }
}
