//! What is stored, and in which order it goes. No I/O and no clock: what is done to files is told, the time goes in.

use std::collections::HashSet;
use std::time::Duration;

use super::clock::Tick;
use super::entries::{Arrival, Entries, Entry, Place};
use super::expected::Expected;
use super::newest::{Newest, RepositoryKey};
use super::order::Order;
use super::places::Slot;
use super::policy::{Cost, Lifetime, PERIOD, RECENT, is_kept_as_newest, is_recent};
use super::{Half, half};
use crate::oci::{Digest, Manifest};

/// How many of those that were used just now join the others for each that goes, where others can go.
const BROUGHT_IN: usize = 16;

/// A manifest that is served, and what it names.
#[derive(Debug, Clone)]
pub struct Image {
    /// The repository that it is served for.
    pub repository: RepositoryKey,
    /// Its digest and size in bytes.
    pub manifest: (Digest, u64),
    /// The blobs that make the image, with their sizes.
    pub blobs: Vec<(Digest, u64)>,
    /// The manifests that an index names.
    pub manifests: Vec<Digest>,
}

impl Image {
    /// What `view` says, which was read out of `manifest`.
    pub(in crate::store) fn of(repository: RepositoryKey, manifest: (Digest, u64), view: &Manifest) -> Self {
        let blobs = view.blobs.iter().filter(|blob| !blob.is_foreign());
        let blobs = blobs.map(|blob| (blob.digest, blob.size)).collect();
        Self { repository, manifest, blobs, manifests: view.manifests.iter().map(|child| child.digest).collect() }
    }
}

/// A blob that was chosen to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// Which.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What is known of a blob that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its size in bytes.
    pub size: u64,
    /// When it was last used.
    pub used: Tick,
}

/// Everything that is stored.
#[derive(Debug)]
pub struct Index {
    /// How long after its last use nothing goes.
    recent: Duration,
    entries: Entries,
    order: Order,
    expected: Expected,
    newest: Newest,
    pinned: HashSet<Half>,
    /// Whether what is pinned may go once it has been uploaded.
    lets_sent_go: bool,
    /// What is nowhere but here until it is uploaded.
    unsent: HashSet<Half>,
    /// Whose files are to be told of their last use.
    hints: Vec<Slot>,
    /// The number of the image that was used last.
    group: u32,
    bytes: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self::keeping(RECENT)
    }
}

impl Index {
    /// An empty one, from which nothing goes that was used within `recent`.
    pub fn keeping(recent: Duration) -> Self {
        Self {
            recent,
            entries: Entries::default(),
            order: Order::default(),
            expected: Expected::default(),
            newest: Newest::default(),
            pinned: HashSet::new(),
            lets_sent_go: false,
            unsent: HashSet::new(),
            hints: Vec::new(),
            group: 0,
            bytes: 0,
        }
    }

    /// An empty one, of a directory before a bucket: what is pinned stays only until it is there.
    pub fn before_bucket() -> Self {
        Self { lets_sent_go: true, ..Self::default() }
    }

    /// A blob was stored. Returns the size of the one it replaced, if it replaced one that was known.
    pub fn stored(&mut self, digest: &Digest, size: u64, now: Tick) -> Option<u64> {
        let half = half(digest);
        if let Some(slot) = self.entries.slot(&half) {
            let before = self.entries.get(slot).size();
            self.change(slot, now, |entry| {
                entry.worth = entry.worth.used_again(entry.used, now);
                entry.set_size(size);
                (entry.stored, entry.used, entry.hinted) = (now, now, now);
            });
            self.bytes = self.bytes - before + self.entries.get(slot).size();
            return Some(before);
        }
        self.add(digest, size, now, now, now);
        None
    }

    /// A blob was found at start: it was stored and last used then. Whether it was not known.
    pub fn found(&mut self, digest: &Digest, size: u64, stored: Tick, used: Tick, now: Tick) -> bool {
        let is_new = self.entries.slot(&half(digest)).is_none();
        if is_new {
            self.add(digest, size, stored, used, now);
        }
        is_new
    }

