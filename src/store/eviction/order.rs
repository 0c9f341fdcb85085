//! Where blobs stand: those that can go, in the order in which they do, and those used just now, until it is their turn to
//! join the others. Each is found, or changes its place, in the logarithm of their number.

use super::entries::{Entries, Place};
use super::places::Slot;
use super::tree::Tree;

#[derive(Debug, Default)]
pub(super) struct Order {
    /// Those used just now, by when they were.
    recent: Tree,
    /// Those that can go.
    ready: Tree,
    /// The bytes of those that can go.
    bytes: u64,
    /// How often one of the trees was searched or changed.
    operations: u64,
}

impl Order {
    /// Puts a blob, which stands nowhere, where its place is.
    pub(super) fn put(&mut self, entries: &mut Entries, slot: Slot) {
        let entry = entries.get(slot);
        let tree = match entry.place {
            Place::Recent => &mut self.recent,
            Place::Plain | Place::Newest | Place::Unsent => {
                self.bytes += entry.size();
                &mut self.ready
            }
            Place::Pinned | Place::Leaving | Place::Free => return,
        };
        tree.insert(entries, slot);
        self.operations += 1;
    }

    /// Takes a blob from where it stands.
    pub(super) fn take(&mut self, entries: &mut Entries, slot: Slot) {
        let entry = entries.get(slot);
        let tree = match entry.place {
            Place::Recent => &mut self.recent,
            Place::Plain | Place::Newest | Place::Unsent => {
                self.bytes -= entry.size();
                &mut self.ready
            }
            Place::Pinned | Place::Leaving | Place::Free => return,
        };
        tree.remove(entries, slot);
        self.operations += 1;
    }

    /// The one to go first.
    pub(super) fn first(&mut self, entries: &Entries) -> Option<Slot> {
        self.operations += 1;
        self.ready.first(entries)
    }

    /// Of those used just now, the one that was not used for longest.
    pub(super) fn first_recent(&mut self, entries: &Entries) -> Option<Slot> {
        self.operations += 1;
        self.recent.first(entries)
    }

    /// The bytes of all that could go now.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations
    }
}
