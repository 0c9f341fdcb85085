//! Blobs in an order, which takes no memory but the two links that each of them has: a search tree, kept flat by chance.
//!
//! Each blob has a height, which is a random number, and nobody stands below a lower one (a treap). So a tree of a
//! million is some thirty deep, whatever comes and goes in which order; heights are drawn under a key of the process, so
//! that nobody can choose what comes and goes to make it deeper. A blob is in one tree at a time, and what it is ranked
//! by must not change while it is.

use std::hash::{BuildHasher, RandomState};

use super::clock::Tick;
use super::entries::{Entries, Links, Place};
use super::places::Slot;
use super::policy::Worth;

/// A place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Of the same worth, those of one image stand together, the image not used for longest first.
    ByWorth(Place, Worth, u32, Slot),
    /// Those used just now, by when they were.
    ByUse(Tick, Slot),
}

impl Rank {
    fn of(entries: &Entries, slot: Slot) -> Self {
        let entry = entries.get(slot);
        match entry.place {
            Place::Recent => Self::ByUse(entry.used, slot),
            place => Self::ByWorth(place, entry.worth.with(entry.cost), entry.group, slot),
        }
    }
}

/// Blobs in their order.
#[derive(Debug)]
pub(super) struct Tree {
    root: Option<Slot>,
    key: u64,
}

/// Where a part of the tree hangs.
#[derive(Debug, Clone, Copy)]
enum Branch {
    Root,
    Before(Slot),
    After(Slot),
}

impl Default for Tree {
    fn default() -> Self {
        Self { root: None, key: RandomState::new().hash_one(()) }
    }
}

impl Tree {
    /// The one that goes first.
    pub(super) fn first(&self, entries: &Entries) -> Option<Slot> {
        let mut first = self.root?;
        while let Some(before) = entries.get(first).links.before {
            first = before;
        }
        Some(first)
    }

    /// Adds a blob that is in no tree.
    pub(super) fn insert(&mut self, entries: &mut Entries, slot: Slot) {
        let (rank, height) = (Rank::of(entries, slot), self.height(slot));
        let mut branch = Branch::Root;
        while let Some(higher) = self.at(entries, branch).filter(|other| self.height(*other) > height) {
            branch = if rank < Rank::of(entries, higher) { Branch::Before(higher) } else { Branch::After(higher) };
        }
        // What hangs here is lower: it is cut in two along the rank of the new one, which comes above both.
        let mut rest = self.at(entries, branch);
        self.hang(entries, branch, Some(slot));
        let (mut before, mut after) = (Branch::Before(slot), Branch::After(slot));
        while let Some(lower) = rest {
            let links = entries.get(lower).links;
            if Rank::of(entries, lower) < rank {
                self.hang(entries, before, Some(lower));
                (before, rest) = (Branch::After(lower), links.after);
            } else {
                self.hang(entries, after, Some(lower));
                (after, rest) = (Branch::Before(lower), links.before);
            }
        }
        self.hang(entries, before, None);
        self.hang(entries, after, None);
    }

    /// Takes a blob away that is in this tree.
    pub(super) fn remove(&mut self, entries: &mut Entries, slot: Slot) {
        let rank = Rank::of(entries, slot);
        let mut branch = Branch::Root;
        while let Some(above) = self.at(entries, branch).filter(|other| *other != slot) {
            branch = if rank < Rank::of(entries, above) { Branch::Before(above) } else { Branch::After(above) };
        }
        // What hung on both sides of it is laid together, the higher one above.
        let Links { mut before, mut after } = std::mem::take(&mut entries.get_mut(slot).links);
        while let (Some(one), Some(other)) = (before, after) {
            if self.height(one) > self.height(other) {
                self.hang(entries, branch, Some(one));
                (branch, before) = (Branch::After(one), entries.get(one).links.after);
            } else {
                self.hang(entries, branch, Some(other));
                (branch, after) = (Branch::Before(other), entries.get(other).links.before);
            }
        }
        self.hang(entries, branch, before.or(after));
    }