    fn add(&mut self, digest: &Digest, size: u64, stored: Tick, used: Tick, now: Tick) {
        // What belongs to no image is one by itself.
        let (group, cost) = self.expected.take(&half(digest)).unwrap_or_else(|| (self.next_group(), Cost::of(1, size)));
        let arrival = Arrival { size, stored, used, cost, group };
        if let Some(slot) = self.entries.add(digest, arrival) {
            self.bytes += self.entries.get(slot).size();
            self.settle(slot, now);
        }
    }

    fn next_group(&mut self) -> u32 {
        self.group = self.group.wrapping_add(1);
        self.group
    }

    /// A blob is used. Whoever was to go stays.
    pub fn used(&mut self, digest: &Digest, now: Tick) {
        let Some(slot) = self.entries.slot(&half(digest)) else { return };
        let entry = self.entries.get(slot);
        // Many ask for the same at once, and the first of them has said it all, unless it has been chosen since.
        if entry.used < now || entry.place == Place::Leaving {
            self.use_slot(slot, None, now);
        }
    }

    /// An image is used, as its manifest is served: all of it that is here, and what of it comes soon belongs to it.
    pub fn served(&mut self, image: &Image, now: Tick) {
        let Image { repository, manifest, blobs, manifests } = image;
        let bytes = manifest.1 + blobs.iter().map(|(_, size)| size).sum::<u64>();
        let group = (self.next_group(), Cost::of(1 + blobs.len() as u64, bytes));
        for (digest, _) in std::iter::once(manifest).chain(blobs) {
            match self.entries.slot(&half(digest)) {
                Some(slot) => self.use_slot(slot, Some(group), now),
                None => self.expected.insert(half(digest), group),
            }
        }
        let content = blobs.iter().map(|(digest, _)| digest).chain(manifests).map(half);
        let kept = self.newest.names(*repository, &half(&manifest.0), content);
        self.settle_all(kept, now);
    }

    /// Everything of an image that was found at start belongs together, with the times that its files tell of.
    pub fn belongs(&mut self, image: &Image, now: Tick) {
        let Image { repository, manifest, blobs, manifests } = image;
        let bytes = manifest.1 + blobs.iter().map(|(_, size)| size).sum::<u64>();
        let (group, cost) = (self.next_group(), Cost::of(1 + blobs.len() as u64, bytes));
        for (digest, _) in std::iter::once(manifest).chain(blobs) {
            if let Some(slot) = self.entries.slot(&half(digest)) {
                self.change(slot, now, |entry| (entry.group, entry.cost) = (group, cost));
            }
        }
        let content = blobs.iter().map(|(digest, _)| digest).chain(manifests).map(half);
        let kept = self.newest.names(*repository, &half(&manifest.0), content);
        self.settle_all(kept, now);
    }

    fn use_slot(&mut self, slot: Slot, image: Option<(u32, Cost)>, now: Tick) {
        self.change(slot, now, |entry| {
            entry.worth = entry.worth.used_again(entry.used, now);
            entry.used = entry.used.max(now);
            if let Some((group, cost)) = image {
                (entry.group, entry.cost) = (group, cost);
            }
        });
        let entry = self.entries.get_mut(slot);
        if now.since(entry.hinted) >= PERIOD {
            entry.hinted = now;
            self.hints.push(slot);
        }
    }

    /// A tag of a repository was resolved, in seconds since 1970.
    pub fn resolved(&mut self, repository: RepositoryKey, at: u64, manifest: &Digest, now: Tick) {
        let changed = self.newest.resolved(repository, at, half(manifest));
        self.settle_all(changed, now);
    }

