//! Blobs that clients fetch from the bucket by themselves, at an address that is signed for them.
//!
//! Only what was hashed here a short enough while ago, and is known to be in the bucket in the same size. Whatever cannot
//! be told makes no address: then the blob is served from here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::future::Cache;
use url::Url;

use super::{BlobFile, Store};
use crate::oci::Digest;

/// How long an address is good for: long enough to begin with the last of many layers.
const SIGNED_FOR: Duration = Duration::from_secs(10 * 60);
/// How long an object that was seen in the bucket is taken to be there.
const SEEN_FOR: Duration = Duration::from_secs(60);
/// How many of those are remembered.
const MOST_SEEN: u64 = 10_000;

/// Whether clients are sent to the bucket, and what was seen there.
#[derive(Debug)]
pub(super) struct Elsewhere {
    is_on: AtomicBool,
    seen: Cache<Digest, ()>,
}

impl Elsewhere {
    pub(super) fn new(is_on: bool) -> Self {
        let seen = Cache::builder().max_capacity(MOST_SEEN).time_to_live(SEEN_FOR).build();
        Self { is_on: AtomicBool::new(is_on), seen }
    }

    pub(super) fn set(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }
}

impl Store {
    /// Whether clients may be sent to the bucket.
    pub fn sends_elsewhere(&self) -> bool {
        self.disk.tier.as_ref().is_some_and(|tier| tier.elsewhere.is_on.load(Ordering::Relaxed))
    }

    /// Where a client can fetch the stored `file` of `digest` from the bucket.
    pub async fn elsewhere(&self, digest: &Digest, file: &BlobFile) -> Option<Url> {
        let (tier, bucket) = (self.disk.tier.as_ref()?, self.bucket()?);
        if !self.sends_elsewhere() || !file.is_verified() || self.is_pending(digest) {
            return None;
        }
        let seen = &tier.elsewhere.seen;
        if seen.get(digest).await.is_none() {
            // A failure to look has been counted and logged.
            let size = bucket.stat(digest).await.ok()?;
            if size.is_none() || size != file.length() {
                return None;
            }
            seen.insert(*digest, ()).await;
        }
        bucket.presign(digest, SIGNED_FOR).await.ok()
    }
}
