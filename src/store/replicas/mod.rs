//! What replicas that share a bucket do for one another, with nothing but the bucket between them.
//!
//! They agree on its layout, each notes what is used through it, and one of them keeps the bucket within its bound. None
//! of it is on the way of a pull or of a start: a task of the store does it, now and then. Its invariants:
//!
//! - Nothing is written to a bucket of a later layout, and nothing is read from it once that is known.
//! - Whoever takes an object away may do so at the same time as another: the same choice is made twice, and an object that
//!   is gone is fetched again. That one replica alone does it spares work, and is no condition.
//! - The notes are hints. Without them what goes is chosen by the times of uploads.
//!
//! Reading order: `version` is the layout, `journal` the notes, `standing` says whose turn it is and when (both pure),
//! `round` makes room in the bucket and spares what is `pinned`, and this file is the task.

mod journal;
mod pinned;
mod round;
mod standing;
mod version;

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::Disk;
use super::bucket::Bucket;
use super::error::StoreError;
use super::tier::Tier;
use journal::Journal;
use version::Version;

pub(super) use journal::ImageUse;

/// How often the notes are written, and the layout is looked at.
const FLUSH: Duration = Duration::from_secs(5 * 60);

/// One of the replicas that share a bucket.
#[derive(Debug)]
pub(super) struct Replica {
    /// What it calls itself, for as long as its process lives.
    name: String,
    version: Version,
    journal: Mutex<Journal>,
    max_size: Mutex<Option<u64>>,
    wake: Arc<Notify>,
    /// Ends with the store.
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Replica {
    /// A replica that keeps the bucket within `max_size` bytes, if there is a bound.
    pub(super) fn new(max_size: Option<u64>) -> Self {
        Self {
            name: name(),
            version: Version::default(),
            journal: Mutex::default(),
            max_size: Mutex::new(max_size),
            wake: Arc::default(),
            task: Mutex::default(),
        }
    }

    /// Begins to do its part for the store `disk`.
    pub(super) fn start(&self, disk: &Arc<Disk>) {
        let task = tokio::spawn(take_part(Arc::downgrade(disk), Arc::clone(&self.wake)));
        *self.task.lock() = Some(AbortOnDropHandle::new(task));
    }

    /// Keeps the bucket within another bound, from now on.
    pub(super) fn bound(&self, max_size: Option<u64>) {
        if std::mem::replace(&mut *self.max_size.lock(), max_size) != max_size {
            self.wake.notify_one();
        }
    }

    /// The most bytes that may be pinned in the bucket.
    pub(super) fn pinnable(&self) -> u64 {
        self.max_size.lock().map_or(u64::MAX, standing::pinnable)
    }

    /// Why the bucket is not used, if it is one of a later release.
    pub(super) fn refusal(&self) -> Option<StoreError> {
        self.version.refusal()
    }

    /// Makes sure that `bucket` may be written to.
    pub(super) async fn admit(&self, bucket: &Bucket) -> Result<(), StoreError> {
        self.version.admit(bucket).await
    }

    /// Notes a use for the others, if anybody wants to know.
    pub(super) fn note(&self, note: impl FnOnce(&mut Journal)) {
        if self.max_size.lock().is_some() {
            note(&mut self.journal.lock());
        }
    }

    /// Writes down what was used since the last time. Written even when that is nothing: it says that this replica lives.
    async fn write_journal(&self, bucket: &Bucket) -> Result<(), StoreError> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let page = self.journal.lock().page(since_1970);
        for (hour, text) in page {
            let path = bucket.layout().journal(hour, &self.name);
            bucket.write_record(&path, text).await?;
        }
        Ok(())
    }
}

/// Until the store is gone.
async fn take_part(store: Weak<Disk>, wake: Arc<Notify>) {
    let mut look_at = Instant::now();
    loop {
        let Some(disk) = store.upgrade() else { return };
        tokio::select! {
            () = do_part(&disk, &mut look_at) => {}
            // The process ends, and waits for nothing that the next one does anyway.
            () = disk.background.wait() => return,
        }
        drop(disk);
        tokio::select! {
            () = sleep(FLUSH) => {}
            // Another bound takes effect at once.
            () = wake.notified() => look_at = Instant::now(),
        }
    }
}

/// What there is to do now. Failures are counted and logged where they happen, and the next time has another chance.
async fn do_part(disk: &Arc<Disk>, look_at: &mut Instant) {
    let Some(Tier { bucket, replica, .. }) = &disk.tier else { return };
    if replica.version.check(bucket).await.is_err() {
        return;
    }
    let Some(limit) = *replica.max_size.lock() else { return disk.metrics.bucket.limit_bytes.set(0) };
    if replica.write_journal(bucket).await.is_ok() && Instant::now() >= *look_at {
        let looked = round::look(disk, bucket, &replica.name, limit).await;
        *look_at = Instant::now() + standing::pause_after(looked.ok().flatten(), limit);
    }
}

/// A name that no other process has.
fn name() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let number = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", number(), number())
}
