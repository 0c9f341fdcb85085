//! What the directory does not let go of, as it is pinned; and that nothing goes while nobody can tell what that is.
//!
//! At start the records tell (`pins::seed`), from then on whoever keeps what is pinned does, who has the last word. Where
//! the records cannot be read at start, nothing is evicted until they can be: downloads that find no room pass through.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::StoreError;
use super::{Disk, Store};
use crate::oci::Digest;

/// Who has said what is pinned.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Nobody.
    #[default]
    None,
    /// The records.
    Records,
    /// Who keeps what is pinned.
    Keeper,
}

/// Whether it is known what is pinned. Locked before the index.
#[derive(Debug, Default)]
pub(super) struct Protection(Mutex<Word>);

impl Protection {
    /// Whether anything may be evicted.
    pub(super) fn is_known(&self) -> bool {
        *self.0.lock() != Word::None
    }
}

impl Store {
    /// Exactly `pinned` is not evicted from now on, stored or still to come: all digests of all images that are to stay.
    /// With a bucket, what is there may go from here.
    pub fn protect<'a>(&self, pinned: impl IntoIterator<Item = &'a Digest>) {
        self.disk.protect(pinned, Word::Keeper);
    }

    /// Whether a blob or manifest is pinned, stored or not.
    pub fn is_protected(&self, digest: &Digest) -> bool {
        self.disk.index.lock().is_pinned(digest)
    }

    /// The most bytes that may be pinned, and the setting that bounds them: a little is left for everything else to come
    /// and go. With a bucket, that is where they are.
    pub fn pinnable(&self) -> (u64, &'static str) {
        match &self.disk.tier {
            Some(tier) => (tier.replica.pinnable(), "store.s3.max_size"),
            None => (self.disk.capacity.keepable(), "store.max_size"),
        }
    }
}

impl Disk {
    /// The same as [`Store::protect`], by the records. Nothing happens if somebody knew better in the meantime.
    pub(super) fn protect_by_records<'a>(&self, pinned: impl IntoIterator<Item = &'a Digest>) {
        self.protect(pinned, Word::Records);
    }

    fn protect<'a>(&self, pinned: impl IntoIterator<Item = &'a Digest>, word: Word) {
        let mut last = self.protection.0.lock();
        if *last != Word::Keeper || word == Word::Keeper {
            *last = word;
            self.index.lock().pin(pinned, self.clock.now());
        }
    }

    /// Sees to it that it is known what is pinned: the records are looked into once more if it is not. Blocks.
    ///
    /// # Errors
    /// If it cannot be told. Then nothing may be evicted.
    pub(super) fn know_pins(&self) -> io::Result<()> {
        if self.protection.is_known() { Ok(()) } else { self.enter_pins() }
    }

    /// The same, off the threads that must not block. A failure is counted and logged by whoever asks.
    pub(super) async fn learn_pins(self: &Arc<Self>) -> Result<(), StoreError> {
        if self.protection.is_known() {
            return Ok(());
        }
        let disk = Arc::clone(self);
        self.pool.run("list", move || disk.know_pins()).await
    }
}