    fn at(&self, entries: &Entries, branch: Branch) -> Option<Slot> {
        match branch {
            Branch::Root => self.root,
            Branch::Before(slot) => entries.get(slot).links.before,
            Branch::After(slot) => entries.get(slot).links.after,
        }
    }

    fn hang(&mut self, entries: &mut Entries, branch: Branch, part: Option<Slot>) {
        match branch {
            Branch::Root => self.root = part,
            Branch::Before(slot) => entries.get_mut(slot).links.before = part,
            Branch::After(slot) => entries.get_mut(slot).links.after = part,
        }
    }

    /// A random number that is always the same: it does not have to be kept.
    fn height(&self, slot: Slot) -> u64 {
        // The end of MurmurHash3, in which each bit changes half of the others.
        let mut bits = self.key ^ u64::from(slot.index());
        bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        bits ^ (bits >> 33)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::oci::Digest;
    use crate::store::eviction::entries::Arrival;
    use crate::store::eviction::policy::Cost;

    /// Blobs with these uses, in seconds, that stand nowhere yet.
    fn blobs(uses: &[u32], place: Place) -> (Entries, Vec<Slot>) {
        let mut entries = Entries::default();
        let slots = uses.iter().enumerate().map(|(number, used)| {
            let used = Tick::START.after(Duration::from_secs(u64::from(*used) * 3600));
            let group = u32::try_from(number % 3).unwrap();
            let arrival = Arrival { size: 1, stored: used, used, cost: Cost::of(1, 1), group };
            let slot = entries.add(&Digest::of(&number.to_le_bytes()), arrival).unwrap();
            entries.get_mut(slot).place = place;
            slot
        });
        let slots = slots.collect();
        (entries, slots)
    }

    /// All of a tree from the first on, after a look at whether nobody stands below a lower one. And how deep it is.
    fn all(tree: &Tree, entries: &Entries) -> (Vec<Slot>, usize) {
        let (mut found, mut waiting, mut next, mut deepest) = (Vec::new(), Vec::new(), tree.root, 0);
        loop {
            while let Some(slot) = next {
                waiting.push(slot);
                let links = entries.get(slot).links;
                for below in [links.before, links.after].into_iter().flatten() {
                    assert!(tree.height(below) <= tree.height(slot));
                }
                next = links.before;
            }
            deepest = deepest.max(waiting.len());
            let Some(slot) = waiting.pop() else { return (found, deepest) };
            found.push(slot);
            next = entries.get(slot).links.after;
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_those_there_stand_in_their_order(
            uses in prop::collection::vec(0..20_u32, 1..60),
            steps in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
            is_recent in any::<bool>(),
        ) {
            let (mut entries, slots) = blobs(&uses, if is_recent { Place::Recent } else { Place::Plain });
            let (mut tree, mut model) = (Tree::default(), BTreeSet::new());
            for step in steps {
                let slot = *step.get(&slots);
                if model.remove(&(Rank::of(&entries, slot), slot)) {
                    tree.remove(&mut entries, slot);
                } else {
                    model.insert((Rank::of(&entries, slot), slot));
                    tree.insert(&mut entries, slot);
                }
                let expected: Vec<_> = model.iter().map(|(_, slot)| *slot).collect();
                prop_assert_eq!(tree.first(&entries), expected.first().copied());
                prop_assert_eq!(all(&tree, &entries).0, expected);
            }
        }
    }

    #[test]
    fn those_that_come_in_their_order_make_no_chain() {
        let uses: Vec<_> = (0..20_000).collect();
        for place in [Place::Recent, Place::Plain] {
            let (mut entries, slots) = blobs(&uses, place);
            let mut tree = Tree::default();
            for slot in &slots {
                tree.insert(&mut entries, *slot);
            }
            let (found, deep) = all(&tree, &entries);
            assert_eq!(found, slots);
            // Three times what is expected: the odds against it are beyond counting.
            assert!(deep < 100, "{deep}");
        }
    }
}
