//! Finding content: is it here, and may it be believed to be what its name says?

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::blob::{BlobFile, OpenFile, SMALL};
use super::error::StoreError;
use super::files::FileFacts;
use super::hashing::open_unnoticed;
use super::{Disk, Store};
use crate::oci::Digest;

impl Store {
    /// Opens a blob or manifest in the directory for reading. `None` if it is not stored there; a failure to look counts as
    /// that, too, and so does a file that was found not to be what its name says.
    pub async fn open_blob(&self, digest: &Digest) -> Option<BlobFile> {
        let open = match self.disk.open.get(digest) {
            Some(open) => open,
            None => self.disk.open_anew(digest).await?,
        };
        let (_, stamp) = open.stored?;
        self.disk.note_use(digest, &open);
        (!self.disk.verified.is_condemned(digest, stamp)).then(|| BlobFile::new(Arc::clone(&self.disk), open))
    }

    /// The same for who looks after content and does not come for it: that is no use of it.
    pub async fn open_unused(&self, digest: &Digest) -> Option<BlobFile> {
        self.disk.open_to_tend(digest).await.ok().flatten()
    }

    /// The size of a stored blob or manifest in bytes, here or in the bucket. Who asks is about to come for it, so it counts
    /// as used.
    pub async fn stat(&self, digest: &Digest) -> Option<u64> {
        // First: what is found to be there must not go in the next moment.
        self.disk.index.lock().used(digest, self.disk.clock.now());
        if let Ok(Some(size)) = self.stat_here(digest).await {
            return Some(size);
        }
        // A failure to look has been counted and logged, and is a miss.
        let size = Box::pin(self.bucket()?.stat(digest)).await.ok()??;
        self.disk.note_shared(digest);
        Some(size)
    }

    /// The same for who looks after content and does not come for it: that is no use of it.
    ///
    /// # Errors
    /// If it cannot be told.
    pub async fn holds(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let here = self.stat_here(digest).await;
        match self.bucket() {
            Some(bucket) if !matches!(here, Ok(Some(_))) => Box::pin(bucket.stat(digest)).await,
            _ => here,
        }
    }

    pub(super) async fn stat_here(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let facts = match self.disk.stat(self.disk.layout.blob(digest)).await {
            Err(error) if error.is_not_found() => {
                self.disk.lost(digest).await;
                return Ok(None);
            }
            facts => facts?,
        };
        let is_content = facts.is_file && (facts.length > 0 || digest.matches(b""));
        Ok((is_content && !self.disk.verified.is_condemned(digest, facts.stamp())).then_some(facts.length))
    }
}

impl Disk {
    /// Opens a blob or manifest in the directory for who looks after it and serves nobody with it: that is no use of it.
    /// `None` if it is not stored, or was found not to be what its name says.
    pub(super) async fn open_to_tend(self: &Arc<Self>, digest: &Digest) -> Result<Option<BlobFile>, StoreError> {
        let opened = open_unnoticed(&self.files, &self.pool, self.layout.blob(digest)).await;
        let Some((handle, stamp)) = opened.inspect_err(|error| self.health.record(error))? else {
            self.lost(digest).await;
            return Ok(None);
        };
        let is_content = stamp.length > 0 || digest.matches(b"");
        let open = Arc::new(OpenFile::stored(handle, *digest, stamp));
        let is_good = is_content && !self.verified.is_condemned(digest, stamp);
        Ok(is_good.then(|| BlobFile::new(Arc::clone(self), open)))
    }

    /// Notes that a blob is read, once a minute: this is on the way of every request.
    fn note_use(&self, digest: &Digest, open: &OpenFile) {
        let now = self.clock.now();
        if open.noted.is_due(now) {
            self.index.lock().used(digest, now);
            self.note_shared(digest);
        }
    }

    /// A final file is not there. If it ought to be, somebody else has removed it, and it takes no room any more.
    async fn lost(self: &Arc<Self>, digest: &Digest) {
        if !self.index.lock().contains(digest) {
            return;
        }
        let (disk, digest) = (Arc::clone(self), *digest);
        let look = move || {
            let _naming = disk.naming.lock();
            match disk.files.stat(&disk.layout.blob(&digest)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Ok(disk.index.lock().removed(&digest).map(|length| disk.capacity.removed(length)))
                }
                _ => Ok(None),
            }
        };
        if let Err(error) = self.pool.run("stat", look).await {
            self.health.record(&error);
        }
    }

    /// Opens the final file of a digest, and keeps it open unless it is small: then what opening costs is little beside what
    /// a place among the open files is worth to a larger one.
    async fn open_anew(self: &Arc<Self>, digest: &Digest) -> Option<Arc<OpenFile>> {
        let mut opened = self.open_file(digest).await;
        if opened.as_ref().is_err_and(StoreError::is_out_of_descriptors) {
            self.open.shed();
            opened = self.open_file(digest).await;
        }
        match opened {
            Ok(opened) => {
                let open = Arc::new(opened?);
                if open.stored.is_some_and(|(_, stamp)| stamp.length > SMALL) {
                    self.open.keep(digest, &open);
                }
                Some(open)
            }
            Err(error) if error.is_not_found() => {
                self.lost(digest).await;
                None
            }
            Err(error) => {
                self.health.record(&error);
                None
            }
        }
    }

    /// Opens the final file of a digest. `None` if something stands there that is not its content.
    async fn open_file(&self, digest: &Digest) -> Result<Option<OpenFile>, StoreError> {
        let path = self.layout.blob(digest);
        let failed = |source| StoreError::Io { operation: "open", source: Arc::new(source) };
        let (handle, stamp) = if let Some(opened) = self.files.open_ready(&path).map_err(failed)? {
            opened
        } else {
            let files = Arc::clone(&self.files);
            let open = move || {
                // A directory or a symbolic link under a final name was planted: it is not ours to follow.
                if files.stat(&path)?.is_file { files.open(&path).map(Some) } else { Ok(None) }
            };
            let Some(handle) = self.pool.run("open", open).await? else { return Ok(None) };
            let stamp = handle.facts().map_err(failed)?.stamp;
            (handle, stamp)
        };
        // An empty file under another name than that of the empty content was cut; it is fetched again.
        let is_content = stamp.length > 0 || digest.matches(b"");
        Ok(is_content.then(|| OpenFile::stored(handle, *digest, stamp)))
    }

    /// What stands at a path; on another thread only if that has to wait for the disk.
    pub(super) async fn stat(&self, path: PathBuf) -> Result<FileFacts, StoreError> {
        match self.files.stat_ready(&path) {
            Ok(Some(facts)) => Ok(facts),
            Ok(None) => {
                let files = Arc::clone(&self.files);
                self.pool.run("stat", move || files.stat(&path)).await
            }
            Err(source) => Err(StoreError::Io { operation: "stat", source: Arc::new(source) }),
        }
    }
}
