//! Taking over what an interrupted download left.

use std::sync::Arc;

use super::{Spool, failed};
use crate::oci::Digest;
use crate::store::Disk;
use crate::store::error::StoreError;
use crate::store::halves::Half;
use crate::store::record::SpoolRecord;

/// How much is hashed before readers hear of it, and how much is read at once.
const STEP: u64 = 8 * 1024 * 1024;
const READ: usize = 256 * 1024;

impl Spool {
    /// Takes over `half`, and reserves the room that is missing. Nothing of it has been hashed yet: see
    /// [`Spool::take_in`]. `None` if it is no half of a blob of this size.
    pub(in crate::store) async fn resume(
        disk: Arc<Disk>,
        digest: Digest,
        mut half: Half,
        size: Option<u64>,
    ) -> Result<Option<Self>, StoreError> {
        let told = size.or(half.size);
        if told != half.size.or(told) || told.is_some_and(|size| half.length > size) {
            disk.halves.remove_files(&digest, &half.recorder);
            return Ok(None);
        }
        half.size = told;
        let path = disk.layout.spool(&digest);
        let reopen = {
            let (disk, path, length) = (Arc::clone(&disk), path.clone(), half.length);
            let recorder = Arc::clone(&half.recorder);
            let record = SpoolRecord { size: half.size, synced: half.flushes.synced(), boot: disk.boot.clone() };
            move || {
                let handle = disk.files.reopen(&path).map_err(failed("open"))?;
                // What lies behind was being written when the download ended.
                handle.set_length(length).map_err(failed("cut"))?;
                // From now on this boot writes to it.
                recorder.write(&record, &disk.next_temporary());
                Ok(handle)
            }
        };
        let handle = match disk.pool.run_any(reopen).await {
            Ok(handle) => handle,
            Err(error) => {
                disk.halves.remove_files(&digest, &half.recorder);
                return Err(error);
            }
        };
        let missing = half.size.map_or(0, |size| size - half.length);
        let mut spool = Self::over(Arc::clone(&disk), path, digest, handle, half);
        let reserve = {
            let disk = Arc::clone(&disk);
            move || disk.reserve(missing)
        };
        spool.reservation.absorb(disk.pool.run_any(reserve).await?);
        Ok(Some(spool))
    }

    /// Hashes the next piece of what another download left, off the runtime's threads. Returns how many bytes count by
    /// now, `None` if nothing was left to hash.
    pub async fn take_in(&mut self) -> Result<Option<u64>, StoreError> {
        let taken = self.try_take_in().await;
        self.note(taken)
    }

    pub(super) async fn try_take_in(&mut self) -> Result<Option<u64>, StoreError> {
        let (start, end) = (self.written, self.resumed.min(self.written + STEP));
        if start >= end {
            return Ok(None);
        }
        let (handle, mut hasher) = (Arc::clone(&self.handle), self.hasher.clone());
        let hash = move || {
            let mut buffer = vec![0; READ];
            let mut offset = start;
            while offset < end {
                let wanted = usize::try_from(end - offset).unwrap_or(READ).min(READ);
                let read = handle.read_at(&mut buffer[..wanted], offset).map_err(failed("read"))?;
                if read == 0 {
                    return Err(StoreError::Truncated { offset });
                }
                hasher.update(&buffer[..read]);
                offset += read as u64;
            }
            Ok(hasher)
        };
        self.hasher = self.disk.pool.run_any(hash).await?;
        self.written = end;
        Ok(Some(end))
    }
}
