//! Blobs in little memory: one array without gaps to speak of, and a table from digests to places in it.

use std::collections::HashMap;

use super::clock::Tick;
use super::policy::{Cost, Worth};
use super::{Half, half};
use crate::oci::Digest;

/// By how much the array grows, as a share of its length: doubling would cost half of it in the worst case.
const GROWTH: usize = 8;
const LEAST_GROWTH: usize = 1024;

/// What is known about a blob.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// All of a SHA-256 hash, the first half of a SHA-512 hash.
    name: [u8; 32],
    pub(super) size: u64,
    pub(super) stored: Tick,
    pub(super) used: Tick,
    /// The last use that its file tells of.
    pub(super) hinted: Tick,
    pub(super) worth: Worth,
    pub(super) cost: Cost,
    /// The image through which it was last used: images are numbered as they are used.
    pub(super) group: u32,
    pub(super) place: Place,
}

/// Where a blob stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: there is no such blob.
    Free,
    /// Used just now.
    Recent,
    /// Among those that go first.
    Plain,
    /// Among those that a newest tag keeps.
    Newest,
    /// Among those that are nowhere but here, and about to be uploaded.
    Unsent,
    /// Pinned: it does not go.
    Pinned,
    /// Chosen to go, and still there.
    Leaving,
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
    slots: HashMap<Half, u32>,
    places: Vec<Entry>,
    free: Vec<u32>,
    /// The second halves of SHA-512 hashes.
    tails: HashMap<u32, [u8; 32]>,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// One more than the highest slot there is.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn slot(&self, half: &Half) -> Option<u32> {
        self.slots.get(half).copied()
    }

    pub(super) fn get(&self, slot: u32) -> &Entry {
        &self.places[slot as usize]
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.places[slot as usize]
    }

    /// Adds a blob that is not among them; it stands nowhere yet. `None` after four billion of them.
    pub(super) fn add(&mut self, digest: &Digest, arrival: Arrival) -> Option<u32> {
        let Arrival { size, stored, used, cost, group } = arrival;
        let (mut name, mut tail) = ([0; 32], None);
        name.copy_from_slice(&digest.hash_bytes()[..32]);
        if let Digest::Sha512(hash) = digest {
            let mut second = [0; 32];
            second.copy_from_slice(&hash[32..]);
            tail = Some(second);
        }
        let (worth, place) = (Worth::of_use(used), Place::Free);
        let entry = Entry { name, size, stored, used, hinted: used, worth, cost, group, place };
        let slot = if let Some(slot) = self.free.pop() {
            *self.get_mut(slot) = entry;
            slot
        } else {
            let slot = u32::try_from(self.places.len()).ok()?;
            if self.places.len() == self.places.capacity() {
                self.places.reserve_exact((self.places.len() / GROWTH).max(LEAST_GROWTH));
            }
            self.places.push(entry);
            slot
        };
        if let Some(tail) = tail {
            self.tails.insert(slot, tail);
        }
        self.slots.insert(half(digest), slot);
        Some(slot)
    }

    /// Forgets a blob, which stands nowhere any more.
    pub(super) fn remove(&mut self, slot: u32) {
        let half = half(&self.digest(slot));
        self.slots.remove(&half);
        self.tails.remove(&slot);
        self.get_mut(slot).place = Place::Free;
        self.free.push(slot);
    }

    pub(super) fn digest(&self, slot: u32) -> Digest {
        let name = self.get(slot).name;
        let Some(tail) = self.tails.get(&slot) else { return Digest::Sha256(name) };
        let mut hash = [0; 64];
        hash[..32].copy_from_slice(&name);
        hash[32..].copy_from_slice(tail);
        Digest::Sha512(hash)
    }

    /// How many bytes of memory they take.
    pub(super) fn memory(&self) -> usize {
        // A table has a place more than it may hold for every seven, and a byte beside each.
        let table = self.slots.capacity() / 7 * 8;
        self.places.capacity() * size_of::<Entry>()
            + table * (size_of::<(Half, u32)>() + 1)
            + self.free.capacity() * size_of::<u32>()
            + self.tails.capacity() / 7 * 8 * (size_of::<(u32, [u8; 32])>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn digests_of_both_lengths_come_out_as_they_went_in() {
        let mut entries = Entries::default();
        let tick = Tick::START;
        let arrival = Arrival { size: 1, stored: tick, used: tick, cost: Cost::of(1, 1), group: 0 };
        let digests = [Digest::of(b"a"), Digest::of_with(Algorithm::Sha512, b"b"), Digest::of(b"c")];
        for _ in 0..2 {
            let slots: Vec<_> = digests.iter().map(|digest| entries.add(digest, arrival).unwrap()).collect();
            for (digest, slot) in digests.iter().zip(&slots) {
                assert_eq!((entries.digest(*slot), entries.slot(&half(digest))), (*digest, Some(*slot)));
            }
            for slot in slots {
                entries.remove(slot);
            }
            assert_eq!((entries.len(), entries.slots()), (0, 3), "the places are used again");
        }
    }
}