    /// Exactly these do not go from now on, here or not. Before a bucket, those that are there may.
    pub fn pin<'a>(&mut self, digests: impl IntoIterator<Item = &'a Digest>, now: Tick) {
        self.pin_halves(digests.into_iter().map(half).collect(), now);
    }

    fn pin_halves(&mut self, pinned: HashSet<Half>, now: Tick) {
        let before = std::mem::replace(&mut self.pinned, pinned);
        let changed: Vec<_> = before.symmetric_difference(&self.pinned).copied().collect();
        self.settle_all(changed, now);
    }

    /// Exactly these do not go from now on, and what does not go from `other`.
    pub fn pin_also<'a>(&mut self, digests: impl IntoIterator<Item = &'a Digest>, other: &Self, now: Tick) {
        let mut pinned = other.pinned.clone();
        pinned.extend(digests.into_iter().map(half));
        self.pin_halves(pinned, now);
    }

    /// Everything has its place by `now`, after it was told of uses that lie back, in any order.
    pub fn settle_as_of(&mut self, now: Tick) {
        for slot in (0..self.entries.slots()).map(Slot::at) {
            if self.entries.get(slot).place != Place::Free {
                self.settle(slot, now);
            }
        }
        self.hints = Vec::new();
    }

    /// A blob, here or about to be, is nowhere else until [`Index::sent`]: it goes after everything else.
    pub fn unsent(&mut self, digest: &Digest, now: Tick) {
        let half = half(digest);
        if self.unsent.insert(half) {
            self.settle_all(vec![half], now);
        }
    }

    /// A blob has been uploaded, or will never be.
    pub fn sent(&mut self, digest: &Digest, now: Tick) {
        let half = half(digest);
        if self.unsent.remove(&half) {
            self.settle_all(vec![half], now);
        }
    }

    /// A blob has lost its name. Returns its size, if it was known.
    pub fn removed(&mut self, digest: &Digest) -> Option<u64> {
        let slot = self.entries.slot(&half(digest))?;
        self.order.take(&mut self.entries, slot);
        let size = self.entries.get(slot).size();
        self.entries.remove(slot);
        self.bytes -= size;
        Some(size)
    }

    /// Chooses the next to go. It is still there until [`Index::removed`], and stays if it is used or stored again
    /// before that: then [`Index::is_leaving`] says so.
    pub fn choose(&mut self, now: Tick) -> Option<Victim> {
        self.bring_in(BROUGHT_IN, now);
        loop {
            if let Some(slot) = self.order.first(&self.entries) {
                return Some(self.send_off(slot));
            }
            if self.bring_in(BROUGHT_IN, now) == 0 {
                return None;
            }
        }
    }

    /// Moves those that were used just now, and are no longer, to where they belong: at most so many. Returns how many.
    fn bring_in(&mut self, most: usize, now: Tick) -> usize {
        for brought in 0..most {
            let next = self.order.first_recent(&self.entries);
            let due = next.filter(|slot| !is_recent(self.entries.get(*slot).used, now, self.recent));
            let Some(slot) = due else { return brought };
            self.settle(slot, now);
        }
        most
    }

    fn send_off(&mut self, slot: Slot) -> Victim {
        self.order.take(&mut self.entries, slot);
        self.entries.get_mut(slot).place = Place::Leaving;
        self.victim(slot)
    }

    fn victim(&self, slot: Slot) -> Victim {
        Victim { digest: self.entries.digest(slot), size: self.entries.get(slot).size() }
    }

    /// Whether a blob that was chosen is still to go.
    pub fn is_leaving(&self, digest: &Digest) -> bool {
        self.entries.slot(&half(digest)).is_some_and(|slot| self.entries.get(slot).place == Place::Leaving)
    }

    /// A blob that was chosen cannot go: its turn comes again.
    pub fn stays(&mut self, digest: &Digest, now: Tick) {
        if let Some(slot) = self.entries.slot(&half(digest)).filter(|_| self.is_leaving(digest)) {
            self.settle(slot, now);
        }
    }

    /// Looks at `most` blobs from the place `from` on, in no order: those whose time is over are chosen, and those that
    /// a newest tag no longer keeps take their place among the others. Returns where to go on, if there is more.
    pub fn sweep(&mut self, from: u32, most: u32, lifetime: &Lifetime, now: Tick) -> (Vec<Victim>, Option<u32>) {
        let end = from.saturating_add(most).min(self.entries.slots());
        let mut over = Vec::new();
        for slot in (from..end).map(Slot::at) {
            let Entry { place, stored, used, .. } = *self.entries.get(slot);
            if matches!(place, Place::Plain | Place::Newest) && lifetime.is_over(stored, used, now) {
                over.push(self.send_off(slot));
            } else if place == Place::Newest && !is_kept_as_newest(used, now) {
                self.settle(slot, now);
            }
        }
        (over, (end < self.entries.slots()).then_some(end))
    }

    /// `most` blobs from the place `from` on, in no order, and where to go on, if there is more.
    pub fn list(&self, from: u32, most: u32) -> (Vec<Victim>, Option<u32>) {
        let end = from.saturating_add(most).min(self.entries.slots());
        let stored = (from..end).map(Slot::at).filter(|slot| self.entries.get(*slot).place != Place::Free);
        (stored.map(|slot| self.victim(slot)).collect(), (end < self.entries.slots()).then_some(end))
    }

    /// At most `most` blobs whose files are to be told that they were used just now.
    pub fn take_hints(&mut self, most: usize) -> Vec<Digest> {
        let first = self.hints.len().saturating_sub(most);
        let slots = self.hints.split_off(first);
        if self.hints.is_empty() {
            self.hints.shrink_to_fit();
        }
        let slots = slots.into_iter().filter(|slot| self.entries.get(*slot).place != Place::Free);
        slots.map(|slot| self.entries.digest(slot)).collect()
    }

    /// Changes what is known about a blob, and where it stands by that.
    fn change(&mut self, slot: Slot, now: Tick, change: impl FnOnce(&mut Entry)) {
        self.order.take(&mut self.entries, slot);
        change(self.entries.get_mut(slot));
        self.entries.get_mut(slot).place = self.standing(slot, now);
        self.order.put(&mut self.entries, slot);
    }

    fn settle(&mut self, slot: Slot, now: Tick) {
        self.change(slot, now, |_| {});
    }

    fn settle_all(&mut self, changed: Vec<Half>, now: Tick) {
        for half in changed {
            if let Some(slot) = self.entries.slot(&half) {
                self.settle(slot, now);
            }
        }
    }

    /// Where a blob belongs.
    fn standing(&self, slot: Slot, now: Tick) -> Place {
        let entry = self.entries.get(slot);
        let (used, half) = (entry.used, entry.half());
        if self.pinned.contains(&half) && (!self.lets_sent_go || self.unsent.contains(&half)) {
            Place::Pinned
        } else if is_recent(used, now, self.recent) {
            Place::Recent
        } else if self.unsent.contains(&half) {
            Place::Unsent
        } else if self.newest.contains(&half) && is_kept_as_newest(used, now) {
            Place::Newest
        } else {
            Place::Plain
        }
    }

    /// Whether a blob is stored.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.entries.slot(&half(digest)).is_some()
    }

    /// What is known of a blob, if it is stored.
    pub fn known(&self, digest: &Digest) -> Option<Known> {
        let entry = self.entries.get(self.entries.slot(&half(digest))?);
        Some(Known { size: entry.size(), used: entry.used })
    }

    /// Whether a blob is pinned, here or not.
    pub fn is_pinned(&self, digest: &Digest) -> bool {
        self.pinned.contains(&half(digest))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes of those that could go now.
    pub fn evictable(&mut self, now: Tick) -> u64 {
        while self.bring_in(BROUGHT_IN, now) == BROUGHT_IN {}
        self.order.bytes()
    }

    /// How often the order was searched or changed, each time in the logarithm of its length: what decisions cost.
    pub fn operations(&self) -> u64 {
        self.order.operations()
    }

    /// How many bytes of memory it takes.
    pub fn memory(&self) -> usize {
        self.entries.memory() + self.newest.memory() + self.expected.memory()
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
