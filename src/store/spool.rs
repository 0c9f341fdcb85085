//! Content on its way in: a temporary file that grows, is hashed as it grows, and takes its name only when it is right.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::Disk;
use super::blob::{BlobFile, OpenFile};
use super::capacity::Reservation;
use super::error::StoreError;
use super::files::FileHandle;
use crate::oci::{Digest, Hasher};

/// A blob being stored. Dropping it before [`Spool::publish`] removes the file; those who read it go on reading.
#[derive(Debug)]
pub struct Spool {
    disk: Arc<Disk>,
    digest: Digest,
    path: PathBuf,
    handle: Arc<dyn FileHandle>,
    reservation: Reservation,
    hasher: Hasher,
    written: u64,
    published: bool,
}

impl Spool {
    /// Makes the temporary file at `path`, which must be nobody else's, and reserves room.
    pub(super) async fn create(
        disk: Arc<Disk>,
        path: PathBuf,
        digest: Digest,
        size: Option<u64>,
    ) -> Result<Self, StoreError> {
        disk.check_lock()?;
        let files = Arc::clone(&disk.files);
        let root = disk.layout.root().to_owned();
        let created = {
            let (path, capacity) = (path.clone(), Arc::clone(&disk.capacity));
            disk.pool.run_any(move || {
                let failed = |operation| move |source| StoreError::Io { operation, source: Arc::new(source) };
                let space = files.space(&root).map_err(failed("measure"))?;
                let reservation = capacity.reserve(size.unwrap_or(0), space)?;
                let created = match files.create(&path) {
                    // Left behind by a download whose file could not be removed at its end. Nobody else writes to it.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        files.remove(&path).and_then(|()| files.create(&path))
                    }
                    created => created,
                };
                Ok((created.map_err(failed("create"))?, reservation))
            })
        };
        let (handle, reservation) = created.await?;
        let hasher = Hasher::new(digest.algorithm());
        Ok(Self { disk, digest, path, handle, reservation, hasher, written: 0, published: false })
    }

    /// A way to read what has been written so far, and what will be.
    pub fn reader(&self) -> BlobFile {
        BlobFile::new(Arc::clone(&self.disk), Arc::new(OpenFile::new(Arc::clone(&self.handle), None)))
    }

    /// How many bytes have been written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes the next chunks of the content and hashes them, off the runtime's threads. Returns the new length.
    pub async fn append(&mut self, chunks: Vec<Bytes>) -> Result<u64, StoreError> {
        let appended = self.try_append(chunks).await;
        appended.inspect_err(|error| self.disk.health.record(error))
    }

    async fn try_append(&mut self, chunks: Vec<Bytes>) -> Result<u64, StoreError> {
        let start = self.written;
        let end = start + chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        if end > self.reservation.bytes() {
            let (files, root) = (Arc::clone(&self.disk.files), self.disk.layout.root().to_owned());
            let space = self.disk.pool.run("measure", move || files.space(&root)).await?;
            self.reservation.grow_to(end, space)?;
        }
        let (handle, mut hasher) = (Arc::clone(&self.handle), self.hasher.clone());
        let write = move || {
            let mut offset = start;
            for chunk in &chunks {
                handle.write_all_at(chunk, offset)?;
                hasher.update(chunk);
                offset += chunk.len() as u64;
            }
            Ok(hasher)
        };
        self.hasher = self.disk.pool.run("write", write).await?;
        self.written = end;
        self.reservation.wrote(end);
        Ok(end)
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
        published.inspect_err(|error| self.disk.health.record(error))
    }

    async fn try_publish(&mut self) -> Result<(), StoreError> {
        if !self.is_complete() {
            return Err(StoreError::Mismatch);
        }
        let (files, handle) = (Arc::clone(&self.disk.files), Arc::clone(&self.handle));
        let (from, to) = (self.path.clone(), self.disk.layout.blob(&self.digest));
        let publish = move || {
            let failed = |operation| move |source| StoreError::Io { operation, source: Arc::new(source) };
            handle.sync().map_err(failed("sync"))?;
            let shard = to.parent().unwrap_or(&to);
            if files.stat(shard).is_err() {
                // A new directory lasts only when the directory above it is flushed; there are at most two new levels.
                files.create_directories(shard).map_err(failed("create"))?;
                for above in shard.ancestors().skip(1).take(2) {
                    files.sync_directory(above).map_err(failed("sync"))?;
                }
            }
            files.rename(&from, &to).map_err(failed("rename"))?;
            files.sync_directory(shard).map_err(failed("sync"))
        };
        self.disk.pool.run_any(publish).await?;
        self.reservation.publish(self.written);
        self.published = true;
        self.disk.verified.insert(&self.digest);
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        // Unlinking is short work even for a large file: its blocks are freed when the last reader closes it. Doing it
        // here, before the flight is forgotten, is what lets the next download of this digest use the same path.
        match self.disk.files.remove(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(path = %self.path.display(), %error, "A spool could not be removed; the next start does");
            }
            _ => {}
        }
    }
}
