//! Half-filled spools: what a download had when it was interrupted, kept for the next one that asks.
//!
//! They are worth something, but less than anything else: a half is dropped when it has been kept for [`KEPT_FOR`], and
//! earlier if a download needs its room. The invariant: a file in `tmp` is a download's, or a half's and counted here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::capacity::Reservation;
use super::files::Files;
use super::flush::Flushes;
use super::layout::Layout;
use super::record::Recorder;
use crate::oci::Digest;

/// How long a half is kept.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// A half-filled spool that nobody works on.
#[derive(Debug)]
pub(super) struct Half {
    /// How many bytes of the file count.
    pub(super) length: u64,
    /// The size of the whole blob, if anybody told.
    pub(super) size: Option<u64>,
    /// The room it takes.
    pub(super) reservation: Reservation,
    pub(super) recorder: Arc<Recorder>,
    pub(super) flushes: Flushes,
    /// Held by the last write, if its download went without waiting for it.
    pub(super) writing: Arc<tokio::sync::Mutex<()>>,
}

/// The halves of a store.
#[derive(Debug)]
pub(super) struct Halves {
    layout: Layout,
    files: Arc<dyn Files>,
    kept: Mutex<HashMap<Digest, Kept>>,
    removed: IntCounter,
}

#[derive(Debug)]
struct Kept {
    half: Half,
    until: Instant,
    /// Ends with the half.
    _expiry: Option<AbortOnDropHandle<()>>,
}

impl Halves {
    /// None yet; files that are dropped are counted in `removed`.
    pub(super) fn new(layout: Layout, files: Arc<dyn Files>, removed: IntCounter) -> Arc<Self> {
        Arc::new(Self { layout, files, kept: Mutex::default(), removed })
    }

    /// Keeps `half`, which was last written to `age` ago. There is no other of this digest: who works on one has it.
    pub(super) fn keep(self: &Arc<Self>, digest: Digest, half: Half, age: Duration) {
        let until = Instant::now() + KEPT_FOR.saturating_sub(age);
        // At the very end of the process there is nothing that could wait; the next start looks at the age.
        let expiry = Handle::try_current().ok().map(|runtime| {
            let halves = Arc::downgrade(self);
            AbortOnDropHandle::new(runtime.spawn(async move {
                sleep_until(until).await;
                if let Some(halves) = halves.upgrade() {
                    // In a task of its own: the half that is dropped takes this one along.
                    tokio::task::spawn_blocking(move || halves.expire(&digest));
                }
            }))
        });
        self.kept.lock().insert(digest, Kept { half, until, _expiry: expiry });
    }

    /// The half of `digest`, for the caller to go on with. Its last write has ended.
    pub(super) async fn take(&self, digest: &Digest) -> Option<Half> {
        let half = self.kept.lock().remove(digest)?.half;
        drop(half.writing.lock().await);
        Some(half)
    }

    /// Drops the half that has been kept for the longest time. Returns its bytes. Blocks.
    pub(super) fn drop_oldest(&self) -> Option<u64> {
        let mut kept = self.kept.lock();
        let oldest = kept.iter().min_by_key(|(_, half)| half.until).map(|(digest, _)| *digest);
        oldest.and_then(|digest| self.remove(&mut kept, &digest))
    }

    /// The bytes of each.
    pub(super) fn bytes(&self) -> Vec<u64> {
        self.kept.lock().values().map(|kept| kept.half.reservation.bytes()).collect()
    }

    fn expire(&self, digest: &Digest) {
        let mut kept = self.kept.lock();
        // Perhaps it has been taken since, and another one kept.
        if kept.get(digest).is_some_and(|half| half.until <= Instant::now()) {
            self.remove(&mut kept, digest);
        }
    }

    /// Forgets a half and removes its files, under one lock: a download that begins in the meantime uses the same path.
    fn remove(&self, kept: &mut HashMap<Digest, Kept>, digest: &Digest) -> Option<u64> {
        let Kept { half, .. } = kept.remove(digest)?;
        self.remove_files(digest, &half.recorder);
        tracing::info!(%digest, bytes = half.length, "Dropped a half-filled download");
        Some(half.reservation.bytes())
    }

    /// Removes the files of a half that nobody works on.
    pub(super) fn remove_files(&self, digest: &Digest, recorder: &Recorder) {
        recorder.close();
        match self.files.remove(&self.layout.spool(digest)) {
            Ok(()) => self.removed.inc(),
            Err(error) => {
                tracing::debug!(%digest, %error, "A half-filled spool could not be removed; the next start does");
            }
        }
    }
}
