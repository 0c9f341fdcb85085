//! Content on its way in: a temporary file that grows, is hashed as it grows, and takes its name only when it is right.
//!
//! A download that is interrupted leaves its file to the next one. What that one takes over counts for nothing until it
//! has been hashed again (`resume`): the hash of a blob is always one hash over all of its bytes, in this process.

mod resume;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Disk;
use super::blob::{BlobFile, OpenFile};
use super::capacity::Reservation;
use super::error::StoreError;
use super::files::FileHandle;
use super::flush::Flushes;
use super::halves::Half;
use super::record::{Recorder, SpoolRecord};
use crate::oci::{Digest, Hasher};

/// How many bytes are worth a record, and by that to be kept. Smaller blobs are fetched anew: they cost less than that.
pub(super) const WORTH_KEEPING: u64 = 1024 * 1024;

/// A blob being stored. Dropped before [`Spool::publish`], it is kept for the next download of the blob, if it is worth
/// it and nothing is wrong with it; else its file is removed. Those who read it go on reading.
#[derive(Debug)]
pub struct Spool {
    disk: Arc<Disk>,
    digest: Digest,
    path: PathBuf,
    handle: Arc<dyn FileHandle>,
    reservation: Reservation,
    hasher: Hasher,
    /// The size of the whole blob, if anybody told.
    size: Option<u64>,
    /// How many bytes another download left.
    resumed: u64,
    /// How many bytes are in the file and in the hash.
    written: u64,
    recorder: Arc<Recorder>,
    flushes: Flushes,
    /// Held by the write under way, which goes on when nobody waits for it any longer.
    writing: Arc<tokio::sync::Mutex<()>>,
    fate: Fate,
    /// Whether it is to be uploaded to the bucket, if there is one.
    bound: Bound,
}

/// Where content goes beside the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// To the bucket.
    ForBucket,
    /// Nowhere: it came from there.
    Nowhere,
}

/// What becomes of the file when the spool is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is kept for the next download, if it has a record.
    Kept,
    /// It is removed: it is wrong, or not whole, or nobody will ask for it.
    Removed,
    /// Nothing: it has its name.
    Published,
}

