//! The bucket behind the directory: what is stored here is uploaded there, and what is not here may be there.
//!
//! Content is published in the directory first, under a mark in `pending/`; then it is uploaded in the background, and
//! the mark goes. Marks survive the process: the next start goes on with them. So the directory may hold what the
//! bucket has not, never for longer than the bucket is out of order, and losing it costs a fetch and nothing else.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::blob::BlobFile;
use super::bucket::{Bucket, FailureKind, Followed};
use super::elsewhere::Elsewhere;
use super::error::{OpenError, StoreError};
use super::layout::digest_of_link;
use super::pending::Pending;
use super::replicas::Replica;
use super::{Disk, PinRecord, Store};
use crate::config::BucketConfig;
use crate::oci::Digest;
use crate::telemetry::metrics::StoreMetrics;

/// How many blobs are uploaded at once.
const AT_ONCE: usize = 4;
/// The most bytes of the name that a server gives to an upload. They have a hundred or two.
const MAX_UPLOAD_NAME: usize = 4096;
/// How long an upload that failed is left alone; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// A bucket, and what is on its way there.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) bucket: Bucket,
    /// This one, of those that share the bucket.
    pub(super) replica: Replica,
    pub(super) elsewhere: Elsewhere,
    pub(super) pending: Arc<Pending>,
    /// The pins in the bucket.
    pub(super) pins: tokio::sync::Mutex<Followed<PinRecord>>,
    workers: Mutex<Vec<AbortOnDropHandle<()>>>,
}

impl Tier {
    pub(super) fn new(config: &BucketConfig, metrics: &StoreMetrics) -> Result<Self, OpenError> {
        let pending = Arc::new(Pending::new(metrics.bucket.pending_uploads.clone()));
        let (replica, elsewhere) = (Replica::new(config.max_size), Elsewhere::new(config.redirect));
        let (pins, workers) = (tokio::sync::Mutex::default(), Mutex::default());
        Ok(Self { bucket: Bucket::new(config, metrics)?, replica, elsewhere, pending, pins, workers })
    }

    /// The bucket stays the one that it is; who to be to it may change, and how it is used.
    pub(super) fn adjust(&self, config: &BucketConfig) {
        if let Err(error) = self.bucket.set_credentials(&config.credentials) {
            tracing::error!(%error, "The credentials of the bucket stay as they were");
        }
        self.replica.bound(config.max_size);
        self.elsewhere.set(config.redirect);
    }

    /// Why the bucket is not at its best, if it is not.
    pub(super) fn trouble(&self) -> Option<String> {
        self.replica.refusal().map(|error| error.to_string()).or_else(|| self.bucket.trouble())
    }
}

/// How an upload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Uploaded {
    /// It is there, or will never be.
    Settled,
    /// To be tried again.
    NotYet,
}

/// Where content is that is to be in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secured {
    /// It is there, or there is no bucket.
    There,
    /// It is here, and the bucket does not take it for now.
    OnItsWay,
    /// It is neither there nor to be had from here.
    Nowhere,
}

impl Store {
    /// The bucket behind the directory, if there is one that can be read.
    pub fn bucket(&self) -> Option<&Bucket> {
        self.disk.bucket()
    }

    /// Whether the directory stands before a bucket, whatever that one is like.
    pub fn is_before_bucket(&self) -> bool {
        self.disk.tier.is_some()
    }

    /// Whether a blob or manifest is here alone, and not in the bucket yet.
    pub fn is_pending(&self, digest: &Digest) -> bool {
        self.disk.tier.as_ref().is_some_and(|tier| tier.pending.contains(digest))
    }

    /// Sees to it that a blob or manifest of this size is in the bucket: what is here alone is sent there, and waited for
    /// while uploads get on. Without a bucket, there is nothing to see to.
    ///
    /// # Errors
    /// If it cannot be told.
    pub async fn secure(&self, digest: &Digest, size: u64) -> Result<Secured, StoreError> {
        let Some(tier) = &self.disk.tier else { return Ok(Secured::There) };
        if let Some(refusal) = tier.replica.refusal() {
            return Err(refusal);
        }
        if !tier.pending.settled(digest).await {
            return Ok(Secured::OnItsWay);
        }
        if tier.bucket.stat(digest).await? == Some(size) {
            return Ok(Secured::There);
        }
        if self.stat_here(digest).await? != Some(size) {
            return Ok(Secured::Nowhere);
        }
        // Somebody has taken it away there, or it was given up.
        self.disk.send_anew(*digest).await;
        if !tier.pending.settled(digest).await {
            return Ok(Secured::OnItsWay);
        }
        let is_there = tier.bucket.stat(digest).await? == Some(size);
        Ok(if is_there { Secured::There } else { Secured::Nowhere })
    }

