//! Making room on demand, for operators: by the same rule and in the same order as in the background.

use std::io;
use std::sync::Arc;

use super::error::StoreError;
use super::eviction::{Reason, Victim};
use super::{Disk, Store};

/// How many files go before is told how far it is.
const AT_ONCE: u64 = 64;
/// How many blobs a trial chooses under one lock.
const TRIED_AT_ONCE: usize = 256;

/// What has gone, or would.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Blobs and manifests, interrupted downloads, and files that had been set aside.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Reclaimed {
    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { objects: self.objects + other.objects, bytes: self.bytes + other.bytes }
    }
}

impl Store {
    /// How many bytes are to go for the store to take no more than `target`; without one, for as much to be free as the
    /// background would see to.
    pub async fn surplus(&self, target: Option<u64>) -> Result<u64, StoreError> {
        if let Some(target) = target {
            return Ok(self.disk.capacity.used().saturating_sub(target));
        }
        let disk = Arc::clone(&self.disk);
        let measure = move || Ok(disk.capacity.above_low_mark(disk.files.space(disk.layout.root())?));
        self.disk.pool.run("measure", measure).await
    }

    /// Takes away some of what is worth least, at most a little more than `bytes`. Nothing, if nothing more can go.
    ///
    /// # Errors
    /// If something cannot be removed, or nobody can tell what is pinned.
    pub async fn reclaim_some(&self, bytes: u64) -> Result<Reclaimed, StoreError> {
        self.disk.check_lock()?;
        self.disk.learn_pins().await?;
        let disk = Arc::clone(&self.disk);
        self.disk.pool.run("evict", move || disk.make_some_room_by_hand(bytes)).await
    }

    /// What [`Store::reclaim_some`] would take away until so many `bytes` are gone. Nothing goes.
    pub async fn reclaimable(&self, bytes: u64) -> Result<Reclaimed, StoreError> {
        self.disk.learn_pins().await?;
        let disk = Arc::clone(&self.disk);
        self.disk.pool.run("evict", move || Ok(disk.try_to_reclaim(bytes))).await
    }
}

impl Disk {
    fn make_some_room_by_hand(&self, wanted: u64) -> io::Result<Reclaimed> {
        let mut gone = Reclaimed::default();
        while gone.bytes < wanted && gone.objects < AT_ONCE {
            if let Some(bytes) = self.drop_worthless() {
                gone = gone.and(Reclaimed { objects: 1, bytes });
                continue;
            }
            let victim = self.index.lock().choose(self.clock.now());
            let Some(victim) = victim else { break };
            if self.evict(victim, Reason::Manual)? {
                gone = gone.and(Reclaimed { objects: 1, bytes: victim.size });
            }
        }
        Ok(gone)
    }

    fn try_to_reclaim(&self, wanted: u64) -> Reclaimed {
        let mut gone = Reclaimed::default();
        let set_aside = self.quarantine.lock().iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>();
        for bytes in set_aside.into_iter().chain(self.halves.bytes()) {
            if gone.bytes >= wanted {
                return gone;
            }
            gone = gone.and(Reclaimed { objects: 1, bytes });
        }
        let mut chosen: Vec<Victim> = Vec::new();
        loop {
            let mut index = self.index.lock();
            let before = chosen.len();
            while gone.bytes < wanted && chosen.len() - before < TRIED_AT_ONCE {
                let Some(victim) = index.choose(self.clock.now()) else { break };
                gone = gone.and(Reclaimed { objects: 1, bytes: victim.size });
                chosen.push(victim);
            }
            if gone.bytes >= wanted || chosen.len() == before {
                break;
            }
        }
        // Their turn comes again: nothing has happened to them.
        for some in chosen.chunks(TRIED_AT_ONCE) {
            let mut index = self.index.lock();
            for victim in some {
                index.stays(&victim.digest, self.clock.now());
            }
        }
        gone
    }
}
