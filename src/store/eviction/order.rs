//! Blobs in the order in which they go.
//!
//! Those used just now wait in a line, in which their turn comes by itself; the others stand in order of their worth,
//! so that the next to go is found, and a place changed, in the logarithm of their number.

use std::collections::{BTreeSet, VecDeque};

use super::clock::Tick;
use super::entries::{Entry, Place};
use super::policy::Worth;

/// A place in the order. Of the same worth, those of one image stand together, the image not used for longest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    worth: Worth,
    group: u32,
    pub(super) slot: u32,
}

impl Rank {
    fn of(slot: u32, entry: &Entry) -> Self {
        Self { worth: entry.worth.with(entry.cost), group: entry.group, slot }
    }
}

#[derive(Debug, Default)]
pub(super) struct Order {
    /// Who came when. Someone may have gone in the meantime, or have been used again.
    recent: VecDeque<(Tick, u32)>,
    plain: BTreeSet<Rank>,
    newest: BTreeSet<Rank>,
    unsent: BTreeSet<Rank>,
    /// The bytes of those in one of the sets.
    bytes: u64,
    /// How often one of the sets was searched or changed.
    operations: u64,
}

impl Order {
    /// Puts a blob, which stands nowhere, to `entry.place`.
    pub(super) fn put(&mut self, slot: u32, entry: &Entry) {
        if entry.place == Place::Recent {
            self.recent.push_back((entry.used, slot));
        } else if let Some(set) = self.set(entry.place) {
            if set.insert(Rank::of(slot, entry)) {
                self.bytes += entry.size;
            }
            self.operations += 1;
        }
    }

    /// Takes a blob from where it stands. Its place in the line of recent ones is passed over when its turn comes.
    pub(super) fn take(&mut self, slot: u32, entry: &Entry) {
        let Some(set) = self.set(entry.place) else { return };
        if set.remove(&Rank::of(slot, entry)) {
            self.bytes -= entry.size;
        }
        self.operations += 1;
    }

    fn set(&mut self, place: Place) -> Option<&mut BTreeSet<Rank>> {
        match place {
            Place::Plain => Some(&mut self.plain),
            Place::Newest => Some(&mut self.newest),
            Place::Unsent => Some(&mut self.unsent),
            Place::Recent | Place::Pinned | Place::Leaving | Place::Free => None,
        }
    }

    /// The one to go first.
    pub(super) fn first(&mut self) -> Option<u32> {
        self.operations += 1;
        let sets = [&self.plain, &self.newest, &self.unsent];
        sets.into_iter().find_map(BTreeSet::first).map(|rank| rank.slot)
    }

    /// The next in the line of recent ones, if it came before `due`. It is out of the line then.
    pub(super) fn next_recent(&mut self, due: impl Fn(Tick) -> bool) -> Option<u32> {
        let (since, _) = self.recent.front()?;
        if due(*since) { self.recent.pop_front().map(|(_, slot)| slot) } else { None }
    }

    /// The bytes of all that could go now.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    /// How many bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        // A node of a set has room for eleven, and is half full at least; what leads to the nodes is little beside them.
        let node = 11 * size_of::<Rank>() + 2 * size_of::<usize>();
        let sets = (self.plain.len() + self.newest.len() + self.unsent.len()).div_ceil(6) * node * 6 / 5;
        sets + self.recent.capacity() * size_of::<(Tick, u32)>()
    }
}
