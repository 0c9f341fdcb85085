//! Reading content, stored or still growing.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Disk;
use super::error::StoreError;
use super::files::FileHandle;

/// How much is read at once: the knee of the curve between calls and memory, per reader.
pub const BLOCK: usize = 256 * 1024;

/// An open file of content. Clones read the same file, each at its own place; a file that is evicted or renamed in the
/// meantime stays readable.
#[derive(Debug, Clone)]
pub struct BlobFile {
    handle: Arc<dyn FileHandle>,
    length: Option<u64>,
    disk: Arc<Disk>,
}

impl BlobFile {
    pub(super) fn new(disk: Arc<Disk>, handle: Arc<dyn FileHandle>, length: Option<u64>) -> Self {
        Self { handle, length, disk }
    }

    /// Its length when it was opened; `None` for a spool, which grows.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Reads the next block of `offset..end`, at most [`BLOCK`] bytes and at least one. What the page cache holds is
    /// read right here; only a wait for the disk is worth another thread.
    ///
    /// # Errors
    /// [`StoreError::Truncated`] if the file ends before `end`: reading nothing must never look like progress.
    pub async fn read(&self, offset: u64, end: u64) -> Result<Bytes, StoreError> {
        let block = self.try_read(offset, end).await;
        block.inspect_err(|error| self.disk.health.record(error))
    }

    async fn try_read(&self, offset: u64, end: u64) -> Result<Bytes, StoreError> {
        let wanted = usize::try_from(end.saturating_sub(offset)).unwrap_or(BLOCK).min(BLOCK);
        let mut buffer = BytesMut::zeroed(wanted);
        let ready = self.handle.read_ready_at(&mut buffer, offset);
        let (count, mut buffer) = match ready {
            Ok(Some(count)) => (count, buffer),
            Ok(None) => {
                let handle = Arc::clone(&self.handle);
                let read = move || handle.read_at(&mut buffer, offset).map(|count| (count, buffer));
                self.disk.pool.run("read", read).await?
            }
            Err(source) => return Err(StoreError::Io { operation: "read", source: Arc::new(source) }),
        };
        if count == 0 {
            return Err(StoreError::Truncated { offset });
        }
        buffer.truncate(count);
        Ok(buffer.freeze())
    }

    /// Reads all of it, if it is no longer than `limit`.
    pub async fn read_all(&self, limit: usize) -> Result<Option<Bytes>, StoreError> {
        let Some(length) = self.length.filter(|length| *length <= limit as u64) else { return Ok(None) };
        let mut whole = BytesMut::with_capacity(usize::try_from(length).unwrap_or(limit));
        while (whole.len() as u64) < length {
            let block = self.read(whole.len() as u64, length).await?;
            whole.extend_from_slice(&block);
        }
        Ok(Some(whole.freeze()))
    }
}
