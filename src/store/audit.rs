//! Looking at what is stored on demand: everything or a sample of it is hashed now, for operators.
//!
//! As with scrubbing, nobody who pulls waits for it, and it is no use of what it reads. What is found to be bad is set
//! aside like anything that a reader finds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::Store;
use super::eviction::Victim;
use super::hashing::{Hashing, Residue, Step, open_unnoticed};
use super::verify::{Flaw, Verdict};
use crate::oci::Digest;

/// How many blobs are listed under one lock.
const LISTED_AT_ONCE: u32 = 8192;
/// How long it stands still when many wait for the disk.
const STAND_STILL: Duration = Duration::from_millis(100);

/// What a look at a stored blob came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It is what its name says.
    Sound,
    /// It is not, and has been set aside.
    Damaged(Flaw),
    /// It is not there any more.
    Gone,
    /// Nobody can tell at the moment; that has been counted and logged.
    Unknown,
}

impl Store {
    /// Returns when all that was there at start is known.
    pub async fn counted(&self) {
        self.disk.executor.ready().await;
    }

    /// All that is stored and that `is_meant`, with its size in bytes, in no order.
    pub fn list(&self, mut is_meant: impl FnMut(&Digest) -> bool) -> Vec<(Digest, u64)> {
        let (mut found, mut next) = (Vec::new(), Some(0));
        while let Some(from) = next {
            let (stored, then) = self.disk.index.lock().list(from, LISTED_AT_ONCE);
            let meant = stored.into_iter().filter(|Victim { digest, .. }| is_meant(digest));
            found.extend(meant.map(|Victim { digest, size }| (digest, size)));
            next = then;
        }
        found
    }

    /// Hashes the stored file of `digest`, and counts the bytes in `hashed` on the way.
    pub async fn look_at(&self, digest: &Digest, hashed: &AtomicU64) -> Finding {
        let disk = &self.disk;
        let opened = open_unnoticed(&disk.files, &disk.pool, disk.layout.blob(digest)).await;
        let (handle, stamp) = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return Finding::Gone,
            Err(error) => {
                disk.health.record(&error);
                return Finding::Unknown;
            }
        };
        let mut hashing = Hashing::of(digest, &handle, stamp, Residue::Released);
        let result = loop {
            match hashing.step(&disk.pool).await {
                Ok(Step::Piece(bytes, rest)) => {
                    hashed.fetch_add(bytes, Ordering::Relaxed);
                    hashing = rest;
                    while disk.pool.is_pressed() {
                        sleep(STAND_STILL).await;
                    }
                }
                Ok(Step::End(found)) => break Ok(found),
                Err(error) if error.is_of_this_file() => break Err(error),
                Err(error) => {
                    disk.health.record(&error);
                    return Finding::Unknown;
                }
            }
        };
        match disk.judge(digest, stamp, result).await {
            Verdict::Sound => Finding::Sound,
            Verdict::Damaged(flaw) => Finding::Damaged(flaw),
        }
    }
}