    /// A manifest from the bucket, if it is there and no longer than `limit`. It is right.
    pub async fn read_back(&self, digest: &Digest, limit: usize) -> Option<Bytes> {
        let bucket = self.bucket()?;
        let mut object = bucket.open(digest, 0).await.ok()?.filter(|object| object.size() <= limit as u64)?;
        let mut body = Vec::new();
        // What is missing has been counted and logged; the manifest is fetched from elsewhere.
        while let Some(bytes) = object.next().await.ok()? {
            body.extend_from_slice(&bytes);
        }
        if !digest.matches(&body) {
            self.disk.metrics.corrupt_objects.inc();
            tracing::error!(%digest, "A manifest in the bucket is not what its name says: fetched again");
            return None;
        }
        Some(body.into())
    }

    /// Goes on with what earlier processes left, and uploads what comes.
    pub(super) fn begin_uploads(&self) {
        let Some(tier) = &self.disk.tier else { return };
        let begin = |_| AbortOnDropHandle::new(tokio::spawn(work(Arc::downgrade(&self.disk))));
        tier.workers.lock().extend((0..AT_ONCE).map(begin));
        let disk = Arc::clone(&self.disk);
        self.disk.background.spawn(async move {
            let (files, directory) = (Arc::clone(&disk.files), disk.layout.pending());
            let marks = disk.pool.run("list", move || files.list(&directory)).await.unwrap_or_default();
            let left: Vec<Digest> = marks.iter().filter_map(|name| digest_of_link(name)).collect();
            if !left.is_empty() {
                tracing::info!(blobs = left.len(), "Going on with uploads to the bucket");
            }
            for digest in left {
                disk.send(digest);
            }
        });
    }
}

