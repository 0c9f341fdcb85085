//! Which stored content is known to be what its name says, and since when.
//!
//! Content is hashed on its way in. What was there before this process has to be hashed before it is believed, and
//! everything again once per interval, because disks forget. The record is in memory only: after a restart nothing is
//! believed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::oci::Digest;

/// A record of what was hashed when. It costs some 50 bytes per blob.
#[derive(Debug)]
pub(super) struct Verified {
    started: Instant,
    /// In seconds: how long a blob is believed.
    interval: AtomicU64,
    /// Seconds after the start, by the first half of a digest: that is long enough to tell blobs apart, and whoever
    /// makes two of them meet gains that one of them is hashed later.
    at: Mutex<HashMap<u128, u32>>,
}

impl Verified {
    /// Content is believed for `interval` after it was hashed.
    pub(super) fn new(interval: Duration) -> Self {
        Self { started: Instant::now(), interval: AtomicU64::new(interval.as_secs()), at: Mutex::default() }
    }

    /// Content is believed for `interval` from now on, whenever it was hashed.
    pub(super) fn set_interval(&self, interval: Duration) {
        self.interval.store(interval.as_secs(), Ordering::Relaxed);
    }

    /// The content of `digest` has been hashed just now.
    pub(super) fn insert(&self, digest: &Digest) {
        self.at.lock().insert(key(digest), self.now());
    }

    /// Nothing is known about the content of `digest` any more.
    pub(super) fn remove(&self, digest: &Digest) {
        self.at.lock().remove(&key(digest));
    }

    /// Whether the content of `digest` was hashed a short enough while ago.
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        let Some(at) = self.at.lock().get(&key(digest)).copied() else { return false };
        u64::from(self.now().saturating_sub(at)) < self.interval.load(Ordering::Relaxed)
    }

    fn now(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX)
    }
}

fn key(digest: &Digest) -> u128 {
    let mut half = [0; 16];
    half.copy_from_slice(&digest.hash_bytes()[..16]);
    u128::from_le_bytes(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn content_is_believed_for_the_interval() {
        let verified = Verified::new(Duration::from_secs(10));
        let (digest, other) = (Digest::of(b"x"), Digest::of(b"y"));
        assert!(!verified.contains(&digest), "nothing is believed at start");
        verified.insert(&digest);
        assert!(verified.contains(&digest) && !verified.contains(&other));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(verified.contains(&digest));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!verified.contains(&digest));
        verified.set_interval(Duration::from_secs(11));
        assert!(verified.contains(&digest), "another interval counts for what was hashed before");
        verified.insert(&digest);
        assert!(verified.contains(&digest));
        verified.remove(&digest);
        assert!(!verified.contains(&digest));
    }
}
