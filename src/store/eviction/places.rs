//! Numbered places that never move: growing copies none of them, and takes a thousand at a time.

use std::num::NonZeroU32;

/// How many places are made at once.
const CHUNK: usize = 1024;

/// The number of a place. It is kept as one more, so that "none" takes no room of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(NonZeroU32);

impl Slot {
    /// The one that has so many before it.
    pub(super) const fn at(index: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(index))
    }

    /// How many there are before it.
    pub(super) const fn index(self) -> u32 {
        self.0.get() - 1
    }
}

#[derive(Debug)]
pub(super) struct Places<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> Places<T> {
    /// How many there are.
    pub(super) fn len(&self) -> u32 {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        u32::try_from(full + self.chunks.last().map_or(0, Vec::len)).unwrap_or(u32::MAX)
    }

    pub(super) fn get(&self, slot: Slot) -> &T {
        let index = slot.index() as usize;
        &self.chunks[index / CHUNK][index % CHUNK]
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut T {
        let index = slot.index() as usize;
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }

    /// Adds one at the end. `None` after four billion of them.
    pub(super) fn push(&mut self, content: T) -> Option<Slot> {
        let index = self.len();
        if index == u32::MAX {
            return None;
        }
        if index as usize == self.chunks.len() * CHUNK {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks.last_mut()?.push(content);
        Some(Slot::at(index))
    }

    /// How many bytes of memory they take.
    pub(super) fn memory(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<T>() + self.chunks.capacity() * size_of::<Vec<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_where_they_are_however_many_come() {
        let mut places = Places::default();
        assert_eq!(places.len(), 0);
        let first = places.push(0_usize).unwrap();
        let at: *const usize = places.get(first);
        for index in 1..5 * CHUNK {
            assert_eq!(places.push(index).map(|slot| slot.index() as usize), Some(index));
            assert_eq!(places.len() as usize, index + 1);
        }
        for index in 0..places.len() {
            assert_eq!(*places.get(Slot::at(index)), index as usize);
            *places.get_mut(Slot::at(index)) += 1;
        }
        assert_eq!((*places.get(first), std::ptr::from_ref(places.get(first))), (1, at));
        assert!(places.memory() < 6 * CHUNK * size_of::<usize>());
    }

    #[test]
    fn none_takes_no_room() {
        assert_eq!((size_of::<Option<Slot>>(), Slot::at(0).index(), Slot::at(7).index()), (4, 0, 7));
    }
}