/// Uploads one after the other, as long as there is a store.
async fn work(store: Weak<Disk>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(disk) = store.upgrade() else { return };
        let Some(tier) = &disk.tier else { return };
        // What ends now goes on at the next start.
        if disk.background.is_closed() {
            return;
        }
        let Some(digest) = tier.pending.next() else {
            // Without the store in hand: it must be able to end meanwhile.
            let pending = Arc::clone(&tier.pending);
            drop(disk);
            pending.more().await;
            continue;
        };
        let uploading = Arc::clone(&disk);
        let uploaded = disk.background.spawn(async move { uploading.upload(digest).await }).await;
        match uploaded {
            Ok(Uploaded::Settled) => {
                // First: who waits for it may look at once.
                disk.index.lock().sent(&digest, disk.clock.now());
                tier.pending.done(&digest);
                pause = FIRST_PAUSE;
            }
            Ok(Uploaded::NotYet) | Err(_) => {
                tier.pending.put_back(digest);
                drop(disk);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

impl Disk {
    /// See [`Store::bucket`].
    pub(super) fn bucket(&self) -> Option<&Bucket> {
        self.tier.as_ref().filter(|tier| tier.replica.refusal().is_none()).map(|tier| &tier.bucket)
    }

    /// The bucket behind the directory, if there is one; why it must not be written to, if so.
    pub(super) async fn bucket_to_write(&self) -> Option<Result<&Bucket, StoreError>> {
        let tier = self.tier.as_ref()?;
        Some(tier.replica.admit(&tier.bucket).await.map(|()| &tier.bucket))
    }

    /// Notes for the other replicas that a blob or manifest is used.
    pub(super) fn note_shared(&self, digest: &Digest) {
        if let Some(tier) = &self.tier {
            tier.replica.note(|journal| journal.blob(digest));
        }
    }

    /// Uploads a blob or manifest that is here.
    async fn upload(self: Arc<Self>, digest: Digest) -> Uploaded {
        let store = Store { disk: Arc::clone(&self) };
        let Some(bucket) = self.bucket_to_write().await else { return Uploaded::Settled };
        let Ok(bucket) = bucket else { return Uploaded::NotYet };
        // That is no use of it: what earlier processes left would seem to be used at every start.
        let file = match self.open_to_tend(&digest).await {
            Err(error) if error.is_out_of_descriptors() => return Uploaded::NotYet,
            Ok(Some(file)) => file,
            _ => {
                self.unmark(&digest).await;
                return Uploaded::Settled;
            }
        };
        if let Some(id) = self.noted_upload(&digest).await {
            bucket.give_up(&digest, id).await;
        }
        let note = async |id| self.note_upload(&digest, id).await;
        match bucket.upload_noted(&digest, &file, note).await {
            Ok(()) => {
                tracing::debug!(%digest, bytes = file.length(), "uploaded");
                self.unmark(&digest).await;
                Uploaded::Settled
            }
            Err(error) => self.not_uploaded(&store, &file, &digest, &error).await,
        }
    }

    async fn not_uploaded(&self, store: &Store, file: &BlobFile, digest: &Digest, error: &StoreError) -> Uploaded {
        let is_hopeless = match error {
            // It rotted since it was stored: set aside, so that the next request fetches it anew.
            StoreError::Mismatch | StoreError::Truncated { .. } => {
                store.verify_now(digest, file).await;
                true
            }
            StoreError::Bucket { failure, .. } => failure.kind() == FailureKind::TooLarge,
            _ => false,
        };
        if !is_hopeless {
            return Uploaded::NotYet;
        }
        tracing::warn!(%digest, %error, "A blob is not uploaded to the bucket");
        self.unmark(digest).await;
        Uploaded::Settled
    }

    /// Where the mark of `digest` goes, if there is a bucket that it is to be uploaded to.
    pub(super) fn mark(&self, digest: &Digest) -> Option<PathBuf> {
        self.tier.is_some().then(|| self.layout.pending_mark(digest))
    }

    /// Has a blob or manifest that is here uploaded, if there is a bucket. Until then it is the last to be evicted.
    pub(super) fn send(&self, digest: Digest) {
        if let Some(tier) = &self.tier {
            self.index.lock().unsent(&digest, self.clock.now());
            tier.pending.enqueue(digest);
        }
    }

    /// Has something uploaded that was there before, or should have been.
    async fn send_anew(&self, digest: Digest) {
        let (files, mark) = (Arc::clone(&self.files), self.layout.pending_mark(&digest));
        let make = move || files.create_directories(mark.parent().unwrap_or(&mark)).and_then(|()| files.create(&mark));
        // A mark that cannot be made, or is there already, costs nothing but a look.
        let _ = self.pool.run("mark", make).await;
        self.send(digest);
    }

    /// Writes the name of an upload into the mark: should this process end before it, the next one takes its parts away.
    async fn note_upload(&self, digest: &Digest, id: String) {
        let (files, mark, temporary) =
            (Arc::clone(&self.files), self.layout.pending_mark(digest), self.next_temporary());
        let write = move || {
            let written = files.create(&temporary).and_then(|handle| handle.write_all_at(id.as_bytes(), 0));
            written.and_then(|()| files.rename(&temporary, &mark)).inspect_err(|_| {
                // What cannot be removed now is removed at the next start.
                let _ = files.remove(&temporary);
            })
        };
        // A name that gets lost costs room in the bucket, until the rules of its life cycle take the parts away.
        let _ = self.pool.run("mark", write).await;
    }

    /// The name of an upload that did not come to its end.
    async fn noted_upload(&self, digest: &Digest) -> Option<String> {
        let (files, mark) = (Arc::clone(&self.files), self.layout.pending_mark(digest));
        let read = move || {
            let mut id = vec![0; MAX_UPLOAD_NAME];
            let length = files.open(&mark)?.read_at(&mut id, 0)?;
            id.truncate(length);
            Ok(String::from_utf8(id).ok().filter(|id| !id.is_empty()))
        };
        self.pool.run("read", read).await.ok().flatten()
    }

    async fn unmark(&self, digest: &Digest) {
        let (files, mark) = (Arc::clone(&self.files), self.layout.pending_mark(digest));
        // A mark that stays costs one more upload.
        let _ = self.pool.run("unmark", move || files.remove(&mark)).await;
    }
}
