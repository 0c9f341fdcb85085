//! Hashing stored content again, and setting aside what has rotted.
//!
//! One hashing per digest at a time, however many wait for its verdict. It belongs to the store and goes on when they
//! leave. Content that does not hash to its name loses the name at once, so that the next request fetches it anew; the
//! file itself is kept in `quarantine/` for whoever wants to know what happened to it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::blob::BlobFile;
use super::error::StoreError;
use super::eviction::Reason;
use super::files::Stamp;
use super::hashing::{Hashing, Residue, Step};
use super::{Disk, Store};
use crate::oci::Digest;

/// What is hashed where it is asked for, as it takes less time than a switch of threads is worth.
const SMALL: usize = 64 * 1024;
/// How many blobs are hashed at once: more would only take the disk from those who read.
const AT_ONCE: usize = 4;

/// What came of hashing stored content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is what its name says.
    Sound,
    /// It has lost its name.
    Damaged(Flaw),
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It is not what its name says.
    Wrong,
    /// It cannot be read to its end.
    Unreadable,
}

impl Flaw {
    /// What to say about the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wrong => "it does not hash to its name",
            Self::Unreadable => "it cannot be read to its end",
        }
    }
}

/// A hashing in progress; clones wait for the same one.
#[derive(Debug, Clone)]
pub struct Verification(watch::Receiver<Option<Verdict>>);

impl Verification {
    /// Waits for the verdict.
    pub async fn verdict(&mut self) -> Verdict {
        match self.0.wait_for(Option::is_some).await {
            Ok(verdict) => verdict.unwrap_or(Verdict::Damaged(Flaw::Unreadable)),
            // Whoever hashed is gone without a verdict: nothing is known, and nothing may be believed.
            Err(_) => Verdict::Damaged(Flaw::Unreadable),
        }
    }

    /// The verdict, if it is there.
    pub fn so_far(&self) -> Option<Verdict> {
        *self.0.borrow()
    }
}

/// The hashings in progress.
#[derive(Debug)]
pub(super) struct Verifications {
    running: Mutex<HashMap<Digest, Verification>>,
    places: Semaphore,
}

impl Default for Verifications {
    fn default() -> Self {
        Self { running: Mutex::default(), places: Semaphore::new(AT_ONCE) }
    }
}

impl Store {
    /// Hashes the stored `file` of `digest` before this returns: for what is so small that nobody wants to wait apart.
    pub async fn verify_now(&self, digest: &Digest, file: &BlobFile) -> Verdict {
        self.disk.verify(digest, file).await
    }

    /// Hashes the stored `file` of `digest`, or joins those who wait for that already.
    pub fn verify(&self, digest: &Digest, file: &BlobFile) -> Verification {
        let mut running = self.disk.verifications.running.lock();
        if let Some(verification) = running.get(digest) {
            return verification.clone();
        }
        let (sender, receiver) = watch::channel(None);
        let verification = Verification(receiver);
        running.insert(*digest, verification.clone());
        drop(running);
        let (disk, file) = (Arc::clone(&self.disk), file.clone());
        let running = Running { disk: Arc::clone(&self.disk), digest: *digest };
        self.disk.background.spawn(async move {
            // The semaphore is never closed.
            let _place = disk.verifications.places.acquire().await;
            let verdict = disk.verify(&running.digest, &file).await;
            // Off the list before anybody hears of it: who asks again then starts anew.
            drop(running);
            sender.send_replace(Some(verdict));
        });
        verification
    }
}

/// A hashing on the list of those in progress, until it ends, however it ends.
struct Running {
    disk: Arc<Disk>,
    digest: Digest,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.disk.verifications.running.lock().remove(&self.digest);
    }
}

impl Disk {
    async fn verify(self: &Arc<Self>, digest: &Digest, file: &BlobFile) -> Verdict {
        let Some((_, stamp)) = file.open().stored else { return Verdict::Damaged(Flaw::Unreadable) };
        let hashed = self.hash(digest, file, stamp).await;
        self.judge(digest, stamp, hashed).await
    }

    /// What follows from hashing a file.
    pub(super) async fn judge(
        self: &Arc<Self>,
        digest: &Digest,
        stamp: Stamp,
        hashed: Result<Digest, StoreError>,
    ) -> Verdict {
        let flaw = match hashed {
            Ok(found) if found == *digest => {
                self.verified.insert(digest, stamp);
                return Verdict::Sound;
            }
            Ok(_) => Flaw::Wrong,
            Err(error) => {
                self.health.record(&error);
                Flaw::Unreadable
            }
        };
        // Before anything else, and before anybody hears of it: nobody is given this file any more.
        self.verified.condemn(digest, stamp);
        self.quarantine(digest, stamp, flaw).await;
        Verdict::Damaged(flaw)
    }

    async fn hash(&self, digest: &Digest, file: &BlobFile, stamp: Stamp) -> Result<Digest, StoreError> {
        if stamp.length <= SMALL as u64 {
            let whole = file.read_all(SMALL).await?.unwrap_or_default();
            return Ok(Digest::of_with(digest.algorithm(), &whole));
        }
        let mut hashing = Hashing::of(digest, &file.open().handle, stamp, Residue::Kept);
        loop {
            match hashing.step(&self.pool).await? {
                Step::Piece(_, rest) => hashing = rest,
                Step::End(found) => return Ok(found),
            }
        }
    }

    /// Takes the name from a file that is of no use. Should that fail, it counts as absent all the same.
    pub(super) async fn quarantine(self: &Arc<Self>, digest: &Digest, stamp: Stamp, flaw: Flaw) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (disk, digest) = (Arc::clone(self), *digest);
        let set_aside = move || {
            let (files, from, to) = (&disk.files, disk.layout.blob(&digest), disk.layout.quarantined(&digest, now));
            files.create_directories(to.parent().unwrap_or(&to))?;
            let _naming = disk.naming.lock();
            let length = match files.stat(&from) {
                Ok(facts) if facts.inode == stamp.inode => facts.length,
                // Another file has the name by now, which is not to blame; or nothing has.
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            files.rename(&from, &to)?;
            // It goes on taking room where it is now.
            disk.capacity.set_aside(disk.index.lock().removed(&digest), length);
            disk.quarantine.lock().push_back((to, length));
            disk.note_evicted(Reason::Corrupt, length);
            Ok(true)
        };
        let moved = match self.check_lock() {
            Ok(()) => self.pool.run("quarantine", set_aside).await,
            Err(error) => Err(error),
        };
        self.open.forget(&digest);
        match moved {
            Ok(true) => {
                self.metrics.corrupt_objects.inc();
                let flaw = flaw.as_str();
                tracing::error!(%digest, flaw, "A stored file is of no use any more: set aside, to be fetched again");
            }
            Ok(false) => {}
            Err(error) => self.health.record(&error),
        }
    }
}
