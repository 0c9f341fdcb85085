//! What can still be read of a stored file that fails in the middle, for a download to go on behind it.
//!
//! It becomes the half of an interrupted download: hashed again with what comes behind it before anybody may believe
//! the whole. The file itself has been set aside by then, and stays as it is.

use std::time::Duration;

use tokio::time::Instant;

use super::Store;
use super::blob::BlobFile;
use super::spool::WORTH_KEEPING;
use crate::oci::Digest;

/// How long may be read. Somebody waits for the download, and what is missing can be fetched.
const PATIENCE: Duration = Duration::from_secs(10);

impl Store {
    /// Copies the beginning of `file`, the stored file of `digest`, up to where it cannot be read any more, and keeps it
    /// for [`Store::spool`] to go on behind. Nothing is kept if that is too little to be worth it, or if the store cannot
    /// take it. As with a spool: one at a time per digest, and the caller sees to that.
    pub async fn salvage(&self, digest: &Digest, file: &BlobFile) {
        let (Some(length), Ok(())) = (file.length(), self.disk.may_write()) else { return };
        if length < WORTH_KEEPING {
            return;
        }
        if let Some(half) = self.disk.halves.take(digest).await {
            return self.disk.halves.keep(*digest, half, Duration::ZERO);
        }
        let path = self.disk.layout.spool(digest);
        let Ok(mut spool) = self.spool_at(path, digest, Some(length)).await else { return };
        let begun = Instant::now();
        while spool.written() < length && begun.elapsed() < PATIENCE {
            // It has failed before, which has been counted.
            let Ok(block) = file.try_read(spool.written(), length).await else { break };
            if spool.append(vec![block]).await.is_err() {
                return;
            }
        }
        tracing::info!(%digest, bytes = spool.written(), "Copied what can still be read of a stored file");
    }
}
