//! What the upstream was asked for.

use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};

use super::answer::Method;
use crate::content::Kind;

/// Which of the registry's addresses a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    First,
    Further,
}

/// Counts while it goes on.
#[derive(Debug, Default)]
pub(super) struct Counters {
    manifest_heads: AtomicU64,
    manifest_gets: AtomicU64,
    blob_heads: AtomicU64,
    blob_gets: AtomicU64,
    /// `/v2/` and what does not exist.
    others: AtomicU64,
    /// For manifests and blobs, at an address that is not the first.
    further: AtomicU64,
    /// Bytes of bodies of blobs, as they are handed to the kernel.
    bytes: AtomicU64,
}

/// The counts at one moment, or between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) manifest_heads: u64,
    pub(crate) manifest_gets: u64,
    pub(crate) blob_heads: u64,
    pub(crate) blob_gets: u64,
    pub(crate) others: u64,
    /// Requests for manifests and blobs at an address that is not the first. They are among those above, too.
    pub(crate) further: u64,
    /// Bytes of bodies of blobs.
    pub(crate) bytes: u64,
}

impl Counters {
    pub(super) fn request(&self, door: Door, kind: Option<Kind>, method: Method) {
        if door == Door::Further && kind.is_some() {
            self.further.fetch_add(1, Ordering::Relaxed);
        }
        let counter = match (kind, method) {
            (Some(Kind::Manifest), Method::Head) => &self.manifest_heads,
            (Some(Kind::Manifest), Method::Get) => &self.manifest_gets,
            (Some(Kind::Blob), Method::Head) => &self.blob_heads,
            (Some(Kind::Blob), Method::Get) => &self.blob_gets,
            (None, _) => &self.others,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn blob_bytes(&self, sent: u64) {
        self.bytes.fetch_add(sent, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            manifest_heads: read(&self.manifest_heads),
            manifest_gets: read(&self.manifest_gets),
            blob_heads: read(&self.blob_heads),
            blob_gets: read(&self.blob_gets),
            others: read(&self.others),
            further: read(&self.further),
            bytes: read(&self.bytes),
        }
    }
}

impl Counts {
    /// Requests for manifests.
    pub(crate) fn manifests(&self) -> u64 {
        self.manifest_heads + self.manifest_gets
    }

    /// Requests for blobs.
    pub(crate) fn blobs(&self) -> u64 {
        self.blob_heads + self.blob_gets
    }

    /// All requests.
    pub(crate) fn requests(&self) -> u64 {
        self.manifests() + self.blobs() + self.others
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            manifest_heads: self.manifest_heads - earlier.manifest_heads,
            manifest_gets: self.manifest_gets - earlier.manifest_gets,
            blob_heads: self.blob_heads - earlier.blob_heads,
            blob_gets: self.blob_gets - earlier.blob_gets,
            others: self.others - earlier.others,
            further: self.further - earlier.further,
            bytes: self.bytes - earlier.bytes,
        }
    }
}