impl Spool {
    /// Makes the temporary file at `path`, which must be nobody else's, and reserves room.
    pub(super) async fn create(
        disk: Arc<Disk>,
        path: PathBuf,
        digest: Digest,
        size: Option<u64>,
    ) -> Result<Self, StoreError> {
        disk.may_write()?;
        let created = {
            let (path, disk) = (path.clone(), Arc::clone(&disk));
            move || {
                let reservation = disk.reserve(size.unwrap_or(0))?;
                let created = match disk.files.create(&path) {
                    // Left behind by a download whose file could not be removed at its end. Nobody else writes to it.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        disk.files.remove(&path).and_then(|()| disk.files.create(&path))
                    }
                    created => created,
                };
                Ok((created.map_err(failed("create"))?, reservation))
            }
        };
        let (handle, reservation) = disk.pool.run_any(created).await?;
        let half = Half {
            length: 0,
            size,
            reservation,
            recorder: Recorder::new(Arc::clone(&disk.files), path.with_extension("json")),
            flushes: Flushes::default(),
            writing: Arc::default(),
        };
        Ok(Self::over(disk, path, digest, handle, half))
    }

    /// Over a file of which the first `half.length` bytes are another download's.
    fn over(disk: Arc<Disk>, path: PathBuf, digest: Digest, handle: Arc<dyn FileHandle>, half: Half) -> Self {
        let Half { length, size, reservation, recorder, flushes, writing } = half;
        // Only what has a name of its own can be found again.
        let fate = if path == disk.layout.spool(&digest) { Fate::Kept } else { Fate::Removed };
        let hasher = Hasher::new(digest.algorithm());
        Self {
            disk,
            digest,
            path,
            handle,
            reservation,
            hasher,
            size,
            resumed: length,
            written: 0,
            recorder,
            flushes,
            writing,
            fate,
            bound: Bound::ForBucket,
        }
    }

    /// A way to read what has been written so far, and what will be.
    pub fn reader(&self) -> BlobFile {
        let open = OpenFile::growing(Arc::clone(&self.handle), Arc::clone(&self.recorder));
        BlobFile::new(Arc::clone(&self.disk), Arc::new(open))
    }

    /// How many bytes have been written and hashed.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// How many bytes another download left. They may be wrong, and whose fault that is nobody can tell.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// The size of the whole blob, if anybody told.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Notes what an upstream says is the size of the whole blob.
    pub fn announce(&mut self, size: Option<u64>) {
        self.size = self.size.or(size);
    }

    /// Says whether the bucket has all of it. If so, it is not uploaded, and what a power cut costs before it is whole
    /// comes from there again: it is not worth a flush, which would take the disk from others.
    pub fn comes_from_bucket(&mut self, comes: bool) {
        self.bound = if comes { Bound::Nowhere } else { Bound::ForBucket };
    }

    /// Nothing of it is to be used again.
    pub fn discard(&mut self) {
        self.fate = Fate::Removed;
    }

    /// Begins anew, without what another download left.
    pub async fn restart(mut self) -> Result<Self, StoreError> {
        let (disk, path, digest, size) = (Arc::clone(&self.disk), self.path.clone(), self.digest, self.size);
        self.discard();
        drop(self);
        let restarted = Self::create(Arc::clone(&disk), path, digest, size).await;
        restarted.inspect_err(|error| disk.health.record(error))
    }

    /// Writes the next chunks of the content and hashes them, off the runtime's threads. Returns the new length.
    pub async fn append(&mut self, chunks: Vec<Bytes>) -> Result<u64, StoreError> {
        let appended = self.try_append(chunks).await;
        self.note(appended)
    }

    async fn try_append(&mut self, chunks: Vec<Bytes>) -> Result<u64, StoreError> {
        while self.try_take_in().await?.is_some() {}
        self.flushes.check().await?;
        let start = self.written;
        let end = start + chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        if let Some(more) = end.checked_sub(self.reservation.bytes()).filter(|more| *more > 0) {
            let disk = Arc::clone(&self.disk);
            self.reservation.absorb(self.disk.pool.run_any(move || disk.reserve(more)).await?);
        }
        // A write goes on when its download is given up; whoever takes over waits for it.
        let writing = Arc::clone(&self.writing).lock_owned().await;
        let (handle, mut hasher) = (Arc::clone(&self.handle), self.hasher.clone());
        // Once: if that fails, the next flush tries again.
        let is_due = self.fate == Fate::Kept && start < WORTH_KEEPING && end >= WORTH_KEEPING;
        let due = is_due.then(|| (Arc::clone(&self.recorder), self.record(0), self.disk.next_temporary()));
        let write = move || {
            let _writing = writing;
            let mut offset = start;
            for chunk in &chunks {
                handle.write_all_at(chunk, offset)?;
                hasher.update(chunk);
                offset += chunk.len() as u64;
            }
            if let Some((recorder, record, temporary)) = due {
                recorder.write(&record, &temporary);
            }
            Ok(hasher)
        };
        self.hasher = self.disk.pool.run("write", write).await?;
        self.written = end;
        self.reservation.wrote(end);
        self.flush_beside();
        Ok(end)
    }

    fn record(&self, synced: u64) -> SpoolRecord {
        SpoolRecord { size: self.size, synced, boot: self.disk.boot.clone() }
    }

    /// Flushes what has been written, if that is due, and notes it in the record.
    fn flush_beside(&mut self) {
        if self.fate != Fate::Kept || self.bound == Bound::Nowhere {
            return;
        }
        let (disk, handle, recorder) = (&self.disk, &self.handle, &self.recorder);
        let (written, record) = (self.written, self.record(self.written));
        self.flushes.begin(written, || {
            let (pool, temporary) = (disk.pool.clone(), disk.next_temporary());
            let (handle, recorder) = (Arc::clone(handle), Arc::clone(recorder));
            async move {
                let flush = move || {
                    handle.sync_data()?;
                    recorder.write(&record, &temporary);
                    Ok(())
                };
                pool.run("sync", flush).await
            }
        });
    }

    /// The digest of everything written so far.
    pub fn digest_so_far(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Whether everything written so far hashes to the digest the spool was made for.
    pub fn is_complete(&self) -> bool {
        self.digest_so_far() == self.digest
    }

    /// Gives the content its name, for good: checks the digest, flushes the file, renames it and flushes the directory.
    /// When this returns, a power cut loses nothing.
    ///
    /// # Errors
    /// Whatever failed, once: a flush is never tried again, because the system may have dropped what it could not
    /// write.
    pub async fn publish(mut self) -> Result<(), StoreError> {
        let published = self.try_publish().await;
        self.note(published)
    }

    async fn try_publish(&mut self) -> Result<(), StoreError> {
        if !self.is_complete() {
            return Err(StoreError::Mismatch);
        }
        self.flushes.end().await?;
        let (files, handle) = (Arc::clone(&self.disk.files), Arc::clone(&self.handle));
        let (from, to) = (self.path.clone(), self.disk.layout.blob(&self.digest));
        let (recorder, disk, digest) = (Arc::clone(&self.recorder), Arc::clone(&self.disk), self.digest);
        let mark = self.disk.mark(&self.digest).filter(|_| self.bound == Bound::ForBucket);
        let publish = move || {
            handle.sync().map_err(failed("sync"))?;
            if let Some(mark) = mark {
                // A mark that cannot be made, or that a crash loses, costs another replica a fetch.
                let _ = files.create_directories(mark.parent().unwrap_or(&mark)).and_then(|()| files.create(&mark));
            }
            let shard = to.parent().unwrap_or(&to);
            disk.lasting.make(files.as_ref(), disk.layout.root(), shard)?;
            let stamp = handle.facts().map_err(failed("stat"))?.stamp;
            let replaced = {
                let _naming = disk.naming.lock();
                files.rename(&from, &to).map_err(failed("rename"))?;
                disk.index.lock().stored(&digest, stamp.length, disk.clock.now())
            };
            recorder.close();
            Ok((stamp, replaced, files.sync_directory(shard).map_err(failed("sync"))))
        };
        let (stamp, replaced, lasts) = self.disk.pool.run_any(publish).await?;
        // It has its name and takes its room from now on, whether or not that lasts.
        self.reservation.publish(self.written);
        if let Some(replaced) = replaced {
            self.disk.capacity.removed(replaced);
        }
        self.fate = Fate::Published;
        self.disk.open.forget(&self.digest);
        self.disk.verified.insert(&self.digest, stamp);
        if self.bound == Bound::ForBucket {
            self.disk.send(self.digest);
        }
        lasts.inspect(|()| self.disk.health.wrote())
    }

    /// Notes a failure of the store. What the disk has failed is not built upon.
    fn note<T>(&mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        outcome.inspect_err(|error| {
            if self.fate != Fate::Published {
                self.fate = Fate::Removed;
            }
            self.disk.health.record(error);
        })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        match self.fate {
            Fate::Published => {}
            Fate::Kept if self.recorder.is_written() => {
                // Of what was taken over, the rest is still there.
                let length = self.written.max(self.resumed);
                let mut reservation = self.reservation.take();
                reservation.settle(length);
                let half = Half {
                    length,
                    size: self.size,
                    reservation,
                    recorder: Arc::clone(&self.recorder),
                    flushes: std::mem::take(&mut self.flushes),
                    writing: Arc::clone(&self.writing),
                };
                self.disk.halves.keep(self.digest, half, Duration::ZERO);
            }
            Fate::Kept | Fate::Removed => self.remove(),
        }
    }
}

impl Spool {
    /// Unlinking is short work even for a large file: its blocks are freed when the last reader closes it. Doing it
    /// before the flight is forgotten is what lets the next download of this digest use the same path.
    fn remove(&self) {
        self.recorder.close();
        match self.disk.files.remove(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(path = %self.path.display(), %error, "A spool could not be removed; the next start does");
            }
            _ => {}
        }
    }
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Io { operation, source: Arc::new(source) }
}
