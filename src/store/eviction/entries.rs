//! Blobs in little memory: everything about one stands in one place of 72 bytes, and a table of numbers of places finds it
//! by the digest, which is kept there alone.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::clock::Tick;
use super::places::{Places, Slot};
use super::policy::{Cost, Worth};
use super::{Half, half};
use crate::oci::Digest;

/// Whom a blob has on both sides: see [`super::tree`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) before: Option<Slot>,
    pub(super) after: Option<Slot>,
}

/// A size in bytes, of which six are enough: no file system has files of 256 TiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size([u8; 6]);

impl Size {
    fn of(bytes: u64) -> Self {
        let [a, b, c, d, e, f, _, _] = bytes.min((1 << 48) - 1).to_le_bytes();
        Self([a, b, c, d, e, f])
    }

    fn bytes(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

/// What is known about a blob.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// All of a SHA-256 hash, the first half of a SHA-512 hash.
    name: [u8; 32],
    size: Size,
    pub(super) place: Place,
    pub(super) stored: Tick,
    pub(super) used: Tick,
    /// The last use that its file tells of.
    pub(super) hinted: Tick,
    pub(super) worth: Worth,
    pub(super) cost: Cost,
    /// The image through which it was last used: images are numbered as they are used.
    pub(super) group: u32,
    pub(super) links: Links,
}

const _: () = assert!(size_of::<Entry>() == 72, "There are a million of them");

impl Entry {
    pub(super) fn half(&self) -> Half {
        let mut half = Half::default();
        half.copy_from_slice(&self.name[..size_of::<Half>()]);
        half
    }

    pub(super) fn size(&self) -> u64 {
        self.size.bytes()
    }

    pub(super) fn set_size(&mut self, bytes: u64) {
        self.size = Size::of(bytes);
    }
}

/// Where a blob stands. Those that can go are in the order in which they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Among those that go first.
    Plain,
    /// Among those that a newest tag keeps.
    Newest,
    /// Among those that are nowhere but here, and about to be uploaded.
    Unsent,
    /// Used just now.
    Recent,
    /// Pinned: it does not go.
    Pinned,
    /// Chosen to go, and still there.
    Leaving,
    /// Nowhere: there is no such blob.
    Free,
}

/// A new blob.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) size: u64,
    pub(super) stored: Tick,
    pub(super) used: Tick,
    pub(super) cost: Cost,
    pub(super) group: u32,
}

/// All blobs.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// By first halves of digests, under a key that nobody knows who makes blobs.
    slots: HashTable<Slot>,
    key: RandomState,
    places: Places<Entry>,
    /// The first of the places that are free. Each of them has the next one after it.
    free: Option<Slot>,
    /// The second halves of SHA-512 hashes.
    tails: HashMap<Slot, [u8; 32]>,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many places there are, free ones among them.
    pub(super) fn slots(&self) -> u32 {
        self.places.len()
    }

    pub(super) fn slot(&self, half: &Half) -> Option<Slot> {
        self.slots.find(self.key.hash_one(half), |slot| self.get(*slot).half() == *half).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> &Entry {
        self.places.get(slot)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Entry {
        self.places.get_mut(slot)
    }

    /// Adds a blob that is not among them; it stands nowhere yet. `None` after four billion of them.
    pub(super) fn add(&mut self, digest: &Digest, arrival: Arrival) -> Option<Slot> {
        let Arrival { size, stored, used, cost, group } = arrival;
        let mut name = [0; 32];
        name.copy_from_slice(&digest.hash_bytes()[..32]);
        let slot = self.place(Entry {
            name,
            size: Size::of(size),
            place: Place::Free,
            stored,
            used,
            hinted: used,
            worth: Worth::of_use(used),
            cost,
            group,
            links: Links::default(),
        })?;
        if let Digest::Sha512(hash) = digest {
            let mut tail = [0; 32];
            tail.copy_from_slice(&hash[32..]);
            self.tails.insert(slot, tail);
        }
        let (key, places) = (&self.key, &self.places);
        let hash_of = |slot: &Slot| key.hash_one(places.get(*slot).half());
        self.slots.insert_unique(key.hash_one(half(digest)), slot, hash_of);
        Some(slot)
    }

    fn place(&mut self, entry: Entry) -> Option<Slot> {
        let Some(slot) = self.free else { return self.places.push(entry) };
        self.free = self.get(slot).links.after;
        *self.get_mut(slot) = entry;
        Some(slot)
    }

    /// Forgets a blob, which stands nowhere any more.
    pub(super) fn remove(&mut self, slot: Slot) {
        let hash = self.key.hash_one(self.get(slot).half());
        if let Ok(found) = self.slots.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
        self.tails.remove(&slot);
        let links = Links { before: None, after: self.free };
        let entry = self.get_mut(slot);
        (entry.place, entry.links) = (Place::Free, links);
        self.free = Some(slot);
    }

    pub(super) fn digest(&self, slot: Slot) -> Digest {
        let name = self.get(slot).name;
        let Some(tail) = self.tails.get(&slot) else { return Digest::Sha256(name) };
        let mut hash = [0; 64];
        hash[..32].copy_from_slice(&name);
        hash[32..].copy_from_slice(tail);
        Digest::Sha512(hash)
    }

    /// How many bytes of memory they take.
    pub(super) fn memory(&self) -> usize {
        self.places.memory()
            + self.slots.allocation_size()
            // A table has a place more than it may hold for every seven, and a byte beside each.
            + self.tails.capacity() / 7 * 8 * (size_of::<(Slot, [u8; 32])>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    fn arrival(size: u64) -> Arrival {
        let tick = Tick::START;
        Arrival { size, stored: tick, used: tick, cost: Cost::of(1, 1), group: 0 }
    }

    #[test]
    fn digests_of_both_lengths_come_out_as_they_went_in() {
        let mut entries = Entries::default();
        let digests = [Digest::of(b"a"), Digest::of_with(Algorithm::Sha512, b"b"), Digest::of(b"c")];
        for _ in 0..2 {
            let slots: Vec<_> = digests.iter().map(|digest| entries.add(digest, arrival(1)).unwrap()).collect();
            for (digest, slot) in digests.iter().zip(&slots) {
                assert_eq!((entries.digest(*slot), entries.slot(&half(digest))), (*digest, Some(*slot)));
            }
            for slot in slots {
                entries.remove(slot);
            }
            assert_eq!((entries.len(), entries.slots()), (0, 3), "the places are used again");
        }
    }

    #[test]
    fn sizes_of_all_files_there_can_be_come_out_as_they_went_in() {
        for bytes in [0, 1, 255, 256, u64::from(u32::MAX) + 1, 1 << 44, (1 << 48) - 1] {
            assert_eq!(Size::of(bytes).bytes(), bytes);
        }
        assert_eq!(Size::of(u64::MAX), Size::of(1 << 48), "and those there cannot be are large");
    }
}
