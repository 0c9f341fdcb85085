//! Reading content, stored or still growing.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

pub use super::blocks::BLOCK;

use super::Disk;
use super::error::StoreError;
use super::eviction::OncePerMinute;
use super::files::{FileHandle, Stamp};
use super::record::Recorder;
use super::verify::Flaw;
use crate::oci::Digest;
use crate::sendfile::Region;

/// What is no longer than this is read and goes out in one piece with its head: sending it out of the file costs more than the
/// copy of so little.
pub(super) const SMALL: u64 = 16 * 1024;

/// An open file of content. Clones read the same file, each at its own place; a file that is evicted or renamed in the
/// meantime stays readable.
#[derive(Debug, Clone)]
pub struct BlobFile {
    open: Arc<OpenFile>,
    disk: Arc<Disk>,
}

/// What is open.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) handle: Arc<dyn FileHandle>,
    /// Whose content it is, and which file it was when it was opened; `None` for a spool, which grows.
    pub(super) stored: Option<(Digest, Stamp)>,
    /// When its use was noted.
    pub(super) noted: OncePerMinute,
    /// What can be sent without being read.
    file: Option<Arc<File>>,
    /// Shared by all spools, one after the other, that have put their bytes behind each other's.
    spool: Option<Arc<Recorder>>,
}

impl OpenFile {
    /// The final file of `digest`.
    pub(super) fn stored(handle: Arc<dyn FileHandle>, digest: Digest, stamp: Stamp) -> Self {
        let file = Arc::clone(&handle).file();
        Self { handle, stored: Some((digest, stamp)), noted: OncePerMinute::default(), file, spool: None }
    }

    /// A spool, whose record `recorder` writes.
    pub(super) fn growing(handle: Arc<dyn FileHandle>, recorder: Arc<Recorder>) -> Self {
        let file = Arc::clone(&handle).file();
        Self { handle, stored: None, noted: OncePerMinute::default(), file, spool: Some(recorder) }
    }
}

impl BlobFile {
    pub(super) const fn new(disk: Arc<Disk>, open: Arc<OpenFile>) -> Self {
        Self { open, disk }
    }

    /// Its length when it was opened; `None` for a spool, which grows.
    pub fn length(&self) -> Option<u64> {
        self.open.stored.map(|(_, stamp)| stamp.length)
    }

    /// Whether `other` is the spool of a download that went on behind this one's bytes: what is in this one is in
    /// there.
    pub fn is_continued_by(&self, other: &Self) -> bool {
        self.open.spool.as_ref().zip(other.open.spool.as_ref()).is_some_and(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// Whether it was hashed since the start, and within the interval, and has not been changed since.
    pub fn is_verified(&self) -> bool {
        self.open.stored.is_some_and(|(digest, stamp)| self.disk.verified.contains(&digest, stamp))
    }

    /// The next bytes of `offset..end` as a region to be sent instead of read, at most [`Region::LONGEST`]. `None` if
    /// they have to be read: the page cache does not hold them, and whoever sent them would wait for the disk. `None` also
    /// where they are few.
    pub fn region(&self, offset: u64, end: u64) -> Option<Region> {
        let file = self.open.file.as_ref()?;
        let end = end.min(offset.saturating_add(Region::LONGEST as u64));
        let length = usize::try_from(end.checked_sub(offset)?).ok()?;
        let ready = length as u64 > SMALL && self.open.handle.is_ready(offset, end);
        ready.then(|| Region { file: Arc::clone(file), offset, length })
    }

    /// Reads the next block of `offset..end`, at most 256 KiB and at least one byte. What the page cache holds is
    /// read right here; only a wait for the disk is worth another thread.
    ///
    /// # Errors
    /// [`StoreError::Truncated`] if the file ends before `end`: reading nothing must never look like progress.
    pub async fn read(&self, offset: u64, end: u64) -> Result<Bytes, StoreError> {
        let block = self.try_read(offset, end).await;
        // What was just written comes from memory, and says nothing about the disk.
        if block.is_ok() && self.open.stored.is_some() {
            self.disk.health.was_read();
        }
        match block {
            Err(error) => {
                Box::pin(self.failed(&error)).await;
                Err(error)
            }
            block => block,
        }
    }

    /// Who asks again must not meet the same failure: the file counts as absent, and is fetched anew. One that is cut or
    /// lies on bad sectors does not become better.
    async fn failed(&self, error: &StoreError) {
        self.disk.health.record(error);
        let Some((digest, stamp)) = self.open.stored else { return };
        self.disk.verified.condemn(&digest, stamp);
        if error.is_of_this_file() {
            self.disk.quarantine(&digest, stamp, Flaw::Unreadable).await;
        }
    }

    /// The same, where a failure says nothing new.
    pub(super) async fn try_read(&self, offset: u64, end: u64) -> Result<Bytes, StoreError> {
        let wanted = usize::try_from(end.saturating_sub(offset)).unwrap_or(BLOCK).min(BLOCK);
        let mut block = self.disk.blocks.take(wanted);
        let ready = self.open.handle.read_ready_at(block.room(), offset);
        let (count, block) = match ready {
            Ok(Some(count)) => (count, block),
            Ok(None) => {
                let handle = Arc::clone(&self.open.handle);
                let read = move || handle.read_at(block.room(), offset).map(|count| (count, block));
                self.disk.pool.run("read", read).await?
            }
            Err(source) => return Err(StoreError::Io { operation: "read", source: Arc::new(source) }),
        };
        if count == 0 {
            return Err(StoreError::Truncated { offset });
        }
        Ok(block.freeze(count))
    }

    /// Reads all of it, if it is no longer than `limit`.
    pub async fn read_all(&self, limit: usize) -> Result<Option<Bytes>, StoreError> {
        let Some(length) = self.length().filter(|length| *length <= limit as u64) else { return Ok(None) };
        let mut whole = BytesMut::with_capacity(usize::try_from(length).unwrap_or(limit));
        while (whole.len() as u64) < length {
            let block = self.read(whole.len() as u64, length).await?;
            whole.extend_from_slice(&block);
        }
        Ok(Some(whole.freeze()))
    }

    /// Does something with the file, on a thread that may wait for the disk.
    pub(super) async fn read_in_background<T: Send + 'static>(
        &self,
        task: impl FnOnce(&dyn FileHandle) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let handle = Arc::clone(&self.open.handle);
        self.disk.pool.run("read", move || task(handle.as_ref())).await
    }

    pub(super) fn open(&self) -> &OpenFile {
        &self.open
    }
}
